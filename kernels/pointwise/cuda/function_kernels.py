"""What the generated kernels compute with: one function for each instruction that is more than an operator.

They take tiles (or scalars) of float32 or float64, or of whole numbers where their names say so, and hold for
the compiler and for the interpreter. 16-bit numbers have been widened; results of 16 bits lose 13 or 16 bits
when they are stored, so that the functions named `quick_...`, by the chip's approximations (2 units in the
last place of float32), serve them. Python's numbers stand to the right of tensors: Triton's interpreter does
not take them on the left.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda import libdevice

exp, exp2, expm1 = libdevice.exp, libdevice.exp2, libdevice.expm1
log, log2, log1p = libdevice.log, libdevice.log2, libdevice.log1p
sin, cos, tan, tanh, erf = libdevice.sin, libdevice.cos, libdevice.tan, libdevice.tanh, libdevice.erf
power, fmod, rint, trunc = libdevice.pow, libdevice.fmod, libdevice.rint, libdevice.trunc
near = libdevice.near_quotient

INFINITY = tl.constexpr(float("inf"))
SQRT_HALF = tl.constexpr(0.7071067811865476)
DENSITY = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)
# 2 sqrt(2 / pi), and the factor of the cubic term: `activations.GELU_SCALE` twice, `activations.GELU_CUBE`.
TWICE_GELU_SCALE = tl.constexpr(1.5957691216057308)
GELU_CUBE = tl.constexpr(0.044715)

# P(X < x) of a normal X as 1/2 + x/2 R(x^2): the quotient of `cpu/vector_functions.py`, which says where it
# comes from; off by 1.5e-7 at most.
LIMIT = tl.constexpr(5.4)
TOP_0 = tl.constexpr(7.97884491e-01)
TOP_1 = tl.constexpr(6.67405522e-02)
TOP_2 = tl.constexpr(9.30145143e-03)
TOP_3 = tl.constexpr(3.28602425e-04)
TOP_4 = tl.constexpr(1.27196543e-05)
TOP_5 = tl.constexpr(4.67758382e-08)
BOTTOM_1 = tl.constexpr(2.50312968e-01)
BOTTOM_2 = tl.constexpr(2.83775551e-02)
BOTTOM_3 = tl.constexpr(1.85886556e-03)
BOTTOM_4 = tl.constexpr(7.23933538e-05)
BOTTOM_5 = tl.constexpr(1.21661149e-06)
# The same as 1/2 + x Q(x^2) for |x| < 4, for results of 16 bits: off by 3.3e-5 at most, from least squares at
# 2,000 Chebyshev points, the weights changed after Lawson, with the value 1 at 4 as a condition.
QUICK_LIMIT = tl.constexpr(4.0)
QUICK_0 = tl.constexpr(3.988072385e-01)
QUICK_1 = tl.constexpr(-6.606843650e-02)
QUICK_2 = tl.constexpr(9.584527261e-03)
QUICK_3 = tl.constexpr(-1.022029459e-03)
QUICK_4 = tl.constexpr(7.634647482e-05)
QUICK_5 = tl.constexpr(-3.722783360e-06)
QUICK_6 = tl.constexpr(1.050034902e-07)
QUICK_7 = tl.constexpr(-1.287483037e-09)


# --- arithmetic ---------------------------------------------------------------------------------------------


@triton.jit
def exact_quotient(x, y):
    """x / y, rounded once."""
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def near_quotient(x, y):
    """x / y to 2 units in the last place of float32, for y below 2^126; 0 above."""
    if x.dtype == tl.float32:
        return near(x, y)
    else:
        return x / y


@triton.jit
def root(x):
    """The square root, rounded once."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    else:
        return tl.sqrt(x)


@triton.jit
def one_over(x):
    """1 / x, rounded once."""
    return exact_quotient(tl.full([], 1.0, x.dtype), x)


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 of NaN."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def fmod_turned(x, y):
    """What is left of x after dividing by y, with y's sign: Python's %."""
    left = fmod(x, y)
    apart = (left != 0) & ((left < 0) != (y < 0))
    return tl.where(apart, left + y, left)


@triton.jit
def floor_quotient(x, y):
    """The largest whole number not above x / y, exact; infinite or NaN for y = 0."""
    left = fmod(x, y)
    apart = (left != 0) & ((left < 0) != (y < 0))
    quotient = exact_quotient(x - left, y)
    quotient = tl.where(apart, quotient - 1.0, quotient)
    # The quotient is whole but for rounding, which may be off by one either way.
    whole = tl.floor(quotient)
    whole = tl.where(quotient - whole > 0.5, whole + 1.0, whole)
    return tl.where(y == 0, exact_quotient(x, y), whole)


