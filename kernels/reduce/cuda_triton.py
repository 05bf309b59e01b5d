"""The reductions on NVIDIA GPUs, in Triton.

    lines       sum mean prod amax amin var std logsumexp any all count_nonzero argmax argmin
    scan        cumsum cumprod                                             (`cuda_triton_scans.py`)

One kernel for all of them, over any axes and strides: see `cuda/reduce_kernels.py`; what each keeps while it
reads is in `cuda/state_kernels.py`, how a call is cut in `cuda/plan.py`. Every dtype of the ops: 16-bit
numbers in float32, integers in int64. No share of a roof has been measured yet: that takes a record of a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton.language as tl

from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..cuda.step import Arg, Step, Workspace
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .axes import axes_of
from .cuda import plan
from .cuda.axes import Nest, nest, row_major_steps, steps_of
from .cuda.numbers import float64_bits
from .cuda.reduce_kernels import reduced
from .op import REDUCTIONS

TYPES = {"float32": tl.float32, "float64": tl.float64, "int32": tl.int32, "int64": tl.int64}
_SIZES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8}
_MOST = {"int32": 2**31, "int64": 2**63}


@dataclass(frozen=True)
class Kind:
    """What a reduction keeps (`state_kernels.py`), and how it ends.

    Attributes:
        name, ending: as the kernel has them.
        numbers: of a state.
    """

    name: str
    ending: str = ""
    numbers: int = 1


KINDS = {
    "sum": Kind("sum"),
    "mean": Kind("sum", "mean"),
    "prod": Kind("prod"),
    "amax": Kind("max"),
    "amin": Kind("min"),
    "any": Kind("any", "flag"),
    "all": Kind("all", "flag"),
    "count_nonzero": Kind("count"),
    "logsumexp": Kind("exponents", "log", 2),
    "var": Kind("moments", "var", 3),
    "std": Kind("moments", "std", 3),
    "argmax": Kind("argmax", "place", 2),
    "argmin": Kind("argmin", "place", 2),
}


def state_type(kind: str, dtype: str) -> str:
    """The dtype of a state's first number, for elements of a dtype."""
    if kind in ("any", "all", "count"):
        return "int32"
    if kind in ("argmax", "argmin"):
        return "int64" if dtype in ("float64", "int64") else "int32"
    if dtype in ("float32", "float64", "bfloat16", "float16"):
        return "float64" if dtype == "float64" else "float32"
    return "int64" if kind in ("sum", "prod") or dtype == "int64" else "int32"


def nothing(kind: str, dtype: str) -> float | int:
    """What changes nothing as the first number of a state of that dtype."""
    floating = dtype in ("float32", "float64")
    if kind in ("max", "exponents", "argmax", "argmin"):
        return -float("inf") if floating else -_MOST[dtype]
    if kind == "min":
        return float("inf") if floating else _MOST[dtype] - 1
    return 1 if kind in ("prod", "all") else 0


def nest_of(specs: Specs, attrs: Attrs) -> Nest:
    """x, the result, and the places in a row-major x along the axes that are reduced."""
    x, out = specs
    axes = axes_of("reduction", x.ndim, attrs["axis"])
    over = [place for place in range(x.ndim) if place not in axes]
    whole = out.ndim == x.ndim
    to = steps_of(out, x.shape, None if whole else over)
    to = [0 if place in axes else step for place, step in enumerate(to)]
    places = row_major_steps(x.shape, axes)
    return nest(x.shape, axes, (steps_of(x, x.shape), to, places), x.itemsize)


def _supports(specs: Specs, attrs: Attrs) -> str | None:
    return nest_of(specs, attrs).problem


def cut_of(found: Nest, kind: Kind, dtype: str, config: Config, device: str) -> plan.Cut:
    """How a reduction is cut."""
    kept = kind.numbers * _SIZES[state_type(kind.name, dtype)]
    return plan.cut(found, kept, config, facts(device))


def scratch(kind: Kind, dtype: str, found: Nest, cut: plan.Cut) -> dict[str, Any]:
    """The arguments for states of parts: none where lines are whole."""
    args: dict[str, Any] = dict.fromkeys(("wa", "wb", "wc", "arrivals"))
    if cut.parts == 1:
        return args
    shape = (cut.parts, found.lines)
    first = "int64" if kind.name == "count" else state_type(kind.name, dtype)
    second = place_type(found) if kind.ending == "place" else first
    for name, of in zip(("wa", "wb", "wc")[: kind.numbers], (first, second, first), strict=False):
        args[name] = Workspace(shape, of)
    # Each launch leaves its counters at zero for the next.
    args["arrivals"] = Workspace((-(-found.lines // cut.bk),), "int32", zero=True)
    return args


def place_type(found: Nest) -> str:
    """The dtype of places in lines."""
    return "int64" if found.wide else "int32"


def constants(kind: Kind, dtype: str, found: Nest, cut: plan.Cut) -> dict[str, Any]:
    """What the code of `read` and `merged` depends on beside the axes."""
    state = state_type(kind.name, dtype)
    return {
        "KIND": kind.name,
        "EMPTY": nothing(kind.name, state),
        "TYPE": TYPES[state],
        "PLACE": TYPES[place_type(found)],
        "BK": cut.bk,
        "BR": cut.br,
        "PARTS": cut.together,
        "ROWS": found.rows,
        "WIDE": found.wide,
        "STAGES": cut.stages,
    }


def _bind(op: str, specs: Specs, attrs: Attrs, config: Config) -> CudaLaunch:
    x, _ = specs
    kind, found = KINDS[op], nest_of(specs, attrs)
    cut = cut_of(found, kind, x.dtype, config, x.device)
    args = {
        **found.arguments(reduced, ("x", "o", "w")),
        **constants(kind, x.dtype, found, cut),
        **scratch(kind, x.dtype, found, cut),
        "x": Arg(0),
        "out": Arg(1),
        "parts": cut.parts,
        "share": cut.share,
        "correction": float64_bits(attrs.get("correction", 0)),
        "ENDING": kind.ending,
    }
    grid = (-(-found.lines // cut.bk) * cut.parts,)
    step = Step(reduced, grid, args, warps=cut.warps, stages=1, registers=cut.registers, any_int=True)
    return launcher(specs, step)


def _register(op: str) -> None:
    def lines(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return _bind(op, specs, attrs, config)

    declare = kernel(
        op,
        device="cuda",
        language="triton",
        name="lines",
        dtypes=REDUCTIONS[op].dtypes,
        supports=_supports,
        configs=plan.CONFIGS,
        binds=True,
    )
    declare(lines)


for _op in KINDS:
    _register(_op)
