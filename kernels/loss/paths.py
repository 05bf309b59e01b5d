"""The tasks of CTC: sums over all alignments, the states of a target side by side in vectors.

    forward     a[t, s] = log(e^a[t-1, s] + e^a[t-1, s-1] + e^a[t-1, s-2]) + p[t, l'_s]
    backward    b[t, s] = log(e^b[t+1, s] + e^b[t+1, s+1] + e^b[t+1, s+2]) + p[t, l'_s]
    gradient    dp[t, c] = -dloss sum over l'_s = c of exp(a[t, s] + b[t, s] - p[t, c] + loss)

The state two places away counts where it is another label. A sequence at a time. Rows of states have room
for a vector before and behind them that holds minus infinity, so that neighbours are read without looking;
the scores of the states are gathered one by one, all exponentials are taken by whole vectors. The loss needs
two rows of a; the gradient keeps all of them, and two of b.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from llvmlite import ir
from numba.core import cgutils

from ..cpu.vector_ir import I32, I64, Vectors, i64, pointer
from ..cpu.vector_math import exp, exp_of_negative, log
from .frame import at, load_label, loop, word

Builder: TypeAlias = Any  # an ir.IRBuilder
Value: TypeAlias = Any  # an ir.Value
ARRAYS = 6
(DLOSS, PROBS, TARGETS, STEPS, LENGTHS, OUT, SCRATCH) = range(7)
(N, TASKS, CLASSES, BLANK, ZERO_INFINITY, ROW, STRIDE, IN_A_ROW, T) = range(7, 16)
(P_T, P_N, P_C, L_N, L_S, I_N, T_N, D_N, O_T, O_N, O_C) = range(16, 27)
MOST, LONGEST = 27, 28
WORDS = 29
PARTS = 3
"""Rows in the scratch before those of a: labels, skips, gathered scores."""


class Kind(NamedTuple):
    """What the tasks are told apart by: the dtype, elements a vector, and the dtypes of the integers."""

    dtype: str
    lanes: int
    targets: str
    steps: str
    lengths: str

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return 8 if self.dtype == "float64" else 4


class Sequence:
    """One sequence of a call: its sizes, and the rows that a task works with."""

    def __init__(self, b: Builder, kind: Kind, block: Value, room: Value, i: Value):
        self.b, self.kind, self.i = b, kind, i
        self.w = {name: word(b, block, place) for name, place in _NAMED.items()}
        w = self.w
        self.one, self.v = Vectors(b, kind.dtype, 1), Vectors(b, kind.dtype, kind.lanes)
        self.steps = self._limited(load_label(b, self._at("steps", "i_n"), kind.steps), w["t"])
        self.length = self._limited(load_label(b, self._at("lengths", "t_n"), kind.lengths), w["longest"])
        self.states = b.add(b.mul(self.length, i64(2)), i64(1))
        # A row starts with a vector of minus infinity; places are counted from behind it.
        margin = i64(kind.lanes * kind.size)
        rows = [at(b, room, b.mul(w["row"], i64(place)), margin) for place in range(PARTS + 1)]
        self.labels, self.skips, self.scores, self.first = rows
        self.probs = b.add(w["probs"], b.mul(i, w["p_n"]))

    def _at(self, array: str, step: str) -> Value:
        return pointer(self.b, at(self.b, self.w[array], self.b.mul(self.i, self.w[step])))

    def _limited(self, value: Value, most: Value) -> Value:
        """`value` within 0 .. most."""
        b = self.b
        value = b.select(b.icmp_signed("<", value, most), value, most)
        return b.select(b.icmp_signed("<", value, i64(0)), i64(0), value)

    def row(self, t: Value) -> Value:
        """Where a[t, 0] is."""
        return at(self.b, self.first, self.b.mul(t, self.w["row"]))

    def place(self, base: Value, s: Value) -> Value:
        """A pointer to element s of a row of numbers."""
        return pointer(self.b, at(self.b, base, self.b.mul(s, i64(self.kind.size))))

    def label(self, s: Value) -> Value:
        """l'_s, laid out by `prepare`: as an integer of the size of a number."""
        value = self.b.load(self.place(self.labels, s), typ=ir.IntType(8 * self.kind.size))
        return value if self.kind.size == 8 else self.b.sext(value, I64)

    def prepare(self) -> None:
        """Lays out the labels between blanks, and where a state may be skipped; fills margins."""
        b, one, w = self.b, self.one, self.w
        integer = ir.IntType(8 * self.kind.size)
        begin = cgutils.alloca_once_value(b, i64(0))
        b.store(i64(0), begin)
        with b.if_then(b.icmp_signed("!=", w["in_a_row"], i64(0))), loop(b, 0, self.i) as (j, _):
            place = pointer(b, at(b, w["lengths"], b.mul(j, w["t_n"])))
            more = load_label(b, place, self.kind.lengths)
            b.store(b.add(b.load(begin, typ=I64), more), begin)
        targets, begun = at(b, w["targets"], b.mul(self.i, w["l_n"])), b.load(begin, typ=I64)
        blank = w["blank"] if self.kind.size == 8 else b.trunc(w["blank"], integer)
        with loop(b, 0, self.states) as (s, _):
            b.store(blank, self.place(self.labels, s))
            one.store(one.constant(-math.inf), self.place(self.skips, s))
        with loop(b, 0, self.length) as (j, _):
            # Lengths that are not those of the targets read the last label, and nothing past it.
            number = self._limited(b.add(begun, j), b.sub(w["most"], i64(1)))
            label = load_label(b, pointer(b, at(b, targets, b.mul(number, w["l_s"]))), self.kind.targets)
            inside = b.and_(b.icmp_signed(">=", label, i64(0)), b.icmp_signed("<", label, w["classes"]))
            label = b.select(inside, label, w["blank"])
            s = b.add(b.mul(j, i64(2)), i64(1))
            b.store(label if self.kind.size == 8 else b.trunc(label, integer), self.place(self.labels, s))
            with b.if_then(b.icmp_signed(">", j, i64(0))):
                before = self.label(b.sub(s, i64(2)))
                free = b.and_(b.icmp_signed("!=", label, before), b.icmp_signed("!=", label, w["blank"]))
                value = one.select(free, one.zero, one.constant(-math.inf))
                one.store(value, self.place(self.skips, s))

    def empty(self, base: Value) -> None:
        """A row of minus infinity, margins and all."""
        margin = i64(self.kind.lanes * self.kind.size)
        with loop(self.b, 0, self.w["row"], self.kind.lanes * self.kind.size) as (i, _):
            place = pointer(self.b, at(self.b, self.b.sub(base, margin), i))
            self.v.store(self.v.constant(-math.inf), place)

    def gather(self, t: Value) -> None:
        """The scores of all states at time t."""
        b, one = self.b, self.one
        line = at(b, self.probs, b.mul(t, self.w["p_t"]))
        with loop(b, 0, self.states) as (s, _):
            place = pointer(b, at(b, line, b.mul(self.label(s), self.w["p_c"])))
            one.store(one.load(place), self.place(self.scores, s))

    def advance(self, old: Value, new: Value, direction: int) -> None:
        """A row of a (direction -1: from the states before) or of b (1: from those behind)."""
        b, v = self.b, self.v
        lowest = v.constant(-math.inf)
        with loop(b, 0, self.states, self.kind.lanes) as (s, _):
            terms = [v.load(self.place(old, b.add(s, i64(direction * k)))) for k in range(3)]
            # Whether s may be skipped to, or, backwards, the state two places on.
            skips = v.load(self.place(self.skips, b.add(s, i64(2)) if direction > 0 else s))
            terms[2] = v.add(terms[2], skips)
            most = terms[0]
            for term in terms[1:]:
                most = v.select(v.compare(">", term, most), term, most)
            shift = v.select(v.compare("==", most, lowest), v.zero, most)
            total = v.zero
            for term in terms:
                total = v.add(total, exp_of_negative(v, v.sub(term, shift)))
            value = v.add(v.add(shift, log(v, total)), v.load(self.place(self.scores, s)))
            there = v.tail_mask(b.sub(self.states, s))
            v.store(v.select(there, value, lowest), self.place(new, s))

    def end(self, last: Value) -> Value:
        """The loss, from the last row of a: minus the logarithm of the likelihood, as a vector of one."""
        b, one = self.b, self.one
        x = one.load(self.place(last, b.sub(self.states, i64(1))))
        y = one.load(self.place(last, b.sub(self.states, i64(2))))  # the margin, for an empty target
        most = one.select(one.compare(">", x, y), x, y)
        shift = one.select(one.compare("==", most, one.constant(-math.inf)), one.zero, most)
        total = one.add(exp(one, one.sub(x, shift)), exp(one, one.sub(y, shift)))
        return one.negative(one.add(shift, log(one, total)))

    def start(self, row: Value, t: Value, forwards: bool) -> None:
        """The first row of a, or of b: its two outer states."""
        b, one = self.b, self.one
        self.empty(row)
        self.gather(t)
        places = (i64(0), i64(1)) if forwards else (b.sub(self.states, i64(1)), b.sub(self.states, i64(2)))
        one.store(one.load(self.place(self.scores, places[0])), self.place(row, places[0]))
        with b.if_then(b.icmp_signed(">", self.length, i64(0))):
            one.store(one.load(self.place(self.scores, places[1])), self.place(row, places[1]))

    def forward(self, keep: bool) -> Value:
        """All of a; returns the address of its last row."""
        b = self.b

        def row(t: Value) -> Value:
            return self.row(t if keep else b.and_(t, i64(1)))

        for place in (self.skips, self.scores):
            self.empty(place)
        self.prepare()
        self.start(row(i64(0)), i64(0), True)
        with loop(b, 1, self.steps) as (t, _):
            new = row(t)
            self.empty(new)
            self.gather(t)
            self.advance(row(b.sub(t, i64(1))), new, -1)
        return row(b.sub(self.steps, i64(1)))


