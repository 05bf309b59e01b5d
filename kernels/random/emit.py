"""Random numbers as vector code: Philox on 16 counters at once, and what is made of its words.

A word of a counter is held in a lane of 64 bits, of which only the lower half counts: the product of two
words is then one instruction (vpmuludq reads lower halves alone), its upper word one shift, and nothing is
ever packed or masked in the ten rounds. 16 blocks give a group of 64 numbers of 32 bits or 32 of 64, each
vector of 16 stored as it comes (`philox.py` has the order).

    uniform      bits times 2^-bits
    normal       Box and Muller: sqrt(-2 log u) times cos and sin of an angle reduced, exactly, as an integer
    exponential  -log u
    randint      the upper half of a 64-bit product
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from ..cpu.loops import for_range, share, word
from ..cpu.narrow import read, write
from ..cpu.vector_ir import I1, I8, I32, I64, POINTER, Vectors, i64, minimum, offset, pointer
from ..cpu.vector_math import log
from . import philox
from .philox import LANES

# Words of the block, beside the addresses of the arrays (the key among them, the result last).
COUNT, TASKS, KEY_STEP, A, B, C, D = 5, 6, 7, 8, 9, 10, 11
AXES = 16  # for each axis its length and the byte stride of x, the innermost first
WORDS = 64
MOST_AXES = (WORDS - AXES) // 2

WIDE = ir.VectorType(I64, LANES)
NARROW = ir.VectorType(I32, LANES)

# Minimax polynomials in x^2 for |x| <= pi / 4, by the exchange that `vector_math` describes, the weights
# making errors relative: sin x = x + x^3 S, cos x = 1 - x^2 / 2 + x^4 C. Off by 2^-27.9 and 2^-33.0 in
# float32, by 2^-56.4 and 2^-62.3 in float64.
SINE = {
    "float32": (-0.166666552, 0.00833218917, -0.000195182918),
    "float64": (
        *(-0.1666666666666663, 0.0083333333333218424, -0.00019841269829361222),
        *(2.7557313597230528e-06, -2.505075655888805e-08, 1.5897507695339783e-10),
    ),
}
COSINE = {
    "float32": (0.0416666456, -0.00138873095, 2.44323273e-05),
    "float64": (
        *(0.041666666666666595, -0.0013888888888873342, 2.4801587289002079e-05),
        *(-2.7557314217038638e-07, 2.0875705395102363e-09, -1.1358751811651681e-11),
    ),
}


def splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int = LANES) -> ir.Value:
    """A scalar in every lane."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def all_lanes(kind: ir.VectorType, value: int) -> ir.Constant:
    """An integer constant in every lane."""
    return ir.Constant(kind, [value] * kind.count)


