"""Memory of a network's training step: the plan's arena beside its lower bound, and peak memory beside
torch's.

Peaks are those of fresh processes that do nothing else, above what each held once its library was imported
and the model made: libraries differ in size, and that is not what is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ..first_call import fresh
from ..report import text
from .networks import Network

STEPS = 4

_HEAD = """
import json, resource, sys
import numpy as np
def peak():
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
from kernelwright.bench.whole.networks import get_network
network = get_network({name!r})
batch = network.draw(np.random.default_rng(0), network.batch)
found = {{}}
"""
_OURS = (
    _HEAD
    + """
import kernelwright as kw
from kernelwright.bench.whole.steps import training_step
with kw.using(threads={threads}):
    step, model, state = training_step(network, 1e-3, like_torch=False)
    x, labels = map(kw.array, batch)
    found["before"] = peak()
    for _ in range({steps}):
        model, state, loss = step(model, state, x, labels)
    found["loss"] = float(loss)
    plan = step.plan
found["arena"], found["bound"], found["scratch"] = (
    plan.arena_bytes, plan.arena_lower_bound, plan.scratch_bytes
)
found["peak"] = peak()
print(json.dumps(found))
"""
)
_THEIRS = (
    _HEAD
    + """
import torch
from kernelwright.bench.whole.rivals import torch_step
torch.set_num_threads({threads})
step = torch_step(network, batch, 1e-3)
found["before"] = peak()
for _ in range({steps}):
    loss = step()
found["loss"] = float(loss)
found["peak"] = peak()
print(json.dumps(found))
"""
)


def measure(network: Network, threads: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Bytes, each library in a process of its own: `{"ours": {...}, "theirs": {...}}`.

    Raises:
        FreshProcessError: when a process fails.
    """
    found: dict[str, Any] = {"network": network.name, "threads": threads}
    # Once before: what compiles kernels holds a compiler, which a second process does not need.
    for who, code in (("warm", _OURS), ("ours", _OURS), ("theirs", _THEIRS)):
        tell(f"memory of {network.name}: {who}")
        words = code.format(name=network.name, threads=threads, steps=STEPS)
        found[who] = fresh(words, dict(os.environ), 900.0)
    found.pop("warm")
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """What was found, in words."""
    ours, theirs = found["ours"], found["theirs"]
    share = ours["arena"] / ours["bound"] if ours["bound"] else 1.0
    return [
        f"{found['network']}: arena {text.nbytes(ours['arena'])}, {share:.3f} times the lower bound from "
        f"lifetimes; scratch {text.nbytes(ours['scratch'])}",
        f"{found['network']}: peak memory of the process {text.nbytes(ours['peak'])}, torch eager's "
        f"{text.nbytes(theirs['peak'])}; of that for the steps "
        f"{text.nbytes(ours['peak'] - ours['before'])} and {text.nbytes(theirs['peak'] - theirs['before'])}",
    ]
