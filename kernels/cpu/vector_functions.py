"""What pointwise kernels need beside `vector_math.py`: exp2, expm1, log1p, log2, softplus, pow, sine ...

As there, every function takes a `Vectors` and vectors, for float32 or float64 and any number of lanes. What
is hard for float32 (pow, sin, cos, tan) is computed in float64, whose spare 29 bits make up for plain
formulas. pow of float64 calls the C library for each lane, and so do sines of numbers beyond a million.

Largest errors found, in units in the last place (tests/kernels/pointwise/test_functions.py), infinities, NaN
and zeros giving what C says:

               exp2   expm1  log2   log1p  softplus  logsigmoid  mish   pow    sin    cos    tan
    float32    0.99   1.43   1.40   1.42   1.72      1.71        3.38   0.50   0.50   0.50   0.50
    float64    0.96   1.70   1.47   1.27   1.67      1.72        3.73   0.51   1.35   1.34   2.47
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from .vector_ir import I1, I32, Vectors, counted_loop, i64
from .vector_math import (
    CONSTANTS,
    activation,
    erf,
    exp,
    exp_of_negative,
    log,
    log_limits,
    power_of_two,
    reduced_exp,
    reduced_log,
)

Unary = Callable[[Vectors, ir.Value], ir.Value]


def intrinsic(v: Vectors, name: str, *values: ir.Value) -> ir.Value:
    """LLVM's function of that name, such as "sqrt", of vectors."""
    fnty = ir.FunctionType(v.type, [v.type] * len(values))
    fn = cgutils.get_or_insert_function(v.builder.module, fnty, f"llvm.{name}.{v.suffix}")
    return v.builder.call(fn, list(values))


def is_nan(v: Vectors, x: ir.Value) -> ir.Value:
    """A mask of the lanes that are NaN."""
    return v.builder.fcmp_unordered("uno", x, x)


def larger(v: Vectors, a: ir.Value, b: ir.Value) -> ir.Value:
    """The larger of each pair; NaN where either is."""
    best = v.select(v.builder.fcmp_unordered(">", a, b), a, b)
    return v.select(is_nan(v, b), b, best)


def smaller(v: Vectors, a: ir.Value, b: ir.Value) -> ir.Value:
    """The smaller of each pair; NaN where either is."""
    best = v.select(v.builder.fcmp_unordered("<", a, b), a, b)
    return v.select(is_nan(v, b), b, best)


def by_lane(v: Vectors, function: str, *values: ir.Value) -> ir.Value:
    """A function of the C library, of doubles, for one lane after the other (`v` is of float64)."""
    b, result = v.builder, v.zero
    fnty = ir.FunctionType(v.element, [v.element] * len(values))
    fn = cgutils.get_or_insert_function(b.module, fnty, function)
    for lane in range(v.lanes):
        at = ir.Constant(I32, lane)
        one = b.call(fn, [b.extract_element(value, at) for value in values])
        result = b.insert_element(result, one, at)
    return result


def _doubled(v: Vectors) -> Vectors:
    return Vectors(v.builder, "float64", v.lanes)


def in_double(v: Vectors, function: Callable[..., ir.Value], *values: ir.Value) -> ir.Value:
    """A function of float64 vectors, of float32 ones, rounded once."""
    wide = _doubled(v)
    b = v.builder
    return b.fptrunc(function(wide, *(b.fpext(value, wide.type) for value in values)), v.type)


# --- exponentials and logarithms ----------------------------------------------------------------------------


def exp2(v: Vectors, x: ir.Value) -> ir.Value:
    """2^x."""
    c, b = CONSTANTS[v.dtype], v.builder
    low, high = c.exp_limits[0] / math.log(2) - 1, float(c.bias + 1)
    inside = v.at_most(v.at_least(x, low), high)
    magic = v.constant(1.5 * 2.0**c.mantissa)
    shifted = v.add(inside, magic)
    n = b.sub(v.bits(shifted), v.bits(magic))
    # The difference is exact, and its product with ln 2 is rounded once.
    r = v.mul(v.sub(inside, v.sub(shifted, magic)), v.constant(math.log(2)))
    p = v.fma(v.mul(r, r), v.polynomial(r, c.q), r)
    half = b.ashr(n, v.integers(1))
    first, second = power_of_two(v, half), power_of_two(v, b.sub(n, half))
    return v.mul(v.fma(p, first, first), second)