def _each(b: Builder, kind: Kind, block: Value, index: Value, body: Any) -> None:
    n, tasks = word(b, block, N), word(b, block, TASKS)
    room = at(b, word(b, block, SCRATCH), b.mul(index, word(b, block, STRIDE)))
    first = b.sdiv(b.mul(index, n), tasks)
    end = b.sdiv(b.mul(b.add(index, i64(1)), n), tasks)
    with loop(b, first, end) as (i, _):
        body(Sequence(b, kind, block, room, i))


def emit_loss(b: Builder, block: Value, index: Value, key: tuple[Any, ...]) -> None:
    """log_probs, targets, input_lengths, target_lengths -> losses."""
    kind = Kind(*key)

    def each(q: Sequence) -> None:
        one = q.one
        found = cgutils.alloca_once(b, one.type)
        # Without a step, only an empty target is possible.
        impossible = b.icmp_signed(">", q.length, i64(0))
        one.store(one.select(impossible, one.constant(math.inf), one.zero), found)
        with b.if_then(b.icmp_signed(">", q.steps, i64(0))):
            one.store(q.end(q.forward(keep=False)), found)
        loss = one.load(found)
        zero = b.icmp_signed("!=", q.w["zero_infinity"], i64(0))
        infinite = one.compare("==", loss, one.constant(math.inf))
        infinite = b.and_(b.extract_element(infinite, ir.Constant(I32, 0)), zero)
        loss = b.select(infinite, one.zero, loss)
        one.store(loss, pointer(b, at(b, q.w["out"], b.mul(q.i, q.w["o_n"]))))

    _each(b, kind, block, index, each)