@triton.jit
def whole_quotient(x, y, SIGNED: tl.constexpr):
    """floor(x / y) of whole numbers: 0 for y = 0; the smallest number over -1 wraps around."""
    none = y == 0
    if SIGNED:
        minus = y == -1
        divisor = tl.where(none | minus, 1, y)
        quotient = x // divisor
        left = x - quotient * divisor
        quotient = quotient - ((left != 0) & ((left ^ y) < 0)).to(x.dtype)
        return tl.where(none, 0, tl.where(minus, 0 - x, quotient))
    else:
        return tl.where(none, 0, x // tl.where(none, 1, y))


@triton.jit
def whole_remainder(x, y, SIGNED: tl.constexpr):
    """x - y floor(x / y) of whole numbers: 0 for y = 0."""
    none = y == 0
    if SIGNED:
        divisor = tl.where(none | (y == -1), 1, y)
        left = x % divisor
        left = tl.where((left != 0) & ((left ^ y) < 0), left + y, left)
        return tl.where(none, 0, left)
    else:
        return tl.where(none, 0, x % tl.where(none, 1, y))


@triton.jit
def whole_power(x, y, BITS: tl.constexpr, SIGNED: tl.constexpr):
    """x^y of whole numbers by squaring, wrapping around; of a negative y 1 / x, cut off."""
    result = x * 0 + y * 0 + 1
    square = x + y * 0
    left = y + x * 0
    for _ in range(BITS):
        result = tl.where((left & 1) != 0, result * square, result)
        square = square * square
        left = left >> 1
    if SIGNED:
        minus = tl.where((y & 1) != 0, -1, 1).to(x.dtype)
        inverse = tl.where(x == 1, 1, tl.where(x == -1, minus, 0))
        result = tl.where(y < 0, inverse, result)
    return result


@triton.jit
def saturated(x, DTYPE: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr, END: tl.constexpr):
    """x cut off to a whole number of DTYPE and kept within LEAST..MOST; 0 of NaN. END: MOST + 1 as a float.

    What lies outside is taken away first: a conversion of it would be undefined.
    """
    inside = (x >= LEAST) & (x < END)
    value = tl.where(inside, x, 0.0).to(DTYPE)
    value = tl.where(x >= END, tl.full([], MOST, DTYPE), value)
    return tl.where(x < LEAST, tl.full([], LEAST, DTYPE), value)


# --- activations --------------------------------------------------------------------------------------------


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x); e^-x is infinite far below zero, which gives the right 0."""
    return near_quotient(tl.full([], 1.0, x.dtype), exp(x * -1.0) + 1.0)


@triton.jit
def quick_sigmoid(x):
    """The same for a result of 16 bits."""
    return near_quotient(tl.full([], 1.0, x.dtype), tl.exp(x * -1.0) + 1.0)


@triton.jit
def silu(x):
    """x sigmoid(x)."""
    return x * sigmoid(x)


@triton.jit
def quick_silu(x):
    """The same for a result of 16 bits."""
    return x * quick_sigmoid(x)


@triton.jit
def gelu_tanh(x):
    """gelu's approximation by tanh: (1 + tanh(y)) / 2 is sigmoid(2 y)."""
    return x * sigmoid((x + x * x * x * GELU_CUBE) * TWICE_GELU_SCALE)


@triton.jit
def quick_gelu_tanh(x):
    """The same for a result of 16 bits."""
    return x * quick_sigmoid((x + x * x * x * GELU_CUBE) * TWICE_GELU_SCALE)


@triton.jit
def normal_below(x):
    """The probability that a normal variable is below x: to 1.5e-7 for float32, to rounding for float64."""
    if x.dtype == tl.float64:
        return erf(x * SQRT_HALF) * 0.5 + 0.5
    else:
        s = x * x
        top = ((((s * TOP_5 + TOP_4) * s + TOP_3) * s + TOP_2) * s + TOP_1) * s + TOP_0
        bottom = ((((s * BOTTOM_5 + BOTTOM_4) * s + BOTTOM_3) * s + BOTTOM_2) * s + BOTTOM_1) * s + 1.0
        value = x * 0.5 * near_quotient(top, bottom) + 0.5
        value = tl.where(x > LIMIT, 1.0, value)
        return tl.where((x < LIMIT * -1.0) | (value < 0.0), 0.0, value)


@triton.jit
def gelu(x):
    """x P(X < x): for float32 with an error of 1.5e-7 |x|, which is less work than a relative one."""
    return x * normal_below(x)


@triton.jit
def quick_gelu(x):
    """The same for a result of 16 bits: no exponential, no division."""
    inside = tl.minimum(tl.maximum(x, QUICK_LIMIT * -1.0), QUICK_LIMIT)
    s = inside * inside
    q = (((s * QUICK_7 + QUICK_6) * s + QUICK_5) * s + QUICK_4) * s + QUICK_3
    q = ((q * s + QUICK_2) * s + QUICK_1) * s + QUICK_0
    below = tl.maximum(inside * q + 0.5, 0.0)
    return x * tl.where(x < QUICK_LIMIT * -1.0, 0.0, below)


@triton.jit
def gelu_slope(x):
    """The derivative of gelu: P(X < x) + x e^(-x^2/2) / sqrt(2 pi); 0 or 1 at infinity."""
    below = normal_below(x)
    value = x * (exp(x * x * -0.5) * DENSITY) + below
    return tl.where(tl.abs(x) == INFINITY, below, value)


@triton.jit
def softplus(x):
    """log(1 + e^x)."""
    return tl.where(x < 0, 0.0, x) + log1p(exp(tl.abs(x) * -1.0))


@triton.jit
def logsigmoid(x):
    """log(1 / (1 + e^-x))."""
    return tl.where(x > 0, 0.0, x) - log1p(exp(tl.abs(x) * -1.0))


@triton.jit
def mish(x):
    """x tanh(log(1 + e^x)) = x q / (q + 2) with q = e^x (e^x + 2); above 20, q / (q + 2) is 1."""
    e = exp(tl.where(x > 20.0, 20.0, x))
    q = e * (e + 2.0)
    return x * near_quotient(q, q + 2.0)


@triton.jit
def elu(x, alpha):
    """x above 0, alpha (e^x - 1) below."""
    return tl.where(x > 0, x, alpha * expm1(tl.where(x > 0, 0.0, x)))


@triton.jit
def sixths(x):
    """clip(x + 3, 0, 6) / 6."""
    y = x + 3.0
    y = tl.where(y < 0, 0.0, y)
    return tl.where(y > 6.0, 6.0, y) * (1 / 6)
