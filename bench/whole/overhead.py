"""What a call costs when there is next to nothing to compute: 8x8 matrices from Python, beside torch.

Two races, each of like against like: Arrays in and out against `torch.mm(a, b)`, which both allocate their
    result, and
NumPy arrays with `out=` against `torch.mm(a, b, out=c)`.
"""

from __future__ import annotations

import operator
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...engine import functional
from ...engine.array import array
from ...engine.compile import compile
from ...engine.passes import Switches
from ...kernels.paths import CACHE_VARIABLE
from ...kernels.settings import using
from .. import first_call
from ..baselines import get_baseline
from ..compare.intervals import ratio_interval
from ..timing import Call, Lane, Probe, Timing, call_loop, closure_loop, race

SIZE = 8


def measure(probe: Probe, options: Timing, seed: int = 0) -> list[dict[str, Any]] | None:
    """The two races on one thread; None when torch is not installed.

    Returns:
        For each: what was called on either side, seconds a call, and how many times torch's time ours is,
            with its
        95% interval.
    """
    vendor = get_baseline("torch")
    if vendor.missing() is not None:
        return None
    import torch

    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    c, d = np.empty_like(a), np.empty_like(a)
    tensors = tuple(map(torch.from_numpy, (a, b, d)))
    arrays = (array(a), array(b), None)
    # Microseconds a call: a batch of a few thousand, and as many pairs as a longer race has.
    options = replace(options, min_batch_s=max(options.min_batch_s, 2e-3))
    rows = (
        ("kw.matmul(a, b), Arrays", arrays, "torch.mm(a, b)", False),
        ("kw.matmul(a, b, out=c), NumPy arrays", (a, b, c), "torch.mm(a, b, out=c)", True),
    )
    found = []
    with using(threads=1), vendor.session(1):
        for ours_text, args, theirs_text, out in rows:
            ours = Lane(ours_text, call_loop(functional.get("matmul"), 2, out), [Call(args, (c,))])
            theirs = Lane(theirs_text, call_loop(torch.mm, 2, out), [Call(tensors, (d,))])
            result = race(ours, theirs, probe=probe, options=options, rng=rng)
            times = ratio_interval([(t, o) for o, t in result.pairs])
            found.append(
                {
                    "ours": ours_text,
                    "theirs": theirs_text,
                    "ours_s": result.ours_s,
                    "theirs_s": result.theirs_s,
                    "times_theirs": times.value,
                    "low": times.low,
                    "high": times.high,
                    "noisy": result.noisy,
                }
            )
    return found


STEPS = 50
LENGTH = 16
_COMPILE = """
import json, time
import numpy as np
import kernelwright as kw
from kernelwright.bench.whole.networks import get_network
from kernelwright.bench.whole.steps import training_step
network = get_network({name!r})
with kw.using(threads=1):
    step, model, state = training_step(network, 1e-3, like_torch=False)
    x, labels = map(kw.array, network.draw(np.random.default_rng(0), network.batch))
    before = time.perf_counter()
    model, state, loss = step(model, state, x, labels)
    first = time.perf_counter() - before
    before = time.perf_counter()
    model, state, loss = step(model, state, x, labels)
    second = time.perf_counter() - before
print(json.dumps({{"first_s": first, "step_s": second, "loss": float(loss)}}))
"""


def plans(probe: Probe, options: Timing, tell: Callable[[str], None], seed: int = 0) -> list[dict[str, Any]]:
    """Races on one thread: 50 tiny pointwise operations as a plan against torch eager, and single calls.

    Returns:
        For each: what was called, seconds, our time over torch's with its 95% interval, and what is wanted.
    """
    import torch

    rng = np.random.default_rng(seed)
    x, y = (rng.uniform(0.5, 1.5, LENGTH).astype(np.float32) for _ in range(2))
    ours, theirs = (array(x), array(y)), (torch.from_numpy(x), torch.from_numpy(y))
    options = replace(options, min_batch_s=max(options.min_batch_s, 2e-3))
    many, one = _chain, operator.add
    rows = (
        (f"{STEPS} operations on {LENGTH} numbers, not fused", many, replace(Switches(), fusion=False), 0.2),
        (f"{STEPS} operations on {LENGTH} numbers, fused", many, Switches(), 0.05),
        ("a compiled x + y, against torch.add(x, y)", one, Switches(), 3.0),
    )
    found = []
    with using(threads=1), get_baseline("torch").session(1):
        for told, function, switches, wanted in rows:
            tell(told)
            compiled = compile(function, switches=switches)
            eager = torch.add if function is operator.add else function
            same = np.allclose(np.asarray(compiled(*ours)), eager(*theirs).numpy(), rtol=1e-5)
            lanes = [
                Lane(name, closure_loop, [Call((partial(f, *args),))], read=lambda r: (np.asarray(r),))
                for name, f, args in (("ours", compiled, ours), ("torch", eager, theirs))
            ]
            result = race(lanes[0], lanes[1], probe=probe, options=options, rng=rng)
            times = ratio_interval([(t, o) for o, t in result.pairs])
            found.append(
                {
                    "what": told,
                    "same": bool(same),
                    "steps": len(compiled.plan.calls),
                    "ours_s": result.ours_s,
                    "theirs_s": result.theirs_s,
                    "times_theirs": times.value,
                    "low": times.low,
                    "high": times.high,
                    "wanted": wanted,
                    "noisy": result.noisy,
                }
            )
    return found


def _chain(x: Any, y: Any) -> Any:
    """Fifty operations that no exact rule of algebra takes together."""
    for number in range(STEPS // 2):
        x = x * y if number % 2 else x + y
        x = x - y
    return x


def line(row: dict[str, Any]) -> str:
    """A row of `plans`, in words."""
    ours, theirs = (f"{row[name] * 1e6:.2f} µs" for name in ("ours_s", "theirs_s"))
    times = f"{row['times_theirs']:.3f} times ({row['low']:.3f}–{row['high']:.3f})"
    wrong = "" if row["same"] else "; RESULTS DIFFER"
    return (
        f"{row['what']}: {ours} in {row['steps']} steps, torch {theirs}: {times}, wanted at most "
        f"{row['wanted']:g}{wrong}"
    )


def compile_times(tell: Callable[[str], None], name: str = "resnet18") -> list[dict[str, Any]]:
    """Seconds until a network's training step has run for the first time, in fresh processes: with an empty
    cache directory, and with the one that this filled."""
    found = []
    with tempfile.TemporaryDirectory(prefix="kernelwright-compile-") as directory:
        here = {**os.environ, CACHE_VARIABLE: directory}
        for what, wanted in (("cold", 20.0), ("warm", 3.0)):
            tell(f"compiling {name}'s training step, {what}")
            times = first_call.fresh(_COMPILE.format(name=name), here, 600.0)
            seconds = times["first_s"] - times["step_s"]
            found.append({"network": name, "cache": what, "seconds": seconds, "wanted": wanted, **times})
    return found


def compile_line(row: dict[str, Any]) -> str:
    """A row of `compile_times`, in words."""
    return (
        f"compiling {row['network']}'s training step, {row['cache']}: {row['seconds']:.2f} s, wanted under "
        f"{row['wanted']:g} s (the step itself {row['step_s'] * 1e3:.0f} ms)"
    )
