"""Random numbers on the GPU: from Philox's words to what is stored, in one pass that only writes.

    bits          the words                     uniform       bits 2^-bits, then low + (high - low) u
    bernoulli     a word below a threshold      randint       the upper half of a 64-bit product
    normal        Box and Muller, by pairs      exponential   -scale log u
    truncated     normal numbers, drawn again until all of a program fit

Each formula is that of the CPU (`../emit.py`), operation by operation: multiply-adds are fused where they are
there, division and root are rounded to nearest, log, sin and cos are the same polynomials. Equal keys so give
equal bits on both, and not only equal words.

    program    a tile of [GROUPS, 16] blocks of Philox: 4 tiles of numbers, or 2 of 64 bits
    thread     as many neighbouring blocks as make 16 bytes of numbers (8 of bytes): 4 vectors are stored

*Roof.* Each number is written once and nothing is read, so memory would be the roof at 4 bytes a number.
The ten rounds take some 70 instructions for 4 words; a conversion and a product come to each. That is less
than memory takes for float32 and for what is wider; 16-bit numbers, flags, and what needs a logarithm, are
bound by instructions.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from ...cpu.vector_math import CONSTANTS
from ...cuda.triton_numbers import number
from ..emit import COSINE, SINE
from ..op import KEEP_BITS, PRECISION
from .word_kernels import place, put, wide, words

_DROPPED_BITS = tl.constexpr(32 - KEEP_BITS)
# Bits that are left out of a word of 32, or 64, and what one of the others is worth.
_CUT_32, _CUT_16 = tl.constexpr(32 - PRECISION["float32"]), tl.constexpr(32 - PRECISION["float16"])
_CUT_B16, _CUT_64 = tl.constexpr(32 - PRECISION["bfloat16"]), tl.constexpr(64 - PRECISION["float64"])
_ONE_32, _ONE_16 = tl.constexpr(2.0 ** -PRECISION["float32"]), tl.constexpr(2.0 ** -PRECISION["float16"])
_ONE_B16, _ONE_64 = tl.constexpr(2.0 ** -PRECISION["bfloat16"]), tl.constexpr(2.0 ** -PRECISION["float64"])
_TURN_32, _TURN_64 = tl.constexpr(2 * math.pi * 2.0**-32), tl.constexpr(2 * math.pi * 2.0**-64)
_ROOT_HALF = tl.constexpr(math.sqrt(0.5))
_MANTISSA_32, _MANTISSA_64 = (
    tl.constexpr(CONSTANTS["float32"].mantissa),
    tl.constexpr(CONSTANTS["float64"].mantissa),
)
_LN2_32_0, _LN2_32_1 = map(tl.constexpr, CONSTANTS["float32"].ln2)
_LN2_64_0, _LN2_64_1 = map(tl.constexpr, CONSTANTS["float64"].ln2)
_LOG_32_0, _LOG_32_1, _LOG_32_2 = map(tl.constexpr, CONSTANTS["float32"].log_r)
_SINE_32_0, _SINE_32_1, _SINE_32_2 = map(tl.constexpr, SINE["float32"])
_COSINE_32_0, _COSINE_32_1, _COSINE_32_2 = map(tl.constexpr, COSINE["float32"])
_LOG_64_0, _LOG_64_1, _LOG_64_2, _LOG_64_3 = map(tl.constexpr, CONSTANTS["float64"].log_r[:4])
_LOG_64_4, _LOG_64_5, _LOG_64_6 = map(tl.constexpr, CONSTANTS["float64"].log_r[4:])
_SINE_64_0, _SINE_64_1, _SINE_64_2, _SINE_64_3 = map(tl.constexpr, SINE["float64"][:4])
_SINE_64_4, _SINE_64_5 = map(tl.constexpr, SINE["float64"][4:])
_COSINE_64_0, _COSINE_64_1, _COSINE_64_2, _COSINE_64_3 = map(tl.constexpr, COSINE["float64"][:4])
_COSINE_64_4, _COSINE_64_5 = map(tl.constexpr, COSINE["float64"][4:])


@triton.jit
def constant(x, VALUE: tl.constexpr):
    """VALUE in the shape and the type of x, all of its bits."""
    return tl.full(x.shape, VALUE, x.dtype)


@triton.jit
def cubic(x, C0: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr, start):
    """C0 + C1 x + C2 x^2 + start x^3, by Horner's rule."""
    value = tl.fma(start, x, constant(x, C2))
    return tl.fma(tl.fma(value, x, constant(x, C1)), x, constant(x, C0))


