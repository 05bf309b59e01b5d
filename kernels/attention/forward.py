"""The task of attention: blocks of queries against blocks of keys, with sums that follow a running maximum.

    for unit in blocks of queries of all heads              a task has a run of them
      turn the queries: Q^T [E x queries], scaled
      for block of keys:
        S^T [keys x queries] = K Q^T                        K read in place, by broadcasts
        S^T += mask;  keys after the query: -inf
        m' = max(m, columns of S^T);  P^T = exp(S^T - m');  l = l exp(m - m') + sums of columns of P^T
        O [queries x Ev] = O exp(m - m') + P V              V read in place, by vectors
      out = O / l,  logsumexp = m + log l

(Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention",
2022.)
What is in the nearest caches: Q^T, a block of S^T, O, and the block of K and V that is being read. No buffer
grows with L S. Where K or V have features that are not side by side, or 16-bit numbers, or Ev is no whole
number of vectors, a task lays the rows of a head out in its scratch first.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba.core import cgutils

from ..cpu.narrow import stored_bytes, write
from ..cpu.vector_ir import I64, Vectors, counted_loop, i64, minimum, offset, pointer
from ..cpu.vector_math import exp_of_negative, log
from . import few
from .products import Product, Products, Wide, scores_product, wide_product
from .routines import (
    Builder,
    Kind,
    Value,
    allowed_lanes,
    at,
    lay,
    loop,
    mask_panel,
    routine,
    turn,
    word,
)

# The words of a block: six arrays, the scratch, then these. Steps and places are bytes.
QUERY, KEY, VALUE, MASK, OUT, TOTAL, SCRATCH = range(7)
(TABLE, UNITS, TASKS, GROUP, L, S, E, EV, BLOCKS, BC, SCALE) = range(7, 18)
(Q_RS, Q_CS, K_RS, K_CS, V_RS, V_CS, M_RS, M_CS, O_RS, T_RS) = range(18, 28)
(STRIDE, PANEL, SCORES, MASKS, SUMS, STATE, ROWS_Q, ROWS_K, ROWS_V) = range(28, 37)
(SUMS_RS, ROWS_Q_RS, ROWS_K_RS, ROWS_V_RS) = range(37, 41)
WORDS = 41
# The words of a head in the table: where its part of each array is.
HEAD_WORDS = 6


class Form(NamedTuple):
    """What tells one forward task from another, beside its Kind.

    Attributes:
        vectors: of a row of values.
        lay_q, lay_k, lay_v: which operands are laid out in the scratch first.
        mask: the mask's dtype, or "".
        way: how the mask lies (`routines.mask_panel`).
        causal: whether later keys take no part.
        few: the number of queries, where they are so few that `few.py` computes the products; else 0.
    """

    vectors: int
    lay_q: bool
    lay_k: bool
    lay_v: bool
    mask: str
    way: str
    causal: bool
    few: int


# Where a panel's numbers are in its state, in rows of a panel.
MOST, SUM, FADE, INVERSE, LOG = range(5)
STATE_ROWS = 5


def products(kind: Kind, form: Form) -> tuple[Product, Wide]:
    """The products of a task: for scores, and for the sums of values."""
    weighted = wide_product(kind, form.vectors, turned=True, onto="scaled", fixed=kind.rows)
    return scores_product(kind), weighted


def product_keys(kind: Kind, form: Form) -> tuple[Product, ...]:
    """The products whose addresses follow the words of a block, in order."""
    points, weighted = products(kind, form)
    return () if form.few else tuple(dict.fromkeys([points, *(key for _, key in weighted)]))


def soften(kind: Kind, builder: Builder, form: Form) -> Any:
    """`soften(b, scores, masks, state, first, c0, n)`: scores of n keys become exponentials, in place.

    `first` and `c0` are the numbers of the first query and the first key.
    """

    def body(b: Builder, *args: Value) -> None:
        scores, masks, state, first, c0, n = args
        v = Vectors(b, kind.dtype, kind.lanes)
        lanes = range(kind.panel)

        def place(row: int, j: int) -> Value:
            return pointer(b, at(b, state, row * kind.row_bytes + j * v.nbytes))

        lowest = v.constant(-math.inf)
        old = [v.load(place(MOST, j)) for j in lanes]

        def largest(causal: bool) -> list[Value]:
            changed = bool(form.mask) or causal

            def row(carried: Any) -> Any:
                line, hidden, c = carried[:3]
                most = list(carried[3:])
                for j in lanes:
                    spot = offset(b, line, j * v.nbytes)
                    value = v.load(spot)
                    if form.mask:
                        adds = v.load(offset(b, hidden, j * v.nbytes))
                        value = v.select(v.compare("==", adds, lowest), lowest, v.add(value, adds))
                    if causal:
                        value = v.select(allowed_lanes(kind, v, first, c, j), value, lowest)
                    if changed:
                        v.store(value, spot)
                    most[j] = v.select(v.compare(">", value, most[j]), value, most[j])
                step = kind.row_bytes
                return [offset(b, line, step), offset(b, hidden, step), b.add(c, i64(1)), *most]

            start = [pointer(b, scores), pointer(b, masks), c0, *old]
            return counted_loop(b, n, start, row)[3:]

        def keep(values: list[Value]) -> None:
            for j in lanes:
                v.store(values[j], place(MOST, j))

        if form.causal:
            crosses = b.icmp_signed(">", b.add(c0, n), b.add(first, i64(1)))
            with b.if_else(crosses) as (diagonal, below):
                with diagonal:
                    keep(largest(True))
                with below:
                    keep(largest(False))
            most = [v.load(place(MOST, j)) for j in lanes]
        else:
            most = largest(False)
            keep(most)
        shift = [v.select(v.compare("==", m, lowest), v.zero, m) for m in most]

        def row(carried: Any) -> Any:
            line, sums = carried[0], list(carried[1:])
            for j in lanes:
                spot = offset(b, line, j * v.nbytes)
                value = exp_of_negative(v, v.sub(v.load(spot), shift[j]))
                v.store(value, spot)
                sums[j] = v.add(sums[j], value)
            return [offset(b, line, kind.row_bytes), *sums]

        sums = counted_loop(b, n, [pointer(b, scores), *[v.zero] * kind.panel], row)[1:]
        for j in lanes:
            fade = exp_of_negative(v, v.sub(old[j], shift[j]))
            v.store(fade, place(FADE, j))
            v.store(v.fma(v.load(place(SUM, j)), fade, sums[j]), place(SUM, j))

    return routine(builder, "soften", 6, body)


def start_state(kind: Kind, b: Builder, state: Value) -> None:
    """No key seen yet."""
    v = Vectors(b, kind.dtype, kind.lanes)
    for j in range(kind.panel):
        v.store(v.constant(-math.inf), pointer(b, at(b, state, MOST * kind.row_bytes + j * v.nbytes)))
        v.store(v.zero, pointer(b, at(b, state, SUM * kind.row_bytes + j * v.nbytes)))


def finish(kind: Kind, builder: Builder) -> Any:
    """`finish(b, state, sums, sums_rs, rows, n, out, out_rs, total, total_rs)`: a panel's rows of results."""
    width = stored_bytes(kind.stored)

    def body(b: Builder, *args: Value) -> None:
        state, sums, sums_rs, rows, n, out, out_rs, total, total_rs = args
        v, one = Vectors(b, kind.dtype, kind.lanes), Vectors(b, kind.dtype, 1)
        for j in range(kind.panel):
            most, weight, inverse, log_at = (
                pointer(b, at(b, state, row * kind.row_bytes + j * v.nbytes))
                for row in (MOST, SUM, INVERSE, LOG)
            )
            found = v.load(weight)
            nothing = v.compare("==", found, v.zero)
            v.store(v.select(nothing, v.zero, v.div(v.constant(1.0), found)), inverse)
            v.store(v.add(v.load(most), log(v, found)), log_at)
        with loop(b, 0, rows) as (i, _):
            lane = at(b, state, b.mul(i, i64(kind.size)))
            scale = v.broadcast(pointer(b, at(b, lane, INVERSE * kind.row_bytes)))
            one.store(
                one.load(pointer(b, at(b, lane, LOG * kind.row_bytes))),
                pointer(b, at(b, total, b.mul(i, total_rs))),
            )
            to, line = at(b, out, b.mul(i, out_rs)), at(b, sums, b.mul(i, sums_rs))
            with loop(b, 0, n, kind.lanes) as (e, _):
                value = v.mul(v.load(pointer(b, at(b, line, b.mul(e, i64(kind.size))))), scale)
                place = pointer(b, at(b, to, b.mul(e, i64(width))))
                write(v, value, place, kind.stored, v.tail_mask(b.sub(n, e)))

    return routine(builder, "finish", 9, body)


