"""exp, log, tanh, sigmoid, erf and the activations, as vector IR: for use inside any micro-kernel.

    exp(x):  x = n ln 2 + r,  |r| <= ln 2 / 2        n by adding 1.5 * 2^23, which rounds to a whole number
             e^r - 1 = r + r^2 Q(r)                  a minimax polynomial
             e^x = 2^n + 2^n (e^r - 1)               2^n made from n's bits, in two factors

Every function takes a `Vectors` and a vector, for float32 or float64 and any number of lanes, and returns a
vector; it calls nothing. About a dozen multiply-adds each, and one division in sigmoid, tanh and log.

Elements a nanosecond on one core of an AMD Zen 5 with AVX-512, data in L1 (vector_math_map.py of the tests,
November 2026; torch 2.13 in brackets, its call included, 16,384 elements):

               exp        log        tanh       sigmoid    erf        gelu       gelu_tanh
    float32    8.3 (1.6)  5.3 (1.3)  4.4 (0.5)  4.7 (4.0)  3.5 (1.0)  3.0 (2.0)  3.6 (0.8)
    float64    2.7 (0.8)  2.0 (0.6)  1.5 (0.3)  1.6 (1.8)  0.7 (0.4)  0.6 (0.4)  1.2 (0.4)

Largest errors found, in units in the last place (tests/kernels/cpu/test_vector_math.py), over all exponents,
results that are subnormal included; infinities, NaN and signed zeros give what IEEE 754 and C say:

               exp    log    tanh   sigmoid  erf
    float32    1.04   0.83   1.91   1.50     1.06
    float64    0.96   0.80   2.02   1.45     2.0

The constants come from a Remez exchange in 50-digit arithmetic: for a weight w and a list of powers, solve
`sum_j c_j x_i^j + (-1)^i e / w(x_i) = f(x_i)` at as many points x_i as unknowns, move each x_i to the nearest
extremum of the weighted error, repeat. Then coefficients are rounded to the element type one by one, from the
lowest power up, each time fitting the remaining ones again. The weight is what turns an error of the
polynomial into a relative error of the result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from llvmlite import ir

from ..activations import ACTIVATIONS, GELU_CUBE, GELU_SCALE, check
from .vector_ir import Vectors

__all__ = ["ACTIVATIONS", "activation", "erf", "exp", "exp_of_negative", "log", "sigmoid", "tanh"]


class _Constants(NamedTuple):
    """What depends on the element type."""

    mantissa: int  # bits of the mantissa that are stored
    bias: int  # of the exponent
    ln2: tuple[float, float]  # ln 2 = sum; n times the first is exact
    exp_limits: tuple[float, float]  # below, e^x is 0; above, infinite
    tanh_limit: float  # above, tanh rounds to 1
    erf_limit: float  # above, erf rounds to 1
    q: tuple[float, ...]  # e^r = 1 + r + r^2 Q(r), |r| < 0.35
    log_r: tuple[float, ...]  # log((1 + s) / (1 - s)) = 2 s + s^3 R(s^2), |s| < 0.173
    erf_p: tuple[float, ...]  # erf(x) = x + x P(x^2), |x| <= 1
    erfc_log: tuple[float, ...]  # log(1 - erf(t)), 1 <= t <= erf_limit


CONSTANTS = {
    "float32": _Constants(
        mantissa=23,
        bias=127,
        ln2=(0.693359375, -2.12194440e-4),
        exp_limits=(-104.0, 89.0),
        tanh_limit=9.1,
        erf_limit=4.0,
        q=(0.49999997, 0.166665345, 0.0416677147, 0.00836769212, 0.00138421147),
        log_r=(0.666667819, 0.399767339, 0.298960179),
        erf_p=(
            *(0.128379166, -0.37612626, 0.112835787, -0.0268533472, 0.0051871622),
            *(-0.00079978531, 7.80690316e-05),
        ),
        erfc_log=(
            *(0.000313346216, -1.13020563, -0.631874204, -0.110034004, 0.0263944808),
            *(-0.0047500548, 0.00059474312, -4.58120412e-05, 1.62475737e-06),
        ),
    ),
    "float64": _Constants(
        mantissa=52,
        bias=1023,
        ln2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
        exp_limits=(-746.0, 710.0),
        tanh_limit=19.1,
        erf_limit=6.0,
        q=(
            *(0.5, 0.16666666666666677, 0.041666666666666491, 0.0083333333333207391),
            *(0.0013888888888968331, 0.00019841269888683618, 2.4801587164788404e-05),
            *(2.7557241368673237e-06, 2.7557405917504331e-07, 2.5110110048373883e-08),
            2.0875322651717932e-09,
        ),
        log_r=(
            *(0.66666666666667451, 0.39999999999338937, 0.28571428760688317, 0.22222196560118862),
            *(0.1818367537111974, 0.15311057889910004, 0.14827301549309696),
        ),
        erf_p=(
            *(0.12837916709551256, -0.37612638903183521, 0.11283791670944184, -0.026866170643111371),
            *(0.0052239776061178246, -0.00085483259292871094, 0.00012055293576158151),
            *(-1.4924712288876249e-05, 1.644713142081062e-06, -1.620631268324473e-07),
            *(1.3710976044402663e-08, -7.7794608642717464e-10),
        ),
        erfc_log=(
            *(-2.7239323332134841e-07, -1.128376554819958, -0.63663134524403964, -0.10274131945726506),
            *(0.019071242253795306, 0.00028273077729324759, -0.0017616579523347649),
            *(0.00062500213322673926, -2.5848524145186154e-05, -8.5908569710836522e-05),
            *(5.4611167907879572e-05, -2.1085547041001296e-05, 6.0412430897193044e-06),
            *(-1.3569190804303066e-06, 2.4305862795818871e-07, -3.4740591887125947e-08),
            *(3.9210857133998131e-09, -3.4216113690364955e-10, 2.2276262723460526e-11),
            *(-1.0185804841355816e-12, 2.917506763687471e-14, -3.9374802558342511e-16),
        ),
    ),
}


def reduced_exp(v: Vectors, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(n, p): e^x = 2^n (1 + p), n a vector of integers, for x within `exp_limits` (p is NaN for a NaN)."""
    c = CONSTANTS[v.dtype]
    # 1.5 * 2^mantissa: numbers there are whole, and their lowest bits are an integer, two's complement.
    magic = 1.5 * 2.0**c.mantissa
    shifted = v.fma(x, v.constant(1 / math.log(2)), v.constant(magic))
    n = v.builder.sub(v.bits(shifted), v.bits(v.constant(magic)))
    whole = v.sub(shifted, v.constant(magic))
    r = v.fma(whole, v.constant(-c.ln2[0]), x)
    r = v.fma(whole, v.constant(-c.ln2[1]), r)
    return n, v.fma(v.mul(r, r), v.polynomial(r, c.q), r)


