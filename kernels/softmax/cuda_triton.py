"""Softmax, log-softmax and their gradients on NVIDIA GPUs, in Triton, along any axis.

One kernel an op, in one of three ways (`cuda/softmax_kernels.py`): lines `whole` in registers, lines that are
read `twice`, few long lines in `parts`. Which one follows from how many lines there are and how long they
are. No share of a roof has been measured yet: that takes a record of a GPU.
"""

from __future__ import annotations

from typing import Any

import triton.language as tl

from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..cuda.step import Arg, Step, Workspace
from ..kernel import Config
from ..op import Attrs, Specs
from ..reduce.axes import axis_of
from ..reduce.cuda import plan
from ..reduce.cuda.axes import Nest, nest, steps_of
from ..registry import kernel
from .cuda.softmax_kernels import twice, whole
from .op import FLOATS, OPS


def nest_of(specs: Specs, attrs: Attrs) -> Nest:
    """The operands and the result, along and across the axis."""
    x = specs[0]
    axes = (axis_of("softmax", x.ndim, attrs["axis"]),) if x.ndim else ()
    return nest(x.shape, axes, [steps_of(spec, x.shape) for spec in specs], x.itemsize)


def _supports(specs: Specs, attrs: Attrs) -> str | None:
    return nest_of(specs, attrs).problem


def _configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """The model's choice first: `each` is how many elements a thread keeps of a whole line."""
    found, device = nest_of(specs, attrs), facts(specs[0].device)
    # In float64 a number takes two registers, and a gradient keeps two arrays: no room for twice as many.
    double, gradient = specs[0].dtype == "float64", len(specs) == 3
    each = plan.WHOLE // 2 if double else plan.WHOLE
    eaches = (each, each // 2) if double or gradient else (each, 2 * each, each // 2)
    shape = (found.lines, found.length, found.rows, found.itemsize)
    wholes: list[Config] = [{"way": "whole", "each": e} for e in eaches if plan.whole(*shape, e)]
    tile, programs = plan.again(*shape, device)
    others: list[Config] = [{"way": "twice", "each": each}, {"way": "parts", "each": each}]
    if 2 * programs < device.multiprocessors:
        others.reverse()
    return wholes if wholes and found.length <= tile.br else [*wholes, *others]


def _bind(op: str, specs: Specs, attrs: Attrs, config: Config) -> CudaLaunch:
    names = ("p", "o") if len(specs) == 2 else ("p", "q", "o")
    found = nest_of(specs, attrs)
    kind = "sum" if op.endswith("_grad") else "exponents"
    wide_type = "float64" if specs[0].dtype == "float64" else "float32"
    args: dict[str, Any] = {
        **{f"q_{side}{place}": None for side in "kr" for place in range(4)},
        "Q_UNIT": 1,
        "p": Arg(0),
        "q": Arg(1) if len(specs) == 3 else None,
        "out": Arg(len(specs) - 1),
        "OP": op,
        "TYPE": tl.float64 if wide_type == "float64" else tl.float32,
        "ROWS": found.rows,
        "WIDE": found.wide,
    }
    shape = (found.lines, found.length, found.rows, found.itemsize)
    if config["way"] == "whole":
        tile = plan.whole(*shape, config["each"])
        assert tile is not None, f"a line of {found.length} does not fit {config}"
        args |= {**found.arguments(whole, names), "BK": tile.bk, "BR": tile.br}
        grid = (-(-found.lines // tile.bk),)
        return launcher(specs, Step(whole, grid, args, warps=tile.warps, stages=1, any_int=True))
    args |= found.arguments(twice, names)
    args |= {"KIND": kind, "EMPTY": 0.0 if kind == "sum" else -float("inf")}
    args |= dict.fromkeys(("largest_of", "sum_of", "wa", "wb", "arrivals"))
    device = facts(specs[0].device)
    if config["way"] == "twice":
        tile, programs = plan.again(*shape, device)
        args |= {"BK": tile.bk, "BR": tile.br, "PARTS": 1, "parts": 1, "share": 1, "programs": programs}
        step = Step(twice, (programs,), args | {"PASS": "both"}, warps=tile.warps, stages=1, any_int=True)
        return launcher(specs, step)
    return launcher(specs, *_in_parts(args, found, kind, wide_type, device.multiprocessors, specs))


def _in_parts(
    args: dict[str, Any], found: Nest, kind: str, dtype: str, multiprocessors: int, specs: Specs
) -> list[Step]:
    """The two launches of few long lines: as a reduction is cut, then each element."""
    numbers = 1 if kind == "sum" else 2
    kept = numbers * (8 if dtype == "float64" else 4)
    cut = plan.cut(found, kept, plan.CONFIGS[0], facts(specs[0].device))
    blocks = -(-found.lines // cut.bk)
    of_lines, of_parts = (found.lines,), (cut.parts, found.lines)
    args |= {"BK": cut.bk, "BR": cut.br, "PARTS": cut.together, "parts": cut.parts, "share": cut.share}
    args |= {"programs": blocks, "sum_of": Workspace(of_lines, dtype), "wa": Workspace(of_parts, dtype)}
    args["arrivals"] = Workspace((blocks,), "int32", zero=True)
    if numbers == 2:
        args |= {"largest_of": Workspace(of_lines, dtype), "wb": Workspace(of_parts, dtype)}
    return [
        Step(twice, (blocks * cut.parts,), args | {"PASS": which}, warps=cut.warps, stages=1, any_int=True)
        for which in ("first", "second")
    ]


def _register(op: str) -> None:
    def lines(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return _bind(op, specs, attrs, config)

    declare = kernel(
        op,
        device="cuda",
        language="triton",
        name="lines",
        dtypes=FLOATS,
        supports=_supports,
        configs=_configs,
        binds=True,
    )
    declare(lines)


for _op in OPS:
    _register(_op)