@triton.jit
def quadratic(x, C0: tl.constexpr, C1: tl.constexpr, C2: tl.constexpr):
    """C0 + C1 x + C2 x^2."""
    return tl.fma(tl.fma(constant(x, C2), x, constant(x, C1)), x, constant(x, C0))


@triton.jit
def log(x):
    """The logarithm of normal numbers above zero; see `vector_math.reduced_log`."""
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        n = (bits - constant(x, _ROOT_HALF).to(tl.int64, bitcast=True)) >> _MANTISSA_64
        f = (bits - (n << _MANTISSA_64)).to(tl.float64, bitcast=True) - 1.0
        s = f / (f + 2.0)
        z = s * s
        rest = tl.fma(constant(z, _LOG_64_6), z, constant(z, _LOG_64_5))
        rest = tl.fma(tl.fma(rest, z, constant(z, _LOG_64_4)), z, constant(z, _LOG_64_3))
        r = cubic(z, _LOG_64_0, _LOG_64_1, _LOG_64_2, rest)
        large, small = constant(x, _LN2_64_0), constant(x, _LN2_64_1)
    else:
        bits = x.to(tl.int32, bitcast=True)
        n = (bits - constant(x, _ROOT_HALF).to(tl.int32, bitcast=True)) >> _MANTISSA_32
        f = (bits - (n << _MANTISSA_32)).to(tl.float32, bitcast=True) - 1.0
        s = tl.div_rn(f, f + 2.0)
        z = s * s
        r = quadratic(z, _LOG_32_0, _LOG_32_1, _LOG_32_2)
        large, small = constant(x, _LN2_32_0), constant(x, _LN2_32_1)
    half_square = f * f * 0.5
    whole = n.to(x.dtype)
    low = tl.fma(s, tl.fma(z, r, half_square), whole * small)
    return tl.fma(whole, large, f - (half_square - low))


@triton.jit
def root(x):
    """The square root, rounded to nearest."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def above_zero(bits):
    """A word as a number of (0, 1]: its lowest bit is set, and it is rounded."""
    if bits.dtype == tl.uint64:
        return (bits | 1).to(tl.float64) * 5.421010862427522e-20  # 2^-64
    else:
        return (bits | 1).to(tl.float32) * 2.3283064365386963e-10  # 2^-32


@triton.jit
def waves(turn):
    """cos and sin of 2 pi turn / 2^bits: the angle is taken, exactly, to within an eighth of a turn."""
    if turn.dtype == tl.uint64:
        quarters = ((turn + (1 << 61)) >> 62).to(tl.int32)
        rest = (turn << 2).to(tl.int64, bitcast=True) >> 2
        x = rest.to(tl.float64) * _TURN_64
        z = x * x
        more = tl.fma(constant(z, _SINE_64_5), z, constant(z, _SINE_64_4))
        s = cubic(z, _SINE_64_0, _SINE_64_1, _SINE_64_2, tl.fma(more, z, constant(z, _SINE_64_3)))
        more = tl.fma(constant(z, _COSINE_64_5), z, constant(z, _COSINE_64_4))
        c = cubic(z, _COSINE_64_0, _COSINE_64_1, _COSINE_64_2, tl.fma(more, z, constant(z, _COSINE_64_3)))
    else:
        quarters = ((turn + (1 << 29)) >> 30).to(tl.int32)
        rest = (turn << 2).to(tl.int32, bitcast=True) >> 2
        x = rest.to(tl.float32) * _TURN_32
        z = x * x
        s = quadratic(z, _SINE_32_0, _SINE_32_1, _SINE_32_2)
        c = quadratic(z, _COSINE_32_0, _COSINE_32_1, _COSINE_32_2)
    sine = tl.fma(x * z, s, x)
    cosine = tl.fma(z * z, c, tl.fma(z, constant(z, -0.5), constant(z, 1.0)))
    odd = (quarters & 1) != 0
    real, imaginary = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    # Quarters 1 and 2 turn the cosine's sign, 2 and 3 the sine's.
    real = tl.where(((quarters + 1) & 2) != 0, -real, real)
    return real, tl.where((quarters & 2) != 0, -imaginary, imaginary)


@triton.jit
def normal_pair(first, second):
    """Two standard normal numbers from two words."""
    radius = root(tl.abs(log(above_zero(first)) * -2.0))
    real, imaginary = waves(second)
    return radius * real, radius * imaginary


@triton.jit
def normals(c0, c1, c2, c3, WIDE: tl.constexpr):
    """Standard normal numbers of a program's words: 4 tiles, or 2 of 64 bits, twice."""
    if WIDE:
        x0, x1 = normal_pair(wide(c0, c1), wide(c2, c3))
        return x0, x1, x0, x1
    else:
        x0, x1 = normal_pair(c0, c1)
        x2, x3 = normal_pair(c2, c3)
        return x0, x1, x2, x3


