"""The numbers of a view, copied: for results that cannot share the input's memory.

One box: the memory of the view (`Op.view`) into the output. Where a reshape has no view, the input is copied
into the output's memory, looked at in the input's shape.

slice_grad copies its box into the output and fills the rest with zeros: below, above and beside the box where
steps are 1, else everything first, in a phase of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cpu.pieces import Box, around, bind_boxes, copy_box, why_not_boxes
from ..op import Attrs, Specs, get_op
from ..registry import kernel
from ..spec import SHORT_NAMES
from .op import reshaped_strides
from .slices import ranges

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
        return bind_boxes([box], arrays=2, item=specs[0].itemsize, threads=threads)


for _op in ("reshape", "transpose", "broadcast_to", "slice"):
    _register(_op)


def _slice_grad_boxes(specs: Specs, attrs: Attrs) -> tuple[list[Box], list[Box]]:
    """What fills, and what copies: one after the other unless they are disjoint, when the first is empty."""
    dy, dx = specs
    taken = ranges("slice_grad", *attrs.values())
    if 0 in dy.shape:
        return [], [Box(dx.shape, 1, 0, dx.strides)]
    start = sum(stride * places[0] for stride, places in zip(dx.strides, taken, strict=True))
    steps = tuple(stride * places.step for stride, places in zip(dx.strides, taken, strict=True))
    copied = Box(dy.shape, 1, start, steps, 0, 0, dy.strides)
    if all(places.step == 1 or len(places) == 1 for places in taken):
        low = tuple(places[0] for places in taken)
        return [], [copied, *around(dx, low, dy.shape)]
    return [Box(dx.shape, 1, 0, dx.strides)], [copied]


def _fills_side_by_side(specs: Specs, attrs: Attrs) -> str | None:
    if specs[-1].layout is not None:
        return "fills memory that lies side by side only"
    return why_not_boxes([copy_box(specs[-1], specs[-1]), *_slice_grad_boxes(specs, attrs)[1]])


@kernel("slice_grad", dtypes=DTYPES, supports=_fills_side_by_side, binds=True, name="copy")
def slice_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    return bind_boxes(*_slice_grad_boxes(specs, attrs), arrays=2, item=specs[0].itemsize, threads=threads)