class Generator:
    """Philox under a key: `blocks(first)` are the words of 16 blocks, each in a lane of 64 bits.

    Args:
        key: the address of the key's first word, `step` bytes before its second.
        stream: the third word of the counters.
    """

    def __init__(self, builder: ir.IRBuilder, key: ir.Value, step: ir.Value, stream: int):
        self.b, self.stream = builder, stream
        b = builder
        k0 = b.load(pointer(b, key), typ=I32)
        k1 = b.load(pointer(b, b.add(key, step)), typ=I32)
        self.keys = []
        for _ in range(philox.ROUNDS):
            self.keys.append((splat(b, b.zext(k0, I64)), splat(b, b.zext(k1, I64))))
            k0 = b.add(k0, ir.Constant(I32, philox.WEYL[0]))
            k1 = b.add(k1, ir.Constant(I32, philox.WEYL[1]))

    def blocks(self, first: ir.Value, attempt: ir.Value | None = None) -> list[ir.Value]:
        """Four vectors: words 0 to 3 of blocks first .. first + 15; upper halves of lanes are left over."""
        at = self.b.add(splat(self.b, first), ir.Constant(WIDE, list(range(LANES))))
        return self.rounds(at, attempt)

    def rounds(self, at: ir.Value, attempt: ir.Value | None = None) -> list[ir.Value]:
        """The same for any blocks, 64 bits in each lane; `attempt` is the fourth word of the counters."""
        b = self.b
        half = all_lanes(WIDE, 32)
        c0, c1 = at, b.lshr(at, half)
        c2: ir.Value = all_lanes(WIDE, self.stream)
        c3: ir.Value = all_lanes(WIDE, 0) if attempt is None else splat(b, attempt)
        for k0, k1 in self.keys:
            p0, p1 = (self._product(c, m) for c, m in zip((c0, c2), philox.MULTIPLIERS, strict=True))
            c0, c1, c2, c3 = (
                b.xor(b.lshr(p1, half), b.xor(c1, k0)),
                p1,
                b.xor(b.lshr(p0, half), b.xor(c3, k1)),
                p0,
            )
        return [c0, c1, c2, c3]

    def _product(self, c: ir.Value, multiplier: int) -> ir.Value:
        lower = self.b.and_(c, all_lanes(WIDE, 0xFFFFFFFF))
        return self.b.mul(lower, all_lanes(WIDE, multiplier))

    def words32(self, group: ir.Value, attempt: ir.Value | None = None) -> list[ir.Value]:
        """The 64 numbers of 32 bits of a group: 4 vectors, in order."""
        return [self.b.trunc(c, NARROW) for c in self.blocks(self.b.mul(group, i64(LANES)), attempt)]

    def words64(self, group: ir.Value, attempt: ir.Value | None = None) -> list[ir.Value]:
        """The 32 numbers of 64 bits of a group: 2 vectors, in order."""
        c = self.blocks(self.b.mul(group, i64(LANES)), attempt)
        return [self._joined(c[0], c[1]), self._joined(c[2], c[3])]

    def _joined(self, low: ir.Value, high: ir.Value) -> ir.Value:
        b = self.b
        return b.or_(b.and_(low, all_lanes(WIDE, 0xFFFFFFFF)), b.shl(high, all_lanes(WIDE, 32)))


