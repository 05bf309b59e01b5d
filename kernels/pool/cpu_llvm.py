"""Pooling on the CPU: vectors of channels, or of neighbours along w, and single elements where neither is.

    channels   NHWC, and any array whose channels lie side by side: 4 vectors of channels at a time; each
               element of the result is folded in registers and written once
    lines      NCHW: vectors along w for windows of up to 16 taps that are up to 4 elements apart, gradients
               too: those are sums over windows, not scattered
    scatter    NCHW, gradients of max in large windows: each dy is added to the one element it belongs to
    across     NCHW: vectors along windows of 4 elements and more, such as whole images; gradients where
               windows do not overlap
    points     everything else, one element at a time

All read any strides. The lists of what each element sees are made when a call is bound (`emit.py` says how
they are walked). Threads share the lines of the result, so that their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernel import Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec, np_dtype
from . import words
from .emit import PLACES, computed, emit_indices, emit_points
from .emit_across import emit_across, emit_across_back
from .emit_lines import MOST_REPEATS, MOST_STRIDE, MOST_TAPS, emit_lines
from .emit_scatter import emit_scatter
from .op import FLOATS
from .reference import three_axes
from .windows import MOST_AXES, Axis, axes_of, parts

# Elements that windows see for which another thread pays: about 10 us on one core of an AMD Zen 5.
WORTH_A_THREAD = 1 << 16
MANY_TAPS = 16  # of windows whose gradient is scattered rather than gathered
LONG = 4  # taps along w from which vectors along a window pay
BLOCK = words.WORDS


def lifted(spec: TensorSpec, layout: str) -> tuple[list[int], list[int]]:
    """Shape and byte strides as [N, C, D, H, W]; axes that are not there have length 1."""
    shape, strides = list(spec.shape), list(spec.strides)
    if layout == "NHWC":
        shape.insert(1, shape.pop())
        strides.insert(1, strides.pop())
    missing = MOST_AXES + 2 - len(shape)
    return shape[:2] + [1] * missing + shape[2:], strides[:2] + [0] * missing + strides[2:]


def listed(axis: Axis, gradient: bool) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(where each list starts, the pairs): (element, tap) for each window; of a gradient (window, tap) for
    each element."""
    at, there = axis.seen()
    places, taps = np.nonzero(there)
    elements = at[places, taps]
    keys, others, count = (elements, places, axis.size) if gradient else (places, elements, axis.places)
    order = np.lexsort((taps, keys))
    if gradient:  # windows in their order: sums then start with the first
        order = np.lexsort((places, keys))
    starts = np.searchsorted(keys[order], np.arange(count + 1))
    pairs = np.stack([others[order], taps[order]], 1)
    return starts.astype(np.int32), np.ascontiguousarray(pairs, np.int32)


def even(axis: Axis) -> tuple[int, int, int, int] | None:
    """(taps, stride, step, padding before) where all windows are alike, at equal distances; None else."""
    alike = axis.stride > 0 and bool((axis.counts == axis.taps).all())
    return (axis.taps, axis.stride, axis.step, -int(axis.starts[0])) if alike else None


