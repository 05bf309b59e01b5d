"""The launches of convolutions that are matrix products: forward and for the input, and what goes before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda.step import Arg, Descriptor, Step, Workspace
from ...kernel import Config
from ..grad_geometry import Triple
from .gather import gather
from .implicit import implicit
from .problem import (
    MOST_ROWS,
    Images,
    Problem,
    Weight,
    by_axis,
    channel_division,
    divisions,
    step_of,
    steps_of,
    tap_steps,
    window_constants,
)
from .sums import add_parts, laid_out

_TILE = 64  # pixels and channels that a program lays out anew: 8 KB of 16-bit numbers
_GROUP = 8  # tiles of rows that take turns: the choice of Triton's own matmul tutorial


@dataclass(frozen=True)
class Ways:
    """A convolution as a product of pixels by weights, in either direction.

    Attributes:
        src, dst: the images that are read and written; pixels of dst are rows.
        outs, terms: channels of dst and of src in one group.
        w_outs, w_terms: steps of the weight along these.
        sizes: the pixels of dst in one class, along (d, h, w).
        classes: how many classes there are.
        order: their numbers, those with most taps first, four bits each.
    """

    back: bool
    src: Images
    dst: Images
    outs: int
    terms: int
    w_outs: int
    w_terms: int
    sizes: Triple
    classes: int
    order: int

    @property
    def rows(self) -> int:
        """Pixels of one image in one class."""
        return prod(self.sizes)


def ways(p: Problem, back: bool) -> Ways:
    """The product that computes y, or with `back` the gradient for x."""
    c = p.conv
    if not back:
        return Ways(False, p.x, p.y, c.o, c.c, p.w.o, p.w.c, p.y.size, 1, 0)
    d, h, w = (ceil_div(size, s) for size, s in zip(p.x.size, c.stride, strict=True))
    numbers = sorted(range(prod(c.stride)), key=lambda cls: -class_taps(p, cls))
    order = sum(cls << 4 * place for place, cls in enumerate(numbers)) if len(numbers) <= 16 else 0
    order -= 2**64 if order >= 2**63 else 0
    return Ways(True, p.y, p.x, c.c, c.o, p.w.c, p.w.o, (d, h, w), len(numbers), order)


def class_taps(p: Problem, cls: int) -> int:
    """How many taps the elements of a class meet."""
    c = p.conv
    where = (cls // (c.stride[2] * c.stride[1]), cls // c.stride[2] % c.stride[1], cls % c.stride[2])
    met = 1
    for at, taps, s, d, pad in zip(where, c.kernel, c.stride, c.dilation, c.pad, strict=True):
        met *= sum((at + pad - tap * d) % s == 0 for tap in range(taps))
    return met


class Held:
    """The workspaces of one call: the same objects, in whatever way its steps are made."""

    def __init__(self) -> None:
        self._pieces: dict[str, Workspace] = {}

    def piece(self, name: str, size: int, dtype: str) -> Workspace:
        """The workspace of that name, made when it is first asked for."""
        return self._pieces.setdefault(name, Workspace((size,), dtype))


def product_steps(
    p: Problem,
    config: Config,
    back: bool = False,
    boxes: bool = False,
    held: Held | None = None,
    there: tuple[Workspace, Workspace] | None = None,
) -> list[Step]:
    """The launches of `implicit`: what is laid out anew before, the product, and the sum of its parts.

    Args:
        p: the problem.
        config: tile and step (bm, bn, bk), splits, warps, stages, and tf32.
        back: for the gradient of x.
        boxes: whether the copy engine may load the weight; it does where the weight's order allows.
        held: the call's workspaces.
        there: images and weight, where they are laid out already.
    """
    held = held or Held()
    to = ways(p, back)
    before, src, src_at = readable(p, to.src, held, "src")
    packing, w, lies = readable_weight(p, to, held)
    before += packing
    src_at, lies = there or (src_at, lies)
    w_at = _boxed(p, to, w, lies, config) if boxes else lies
    unit = result_unit(p, to.dst, to.outs)
    w_by_outs = w.w_terms != 1
    along = (w.w_terms if w_by_outs else w.w_outs, *w.taps, w.group)
    vec_w = gcd(16 // p.itemsize, *along)
    vec_src = src.unit(p.itemsize, to.terms)
    bm, bn, bk, splits = config["bm"], config["bn"], config["bk"], config["splits"]
    per_launch = max(1, min(to.dst.n, MOST_ROWS // max(to.rows, 1)))
    parts = None
    if splits > 1:
        size = splits * to.classes * to.dst.n * to.rows * p.conv.groups * to.outs
        parts = held.piece("parts", size, "float32")
    result = ending(p, to.dst, unit)
    e = [s // gcd(s, d) if back else 1 for s, d in zip(p.conv.stride, p.conv.dilation, strict=True)]
    values: dict[str, Any] = {
        **result,
        **divisions("r", to.sizes),
        **by_axis("src", to.src.size),
        **by_axis("dst", to.dst.size),
        **by_axis("pad", p.conv.pad),
        **steps_of("src", src, vec_src),
        **window_constants(p.conv),
        **by_axis("E", (e[0], e[1], e[2]), True),
        "src": src_at,
        "w": w_at,
        "dst": parts or Arg(to.dst.index),
        "outs": to.outs // unit,
        "channels": to.terms // vec_src,
        "groups": p.conv.groups,
        "splits": splits,
        "order": to.order,
        "w_step": along[0] // vec_w,
        **tap_steps("w", w.taps, vec_w),
        "w_group_step": w.group // vec_w,
        "BACK": back,
        "VOLUME": p.volume,
        "CHECKED": _checked(p, to),
        "EVEN": to.terms % bk == 0,
        "VEC_SRC": vec_src,
        "VEC_W": vec_w,
        "W_BY_OUTS": w_by_outs,
        "W_BOXES": isinstance(w_at, Descriptor),
        "SPLIT": splits > 1,
        "PRECISION": precision(p, config),
        "BM": bm,
        "BN": bn,
        "BK": bk,
        "GROUP": _GROUP,
    }
    steps = []
    for first in range(0, to.dst.n, per_launch):
        rows = min(per_launch, to.dst.n - first) * to.rows
        tiles = ceil_div(rows, bm) * ceil_div(to.outs, bn) * p.conv.groups * splits * to.classes
        args = {**values, "first": first, "rows": rows}
        steps.append(step_of(implicit, (tiles,), args, config["warps"], config["stages"]))
    if parts is not None:
        steps.append(_sum_step(p, to, parts, splits, values))
    return [*before, *steps]


def _boxed(
    p: Problem, to: Ways, w: Packed, w_at: Arg | Workspace, config: Config
) -> Arg | Workspace | Descriptor:
    """The weight as a matrix for the copy engine, or as it is where its order or its size does not fit.

    Rows are outs and columns (tap, term), or the other way round rows terms and columns (tap, out). A box
    does not end with the terms of a tap, so their number has to be whole boxes.
    """
    c, bn, bk = p.conv, config["bn"], config["bk"]
    by_outs = w.w_terms != 1
    inner, rows = (to.outs, c.groups * to.terms) if by_outs else (to.terms, c.groups * to.outs)
    row = w.w_terms if by_outs else w.w_outs
    dense = (inner * c.kernel[1] * c.kernel[2], inner * c.kernel[2], inner)
    taps = all(k == 1 or step == full for k, step, full in zip(c.kernel, w.taps, dense, strict=True))
    in_order = taps and (rows == 1 or row == inner * c.taps) and (c.groups == 1 or not to.back or by_outs)
    if not in_order or not to.terms or to.terms % bk or inner * c.taps * p.itemsize % 16:
        return w_at
    index = w_at.index if isinstance(w_at, Arg) else w_at
    block = (bk, bn) if by_outs else (bn, bk)
    return Descriptor(index, block, (rows, inner * c.taps), (inner * c.taps, 1))


def _checked(p: Problem, to: Ways) -> bool:
    """Whether a tap can fall outside of src."""
    if to.back:
        return p.conv.kernel != (1, 1, 1) or p.conv.pad != (0, 0, 0) or to.sizes != p.y.size
    return not p.unpadded


def precision(p: Problem, config: Config) -> str:
    """Triton's `input_precision`; what it says of 16-bit numbers is of no account."""
    return "tf32" if config.get("tf32") else "ieee"