class Numbers:
    """What is made of a group's words: `values(group)`, vectors of 16 numbers in order."""

    def __init__(self, builder: ir.IRBuilder, block: ir.Value, kind: str, dtype: str, plain: bool):
        b = builder
        self.b, self.kind, self.dtype, self.plain = b, kind, dtype, plain
        self.generator = Generator(b, word(b, block, 0), word(b, block, KEY_STEP), philox.NUMBERS)
        self.wide = dtype == "float64" or kind in ("randint", "permutation")
        self.per_group = (2 if self.wide else 4) * LANES
        self.a, self.second, self.third, self.fourth = (word(b, block, at) for at in (A, B, C, D))
        self.v = Vectors(b, "float64" if dtype == "float64" else "float32", LANES)

    def _float(self, bits: ir.Value) -> ir.Value:
        """A number given by the bits of a float64, in every lane."""
        number = self.b.bitcast(bits, ir.DoubleType())
        if self.v.dtype == "float32":
            number = self.b.fptrunc(number, ir.FloatType())
        return splat(self.b, number)

    def values(self, group: ir.Value) -> list[ir.Value]:
        if self.kind == "truncated":
            return [self._moved(z) for z in self._truncated(group)]
        words = self._words(group)
        if self.kind == "normal":
            return [self._moved(z) for z in self._normal(words)]
        return [getattr(self, f"_{self.kind}")(one) for one in words]

    def _words(self, group: ir.Value, attempt: ir.Value | None = None) -> list[ir.Value]:
        return (self.generator.words64 if self.wide else self.generator.words32)(group, attempt)

    def _moved(self, z: ir.Value) -> ir.Value:
        """A mean and a deviation for standard numbers."""
        if self.plain:
            return z
        return self.v.fma(z, self._float(self.second), self._float(self.a))

    def _truncated(self, group: ir.Value) -> list[ir.Value]:
        """Normal numbers, drawn again until all of the group are within the limits."""
        b, v = self.b, self.v
        low, high = self._float(self.third), self._float(self.fourth)
        start = b.block
        again, done = b.append_basic_block("again"), b.append_basic_block("fitting")
        count = self.per_group // LANES
        b.branch(again)
        b.position_at_end(again)
        attempt = b.phi(I64)
        before = [b.phi(v.type) for _ in range(count)]
        fitting = [b.phi(v.mask_type) for _ in range(count)]
        fresh = self._normal(self._words(group, attempt))
        values, masks = [], []
        everywhere = None
        for old, fits, new in zip(before, fitting, fresh, strict=True):
            values.append(v.select(fits, old, new))
            inside = b.and_(v.compare("<=", low, new), v.compare("<=", new, high))
            masks.append(b.or_(fits, inside))
            everywhere = masks[-1] if everywhere is None else b.and_(everywhere, masks[-1])
        kind = ir.IntType(LANES)
        all_fit = b.icmp_unsigned("==", b.bitcast(everywhere, kind), ir.Constant(kind, (1 << LANES) - 1))
        attempt.add_incoming(i64(0), start)
        attempt.add_incoming(b.add(attempt, i64(1)), b.block)
        none = [v.zero] * count + [ir.Constant(v.mask_type, [0] * LANES)] * count
        for phi, first, last in zip((*before, *fitting), none, (*values, *masks), strict=True):
            phi.add_incoming(first, start)
            phi.add_incoming(last, b.block)
        b.cbranch(all_fit, done, again)
        b.position_at_end(done)
        return values

    def _bits(self, bits: ir.Value) -> ir.Value:
        return bits

    def _uniform(self, bits: ir.Value) -> ir.Value:
        from .op import PRECISION

        b, v, precision = self.b, self.v, PRECISION[self.dtype]
        whole = b.lshr(bits, all_lanes(bits.type, v.integer.width - precision))
        unit = v.mul(b.sitofp(whole, v.type), v.constant(2.0**-precision))
        if self.plain:
            return unit
        value = v.fma(unit, self._float(self.second), self._float(self.a))
        # Rounding may reach `high`, which does not belong: the number before it is the largest.
        most = self._float(self.third)
        return v.select(v.compare("<", most, value), most, value)

    def _above_zero(self, bits: ir.Value) -> ir.Value:
        v = self.v
        odd = self.b.or_(bits, all_lanes(bits.type, 1))
        return v.mul(self.b.uitofp(odd, v.type), v.constant(2.0**-v.integer.width))

    def _exponential(self, bits: ir.Value) -> ir.Value:
        v = self.v
        scaled = v.mul(log(v, self._above_zero(bits)), self._float(self.a))
        return v.add(scaled, v.zero)  # -0 becomes 0

    def _normal(self, words: list[ir.Value]) -> list[ir.Value]:
        v, out = self.v, []
        for first, second in zip(words[::2], words[1::2], strict=True):
            squared = v.mul(log(v, self._above_zero(first)), v.constant(-2.0))
            radius = self._root(v.absolute(squared))
            out += [v.mul(radius, wave) for wave in self._waves(second)]
        return out

    def _root(self, x: ir.Value) -> ir.Value:
        v = self.v
        return self.b.call(v._intrinsic(f"llvm.sqrt.{v.suffix}", v.type, [v.type]), [x])

    def _waves(self, turn: ir.Value) -> tuple[ir.Value, ir.Value]:
        """cos and sin of 2 pi turn / 2^bits."""
        b, v = self.b, self.v
        kind, width = turn.type, v.integer.width
        quarters = b.lshr(b.add(turn, all_lanes(kind, 1 << (width - 3))), all_lanes(kind, width - 2))
        rest = b.ashr(b.shl(turn, all_lanes(kind, 2)), all_lanes(kind, 2))
        x = v.mul(b.sitofp(rest, v.type), v.constant(2 * math.pi * 2.0**-width))
        z = v.mul(x, x)
        sine = v.fma(v.mul(x, z), v.polynomial(z, SINE[v.dtype]), x)
        half = v.fma(z, v.constant(-0.5), v.constant(1.0))
        cosine = v.fma(v.mul(z, z), v.polynomial(z, COSINE[v.dtype]), half)
        odd = b.icmp_unsigned("!=", b.and_(quarters, all_lanes(kind, 1)), all_lanes(kind, 0))
        # Quarters 1 and 2 turn the cosine's sign, 2 and 3 the sine's: bit 1 of q + 1, and of q.
        top = all_lanes(kind, width - 2)
        both = all_lanes(kind, 2)
        sign_c = b.shl(b.and_(b.add(quarters, all_lanes(kind, 1)), both), top)
        sign_s = b.shl(b.and_(quarters, both), top)
        real, imaginary = v.select(odd, sine, cosine), v.select(odd, cosine, sine)
        return (
            v.from_bits(b.xor(v.bits(real), sign_c)),
            v.from_bits(b.xor(v.bits(imaginary), sign_s)),
        )

    def _bernoulli(self, bits: ir.Value) -> ir.Value:
        return self.b.zext(chosen(self.b, bits, self.a), ir.VectorType(I8, LANES))

    def _randint(self, bits: ir.Value) -> ir.Value:
        """A + the upper half of bits times B; with `plain` all of 64 bits."""
        b = self.b
        value = bits if self.plain else high_product(b, bits, self.second)
        value = b.add(value, splat(b, self.a))
        width = 8 * int(self.dtype)
        return value if width == 64 else b.trunc(value, ir.VectorType(ir.IntType(width), LANES))