class Call:
    """One call: its axes, and the words and tables of its argument block.

    Args:
        kind: the op.
        specs: of its arrays.
        attrs: its attributes.
    """

    def __init__(self, kind: str, specs: Specs, attrs: Attrs):
        self.kind, self.attrs, self.arrays = kind, attrs, len(specs)
        layout = attrs["layout"]
        self.gradient = kind in ("max_pool_grad", "avg_pool_grad")
        self.specs = [None if place is None else specs[place] for place in PLACES[kind]]
        self.lifted = [None if spec is None else lifted(spec, layout) for spec in self.specs]
        images = specs[PLACES[kind][1 if self.gradient else 0] or 0]
        size = parts(layout, images.shape, kind)[2]
        self.axes = list(three_axes(axes_of(attrs, size, kind)))
        self._join()

    @property
    def shape(self) -> list[int]:
        """The result's, as [N, C, D, H, W]."""
        assert self.lifted[1] is not None
        return self.lifted[1][0]

    def _join(self) -> None:
        """Makes one line of the lines of images that one window sees whole."""
        images = self.lifted[1 if self.gradient else 0]
        assert images is not None
        shape, steps = images
        for a in (1, 0):
            outer, inner = self.axes[a], self.axes[2]
            if not (_whole(outer) and _whole(inner) and steps[2 + a] == shape[4] * steps[4]):
                return
            count = np.array([outer.size * inner.size])
            self.axes[2] = Axis(int(count[0]), inner.starts, count, int(count[0]), 1, int(count[0]), count)
            one = np.ones(1, np.int64)
            self.axes[a] = Axis(1, one * 0, one, 1, 1, 1, one)
            shape[4], shape[2 + a] = int(count[0]), 1

    def block(self, lanes: int, forward_w: bool | None) -> tuple[NDArray[np.int64], list[Any]]:
        """(the argument block, the tables whose addresses are in it).

        Args:
            lanes: by which vectors at the end of a line may read past the last reciprocal.
            forward_w: whether the lists of axis w are those of windows, of a gradient too; None for no lists.
        """
        block = np.zeros(BLOCK, np.int64)
        keep: list[Any] = []

        def table(values: Any, kind: Any = np.int32) -> int:
            keep.append(np.ascontiguousarray(values, kind))
            return int(keep[-1].ctypes.data)

        block[words.CHANNELS] = self.shape[1]
        block[words.SIZE : words.SIZE + 3] = self.shape[2:]
        for place, found in zip((words.SOURCE, words.TARGET, words.TAPS), self.lifted, strict=True):
            if found is not None:
                block[place : place + 5] = found[1]
        own = self.attrs.get("divisor_override")
        for a, axis in enumerate(self.axes):
            if a < 2 or forward_w is not None:
                starts, pairs = listed(axis, self.gradient and not (forward_w and a == 2))
                block[words.STARTS + a], block[words.PAIRS + a] = table(starts), table(pairs)
            factors = axis.factors if own is None else np.full(axis.places, own if a == 0 else 1)
            block[words.FACTORS + a] = table(factors)
        inverse = np.append(1.0 / factors, np.zeros(lanes))
        block[words.RECIPROCALS] = table(inverse, computed(self.specs[1].dtype))  # type: ignore[union-attr]
        block[words.TAPS_H], block[words.TAPS_W] = self.axes[1].taps, self.axes[2].taps
        block[words.SOURCE_W] = self.axes[2].places if self.gradient else self.axes[2].size
        return block, keep

    def work(self) -> int:
        """Elements that all windows see."""
        n, c = self.shape[:2]
        return n * c * prod(axis.places * axis.taps for axis in self.axes)

    def dense(self, axis: int) -> bool:
        """Whether elements lie side by side along an axis of the lifted arrays, in all of them."""
        return all(
            spec is None or found is None or found[1][axis] == spec.itemsize
            for spec, found in zip(self.specs, self.lifted, strict=True)
        )

    def apart(self) -> bool:
        """Whether no element is in two windows."""
        lasts = [axis.starts + (axis.counts - 1) * axis.step for axis in self.axes]
        return all(bool((e[:-1] < a.starts[1:]).all()) for e, a in zip(lasts, self.axes, strict=True))

    def scatters(self) -> bool:
        """Whether the gradient of max adds each dy to the one element that it belongs to.

        That pays where windows are large beside what they share. Sums of 16-bit numbers would be rounded at
        each step.
        """
        if self.kind != "max_pool_grad" or self.attrs["layout"] != "NCHW":
            return False
        image = self.specs[1]
        assert image is not None
        exist = all(axis.all_see() for axis in self.axes)
        plane = image.itemsize * prod(self.shape[2:])
        if image.layout is not None or not exist or plane >= 1 << 30:
            return False
        if image.itemsize == 2 and not self.apart():
            return False
        windows = even(self.axes[2])
        lines = windows and windows[0] <= MOST_TAPS and windows[1] <= MOST_STRIDE and self.dense(4)
        return not lines or prod(axis.taps for axis in self.axes) >= MANY_TAPS

    def scatter_tables(self, block: NDArray[np.int64]) -> list[Any]:
        """What `emit_scatter` asks for in the block; returns the tables."""
        _, image = self.lifted[1]  # type: ignore[misc]
        shape = self.shape
        keep: list[Any] = []
        offsets = np.zeros(1, np.int64)
        for a, axis in enumerate(self.axes):
            step = image[2 + a]
            keep.append(np.ascontiguousarray(axis.starts * step, np.int32))
            block[words.STARTS + a] = keep[-1].ctypes.data
            along = np.arange(axis.taps) * axis.step * step
            offsets = (offsets[:, None] + along).reshape(-1)
        # A byte may be any number up to 255; more than a byte is held against TAPS_W.
        table = np.full(max(256, len(offsets)) + 1, -(1 << 30))
        table[: len(offsets)] = offsets
        keep.append(np.ascontiguousarray(table, np.int32))
        block[words.TAPS_W] = len(table) - 1
        block[words.PAIRS] = keep[-1].ctypes.data
        block[words.SIZE : words.SIZE + 3] = [axis.places for axis in self.axes]
        block[words.SOURCE_W] = shape[2] * shape[3] * shape[4] * self.specs[1].itemsize  # type: ignore[union-attr]
        return keep

    def image_lines(self) -> bool:
        """Whether the elements of the image lie side by side along w."""
        place = 1 if self.gradient else 0
        spec, found = self.specs[place], self.lifted[place]
        return spec is not None and found is not None and found[1][4] == spec.itemsize

    def long_windows(self) -> bool:
        """Whether vectors along windows pay, and serve: those of a gradient must not overlap."""
        axis = self.axes[2]
        ends = axis.starts + axis.counts
        apart = bool((ends[:-1] <= axis.starts[1:]).all()) and axis.all_see()
        fits = apart if self.gradient else self.kind in ("max_pool", "avg_pool")
        return axis.step == 1 and axis.taps >= LONG and fits and self.image_lines()


