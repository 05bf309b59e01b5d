"""Moving elements between addresses: runs copied, filled, reversed, turned and interleaved, of any dtype.

Elements are 1, 2, 4 or 8 bytes. Nothing outside what is named is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compile import part
from .narrow import element_move
from .vector_ir import I32, I64, offset, pointer, times


@intrinsic
def _move_line(typingctx, dst, src):
    """64 bytes, as one vector where the machine has them."""

    def codegen(context, builder, sig, args):
        value = builder.load(pointer(builder, args[1]), typ=ir.VectorType(I64, 8))
        value.align = 1
        builder.store(value, pointer(builder, args[0])).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def _fill_line(typingctx, dst, word):
    """64 bytes, each 8 of them `word`."""

    def codegen(context, builder, sig, args):
        wide = ir.VectorType(I64, 8)
        nothing = ir.Constant(wide, ir.Undefined)
        value = builder.insert_element(nothing, args[1], ir.Constant(I32, 0))
        value = builder.shuffle_vector(value, nothing, ir.Constant(ir.VectorType(I32, 8), [0] * 8))
        builder.store(value, pointer(builder, args[0])).align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


def _store_low(nbytes: int) -> Any:
    @intrinsic
    def store(typingctx, dst, word):
        """The lowest bytes of a word."""

        def codegen(context, builder, sig, args):
            value = builder.trunc(args[1], ir.IntType(8 * nbytes)) if nbytes < 8 else args[1]
            builder.store(value, pointer(builder, args[0])).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return store


def _load_low(nbytes: int) -> Any:
    @intrinsic
    def load(typingctx, src):
        """The bytes of an element as the lowest ones of a word, zeros above."""

        def codegen(context, builder, sig, args):
            value = builder.load(pointer(builder, args[0]), typ=ir.IntType(8 * nbytes))
            value.align = 1
            return builder.zext(value, I64) if nbytes < 8 else value

        return types.int64(types.int64), codegen

    return load


def _turn(nbytes: int) -> Any:
    lanes = 8 if nbytes == 8 else 16

    @intrinsic
    def turn(typingctx, dst, dst_rs, src, src_cs):
        """dst[i][j] = src[i][j] for a tile of lanes x lanes; source side by side along i, target along j."""

        def codegen(context, builder, sig, args):
            dst, dst_rs, src, src_cs = args
            d, s = pointer(builder, dst), pointer(builder, src)
            wide = ir.VectorType(ir.IntType(8 * nbytes), lanes)
            values = []
            for j in range(lanes):
                value = builder.load(offset(builder, s, times(builder, src_cs, j)), typ=wide)
                value.align = 1
                values.append(value)
            for i, row in enumerate(_transposed(builder, values)):
                builder.store(row, offset(builder, d, times(builder, dst_rs, i))).align = 1
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return turn


def _transposed(builder: ir.IRBuilder, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """As `Vectors.transpose`, of vectors of any elements."""
    n, values, distance = len(rows), list(rows), 1
    index = ir.VectorType(I32, n)
    while distance < n:
        low = ir.Constant(index, [i if not i & distance else n + i - distance for i in range(n)])
        high = ir.Constant(index, [i + distance if not i & distance else n + i for i in range(n)])
        out = list(values)
        for i in range(n):
            if not i & distance:
                out[i] = builder.shuffle_vector(values[i], values[i + distance], low)
                out[i + distance] = builder.shuffle_vector(values[i], values[i + distance], high)
        values, distance = out, 2 * distance
    return values


def _interleave(nbytes: int, columns: int) -> Any:
    lanes = 64 // nbytes

    @intrinsic
    def interleave(typingctx, dst, src, src_cs):
        """dst[i * columns + j] = src[i][j] for 64 bytes of each column; source side by side along i."""

        def codegen(context, builder, sig, args):
            dst, src, src_cs = args
            d, s = pointer(builder, dst), pointer(builder, src)
            wide = ir.VectorType(ir.IntType(8 * nbytes), lanes)
            values = []
            for j in range(columns):
                value = builder.load(offset(builder, s, times(builder, src_cs, j)), typ=wide)
                value.align = 1
                values.append(value)
            for line in range(columns):
                mixed = _merged(builder, values, range(line * lanes, (line + 1) * lanes))
                builder.store(mixed, offset(builder, d, line * 64)).align = 1
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return interleave


def _merged(builder: ir.IRBuilder, columns: Sequence[ir.Value], places: range) -> ir.Value:
    """The elements at these places of columns that alternate, as a vector."""
    n, lanes = len(columns), len(places)
    index, mixed = ir.VectorType(I32, lanes), columns[0]
    for j in range(1, n):
        # What comes from the columns before is in its place already, but for the first of all.
        order = [
            lanes + place // n if place % n == j else (e if j > 1 else place // n)
            for e, place in enumerate(places)
        ]
        mixed = builder.shuffle_vector(mixed, columns[j], ir.Constant(index, order))
    return mixed


def _reverse(nbytes: int) -> Any:
    lanes = 64 // nbytes

    @intrinsic
    def reverse(typingctx, dst, src):
        """64 bytes from `src` on, their elements in reverse order."""

        def codegen(context, builder, sig, args):
            wide = ir.VectorType(ir.IntType(8 * nbytes), lanes)
            value = builder.load(pointer(builder, args[1]), typ=wide)
            value.align = 1
            order = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes))[::-1])
            back = builder.shuffle_vector(value, ir.Constant(wide, ir.Undefined), order)
            builder.store(back, pointer(builder, args[0])).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return reverse


_MOVE = {n: element_move(n) for n in (1, 2, 4, 8)}
_move1, _move2, _move4, _move8 = (_MOVE[n] for n in (1, 2, 4, 8))
_turn1, _turn2, _turn4, _turn8 = (_turn(n) for n in (1, 2, 4, 8))
(_pairs1, _pairs2, _pairs4, _pairs8) = (_interleave(n, 2) for n in (1, 2, 4, 8))
(_triples1, _triples2, _triples4, _triples8) = (_interleave(n, 3) for n in (1, 2, 4, 8))
(_fours1, _fours2, _fours4, _fours8) = (_interleave(n, 4) for n in (1, 2, 4, 8))
_reverse1, _reverse2, _reverse4, _reverse8 = (_reverse(n) for n in (1, 2, 4, 8))
_store1, _store2, _store4, _store8 = (_store_low(n) for n in (1, 2, 4, 8))
load1, load2, load4, load8 = (_load_low(n) for n in (1, 2, 4, 8))


@part()
def move_element(dst, src, item):
    """One element of 1, 2, 4 or 8 bytes."""
    if item == 4:
        _move4(dst, src)
    elif item == 8:
        _move8(dst, src)
    elif item == 2:
        _move2(dst, src)
    else:
        _move1(dst, src)


@part()
def copy_bytes(dst, src, n):
    """n bytes that do not overlap."""
    if n >= 64:
        # Few instructions: what a core has in flight decides how much memory it waits for at a time.
        at, last = 0, n - 64
        while at < last:
            _move_line(dst + at, src + at)
            at += 64
        _move_line(dst + last, src + last)  # where it ends; part of it may be copied twice
        return
    at = 0
    while n - at >= 8:
        _move8(dst + at, src + at)
        at += 8
    if n & 4:
        _move4(dst + at, src + at)
        at += 4
    if n & 2:
        _move2(dst + at, src + at)
        at += 2
    if n & 1:
        _move1(dst + at, src + at)


@part()
def fill_bytes(dst, word, n):
    """n bytes: a word's, over and over from its lowest."""
    at = 0
    while n - at >= 64:
        _fill_line(dst + at, word)
        at += 64
    while n - at >= 8:
        _store8(dst + at, word)
        at += 8
    # What is left is less than a word, and starts where a word does.
    if n & 4:
        _store4(dst + at, word)
        at += 4
        word >>= 32
    if n & 2:
        _store2(dst + at, word)
        at += 2
        word >>= 16
    if n & 1:
        _store1(dst + at, word)


