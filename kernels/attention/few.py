"""Products for one to a few queries, as when text is generated word by word: keys and values are read once.

    scores      16 keys at a time: K's rows by vectors along the features, inner products side by side; the
                sums of 16 vectors become one vector by turning the tile of them
    weighted    O[r] = O[r] fade + sum over keys of p[r] V[c], V by vectors

A panel has room for `lanes` queries, and most of its lanes would be idle in the products of `routines`. Keys
and values of 16 bits are widened as they are read.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..cpu.narrow import read, stored_bytes
from ..cpu.vector_ir import I32, Vectors, counted_loop, i64, minimum, offset, pointer
from .routines import Builder, Kind, Value, at, loop, routine

MOST = 4
"""Queries up to which these are faster."""


def scores(kind: Kind, builder: Builder, stored: str, queries: int) -> Any:
    """`scores(b, n, e, key, k_rs, query, q_rs, scale, to)`: to[c][r] = scale sum key[c] query[r].

    query: dense rows, filled up with zeros. `to` has room for `lanes` more rows than n; scale: an address.
    """
    width = stored_bytes(stored)

    def body(b: Builder, *args: Value) -> None:
        n, e, key, k_rs, query, q_rs, scale, to = args
        v, one = Vectors(b, kind.dtype, kind.lanes), Vectors(b, kind.dtype, 1)
        factor = v.broadcast(pointer(b, scale))
        last = b.sub(n, i64(1))
        whole = b.sdiv(e, i64(kind.lanes))
        rest = v.tail_mask(b.srem(e, i64(kind.lanes)))
        with loop(b, 0, n, kind.lanes) as (c, _):
            lines = []
            for i in range(kind.lanes):
                row = minimum(b, b.add(c, i64(i)), last)
                lines.append(pointer(b, at(b, key, b.mul(row, k_rs))))
            for r in range(queries):
                line = pointer(b, at(b, query, b.mul(i64(r), q_rs)))

                def add(q: Value, off: Value, acc: Any, mask: Value | None, lines: Any = lines) -> Any:
                    return [
                        v.fma(q, read(v, offset(b, line, off), stored, mask), total)
                        for line, total in zip(lines, acc, strict=True)
                    ]

                def step(carried: Any, add: Any = add) -> Any:
                    q_at, off = carried[:2]
                    acc = add(v.load(q_at), off, carried[2:], None)
                    return [offset(b, q_at, v.nbytes), b.add(off, i64(kind.lanes * width)), *acc]

                state = counted_loop(b, whole, [line, i64(0), *[v.zero] * kind.lanes], step)
                # The last, partial vector: an empty mask reads nothing of K; of the query, zeros are there.
                acc = add(v.load_masked(state[0], rest), state[1], state[2:], rest)
                rows = v.transpose(acc)
                while len(rows) > 1:
                    rows = [v.add(x, y) for x, y in zip(rows[::2], rows[1::2], strict=True)]
                found = v.mul(rows[0], factor)
                for i in range(kind.lanes):
                    place = at(b, to, b.mul(b.add(c, i64(i)), i64(kind.row_bytes)), r * kind.size)
                    element = b.extract_element(found, ir.Constant(I32, i))
                    one.store(one.splat(element), pointer(b, place))

    return routine(builder, f"few_scores_{queries}", 8, body)


def weighted(kind: Kind, builder: Builder, stored: str, queries: int, vectors: int) -> Any:
    """`weighted(b, n, ev, p, value, v_rs, sums, sums_rs, fade)`: sums[r] fade[r] + sum p[c][r] V[c].

    fade: the address of a factor for each query, or 0 for the first keys.
    """
    width = stored_bytes(stored)

    def chunk(b: Builder, args: tuple[Value, ...], r: int, first: int, count: int) -> None:
        n, ev, p, value, v_rs, sums, sums_rs, fade = args
        v = Vectors(b, kind.dtype, kind.lanes)
        # Only the very last vector of a row may be partial.
        places = range(first, first + count)
        masks = [v.tail_mask(ev, j * kind.lanes) if j == vectors - 1 else None for j in places]

        def key(p_at: Value, line: Value, acc: Any) -> list[Value]:
            share = v.broadcast(p_at)
            return [
                v.fma(share, read(v, offset(b, line, j * kind.lanes * width), stored, masks[j]), acc[j])
                for j in range(count)
            ]

        def many(size: int) -> Any:
            def step(carried: Any) -> Any:
                p_at, line, acc = carried[0], carried[1], list(carried[2:])
                for u in range(size):
                    part = slice(u * count, (u + 1) * count)
                    acc[part] = key(offset(b, p_at, u * kind.row_bytes), line, acc[part])
                    line = offset(b, line, v_rs)
                return [offset(b, p_at, size * kind.row_bytes), line, *acc]

            return step

        start = [
            pointer(b, at(b, p, r * kind.size)),
            pointer(b, at(b, value, first * kind.lanes * width)),
            *[v.zero] * (4 * count),
        ]
        # Four keys at a time, each with sums of its own: none waits for another.
        state = counted_loop(b, b.sdiv(n, i64(4)), start, many(4))
        state = counted_loop(b, b.srem(n, i64(4)), state, many(1))
        sets = [state[2 + u * count : 2 + (u + 1) * count] for u in range(4)]
        totals = [v.add(v.add(w, x), v.add(y, z)) for w, x, y, z in zip(*sets, strict=True)]
        to = pointer(b, at(b, sums, b.mul(i64(r), sums_rs), first * kind.vector_bytes))
        with b.if_else(b.icmp_signed("!=", fade, i64(0))) as (more, begin):
            with more:
                scale = v.broadcast(pointer(b, at(b, fade, r * kind.size)))
                for j, total in enumerate(totals):
                    place = offset(b, to, j * v.nbytes)
                    v.store(v.fma(v.load(place), scale, total), place)
            with begin:
                for j, total in enumerate(totals):
                    v.store(total, offset(b, to, j * v.nbytes))

    def body(b: Builder, *args: Value) -> None:
        widest = 4 if kind.registers >= 24 else 2
        for r in range(queries):
            for first in range(0, vectors, widest):
                chunk(b, args, r, first, min(widest, vectors - first))

    return routine(builder, f"few_weighted_{queries}_{vectors}", 8, body)
