"""A pooling call as one launch: images with three spatial axes, steps in elements, the tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from ...conv.cuda.problem import MOST_ROWS, by_axis, step_of
from ...cpu.cycles import ceil_div
from ...cuda.division import magic
from ...cuda.step import Arg, Step
from ...index.cuda.walk import column_block, power
from ...op import Attrs, Specs
from ...spec import TensorSpec
from ..reference import three_axes
from ..windows import MOST_AXES, Axis, axes_of, parts
from .back_kernels import back_windows
from .whole_kernels import means_by_channels, means_of_lines
from .window_kernels import max_windows, mean_windows, take_windows, tap_places

MOST_UNROLLED = 16  # taps whose loads are all in flight: as many registers as their elements take
MOST_NEAR = 9  # windows that see an element: beside dy come taps or what it is divided by
TILE = 1024  # elements: with 128 threads, one load of 16 bytes of 16-bit elements a thread and tap
THREADS_WARPS = 4


@dataclass(frozen=True)
class Images:
    """An array of images as [N, C, D, H, W].

    Attributes:
        index: which tensor of the call.
        shape: lengths; 1 along spatial axes that are not there.
        steps: elements from one to the next along each axis; 0 along axes of length 1.
    """

    index: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]


def images_of(index: int, spec: TensorSpec, layout: str) -> Images:
    """A tensor of a call in that form."""
    shape = list(spec.shape)
    steps = [stride // spec.itemsize for stride in spec.strides]
    if layout == "NHWC":
        shape.insert(1, shape.pop())
        steps.insert(1, steps.pop())
    missing = MOST_AXES + 2 - len(shape)
    lengths = (*shape[:2], *(1,) * missing, *shape[2:])
    moves = (*steps[:2], *(0,) * missing, *steps[2:])
    return Images(index, lengths, tuple(s if n > 1 else 0 for s, n in zip(moves, lengths, strict=True)))


def by_channels(images: Images) -> bool:
    """Whether channels lie closer together than the elements of a row do."""
    c, w = images.steps[1], images.steps[4]
    return images.shape[1] > 1 and (images.shape[4] == 1 or abs(c) < abs(w))


def tile_of(rows: int, cols: int, elements: int) -> tuple[int, int]:
    """(BR, BC) of about that many elements, not more rows than there are; 32 columns fill a warp."""
    bc = column_block(cols, elements, 32)
    return min(power(rows), max(elements // bc, 1)), bc


class Walk:
    """How a launch walks over its result: rows, columns, unit; and what its kernel is told of them.

    Args:
        target: the images whose elements are computed.
        others: the images that are read, or written beside them, by name.
        itemsize: of the elements.
    """

    def __init__(self, target: tuple[str, Images], others: dict[str, Images], itemsize: int) -> None:
        n, c, d, h, w = target[1].shape
        self.channels = by_channels(target[1])
        self.rows, self.cols = (n * d * h * w, c) if self.channels else (n * c * d * h, w)
        self.lengths = (d, h, w) if self.channels else (c, d, h)
        self.arrays = {target[0]: target[1], **others}
        self.itemsize = itemsize
        along = self._along = 1 if self.channels else 4
        # Along w a thread has single elements, a warp 32 neighbours: with 16 bytes of them for a thread, the
        # lanes' loads under one tap would lie apart, each in a sector of its own.
        self.dense = {name: self.channels and a.steps[1] == 1 for name, a in self.arrays.items()}
        steps = [s for a in self.arrays.values() for i, s in enumerate(a.steps) if i != along]
        self.unit = gcd(16 // itemsize, self.cols, *steps) if self.channels else 1

    def values(self, elements: int) -> dict[str, Any]:
        """The parameters that all kernels here share."""
        br, bc = tile_of(self.rows, self.cols, elements)
        l1, l2, l3 = self.lengths
        found: dict[str, Any] = {"rows": self.rows, "cols": self.cols // self.unit, "VEC": self.unit}
        for name, length in (("l1", l1), ("l2", l2), ("l3", l3)):
            found[name] = length
            found[f"{name}_mul"], found[f"{name}_shift"] = magic(max(length, 1))
        for name, images in self.arrays.items():
            found[name] = Arg(images.index)
            found[f"{name.upper()}_DENSE"] = self.dense[name]
            for i, axis in enumerate("ncdhw"):
                scale = 1 if i == self._along else self.unit
                found[f"{name}_{axis}_step"] = images.steps[i] // scale
        return {**found, "CHANNELS": self.channels, "BR": br, "BC": bc}

    def launch(self, fn: Any, values: dict[str, Any]) -> Step:
        """The launch of a kernel over all tiles."""
        # Single elements take more registers for their addresses than vectors do, float64 twice as many.
        elements = TILE // (1 if self.channels else 2) // (2 if self.itemsize == 8 else 1)
        values = {**self.values(elements), **values}
        grid = ceil_div(self.rows, values["BR"]) * ceil_div(self.cols, values["BC"])
        return step_of(fn, (grid,), values, THREADS_WARPS, 1)

    def refusal(self) -> str | None:
        """Why the rows are too many, or None."""
        if self.rows > MOST_ROWS:
            return f"counts rows in 32 bits, up to {MOST_ROWS:,}, not {self.rows:,}"
        return None


def window_values(axes: Sequence[Axis], attrs: Attrs, unrolled: bool) -> dict[str, Any]:
    """What kernels are told of the windows."""
    found = three_axes(axes)
    triple: Any = tuple(axis.size for axis in found)
    adaptive = bool(attrs["output_size"])
    pairs = ((0, 0),) * MOST_AXES
    given = tuple(attrs.get("padding") or ())
    if given and not adaptive:
        pairs = pairs[: MOST_AXES - len(given)] + given
    taps: Any = tuple(axis.taps for axis in found)
    strides = (1,) * MOST_AXES if adaptive else tuple(axis.stride for axis in found)
    small = unrolled and not adaptive and prod(taps) <= MOST_UNROLLED
    return {
        **by_axis("size", triple),
        **by_axis("places", _three(axis.places for axis in found)),
        **by_axis("pad", _three(pair[0] for pair in pairs)),
        **by_axis("after", _three(pair[1] for pair in pairs)),
        **by_axis("taps", taps),
        **by_axis("K", taps if small else (0, 0, 0), True),
        **by_axis("S", _three(strides), True),
        **by_axis("D", _three(axis.step for axis in found), True),
        "ADAPTIVE": adaptive,
        "divisor": attrs.get("divisor_override") or 0,
        "OWN": bool(attrs.get("divisor_override")),
        "INCLUDE": bool(attrs.get("count_include_pad", True)),
    }


def _three(values: Any) -> tuple[int, int, int]:
    d, h, w = values
    return d, h, w


def near_values(axes: Sequence[Axis], adaptive: bool) -> dict[str, Any]:
    """How many windows may see an element, along each axis."""
    counts = []
    for axis in three_axes(axes):
        if adaptive:
            most = max((((i + 1) * axis.places - 1) // axis.size - i * axis.places // axis.size + 1)
                       for i in range(axis.size))  # fmt: skip
        else:
            most = ceil_div((axis.taps - 1) * axis.step + 1, axis.stride)
        counts.append(max(1, min(most, axis.places)) if adaptive else most)
    near = _three(counts)
    small = prod(near) <= MOST_NEAR
    return {**by_axis("near", near), **by_axis("N", near if small else (0, 0, 0), True)}


# --- Calls --------------------------------------------------------------------------------------------------


def forward_walk(x: TensorSpec, y: TensorSpec, chosen: TensorSpec | None, attrs: Attrs) -> Walk:
    """y's elements, from x: tensor 0, to y: 1 and the taps: 2."""
    layout = str(attrs["layout"])
    others = {"x": images_of(0, x, layout)}
    if chosen is not None:
        others["chosen"] = images_of(2, chosen, layout)
    return Walk(("y", images_of(1, y, layout)), others, x.itemsize)