@triton.jit
def outside(x, low, high):
    """1 where x is not between the limits."""
    return tl.where((x >= low) & (x <= high), 0, 1)


@triton.jit
def truncated(key, key_step, out, first, low, high, WIDE: tl.constexpr, GROUPS: tl.constexpr):
    """Normal numbers, each the first of its place that is between the limits."""
    c0, c1, c2, c3 = words(key, key_step, out, first, 0, GROUPS)
    x0, x1, x2, x3 = normals(c0, c1, c2, c3, WIDE)
    left = tl.maximum(outside(x0, low, high), outside(x1, low, high))
    if not WIDE:
        left = tl.maximum(left, tl.maximum(outside(x2, low, high), outside(x3, low, high)))
    missing = tl.max(left)
    attempt = 1
    while missing > 0:
        c0, c1, c2, c3 = words(key, key_step, out, first, attempt, GROUPS)
        y0, y1, y2, y3 = normals(c0, c1, c2, c3, WIDE)
        x0 = tl.where(outside(x0, low, high) != 0, y0, x0)
        x1 = tl.where(outside(x1, low, high) != 0, y1, x1)
        left = tl.maximum(outside(x0, low, high), outside(x1, low, high))
        if not WIDE:
            x2 = tl.where(outside(x2, low, high) != 0, y2, x2)
            x3 = tl.where(outside(x3, low, high) != 0, y3, x3)
            left = tl.maximum(left, tl.maximum(outside(x2, low, high), outside(x3, low, high)))
        missing = tl.max(left)
        attempt += 1
    return x0, x1, x2, x3


@triton.jit
def uniform(bits, out, low, span, most, PLAIN: tl.constexpr):
    """low + span u, and not above `most`, the last number below the upper limit."""
    if bits.dtype == tl.uint64:
        unit = (bits >> _CUT_64).to(tl.float64) * _ONE_64
    elif out.dtype.element_ty == tl.float32:
        unit = (bits >> _CUT_32).to(tl.float32) * _ONE_32
    elif out.dtype.element_ty == tl.float16:
        unit = (bits >> _CUT_16).to(tl.float32) * _ONE_16
    else:
        unit = (bits >> _CUT_B16).to(tl.float32) * _ONE_B16
    if PLAIN:
        return unit
    else:
        value = tl.fma(unit, span, low)
        return tl.where(most < value, most, value)


@triton.jit
def made(bits, out, a, b, c, KIND: tl.constexpr, PLAIN: tl.constexpr, NARROW: tl.constexpr):
    """One tile of numbers from one tile of words."""
    if KIND == "bits":
        return bits
    elif KIND == "bernoulli":
        return (bits >> _DROPPED_BITS) < tl.cast(a, tl.uint32)
    elif KIND == "uniform":
        return uniform(bits, out, a, b, c, PLAIN)
    elif KIND == "exponential":
        return log(above_zero(bits)) * a + 0.0  # -0 becomes 0
    else:
        tl.static_assert(KIND == "randint", "an unknown kind of numbers")
        if not PLAIN:
            if NARROW:
                span = tl.cast(b, tl.uint32).to(tl.uint64)
                low = (bits & 0xFFFFFFFF) * span
                bits = ((bits >> 32) * span + (low >> 32)) >> 32
            else:
                bits = tl.umulhi(bits, tl.cast(b, tl.int64).to(tl.uint64, bitcast=True))
        return bits + tl.cast(a, tl.int64).to(tl.uint64, bitcast=True)