@part()
def repeated(src, item):
    """A word full of the element at `src`."""
    if item == 8:
        return load8(src)
    if item == 4:
        return load4(src) * 0x100000001
    if item == 2:
        return load2(src) * 0x1000100010001
    return load1(src) * 0x101010101010101


@part()
def interleaved(dst, src, src_n, m, n, item):
    """m rows of 2 to 4 columns that lie behind each other, source side by side along m."""
    lanes = 64 // item
    whole, row = m // lanes * lanes, n * item
    for i in range(0, whole, lanes):
        to, at = dst + i * row, src + i * item
        if n == 2:
            _two(to, at, src_n, item)
        elif n == 3:
            _three(to, at, src_n, item)
        else:
            _four(to, at, src_n, item)
    scattered(dst + whole * row, row, item, src + whole * item, item, src_n, m - whole, n, item)


@part()
def _two(dst, src, src_n, item):
    """64 bytes of each column."""
    if item == 4:
        _pairs4(dst, src, src_n)
    elif item == 8:
        _pairs8(dst, src, src_n)
    elif item == 2:
        _pairs2(dst, src, src_n)
    else:
        _pairs1(dst, src, src_n)


@part()
def _three(dst, src, src_n, item):
    """64 bytes of each column."""
    if item == 4:
        _triples4(dst, src, src_n)
    elif item == 8:
        _triples8(dst, src, src_n)
    elif item == 2:
        _triples2(dst, src, src_n)
    else:
        _triples1(dst, src, src_n)