def expm1(v: Vectors, x: ir.Value) -> ir.Value:
    """e^x - 1, precise near 0."""
    c, b = CONSTANTS[v.dtype], v.builder
    # Below twice the tanh_limit, e^x is lost beside 1.
    n, p = reduced_exp(v, v.at_most(v.at_least(x, -2 * c.tanh_limit), c.exp_limits[1]))
    top = b.icmp_signed(">", n, v.integers(c.bias))
    scale = power_of_two(v, b.select(top, v.integers(c.bias), n))
    value = v.fma(p, scale, v.sub(scale, v.constant(1.0)))
    value = v.select(top, v.mul(value, v.constant(2.0)), value)
    return v.select(v.compare("==", x, v.zero), x, value)


def log2(v: Vectors, x: ir.Value) -> ir.Value:
    """The logarithm to base 2: exact for powers of two."""
    whole, f, half_square, s, inner = reduced_log(v, x)
    near = v.sub(f, v.sub(half_square, v.mul(s, inner)))
    return log_limits(v, x, v.fma(near, v.constant(1 / math.log(2)), whole))


def log1p(v: Vectors, x: ir.Value) -> ir.Value:
    """log(1 + x), precise near 0."""
    one = v.constant(1.0)
    total = v.add(x, one)
    # What the sum lost by rounding, d, comes back as log(u + d) = log(u) + d / u.
    lost = v.sub(x, v.sub(total, one))
    lost = v.select(v.compare("<", v.absolute(x), one), lost, v.sub(one, v.sub(total, x)))
    value = log(v, total)
    plain = v.builder.or_(
        v.compare("==", total, v.constant(math.inf)), v.builder.fcmp_unordered("<=", total, v.zero)
    )
    value = v.select(plain, value, v.add(value, v.div(lost, total)))
    return v.select(v.compare("==", x, v.zero), x, value)


def _log1p_of_exp(v: Vectors, t: ir.Value) -> ir.Value:
    """log(1 + e^t) for t <= 0."""
    return log1p(v, exp_of_negative(v, t))


def softplus(v: Vectors, x: ir.Value) -> ir.Value:
    """log(1 + e^x)."""
    minus = v.with_sign(x, v.constant(-1.0))
    return v.add(larger(v, x, v.zero), _log1p_of_exp(v, minus))


def log_sigmoid(v: Vectors, x: ir.Value) -> ir.Value:
    """log(1 / (1 + e^-x))."""
    minus = v.with_sign(x, v.constant(-1.0))
    return v.sub(smaller(v, x, v.zero), _log1p_of_exp(v, minus))


def mish(v: Vectors, x: ir.Value) -> ir.Value:
    """x tanh(log(1 + e^x)) = x q / (q + 2) with q = e^x (e^x + 2)."""
    # Above 20, q / (q + 2) is 1 to the last place; below -60, e^x squared could be subnormal, and is lost.
    e = exp(v, v.at_most(x, 20.0))
    q = v.mul(e, v.add(e, v.constant(2.0)))
    return v.mul(x, v.div(q, v.add(q, v.constant(2.0))))


# P(X < x) of a normal X is 1/2 + x/2 R(x^2) up to 5.4, where it is 1 to half a last place of float32. R is a
# quotient of two polynomials, from weighted least squares of x times numerator - erf(x / sqrt 2) times
# denominator at 4,000 points, the weights changed after Lawson until the largest error, 1.1e-8, was
# everywhere.
_BELOW_LIMIT = 5.4
_BELOW_TOP = (7.97884491e-01, 6.67405522e-02, 9.30145143e-03, 3.28602425e-04, 1.27196543e-05, 4.67758382e-08)
_BELOW_BOTTOM = (1.0, 2.50312968e-01, 2.83775551e-02, 1.85886556e-03, 7.23933538e-05, 1.21661149e-06)


