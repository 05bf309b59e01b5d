"""What the Triton kernels of attention share: blocks of rows, masks, and in which order tiles are computed.

How an array is read is one number, its unit: 0 for any steps, 1 where the features of a row are side by side,
else how many elements (16 bytes) all its steps are multiples of. Row numbers have 32 bits, offsets 64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...matmul.cuda.tile_kernels import whole

LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-3.4028234663852886e38)
"""The most negative float32: what a row's largest score begins with. With -inf, -inf - -inf would be NaN."""


@triton.jit
def place_of(item, tiles, units, band):
    """(tile, unit) of an item: units in bands whose arrays stay in L2, in a band tile by tile."""
    first = item // (band * tiles) * band
    width = min(units - first, band)
    inside = item - first * tiles
    return inside // width, first + inside % width


@triton.jit
def batch_at(b, inner, outer_step, inner_step):
    """The offset of matrix number `b` of a batch with two axes; elements, in 64 bits."""
    outer = b // inner
    return tl.cast(outer, tl.int64) * outer_step + tl.cast(b - outer * inner, tl.int64) * inner_step


@triton.jit
def whole_batch(b, inner, outer_step, inner_step, UNIT: tl.constexpr):
    """`batch_at`, such that the compiler knows what divides it."""
    return step_of(batch_at(b, inner, outer_step, inner_step), UNIT)


@triton.jit
def step_of(step, UNIT: tl.constexpr):
    """A step between rows in 64 bits; with a unit, such that the compiler knows what divides it."""
    return whole(tl.cast(step, tl.int64), UNIT if UNIT > 1 else 1)


@triton.jit
def features(column_step, WIDTH: tl.constexpr, UNIT: tl.constexpr):
    """The offsets of a row's features, [1, WIDTH]."""
    columns = tl.arange(0, WIDTH)[None, :]
    if UNIT == 0:
        return columns.to(tl.int64) * column_step
    else:
        return columns.to(tl.int64)


@triton.jit
def within(ok, width, WIDTH: tl.constexpr, UNIT: tl.constexpr, WHOLE: tl.constexpr):
    """Which elements of rows [rows, WIDTH] there are, where `ok` says which rows are."""
    ok = ok[:, None]
    if not WHOLE:
        ok = ok & (tl.arange(0, WIDTH) < whole(width, UNIT if UNIT > 1 else 1))[None, :]
    return ok


@triton.jit
def block_of(
    x, b, head, first, at, count, width, row_step, column_step,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, UNIT: tl.constexpr, WHOLE: tl.constexpr, BOXES: tl.constexpr,
):  # fmt: skip
    """ROWS rows from `first` on; zeros beyond `count` rows and `width` features.

    Args:
        x: with BOXES a descriptor of [batch, heads, rows, features]; else a pointer, and `at` is where the
            matrix starts.
    """
    if BOXES:
        return x.load([b, head, first, 0]).reshape(ROWS, WIDTH)
    else:
        rows = tl.arange(0, ROWS)
        step = step_of(row_step, UNIT)
        inside = rows.to(tl.int64)[:, None] * step + features(column_step, WIDTH, UNIT)
        from_x = x + (at + tl.cast(first, tl.int64) * step)
        ok = within(rows < count - first, width, WIDTH, UNIT, WHOLE)
        return tl.load(from_x + inside, mask=ok, other=0.0)


@triton.jit
def again(
    x, y, at, first, count, width, row_step, column_step,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, UNIT: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y, the block of rows that `block_of` would load; without tensor cores, loaded anew.

    An operand of multiply-adds takes registers for all terms of a row in each thread. Across a loop, where
    the compiler would keep it, there is no room for two; `volatile` keeps it from that.
    """
    if PRECISION == "ieee":
        rows = tl.arange(0, ROWS)
        step = step_of(row_step, UNIT)
        inside = rows.to(tl.int64)[:, None] * step + features(column_step, WIDTH, UNIT)
        ok = within(rows < count - first, width, WIDTH, UNIT, WHOLE)
        from_x = x + (at + tl.cast(first, tl.int64) * step)
        return tl.load(from_x + inside, mask=ok, other=0.0, volatile=True)
    else:
        return y


@triton.jit
def multiplied(x, y, PRECISION: tl.constexpr):
    """x y in float32."""
    if PRECISION == "":
        return tl.dot(x, y)
    else:
        return tl.dot(x, y, input_precision=PRECISION)


@triton.jit
def added(x, y, acc, PRECISION: tl.constexpr):
    """acc + x y in float32."""
    if PRECISION == "":
        return tl.dot(x, y, acc)
    else:
        return tl.dot(x, y, acc, input_precision=PRECISION)


@triton.jit
def power(x, MASK: tl.constexpr):
    """2^x; e^x of natural scores, which those with an added mask are."""
    if MASK == "added":
        return tl.exp2(x * LOG2E)
    else:
        return tl.exp2(x)


@triton.jit
def masked(
    x, c, mask, at, i, j, rows_ok, keys_ok, row_step, key_step, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr,
):  # fmt: skip
    """Scores in the unit that c gives them, -inf for pairs that take no part.

    Args:
        x: products of queries and keys, in either order; the rest has the same order.
        c: the scale; times log2(e) unless the mask is added, which might overflow by that.
        at: where each row's (each head's) part of the mask starts, without the keys; shaped like i.
        i, j: the numbers of queries and of keys, shaped so that they repeat to x's shape.
        rows_ok, keys_ok: which of them there are.
        BY_ROWS: whether the mask differs from row to row.
        M_UNIT: its unit, of which the number of keys is a multiple too.
    """
    x = x * c
    ok = keys_ok
    if CAUSAL:
        ok = ok & (j <= i)
    if MASK != "":
        keys = j.to(tl.int64)
        if M_UNIT == 0:
            keys = keys * key_step
        if BY_ROWS:
            rows = i.to(tl.int64) * step_of(row_step, M_UNIT)
            found = tl.load(mask + (at + rows + keys), mask=rows_ok & keys_ok, other=0)
        else:
            found = tl.load(mask + (at + keys), mask=keys_ok, other=0)
        if MASK == "bool":
            ok = ok & (found != 0)
        else:
            x += found.to(tl.float32)
    return tl.where(ok, x, float("-inf"))
