"""The tasks of attention's gradients: probabilities are computed again, block by block.

    for unit in (head of key and value, run of keys)          a task has some of them
      for block of queries of each head of query that shares them:
        turn the queries, scaled, and the gradients of their results: Q^T, dO^T
        D = sum over features of dO O (less the gradient of the logsumexp)
        for block of keys in the run:
          S^T [keys x queries] = K Q^T (+ mask),  P^T = exp(S^T - logsumexp)
          dS^T = P^T (V dO^T - D) scale
          dV [keys x Ev] += P^T dO       dK [keys x E] += dS^T Q       dQ [queries x E] += dS K

(Dao et al., "FlashAttention", 2022, algorithm 4.) A unit adds up dK and dV of its keys in scratch, in one
order whatever the threads. Where there are fewer heads than threads, keys are cut into runs; then each run's
share of dQ goes to scratch of its own, and a second phase adds the shares up, again in one order.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba.core import cgutils

from ..cpu.narrow import stored_bytes, write
from ..cpu.vector_ir import I64, Vectors, counted_loop, i64, minimum, offset, pointer
from ..cpu.vector_math import exp_of_negative
from .products import Product, Products, Wide, scores_product, wide_product
from .routines import (
    GRAIN,
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
    unlay,
    word,
)

ARRAYS = 11
(QUERY, KEY, VALUE, MASK, OUT, TOTAL, DOUT, DTOTAL, DQ, DK, DV, SCRATCH) = range(12)
HEAD_WORDS = ARRAYS
_NAMES = (
    *(
        "table",
        "units",
        "tasks",
        "group",
        "runs",
        "run",
        "l",
        "s",
        "e",
        "ev",
        "blocks",
        "bc",
        "scale",
        "heads",
    ),
    *("q_rs", "q_cs", "k_rs", "k_cs", "v_rs", "v_cs", "m_rs", "m_cs", "o_rs", "o_cs", "g_rs", "g_cs"),
    *(
        "t_rs",
        "dt_rs",
        "dq_rs",
        "dk_rs",
        "dv_rs",
        "stride",
        "panel_q",
        "panel_g",
        "scores",
        "slopes",
        "masks",
    ),
    *("state", "rows_q", "rows_g", "rows_o", "rows_k", "rows_v", "sums_q", "sums_k", "sums_v", "shares"),
    *("share", "row_e", "row_ev"),
)
PLACES = {name: SCRATCH + 1 + place for place, name in enumerate(_NAMES)}
"""Where the words of a block are, by name; steps and places are bytes."""
WORDS = SCRATCH + 1 + len(_NAMES)


class Form(NamedTuple):
    """What tells one backward task from another, beside its Kind.

    Attributes:
        vectors_e, vectors_ev: of a row of queries, and of values.
        lay_q, lay_k, lay_v, lay_o, lay_g: which operands are laid out in scratch first (g: dout).
        mask, way, causal: as in `forward.Form`.
        dtotal: whether the logsumexp has a gradient.
        runs: whether keys are cut into runs.
    """

    vectors_e: int
    vectors_ev: int
    lay_q: bool
    lay_k: bool
    lay_v: bool
    lay_o: bool
    lay_g: bool
    mask: str
    way: str
    causal: bool
    dtotal: bool
    runs: bool


def products(kind: Kind, form: Form) -> tuple[Product, Wide, Wide, Wide]:
    """The products of a task: for scores and their gradients, and for the sums of dK, dV and dQ."""
    onto_k, onto_v = (
        wide_product(kind, vectors, turned=False, onto="add") for vectors in (form.vectors_e, form.vectors_ev)
    )
    onto_q = wide_product(kind, form.vectors_e, turned=True, onto="add", fixed=kind.rows)
    return scores_product(kind), onto_k, onto_v, onto_q


def product_keys(kind: Kind, form: Form) -> tuple[Product, ...]:
    """The products whose addresses follow the words of a block, in order."""
    points, *wide = products(kind, form)
    return tuple(dict.fromkeys([points, *(key for some in wide for _, key in some)]))


# The rows of a panel's state: the logsumexp (infinite for queries that are not there), and D.
TOTALS, REST = range(2)
STATE_ROWS = 2


def _state(kind: Kind, builder: Builder, form: Form) -> Any:
    """`state(b, state, total, t_rs, dtotal, dt_rs, out, o_rs, g, g_rs, rows, n)`: logsumexp and D."""

    def body(b: Builder, *args: Value) -> None:
        state, total, t_rs, dtotal, dt_rs, out, o_rs, g, g_rs, rows, n = args
        v, one = Vectors(b, kind.dtype, kind.lanes), Vectors(b, kind.dtype, 1)
        for j in range(kind.panel):
            v.store(v.constant(math.inf), pointer(b, at(b, state, TOTALS * kind.row_bytes + j * v.nbytes)))
            v.store(v.zero, pointer(b, at(b, state, REST * kind.row_bytes + j * v.nbytes)))
        with loop(b, 0, rows) as (i, _):
            lane = at(b, state, b.mul(i, i64(kind.size)))
            value = one.load(pointer(b, at(b, total, b.mul(i, t_rs))))
            # A row without a pair that takes part: its probabilities are 0.
            none = one.compare("==", value, one.constant(-math.inf))
            one.store(one.select(none, one.constant(math.inf), value), pointer(b, lane))
            lines = [pointer(b, at(b, base, b.mul(i, step))) for base, step in ((out, o_rs), (g, g_rs))]

            def step(carried: Any) -> Any:
                x, y, acc, left = carried
                mask = v.tail_mask(left)
                acc = v.fma(v.load_masked(x, mask), v.load_masked(y, mask), acc)
                return [offset(b, x, v.nbytes), offset(b, y, v.nbytes), acc, b.sub(left, i64(kind.lanes))]

            count = b.sdiv(b.add(n, i64(kind.lanes - 1)), i64(kind.lanes))
            found = v.sum(counted_loop(b, count, [*lines, v.zero, n], step)[2])
            rest = one.splat(found)
            if form.dtotal:
                rest = one.sub(rest, one.load(pointer(b, at(b, dtotal, b.mul(i, dt_rs)))))
            one.store(rest, pointer(b, at(b, lane, REST * kind.row_bytes)))

    return routine(builder, "state", 11, body)


def _slopes(kind: Kind, builder: Builder, form: Form) -> Any:
    """`slopes(b, scores, slopes, masks, state, scale, first, c0, n)`: S^T -> P^T, dP^T -> dS^T."""

    def body(b: Builder, *args: Value) -> None:
        scores, slopes, masks, state, scale, first, c0, n = args
        v = Vectors(b, kind.dtype, kind.lanes)
        lanes = range(kind.panel)
        totals, rests = (
            [v.load(pointer(b, at(b, state, row * kind.row_bytes + j * v.nbytes))) for j in lanes]
            for row in (TOTALS, REST)
        )
        factor, lowest = v.broadcast(pointer(b, scale)), v.constant(-math.inf)

        def sweep(causal: bool) -> None:
            def row(carried: Any) -> Any:
                line, other, hidden, c = carried
                for j in lanes:
                    spot, slope = offset(b, line, j * v.nbytes), offset(b, other, j * v.nbytes)
                    value = v.load(spot)
                    if form.mask:
                        adds = v.load(offset(b, hidden, j * v.nbytes))
                        value = v.select(v.compare("==", adds, lowest), lowest, v.add(value, adds))
                    if causal:
                        value = v.select(allowed_lanes(kind, v, first, c, j), value, lowest)
                    p = exp_of_negative(v, v.sub(value, totals[j]))
                    v.store(p, spot)
                    v.store(v.mul(v.mul(p, factor), v.sub(v.load(slope), rests[j])), slope)
                step = kind.row_bytes
                return [
                    offset(b, line, step),
                    offset(b, other, step),
                    offset(b, hidden, step),
                    b.add(c, i64(1)),
                ]

            counted_loop(b, n, [pointer(b, scores), pointer(b, slopes), pointer(b, masks), c0], row)

        if not form.causal:
            sweep(False)
            return
        crosses = b.icmp_signed(">", b.add(c0, n), b.add(first, i64(1)))
        with b.if_else(crosses) as (diagonal, below):
            with diagonal:
                sweep(True)
            with below:
                sweep(False)

    return routine(builder, "slopes", 8, body)


def _zero(kind: Kind, builder: Builder) -> Any:
    """`zero(b, dst, nbytes)`: so many bytes, a whole number of vectors."""

    def body(b: Builder, *args: Value) -> None:
        v = Vectors(b, kind.dtype, kind.lanes)
        with loop(b, 0, args[1], kind.vector_bytes) as (i, _):
            v.store(v.zero, pointer(b, at(b, args[0], i)))

    return routine(builder, "zero", 2, body)


def emit(
    b: Builder, block: Value, index: Value, kind_key: tuple[Any, ...], form_key: tuple[Any, ...]
) -> None:
    """The body of the first phase's task."""
    kind, form = Kind(*kind_key), Form(*form_key)
    w = {name: word(b, block, place) for name, place in PLACES.items()}
    room = at(b, word(b, block, SCRATCH), b.mul(index, w["stride"]))
    places = (
        "panel_q",
        "panel_g",
        "scores",
        "slopes",
        "masks",
        "state",
        "rows_q",
        "rows_g",
        "rows_o",
        "rows_k",
    )
    r = {name: at(b, room, w[name]) for name in (*places, "rows_v", "sums_q", "sums_k", "sums_v")}
    first = b.sdiv(b.mul(index, w["units"]), w["tasks"])
    end = b.sdiv(b.mul(b.add(index, i64(1)), w["units"]), w["tasks"])
    laying, zero, narrow = lay(kind, b, kind.stored), _zero(kind, b), unlay(kind, b)
    calls = Products(b, block, WORDS, product_keys(kind, form))
    with loop(b, first, end) as (unit, _):
        shared, run = b.sdiv(unit, w["runs"]), b.srem(unit, w["runs"])
        low = b.mul(run, w["run"])
        high = minimum(b, w["s"], b.add(low, w["run"]))
        count = b.sub(high, low)
        table = at(b, w["table"], b.mul(b.mul(shared, w["group"]), i64(8 * HEAD_WORDS)))

        def part(place: int, table: Value = table) -> Value:
            return b.add(word(b, block, place), word(b, table, place))

        # From here on, keys are counted from the first of the run.
        key, k_rs = at(b, part(KEY), b.mul(low, w["k_rs"])), w["k_rs"]
        value, v_rs = at(b, part(VALUE), b.mul(low, w["v_rs"])), w["v_rs"]
        if form.lay_k:
            laying(b, r["rows_k"], w["row_e"], key, k_rs, w["k_cs"], count, w["e"])
            key, k_rs = r["rows_k"], w["row_e"]
        if form.lay_v:
            laying(b, r["rows_v"], w["row_ev"], value, v_rs, w["v_cs"], count, w["ev"])
            value, v_rs = r["rows_v"], w["row_ev"]
        zero(b, r["sums_k"], b.mul(count, w["row_e"]))
        zero(b, r["sums_v"], b.mul(count, w["row_ev"]))
        with loop(b, 0, b.mul(w["group"], w["blocks"])) as (step, _):
            head = b.add(b.mul(shared, w["group"]), b.sdiv(step, w["blocks"]))
            i0 = b.mul(b.srem(step, w["blocks"]), i64(kind.rows))
            _queries(kind, form, b, block, calls, w, r, (head, i0, run), (key, k_rs, value, v_rs, low, high))
        narrow(b, at(b, part(DK), b.mul(low, w["dk_rs"])), w["dk_rs"], r["sums_k"], w["row_e"], count, w["e"])
        narrow(
            b, at(b, part(DV), b.mul(low, w["dv_rs"])), w["dv_rs"], r["sums_v"], w["row_ev"], count, w["ev"]
        )