def chosen(b: ir.IRBuilder, bits: ir.Value, threshold: ir.Value) -> ir.Value:
    """A mask of the lanes whose upper 31 bits are below the threshold, an i64."""
    upper = b.lshr(bits, all_lanes(NARROW, 1))
    return b.icmp_unsigned("<", upper, splat(b, b.trunc(threshold, I32)))


def high_product(b: ir.IRBuilder, x: ir.Value, factor: ir.Value) -> ir.Value:
    """The upper 64 bits of x times a scalar, both unsigned."""
    low, half = all_lanes(WIDE, 0xFFFFFFFF), all_lanes(WIDE, 32)
    y0, y1 = splat(b, b.and_(factor, i64(0xFFFFFFFF))), splat(b, b.lshr(factor, i64(32)))
    x0, x1 = b.and_(x, low), b.lshr(x, half)
    p01, p10 = b.mul(x0, y1), b.mul(x1, y0)
    middle = b.add(b.lshr(b.mul(x0, y0), half), b.add(b.and_(p01, low), b.and_(p10, low)))
    upper = b.add(b.mul(x1, y1), b.add(b.lshr(p01, half), b.lshr(p10, half)))
    return b.add(upper, b.lshr(middle, half))


def stack(b: ir.IRBuilder, kind: ir.Type, count: int) -> ir.Value:
    """An untyped pointer to room for some vectors on the stack."""
    return pointer(b, b.ptrtoint(b.alloca(kind, size=count), I64))


Group = Callable[[ir.Value, ir.Value | None], None]