def _whole(axis: Axis) -> bool:
    """Whether there is one window, which sees all."""
    return axis.places == 1 and axis.starts[0] == 0 and axis.step == 1 and axis.counts[0] == axis.size


def bind(kind: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of a pooling op."""
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases

    call = Call(kind, specs, attrs)
    emit, key, units, forward_w = chosen(call)
    block, keep = call.block(4 * vector_bytes(), forward_w)
    if emit is emit_scatter:
        keep += call.scatter_tables(block)
    tasks = max(1, min(threads, units, call.work() // WORTH_A_THREAD))
    block[words.UNITS], block[words.TASKS] = units, tasks
    address = address_of(emit, (kind, *key), f"{kind} of {key[0]}")
    return bind_phases(block, call.arrays, [(address, tasks)], keep=keep)


def chosen(call: Call) -> tuple[Callable[..., None], tuple[Any, ...], int, bool | None]:
    """(the emitter, its key, the lines of the result, `forward_w` of the block)."""
    target, taps = call.specs[1], call.specs[2]
    assert target is not None
    stored = target.dtype
    lanes = vector_bytes() // np_dtype(computed(stored)).itemsize
    key: tuple[Any, ...] = (stored, 1 if taps is None else taps.itemsize, lanes)
    n, c, d, h, w = call.shape
    windows = even(call.axes[2])
    trivial = [axis.size == axis.places == axis.taps == 1 for axis in call.axes[:2]]
    lead = trivial.index(False) if False in trivial else 2
    if c > 1 and call.dense(1) and not (w > 1 and call.dense(4)):
        return emit_points, (*key, True, lead), n * d * h, False
    if call.scatters():
        return emit_scatter, (*key, call.apart()), n * c, None
    side_by_side = windows is not None and windows[0] == windows[1] and windows[3] == 0
    widest = MOST_REPEATS if call.kind == "avg_pool_grad" and side_by_side else MOST_STRIDE
    if windows and windows[0] <= MOST_TAPS and windows[1] <= widest and call.dense(4) and w > 1:
        group = windows[1] if call.gradient else 1
        short = -(-w // group) <= lanes
        return emit_lines, (*key, *windows, short, lead > 0), n * c * d * h, None
    if call.long_windows():
        return emit_across_back if call.gradient else emit_across, (*key, lead), n * c * d * h, True
    return emit_points, (*key[:2], 1, False, lead), n * c * d * h, False


@kernel("max_pool", dtypes=FLOATS, language="llvm", rank=1, binds=True)
def max_pool(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """The largest element of each window, and its tap."""
    return bind("max_pool", specs, attrs, threads)


@kernel("max_pool_grad", dtypes=FLOATS, language="llvm", rank=1, binds=True)
def max_pool_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Sums over the windows whose largest element each element is."""
    return bind("max_pool_grad", specs, attrs, threads)


@kernel("max_pool_take", dtypes=FLOATS, language="llvm", rank=1, binds=True)
def max_pool_take(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """The elements that taps stand for."""
    return bind("max_pool_take", specs, attrs, threads)


@kernel("avg_pool", dtypes=FLOATS, language="llvm", rank=1, binds=True)
def avg_pool(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Means of windows."""
    return bind("avg_pool", specs, attrs, threads)


@kernel("avg_pool_grad", dtypes=FLOATS, language="llvm", rank=1, binds=True)
def avg_pool_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Sums of the shares of the windows that each element is in."""
    return bind("avg_pool_grad", specs, attrs, threads)


@kernel("max_pool_indices", dtypes=("uint8", "int32"), language="llvm", rank=1, binds=True)
def max_pool_indices(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Arithmetic for each tap."""
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases

    taps, out = specs
    layout, size = attrs["layout"], tuple(attrs["input_size"])
    axes: Sequence[Axis] = three_axes(axes_of(attrs, size, "max_pool_indices"))
    block, keep = np.zeros(BLOCK, np.int64), [np.ascontiguousarray(axis.starts, np.int32) for axis in axes]
    (n, c, d, h, w), steps = lifted(out, layout)
    block[words.CHANNELS] = c
    block[words.SIZE : words.SIZE + 3] = d, h, w
    block[words.SOURCE : words.SOURCE + 5] = lifted(taps, layout)[1]
    block[words.TARGET : words.TARGET + 5] = steps
    for a, axis in enumerate(axes):
        block[words.STARTS + a], block[words.FACTORS + a] = axis.size, axis.step
        block[words.PAIRS + a] = keep[a].ctypes.data
    block[words.TAPS_H], block[words.TAPS_W] = axes[1].taps, axes[2].taps
    tasks = max(1, min(threads, n * c * d * h, out.size // WORTH_A_THREAD))
    block[words.UNITS], block[words.TASKS] = n * c * d * h, tasks
    address = address_of(emit_indices, (taps.itemsize,), "indices of max_pool")
    return bind_phases(block, 2, [(address, tasks)], keep=keep)