@part()
def _four(dst, src, src_n, item):
    """64 bytes of each column."""
    if item == 4:
        _fours4(dst, src, src_n)
    elif item == 8:
        _fours8(dst, src, src_n)
    elif item == 2:
        _fours2(dst, src, src_n)
    else:
        _fours1(dst, src, src_n)


@part()
def turned(dst, dst_m, src, src_n, m, n, item):
    """An m x n block, source side by side along m and target along n."""
    if dst_m == n * item and 2 <= n <= 4:
        interleaved(dst, src, src_n, m, n, item)
        return
    side = 8 if item == 8 else 16
    whole_m, whole_n = m // side * side, n // side * side
    for i in range(0, whole_m, side):
        for j in range(0, whole_n, side):
            to, at = dst + i * dst_m + j * item, src + i * item + j * src_n
            if item == 4:
                _turn4(to, dst_m, at, src_n)
            elif item == 8:
                _turn8(to, dst_m, at, src_n)
            elif item == 2:
                _turn2(to, dst_m, at, src_n)
            else:
                _turn1(to, dst_m, at, src_n)
    right, below = dst + whole_n * item, dst + whole_m * dst_m
    scattered(right, dst_m, item, src + whole_n * src_n, item, src_n, whole_m, n - whole_n, item)
    scattered(below, dst_m, item, src + whole_m * item, item, src_n, m - whole_m, n, item)


@part()
def backwards(dst, src, n, item):
    """n elements side by side, from `src` downwards."""
    lanes = 64 // item
    for j in range(0, n // lanes * lanes, lanes):
        to, at = dst + j * item, src - (j + lanes - 1) * item
        if item == 4:
            _reverse4(to, at)
        elif item == 8:
            _reverse8(to, at)
        elif item == 2:
            _reverse2(to, at)
        else:
            _reverse1(to, at)
    for j in range(n // lanes * lanes, n):
        move_element(dst + j * item, src - j * item, item)


@part()
def scattered(dst, dst_m, dst_n, src, src_m, src_n, m, n, item):
    """An m x n block element by element."""
    for i in range(m):
        to, at = dst + i * dst_m, src + i * src_m
        if item == 4:
            for j in range(n):
                _move4(to + j * dst_n, at + j * src_n)
        elif item == 8:
            for j in range(n):
                _move8(to + j * dst_n, at + j * src_n)
        elif item == 2:
            for j in range(n):
                _move2(to + j * dst_n, at + j * src_n)
        else:
            for j in range(n):
                _move1(to + j * dst_n, at + j * src_n)