@triton.jit
def moved(x, mean, std, PLAIN: tl.constexpr):
    """A mean and a deviation for standard numbers."""
    if PLAIN:
        return x
    else:
        return tl.fma(x, std, mean)


@triton.jit
def store_all(out, x0, x1, x2, x3, left, PER_GROUP: tl.constexpr, GROUPS: tl.constexpr, UNIT: tl.constexpr):
    """Store a program's tiles, where they belong."""
    put(out, place(0, PER_GROUP, GROUPS), x0, left, UNIT)
    put(out, place(1, PER_GROUP, GROUPS), x1, left, UNIT)
    if PER_GROUP == 64:
        put(out, place(2, PER_GROUP, GROUPS), x2, left, UNIT)
        put(out, place(3, PER_GROUP, GROUPS), x3, left, UNIT)


@triton.jit
def draw(
    key, out, key_step, skipped, count, a, b, c, d, KIND: tl.constexpr, PLAIN: tl.constexpr,
    NARROW: tl.constexpr, WIDE: tl.constexpr, GROUPS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """out[0 .. count - 1], row-major: numbers of KIND under a key.

    Args:
        key: uint32, two of them `key_step` elements apart.
        skipped: programs before the first of this launch.
        a, b, c, d: uniform: low, high - low, the last number below high. normal: mean, deviation;
            truncated: mean, deviation, low, high. exponential: -scale. bernoulli: the threshold. randint:
            low, and high - low mod 2^64. float64 numbers as their bits.
        PLAIN: limits 0 and 1, mean 0 and deviation 1, or all 64 bits: nothing is left to do.
        NARROW: high - low is below 2^32.
        WIDE: numbers are made of 64 bits.
        UNIT: what `count` is a multiple of: numbers that are stored at once, or 1.
    """
    PER_GROUP: tl.constexpr = 32 if WIDE else 64
    index = tl.program_id(0).to(tl.int64) + skipped
    first = index * (GROUPS * 16)
    left = tl.cast(count, tl.int64) - index * (GROUPS * PER_GROUP)
    to = out + index * (GROUPS * PER_GROUP)
    TYPE: tl.constexpr = tl.float64 if out.dtype.element_ty == tl.float64 else tl.float32
    if KIND == "truncated":
        x0, x1, x2, x3 = truncated(key, key_step, to, first, number(c, TYPE), number(d, TYPE), WIDE, GROUPS)
        mean, std = number(a, TYPE), number(b, TYPE)
        x0, x1 = moved(x0, mean, std, PLAIN), moved(x1, mean, std, PLAIN)
        x2, x3 = moved(x2, mean, std, PLAIN), moved(x3, mean, std, PLAIN)
    else:
        c0, c1, c2, c3 = words(key, key_step, to, first, 0, GROUPS)
        if KIND == "normal":
            x0, x1, x2, x3 = normals(c0, c1, c2, c3, WIDE)
            mean, std = number(a, TYPE), number(b, TYPE)
            x0, x1 = moved(x0, mean, std, PLAIN), moved(x1, mean, std, PLAIN)
            x2, x3 = moved(x2, mean, std, PLAIN), moved(x3, mean, std, PLAIN)
        else:
            if KIND == "uniform" or KIND == "exponential":
                a, b, c = number(a, TYPE), number(b, TYPE), number(c, TYPE)
            if WIDE:
                x0 = made(wide(c0, c1), out, a, b, c, KIND, PLAIN, NARROW)
                x1 = made(wide(c2, c3), out, a, b, c, KIND, PLAIN, NARROW)
                x2, x3 = x0, x1
            else:
                x0 = made(c0, out, a, b, c, KIND, PLAIN, NARROW)
                x1 = made(c1, out, a, b, c, KIND, PLAIN, NARROW)
                x2 = made(c2, out, a, b, c, KIND, PLAIN, NARROW)
                x3 = made(c3, out, a, b, c, KIND, PLAIN, NARROW)
    store_all(to, x0, x1, x2, x3, left, PER_GROUP, GROUPS, UNIT)