def _normal_below(v: Vectors, x: ir.Value) -> ir.Value:
    """The probability that a normal variable is below x, to 1.5e-7 absolutely for float32."""
    half, one = v.constant(0.5), v.constant(1.0)
    if v.dtype == "float64":
        return v.fma(erf(v, v.mul(x, v.constant(math.sqrt(0.5)))), half, half)
    square = v.mul(x, x)
    ratio = v.div(v.polynomial(square, _BELOW_TOP), v.polynomial(square, _BELOW_BOTTOM))
    value = v.at_least(v.fma(v.mul(x, half), ratio, half), 0.0)
    value = v.select(v.compare(">", x, v.constant(_BELOW_LIMIT)), one, value)
    return v.select(v.compare("<", x, v.constant(-_BELOW_LIMIT)), v.zero, value)


def gelu(v: Vectors, x: ir.Value) -> ir.Value:
    """x P(X < x): for float32 with an error of 1.5e-7 |x|, which is less work than a relative one."""
    return activation(v, "gelu", x) if v.dtype == "float64" else v.mul(x, _normal_below(v, x))


def gelu_slope(v: Vectors, x: ir.Value) -> ir.Value:
    """The derivative of gelu: P(X < x) + x e^(-x^2/2) / sqrt(2 pi)."""
    below = _normal_below(v, x)
    exponent = v.mul(v.mul(x, x), v.constant(-0.5))
    density = v.mul(exp_of_negative(v, exponent), v.constant(1 / math.sqrt(2 * math.pi)))
    # At infinity the second term is infinity times 0, and the slope 0 or 1.
    value = v.fma(x, density, below)
    return v.select(v.compare("==", v.absolute(x), v.constant(math.inf)), below, value)


def elu(v: Vectors, x: ir.Value, alpha: ir.Value) -> ir.Value:
    """x above 0, alpha (e^x - 1) below."""
    below = v.mul(alpha, expm1(v, v.at_most(x, 0.0)))
    return v.select(v.compare(">", x, v.zero), x, below)


# --- powers -------------------------------------------------------------------------------------------------


def _log_of_floats(v: Vectors, x: ir.Value) -> ir.Value:
    """log(x) of positive float64 numbers that were float32, to 2e-11: `vector_math.log` with fewer terms."""
    c, b = CONSTANTS["float64"], v.builder
    root = v.bits(v.constant(math.sqrt(0.5)))
    n = b.ashr(b.sub(v.bits(x), root), v.integers(c.mantissa))
    f = v.sub(v.from_bits(b.sub(v.bits(x), b.shl(n, v.integers(c.mantissa)))), v.constant(1.0))
    s = v.div(f, v.add(f, v.constant(2.0)))
    z = v.mul(s, s)
    near = v.fma(v.mul(s, z), v.polynomial(z, [2 / (2 * k + 3) for k in range(5)]), v.add(s, s))
    value = v.fma(b.sitofp(n, v.type), v.constant(math.log(2)), near)
    value = v.select(v.compare("==", x, v.zero), v.constant(-math.inf), value)
    # Infinite or NaN: as it is.
    return v.select(b.fcmp_unordered(">=", x, v.constant(math.inf)), x, value)


def _exp_to_float(v: Vectors, t: ir.Value) -> ir.Value:
    """e^t to 2e-10, of float64 numbers for results that will be float32: 0 and infinity beyond its range."""
    c, b = CONSTANTS["float64"], v.builder
    t = v.at_most(v.at_least(t, -150.0), 150.0)
    magic = v.constant(1.5 * 2.0**c.mantissa)
    shifted = v.fma(t, v.constant(1 / math.log(2)), magic)
    n = b.sub(v.bits(shifted), v.bits(magic))
    r = v.fma(v.sub(shifted, magic), v.constant(-math.log(2)), t)
    return v.mul(v.polynomial(r, [1 / math.factorial(k) for k in range(9)]), power_of_two(v, n))


