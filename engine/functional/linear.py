"""`linear` as a function of Arrays, with a weight or with one that was packed before."""

from __future__ import annotations

from ...kernels import activations
from ...kernels.matmul.op import LINEAR
from ...kernels.prepack import Packed
from ..array import Array
from ..eager import Operand, call


def linear(
    x: Operand,
    w: Operand | Packed,
    b: Operand | None = None,
    activation: str | None = None,
    *,
    residual: Operand | None = None,
    out: Operand | None = None,
) -> Array:
    """`activation(x @ w.T + b + residual)`, as torch.nn.functional.linear and what may follow it.

    Args:
        x: [..., in], float32, float64, bfloat16 or float16; any strides. Sums of 16-bit numbers are float32.
        w: [out, in], of x's dtype; or what `kernels.prepack.prepack("linear", w)` made of it.
        b: [out], or None.
        activation: "relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu" or None; applied last.
        residual: [..., out], added before the activation, or None.
        out: where the result goes: [..., out], of x's dtype, sharing no memory with an input.

    Returns:
        [..., out]. With `out` an Array, that very Array.

    Raises:
        ShapeError: where shapes do not fit.
        DTypeError: for other or mixed dtypes, or an operand that is no array.
        ConfigError: for an unknown activation.
        LayoutError, OverlapError: for an out that cannot be written, or shares memory with an input.
    """
    if activation is not None and type(activation) is not str:
        activations.check(repr(activation))
    if type(w) is Packed:
        form, weight = (w.format, w.shape), w.data
    else:
        form, weight = ("", ()), w  # type: ignore[assignment]
    attrs = {"activation": activation, "w_format": form[0], "w_shape": form[1]}
    return call(LINEAR, (x, weight, b, residual), attrs, out)
