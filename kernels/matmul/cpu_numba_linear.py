"""Linear layers on the CPU: y[m, n] = activation(x[m, k] w[n, k]^T + b[n] + residual[m, n]).

    panels     blocks of w^T are packed, turned on the way; five loops around a register tile
               (kernels/cpu/gemm.py)
    dots       few rows: inner products of rows of x and rows of w, read in place (kernels/cpu/thin.py)
    prepacked  w was packed before (prepack.py); with few rows each panel is read once, as one stream

In all three a tile's sums get bias, residual and activation while they are in the nearest cache
(kernels/cpu/epilogue.py). Sums of bfloat16 and float16 are float32: bfloat16 by pairs where the CPU has
AVX-512 BF16, else widened as in `cpu_numba_16bit.py`. Leading axes of x count as rows where one stride serves
them all; else each matrix is computed by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..cpu.cycles import seconds
from ..kernel import Config, Launch
from ..machine import machine, many_registers
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from . import ending
from .ending import Ending
from .geometry import geometry, offsets
from .prepack import format_for
from .registers import PANEL_VECTORS, pairs_problem, widening_problem

DTYPES = ("float32", "float64", "bfloat16", "float16")
MOST_SUMS = 1 << 22  # bytes of sums that `dots` keeps in scratch
FEW_ROWS = 64  # up to here, each panel is read once for all rows


def compute_dtype(stored: str) -> str:
    """What is computed with for operands of a dtype on this machine."""
    if stored == "bfloat16" and pairs_problem(machine()) is None:
        return "pairs"
    return "float32" if stored in ("bfloat16", "float16") else stored


def tiles() -> list[tuple[int, int]]:
    """(rows, vectors of columns) as wide as packed panels: a high one, and one for few rows."""
    width = PANEL_VECTORS[many_registers()]
    return [(6, width), (4, width)]


@lru_cache(maxsize=1024)
def call_of(specs: Specs, activation: str | None, packed: bool) -> Ending:
    """The product behind a call, and what follows it."""
    x, w, b, residual, y = specs
    k, n = x.shape[-1], y.shape[-1]
    turned = TensorSpec((k, n), x.dtype) if packed else _transposed(w)
    flat = [_as_rows(spec) if spec.present else spec for spec in (x, residual, y)]
    if all(spec is not None for spec in flat):
        x, residual, y = flat  # type: ignore[assignment]
    g = geometry((x, turned, y), swap=False)
    steps = residual.strides if residual.present else (0,) * y.ndim
    table = None
    if g.batch > 1:
        none = (0,) * (y.ndim - 2)
        table = offsets(y.shape[:-2], (x.strides[:-2], none, y.strides[:-2], steps[:-2]))
    return Ending(
        g,
        compute_dtype(x.dtype),
        activation or "",
        terms=b.present or residual.present,
        bias_cs=b.strides[0] if b.present else 0,
        residual=(steps[-2], steps[-1], 0),
        table=table,
        panels=packed,
    )


def _transposed(w: TensorSpec) -> TensorSpec:
    return TensorSpec(w.shape[::-1], w.dtype, w.device, w.strides[::-1])


def _as_rows(spec: TensorSpec) -> TensorSpec | None:
    """The spec of the same elements with all axes but the last as one; None where no one stride does it."""
    if spec.ndim == 2:
        return spec
    if spec.ndim == 1:
        return TensorSpec((1, *spec.shape), spec.dtype, spec.device, (0, *spec.strides))
    rows, step = 1, 0
    for length, stride in zip(reversed(spec.shape[:-1]), reversed(spec.strides[:-1]), strict=True):
        if length == 1:
            continue
        if rows == 1:
            step = stride
        elif stride != step * rows:
            return None
        rows *= length
    return TensorSpec((rows, spec.shape[-1]), spec.dtype, spec.device, (step, spec.strides[-1]))


def _of(specs: Specs, attrs: Attrs) -> Ending:
    return call_of(specs, attrs["activation"], bool(attrs["w_format"]))


def _in_order(launch: Any) -> Launch:
    """From the order of a task's arrays to that of the op."""
    return lambda x, w, b, residual, y: launch(x, w, y, b, residual)


