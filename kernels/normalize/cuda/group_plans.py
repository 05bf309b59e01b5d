"""Group normalisation with a group to a program, as launches. Needs triton."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from ...cuda.step import Step, Workspace
from ...reduce.cuda import plan
from ...reduce.cuda.axes import Nest
from ...reduce.cuda.numbers import float64_bits
from .channel_plans import Arrays, Call, applied_nest, nest_order, slopes_nest, statistics_nest
from .group_kernels import grouped, grouped_slopes
from .row_plans import added_step, steps_left_out, triton_float

_WARPS = 8  # of a program
_REGISTERS = {"float32": 128, "float64": 255}  # of a thread: room for two programs at a time, or one


def fits(call: Call) -> bool:
    """Whether a group's channels can be numbered: image, group and channel lie in this order."""
    steps, lengths = call.full("x")[:3], call.view.shape[:3]
    there = [step for step, length in zip(steps, lengths, strict=True) if length > 1]
    inner = [step for step in call.full("x")[3:] if step]
    ordered = all(outer > step > 0 for outer, step in pairwise(there))
    return ordered and min([*there, *inner], default=1) > 0 and bool(call.x.size)


def pays(call: Call) -> bool:
    """Whether there are groups enough to go round, and several of them fit the cache at a time."""
    groups = call.view.shape[0] * call.view.shape[1]
    nbytes = call.count * call.x.itemsize * (2 if call.op.endswith("_grad") else 1)
    many = call.device.multiprocessors
    return 2 * groups >= many and nbytes * many <= call.device.l2_bytes


def _tiles(call: Call, found: Nest, each: int) -> tuple[int, int, int]:
    """(lines, places, warps) of a tile over the channels of a group."""
    channels = call.view.shape[2]
    warps = _WARPS
    tile = 32 * warps * each
    while warps > plan.WARPS and tile // 2 >= call.count:
        warps, tile = warps // 2, tile // 2
    if found.rows:
        br = min(plan.power_of_two(found.length), tile)
        return min(tile // br, plan.power_of_two(channels)), br, warps
    bk = min(plan.power_of_two(channels), 64)
    return bk, min(tile // bk, plan.power_of_two(found.length)), warps


def _common(call: Call, fn: Any, found: Nest, arrays: Arrays, line: Nest, each: int) -> dict[str, Any]:
    bk, br, warps = _tiles(call, found, each)
    groups = call.view.shape[0] * call.view.shape[1]
    arguments = found.arguments(fn, list(arrays))
    nbytes = call.count * call.x.itemsize
    resident = call.device.l2_bytes // 2 // max(1, nbytes * call.device.multiprocessors)
    programs = call.device.multiprocessors * max(1, min(2 * _WARPS // warps, resident))
    return {
        **steps_left_out(fn),
        **arguments,
        **line.arguments(fn, ("x", "m", "s"), prefix="q"),
        "groups": groups,
        "channels": call.view.shape[2] // arguments["K_UNIT"],
        "programs": min(groups, programs),
        "TYPE": triton_float(call.dtype),
        "BK": bk,
        "BR": br,
        "ROWS": found.rows,
        "WIDE": found.wide or line.wide,
    }


def forward_steps(call: Call) -> list[Step]:
    """The launch of a forward call."""
    line, _ = statistics_nest(call)
    found, arrays = applied_nest(call, "mean", "rstd")
    each = plan.WHOLE if call.dtype == "float32" else plan.WHOLE // 2
    args = _common(call, grouped, found, arrays, line, each)
    warps = _tiles(call, found, each)[2]
    own = {
        **args,
        **call.args("x", "weight", "bias", "y", "mean", "rstd"),
        "eps": float64_bits(call.attrs["eps"]),
        "QBR": min(plan.power_of_two(line.length), args["BK"] * args["BR"]),
        "QWIDE": line.wide,
    }
    return [
        Step(
            grouped,
            (args["programs"],),
            own,
            warps=warps,
            stages=1,
            registers=_REGISTERS[call.dtype],
            any_int=True,
        )
    ]


def backward_steps(call: Call) -> list[Step]:
    """The launches of a backward call: the groups, then the sums of all images for weight and bias."""
    n, groups, channels = call.view.shape[:3]
    line, _ = statistics_nest(call)
    found, arrays = slopes_nest(call, nest_order(call))
    each = plan.WHOLE if call.dtype == "float32" else plan.WHOLE // 2
    args = _common(call, grouped_slopes, found, arrays, line, each)
    sums = {name: Workspace((n * groups * channels,), call.dtype) for name in ("first", "second")}
    own = {**args, **call.args("dy", "x", "weight", "mean", "rstd", "dx"), **sums, "count": call.count}
    warps = _tiles(call, found, each)[2]
    steps = [
        Step(
            grouped_slopes,
            (args["programs"],),
            own,
            warps=warps,
            stages=1,
            registers=_REGISTERS[call.dtype],
            any_int=True,
        )
    ]
    if call.there("dweight"):
        both = {"weight_sums": sums["second"], "bias_sums": sums["first"]}
        steps.append(added_step(call.found, both, groups * channels, n))
    return steps