def _axes(x: TensorSpec, attrs: Attrs, name: str) -> tuple[Axis, ...]:
    return axes_of(attrs, parts(str(attrs["layout"]), x.shape, name)[2], name)


def max_step(specs: Specs, attrs: Attrs) -> Step:
    """The launch of max_pool."""
    x, y, chosen = specs
    walk = forward_walk(x, y, chosen, attrs)
    return walk.launch(max_windows, window_values(_axes(x, attrs, "max_pool"), attrs, True))


def take_step(specs: Specs, attrs: Attrs) -> Step:
    """The launch of max_pool_take; the taps are tensor 1, y is tensor 2."""
    x, chosen, y = specs
    layout = str(attrs["layout"])
    others = {"x": images_of(0, x, layout), "chosen": images_of(1, chosen, layout)}
    walk = Walk(("y", images_of(2, y, layout)), others, x.itemsize)
    return walk.launch(take_windows, window_values(_axes(x, attrs, "max_pool_take"), attrs, False))


def places_step(specs: Specs, attrs: Attrs) -> Step:
    """The launch of max_pool_indices."""
    chosen, out = specs
    layout = str(attrs["layout"])
    walk = Walk(("out", images_of(1, out, layout)), {"chosen": images_of(0, chosen, layout)}, out.itemsize)
    axes = axes_of(attrs, tuple(attrs["input_size"]), "max_pool_indices")
    return walk.launch(tap_places, window_values(axes, attrs, False))