def power_of_two(v: Vectors, n: ir.Value) -> ir.Value:
    """2^n for a vector of integers within the exponents of normal numbers."""
    c = CONSTANTS[v.dtype]
    biased = v.builder.add(n, v.integers(c.bias))
    return v.from_bits(v.builder.shl(biased, v.integers(c.mantissa)))


def exp(v: Vectors, x: ir.Value) -> ir.Value:
    """e^x."""
    low, high = CONSTANTS[v.dtype].exp_limits
    n, p = reduced_exp(v, v.at_most(v.at_least(x, low), high))
    # Two factors: 2^n itself may overflow, or be subnormal, where e^x is not. Only the last product rounds a
    # subnormal result, and only it overflows.
    half = v.builder.ashr(n, v.integers(1))
    first, second = power_of_two(v, half), power_of_two(v, v.builder.sub(n, half))
    return v.mul(v.fma(p, first, first), second)


def exp_of_negative(v: Vectors, x: ir.Value) -> ir.Value:
    """e^x for x <= 0, a few operations shorter."""
    c = CONSTANTS[v.dtype]
    n, p = reduced_exp(v, v.at_least(x, c.exp_limits[0]))
    # n >= -bias - 2 mantissa: one factor holds it when it is made larger by 2^(2 mantissa) ...
    lift = 2 * c.mantissa
    scale = power_of_two(v, v.builder.add(n, v.integers(lift)))
    return v.mul(v.fma(p, scale, scale), v.constant(2.0**-lift))


def reduced_log(v: Vectors, x: ir.Value) -> tuple[ir.Value, ...]:
    """(n, f, h, s, t): log(x) = n ln 2 + f - (h - s t) for positive x; n whole, |f - (h - s t)| <= ln 2 / 2.

    As in FreeBSD's msun: x = 2^n (1 + f), s = f / (2 + f), log(1 + f) = f - (f^2/2 - s (f^2/2 + s^2 R(s^2))).
    """
    c, b = CONSTANTS[v.dtype], v.builder
    tiny = v.compare("<", x, v.constant(2.0 ** (1 - c.bias)))
    normal = v.select(tiny, v.mul(x, v.constant(2.0 ** (c.mantissa + 2))), x)
    # Subtracting the bits of sqrt(1/2) leaves in the exponent's place how many times to halve x to get into
    # [sqrt(1/2), sqrt(2)).
    root = v.bits(v.constant(math.sqrt(0.5)))
    n = b.ashr(b.sub(v.bits(normal), root), v.integers(c.mantissa))
    f = v.from_bits(b.sub(v.bits(normal), b.shl(n, v.integers(c.mantissa))))
    f = v.sub(f, v.constant(1.0))
    n = v.select(tiny, b.sub(n, v.integers(c.mantissa + 2)), n)
    s = v.div(f, v.add(f, v.constant(2.0)))
    half_square = v.mul(v.mul(f, f), v.constant(0.5))
    z = v.mul(s, s)
    return b.sitofp(n, v.type), f, half_square, s, v.fma(z, v.polynomial(z, c.log_r), half_square)