def _queries(
    kind: Kind,
    form: Form,
    b: Builder,
    block: Value,
    calls: Products,
    w: dict[str, Value],
    r: dict[str, Value],
    where: tuple[Value, Value, Value],
    keys: tuple[Value, ...],
) -> None:
    """One block of queries against a run of keys."""
    (head, i0, run), (key, k_rs, value, v_rs, low, high) = where, keys
    rows = minimum(b, i64(kind.rows), b.sub(w["l"], i0))
    table = at(b, w["table"], b.mul(head, i64(8 * HEAD_WORDS)))

    def part(place: int, step: str) -> Value:
        return at(b, word(b, block, place), word(b, table, place), b.mul(i0, w[step]))

    laying = lay(kind, b, kind.stored)
    operands = {}
    for name, place, width, laid in (
        ("q", QUERY, "e", form.lay_q),
        ("g", DOUT, "ev", form.lay_g),
        ("o", OUT, "ev", form.lay_o),
    ):
        base, step = part(place, f"{name}_rs"), w[f"{name}_rs"]
        if laid:
            laying(b, r[f"rows_{name}"], w[f"row_{width}"], base, step, w[f"{name}_cs"], rows, w[width])
            base, step = r[f"rows_{name}"], w[f"row_{width}"]
        operands[name] = base, step
    query, grad, result = operands["q"], operands["g"], operands["o"]
    dtotal = part(DTOTAL, "dt_rs") if form.dtotal else i64(0)
    total = part(TOTAL, "t_rs")
    _state(kind, b, form)(b, r["state"], total, w["t_rs"], dtotal, w["dt_rs"], *result, *grad, rows, w["ev"])
    turning, scale, row = turn(kind, b, kind.dtype), at(b, block, 8 * PLACES["scale"]), kind.row_bytes
    turning(b, r["panel_q"], *query, rows, w["e"], scale)
    one = cgutils.alloca_once_value(b, Vectors(b, kind.dtype, 1).constant(1.0))
    turning(b, r["panel_g"], *grad, rows, w["ev"], b.ptrtoint(one, I64))
    points, onto_k, onto_v, onto_q = products(kind, form)
    sloping = _slopes(kind, b, form)
    length = b.sub(high, low)
    if form.causal:
        # Whole tiles: the rows that a tile has too many must not be those of other keys.
        seen = b.add(b.sub(b.add(i0, rows), low), i64(GRAIN - 1))
        length = minimum(b, length, b.mul(b.sdiv(seen, i64(GRAIN)), i64(GRAIN)))
    blocks = b.sdiv(b.sub(b.add(length, w["bc"]), i64(1)), w["bc"])
    none = b.icmp_signed("<=", length, i64(0))
    with b.if_then(none):
        _zero(kind, b)(b, r["sums_q"], b.mul(i64(kind.rows), w["row_e"]))
    with loop(b, 0, blocks) as (place, _):
        c0 = b.mul(place, w["bc"])
        n = minimum(b, w["bc"], b.sub(length, c0))
        key_at, value_at = at(b, key, b.mul(c0, k_rs)), at(b, value, b.mul(c0, v_rs))
        calls.call(b, points, n, w["e"], key_at, k_rs, r["panel_q"], row, r["scores"], row, 0)
        calls.call(b, points, n, w["ev"], value_at, v_rs, r["panel_g"], row, r["slopes"], row, 0)
        c = b.add(low, c0)
        if form.mask:
            start = at(b, part(MASK, "m_rs"), b.mul(c, w["m_cs"]))
            mask_panel(kind, b, form.mask, form.way)(b, r["masks"], start, w["m_rs"], w["m_cs"], rows, n)
        sloping(b, r["scores"], r["slopes"], r["masks"], r["state"], scale, i0, c, n)
        sums_v, sums_k = (
            at(b, r[f"sums_{x}"], b.mul(c0, w[y])) for x, y in (("v", "row_ev"), ("k", "row_e"))
        )
        calls.wide(b, onto_v, n, rows, r["scores"], row, *grad, sums_v, w["row_ev"], 1)
        calls.wide(b, onto_k, n, rows, r["slopes"], row, *query, sums_k, w["row_e"], 1)
        calls.wide(b, onto_q, kind.rows, n, r["slopes"], row, key_at, k_rs, r["sums_q"], w["row_e"], c0)
    if form.runs:
        # [runs][heads of query][L][E], dense
        share = b.mul(b.add(b.mul(run, w["heads"]), head), w["share"])
        to = at(b, word(b, block, SCRATCH), w["shares"], share, b.mul(i0, w["row_e"]))
        _copy(kind, b)(b, to, r["sums_q"], b.mul(rows, w["row_e"]))
    else:
        unlay(kind, b)(b, part(DQ, "dq_rs"), w["dq_rs"], r["sums_q"], w["row_e"], rows, w["e"])


