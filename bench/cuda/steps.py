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

from ...engine import nn, optim
from ...engine.array import Array, array
from ...engine.autograd import value_and_grad
from ...engine.compile import compile as compiled
from ...engine.functional.loss import cross_entropy
from ...engine.training.precision import lowered
from ..whole.networks import Network
from ..whole.networks.network import Batch
from ..whole.rivals import torch_model
from ..whole.steps import ALWAYS_ALLOWED, STEPS_COMPARED, TIMED_LR, TIMES_THEIRS

Step = Callable[[], Any]
ROUNDS, WARM_STEPS = 9, 12
ROUND_SECONDS = 0.05


def our_step(network: Network, batch: Batch, lr: float, device: str) -> Step:
    """A training step as a function without arguments; returns the loss, an Array on the device."""
    optimizer = network.our_optimizer(lr)

    def loss_of(params: Any, rest: Any, x: Any, labels: Any) -> tuple[Any, Any]:
        used, stands = lowered(nn.combine(params, rest), network.precision)
        with nn.training() as run:
            loss = cross_entropy(stands(x), labels)
        return loss, nn.partition(run.updated(used))[1]

    def step(model: Any, state: Any, x: Any, labels: Any) -> tuple[Any, Any, Any]:
        params, rest = nn.partition(model)
        (loss, rest), grads = value_and_grad(loss_of, has_aux=True)(params, rest, x, labels)
        params, state = optimizer.update(params, grads, state)
        return nn.combine(params, rest), state, loss

    run = compiled(step, donate=(0, 1))
    held = [*_model_and_state(network, optimizer, device)]
    x, labels = (array(part, device=device) for part in batch)

    def call() -> Array:
        held[0], held[1], loss = run(held[0], held[1], x, labels)
        return loss  # type: ignore[no-any-return]

    return call


def _model_and_state(network: Network, optimizer: optim.Optimizer, device: str) -> tuple[Any, Any]:
    """The network with the parameters that `torch_model` has, and its optimizer's state, on the device."""
    from ...engine import tree

    model = nn.from_torch_state_dict(network.ours(0), torch_model(network).state_dict())
    made = (model, optimizer.init(model))
    return tuple(tree.map(lambda x: array(x, device=device), one) for one in made)


def their_step(
    network: Network, batch: Batch, lr: float, device: str, compile_it: bool = False, dtype: Any = None
) -> Step:
    """The same as torch has it; `dtype` computes throughout in another one, for the comparison."""
    import torch

    model = torch_model(network).to(device)
    x, y = (torch.from_numpy(part).to(device) for part in batch)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if dtype is not None:
        model, x = model.to(dtype), x.to(dtype) if x.is_floating_point() else x
    optimizer = network.their_optimizer(model.parameters(), lr, fused=True)
    low = None if dtype is not None or network.precision is None else getattr(torch, network.precision)
    kind = torch.device(device).type

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast(kind, low, enabled=low is not None):
            out = model(x)
        return torch.nn.functional.cross_entropy(out.float() if dtype is None else out, y)

    loss_fn = torch.compile(loss_of, mode="max-autotune") if compile_it else loss_of

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def raced(network: Network, device: str, compile_theirs: bool = True, seed: int = 0) -> dict[str, Any]:
    """Compare the losses of the first steps, and race. What a job's result says of it."""
    import torch

    batch = network.draw(np.random.default_rng(seed), network.batch)
    exact = _losses(their_step(network, batch, network.lr, device, dtype=torch.float64))
    theirs = _losses(their_step(network, batch, network.lr, device))
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
        "theirs": their_step(network, batch, TIMED_LR, device, compile_theirs),
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
