"""matmul, linear and scaled_matmul on the GPU, in Triton: C[p] = end(A[p] B[p]) for the matrices p of a batch

    descriptors     tiles by tensor cores, operands by the bulk copy engine (Hopper and later)
    pointers        tiles for any strides and chip; float32 without tensor cores, exact to rounding
    rows            up to four rows or columns: a stream of the other operand through registers
    tf32            float32 by tensor cores, which round operands to 11 bits: only where it is asked for

The kernels are in `cuda/tile_kernels.py` and `cuda/row_kernels.py`, the configurations in `cuda/choices.py`;
which one runs is the smallest time by `kernels/cuda/ranking.py`, or by measurement. A transposed operand, as
both gradients have one, is read as it lies. No share of a roof has been measured yet: that takes a record of
a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..kernel import ExtraError, Launch
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import product
from .cuda.calls import LINEAR, MATMUL, Calls
from .cuda.launch import Rows, Tiles

HALF = ("bfloat16", "float16")
FLOATS = (*HALF, "float32")
FLOAT8 = ("float8_e4m3fn",)

# tf32 keeps 11 significant bits of 24: each operand is off by up to 2^-11 where it is cut off, 2^-12 where
# it is rounded. Two of them together, over the 2 2^-24 that the standard budget has for an element: 2^12 to
# 2^13.
TF32_ERROR = ExtraError(8192, "both operands are cut to the 11 bits of tf32", explicit=True)
# The tensor cores add float8 products with about 14 bits (Zhao and others, "DeepSeek-V3", section 3.3.2,
# 2024), for one step of k at a time; those sums are added in float32. 2^-13 over 2 2^-24.
FLOAT8_ERROR = ExtraError(1024, "sums of one step of k have about 14 bits, and the result is float32")


def _scaled(specs: Specs, attrs: Attrs) -> product.Product:
    return product.of_scaled(specs)


def _is_float32(specs: Specs, attrs: Attrs) -> str | None:
    return None if attrs["out_dtype"] == "float32" else "for results in float32"


def _is_half(specs: Specs, attrs: Attrs) -> str | None:
    return None if attrs["out_dtype"] in HALF else "for results in 16 bits"


_SCALED = {"a": 0, "b": 1, "a_scale": 2, "b_scale": 3, "bias": 4, "c": 5}
SCALED = Calls(_scaled, _SCALED, _is_half)
SCALED_FLOAT32 = Calls(_scaled, _SCALED, _is_float32)


def _register(
    op: str, name: str, way: Tiles | Rows, dtypes: Sequence[str], error: ExtraError | None = None
) -> None:
    """Declare a kernel of an op."""

    def bind(specs: Specs, attrs: Attrs, config: dict[str, Any], threads: int) -> Launch:
        return way.bind(specs, attrs, config)

    declare = kernel(
        op,
        device="cuda",
        language="triton",
        name=name,
        dtypes=tuple(dtypes),
        supports=way.supports,
        configs=way.configs,
        model=way.model,
        error=error,
        binds=True,
    )
    declare(bind)


for _op, _calls in (("matmul", MATMUL), ("linear", LINEAR)):
    _register(_op, "descriptors", Tiles(_calls, "engine"), HALF)
    _register(_op, "pointers", Tiles(_calls, "threads"), FLOATS)
    _register(_op, "rows", Rows(_calls), FLOATS)
    _register(_op, "tf32", Tiles(_calls, "engine", "tf32"), ("float32",), TF32_ERROR)
    _register(_op, "tf32_pointers", Tiles(_calls, "threads", "tf32"), ("float32",), TF32_ERROR)

_register("scaled_matmul", "descriptors", Tiles(SCALED, "engine"), FLOAT8)
_register("scaled_matmul", "pointers", Tiles(SCALED, "threads"), FLOAT8)
_register("scaled_matmul", "rows", Rows(SCALED), FLOAT8)
_register("scaled_matmul", "float32", Tiles(SCALED_FLOAT32, "engine"), FLOAT8, FLOAT8_ERROR)
_register("scaled_matmul", "float32_pointers", Tiles(SCALED_FLOAT32, "threads"), FLOAT8, FLOAT8_ERROR)