def power(v: Vectors, x: ir.Value, y: ir.Value) -> ir.Value:
    """x^y, as C's pow."""
    if v.dtype == "float64":
        return by_lane(v, "pow", x, y)
    b, one, inf = v.builder, v.constant(1.0), v.constant(math.inf)
    size, whole = v.absolute(x), intrinsic(v, "trunc", y)
    value = in_double(v, lambda w, base, to: _exp_to_float(w, w.mul(to, _log_of_floats(w, base))), size, y)
    halved = v.mul(y, v.constant(0.5))
    is_whole = v.compare("==", whole, y)
    odd = b.and_(is_whole, v.compare("!=", intrinsic(v, "trunc", halved), halved))
    negative = b.icmp_signed("<", v.bits(x), v.integers(0))
    value = v.select(b.and_(negative, odd), v.negative(value), value)
    below = b.and_(v.compare("<", x, v.zero), v.compare("<", size, inf))
    value = v.select(b.and_(below, b.not_(is_whole)), v.constant(math.nan), value)
    # |x| = 1: the logarithm is 0, and 0 times infinity would be NaN. An infinite y counts as even.
    unit = b.and_(v.compare("==", size, one), v.compare("==", v.absolute(y), inf))
    always = b.or_(unit, b.or_(v.compare("==", y, v.zero), v.compare("==", x, one)))
    return v.select(always, one, value)


def whole_power(
    builder: ir.IRBuilder, kind: ir.VectorType, x: ir.Value, y: ir.Value, signed: bool
) -> ir.Value:
    """x^y of whole numbers, by squaring, wrapping around; of a negative y 1/x, cut off to a whole number."""
    b, bits = builder, kind.element.width

    def number(value: int) -> ir.Constant:
        return ir.Constant(kind, [value] * kind.count)

    def body(carried: Sequence[ir.Value]) -> list[ir.Value]:
        result, square, left = carried
        on = b.icmp_unsigned("!=", b.and_(left, number(1)), number(0))
        result = b.select(on, b.mul(result, square), result)
        return [result, b.mul(square, square), b.lshr(left, number(1))]

    value = counted_loop(b, i64(bits), [number(1), x, y], body)[0]
    if not signed:
        return value
    minus_one = b.icmp_signed("==", x, number(-1))
    odd = b.icmp_unsigned("!=", b.and_(y, number(1)), number(0))
    inverse = b.select(minus_one, b.select(odd, number(-1), number(1)), number(0))
    inverse = b.select(b.icmp_signed("==", x, number(1)), number(1), inverse)
    return b.select(b.icmp_signed("<", y, number(0)), inverse, value)


# --- sine, cosine, tangent ----------------------------------------------------------------------------------

# pi / 2 in three pieces; products of the first two with whole numbers up to 2^20 are exact in float64.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
_REACH = 1.6e6  # about 2^20 pi / 2: beyond, the C library does it


def _circle(v: Vectors, x: ir.Value, want: str, terms: int) -> ir.Value:
    """sin, cos or tan of float64 numbers up to _REACH, by so many terms of Taylor's series.

    With |r| <= pi / 4, what 6 terms leave out is below 2e-9 of the result's last place in float32, and what 9
    leave out below 1e-3 of that in float64.
    """
    b, c = v.builder, CONSTANTS["float64"]
    magic = v.constant(1.5 * 2.0**c.mantissa)
    shifted = v.fma(x, v.constant(2 / math.pi), magic)
    n = b.sub(v.bits(shifted), v.bits(magic))
    whole = v.sub(shifted, magic)
    r = x
    for piece in _HALF_PI:
        r = v.fma(whole, v.constant(-piece), r)
    z, half, one = v.mul(r, r), v.constant(0.5), v.constant(1.0)
    series = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(1, terms)]
    sine = v.fma(v.mul(r, z), v.polynomial(z, series), r)
    series = [(-1.0) ** k / math.factorial(2 * k) for k in range(2, terms + 1)]
    # 1 - z/2 is rounded; what it lost goes into the rest.
    near = v.fma(z, v.negative(half), one)
    lost = v.sub(v.sub(one, near), v.mul(z, half))
    cosine = v.add(near, v.fma(v.mul(z, z), v.polynomial(z, series), lost))
    turned = b.icmp_unsigned("!=", b.and_(n, v.integers(1)), v.integers(0))
    if want == "tan":
        top, bottom = v.select(turned, cosine, sine), v.select(turned, v.negative(sine), cosine)
        return v.div(top, bottom)
    quarter = n if want == "sin" else b.add(n, v.integers(1))
    turned = turned if want == "sin" else b.not_(turned)
    value = v.select(turned, cosine, sine)
    minus = b.icmp_unsigned("!=", b.and_(quarter, v.integers(2)), v.integers(0))
    return v.select(minus, v.negative(value), value)


