"""Reductions on the CPU: generated vector code for every dtype, layout and set of axes.

    rows       x[.., n] over its last axis: 8 vectors of partial results run along a line
    columns    x[n, ..] over an axis that is not the last: 8 rows at a time into a panel of results
    steps      neither lies side by side: one element at a time

`geometry.py` finds the loops, `kinds.py` has what each reduction does, `emit.py` writes the code. Memory is
read once, from front to back. Threads share the results, or the elements where results are few: their states
are then merged in order, so that equal thread counts give equal bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..cpu.generate import address_of
from ..cpu.launch import bind_phases
from ..kernel import Config, Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from . import emit, emit_columns
from .axes import axes_of
from .geometry import MOST_KEPT, MOST_REDUCED, Geometry, geometry
from .kinds import FLAGS
from .lanes import computed_bytes
from .op import REDUCTIONS

# Bytes read by a call for which another thread pays: about 5 us of reading.
WORTH_A_THREAD = 1 << 17
# Bytes of the states of a panel, for each number of a state: as wide as they go into the nearest cache.
# Narrow panels of wide rows touch many pages at a time, and their rows fall on the same lines of the cache:
# a variance down 4096 columns of float32 took 12 ms with a panel of 512, and 3.3 ms with one of 4096 and
# pieces of 8 rows (one core of an AMD Zen 5, November 2026).
PANEL_BYTES = 1 << 14
# Rows of fewer columns than these are joined: one would hardly fill a vector.
NARROW = 64
SIDE_BY_SIDE = {"var": 4, "std": 4, "logsumexp": 2}
KINDS = tuple(name for name in REDUCTIONS if name not in ("argmax", "argmin"))


def supports(specs: Specs, attrs: Attrs) -> str | None:
    g = geometry(specs[0], specs[1], attrs["axis"])
    if len(g.kept) > MOST_KEPT or len(g.reduced) > MOST_REDUCED:
        return f"takes at most {MOST_KEPT} axes that stay and {MOST_REDUCED} that go, once joined"
    return None


def divisor(kind: str, specs: Specs, attrs: Attrs) -> float:
    """What a total is divided by."""
    x = specs[0]
    n = 1
    for i in axes_of(kind, x.ndim, attrs["axis"]):
        n *= x.shape[i]
    return max(0.0, n - attrs["correction"]) if "correction" in attrs else float(n)


def _double(value: float) -> int:
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def _pieces(g: Geometry, units: int, tasks: int, panels: bool) -> int:
    """Into how many parts each result's elements are cut, where there are too few results to share."""
    if tasks == 1 or units >= 8 * tasks or units % tasks == 0:
        return 1
    longest = g.reduced[0].length if g.reduced else 0 if panels else g.inner.length
    return tasks if longest >= 16 * tasks else 1


def folded(kind: str, g: Geometry, itemsize: int) -> tuple[Geometry, int]:
    """Narrow rows that lie one after the other as wide ones, and how many of them are one.

    What the columns of a wide row have in common is put together at the end, as if it were parts of threads.
    """
    n = g.inner.length
    if g.case != "columns" or not g.reduced or kind in ("var", "std", "logsumexp") or n >= NARROW:
        return g, 1
    last = g.reduced[-1]
    most = min(2 * NARROW // n, last.length // 8)
    fold = next((f for f in range(most, 1, -1) if last.length % f == 0), 1)
    if last.step != n * itemsize or fold == 1:
        return g, 1
    inner = replace(g.inner, length=n * fold)
    rows = replace(last, length=last.length // fold, step=last.step * fold)
    return replace(g, inner=inner, reduced=(*g.reduced[:-1], rows)), fold


def bind(kind: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of reduction `kind`."""
    x, out = specs
    g, fold = folded(kind, geometry(x, out, attrs["axis"]), x.itemsize)
    lanes = 1 if g.case == "steps" else vector_bytes() // computed_bytes(x.dtype)
    results, n = g.outputs, g.inner.length
    tasks = max(1, min(threads, x.nbytes // WORTH_A_THREAD))
    panel, panels, form = n, 1, 1
    if g.case == "columns":
        # Down a column each step waits for the one before: several registers side by side hide that.
        while kind in SIDE_BY_SIDE and lanes < min(n, SIDE_BY_SIDE[kind] * vector_bytes() // 4):
            lanes *= 2
        panel = min(PANEL_BYTES // _state_bytes(kind, x.dtype), _rounded(n, lanes))
        if results == 1 and tasks > 1 and n >= 64 * tasks:
            panel = min(panel, _rounded(-(-n // tasks), lanes))
        panels = -(-n // panel)
        # Room for a panel, in few sizes: the code depends on it.
        form = 1 << (panel - 1).bit_length()
    elif n >= 4 * emit.UNROLLED * max(lanes, 4):
        form = emit.UNROLLED
    units = results * panels
    pieces = _pieces(g, units, tasks, g.case == "columns")
    units *= pieces
    tasks = min(tasks, units)
    block = [0, 0, 0, tasks, units, pieces, _double(divisor(kind, specs, attrs))]
    block += [n, g.inner.step, panel, panels, g.start, g.out_start, fold]
    for axis in g.kept:
        block += [axis.length, axis.step, axis.out_step]
    for axis in g.reduced:
        block += [axis.length, axis.step]
    shape = (len(g.kept), len(g.reduced))
    cut = pieces > 1 or fold > 1
    key: tuple[Any, ...] = (kind, x.dtype, out.dtype, lanes, form, *shape, cut)
    if g.case == "columns" and kind in ("sum", "mean") and g.reduced:
        key = (*key, g.reduced[-1].length > emit_columns.BLOCK_ROWS)
    run = emit_columns.columns if g.case == "columns" else emit.rows
    phases = [(address_of(run, key, f"{kind} {g.case} {x.dtype}"), tasks)]
    scratch = 0
    if cut:
        packed = g.case != "columns"
        key = (kind, x.dtype, out.dtype, *shape, packed)
        phases.append((address_of(emit_columns.merge, key, f"{kind} merge {x.dtype}"), 1))
        scratch = 8 * 3 * results * pieces * (1 if packed else n)
    return bind_phases(np.array(block, np.int64), 2, phases, scratch)


def _state_bytes(kind: str, dtype: str) -> int:
    return 8 if kind in FLAGS else computed_bytes(dtype)


def _rounded(n: int, to: int) -> int:
    return -(-n // to) * to


def _register(kind: str) -> None:
    def vectors(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        return bind(kind, specs, attrs, threads)

    register: Callable[..., Any] = kernel(
        kind, dtypes=REDUCTIONS[kind].dtypes, supports=supports, binds=True, name="vectors", rank=1
    )
    register(vectors)


for _kind in KINDS:
    _register(_kind)