def result_unit(p: Problem, dst: Images, outs: int) -> int:
    """The alignment that dst's, and the residual's, steps and number of channels share."""
    return dst.unit(p.itemsize, outs, *(p.residual.steps if p.residual else ()))


def ending(p: Problem, dst: Images, unit: int, name: str = "dst") -> dict[str, Any]:
    """The parameters of `device.finish`; `name` is what the kernel calls dst."""
    residual = p.residual or replace(dst, c_step=1)
    return {
        "bias": Arg(dst.index if p.bias is None else p.bias),
        "bias_step": p.bias_step,
        "residual": Arg(residual.index),
        **steps_of(name, dst, unit, "o"),
        **steps_of("residual", residual, unit, "o"),
        "VEC_DST": unit,
        "HAS_BIAS": p.bias is not None,
        "HAS_RESIDUAL": p.residual is not None,
        "RESIDUAL_DENSE": residual.c_step == 1,
        "ACTIVATION": p.activation,
        "TURNED": dst.c_step != 1,
    }


def _sum_step(p: Problem, to: Ways, parts: Workspace, splits: int, values: dict[str, Any]) -> Step:
    """The launch that adds up the parts of a product."""
    bm, bn = 16, 64  # 1024 sums a program, 8 for each of 128 threads
    outs = p.conv.groups * to.outs
    rows = to.dst.n * to.rows
    stride = p.conv.stride if to.back else (1, 1, 1)
    args = {
        **values,
        **by_axis("S", stride, True),
        "parts": parts,
        "dst": Arg(to.dst.index),
        "rows": rows,
        "outs": outs // values["VEC_DST"],
        "BM": bm,
        "BN": bn,
    }
    grid = (ceil_div(rows, bm) * ceil_div(outs, bn) * to.classes,)
    return step_of(add_parts, grid, args)