def _circular(want: str) -> Unary:
    def function(v: Vectors, x: ir.Value) -> ir.Value:
        if v.dtype == "float32":
            return in_double(v, lambda wide, value: of_doubles(wide, value, 6), x)
        return of_doubles(v, x, 9)

    def of_doubles(v: Vectors, x: ir.Value, terms: int) -> ir.Value:
        far = v.compare(">", v.absolute(x), v.constant(_REACH))
        near = _circle(v, x, want, terms)
        near = v.select(v.compare("==", x, v.zero), near if want == "cos" else x, near)
        return _unless(v, far, near, lambda: by_lane(v, want, x))

    return function


def _unless(v: Vectors, rare: ir.Value, usual: ir.Value, slow: Callable[[], ir.Value]) -> ir.Value:
    """`usual`, or what `slow` emits for all lanes where one of the mask is on."""
    b = v.builder
    before = b.block
    there, after = b.append_basic_block("rare"), b.append_basic_block("usual")
    b.cbranch(_any(v, rare), there, after)
    b.position_at_end(there)
    exact = slow()
    end = b.block
    b.branch(after)
    b.position_at_end(after)
    result = b.phi(v.type)
    result.add_incoming(usual, before)
    result.add_incoming(exact, end)
    return result


def _any(v: Vectors, mask: ir.Value) -> ir.Value:
    """Whether a lane of the mask is on."""
    fnty = ir.FunctionType(I1, [v.mask_type])
    fn = cgutils.get_or_insert_function(v.builder.module, fnty, f"llvm.vector.reduce.or.v{v.lanes}i1")
    return v.builder.call(fn, [mask])


sin, cos, tan = _circular("sin"), _circular("cos"), _circular("tan")

# --- quotients ----------------------------------------------------------------------------------------------


def _left(v: Vectors, x: ir.Value, y: ir.Value) -> ir.Value:
    """C's fmod: x - y trunc(x / y), exact."""
    if v.dtype == "float32":
        return in_double(v, _left, x, y)
    b = v.builder
    quotient, size = v.div(x, y), v.absolute(y)
    whole = intrinsic(v, "trunc", quotient)
    # Exact for quotients up to 2^52; rounding may have made the quotient one too large or too small.
    left = intrinsic(v, "fma", v.negative(whole), y, x)
    turn = v.with_sign(size, x)
    over = b.and_(
        v.compare("!=", left, v.zero), v.compare("<", v.mul(left, v.with_sign(v.constant(1.0), x)), v.zero)
    )
    left = v.select(over, v.add(left, turn), left)
    left = v.select(v.compare(">=", v.absolute(left), size), v.sub(left, turn), left)
    left = v.select(v.compare("==", size, v.constant(math.inf)), x, v.with_sign(left, x))
    rare = b.not_(v.compare("<", v.absolute(quotient), v.constant(2.0**52)))
    return _unless(v, rare, left, lambda: by_lane(v, "fmod", x, y))


def remainder(v: Vectors, x: ir.Value, y: ir.Value) -> ir.Value:
    """What is left of x after dividing by y, with y's sign: Python's %."""
    left = _left(v, x, y)
    apart = v.builder.xor(v.compare("<", left, v.zero), v.compare("<", y, v.zero))
    other = v.builder.and_(v.compare("!=", left, v.zero), apart)
    return v.select(other, v.add(left, y), left)


def floor_divide(v: Vectors, x: ir.Value, y: ir.Value) -> ir.Value:
    """The largest whole number not above x / y, exact: Python's //, but infinite or NaN for y = 0."""
    b = v.builder
    left = _left(v, x, y)
    apart = b.xor(v.compare("<", left, v.zero), v.compare("<", y, v.zero))
    other = b.and_(v.compare("!=", left, v.zero), apart)
    quotient = v.div(v.sub(x, left), y)
    quotient = v.select(other, v.sub(quotient, v.constant(1.0)), quotient)
    # The quotient is whole but for rounding, which may be off by one either way.
    whole = intrinsic(v, "floor", quotient)
    up = v.compare(">", v.sub(quotient, whole), v.constant(0.5))
    whole = v.select(up, v.add(whole, v.constant(1.0)), whole)
    plain = v.div(x, y)
    whole = v.select(v.compare("==", quotient, v.zero), v.with_sign(v.zero, plain), whole)
    return v.select(v.compare("==", y, v.zero), plain, whole)
