"""Gradients of picking, placing, joining and ordering: what was picked is added up where it came from."""

from __future__ import annotations

from typing import Any

from ...kernels.index.joins import PAD_MODES, ROLL, TRIL, TRIU
from ...kernels.index.takes import GATHER, INDEX_SELECT, INDEX_SUM, SCATTER_SUM
from ...kernels.shape.slices import SLICE_GRAD
from ..array import Array
from ..eager import call
from ..functional.shape import narrow
from . import gradient


@gradient("index_select")
def index_select_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx has, at each place, the sum of the parts of dy that were taken from there."""
    (dy,), (x, index), axis = grads, inputs, attrs["axis"]
    given = {"axis": axis, "length": x.shape[axis], "skip": attrs["skip"]}
    return call(INDEX_SUM, (dy, index), given), None


@gradient("embedding")
def embedding_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """As of index_select; nothing for the padding's row."""
    (dy,), (weight, index) = grads, inputs
    skip = -1 if attrs["padding_idx"] is None else attrs["padding_idx"]
    given = {"axis": 0, "length": weight.shape[0], "skip": skip}
    return call(INDEX_SUM, (dy, index), given), None


@gradient("index_sum")
def index_sum_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Each part was added at one place: its gradient is dy there, zero at the place that was skipped."""
    given = {"axis": attrs["axis"], "skip": attrs["skip"]}
    return call(INDEX_SELECT, (grads[0], inputs[1]), given), None


@gradient("gather")
def gather_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx has, at each place, the sum of the elements of dy that were taken from there."""
    x, index = inputs
    return call(SCATTER_SUM, (grads[0], index), {"axis": attrs["axis"], "shape": x.shape}), None


@gradient("scatter_sum")
def scatter_sum_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Each element was added at one place: its gradient is dy there."""
    return call(GATHER, (grads[0], inputs[1]), {"axis": attrs["axis"]}), None


@gradient("concat")
def concat_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Each array's gradient is its part of dy."""
    (dy,), axis, at = grads, attrs["axis"], 0
    parts: list[Array | None] = []
    for x in inputs:
        if x is None:
            parts.append(None)
            continue
        parts.append(narrow(dy, axis, at, x.shape[axis]))
        at += x.shape[axis]
    return tuple(parts)


@gradient("pad")
def pad_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy inside the border, plus what of the border was a copy, where it was copied from."""
    (dx,), (x,), mode = grads, inputs, attrs["mode"]
    assert mode in PAD_MODES
    for axis, (before, after) in enumerate(zip(attrs["before"], attrs["after"], strict=True)):
        if before or after:
            dx = _unpadded(dx, axis, x.shape[axis], before, after, mode)
    return (dx,)


def _unpadded(dy: Array, axis: int, length: int, before: int, after: int, mode: str) -> Any:
    """The gradient of a pad along one axis."""
    dx: Any = narrow(dy, axis, before, length)
    if mode == "constant" or not length:
        return dx
    # (where in dy the border is, how long it is, what in x it is a copy of: from, step)
    borders = {
        "reflect": [(0, before, before, -1), (before + length, after, length - 2, -1)],
        "replicate": [(0, before, 0, 0), (before + length, after, length - 1, 0)],
        "circular": [(0, before, length - before, 1), (before + length, after, 0, 1)],
    }[mode]
    for at, count, first, step in borders:
        if count:
            border = narrow(dy, axis, at, count)
            if step == 0:
                border, count, step = border.sum(axis, keepdims=True), 1, 1
            dx = dx + _placed(border, axis, length, first, count, step)
    return dx


def _placed(part: Array, axis: int, length: int, first: int, count: int, step: int) -> Array:
    """Zeros of `length` along an axis, with `part` from place `first` on in steps."""
    shape = (*part.shape[:axis], length, *part.shape[axis + 1 :])
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[axis], stops[axis], steps[axis] = first, first + count * step, step
    bounds = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
    return call(SLICE_GRAD, (part,), {"shape": shape, **bounds})


@gradient("roll")
def roll_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy rolled back."""
    return (call(ROLL, (grads[0],), {"shifts": tuple(-shift for shift in attrs["shifts"])}),)


@gradient("tril")
def tril_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy where x was kept."""
    return (call(TRIL, (grads[0],), attrs),)


@gradient("triu")
def triu_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy where x was kept."""
    return (call(TRIU, (grads[0],), attrs),)


@gradient("sort")
def sort_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Each element of dy goes back to where its value came from."""
    dy, (x,), indices = grads[0], inputs, outputs[1]
    if dy is None:
        return (None,)
    return (call(SCATTER_SUM, (dy, indices), {"axis": attrs["axis"], "shape": x.shape}),)


@gradient("topk")
def topk_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """As of sort; nothing for what was not taken."""
    return sort_rule(grads, inputs, outputs, attrs)


@gradient("one_hot")
def one_hot_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Places have no gradient."""
    return (None,)


@gradient("searchsorted")
def searchsorted_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Places have no gradient."""
    return None, None
