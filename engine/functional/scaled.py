"""`scaled_matmul` as a function of Arrays."""

from __future__ import annotations

from ...kernels.matmul.op import SCALED_MATMUL
from ..array import Array
from ..eager import Operand, call


def scaled_matmul(
    a: Operand,
    b: Operand,
    a_scale: Operand,
    b_scale: Operand,
    bias: Operand | None = None,
    *,
    out_dtype: str = "bfloat16",
    out: Operand | None = None,
) -> Array:
    """`(a_scale a) (b_scale b) + bias` of 8-bit numbers, with float32 factors by row of a and column of b.

    Args:
        a: [m, k], float8_e4m3fn; any strides.
        b: [k, n], float8_e4m3fn; any strides. Tensor cores want k side by side: the transpose of [n, k].
        a_scale: float32, [m], or [1] for all rows.
        b_scale: float32, [n], or [1] for all columns.
        bias: [n], of `out_dtype`, or None.
        out_dtype: "bfloat16", "float16" or "float32".
        out: where the result goes: [m, n], of `out_dtype`, sharing no memory with an input.

    Returns:
        [m, n] of `out_dtype`. With `out` an Array, that very Array. It has no gradient.

    Raises:
        ShapeError: where shapes do not fit.
        DTypeError: for other dtypes, or an operand that is no array.
        ConfigError: for another `out_dtype`.
        LayoutError, OverlapError: for an out that cannot be written, or shares memory with an input.
    """
    return call(SCALED_MATMUL, (a, b, a_scale, b_scale, bias), {"out_dtype": out_dtype}, out)
