"""cumsum and cumprod on NVIDIA GPUs, in Triton: `cuda/scan_kernels.py`, cut as reductions are."""

from __future__ import annotations

from typing import Any

from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..cuda.step import Arg, Step, Workspace
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .axes import axis_of
from .cuda import plan
from .cuda.axes import Nest, nest, steps_of
from .cuda.scan_kernels import scanned, totals
from .cuda_triton import TYPES, nothing, state_type
from .scan import SCANS

KINDS = {"cumsum": "sum", "cumprod": "prod"}
_BYTES = 12  # that a thread keeps for an element: itself, its scan, and what goes between


def nest_of(specs: Specs, attrs: Attrs) -> Nest:
    """x and the result, along and across the axis. The order along it counts: one axis."""
    x = specs[0]
    axes = (axis_of("scan", x.ndim, attrs["axis"]),) if x.ndim else ()
    return nest(x.shape, axes, [steps_of(spec, x.shape) for spec in specs], x.itemsize)


def _supports(specs: Specs, attrs: Attrs) -> str | None:
    return nest_of(specs, attrs).problem


def _bind(op: str, specs: Specs, attrs: Attrs, config: Config) -> CudaLaunch:
    x, _ = specs
    found, kind = nest_of(specs, attrs), KINDS[op]
    dtype = state_type(kind, x.dtype)
    kept = _BYTES * (2 if dtype in ("float64", "int64") else 1)
    cut = plan.cut(found, kept, config, facts(x.device))
    sums = Workspace((cut.parts, found.lines), dtype) if cut.parts > 1 else None
    args: dict[str, Any] = {
        "x": Arg(0),
        "sums": sums,
        "share": cut.share,
        "KIND": kind,
        "EMPTY": nothing(kind, dtype),
        "TYPE": TYPES[dtype],
        "BK": cut.bk,
        "BR": cut.br,
        "PARTS": cut.together,
        "ROWS": found.rows,
        "WIDE": found.wide,
    }
    grid = (-(-found.lines // cut.bk) * cut.parts,)
    steps = []
    if sums is not None:
        own = {**args, **found.arguments(totals, ("x", None))}
        steps.append(Step(totals, grid, own, warps=cut.warps, stages=1, any_int=True))
    own = {**args, **found.arguments(scanned, ("x", "o")), "out": Arg(1), "parts": cut.parts}
    own["REVERSE"] = attrs["reverse"]
    steps.append(Step(scanned, grid, own, warps=cut.warps, stages=1, any_int=True))
    return launcher(specs, *steps)


def _register(op: str) -> None:
    def scan(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return _bind(op, specs, attrs, config)

    declare = kernel(
        op,
        device="cuda",
        language="triton",
        name="scan",
        dtypes=SCANS[op].dtypes,
        supports=_supports,
        configs=plan.CONFIGS,
        binds=True,
    )
    declare(scan)


for _op in KINDS:
    _register(_op)