def emit(
    b: Builder, block: Value, index: Value, kind_key: tuple[Any, ...], form_key: tuple[Any, ...]
) -> None:
    """The body of the task."""
    kind, form = Kind(*kind_key), Form(*form_key)
    v = Vectors(b, kind.dtype, kind.lanes)
    w = {name: word(b, block, place) for name, place in _NAMED.items()}
    room = at(b, w["scratch"], b.mul(index, w["stride"]))
    panel, scores, masks, sums, state, rows_q, rows_k, rows_v = (
        at(b, room, w[name])
        for name in ("panel", "scores", "masks", "sums", "state", "rows_q", "rows_k", "rows_v")
    )
    points, weighted = products(kind, form)
    calls = Products(b, block, WORDS, product_keys(kind, form))
    softening, finishing = soften(kind, b, form), finish(kind, b)
    hiding = mask_panel(kind, b, form.mask, form.way) if form.mask else None
    held = cgutils.alloca_once_value(b, i64(-1))
    first = b.sdiv(b.mul(index, w["units"]), w["tasks"])
    end = b.sdiv(b.mul(b.add(index, i64(1)), w["units"]), w["tasks"])
    with loop(b, first, end) as (unit, _):
        head, part = b.sdiv(unit, w["blocks"]), b.srem(unit, w["blocks"])
        i0 = b.mul(part, i64(kind.rows))
        rows = minimum(b, i64(kind.rows), b.sub(w["l"], i0))
        table = at(b, w["table"], b.mul(head, i64(8 * HEAD_WORDS)))
        query, key, value, mask, out, total = (
            b.add(w[name], word(b, table, place))
            for place, name in enumerate(("query", "key", "value", "mask", "out", "total"))
        )
        query = at(b, query, b.mul(i0, w["q_rs"]))
        q_rs, k_rs, v_rs = w["q_rs"], w["k_rs"], w["v_rs"]
        if form.lay_q:
            lay(kind, b, kind.stored)(b, rows_q, w["rows_q_rs"], query, q_rs, w["q_cs"], rows, w["e"])
            query, q_rs = rows_q, w["rows_q_rs"]
        if not form.few:
            queries = turn(kind, b, kind.dtype if form.lay_q else kind.stored)
            queries(b, panel, query, q_rs, rows, w["e"], at(b, block, 8 * SCALE))
        if form.lay_k or form.lay_v:
            shared = b.sdiv(head, w["group"])
            with b.if_then(b.icmp_signed("!=", shared, b.load(held, typ=I64))):
                b.store(shared, held)
                laying = lay(kind, b, kind.stored)
                if form.lay_k:
                    laying(b, rows_k, w["rows_k_rs"], key, k_rs, w["k_cs"], w["s"], w["e"])
                if form.lay_v:
                    laying(b, rows_v, w["rows_v_rs"], value, v_rs, w["v_cs"], w["s"], w["ev"])
        if form.lay_k:
            key, k_rs = rows_k, w["rows_k_rs"]
        if form.lay_v:
            value, v_rs = rows_v, w["rows_v_rs"]
        start_state(kind, b, state)
        limit = minimum(b, w["s"], b.add(i0, rows)) if form.causal else w["s"]
        with b.if_then(b.icmp_signed("==", limit, i64(0))), loop(b, 0, kind.rows) as (i, _):
            for j in range(form.vectors):
                v.store(v.zero, pointer(b, at(b, sums, b.mul(i, w["sums_rs"]), j * v.nbytes)))
        blocks = b.sdiv(b.sub(b.add(limit, w["bc"]), i64(1)), w["bc"])
        with loop(b, 0, blocks) as (place, _):
            c0 = b.mul(place, w["bc"])
            n = minimum(b, w["bc"], b.sub(limit, c0))
            row, key_at = kind.row_bytes, at(b, key, b.mul(c0, k_rs))
            if form.few:
                stored = kind.dtype if form.lay_k else kind.stored
                dots = few.scores(kind, b, stored, form.few)
                dots(b, n, w["e"], key_at, k_rs, query, q_rs, at(b, block, 8 * SCALE), scores)
            else:
                calls.call(b, points, n, w["e"], key_at, k_rs, panel, row, scores, row, 0)
            if hiding is not None:
                start = at(b, mask, b.mul(i0, w["m_rs"]), b.mul(c0, w["m_cs"]))
                hiding(b, masks, start, w["m_rs"], w["m_cs"], rows, n)
            softening(b, scores, masks, state, i0, c0, n)
            fade = at(b, state, FADE * row)
            fade = b.select(b.icmp_signed("==", c0, i64(0)), i64(0), fade)
            where = at(b, value, b.mul(c0, v_rs))
            if form.few:
                stored = kind.dtype if form.lay_v else kind.stored
                adding = few.weighted(kind, b, stored, form.few, form.vectors)
                adding(b, n, w["ev"], scores, where, v_rs, sums, w["sums_rs"], fade)
            else:
                calls.wide(b, weighted, kind.rows, n, scores, row, where, v_rs, sums, w["sums_rs"], fade)
        to, to_total = at(b, out, b.mul(i0, w["o_rs"])), at(b, total, b.mul(i0, w["t_rs"]))
        finishing(b, state, sums, w["sums_rs"], rows, w["ev"], to, w["o_rs"], to_total, w["t_rs"])


_NAMED = {
    "query": QUERY,
    "key": KEY,
    "value": VALUE,
    "mask": MASK,
    "out": OUT,
    "total": TOTAL,
    "scratch": SCRATCH,
    "table": TABLE,
    "units": UNITS,
    "tasks": TASKS,
    "group": GROUP,
    "l": L,
    "s": S,
    "e": E,
    "ev": EV,
    "blocks": BLOCKS,
    "bc": BC,
    "q_rs": Q_RS,
    "q_cs": Q_CS,
    "k_rs": K_RS,
    "k_cs": K_CS,
    "v_rs": V_RS,
    "v_cs": V_CS,
    "m_rs": M_RS,
    "m_cs": M_CS,
    "o_rs": O_RS,
    "t_rs": T_RS,
    "stride": STRIDE,
    "panel": PANEL,
    "scores": SCORES,
    "masks": MASKS,
    "sums": SUMS,
    "state": STATE,
    "rows_q": ROWS_Q,
    "rows_k": ROWS_K,
    "rows_v": ROWS_V,
    "sums_rs": SUMS_RS,
    "rows_q_rs": ROWS_Q_RS,
    "rows_k_rs": ROWS_K_RS,
    "rows_v_rs": ROWS_V_RS,
}
