"""The tasks of losses by labels, a row of scores at a time.

    cross_entropy         m = max x;  s = sum exp(x - m);  logsumexp = m + log s      two sweeps, the second
                          loss = w[label] (logsumexp - x[label]), smoothed: sum w x   from the cache
    cross_entropy_grad    dx = dloss mass exp(x - logsumexp) - dloss smooth w         a sweep, then the label
    nll_loss, its grad    the label alone; a sweep that writes zeros
    multi_margin_loss     sum max(0, margin - x[label] + x)^p                         a sweep; the label's own
                          term is left out

Where rows lie side by side and classes apart, as in images, the same code runs across as many rows as a
vector has elements; where neither do, with vectors of one element.
"""

from __future__ import annotations

import math
from typing import Any

from ..cpu.narrow import read
from ..cpu.vector_ir import i64, pointer
from ..cpu.vector_math import exp, exp_of_negative, log
from .frame import (
    CLASSES,
    FIRST,
    SCRATCH,
    STRIDE,
    WEIGHT_STEP,
    Builder,
    Kind,
    Row,
    Value,
    at,
    each_row,
    loop,
    word,
)

# Numbers of the computed dtype that a block holds behind FIRST.
SMOOTHING, SHARE = FIRST, FIRST + 1
MARGIN = FIRST


def _constant(row: Row, index: int) -> Value:
    """A number in the block, as a vector of one."""
    return row.one.broadcast(pointer(row.b, row.b.add(row.block, i64(8 * index))))


def _larger(row: Row) -> Any:
    return lambda x, y: row.v.select(row.v.compare(">", y, x), y, x)


def _logsumexp(row: Row, x: int) -> Value:
    """The logarithm of the sum of the row's exponentials."""
    b, v, one = row.b, row.v, row.one
    lowest = v.constant(-math.inf)
    larger = _larger(row)
    maxima = row.sweep([lowest], lambda c, acc, mask: [larger(acc[0], row.scores(x, c, mask, lowest))])
    most = row.joined(maxima, larger)
    shift = b.select(one.compare("==", most, one.constant(-math.inf)), one.zero, most)
    far = row.splat(shift)

    def add(c: Value, acc: Any, mask: Value | None) -> Any:
        value = row.scores(x, c, mask, lowest)
        return [v.add(acc[0], exp_of_negative(v, v.sub(value, far)))]

    total = row.joined(row.sweep([v.zero], add), v.add)
    return one.add(shift, log(one, total))


def _weights(b: Builder, kind: Kind, block: Value, index: Value, weight: int) -> tuple[Value, Value]:
    """(the address of all weights side by side as computed with, the address of their sum) in the scratch."""
    room = at(b, word(b, block, SCRATCH), b.mul(index, word(b, block, STRIDE)))
    row = Row(b, kind, block, [])
    one = row.one
    values = b.add(room, i64(64))
    one.store(one.zero, pointer(b, room))
    with loop(b, 0, word(b, block, CLASSES)) as (c, _):
        if kind.weight:
            place = at(b, word(b, block, weight), b.mul(c, word(b, block, WEIGHT_STEP)))
            value = read(one, pointer(b, place), kind.stored)
        else:
            value = one.constant(1.0)
        one.store(value, pointer(b, at(b, values, b.mul(c, i64(kind.size)))))
        one.store(one.add(one.load(pointer(b, room)), value), pointer(b, room))
    return values, room


def emit_cross_entropy(b: Builder, block: Value, index: Value, key: tuple[Any, ...], smooth: bool) -> None:
    """x, target, weight -> losses, logsumexp, weights."""
    kind = Kind(*key)
    values = _weights(b, kind, block, index, 2)[0] if smooth else None

    def each(row: Row) -> None:
        one, v = row.one, row.v
        total = _logsumexp(row, 0)
        label, inside = row.label(1)
        ignored = row.ignored(1)
        weight = row.picked(row.weight_of(2, label), inside)
        score = row.score(0, label)
        loss = one.mul(weight, one.sub(total, score))
        if smooth:

            def add(c: Value, acc: Any, mask: Value | None) -> Any:
                each_weight = row.held_weights(values, c, mask)
                far = v.sub(row.splat(total), row.scores(0, c, mask))
                return [v.fma(each_weight, far, acc[0])]

            spread = row.joined(row.sweep([v.zero], add), v.add)
            spread = row.picked(spread, inside)
            loss = one.fma(_constant(row, SHARE), spread, one.mul(_constant(row, SMOOTHING), loss))
        row.put(b.select(ignored, one.zero, loss), 3, kind.stored)
        row.put(total, 4, kind.dtype)
        row.put(b.select(ignored, one.zero, weight), 5, kind.stored)

    each_row(b, kind, block, index, each)


