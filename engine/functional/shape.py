"""reshape, transpose, slice and their relatives: views where the memory allows it, as in PyTorch."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from math import prod
from operator import index
from typing import Any

import numpy as np

from ...kernels.errors import DTypeError, OutOfRangeError, ShapeError
from ...kernels.shape.op import BROADCAST_TO, RESHAPE, TRANSPOSE
from ...kernels.shape.slices import SLICE
from ..array import Array, asarray
from ..eager import Operand, call


def _array(x: Operand) -> Array:
    return x if isinstance(x, Array) else asarray(x)


def _whole(values: Any, what: str) -> tuple[int, ...]:
    """Numbers given one after the other or as one sequence, as a tuple."""
    if len(values) == 1 and not hasattr(values[0], "__index__"):
        values = values[0]
    try:
        return tuple(index(value) for value in values)
    except TypeError:
        raise DTypeError(f"{what} are whole numbers, got {values!r}.") from None


def axis_of(name: str, axis: int, ndim: int) -> int:
    """`axis` counted from the front.

    Raises:
        ShapeError: when there is no such axis.
    """
    try:
        place = index(axis)
    except TypeError:
        raise DTypeError(f"{name}: axis is a whole number, got {axis!r}.") from None
    if not -ndim <= place < ndim:
        raise ShapeError(f"{name}: there is no axis {axis}; x has {ndim} axes: {-ndim} to {ndim - 1}.")
    return place % ndim


def reshape(x: Operand, *shape: Any) -> Array:
    """The same elements, in row-major order, in another shape: a view where memory allows it, else a copy.

    Args:
        x: any shape and dtype.
        shape: the new lengths, as one tuple or one after the other; one may be -1, for what is left.

    Raises:
        ShapeError: when the shape has another number of elements.
    """
    x, lengths = _array(x), _whole(shape, "the lengths of a shape")
    if -1 in lengths:
        known = prod(length for length in lengths if length != -1)
        if lengths.count(-1) > 1 or not known or x.size % known:
            raise ShapeError(
                f"reshape: x {x.shape} has {x.size} elements, and no length fits -1 in {lengths}."
            )
        lengths = tuple(x.size // known if length == -1 else length for length in lengths)
    return call(RESHAPE, (x,), {"shape": lengths})


def flatten(x: Operand, start_dim: int = 0, end_dim: int = -1) -> Array:
    """Axes `start_dim` to `end_dim` joined to one, as torch.flatten.

    Raises:
        ShapeError: for axes that are not there, or in the wrong order.
    """
    x = _array(x)
    if not x.ndim:
        return reshape(x, (1,))
    first, last = axis_of("flatten", start_dim, x.ndim), axis_of("flatten", end_dim, x.ndim)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} in x {x.shape}.")
    shape = x.shape
    return reshape(x, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))


def transpose(x: Operand, *axes: Any) -> Array:
    """A view with the axes in another order, as np.transpose: `transpose(x, (2, 0, 1))`.

    Without axes, they are reversed.

    torch.transpose, which exchanges two axes, is `swapaxes` here.

    Raises:
        ShapeError: when `axes` does not name each axis once.
    """
    x = _array(x)
    if not axes or axes == (None,):
        order = tuple(range(x.ndim))[::-1]
    else:
        order = tuple(axis_of("transpose", axis, x.ndim) for axis in _whole(axes, "axes"))
    return call(TRANSPOSE, (x,), {"axes": order})


def permute(x: Operand, *dims: Any) -> Array:
    """A view with the axes in the order `dims`, as torch.permute. Raises as `transpose`."""
    x = _array(x)
    return call(TRANSPOSE, (x,), {"axes": tuple(axis_of("permute", d, x.ndim) for d in _whole(dims, "dims"))})


def swapaxes(x: Operand, axis1: int, axis2: int) -> Array:
    """A view with two axes exchanged. Raises ShapeError for an axis that is not there."""
    x = _array(x)
    a, b = axis_of("swapaxes", axis1, x.ndim), axis_of("swapaxes", axis2, x.ndim)
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return call(TRANSPOSE, (x,), {"axes": tuple(order)})


def moveaxis(x: Operand, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    """A view with axes `source` moved to `destination`, the others in their order, as np.moveaxis.

    Raises:
        ShapeError: for axes that are not there, named twice, or different in number.
    """
    x = _array(x)
    a = [axis_of("moveaxis", axis, x.ndim) for axis in _whole((source,), "axes")]
    b = [axis_of("moveaxis", axis, x.ndim) for axis in _whole((destination,), "axes")]
    if len(a) != len(b) or len(set(a)) != len(a) or len(set(b)) != len(b):
        raise ShapeError(f"moveaxis: {source} and {destination} need the same number of different axes.")
    order = [axis for axis in range(x.ndim) if axis not in a]
    for to, axis in sorted(zip(b, a, strict=True)):
        order.insert(to, axis)
    return call(TRANSPOSE, (x,), {"axes": tuple(order)})


def broadcast_to(x: Operand, *shape: Any) -> Array:
    """A view of x repeated to `shape` by NumPy's rules; -1 keeps a length, as in torch.expand.

    Raises:
        ShapeError: when x does not broadcast to that shape.
    """
    x, lengths = _array(x), _whole(shape, "the lengths of a shape")
    lead = len(lengths) - x.ndim
    if -1 in lengths[max(lead, 0) :]:
        lengths = tuple(
            x.shape[i - lead] if length == -1 and i >= lead else length for i, length in enumerate(lengths)
        )
    return call(BROADCAST_TO, (x,), {"shape": lengths})


def expand_dims(x: Operand, axis: int | Sequence[int]) -> Array:
    """A view with new axes of length 1 at the places `axis` of the result, as np.expand_dims.

    Raises:
        ShapeError: for places that are not there, or named twice.
    """
    x, places = _array(x), _whole((axis,) if hasattr(axis, "__index__") else axis, "axes")
    ndim = x.ndim + len(places)
    at = {axis_of("expand_dims", place, ndim) for place in places}
    if len(at) != len(places):
        raise ShapeError(f"expand_dims: axes {places} name one place twice.")
    lengths = iter(x.shape)
    return call(RESHAPE, (x,), {"shape": tuple(1 if i in at else next(lengths) for i in range(ndim))})


def unsqueeze(x: Operand, axis: int) -> Array:
    """A view with a new axis of length 1 at `axis` of the result, as torch.unsqueeze."""
    return expand_dims(x, axis)


def squeeze(x: Operand, axis: int | Sequence[int] | None = None) -> Array:
    """A view without the axes of length 1; of `axis` alone where given, as torch.squeeze.

    An axis of another length stays, as in PyTorch.

    Raises:
        ShapeError: for an axis that is not there.
    """
    x = _array(x)
    if axis is None:
        places = set(range(x.ndim))
    else:
        given = _whole((axis,) if hasattr(axis, "__index__") else axis, "axes")
        places = {axis_of("squeeze", place, x.ndim) for place in given}
    kept = tuple(length for i, length in enumerate(x.shape) if length != 1 or i not in places)
    return call(RESHAPE, (x,), {"shape": kept})


def slice(x: Operand, starts: Any, stops: Any, steps: Any = None) -> Array:
    """A view of every steps[i]-th element from starts[i] up to, without, stops[i] along each axis i.

    Args:
        x: any shape and dtype.
        starts, stops, steps: a number or None for each axis, as in Python's slices: negative ones count from
            the end, those beyond are cut, None is all.

    Raises:
        ShapeError: for another number of axes, or a step of 0.
    """
    x = _array(x)
    steps = (1,) * x.ndim if steps is None else steps
    if not len(starts) == len(stops) == len(steps) == x.ndim:
        raise ShapeError(
            f"slice: starts {starts}, stops {stops} and steps {steps} need one number for each axis of "
            f"{x.shape}."
        )
    bounds = [builtins.slice(*bound) for bound in zip(starts, stops, steps, strict=True)]
    return _sliced(x, bounds)


def _sliced(x: Array, bounds: Sequence[builtins.slice]) -> Array:
    """The slices `bounds` of the axes."""
    try:
        exact = [bound.indices(length) for bound, length in zip(bounds, x.shape, strict=True)]
    except ValueError as error:
        raise ShapeError(f"slice: {error}, got {list(bounds)}.") from None
    except TypeError:
        raise DTypeError(f"slice: the bounds of a slice are whole numbers or None, got {bounds}.") from None
    if all(places == (0, length, 1) for places, length in zip(exact, x.shape, strict=True)):
        return x
    starts, stops, steps = zip(*exact, strict=True)
    return call(SLICE, (x,), {"starts": starts, "stops": stops, "steps": steps})


def narrow(x: Operand, axis: int, start: int | Array, length: int) -> Array:
    """A view of the elements `start` to `start + length` along `axis`, as torch.narrow.

    Raises:
        ShapeError: when they are not there.
    """
    x = _array(x)
    place = axis_of("narrow", axis, x.ndim)
    start = int(start) if isinstance(start, Array) else start
    first = start + x.shape[place] if start < 0 else start
    if length < 0 or first < 0 or first + length > x.shape[place]:
        raise ShapeError(
            f"narrow: {length} elements from {start} on are not along axis {axis} of x {x.shape}."
        )
    bounds = [builtins.slice(None)] * x.ndim
    bounds[place] = builtins.slice(first, first + length)
    return _sliced(x, bounds)


def flip(x: Operand, axis: int | Sequence[int] | None = None) -> Array:
    """A view with the elements along `axis` (all axes for None) in reverse order, as np.flip.

    Raises:
        ShapeError: for an axis that is not there.
    """
    x = _array(x)
    if axis is None:
        places = set(range(x.ndim))
    else:
        given = _whole((axis,) if hasattr(axis, "__index__") else axis, "axes")
        places = {axis_of("flip", place, x.ndim) for place in given}
    back, same = builtins.slice(None, None, -1), builtins.slice(None)
    return _sliced(x, [back if i in places else same for i in range(x.ndim)])


def split(x: Operand, split_size: int | Sequence[int], axis: int = 0) -> tuple[Array, ...]:
    """Views of parts of x along `axis`, as torch.split.

    Args:
        x: any shape and dtype.
        split_size: the length of each part but the last, which may be shorter; or the lengths of all parts.

    Raises:
        ShapeError: for lengths that do not add up to the axis', or that are not positive.
    """
    x = _array(x)
    place = axis_of("split", axis, x.ndim)
    length = x.shape[place]
    if hasattr(split_size, "__index__"):
        size = index(split_size)
        if size < 0 or (size == 0 and length):
            raise ShapeError(f"split: the length of a part is 1 or more, got {split_size}.")
        parts = [min(size, length - at) for at in range(0, length, size)] if length else [0]
    else:
        parts = list(_whole((split_size,), "the lengths of parts"))
        if sum(parts) != length or min(parts, default=0) < 0:
            raise ShapeError(f"split: parts of {parts} do not add up to the {length} of axis {axis} of x.")
    ends = np.cumsum(parts, dtype=int).tolist()
    return tuple(narrow(x, place, end - part, part) for end, part in zip(ends, parts, strict=True))


def chunk(x: Operand, chunks: int, axis: int = 0) -> tuple[Array, ...]:
    """Views of x in at most `chunks` parts along `axis`, as torch.chunk: all of one length but the last.

    Raises:
        ShapeError: for no chunks.
    """
    x = _array(x)
    if chunks < 1:
        raise ShapeError(f"chunk: the number of parts is 1 or more, got {chunks}.")
    place = axis_of("chunk", axis, x.ndim)
    if not x.shape[place]:
        return (x,) * chunks
    return split(x, -(-x.shape[place] // chunks), place)


def unbind(x: Operand, axis: int = 0) -> tuple[Array, ...]:
    """Views of x at each place along `axis`, without that axis, as torch.unbind."""
    x = _array(x)
    place = axis_of("unbind", axis, x.ndim)
    shape = (*x.shape[:place], *x.shape[place + 1 :])
    return tuple(reshape(narrow(x, place, i, 1), shape) for i in range(x.shape[place]))


def indexed(x: Array, key: Any) -> Array:
    """x[key], for Arrays without numbers too: a view for whole numbers, slices, None and ...

    Whole-number arrays beside each other take their places along their axes together; a mask whose values are
    known stands for the places where it is on.

    Raises:
        OutOfRangeError: for a place that is not there, or more places than axes.
        DTypeError: for any other key.
    """
    parts: list[Any] = []
    for part in key if isinstance(key, tuple) else (key,):
        parts += _nonzero(part) if _is_mask(part) else [part]
    if not any(_is_places(part) for part in parts):
        return basic_index(x, key)
    # Numbers beside arrays are places too.
    chosen = [
        i for i, p in enumerate(parts) if _is_places(p) or (hasattr(p, "__index__") and np.ndim(p) == 0)
    ]
    first, last = chosen[0], chosen[-1]
    if len(chosen) != last - first + 1 or any(part is None for part in parts):
        raise DTypeError(
            "an index of an Array without numbers has its arrays of places beside each other, among slices; "
            "write kw.gather or kw.take for others."
        )
    from .index import take_together

    axis = first if Ellipsis not in parts[:first] else x.ndim - (len(parts) - first)
    whole = [builtins.slice(None) if i in chosen else part for i, part in enumerate(parts)]
    return take_together(basic_index(x, tuple(whole)), [parts[i] for i in chosen], axis)


def _is_mask(part: Any) -> bool:
    """Whether a part of an index is an array of bools whose values are known."""
    return (isinstance(part, np.ndarray) or type(part) is Array) and part.dtype == bool and part.ndim > 0


def _nonzero(mask: Any) -> list[Any]:
    """Where a mask is on, an array for each of its axes."""
    return list(np.nonzero(np.asarray(mask)))


def _is_places(part: Any) -> bool:
    """Whether a part of an index is an array of places."""
    return isinstance(part, list) or (isinstance(part, Array | np.ndarray) and part.ndim > 0)


def basic_index(x: Array, key: Any) -> Array:
    """x[key] for a key of whole numbers, slices, None and ...: a slice, then a reshape.

    Raises:
        OutOfRangeError: for a place that is not there, or more places than axes.
        DTypeError: for any other key.
    """
    parts = list(key) if isinstance(key, tuple) else [key]
    named = sum(part is not None and part is not Ellipsis for part in parts)
    if named > x.ndim or sum(part is Ellipsis for part in parts) > 1:
        raise OutOfRangeError(f"x {x.shape} has {x.ndim} axes, too few for the index {key}.")
    rest: list[Any] = [builtins.slice(None)] * (x.ndim - named)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), None)
    parts = parts + rest if at is None else parts[:at] + rest + parts[at + 1 :]
    bounds: list[builtins.slice] = []
    shape: list[int] = []
    for part in parts:
        if part is None:
            shape.append(1)
            continue
        length = x.shape[len(bounds)]
        if isinstance(part, builtins.slice):
            bounds.append(part)
            shape.append(len(range(*part.indices(length))))
            continue
        try:
            place = index(part)
        except TypeError:
            raise DTypeError(
                f"an index is made of whole numbers, slices, None and ..., got {part!r}."
            ) from None
        if isinstance(part, bool | np.bool_):
            raise DTypeError("True and False are no places; write kw.where(mask, x, y) for a choice by mask.")
        if not -length <= place < length:
            raise OutOfRangeError(
                f"{place} is no place along axis {len(bounds)} of x {x.shape}: it has {length}."
            )
        bounds.append(builtins.slice(place % length, place % length + 1))
    taken = _sliced(x, bounds)
    return taken if taken.shape == tuple(shape) else call(RESHAPE, (taken,), {"shape": tuple(shape)})