# --- What goes before the product ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Packed:
    """Where the weights of a product are: steps along its rows, its columns, the taps and the groups."""

    w_outs: int
    w_terms: int
    taps: Triple
    group: int


def readable(p: Problem, images: Images, held: Held, name: str) -> tuple[list[Step], Images, Arg | Workspace]:
    """`images` with channels side by side: as they are, or laid out anew in the workspace of that name."""
    if images.c_step == 1:
        return [], images, Arg(images.index)
    step, out, there = layout_step(p, images, held, name)
    return [step], there, out


def layout_step(
    p: Problem,
    images: Images,
    held: Held,
    name: str,
    size: Triple | None = None,
    pad: Triple = (0, 0, 0),
    channels: int = 0,
) -> tuple[Step, Workspace, Images]:
    """The launch that lays images out as [n, *S, C] without gaps, where to, and how they are there.

    Args:
        p: the problem.
        images: what is laid out.
        held, name: the call's workspaces, and the name of this one.
        size: of the images there, where padding is wanted.
        pad: what comes before them on each axis: zeros.
        channels: of the images there, where more are wanted than there are.
    """
    d, h, w = size = size or images.size
    c = channels or images.channels
    rows = images.n * d * h * w
    out = held.piece(name, rows * c, p.dtype)
    bc = min(_TILE, 1 << max(c - 1, 1).bit_length())
    bm = _TILE * _TILE // bc
    args = {
        "x": Arg(images.index),
        "out": out,
        "rows": rows,
        "channels": images.channels,
        "out_channels": c,
        **by_axis("x", images.size),
        **by_axis("pad", pad),
        **divisions("r", size),
        **steps_of("x", images, 1),
        "BM": bm,
        "BC": bc,
    }
    grid = (ceil_div(rows, bm) * ceil_div(c, bc),)
    steps = (d * h * w * c if images.n > 1 else 0, h * w * c if d > 1 else 0, w * c if h > 1 else 0)
    there = replace(images, channels=c, size=size, steps=(*steps, c if w > 1 else 0), c_step=1)
    return step_of(laid_out, grid, args), out, there


def readable_weight(p: Problem, to: Ways, held: Held) -> tuple[list[Step], Packed, Arg | Workspace]:
    """The weight with the product's terms side by side, or for 16-bit numbers its outs; else laid out anew.

    Tensor cores read 16-bit numbers either way, and 32-bit numbers with the terms side by side alone.
    """
    c = p.conv
    if to.w_terms == 1 or (to.w_outs == 1 and p.itemsize == 2):
        return [], Packed(to.w_outs, to.w_terms, p.w.taps, c.o * p.w.o), Arg(p.w_index)
    # As images: filters are images, taps are pixels.
    swapped = to.back and p.itemsize > 2
    n_step, c_step = (p.w.c, p.w.o) if swapped else (p.w.o, p.w.c)
    n, channels = (c.c, p.outs) if swapped else (p.outs, c.c)
    weights = Images(p.w_index, n, channels, c.kernel, (n_step, *p.w.taps), c_step)
    step, out, there = layout_step(p, weights, held, "w")
    row = c.taps * channels
    taps = (there.steps[1], there.steps[2], there.steps[3])
    if swapped:
        return [step], Packed(row, 1, taps, c.o), out
    if to.back:
        return [step], Packed(1, row, taps, c.o * row), out
    return [step], Packed(row, 1, taps, c.o * row), out