def emit_cross_entropy_grad(
    b: Builder, block: Value, index: Value, key: tuple[Any, ...], smooth: bool
) -> None:
    """dloss, x, target, weight, logsumexp -> dx."""
    kind = Kind(*key)
    values, whole = _weights(b, kind, block, index, 3) if smooth else (None, None)

    def each(row: Row) -> None:
        one, v = row.one, row.v
        label, inside = row.label(2)
        ignored = row.ignored(2)
        out = row.splat_bit(ignored)
        dloss = row.picked(row.number(0, kind.stored), inside)
        own = row.weight_of(3, label)
        mass, given = own, None
        if smooth:
            own = one.mul(_constant(row, SMOOTHING), own)
            mass = one.fma(_constant(row, SHARE), one.broadcast(pointer(b, whole)), own)
            given = row.splat(one.mul(_constant(row, SHARE), dloss))
        total, scale = row.number(4, kind.dtype), one.mul(dloss, mass)
        far, factor = row.splat(total), row.splat(scale)
        # Read before anything is written: dx may be where x is.
        score = row.score(1, label)

        def slope(c: Value, acc: Any, mask: Value | None) -> Any:
            # Not below zero where the logsumexp is not that of these scores.
            value = v.mul(exp(v, v.sub(row.scores(1, c, mask), far)), factor)
            if given is not None:
                value = v.sub(value, v.mul(row.held_weights(values, c, mask), given))
            row.put_scores(v.select(out, v.zero, value), 5, c, mask)
            return []

        row.sweep([], slope)
        # The label's element again, from its score: what was written is rounded in 16 bits.
        value = one.mul(exp(one, one.sub(score, total)), scale)
        if smooth:
            share = one.mul(_constant(row, SHARE), dloss)
            value = one.sub(value, one.mul(row.held_weight_of(values, label), share))
        value = one.sub(value, one.mul(dloss, own))
        row.put_at(b.select(ignored, one.zero, value), 5, label)

    each_row(b, kind, block, index, each)


def _zeros(row: Row, array: int) -> Any:
    """What a sweep does that writes zeros."""

    def zero(c: Value, acc: Any, mask: Value | None) -> Any:
        row.put_scores(row.v.zero, array, c, mask)
        return []

    return zero


def emit_nll_loss(b: Builder, block: Value, index: Value, key: tuple[Any, ...]) -> None:
    """x, target, weight -> losses, weights."""
    kind = Kind(*key)

    def each(row: Row) -> None:
        one = row.one
        label, inside = row.label(1)
        weight = row.picked(row.weight_of(2, label), inside)
        loss = one.negative(one.mul(weight, row.score(0, label)))
        ignored = row.ignored(1)
        row.put(b.select(ignored, one.zero, loss), 3, kind.stored)
        row.put(b.select(ignored, one.zero, weight), 4, kind.stored)

    each_row(b, kind, block, index, each)


def emit_nll_loss_grad(b: Builder, block: Value, index: Value, key: tuple[Any, ...]) -> None:
    """dloss, target, weight -> dx."""
    kind = Kind(*key)

    def each(row: Row) -> None:
        one = row.one
        row.sweep([], _zeros(row, 3))
        label, inside = row.label(1)
        weight = row.picked(row.weight_of(2, label), inside)
        value = one.negative(one.mul(weight, row.number(0, kind.stored)))
        row.put_at(b.select(row.ignored(1), one.zero, value), 3, label)

    each_row(b, kind, block, index, each)


def _short(row: Row, x: int, label: Value) -> Any:
    """`short(c, mask)`: max(0, margin - x[label] + x) of a vector of classes; 0 at the label."""
    b, v = row.b, row.v
    base = row.splat(row.one.sub(_constant(row, MARGIN), row.score(x, label)))

    def short(c: Value, mask: Value | None) -> Value:
        value = v.add(base, row.scores(x, c, mask))
        value = v.select(v.compare("<", value, v.zero), v.zero, value)
        if mask is not None:
            value = v.select(mask, value, v.zero)
        # Lane l is the label's where l = label - c.
        far = b.sub(label, c)
        mine = b.and_(v.tail_mask(b.add(far, i64(1))), b.not_(v.tail_mask(far)))
        return v.select(mine, v.zero, value)

    return short


def emit_multi_margin(b: Builder, block: Value, index: Value, key: tuple[Any, ...], p: int) -> None:
    """x, target, weight -> losses."""
    kind = Kind(*key)

    def each(row: Row) -> None:
        one, v = row.one, row.v
        label, inside = row.label(1)
        short = _short(row, 0, label)

        def add(c: Value, acc: Any, mask: Value | None) -> Any:
            value = short(c, mask)
            return [v.add(acc[0], value) if p == 1 else v.fma(value, value, acc[0])]

        total = row.joined(row.sweep([v.zero], add), v.add)
        scale = one.mul(row.picked(row.weight_of(2, label), inside), _constant(row, MARGIN + 1))
        row.put(one.mul(total, scale), 3, kind.stored)

    each_row(b, kind, block, index, each)


def emit_multi_margin_grad(b: Builder, block: Value, index: Value, key: tuple[Any, ...], p: int) -> None:
    """dloss, x, target, weight -> dx."""
    kind = Kind(*key)

    def each(row: Row) -> None:
        one, v = row.one, row.v
        label, inside = row.label(2)
        short = _short(row, 1, label)
        scale = one.mul(row.picked(row.weight_of(3, label), inside), _constant(row, MARGIN + 1))
        scale = one.mul(scale, row.number(0, kind.stored))
        if p == 2:
            scale = one.mul(scale, one.constant(2.0))
        factor = row.splat(scale)

        def slope(c: Value, acc: Any, mask: Value | None) -> Any:
            value = short(c, mask)
            if p == 1:
                # NaN is no distance that is large enough.
                value = v.select(b.fcmp_unordered("!=", value, v.zero), v.constant(1.0), v.zero)
            row.put_scores(v.mul(value, factor), 4, c, mask)
            return [v.add(acc[0], value)]

        total = row.joined(row.sweep([v.zero], slope), v.add)
        row.put_at(one.negative(one.mul(total, scale)), 4, label)

    each_row(b, kind, block, index, each)