def groups(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, per_group: int, body: Group) -> None:
    """`body(group, None)` for this task's whole groups, `body(group, left)` for one of fewer numbers."""
    b = builder
    count = word(b, block, COUNT)
    total = b.udiv(b.add(count, i64(per_group - 1)), i64(per_group))
    first, end = share(b, total, index, word(b, block, TASKS))
    whole = minimum(b, end, b.udiv(count, i64(per_group)))

    def one(group: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        body(group, None)
        return []

    for_range(b, first, whole, [], one)
    last = b.sub(total, i64(1))
    here = b.and_(b.icmp_signed(">", end, whole), b.icmp_signed("<=", first, last))
    with b.if_then(here):
        body(last, b.sub(count, b.mul(last, i64(per_group))))


def tail(b: ir.IRBuilder, left: ir.Value | None, place: int) -> ir.Value | None:
    """The mask of a vector whose numbers start `place` into a group of `left`; None for all."""
    if left is None:
        return None
    here = ir.Constant(WIDE, list(range(place, place + LANES)))
    return b.icmp_signed("<", here, splat(b, left))


def store(b: ir.IRBuilder, value: ir.Value, ptr: ir.Value, mask: ir.Value | None) -> None:
    """Writes 16 integers, or those of a mask."""
    if mask is None:
        b.store(value, ptr).align = 1
        return
    name = f"llvm.masked.store.v{LANES}i{value.type.element.width}.p0"
    kind = ir.FunctionType(ir.VoidType(), [value.type, POINTER, I32, ir.VectorType(I1, LANES)])
    known = b.module.globals.get(name)
    b.call(known or ir.Function(b.module, kind, name), [value, ptr, ir.Constant(I32, 1), mask])


def emit_numbers(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, kind: str, dtype: str, plain: bool
) -> None:
    """A task that draws `kind`.

    `dtype` is that of floats, or the bytes of an integer; `plain` means limits 0 and 1, mean 0 and deviation
    1, or all 64 bits.
    """
    b = builder
    numbers = Numbers(b, block, kind, dtype, plain)
    out = word(b, block, 1)
    floats = kind in ("uniform", "normal", "truncated", "exponential")
    size = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}[dtype] if floats else int(dtype)

    def body(group: ir.Value, left: ir.Value | None) -> None:
        at = pointer(b, b.add(out, b.mul(group, i64(numbers.per_group * size))))
        for place, value in enumerate(numbers.values(group)):
            into, mask = offset(b, at, place * LANES * size), tail(b, left, place * LANES)
            if floats:
                write(numbers.v, value, into, dtype, mask)
            else:
                store(b, value, into, mask)

    groups(b, block, index, numbers.per_group, body)


def emit_split(builder: ir.IRBuilder, block: ir.Value, index: ir.Value) -> None:
    """A task that makes keys: words 0 and 1 of one block each, side by side."""
    b = builder
    generator = Generator(b, word(b, block, 0), word(b, block, KEY_STEP), philox.SPLIT)
    out = word(b, block, 1)

    def body(group: ir.Value, left: ir.Value | None) -> None:
        at = pointer(b, b.add(out, b.mul(group, i64(8 * LANES))))
        c = generator.blocks(b.mul(group, i64(LANES)))
        store(b, generator._joined(c[0], c[1]), at, tail(b, left, 0))

    groups(b, block, index, LANES, body)


def emit_fold_in(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, nbytes: int, signed: bool) -> None:
    """A task that makes one key, of a number of `nbytes` bytes."""
    b = builder
    generator = Generator(b, word(b, block, 0), word(b, block, KEY_STEP), philox.FOLD)
    number = b.load(pointer(b, word(b, block, 1)), typ=ir.IntType(8 * nbytes))
    if nbytes < 8:
        number = b.sext(number, I64) if signed else b.zext(number, I64)
    c = generator.rounds(splat(b, number))
    both = b.extract_element(generator._joined(c[0], c[1]), ir.Constant(I32, 0))
    b.store(both, pointer(b, word(b, block, 2))).align = 4