def is_whole(axes: Sequence[Axis]) -> bool:
    """Whether there is one window, which sees all of an image."""
    return all(
        axis.places == 1 and axis.starts[0] == 0 and axis.counts[0] == axis.size == axis.factors[0]
        for axis in axes
    )


def whole_step(x: TensorSpec, y: TensorSpec, attrs: Attrs) -> Step | None:
    """The launch for means of whole images; None where their elements are not equally far apart."""
    layout = str(attrs["layout"])
    images, means = images_of(0, x, layout), images_of(1, y, layout)
    n, c, *size = images.shape
    apart, taps = 0, 1
    for length, step in reversed(list(zip(size, images.steps[2:], strict=True))):
        if length > 1:
            if taps > 1 and step != apart * taps:
                return None
            apart = step if taps == 1 else apart
            taps *= length
    values = {
        "x": Arg(0),
        "y": Arg(1),
        "taps": taps,
        "divisor": attrs.get("divisor_override") or taps,
        "y_n_step": means.steps[0],
        "y_c_step": means.steps[1],
    }
    if images.steps[1] == 1 and c > 1:
        unit = gcd(16 // x.itemsize, c, images.steps[0], apart)
        bc = min(power(c), 64)
        values |= {"cols": c // unit, "x_n_step": images.steps[0] // unit, "x_tap_step": apart // unit}
        values |= {"VEC": unit, "BC": bc, "BT": min(power(taps), 2 * TILE // bc)}
        return step_of(means_by_channels, (n * ceil_div(c, bc),), values, THREADS_WARPS, 1)
    if apart not in (0, 1) or n * c > MOST_ROWS:
        return None
    unit = gcd(16 // x.itemsize, taps, *images.steps[:2])
    bt = min(power(taps), 2 * TILE)
    br = min(power(n * c), 2 * TILE // bt)
    multiplier, shift = magic(max(c, 1))
    values |= {"rows": n * c, "taps": taps // unit, "VEC": unit, "BR": br, "BT": bt, "channels": c}
    values |= {"channels_mul": multiplier, "channels_shift": shift}
    values |= {"x_n_step": images.steps[0] // unit, "x_c_step": images.steps[1] // unit}
    return step_of(means_of_lines, (ceil_div(n * c, br),), values, THREADS_WARPS, 1)


def mean_step(specs: Specs, attrs: Attrs) -> Step:
    """The launch of avg_pool."""
    x, y = specs
    axes = _axes(x, attrs, "avg_pool")
    if is_whole(axes):
        step = whole_step(x, y, attrs)
        if step is not None:
            return step
    return forward_walk(x, y, None, attrs).launch(mean_windows, window_values(axes, attrs, True))


def back_walk(dy: TensorSpec, chosen: TensorSpec | None, dx: TensorSpec, attrs: Attrs) -> Walk:
    """dx's elements, from dy: tensor 0 and the taps: 1; dx is the last one."""
    layout = str(attrs["layout"])
    others = {"dy": images_of(0, dy, layout)}
    if chosen is not None:
        others["chosen"] = images_of(1, chosen, layout)
    return Walk(("dx", images_of(len(others), dx, layout)), others, dx.itemsize)


def back_step(name: str, dy: TensorSpec, chosen: TensorSpec | None, dx: TensorSpec, attrs: Attrs) -> Step:
    """The launch of max_pool_grad, with taps, or of avg_pool_grad."""
    walk = back_walk(dy, chosen, dx, attrs)
    axes = axes_of(attrs, tuple(attrs["input_size"]), name)
    values = {
        **window_values(axes, attrs, False),
        **near_values(axes, bool(attrs["output_size"])),
        "MAX": chosen is not None,
    }
    if chosen is None:
        values |= {"chosen": None, "CHOSEN_DENSE": False, **{f"chosen_{axis}_step": 0 for axis in "ncdhw"}}
    return walk.launch(back_windows, values)
