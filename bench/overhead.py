"""What a call costs when there is next to nothing to compute: 8x8 matrices from Python, beside torch.

Two races, each of like against like: Arrays in and out against `torch.mm(a, b)`, which both allocate their
    result, and
NumPy arrays with `out=` against `torch.mm(a, b, out=c)`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..engine import functional
from ..engine.array import array
from ..kernels.settings import using
from .baselines import get_baseline
from .compare import ratio_interval
from .probe import Probe
from .timing import Call, Lane, Timing, call_loop, race

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