def emit_grad(b: Builder, block: Value, index: Value, key: tuple[Any, ...]) -> None:
    """dloss, log_probs, targets, input_lengths, target_lengths -> the gradient of log_probs."""
    kind = Kind(*key)

    def each(q: Sequence) -> None:
        one, w = q.one, q.w
        out = at(b, w["out"], b.mul(q.i, w["o_n"]))

        def slot(t: Value, c: Value) -> Value:
            return pointer(b, at(b, out, b.mul(t, w["o_t"]), b.mul(c, w["o_c"])))

        def fill(low: Value, high: Value, value: Value) -> None:
            with loop(b, low, high) as (t, _), loop(b, 0, w["classes"]) as (c, _):
                one.store(value, slot(t, c))

        fill(i64(0), w["t"], one.zero)
        with b.if_then(b.icmp_signed(">", q.steps, i64(0))):
            loss = q.end(q.forward(keep=True))
            infinite = b.extract_element(one.compare("==", loss, one.constant(math.inf)), ir.Constant(I32, 0))
            with b.if_else(infinite) as (impossible, possible):
                with impossible, b.if_then(b.icmp_signed("==", w["zero_infinity"], i64(0))):
                    fill(i64(0), q.steps, one.constant(math.nan))
                with possible:
                    _back(q, loss, slot)

    def _back(q: Sequence, loss: Value, slot: Any) -> None:
        one, v, w = q.one, q.v, q.w
        dloss = one.load(pointer(b, at(b, w["dloss"], b.mul(q.i, w["d_n"]))))
        far = v.splat(b.extract_element(loss, ir.Constant(I32, 0)))
        with loop(b, 0, q.steps) as (back, _):
            t = b.sub(b.sub(q.steps, i64(1)), back)
            # Two rows of b, behind those of a, in turns.
            new = q.row(b.add(w["t"], b.and_(back, i64(1))))
            old = q.row(b.add(w["t"], b.and_(b.add(back, i64(1)), i64(1))))
            with b.if_else(b.icmp_signed("==", back, i64(0))) as (begin, on):
                with begin:
                    q.start(new, t, False)
                with on:
                    q.empty(new)
                    q.gather(t)
                    q.advance(old, new, 1)
            row = q.row(t)
            with loop(b, 0, q.states, kind.lanes) as (s, _):
                score = v.load(q.place(q.scores, s))
                both = v.add(v.load(q.place(row, s)), v.load(q.place(new, s)))
                share = exp(v, v.add(v.sub(both, score), far))
                # A score of minus infinity: nothing goes through, and no gradient comes back.
                share = v.select(v.compare("==", score, v.constant(-math.inf)), v.zero, share)
                v.store(share, q.place(row, s))
            with loop(b, 0, q.states) as (s, _):
                place = slot(t, q.label(s))
                one.store(one.sub(one.load(place), one.mul(dloss, one.load(q.place(row, s)))), place)

    _each(b, kind, block, index, each)


_NAMED = {
    "dloss": DLOSS,
    "probs": PROBS,
    "targets": TARGETS,
    "steps": STEPS,
    "lengths": LENGTHS,
    "out": OUT,
    "classes": CLASSES,
    "blank": BLANK,
    "zero_infinity": ZERO_INFINITY,
    "row": ROW,
    "in_a_row": IN_A_ROW,
    "t": T,
    "p_t": P_T,
    "p_n": P_N,
    "p_c": P_C,
    "l_n": L_N,
    "l_s": L_S,
    "i_n": I_N,
    "t_n": T_N,
    "d_n": D_N,
    "o_t": O_T,
    "o_n": O_N,
    "o_c": O_C,
    "most": MOST,
    "longest": LONGEST,
}
