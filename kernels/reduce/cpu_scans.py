"""argmax, argmin, cumsum and cumprod on the CPU: generated vector code for every dtype and layout.

    lines that lie side by side, columns beside each other, or one element at a time, as `cpu_vectors.py`

`emit_arg.py` and `emit_scan.py` write the code. Each element is read once, but by argmax, which reads the
pieces of a line twice that hold a new largest one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cpu.generate import address_of
from ..cpu.launch import bind_phases
from ..kernel import Config, Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from . import emit, emit_arg, emit_scan
from .axes import axes_of, axis_of
from .cpu_vectors import PANEL_BYTES, WORTH_A_THREAD
from .lanes import computed_bytes
from .op import REDUCTIONS
from .scan import SCANS

MOST_AXES = 5
Line = tuple[int, int, int]


def _lines(x: TensorSpec, out_steps: list[int], axes: tuple[int, ...]) -> tuple[list[Line], list[Line]]:
    """(the axes that stay, those that are run along), each (length, step, step in the result), joined.

    The order among the latter is kept: places are counted along them.
    """
    kept: list[Line] = []
    along: list[Line] = []
    for i in range(x.ndim):
        if x.shape[i] == 1:
            continue
        line = (x.shape[i], x.strides[i], out_steps[i])
        group = along if i in axes else kept
        if group and all(group[-1][j] == line[0] * line[j] for j in (1, 2)):
            group[-1] = (group[-1][0] * line[0], *line[1:])
        else:
            group.append(line)
    return kept, along


def _beside(kept: list[Line], itemsize: int, out_itemsize: int) -> Line | None:
    """The axis whose elements and results lie side by side."""
    return next((a for a in kept if a[1:] == (itemsize, out_itemsize)), None)


def _panel(width: int, results: int, lanes: int, tasks: int, most: int) -> int:
    """How many columns a unit has."""
    panel = min(most, -(-width // lanes) * lanes)
    if results == 1 and tasks > 1 and width >= 64 * tasks:
        panel = min(panel, -(-width // tasks // lanes) * lanes)
    return panel


# --- argmax, argmin -----------------------------------------------------------------------------------------


def _arg_axes(specs: Specs, attrs: Attrs) -> tuple[list[Line], list[Line]]:
    x, out = specs
    axes = axes_of("argmax", x.ndim, attrs["axis"])
    strides = iter(out.strides)
    steps = [next(strides) if out.ndim == x.ndim or i not in axes else 0 for i in range(x.ndim)]
    steps = [0 if i in axes else step for i, step in enumerate(steps)]
    return _lines(x, steps, axes)


def arg_supports(specs: Specs, attrs: Attrs) -> str | None:
    kept, along = _arg_axes(specs, attrs)
    if len(kept) > MOST_AXES or len(along) > MOST_AXES:
        return f"takes at most {MOST_AXES} axes of each kind, once joined"
    if any(length >= 2**31 for length, _, _ in along):
        return "counts to 2**31 along one axis"
    return None


def bind_arg(kind: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of argmax or argmin."""
    x, out = specs
    kept, along = _arg_axes(specs, attrs)
    tasks = max(1, min(threads, x.nbytes // WORTH_A_THREAD))
    full = vector_bytes() // computed_bytes(x.dtype)
    across = _beside(kept, x.itemsize, 8) if len(along) == 1 else None
    if len(along) == 1 and along[0][1] == x.itemsize:
        across = None
    pieces = panels = panel = form = 1
    if across is not None:
        kept.remove(across)
        n, step, lanes, outer = across[0], x.itemsize, full, along
        results = _product(kept)
        while lanes < min(n, 2 * full):
            lanes *= 2
        panel = _panel(n, results, lanes, tasks, PANEL_BYTES // computed_bytes(x.dtype))
        panels, form = -(-n // panel), 1 << (panel - 1).bit_length()
    else:
        *outer, (n, step, _) = along or [(1, x.itemsize, 0)]
        lanes = full if step == x.itemsize else 1
        form = emit.UNROLLED if n >= 4 * emit.UNROLLED * max(lanes, 4) else 1
        results = _product(kept)
        if not outer and tasks > 1 and results < tasks and n >= 4096 * tasks:
            pieces = tasks
    units = results * panels * pieces
    tasks = min(tasks, units)
    block = [0, 0, 0, tasks, units, pieces, 0, n, step, panel, panels, 0, 0, 1]
    block += [number for axis in kept for number in axis]
    block += [number for axis in outer for number in axis[:2]]
    run = emit_arg.rows if across is None else emit_arg.columns
    key: tuple[Any, ...] = (kind, x.dtype, out.dtype, lanes, form, len(kept), len(outer), pieces > 1)
    phases = [(address_of(run, key, f"{kind} {x.dtype}"), tasks)]
    if pieces > 1:
        key = (kind, x.dtype, len(kept), len(outer))
        phases.append((address_of(emit_arg.merge, key, f"{kind} merge {x.dtype}"), 1))
    return bind_phases(np.array(block, np.int64), 2, phases, 16 * results * pieces if pieces > 1 else 0)


def _product(axes: list[Line]) -> int:
    count = 1
    for length, _, _ in axes:
        count *= length
    return count


# --- cumsum, cumprod ----------------------------------------------------------------------------------------


def _scan_axes(specs: Specs, attrs: Attrs) -> tuple[list[Line], Line]:
    x, out = specs
    axis = axis_of("scan", x.ndim, attrs["axis"])
    kept, along = _lines(x, list(out.strides), (axis,))
    return kept, (along or [(1, x.itemsize, out.itemsize)])[0]


def scan_supports(specs: Specs, attrs: Attrs) -> str | None:
    kept, _ = _scan_axes(specs, attrs)
    return f"takes at most {MOST_AXES} other axes, once joined" if len(kept) > MOST_AXES else None


def bind_scan(kind: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of cumsum or cumprod."""
    x, out = specs
    kept, (n, step, out_step) = _scan_axes(specs, attrs)
    reverse = bool(attrs["reverse"])
    tasks = max(1, min(threads, (x.nbytes + out.nbytes) // WORTH_A_THREAD))
    lanes = vector_bytes() // computed_bytes(x.dtype)
    start = out_start = 0
    width = panel = panels = 1
    across = _beside(kept, x.itemsize, out.itemsize)
    if (step, out_step) == (x.itemsize, out.itemsize) and n > 1:
        run, form = emit_scan.rows, (reverse,)
    else:
        if reverse:
            start, out_start, step, out_step = (n - 1) * step, (n - 1) * out_step, -step, -out_step
        run, form = emit_scan.steps, (reverse,)
        if across is not None:
            kept.remove(across)
            width = across[0]
            panel = _panel(width, _product(kept), lanes, tasks, PANEL_BYTES // computed_bytes(x.dtype))
            panels = -(-width // panel)
            # One vector more: totals are cleared without looking whether the last one is a part.
            run, form = emit_scan.columns, (lanes + (1 << (panel - 1).bit_length()),)  # type: ignore[assignment]
    units = _product(kept) * panels
    tasks = min(tasks, units)
    block = [0, 0, 0, tasks, units, n, step, out_step, width, panel, panels, start, out_start]
    block += [number for axis in kept for number in axis]
    key = (kind, x.dtype, out.dtype, lanes, len(kept), *form)
    return bind_phases(np.array(block, np.int64), 2, [(address_of(run, key, f"{kind} {x.dtype}"), tasks)])


def _register(kind: str, dtypes: tuple[str, ...], supports: Any, bind: Callable[..., Launch]) -> None:
    def vectors(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        return bind(kind, specs, attrs, threads)

    kernel(kind, dtypes=dtypes, supports=supports, binds=True, name="vectors")(vectors)


for _kind in ("argmax", "argmin"):
    _register(_kind, REDUCTIONS[_kind].dtypes, arg_supports, bind_arg)
for _kind in SCANS:
    _register(_kind, SCANS[_kind].dtypes, scan_supports, bind_scan)
