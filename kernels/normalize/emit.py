"""What happens in a row of a norm and of its gradient, as vector code; loops by `kernels/reduce/staged.py`.

Each emitter is one phase of a kernel. `roles` names its operands, in order: those of the op and its results,
and what phases hand on through the scratch.

    forward     statistics of the row by two sweeps (mean, then squares about it, with what rounding left of
                the mean taken out again), a third writes y. Or statistics that are there already
    moments     mean and squares of a piece of a channel        merge    pieces of equal length as one
    backward    a = sum(g), b = sum(g (x - mean)), g = dy weight; then
                dx = rstd (g - a / n - (x - mean) rstd^2 b / n)
    sums        a and b of a piece, or a channel                total    their sums
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from ..cpu.vector_ir import counted_loop, i64
from ..reduce.kinds import root
from ..reduce.staged import Staged

Roles = tuple[str, ...]


class Row(Staged):
    """A row whose operands have names."""

    def __init__(self, builder: ir.IRBuilder, block: ir.Value, dtype: str, roles: Roles, key: Sequence[Any]):
        super().__init__(builder, block, dtype, key)
        self.at = {role: place for place, role in enumerate(roles)}

    def has(self, role: str) -> bool:
        """Whether there is such an operand."""
        return role in self.at

    def one_of(self, role: str) -> ir.Value:
        """An operand that is one number a row."""
        return self.value(self.at[role])

    def kept_as(self, role: str, value: ir.Value) -> None:
        """Writes one number a row, where there is such an operand."""
        if role in self.at:
            self.keep(self.at[role], value)

    def along(
        self,
        read: Sequence[str],
        start: Sequence[Any],
        body: Any,
        write: Sequence[str] = (),
    ) -> list[Any]:
        """A sweep over operands by name, `body(carried, {name: value}, mask)`; it carries sums."""

        def inner(carried: Sequence[Any], values: list[Any], mask: Any) -> Sequence[Any]:
            return list(body(carried, dict(zip(read, values, strict=True)), mask))

        read_at, write_at = [self.at[one] for one in read], [self.at[one] for one in write]
        return self.sweep(read_at, start, inner, write_at, sums=bool(start))

    def total(self, value: ir.Value) -> ir.Value:
        """The sum over the row, in all lanes."""
        return self.fold(value, self.lanes.add)

    def there(self, *roles: str) -> list[str]:
        """Those of the operands that there are."""
        return [role for role in roles if role in self.at]


def _moments(s: Row, role: str, n: ir.Value) -> tuple[ir.Value, ir.Value]:
    """(mean, sum of squares about it) of an operand along the row."""
    b, v, zero = s.b, s.lanes.v, s.lanes.constant(0)
    (total,) = s.along((role,), [zero], lambda c, x, m: [b.fadd(c[0], x[role])])
    mean = b.fdiv(s.total(total), n)

    def squares(c: Sequence[Any], x: Any, mask: Any) -> list[Any]:
        off = s.only(b.fsub(x[role], mean), mask, 0)
        return [b.fadd(c[0], off), v.fma(off, off, c[1])]

    off, total = (s.total(one) for one in s.along((role,), [zero, zero], squares))
    more = b.fdiv(off, n)
    about = b.fsub(total, b.fmul(more, off))
    # About an infinite mean nothing is a number, but the mean is what it is.
    better = b.select(b.fcmp_unordered("uno", more, more), mean, b.fadd(mean, more))
    return better, s.lanes.largest(about, zero)


def _rstd(s: Row, var: ir.Value, eps: ir.Value) -> ir.Value:
    return s.b.fdiv(s.lanes.constant(1), root(s.lanes, s.b.fadd(var, eps)))


def _running(s: Row, mean: ir.Value, var: ir.Value, momentum: ir.Value, unbiased: ir.Value) -> None:
    """The new running statistics, where there are old ones."""
    b = s.b
    stay = b.fsub(s.lanes.constant(1), momentum)
    for role, value in (("running_mean", mean), ("running_var", b.fmul(var, unbiased))):
        if s.has(role):
            old = b.fmul(s.one_of(role), stay)
            s.kept_as(f"new_{role}", s.lanes.v.fma(value, momentum, old))


def forward(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    dtype: str,
    roles: Roles,
    kind: str,
    activation: str,
    *key: Any,
) -> None:
    """y from x; `kind` says where the statistics are from.

    "row", or "rms" without a mean: the row's own; "given": mean and rstd are operands; "kept": running ones.
    Numbers: n, eps, momentum, n / (n - 1).
    """
    s = Row(builder, block, dtype, roles, key)
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)
    n, eps = s.number(0), s.number(1)

    def row() -> None:
        mean = None
        if kind == "row":
            mean, squares = _moments(s, "x", n)
            var = b.fdiv(squares, n)
            rstd = _rstd(s, var, eps)
            _running(s, mean, var, s.number(2), s.number(3))
        elif kind == "rms":
            (total,) = s.along(("x",), [zero], lambda c, x, m: [v.fma(x["x"], x["x"], c[0])])
            rstd = _rstd(s, b.fdiv(s.total(total), n), eps)
        elif kind == "given":
            mean, rstd = s.one_of("mean"), s.one_of("rstd")
        else:
            mean, rstd = s.one_of("running_mean"), _rstd(s, s.one_of("running_var"), eps)
        if kind in ("row", "rms"):
            s.kept_as("rstd", rstd)
            if mean is not None:
                s.kept_as("mean", mean)
        scale = rstd
        still = s.has("weight") and s.operands[s.at["weight"]][3]
        if still:
            scale = b.fmul(rstd, s.one_of("weight"))

        def last(c: Sequence[Any], x: Any, mask: Any) -> list[Any]:
            y = x["x"] if mean is None else b.fsub(x["x"], mean)
            factor = b.fmul(x["weight"], rstd) if "weight" in x and not still else scale
            y = v.fma(y, factor, x["bias"]) if "bias" in x else b.fmul(y, factor)
            if "residual" in x:
                y = b.fadd(y, x["residual"])
            return [v.at_least(y, 0.0) if activation == "relu" else y]

        s.along(s.there("x", *(() if still else ("weight",)), "bias", "residual"), [], last, ("y",))

    s.rows(index, row)


def moments(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """Mean and squares of each piece. Numbers: its length."""
    s = Row(builder, block, dtype, roles, key)

    def row() -> None:
        mean, squares = _moments(s, "x", s.number(0))
        s.kept_as("part_mean", mean)
        s.kept_as("part_squares", squares)

    s.rows(index, row)


def merge(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """Statistics of a channel from those of its pieces, all of one length.

    Numbers: n, eps, momentum, n / (n - 1), the number of pieces, the length of each.
    """
    s = Row(builder, block, dtype, roles, key)
    b, zero = builder, s.lanes.constant(0)

    def row() -> None:
        mean, between = _moments(s, "part_mean", s.number(4))
        (within,) = s.along(("part_squares",), [zero], lambda c, x, m: [b.fadd(c[0], x["part_squares"])])
        squares = s.lanes.v.fma(between, s.number(5), s.total(within))
        var = b.fdiv(squares, s.number(0))
        s.kept_as("mean", mean)
        s.kept_as("rstd", _rstd(s, var, s.number(1)))
        _running(s, mean, var, s.number(2), s.number(3))

    s.rows(index, row)


# --- gradients ----------------------------------------------------------------------------------------------


def _dy(s: Row, x: Any) -> ir.Value:
    """dy, where the activation let it through."""
    if "y" not in x:
        return x["dy"]
    zero = s.lanes.constant(0)
    return s.b.select(s.b.fcmp_ordered(">", x["y"], zero), x["dy"], zero)


def _off(s: Row, x: Any) -> ir.Value:
    return s.b.fsub(x["x"], x["mean"]) if "mean" in x else x["x"]


def _sums(s: Row, weighted: bool) -> tuple[ir.Value, ir.Value]:
    """(sum of g, sum of g (x - mean)) along the row, g = dy, or dy weight."""
    b, v, zero = s.b, s.lanes.v, s.lanes.constant(0)

    def body(c: Sequence[Any], x: Any, mask: Any) -> list[Any]:
        g = b.fmul(x["dy"], x["weight"]) if "weight" in x else _dy(s, x)
        # Outside the mask g is 0, and x - mean a number: what they add is 0, unless the mean is none.
        return [b.fadd(c[0], g), v.fma(g, s.only(_off(s, x), mask, 0), c[1])]

    read = s.there("dy", "x", "mean", "y", *(("weight",) if weighted else ()))
    first, second = s.along(read, [zero, zero], body)
    return s.total(first), s.total(second)


def _slope(s: Row, x: Any, scale: ir.Value, a: ir.Value | None, b: ir.Value) -> ir.Value:
    """scale (g - a - (x - mean) b)."""
    build, v = s.b, s.lanes.v
    g = build.fmul(x["dy"], x["weight"]) if "weight" in x else _dy(s, x)
    if a is not None:
        g = build.fsub(g, a)
    return build.fmul(scale, v.fma(v.negative(_off(s, x)), b, g))


def _last(s: Row, read: list[str], scale: ir.Value, a: ir.Value, b: ir.Value) -> None:
    """Writes dx, and what the residual gets."""

    def body(c: Sequence[Any], x: Any, mask: Any) -> list[Any]:
        found = [_slope(s, x, scale, a, b)]
        return [*found, _dy(s, x)] if s.has("dresidual") else found

    s.along([*read, *s.there("y")], [], body, ["dx", *s.there("dresidual")])


def channel(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """The gradients of a channel whose weight is one number. Numbers: n."""
    s = Row(builder, block, dtype, roles, key)
    b = builder

    def row() -> None:
        n, rstd = s.number(0), s.one_of("rstd")
        a, back = _sums(s, weighted=False)
        s.kept_as("dbias", a)
        s.kept_as("dweight", b.fmul(back, rstd))
        scale = b.fmul(rstd, s.one_of("weight")) if s.has("weight") else rstd
        a, back = b.fdiv(a, n), b.fdiv(b.fmul(back, b.fmul(rstd, rstd)), n)
        _last(s, ["dy", "x", "mean"], scale, a, back)

    s.rows(index, row)


def sums(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """The two sums of a piece, without the weight."""
    s = Row(builder, block, dtype, roles, key)

    def row() -> None:
        a, back = _sums(s, weighted=False)
        s.kept_as("part_a", a)
        s.kept_as("part_b", back)

    s.rows(index, row)


def total(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """Sums over pieces: of dbias and dweight, and of a and b for the channel or group. Numbers: n.

    rstd is a factor of each piece's b in dweight; weight, where there is one, of both in a and b.
    """
    s = Row(builder, block, dtype, roles, key)
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)
    group = s.has("weight")

    def row() -> None:
        def body(c: Sequence[Any], x: Any, mask: Any) -> list[Any]:
            first, second = x["part_a"], x["part_b"]
            if group:
                first, second = b.fmul(first, x["weight"]), b.fmul(second, x["weight"])
            elif "rstd" in x:
                second = b.fmul(second, x["rstd"])
            return [b.fadd(c[0], first), b.fadd(c[1], second)]

        still = s.has("rstd") and s.operands[s.at["rstd"]][3]
        read = s.there("part_a", "part_b", "weight", *(() if still else ("rstd",)))
        a, back = (s.total(one) for one in s.along(read, [zero, zero], body))
        s.kept_as("dbias", a)
        s.kept_as("dweight", b.fmul(back, s.one_of("rstd")) if still else back)
        n = s.number(0)
        s.kept_as("a", b.fdiv(a, n))
        s.kept_as("b", b.fdiv(back, n))

    del v
    s.rows(index, row)


def slope(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, folded: bool, *key: Any
) -> None:
    """dx where a / n and b / n are there; `folded`: they have the weight in them already."""
    s = Row(builder, block, dtype, roles, key)
    b = builder

    def row() -> None:
        rstd, a, back = s.one_of("rstd"), s.one_of("a"), s.one_of("b")
        back = b.fmul(back, b.fmul(rstd, rstd))
        scale, read = rstd, ["dy", "x", "mean"]
        if s.has("weight") and folded:
            read.append("weight")
        elif s.has("weight"):
            scale = b.fmul(rstd, s.one_of("weight"))
        _last(s, read, scale, a, back)

    s.rows(index, row)


def backward(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """The gradients of rows along which the weight changes; "sum_w" and "sum_b" are this task's own.

    Numbers: n, then as whole words the bytes between the sums of two tasks, and how many numbers they are.
    """
    s = Row(builder, block, dtype, roles, key)
    b, v, zero = builder, s.lanes.v, s.lanes.constant(0)
    kept = s.there("sum_w", "sum_b")
    for role in kept:
        s.start[s.at[role]] = b.add(s.start[s.at[role]], b.mul(index, s.word(s.numbers + 1)))
    if kept:
        _clear(s, s.start[s.at["sum_w"]], s.word(s.numbers + 2))

    def row() -> None:
        n, rstd = s.number(0), s.one_of("rstd")
        a, back = _sums(s, weighted=True)
        centre = b.fdiv(a, n) if s.has("mean") else None
        back = b.fdiv(b.fmul(back, b.fmul(rstd, rstd)), n)

        def last(c: Sequence[Any], x: Any, mask: Any) -> list[Any]:
            found = [_slope(s, x, rstd, centre, back)]
            if "sum_w" in x:
                found.append(v.fma(x["dy"], b.fmul(_off(s, x), rstd), x["sum_w"]))
            if "sum_b" in x:
                found.append(b.fadd(x["dy"], x["sum_b"]))
            return found

        s.along(s.there("dy", "x", "mean", "weight", *kept), [], last, ("dx", *kept))

    del zero
    s.rows(index, row)


def _clear(s: Row, at: ir.Value, count: ir.Value) -> None:
    """Zeros in so many numbers."""
    b, one = s.b, s.one

    def put(state: Sequence[Any]) -> list[Any]:
        one.store(one.constant(0), b.inttoptr(state[0], ir.PointerType()), one.dtype)
        return [b.add(state[0], i64(4 if one.dtype == "float32" else 8))]

    counted_loop(b, count, [at], put)


def shares(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, roles: Roles, *key: Any
) -> None:
    """dweight and dbias as the sums of what all tasks have."""
    s = Row(builder, block, dtype, roles, key)
    b, zero = builder, s.lanes.constant(0)

    def row() -> None:
        for role, result in (("sum_w", "dweight"), ("sum_b", "dbias")):
            if s.has(role):
                (found,) = s.along((role,), [zero], lambda c, x, m, role=role: [b.fadd(c[0], x[role])])
                s.kept_as(result, s.total(found))

    s.rows(index, row)