def _copy(kind: Kind, builder: Builder) -> Any:
    """`copy(b, dst, src, nbytes)`: a whole number of vectors."""

    def body(b: Builder, *args: Value) -> None:
        v = Vectors(b, kind.dtype, kind.lanes)
        with loop(b, 0, args[2], kind.vector_bytes) as (i, _):
            v.store(v.load(pointer(b, at(b, args[1], i))), pointer(b, at(b, args[0], i)))

    return routine(builder, "copy", 3, body)


def emit_shares(b: Builder, block: Value, index: Value, kind_key: tuple[Any, ...]) -> None:
    """The body of the second phase's task, one for each head of query: dQ is the sum of all runs' shares."""
    kind = Kind(*kind_key)
    v = Vectors(b, kind.dtype, kind.lanes)
    w = {name: word(b, block, place) for name, place in PLACES.items()}
    table = at(b, w["table"], b.mul(index, i64(8 * HEAD_WORDS)))
    out = b.add(word(b, block, DQ), word(b, table, DQ))
    base = at(b, word(b, block, SCRATCH), w["shares"], b.mul(index, w["share"]))
    apart = b.mul(w["heads"], w["share"])
    width = stored_bytes(kind.stored)
    with loop(b, 0, w["l"]) as (i, _):
        line, to = at(b, base, b.mul(i, w["row_e"])), at(b, out, b.mul(i, w["dq_rs"]))
        with loop(b, 0, w["e"], kind.lanes) as (e, _):
            start = pointer(b, at(b, line, b.mul(e, i64(kind.size))))

            def add(carried: Any) -> Any:
                return [offset(b, carried[0], apart), v.add(carried[1], v.load(carried[0]))]

            _, total = counted_loop(b, w["runs"], [start, v.zero], add)
            place = pointer(b, at(b, to, b.mul(e, i64(width))))
            write(v, total, place, kind.stored, v.tail_mask(b.sub(w["e"], e)))
