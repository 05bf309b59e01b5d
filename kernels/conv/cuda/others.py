"""The launches of depthwise convolutions, weight gradients and bias gradients."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda.step import Arg, Step, Workspace
from ...kernel import Config
from .depthwise import depthwise, depthwise_back, depthwise_weights
from .problem import (
    Images,
    Problem,
    by_axis,
    channel_division,
    divisions,
    step_of,
    steps_of,
    tap_steps,
    window_constants,
)
from .products import (
    Held,
    ending,
    folded,
    folded_channels,
    folded_size,
    layout_step,
    precision,
    readable,
    result_unit,
)
from .sums import part_sums, pixel_sums
from .weights import weight_grad, weight_sums


def depthwise_steps(p: Problem, config: Config) -> list[Step]:
    """The launch of `depthwise` that computes y."""
    images = p.x
    unit = gcd(result_unit(p, p.y, p.outs), images.unit(p.itemsize, p.outs))
    w_start = 0
    return [_depthwise_step(p, config, images, p.y, unit, w_start, p.w.taps, p.conv.pad)]


def _depthwise_step(
    p: Problem,
    config: Config,
    src: Images,
    dst: Images,
    unit: int,
    w_start: int,
    w_taps: tuple[int, int, int],
    pad: tuple[int, int, int],
) -> Step:
    c = p.conv
    ph, bw, bc = config["ph"], config["bw"], config["bc"]
    values: dict[str, Any] = {
        **ending(p, dst, unit, "y"),
        **window_constants(c),
        **by_axis("x", src.size),
        **by_axis("pad", pad),
        **by_axis("rows", dst.size),
        **steps_of("x", src, unit),
        "x": Arg(src.index),
        "w": Arg(p.w_index),
        "y": Arg(dst.index),
        "outs": p.outs // unit,
        "w_start": w_start,
        "w_o_step": p.w.o,
        **tap_steps("w", w_taps),
        "MULTIPLIER": c.o,
        "X_DENSE": src.c_step == 1 and c.o == 1,
        "X_COLUMNS": src.steps[3] == 1 and src.c_step != 1,
        "VEC": unit,
        "PH": ph,
        "BW": bw,
        "BC": bc,
    }
    n, (d, h, w) = dst.n, dst.size
    grid = (n * d * ceil_div(h, ph) * ceil_div(w, bw) * ceil_div(p.outs, bc),)
    return step_of(depthwise, grid, values, config["warps"], 1)


def depthwise_input_steps(p: Problem, config: Config) -> list[Step]:
    """The launch that computes the gradient for the input of a depthwise convolution, one out a channel."""
    c = p.conv
    unit = gcd(result_unit(p, p.x, p.outs), p.y.unit(p.itemsize, p.outs))
    if c.stride == (1, 1, 1):
        # A convolution with the filter turned round.
        pad = tuple(d * (k - 1) - lo for k, d, lo in zip(c.kernel, c.dilation, c.pad, strict=True))
        start = sum((k - 1) * step for k, step in zip(c.kernel, p.w.taps, strict=True))
        d, h, w = (-step for step in p.w.taps)
        return [_depthwise_step(p, config, p.y, p.x, unit, start, (d, h, w), (pad[0], pad[1], pad[2]))]
    bm, bc = config["bw"] * config["ph"], config["bc"]
    d, h, w = (ceil_div(size, s) for size, s in zip(p.x.size, c.stride, strict=True))
    rows = p.x.n * d * h * w
    values: dict[str, Any] = {
        **ending(p, p.x, unit, "dx"),
        "dx_c_step": p.x.c_step,
        **window_constants(c),
        **divisions("r", (d, h, w)),
        **by_axis("grad", p.y.size),
        **by_axis("dx", p.x.size),
        **by_axis("pad", c.pad),
        **steps_of("grad", p.y, unit),
        "grad": Arg(p.y.index),
        "w": Arg(p.w_index),
        "dx": Arg(p.x.index),
        "rows": rows,
        "outs": p.outs // unit,
        "w_o_step": p.w.o,
        **tap_steps("w", p.w.taps),
        "VOLUME": p.volume,
        "DENSE": p.y.c_step == 1,
        "VEC": unit,
        "BM": bm,
        "BC": bc,
    }
    classes = c.stride[0] * c.stride[1] * c.stride[2]
    grid = (ceil_div(p.outs, bc) * ceil_div(rows, bm) * classes,)
    return [step_of(depthwise_back, grid, values, config["warps"], 1)]


def _grad_values(p: Problem, x: Images, unit_x: int, unit_grad: int) -> dict[str, Any]:
    """What both kernels for the gradient of a weight are given."""
    return {
        **window_constants(p.conv),
        **divisions("r", p.y.size),
        **by_axis("x", x.size),
        **by_axis("pad", p.conv.pad),
        **steps_of("x", x, unit_x),
        **steps_of("grad", p.y, unit_grad, "o"),
        "rows": p.y.n * p.y.pixels,
        "VOLUME": p.volume,
        "X_DENSE": x.c_step == 1,
        "GRAD_DENSE": p.y.c_step == 1,
    }


def _sums_step(p: Problem, parts: Workspace, splits: int, channels: int = 0) -> Step:
    """The launch that adds up the parts of a weight's gradient, which may have more channels than that."""
    c = p.conv
    channels = channels or c.c
    columns = channels * c.taps
    block = 256
    values = {
        **window_constants(c),
        "parts": parts,
        "dw": Arg(p.w_index),
        "outs": p.outs,
        "columns": columns,
        "channels": channels,
        **channel_division(channels),
        "kept": c.c,
        "splits": splits,
        **_dw_steps(p),
        "BN": block,
    }
    return step_of(weight_sums, (p.outs * ceil_div(columns, block),), values, 4, 1)


