"""Picking, placing, joining and ordering: embedding, gather, concat, pad, sort, as in PyTorch.

An index outside its axis is refused before anything is written. In a traced program, whose numbers are not
known yet, it can not be: there the nearest place stands for it, and no other memory is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as whole
from typing import Any

import numpy as np

from ...kernels.errors import ConfigError, DTypeError, OutOfRangeError, ShapeError
from ...kernels.index.joins import CONCAT, MOST_JOINED, PAD, ROLL, TRIL, TRIU
from ...kernels.index.sorts import SEARCHSORTED, SORT, TOPK
from ...kernels.index.takes import EMBEDDING, GATHER, INDEX_SELECT, INDEX_SUM, ONE_HOT, SCATTER_SUM
from ..array import Array, asarray
from ..eager import Operand, call, call_all
from .shape import axis_of, broadcast_to, expand_dims, flatten, narrow, reshape

_largest = np.maximum.reduce
Index = Operand | Sequence[Any]


def _array(x: Any) -> Array:
    return x if isinstance(x, Array) else asarray(x)


def there(x: Array, beside: Array | None) -> Array:
    """An Array of the CPU on the GPU of another one, if that is on one; any other as it is."""
    if beside is not None and beside.on_cuda and type(x) is Array:
        return asarray(x, device=beside.device)
    return x


def checked_index(
    name: str, index: Index, length: int, *, wraps: bool = False, beside: Array | None = None
) -> Array:
    """`index` as an Array, each of its places among `length` as far as its numbers are known on the CPU.

    Beside an Array on a GPU, places of the CPU are copied there.

    Raises:
        DTypeError: when it does not hold whole numbers.
        OutOfRangeError: for a place that is not there; negative ones are with `wraps`.
    """
    places = _array(index)
    if type(places) is Array and places.size:
        data = np.asarray(places)
        if data.dtype.kind not in "iu":
            raise DTypeError(f"{name}: index holds places and must be int64 or int32, got {data.dtype}.")
        # Without a sign, negative places are the largest: one look at the numbers instead of two.
        if int(_largest(data.view(f"u{data.itemsize}"), None)) >= length:
            low, high = int(data.min()), int(data.max())
            if high >= length or low < (-length if wraps else 0):
                wrong = high if high >= length else low
                first = -length if wraps else 0
                raise OutOfRangeError(
                    f"{name}: index holds {wrong}, but the places are {first} to {length - 1}."
                )
    return there(places, beside)


def embedding(input: Index, weight: Operand, padding_idx: int | None = None) -> Array:
    """Rows of `weight` at the places `input`, as torch.nn.functional.embedding.

    Args:
        input: whole numbers of any shape [...], int64 or int32.
        weight: [V, D], float32, float64, bfloat16 or float16.
        padding_idx: the row that gets no gradient.

    Returns:
        [..., D].

    Raises:
        OutOfRangeError: for a place that is not in 0 .. V - 1.
        ShapeError, DTypeError: for other operands.
    """
    weight = _array(weight)
    rows = weight.shape[0] if weight.ndim else 0
    places = checked_index("embedding", input, rows, beside=weight)
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise OutOfRangeError(
                f"embedding: padding_idx {padding_idx} is none of the {rows} rows of weight."
            )
        padding_idx %= rows
    flat = places if places.ndim == 1 else reshape(places, (places.size,))
    taken = call(EMBEDDING, (weight, flat), {"padding_idx": padding_idx})
    return taken if places.ndim == 1 else reshape(taken, (*places.shape, weight.shape[1]))


def index_select(x: Operand, axis: int, index: Index) -> Array:
    """The parts of x at the places index: [N] along `axis`, as torch.index_select.

    Raises:
        OutOfRangeError: for a place that is not there.
        ShapeError, DTypeError: for an axis that is not there, or another index.
    """
    x = _array(x)
    place = axis_of("index_select", axis, x.ndim)
    places = checked_index("index_select", index, x.shape[place], beside=x)
    return call(INDEX_SELECT, (x, places), {"axis": place})


def take(x: Operand, index: Index, axis: int | None = None) -> Array:
    """The parts of x at the places `index` along `axis`, as np.take: `index`'s axes come in its place.

    Args:
        x: any shape and dtype.
        index: whole numbers of any shape; negative ones count from the end.
        axis: None for the flattened x.

    Raises:
        OutOfRangeError: for a place that is not there.
        ShapeError, DTypeError: for an axis that is not there, or another index.
    """
    x = _array(x)
    if axis is None:
        x, axis = flatten(x), 0
    place = axis_of("take", axis, x.ndim)
    places = checked_index("take", index, x.shape[place], wraps=True, beside=x)
    flat = places if places.ndim == 1 else reshape(places, (places.size,))
    taken = call(INDEX_SELECT, (x, flat), {"axis": place})
    if places.ndim == 1:
        return taken
    return reshape(taken, (*x.shape[:place], *places.shape, *x.shape[place + 1 :]))


def take_together(x: Array, indices: Sequence[Any], axis: int) -> Array:
    """x at indices[0][j], indices[1][j], ... along the axes from `axis` on, as x[..., i0, i1] in NumPy.

    Raises:
        OutOfRangeError: for a place that is not there; negative ones count from the end.
        ShapeError, DTypeError: for indices that do not broadcast against each other, or hold no places.
    """
    lengths = x.shape[axis : axis + len(indices)]
    if len(lengths) < len(indices):
        raise OutOfRangeError(f"x {x.shape} has {x.ndim} axes, too few for the index.")
    places = [
        checked_index("index", i, n, wraps=True, beside=x) for i, n in zip(indices, lengths, strict=True)
    ]
    if len(places) == 1:
        return take(x, places[0], axis)
    from .pointwise import where

    # As places along one axis, into which these axes are joined.
    joined: Any = None
    for index, length in zip(places, lengths, strict=True):
        wide: Any = index.astype("int64")
        wide = where(wide < 0, wide + length, wide)
        joined = wide if joined is None else joined * length + wide
    return take(flatten(x, axis, axis + len(lengths) - 1), joined, axis)


def gather(x: Operand, axis: int, index: Index) -> Array:
    """out[i][j] = x[index[i][j]][j] for axis 0, out[i][j] = x[i][index[i][j]] for axis 1, as torch.gather.

    Raises:
        OutOfRangeError: for a place that is not there.
        ShapeError, DTypeError: for an index of other axes, or longer than x along another axis.
    """
    x = _array(x)
    place = axis_of("gather", axis, x.ndim)
    return call(GATHER, (x, checked_index("gather", index, x.shape[place], beside=x)), {"axis": place})


def take_along_axis(x: Operand, index: Index, axis: int | None = None) -> Array:
    """x at `index` along `axis`, the other axes broadcast, as np.take_along_axis (torch.take_along_dim).

    Without `axis`, both are flattened.

    Raises:
        OutOfRangeError: for a place that is not there; negative ones count from the end.
        ShapeError, DTypeError: for an index whose other axes do not broadcast against x's.
    """
    x, places = _array(x), _array(index)
    if axis is None:
        x, places, axis = flatten(x), flatten(places), 0
    place = axis_of("take_along_axis", axis, x.ndim)
    if places.ndim != x.ndim:
        raise ShapeError(f"take_along_axis: x {x.shape} and index {places.shape} need the same axes.")
    try:
        both = np.broadcast_shapes(*((*a.shape[:place], 1, *a.shape[place + 1 :]) for a in (x, places)))
    except ValueError:
        raise ShapeError(f"take_along_axis: x {x.shape} and index {places.shape} do not broadcast.") from None
    places = checked_index("take_along_axis", places, x.shape[place], wraps=True, beside=x)
    wide = broadcast_to(x, (*both[:place], x.shape[place], *both[place + 1 :]))
    spread = broadcast_to(places, (*both[:place], places.shape[place], *both[place + 1 :]))
    return call(GATHER, (wide, spread), {"axis": place})


def scatter_add(x: Operand, axis: int, index: Index, src: Operand) -> Array:
    """x with src added at the places of `index` along `axis`, as torch.scatter_add; the inverse of `gather`.

    Args:
        x: any shape.
        axis: along which `index` counts.
        index: int64 or int32, as many axes as x, none longer than src's, nor, but `axis`, than x's.
        src: of x's dtype. Its elements are added up in their order along `axis`, then to x.

    Raises:
        OutOfRangeError: for a place that is not there.
        ShapeError, DTypeError: for shapes that do not fit, or mixed dtypes.
    """
    x, src = _array(x), _array(src)
    place = axis_of("scatter_add", axis, x.ndim)
    places = checked_index("scatter_add", index, x.shape[place], beside=x)
    src = _cut_to("scatter_add", src, places.shape)
    total: Any = call(SCATTER_SUM, (src, places), {"axis": place, "shape": x.shape})
    added: Array = x + total
    return added


def _cut_to(name: str, src: Array, shape: tuple[int, ...]) -> Array:
    """The first elements of src along each axis, as many as `shape` has."""
    if src.ndim != len(shape) or any(n < m for n, m in zip(src.shape, shape, strict=True)):
        raise ShapeError(f"{name}: src {src.shape} has no element for each place of index {shape}.")
    for axis, length in enumerate(shape):
        if length != src.shape[axis]:
            src = narrow(src, axis, 0, length)
    return src


def index_add(x: Operand, axis: int, index: Index, source: Operand, *, alpha: float = 1) -> Array:
    """x with `alpha` times the parts of `source` added at index: [N] along `axis`, as torch.index_add.

    Raises:
        OutOfRangeError: for a place that is not there.
        ShapeError, DTypeError: for shapes that do not fit, or mixed dtypes.
    """
    x, source = _array(x), _array(source)
    place = axis_of("index_add", axis, x.ndim)
    places = checked_index("index_add", index, x.shape[place], beside=x)
    attrs = {"axis": place, "length": x.shape[place], "skip": -1}
    total: Any = call(INDEX_SUM, (source, places), attrs)
    added: Array = x + (total if alpha == 1 else total * alpha)
    return added


def one_hot(index: Index, num_classes: int = -1) -> Array:
    """1 at each place along a new last axis of `num_classes`, else 0, as torch.nn.functional.one_hot.

    Args:
        index: int64 or int32, any shape.
        num_classes: one more than the largest place unless given.

    Returns:
        [..., num_classes], int64.

    Raises:
        OutOfRangeError: for a place that is not below num_classes.
        ShapeError: without num_classes, where the numbers are not known or there are none.
    """
    places = _array(index)
    if num_classes == -1:
        if type(places) is not Array or not places.size:
            raise ShapeError("one_hot: num_classes must be given here: there are no numbers to count.")
        num_classes = int(np.asarray(places).max()) + 1
    return call(ONE_HOT, (checked_index("one_hot", places, num_classes),), {"num_classes": num_classes})


def concat(arrays: Sequence[Operand], axis: int = 0) -> Array:
    """Arrays of one dtype one after the other along `axis`, as torch.cat.

    Raises:
        ShapeError: for no arrays, an axis that is not there, or arrays that differ along another axis.
        DTypeError: for mixed dtypes.
    """
    parts: list[Any] = [_array(x) for x in arrays]
    if not parts:
        raise ShapeError("concat: there is no array to join.")
    place = axis_of("concat", axis, parts[0].ndim)
    while True:
        groups = [parts[at : at + MOST_JOINED] for at in range(0, len(parts), MOST_JOINED)]
        parts = [
            call(CONCAT, (*group, *[None] * (MOST_JOINED - len(group))), {"axis": place}) for group in groups
        ]
        if len(parts) == 1:
            joined: Array = parts[0]
            return joined


def cat(tensors: Sequence[Operand], axis: int = 0) -> Array:
    """The same as `concat`, as PyTorch calls it."""
    return concat(tensors, axis)


def stack(arrays: Sequence[Operand], axis: int = 0) -> Array:
    """Arrays of one shape and dtype beside each other along a new axis, as torch.stack.

    Raises:
        ShapeError: for no arrays, shapes that differ, or an axis that is not there.
        DTypeError: for mixed dtypes.
    """
    parts = [_array(x) for x in arrays]
    if not parts:
        raise ShapeError("stack: there is no array to join.")
    for i, part in enumerate(parts):
        if part.shape != parts[0].shape:
            raise ShapeError(f"stack: array {i} has shape {part.shape} and the first one {parts[0].shape}.")
    place = axis_of("stack", axis, parts[0].ndim + 1)
    return concat([expand_dims(part, place) for part in parts], place)


def pad(x: Operand, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """x with a border, as torch.nn.functional.pad.

    Args:
        x: any shape and dtype.
        pad: lengths before and after the last axis, then before and after the one before it, and so on;
            negative ones cut.
        mode: "constant", "reflect" (mirrored at the edge, which is not repeated), "replicate" or "circular".
        value: of a constant border, 0 unless given.

    Raises:
        ShapeError: for an odd number of lengths, more than x has axes for, or more than a mode can take.
        ConfigError: for another mode, or a value in one that has none.
    """
    x = _array(x)
    lengths = [whole(length) for length in pad]
    if len(lengths) % 2 or len(lengths) > 2 * x.ndim:
        raise ShapeError(
            f"pad: {lengths} must be two lengths, before and after, for each of the last axes of x {x.shape}."
        )
    if mode != "constant" and value is not None and value != 0:
        raise ConfigError(f"pad: value is the border of mode 'constant', got {value!r} with mode {mode!r}.")
    before, after = [0] * x.ndim, [0] * x.ndim
    for i in range(len(lengths) // 2):
        before[x.ndim - 1 - i], after[x.ndim - 1 - i] = lengths[2 * i : 2 * i + 2]
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if min(low, high) < 0:
            kept = x.shape[axis] + min(low, 0) + min(high, 0)
            if kept < 0:
                raise ShapeError(f"pad: {low} and {high} cut more than axis {axis} of x {x.shape} has.")
            x = narrow(x, axis, -min(low, 0), kept)
            before[axis], after[axis] = max(low, 0), max(high, 0)
    attrs = {"before": tuple(before), "after": tuple(after), "mode": mode, "value": float(value or 0)}
    return call(PAD, (x,), attrs)


def tile(x: Operand, *reps: Any) -> Array:
    """x repeated reps[i] times along its i-th axis from the right, as torch.tile and np.tile.

    Raises:
        ShapeError: for a negative number.
    """
    x = _array(x)
    given = reps[0] if len(reps) == 1 and not hasattr(reps[0], "__index__") else reps
    counts = [whole(count) for count in given]
    if min(counts, default=0) < 0:
        raise ShapeError(f"tile: each number is 0 or more, got {counts}.")
    ndim = max(len(counts), x.ndim)
    counts = [1] * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - x.ndim) + x.shape
    apart = reshape(x, tuple(n for length in shape for n in (1, length)))
    wide = broadcast_to(apart, tuple(n for pair in zip(counts, shape, strict=True) for n in pair))
    return reshape(wide, tuple(count * length for count, length in zip(counts, shape, strict=True)))


def repeat_interleave(
    x: Operand, repeats: int | Operand, axis: int | None = None, *, output_size: int | None = None
) -> Array:
    """Each element of x `repeats` times in a row along `axis`, as torch.repeat_interleave.

    Args:
        x: any shape and dtype.
        repeats: a number, or an array with one for each place along `axis`, whose numbers must be known.
        axis: None for the flattened x.
        output_size: the length that comes out, for those who know it; not needed.

    Raises:
        ShapeError: for a negative number, or an axis that is not there.
    """
    x = _array(x)
    if axis is None:
        x, axis = flatten(x), 0
    place = axis_of("repeat_interleave", axis, x.ndim)
    if isinstance(repeats, Array | np.ndarray):
        counts = np.broadcast_to(np.asarray(repeats), (x.shape[place],))
        if counts.min(initial=0) < 0:
            raise ShapeError("repeat_interleave: repeats are 0 or more.")
        return index_select(x, place, np.repeat(np.arange(x.shape[place]), counts))
    count = whole(repeats)
    if count < 0:
        raise ShapeError(f"repeat_interleave: repeats is 0 or more, got {count}.")
    head, length, tail = x.shape[:place], x.shape[place], x.shape[place + 1 :]
    wide = broadcast_to(expand_dims(x, place + 1), (*head, length, count, *tail))
    return reshape(wide, (*head, length * count, *tail))


def roll(x: Operand, shifts: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Array:
    """x moved by `shifts` along `axis`, what leaves at one end entering at the other, as torch.roll.

    Without `axis`, x is moved as if it were flattened.

    Raises:
        ShapeError: for an axis that is not there, or another number of shifts than axes.
    """
    x = _array(x)
    moves = [whole(s) for s in (shifts if isinstance(shifts, Sequence) else (shifts,))]
    if axis is None:
        if len(moves) != 1:
            raise ShapeError(f"roll: without axes there is one shift, got {moves}.")
        return reshape(roll(flatten(x), moves, 0), x.shape)
    axes = [axis_of("roll", one, x.ndim) for one in (axis if isinstance(axis, Sequence) else (axis,))]
    if len(axes) != len(moves):
        raise ShapeError(f"roll: {moves} and axes {axes} need one shift for each axis.")
    by = [0] * x.ndim
    for one, move in zip(axes, moves, strict=True):
        by[one] += move
    return call(ROLL, (x,), {"shifts": tuple(by)})


def tril(x: Operand, diagonal: int = 0) -> Array:
    """The matrices of x: [..., m, n], zero above the diagonal-th diagonal, as torch.tril.

    Raises:
        ShapeError: for fewer than two axes.
    """
    return call(TRIL, (_array(x),), {"diagonal": whole(diagonal)})


def triu(x: Operand, diagonal: int = 0) -> Array:
    """The matrices of x: [..., m, n], zero below the diagonal-th diagonal, as torch.triu."""
    return call(TRIU, (_array(x),), {"diagonal": whole(diagonal)})


def sort(x: Operand, axis: int = -1, descending: bool = False, stable: bool = True) -> tuple[Array, Array]:
    """x in order along `axis`, and where each element was, as torch.sort; always stable, NaN as the largest.

    Returns:
        values: x's shape and dtype; indices: int64.

    Raises:
        ShapeError: for an axis that is not there.
    """
    x = _array(x)
    place = axis_of("sort", axis, max(x.ndim, 1))
    if not x.ndim:
        values, indices = sort(reshape(x, (1,)), 0, descending)
        return reshape(values, ()), reshape(indices, ())
    values, indices = call_all(SORT, (x,), {"axis": place, "descending": bool(descending)})
    return values, indices


def argsort(x: Operand, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    """Where the elements of x in order along `axis` are: the indices of `sort`."""
    return sort(x, axis, descending)[1]


def topk(
    x: Operand, k: int, axis: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Array, Array]:
    """The k largest (or smallest) elements of x along `axis` in order, and where they were, as torch.topk.

    Of equal elements the first ones are taken; NaN is the largest. They are in order also without `sorted`.

    Returns:
        values: x's shape with k along `axis`; indices: int64.

    Raises:
        ShapeError: for an axis that is not there, or more elements than it has.
    """
    x = _array(x)
    place = axis_of("topk", axis, max(x.ndim, 1))
    if not x.ndim:
        values, indices = topk(reshape(x, (1,)), k, 0, largest)
        return (reshape(values, ()), reshape(indices, ())) if k else (values, indices)
    attrs = {"k": whole(k), "axis": place, "largest": bool(largest)}
    values, indices = call_all(TOPK, (x,), attrs)
    return values, indices


def searchsorted(
    sorted_sequence: Operand,
    input: Operand,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Operand | None = None,
) -> Array:
    """For each number where it would be entered to keep the order, as torch.searchsorted.

    Args:
        sorted_sequence: [n], or [..., n] with the leading axes of `input`, in ascending order.
        input: any shape, of the same dtype.
        out_int32: whether the result is int32, else int64.
        right: behind equal elements, else before them.
        side: "left" or "right", the same in words.
        sorter: where the elements of a sequence that is not in order would be in one, as from `argsort`.

    Returns:
        input's shape, 0 to n.

    Raises:
        ShapeError: when the leading axes differ.
        DTypeError: for mixed dtypes.
        ConfigError: for another side.
    """
    rows = _array(sorted_sequence)
    if side not in (None, "left", "right") or (side == "left" and right):
        raise ConfigError(f"searchsorted: side is 'left' or 'right', and agrees with right, got {side!r}.")
    if sorter is not None:
        rows = take_along_axis(rows, sorter, -1)
    found = call(SEARCHSORTED, (rows, _array(input)), {"right": bool(right) or side == "right"})
    return found.astype("int32") if out_int32 else found