def _problem(specs: Specs, attrs: Attrs, packed: bool) -> str | None:
    """What all kernels here ask of a call."""
    if bool(attrs["w_format"]) != packed:
        return "takes a packed weight" if packed else "takes a weight that is not packed"
    return widening_problem(machine(), specs[0].dtype)


# --- panels -------------------------------------------------------------------------------------------------


def panels_supports(specs: Specs, attrs: Attrs) -> str | None:
    return _problem(specs, attrs, packed=False)


def panels_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and k in blocks that leave room for the rows of x in the L2 cache."""
    e = _of(specs, attrs)
    depth = 1024 // e.size * e.group
    return [
        {"mr": mr, "nv": nv, "kc": kc, "nc": 512, "mc": 192}
        for mr, nv in tiles()
        for kc in (depth, 2 * depth)
    ]


def panels_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(ending.split_of(_of(specs, attrs), config, threads).cycles)


@kernel(
    "linear", dtypes=DTYPES, supports=panels_supports, configs=panels_configs, model=panels_model, binds=True
)
def panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Blocks of w^T packed into panels."""
    return _in_order(ending.bind_panels(_of(specs, attrs), config, threads, "linear"))


# --- prepacked ----------------------------------------------------------------------------------------------


def prepacked_supports(specs: Specs, attrs: Attrs) -> str | None:
    reason = _problem(specs, attrs, packed=True)
    if reason is None and attrs["w_format"] != format_for(specs[0].dtype):
        reason = f"reads {format_for(specs[0].dtype)} here, and the weight is packed as {attrs['w_format']}"
    return reason


def prepacked_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles; with few rows one panel after the other, in pieces that stay in L2 for all rows."""
    e = _of(specs, attrs)
    configs = []
    for mr, nv in tiles():
        width = nv * e.lanes
        if e.g.m <= FEW_ROWS:
            kc = (4096 if e.g.m <= mr else 512) * e.group
            configs.append({"mr": mr, "nv": nv, "kc": kc, "nc": width, "mc": FEW_ROWS})
        elif e.compute == "pairs":
            # In one go for most k: sums that wait in scratch, and rows of x that are packed for each 512
            # columns, cost more than panels that come from far away, which are asked for ahead (measured).
            configs.append({"mr": mr, "nv": nv, "kc": 4096, "nc": 1024, "mc": 192})
        else:
            depth = 2048 // e.size * e.group
            configs.append({"mr": mr, "nv": nv, "kc": depth, "nc": 512, "mc": 192})
    return configs


@kernel(
    "linear",
    dtypes=DTYPES,
    supports=prepacked_supports,
    configs=prepacked_configs,
    model=panels_model,
    binds=True,
)
def prepacked(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Panels that were packed before."""
    return _in_order(ending.bind_panels(_of(specs, attrs), config, threads, "linear"))


# --- dots ---------------------------------------------------------------------------------------------------


def dots_supports(specs: Specs, attrs: Attrs) -> str | None:
    reason = _problem(specs, attrs, packed=False)
    if reason is not None:
        return reason
    e = _of(specs, attrs)
    g = e.g
    if g.batch != 1:
        return "takes rows with one stride, not a batch of matrices"
    if g.a_cs != g.itemsize or g.b_rs != g.itemsize:
        return "reads rows of x and w by vectors, and those are not contiguous"
    if g.k % e.group:
        return "takes pairs of neighbours along the rows, whose length is odd"
    if g.m * g.n * e.size > MOST_SUMS:
        return f"keeps at most {MOST_SUMS} bytes of sums"
    return None


def dots_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Tiles of inner products."""
    shapes = [(4, 5), (1, 4)] if many_registers() else [(3, 3), (1, 4)]
    return [{"mr": mr, "nr": nr, "kc": 4096} for mr, nr in shapes]


def dots_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(ending.dots_split(_of(specs, attrs), config, threads).cycles)


@kernel("linear", dtypes=DTYPES, supports=dots_supports, configs=dots_configs, model=dots_model, binds=True)
def dots(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Inner products, mr rows of x by nr rows of w at a time."""
    return _in_order(ending.bind_dots(_of(specs, attrs), config, threads, "linear"))