def _dw_steps(p: Problem) -> dict[str, int]:
    return {"dw_o_step": p.w.o, "dw_c_step": p.w.c, **tap_steps("dw", p.w.taps)}


def folded_weight_steps(p: Problem, config: Config) -> list[Step]:
    """The launches of `weight_grad` over padded images, in which a row of a filter is one run of elements."""
    channels = folded_channels(p)
    images, x, _ = layout_step(p, p.x, Held(), "x", folded_size(p), p.conv.pad, channels)
    parts = Workspace((config["splits"] * p.outs * channels * p.conv.taps,))
    product = weight_steps(folded(p), config, x, parts)
    return [images, *product, _sums_step(p, parts, config["splits"], channels)]


def weight_steps(
    p: Problem, config: Config, there: Workspace | None = None, to_parts: Workspace | None = None
) -> list[Step]:
    """The launches of `weight_grad`: images laid out where need be, the products, the sum of the parts.

    Args:
        p: the problem.
        config: tile and step (bo, bn, bk), splits, warps, stages, and tf32.
        there: the images, where they are laid out already.
        to_parts: where the parts go, for a caller that adds them up.
    """
    c = p.conv
    before: list[Step] = []
    held = Held()
    x, grad = p.x, p.y
    x_at: Arg | Workspace = there or Arg(x.index)
    grad_at: Arg | Workspace = Arg(grad.index)
    if c.c >= 8 and there is None:  # with fewer channels, elements are read one by one in any case
        more, x, x_at = readable(p, x, held, "x")
        before += more
    if c.o >= 8:
        more, grad, grad_at = readable(p, grad, held, "grad")
        before += more
    p = replace(p, x=x, y=grad)
    unit_x, unit_grad = x.unit(p.itemsize, c.c), grad.unit(p.itemsize, c.o)
    bo, bn, bk, splits = config["bo"], config["bn"], config["bk"], config["splits"]
    columns = c.c * c.taps
    parts = to_parts or (Workspace((splits * p.outs * columns,)) if splits > 1 else None)
    values: dict[str, Any] = {
        **_grad_values(p, x, unit_x, unit_grad),
        **_dw_steps(p),
        "x": x_at,
        "grad": grad_at,
        "dw": parts or Arg(p.w_index),
        "outs": c.o // unit_grad,
        "columns": columns // unit_x,
        "channels": c.c // unit_x,
        **channel_division(c.c),
        "groups": c.groups,
        "splits": splits,
        "CHECKED": not p.unpadded,
        "ONE_TAP": c.c % bn == 0,
        "VEC_X": unit_x,
        "VEC_GRAD": unit_grad,
        "SPLIT": parts is not None,
        "PRECISION": precision(p, config),
        "BO": bo,
        "BN": bn,
        "BK": bk,
    }
    grid = (ceil_div(columns, bn) * ceil_div(c.o, bo) * c.groups * splits,)
    step = step_of(weight_grad, grid, values, config["warps"], config["stages"])
    if parts is None or to_parts is not None:
        return [*before, step]
    return [*before, step, _sums_step(p, parts, splits)]


def depthwise_weight_steps(p: Problem, config: Config) -> list[Step]:
    """The launches of `depthwise_weights` and of the sum of its parts."""
    c = p.conv
    unit = gcd(p.x.unit(p.itemsize, p.outs), p.y.unit(p.itemsize, p.outs))
    parts = config["splits"]
    sums = Workspace((parts * p.outs * c.taps,))
    bm, bc = config["bm"], config["bc"]
    values = {
        **_grad_values(p, p.x, unit, unit),
        "x": Arg(p.x.index),
        "grad": Arg(p.y.index),
        "parts_of_dw": sums,
        "parts": parts,
        "outs": p.outs // unit,
        "MULTIPLIER": c.o,
        "X_DENSE": p.x.c_step == 1 and c.o == 1,
        "VEC": unit,
        "BM": bm,
        "BC": bc,
    }
    grid = (c.kernel[0] * c.kernel[1] * ceil_div(p.outs, bc) * parts,)
    step = step_of(depthwise_weights, grid, values, config["warps"], 2)
    return [step, _sums_step(p, sums, parts)]


def bias_steps(grad: Images, out_step: int, itemsize: int, config: Config) -> list[Step]:
    """The launches of `pixel_sums` and `part_sums`: grad is tensor 0 of the call, the sums are tensor 1."""
    unit = grad.unit(itemsize, grad.channels)
    parts, bm, bc = config["parts"], config["bm"], config["bc"]
    sums = Workspace((parts * grad.channels,))
    values = {
        **divisions("r", grad.size),
        **{name.removeprefix("grad_"): value for name, value in steps_of("grad", grad, unit).items()},
        "grad": Arg(grad.index),
        "sums": sums,
        "rows": grad.n * grad.pixels,
        "channels": grad.channels // unit,
        "parts": parts,
        "DENSE": grad.c_step == 1,
        "VEC": unit,
        "BM": bm,
        "BC": bc,
    }
    blocks = ceil_div(grad.channels, bc)
    first = step_of(pixel_sums, (parts * blocks,), values, config["warps"], 3)
    rest = {"sums": sums, "out": Arg(1), "channels": grad.channels, "parts": parts, "out_step": out_step}
    last = step_of(part_sums, (ceil_div(grad.channels, 32),), {**rest, "BP": 32, "BC": 32}, 4, 1)
    return [first, last]