def emit_permutation(builder: ir.IRBuilder, block: ir.Value, index: ir.Value) -> None:
    """The only task of a permutation: an exchange for each element, its numbers drawn 32 at a time."""
    b = builder
    numbers = Numbers(b, block, "permutation", "8", True)
    out, count = pointer(b, word(b, block, 1)), word(b, block, COUNT)
    room = stack(b, WIDE, 2)

    def exchanges(group: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        for place, words in enumerate(numbers.generator.words64(group)):
            b.store(words, offset(b, room, place * 8 * LANES)).align = 8
        start = b.mul(group, i64(2 * LANES))
        wide = ir.IntType(128)

        def exchange(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            drawn = b.load(b.gep(room, [b.sub(i, start)], source_etype=I64), typ=I64)
            product = b.mul(b.zext(drawn, wide), b.zext(b.add(i, i64(1)), wide))
            j = b.trunc(b.lshr(product, ir.Constant(wide, 64)), I64)
            here, there = (b.gep(out, [at], source_etype=I64) for at in (i, j))
            # Element i holds nothing yet: what is moved there from itself is written over at once.
            b.store(b.load(there, typ=I64), here)
            b.store(i, there)
            return []

        for_range(b, start, minimum(b, b.add(start, i64(2 * LANES)), count), [], exchange)
        return []

    total = b.udiv(b.add(count, i64(2 * LANES - 1)), i64(2 * LANES))
    for_range(b, i64(0), total, [], exchanges)


def emit_dropout(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, stored: str, axes: int) -> None:
    """A task of dropout: x is read as it lies when `axes` is 0, else one by one along so many axes."""
    b = builder
    generator = Generator(b, word(b, block, 1), word(b, block, KEY_STEP), philox.NUMBERS)
    x, y, threshold = (word(b, block, at) for at in (0, 2, A))
    v = Vectors(b, "float64" if stored == "float64" else "float32", LANES)
    size = {"float64": 8, "float32": 4}.get(stored, 2)
    scale = b.bitcast(word(b, block, B), ir.DoubleType())
    scale = splat(b, scale if v.dtype == "float64" else b.fptrunc(scale, ir.FloatType()))
    room = stack(b, v.type, 4) if axes else None

    def body(group: ir.Value, left: ir.Value | None) -> None:
        start = b.mul(group, i64(4 * LANES))
        at = b.mul(start, i64(size))
        words = generator.words32(group)
        if room is not None:
            gathered(b, block, x, start, left, room, stored, axes)
        for place, bits in enumerate(words):
            mask = tail(b, left, place * LANES)
            shift = place * LANES * size
            if room is None:
                value = read(v, offset(b, pointer(b, b.add(x, at)), shift), stored, mask)
            else:
                value = v.load(offset(b, room, place * v.nbytes))
            factor = v.select(chosen(b, bits, threshold), v.zero, scale)
            write(v, v.mul(value, factor), offset(b, pointer(b, b.add(y, at)), shift), stored, mask)

    groups(b, block, index, 4 * LANES, body)


def gathered(
    b: ir.IRBuilder,
    block: ir.Value,
    x: ir.Value,
    first: ir.Value,
    left: ir.Value | None,
    room: ir.Value,
    stored: str,
    axes: int,
) -> None:
    """The elements `first` .. of a group, in row-major order, from anywhere to side by side."""
    lengths = [word(b, block, AXES + 2 * axis) for axis in range(axes)]
    steps = [word(b, block, AXES + 2 * axis + 1) for axis in range(axes)]
    one = Vectors(b, "float64" if stored == "float64" else "float32", 1)
    at, rest, places = x, first, []
    for length, step in zip(lengths, steps, strict=True):
        places.append(b.urem(rest, length))
        rest = b.udiv(rest, length)
        at = b.add(at, b.mul(places[-1], step))
    end = i64(4 * LANES) if left is None else left
    before, loop, after = b.block, b.append_basic_block("run"), b.append_basic_block("gathered")
    b.branch(loop)
    b.position_at_end(loop)
    start = [i64(0), at, *places]
    done, at, *places = phis = [b.phi(I64) for _ in start]
    # As many as there are along the innermost axis, then one step along the others.
    count = minimum(b, b.sub(lengths[0], places[0]), b.sub(end, done))
    into = b.add(b.ptrtoint(room, I64), b.mul(done, i64(one.itemsize)))

    def element(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        value = read(one, pointer(b, b.add(at, b.mul(i, steps[0]))), stored)
        one.store(value, pointer(b, b.add(into, b.mul(i, i64(one.itemsize)))))
        return []

    for_range(b, i64(0), count, [], element)
    moved, carry = [], count
    further = at
    for place, length, step in zip(places, lengths, steps, strict=True):
        total = b.add(place, carry)
        full = b.icmp_signed("==", total, length)
        further = b.add(further, b.mul(step, b.sub(carry, b.select(full, length, i64(0)))))
        moved.append(b.select(full, i64(0), total))
        carry = b.zext(full, I64)
    following = b.add(done, count)
    for phi, old, last in zip(phis, start, [following, further, *moved], strict=True):
        phi.add_incoming(old, before)
        phi.add_incoming(last, b.block)
    b.cbranch(b.icmp_signed("<", following, end), loop, after)
    b.position_at_end(after)