def log_limits(v: Vectors, x: ir.Value, value: ir.Value) -> ir.Value:
    """`value`, a logarithm of x, where x is positive; and what it is at 0, below, and of infinity and NaN."""
    value = v.select(v.compare("==", x, v.constant(math.inf)), x, value)
    value = v.select(v.compare("==", x, v.zero), v.constant(-math.inf), value)
    return v.select(v.compare(">=", x, v.zero), value, v.constant(math.nan))


def log(v: Vectors, x: ir.Value) -> ir.Value:
    """The natural logarithm; NaN below zero, minus infinity at zero."""
    c = CONSTANTS[v.dtype]
    whole, f, half_square, s, inner = reduced_log(v, x)
    low = v.fma(s, inner, v.mul(whole, v.constant(c.ln2[1])))
    value = v.fma(whole, v.constant(c.ln2[0]), v.sub(f, v.sub(half_square, low)))
    return log_limits(v, x, value)


def _quotient(v: Vectors, a: ir.Value, b: ir.Value, whole: float) -> ir.Value:
    """a / (whole + b) for |b| <= whole, right to the last place but for the rounding of a and b."""
    total = v.add(b, v.constant(whole))
    lost = v.sub(b, v.sub(total, v.constant(whole)))
    reciprocal = v.div(v.constant(1.0), total)
    quotient = v.mul(a, reciprocal)
    minus = v.negative(quotient)
    # What is left of a goes into the quotient, with what the sum lost by rounding taken into account.
    rest = v.fma(minus, lost, v.fma(minus, total, a))
    return v.fma(rest, reciprocal, quotient)


def tanh(v: Vectors, x: ir.Value) -> ir.Value:
    """The hyperbolic tangent: -u / (u + 2) with u = e^(-2 |x|) - 1."""
    c = CONSTANTS[v.dtype]
    t = v.at_most(v.absolute(x), c.tanh_limit)
    n, p = reduced_exp(v, v.mul(t, v.constant(-2.0)))
    scale = power_of_two(v, n)
    u = v.fma(p, scale, v.sub(scale, v.constant(1.0)))
    return v.with_sign(_quotient(v, u, u, 2.0), x)


def sigmoid(v: Vectors, x: ir.Value) -> ir.Value:
    """1 / (1 + e^-x), as e^-|x| / (1 + e^-|x|) below zero: precise down to subnormals."""
    e = exp_of_negative(v, v.with_sign(x, v.constant(-1.0)))
    return _quotient(v, v.select(v.compare("<", x, v.zero), e, v.constant(1.0)), e, 1.0)


def _erf_parts(v: Vectors, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """(near, |x| > 1, tail): erf(x) where |x| <= 1, and 1 - erf(|x|) where the mask is on."""
    c = CONSTANTS[v.dtype]
    t = v.absolute(x)
    near = v.fma(x, v.polynomial(v.mul(x, x), c.erf_p), x)
    far = v.compare(">", t, v.constant(1.0))
    n, p = reduced_exp(v, v.polynomial(v.at_most(t, c.erf_limit), c.erfc_log))
    scale = power_of_two(v, n)
    return near, far, v.fma(p, scale, scale)


def erf(v: Vectors, x: ir.Value) -> ir.Value:
    """The error function: a polynomial up to 1, from there 1 - e^(a polynomial)."""
    near, far, tail = _erf_parts(v, x)
    return v.select(far, v.with_sign(v.sub(v.constant(1.0), tail), x), near)


def _gelu(v: Vectors, x: ir.Value) -> ir.Value:
    """x / 2 times 1 + erf(x / sqrt(2)), without cancellation on the left."""
    c = CONSTANTS[v.dtype]
    y = v.mul(x, v.constant(math.sqrt(0.5)))
    near, far, tail = _erf_parts(v, y)
    one = v.constant(1.0)
    # Past the limit the tail is less than the last place of 1, and of no interest on the left either.
    tail = v.select(v.compare(">", v.absolute(y), v.constant(c.erf_limit)), v.zero, tail)
    outside = v.select(v.compare("<", y, v.zero), tail, v.sub(v.constant(2.0), tail))
    return v.mul(v.mul(x, v.constant(0.5)), v.select(far, outside, v.add(one, near)))


def _gelu_tanh(v: Vectors, x: ir.Value) -> ir.Value:
    """x / 2 times 1 + tanh(y), y = sqrt(2 / pi) (x + 0.044715 x^3): x times sigmoid(2 y)."""
    square = v.mul(x, x)
    scale = v.fma(square, v.constant(2 * GELU_SCALE * GELU_CUBE), v.constant(2 * GELU_SCALE))
    return v.mul(x, sigmoid(v, v.mul(x, scale)))


def activation(v: Vectors, name: str, x: ir.Value) -> ir.Value:
    """The activation `name`, one of `ACTIVATIONS`; defined in `kernels/activations.py`.

    Raises:
        ConfigError: when there is none of that name.
    """
    check(name)
    if name == "relu":
        return v.at_least(x, 0.0)
    if name == "gelu":
        return _gelu(v, x)
    if name == "gelu_tanh":
        return _gelu_tanh(v, x)
    if name == "silu":
        return v.mul(x, sigmoid(v, x))
    return sigmoid(v, x) if name == "sigmoid" else tanh(v, x)
