"""The numbers of a view, copied: for results that cannot share the input's memory.

One box: the memory of the view (`Op.view`) into the output. Where a reshape has no view, the input is copied
into the output's memory, looked at in the input's shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cpu.pieces import Box, bind_boxes, why_not_boxes
from ..op import Attrs, Specs, get_op
from ..registry import kernel
from ..spec import SHORT_NAMES
from .op import reshaped_strides

DTYPES = tuple(SHORT_NAMES)


def _box(op: str, specs: Specs, attrs: Attrs) -> Box | None:
    x, out = specs
    view = get_op(op).view
    assert view is not None
    place = view(x, **attrs)
    if place is not None:
        start, shape, strides = place
        return Box(shape, 1, 0, out.strides, 0, start, strides)
    back = reshaped_strides(out.shape, out.strides, x.shape)
    return None if back is None else Box(x.shape, 1, 0, back, 0, 0, x.strides)


def _register(op: str) -> None:
    def supports(specs: Specs, attrs: Attrs) -> str | None:
        box = _box(op, specs, attrs)
        if box is None:
            return "the output's memory cannot be looked at in the input's shape"
        return why_not_boxes([box])

    @kernel(op, dtypes=DTYPES, supports=supports, binds=True, name="copy")
    def copy(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
        box = _box(op, specs, attrs)
        assert box is not None
        return bind_boxes([box], 2, specs[0].itemsize, threads)


for _op in ("reshape", "transpose", "broadcast_to", "slice"):
    _register(_op)
