"""Over many steps on a GPU: replays give the same bits, nothing is left behind, training learns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..whole.networks import get_network
from ..whole.steps import our_step

STEPS, SETTLED = 10_000, 200
LR = 1e-3
EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = ("digits_mlp.py", "digits_cnn.py", "digits_lstm.py", "digits_autoencoder.py")


def same_bits(name: str, device: str, steps: int = 50, seed: int = 0) -> dict[str, Any]:
    """Two runs of a training step from the same start, whose losses must be equal to the bit."""
    network = get_network(name)
    batch = network.draw(np.random.default_rng(seed), network.batch)
    rows = []
    for _ in range(2):
        step = our_step(network, batch, LR, device)
        rows.append(np.array([float(loss.item()) for loss in [step() for _ in range(steps)]]))
    same = bool(np.array_equal(rows[0], rows[1]))
    first = None if same else int(np.flatnonzero(rows[0] != rows[1])[0])
    return {"status": "right" if same else "wrong", "steps": steps, "differ_from": first}


def leaks(name: str, device: str, steps: int = STEPS) -> dict[str, Any]:
    """Bytes that torch's allocator has handed out, after some steps and after many."""
    import torch

    network = get_network(name)
    step = our_step(network, network.draw(np.random.default_rng(0), network.batch), LR, device)
    marks: dict[int, int] = {}
    loss = None
    for number in range(1, steps + 1):
        loss = step()
        if number in (SETTLED, steps):
            torch.cuda.synchronize()
            marks[number] = torch.cuda.memory_allocated()
    grown = marks[steps] - marks[min(SETTLED, steps)]
    return {
        "status": "right" if grown <= 0 else "wrong",
        "steps": steps,
        "bytes": marks[steps],
        "grown": grown,
        "loss": None if loss is None else float(loss.item()),
    }


def digits(seconds: float = 120.0) -> dict[str, Any]:
    """The examples that train on digits, by the command that a user writes; each fails below its accuracy."""
    found: dict[str, Any] = {"status": "right", "said": {}}
    for name in DIGITS:
        command = [sys.executable, str(EXAMPLES / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        lines = (done.stdout or done.stderr).strip().splitlines()
        found["said"][name] = lines[-1] if lines else ""
        if done.returncode:
            found["status"] = "wrong"
    return found