def needs_layout(p: Problem, back: bool) -> tuple[bool, bool]:
    """Whether images and weights have to be laid out anew."""
    to = ways(p, back)
    return to.src.c_step != 1, not (to.w_terms == 1 or (to.w_outs == 1 and p.itemsize == 2))


# --- Few channels, folded -----------------------------------------------------------------------------------


def folded(p: Problem) -> Problem:
    """The convolution with the columns of its filter as channels: filters of one column, on padded images.

    A row of a filter reads neighbouring pixels, and with padded rows and channels these lie side by side: one
    run of kw c elements, which starts stride c elements further for each pixel of the result.
    """
    c = p.conv
    channels, size = folded_channels(p), folded_size(p)
    run = c.kernel[2] * channels
    row = size[2] * channels
    steps = (size[0] * size[1] * row, size[1] * row, row, c.stride[2] * channels)
    return replace(
        p,
        conv=replace(
            c,
            c=run,
            kernel=(c.kernel[0], c.kernel[1], 1),
            stride=(c.stride[0], c.stride[1], 1),
            dilation=(c.dilation[0], c.dilation[1], 1),
            pad=(0, 0, 0),
        ),
        x=replace(p.x, channels=run, size=(size[0], size[1], p.y.size[2]), steps=steps, c_step=1),
        w=Weight(run * c.kernel[0] * c.kernel[1], 1, (run * c.kernel[1], run, 0)),
    )


def folded_channels(p: Problem) -> int:
    """Channels of a padded pixel: a power of 2, so that runs start at multiples of it."""
    return 1 << (p.conv.c - 1).bit_length()


def folded_size(p: Problem) -> Triple:
    """Of the padded images: as far as the last place reads."""
    c = p.conv
    axes = zip(p.y.size, c.stride, c.kernel, c.dilation, strict=True)
    d, h, w = ((places - 1) * s + (k - 1) * step + 1 for places, s, k, step in axes)
    return d, h, w


def folded_steps(p: Problem, config: Config) -> list[Step]:
    """The launches: images and filters with padding, then `implicit`."""
    c, held, channels = p.conv, Held(), folded_channels(p)
    images, x, _ = layout_step(p, p.x, held, "src", folded_size(p), c.pad, channels)
    filters = Images(p.w_index, c.o, c.c, c.kernel, (p.w.o, *p.w.taps), p.w.c)
    weight, w, _ = layout_step(p, filters, held, "w", channels=channels)
    return [images, weight, *product_steps(folded(p), config, held=held, there=(x, w))]


# --- Few channels, gathered ---------------------------------------------------------------------------------


def gather_steps(p: Problem, config: Config) -> list[Step]:
    """The launches of `gather`."""
    c = p.conv
    unit = result_unit(p, p.y, c.o)
    bm, bn, bk = config["bm"], config["bn"], config["bk"]
    values: dict[str, Any] = {
        **ending(p, p.y, unit, "y"),
        **divisions("r", p.y.size),
        **by_axis("x", p.x.size),
        **by_axis("pad", c.pad),
        **steps_of("x", p.x, 1),
        **window_constants(c),
        "x": Arg(p.x.index),
        "w": Arg(p.w_index),
        "y": Arg(p.y.index),
        "outs": c.o // unit,
        "terms": c.c * c.taps,
        "channels": c.c,
        **channel_division(c.c),
        "groups": c.groups,
        "w_o_step": p.w.o,
        "w_c_step": p.w.c,
        **tap_steps("w", p.w.taps),
        "VOLUME": p.volume,
        "TURNED_X": p.x.steps[3] == 1 and c.stride[2] == 1 and p.x.c_step != 1,
        "PRECISION": precision(p, config),
        "BM": bm,
        "BN": bn,
        "BK": bk,
    }
    per_launch = max(1, min(p.y.n, MOST_ROWS // max(p.y.pixels, 1)))
    steps = []
    for first in range(0, p.y.n, per_launch):
        rows = min(per_launch, p.y.n - first) * p.y.pixels
        grid = (ceil_div(rows, bm) * ceil_div(c.o, bn) * c.groups,)
        args = {**values, "first": first, "rows": rows}
        steps.append(step_of(gather, grid, args, config["warps"], config["stages"]))
    return steps
