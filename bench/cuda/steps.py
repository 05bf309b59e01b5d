"""Whole training steps on a GPU, against torch.compile with CUDA graphs.

Both have equal weights, equal batches that lie on the device already, parameters in float32, and compute in
the network's precision (torch by autocast). torch's forward and backward are compiled by
`mode="max-autotune"`, images channels-last, and its optimizer is the fused one. A step is timed with all that
the host does for it: some steps are queued one after the other, with events before and behind them, the two
sides taking turns.

Before that, the losses of the first steps are compared with those of the same steps in float64: ours may be
further from them than torch's by a few times, as in `bench/whole/steps.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from ..whole.networks import Network
from ..whole.rivals import torch_step
from ..whole.steps import ALWAYS_ALLOWED, STEPS_COMPARED, TIMED_LR, TIMES_THEIRS, our_step

Step = Callable[[], Any]
ROUNDS, WARM_STEPS = 9, 12
ROUND_SECONDS = 0.05


def raced(network: Network, device: str, compile_theirs: bool = True, seed: int = 0) -> dict[str, Any]:
    """Compare the losses of the first steps, and race. What a job's result says of it."""
    import torch

    batch = network.draw(np.random.default_rng(seed), network.batch)
    exact = _losses(torch_step(network, batch, network.lr, dtype=torch.float64, device=device))
    theirs = _losses(torch_step(network, batch, network.lr, device=device))
    ours = _losses(our_step(network, batch, network.lr, device))
    scale = float(np.abs(exact).max())
    error, their_error = (float(np.abs(one - exact).max()) / scale for one in (ours, theirs))
    right = error <= max(TIMES_THEIRS * their_error, ALWAYS_ALLOWED)
    found: dict[str, Any] = {
        "status": "right" if right else "wrong",
        "told": network.told,
        "goal": network.goal,
        "error": error,
        "their_error": their_error,
        "losses": [ours.tolist(), theirs.tolist(), exact.tolist()],
    }
    if not right:
        return found
    sides = {
        "ours": our_step(network, batch, TIMED_LR, device),
        "theirs": torch_step(network, batch, TIMED_LR, compile_theirs, device=device, mode="max-autotune"),
    }
    times = _timed(sides, device)
    pairs = list(zip(times["ours"], times["theirs"], strict=True))
    return found | {
        "ours_s": median(times["ours"]),
        "theirs_s": median(times["theirs"]),
        "ratio": median(other / own for own, other in pairs),
        "rounds": times,
        "baseline": 'torch.compile(mode="max-autotune")' if compile_theirs else "torch",
    }


def _losses(step: Step) -> np.ndarray[Any, Any]:
    """The losses of the first steps."""
    found = [step() for _ in range(STEPS_COMPARED)]
    return np.array([float(loss.item()) for loss in found])


def _timed(sides: dict[str, Step], device: str) -> dict[str, list[float]]:
    """Seconds of a step of each side in each round."""
    span = _event_span if device.startswith("cuda") else _host_span
    rounds, warm = (ROUNDS, WARM_STEPS) if device.startswith("cuda") else (1, 1)
    counts = {}
    for name, step in sides.items():
        span(step, warm)
        counts[name] = max(1, round(ROUND_SECONDS / max(span(step, warm) / warm, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, step in sides.items():
            found[name].append(span(step, counts[name]) / counts[name])
    return found


def _event_span(step: Step, count: int) -> float:
    """Seconds between events before and behind some steps, queued as fast as the host can."""
    import torch

    cuda: Any = torch.cuda
    start, end = (cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        step()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _host_span(step: Step, count: int) -> float:
    import time

    started = time.perf_counter()
    for _ in range(count):
        step()
    return time.perf_counter() - started
