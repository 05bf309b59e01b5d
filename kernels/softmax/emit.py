"""What happens in a row of softmax, of its logarithm and of their gradients, as vector code.

    softmax            the largest; exponentials and their sum; each over the sum
    log_softmax        the largest; the sum of exponentials; each less the largest and the sum's logarithm
    softmax_grad       the sum of y dy; y (dy - sum)
    log_softmax_grad   the sum of dy; dy - exp(y) sum

A row stays in the cache between its sweeps (`kernels/reduce/staged.py`). Exponentials wait in the result,
where that is as precise as they are; else they are computed again.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ..cpu import vector_math
from ..reduce.staged import Staged


def _largest(s: Staged, x: int) -> ir.Value:
    low = s.lanes.constant(-float("inf"))
    (most,) = s.sweep((x,), [low], lambda c, v, m: [s.lanes.largest(c[0], s.only(v[0], m, -float("inf")))])
    return s.fold(most, s.lanes.largest)


def softmax(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, *key: Any) -> None:
    """softmax(x) -> y."""
    s = Staged(builder, block, dtype, key)
    x, y = 0, 1
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)
    waits = s.operands[y][0] == dtype

    def row() -> None:
        most = _largest(s, x)

        def exponentials(c: Any, values: Any, mask: Any) -> list[Any]:
            e = vector_math.exp(v, b.fsub(values[0], most))
            total = b.fadd(c[0], s.only(e, mask, 0))
            return [total, e] if waits else [total]

        (total,) = s.sweep((x,), [zero], exponentials, (y,) if waits else (), sums=True)
        scale = b.fdiv(s.lanes.constant(1), s.fold(total, s.lanes.add))
        if waits:
            s.sweep((y,), [], lambda c, values, mask: [b.fmul(values[0], scale)], (y,))
            return

        def again(c: Any, values: Any, mask: Any) -> list[Any]:
            return [b.fmul(vector_math.exp(v, b.fsub(values[0], most)), scale)]

        s.sweep((x,), [], again, (y,))

    s.rows(index, row)


def log_softmax(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, *key: Any) -> None:
    """log_softmax(x) -> y."""
    s = Staged(builder, block, dtype, key)
    x, y = 0, 1
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)

    def row() -> None:
        most = _largest(s, x)

        def exponentials(c: Any, values: Any, mask: Any) -> list[Any]:
            e = vector_math.exp(v, b.fsub(values[0], most))
            return [b.fadd(c[0], s.only(e, mask, 0))]

        (total,) = s.sweep((x,), [zero], exponentials, sums=True)
        log = vector_math.log(v, s.fold(total, s.lanes.add))
        s.sweep((x,), [], lambda c, values, mask: [b.fsub(b.fsub(values[0], most), log)], (y,))

    s.rows(index, row)


def softmax_grad(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, *key: Any) -> None:
    """softmax_grad(dy, y) -> dx."""
    s = Staged(builder, block, dtype, key)
    dy, y, dx = range(3)
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)

    def row() -> None:
        # Lanes outside the mask are 0 in both.
        def product(c: Any, values: Any, mask: Any) -> list[Any]:
            return [v.fma(values[0], values[1], c[0])]

        (total,) = s.sweep((dy, y), [zero], product, sums=True)
        total = s.fold(total, s.lanes.add)
        s.sweep((dy, y), [], lambda c, vs, mask: [b.fmul(vs[1], b.fsub(vs[0], total))], (dx,))

    s.rows(index, row)


def log_softmax_grad(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, *key: Any) -> None:
    """log_softmax_grad(dy, y) -> dx."""
    s = Staged(builder, block, dtype, key)
    dy, y, dx = range(3)
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)

    def row() -> None:
        def term(c: Any, values: Any, mask: Any) -> list[Any]:
            return [b.fadd(values[0], c[0])]

        (total,) = s.sweep((dy,), [zero], term, sums=True)
        minus = v.negative(s.fold(total, s.lanes.add))

        def last(c: Any, values: Any, mask: Any) -> list[Any]:
            return [v.fma(vector_math.exp(v, values[1]), minus, values[0])]

        s.sweep((dy, y), [], last, (dx,))

    s.rows(index, row)
