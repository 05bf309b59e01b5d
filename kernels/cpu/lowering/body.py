"""The body of one function, statement by statement, as LLVM IR.

A variable is a place on the stack, which LLVM turns into registers; but for one that is bound once, to what
is known or outside of any loop and branch: that is the value itself.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any

from llvmlite import ir
from numba import types

from ..vector_ir import I64
from .source import CannotLower, meaning
from .values import (
    Known,
    Number,
    Value,
    at_run_time,
    binary,
    cast,
    chosen,
    compared,
    flattened,
    least,
    leaves,
    llvm_type,
    negated,
    rebuilt,
    shape,
    truth,
)

Call = Callable[[ir.IRBuilder, Any, list[Value], dict[str, Value]], Value]
"""`call(builder, callee, args, keywords) -> value`: a call of something that is no builtin."""


class Body:
    """Emits the body of a function.

    Args:
        fn: the function.
        tree: its tree.
        function: the LLVM function, still without a block. Its result is made to fit the first `return`.
        given: the value of each parameter.
        call: emits calls of other functions.
    """

    def __init__(
        self,
        fn: FunctionType,
        tree: ast.FunctionDef,
        function: ir.Function,
        given: dict[str, Value],
        call: Call,
    ):
        self.fn, self.tree, self.function, self.call = fn, tree, function, call
        self.result: Any = None  # types of what is returned; () for None
        self.bound = Counter(_bindings(tree))
        self.values: dict[str, Value] = {}
        self.places: dict[str, Any] = {}
        self.nested = 0
        self.loops: list[tuple[ir.Block, ir.Block]] = []
        self.entry = function.append_basic_block("entry")
        start = function.append_basic_block("start")
        self.builder = ir.IRBuilder(start)
        for name, value in given.items():
            self.bound[name] += 1
            self.bind(name, value)
        self.statements(tree.body)
        if not self.builder.block.is_terminated:
            self.leave(())
        ir.IRBuilder(self.entry).branch(start)

    # --- variables ------------------------------------------------------------------------------------------

    def place(self, kind: ir.Type) -> ir.Value:
        return ir.IRBuilder(self.entry).alloca(kind)

    def bind(self, name: str, value: Value) -> None:
        """Lets a variable have a value."""
        if self.bound[name] == 1 and (isinstance(value, Known) or self.nested == 0):
            self.values[name] = value
            return
        given = at_run_time(value)
        if name not in self.places:
            slots = [self.place(llvm_type(one.kind)) for one in leaves(given)]
            self.places[name] = shape(given), slots
        kinds, slots = self.places[name]
        if kinds != shape(given):
            raise CannotLower(f"{name} is {kinds}, and then {shape(given)}")
        for slot, one in zip(slots, leaves(given), strict=True):
            self.builder.store(one.ir, slot)

    def value_of(self, name: str) -> Value:
        """What a name stands for."""
        if name in self.values:
            return self.values[name]
        if name in self.places:
            kinds, slots = self.places[name]
            flat = [llvm_type(kind) for kind in flattened(kinds)]
            loaded = [self.builder.load(slot, typ=kind) for slot, kind in zip(slots, flat, strict=True)]
            return rebuilt(kinds, loaded)
        if self.bound[name]:
            raise CannotLower(f"{name} has no value yet")
        return Known(meaning(self.fn, name))

    # --- statements -----------------------------------------------------------------------------------------

    def statements(self, nodes: Sequence[ast.stmt]) -> None:
        for node in nodes:
            if self.builder.block.is_terminated:
                return
            emit = getattr(self, f"on_{type(node).__name__}", None)
            if emit is None:
                raise CannotLower(f"{type(node).__name__} in line {node.lineno}")
            emit(node)

    def within(self, nodes: Sequence[ast.stmt]) -> None:
        """Statements that may run never or often."""
        self.nested += 1
        self.statements(nodes)
        self.nested -= 1

    def on_Pass(self, node: ast.Pass) -> None: ...

    def on_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.value(node.value)

    def on_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self.assign(target, value)

    def assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
            return
        if not isinstance(target, ast.Tuple):
            raise CannotLower(f"an assignment to {ast.unparse(target)}")
        if isinstance(value, Known) and isinstance(value.value, tuple):
            value = tuple(map(Known, value.value))
        if not isinstance(value, tuple) or len(value) != len(target.elts):
            raise CannotLower(f"{ast.unparse(target)} from {value}")
        for one, part in zip(target.elts, value, strict=True):
            self.assign(one, part)

    def on_AugAssign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise CannotLower(f"an assignment to {ast.unparse(node.target)}")
        before, other = self.value_of(node.target.id), self.value(node.value)
        self.bind(node.target.id, binary(self.builder, node.op, before, other))

    def on_Return(self, node: ast.Return) -> None:
        value = Known(None) if node.value is None else self.value(node.value)
        self.leave(() if isinstance(value, Known) and value.value is None else at_run_time(value))

    def leave(self, value: Any) -> None:
        """Returns a value of Numbers, () for None."""
        kinds, parts = shape(value), leaves(value)
        if self.result is None:
            self.result = kinds
            self.function.ftype.return_type = result_type(kinds)
            self.function.return_value = ir.values.ReturnValue(self.function, result_type(kinds))
        if kinds != self.result:
            raise CannotLower(f"{self.fn.__name__} returns {self.result} and {kinds}")
        if not parts:
            self.builder.ret_void()
        elif not isinstance(kinds, tuple):
            self.builder.ret(parts[0].ir)
        else:
            whole: ir.Value = ir.Constant(result_type(kinds), ir.Undefined)
            for place, part in enumerate(parts):
                whole = self.builder.insert_value(whole, part.ir, place)
            self.builder.ret(whole)

    def on_If(self, node: ast.If) -> None:
        test = self.test(node.test)
        if isinstance(test, bool):
            self.statements(node.body if test else node.orelse)
            return
        then, after = (self.function.append_basic_block(name) for name in ("then", "after"))
        other = self.function.append_basic_block("else") if node.orelse else after
        self.builder.cbranch(test, then, other)
        reached = other is after
        for block, nodes in ((then, node.body), (other, node.orelse)):
            if block is not after:
                self.builder.position_at_end(block)
                self.within(nodes)
                if not self.builder.block.is_terminated:
                    self.builder.branch(after)
                    reached = True
        self.builder.position_at_end(after)
        if not reached:
            self.builder.unreachable()

    def on_While(self, node: ast.While) -> None:
        if node.orelse:
            raise CannotLower("else after while")
        head, body, after = (self.function.append_basic_block(name) for name in ("while", "body", "after"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        self.nested += 1
        test = self.test(node.test)
        if isinstance(test, bool):
            self.builder.branch(body if test else after)
        else:
            self.builder.cbranch(test, body, after)
        self.nested -= 1
        self.loop(body, head, after, node.body)
        if test is True and not any(isinstance(one, ast.Break) for one in ast.walk(node)):
            self.builder.unreachable()

    def loop(self, body: ir.Block, following: ir.Block, after: ir.Block, nodes: Sequence[ast.stmt]) -> None:
        """The body of a loop, which goes on at `following`, and then what comes after the loop."""
        self.loops.append((following, after))
        self.builder.position_at_end(body)
        self.within(nodes)
        if not self.builder.block.is_terminated:
            self.builder.branch(following)
        self.loops.pop()
        self.builder.position_at_end(after)

    def on_Continue(self, node: ast.Continue) -> None:
        self.builder.branch(self.loops[-1][0])

    def on_Break(self, node: ast.Break) -> None:
        self.builder.branch(self.loops[-1][1])

    def on_For(self, node: ast.For) -> None:
        call = node.iter
        ranges = isinstance(call, ast.Call) and self.value(call.func) == Known(range) and not call.keywords
        if not ranges or not isinstance(node.target, ast.Name) or node.orelse:
            raise CannotLower(f"for ... in {ast.unparse(call)}")
        given = self.arguments(call.args)  # type: ignore[attr-defined]
        first, stop, step = (Known(0), *given, Known(1)) if len(given) == 1 else (*given, Known(1))[:3]
        builder = self.builder
        start, end, stride = (self.whole(value) for value in (first, stop, step))
        by = step.value if isinstance(step, Known) else 0
        head, body, following, after = (
            self.function.append_basic_block(name) for name in ("for", "body", "next", "after")
        )
        at = self.place(I64)
        builder.store(start, at)
        left = None
        if by == 0:  # not known, and the way may be up or down: as many rounds as there are
            left = self.place(I64)
            builder.store(self.rounds(start, end, stride), left)
        builder.branch(head)
        builder.position_at_end(head)
        now = builder.load(at, typ=I64)
        if left is None:
            more = builder.icmp_signed("<" if by > 0 else ">", now, end)
        else:
            more = builder.icmp_signed(">", builder.load(left, typ=I64), ir.Constant(I64, 0))
        builder.cbranch(more, body, after)
        builder.position_at_end(body)
        self.nested += 1
        self.bind(node.target.id, Number(types.int64, now))
        self.nested -= 1
        self.loop(body, following, after, node.body)
        builder.position_at_end(following)
        builder.store(builder.add(builder.load(at, typ=I64), stride, flags=("nsw",)), at)
        if left is not None:
            builder.store(builder.sub(builder.load(left, typ=I64), ir.Constant(I64, 1), flags=("nsw",)), left)
        builder.branch(head)
        builder.position_at_end(after)

    def rounds(self, start: ir.Value, end: ir.Value, step: ir.Value) -> ir.Value:
        """How many rounds `range(start, end, step)` has; none for a step of 0."""
        b, zero, one = self.builder, ir.Constant(I64, 0), ir.Constant(I64, 1)
        up = b.icmp_signed(">", step, zero)
        way = b.select(up, b.sub(end, start), b.sub(start, end))
        size = b.select(up, step, b.neg(step))
        some = b.and_(b.icmp_signed(">", way, zero), b.icmp_signed(">", size, zero))
        divisor = b.select(some, size, one)
        return b.select(some, b.sdiv(b.add(way, b.sub(divisor, one)), divisor), zero)

    def whole(self, value: Value) -> ir.Value:
        """An int64."""
        number = at_run_time(value)
        if not isinstance(number, Number) or number.kind != types.int64:
            raise CannotLower(f"a range over {number}")
        return number.ir

    # --- expressions ----------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> Value:
        """What an expression stands for."""
        emit = getattr(self, f"of_{type(node).__name__}", None)
        if emit is None:
            raise CannotLower(f"{ast.unparse(node)} in line {node.lineno}")
        return emit(node)

    def arguments(self, nodes: Sequence[ast.expr]) -> list[Value]:
        found: list[Value] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                several = self.value(node.value)
                if isinstance(several, Known):
                    several = tuple(map(Known, several.value))
                if not isinstance(several, tuple):
                    raise CannotLower(ast.unparse(node))
                found += several
            else:
                found.append(self.value(node))
        return found

    def of_Constant(self, node: ast.Constant) -> Value:
        return Known(node.value)

    def of_Name(self, node: ast.Name) -> Value:
        return self.value_of(node.id)

    def of_Tuple(self, node: ast.Tuple) -> Value:
        return tuple(self.arguments(node.elts))

    def of_Attribute(self, node: ast.Attribute) -> Value:
        of = self.value(node.value)
        if isinstance(of, Known) and isinstance(of.value, ModuleType):
            return Known(getattr(of.value, node.attr))
        raise CannotLower(ast.unparse(node))

    def of_Subscript(self, node: ast.Subscript) -> Value:
        of = self.value(node.value)
        index = self.value(node.slice)
        if isinstance(of, Known) and isinstance(of.value, tuple):
            of = tuple(map(Known, of.value))
        if isinstance(of, tuple) and isinstance(index, Number) and index.kind == types.int64:
            return chosen(self.builder, of, index.ir)
        if not isinstance(of, tuple) or not isinstance(index, Known) or not isinstance(index.value, int):
            raise CannotLower(ast.unparse(node))
        return of[index.value]

    def of_BinOp(self, node: ast.BinOp) -> Value:
        left = self.value(node.left)
        return binary(self.builder, node.op, left, self.value(node.right))

    def of_UnaryOp(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            test = self.test(node.operand)
            return (
                Known(not test) if isinstance(test, bool) else Number(types.boolean, self.builder.not_(test))
            )
        if isinstance(node.op, ast.USub):
            return negated(self.builder, self.value(node.operand))
        raise CannotLower(ast.unparse(node))

    def of_Compare(self, node: ast.Compare) -> Value:
        left = self.value(node.left)
        if len(node.ops) == 1:
            return compared(self.builder, node.ops[0], left, self.value(node.comparators[0]))
        if any(isinstance(one, ast.Call) for later in node.comparators[1:] for one in ast.walk(later)):
            raise CannotLower(ast.unparse(node))  # which is called only if what is before is true
        result: Value = Known(True)
        for op, other in zip(node.ops, node.comparators, strict=True):
            right = self.value(other)
            one, left = compared(self.builder, op, left, right), right
            if isinstance(result, Known):
                result = one if result.value else result
            elif isinstance(one, Known):
                result = result if one.value else one
            else:
                both = self.builder.and_(result.ir, one.ir)  # type: ignore[union-attr]
                result = Number(types.boolean, both)
        return result

    def of_BoolOp(self, node: ast.BoolOp) -> Value:
        test = self.either(node, self.boolean)
        return Known(test) if isinstance(test, bool) else Number(types.boolean, test)

    def boolean(self, node: ast.expr) -> bool | ir.Value:
        """Whether an expression is true, where that is also its value."""
        value = self.value(node)
        known = isinstance(value, Known) and isinstance(value.value, bool)
        if not known and not (isinstance(value, Number) and value.kind == types.boolean):
            raise CannotLower(f"and, or as a value: {ast.unparse(node)}")
        return truth(self.builder, value)

    def test(self, node: ast.expr) -> bool | ir.Value:
        """Whether an expression is true; a bool when that is known."""
        if isinstance(node, ast.BoolOp):
            return self.either(node, self.test)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.test(node.operand)
            return not inner if isinstance(inner, bool) else self.builder.not_(inner)
        return truth(self.builder, self.value(node))

    def either(self, node: ast.BoolOp, test: Callable[[ast.expr], bool | ir.Value]) -> bool | ir.Value:
        """`and`, `or`: what comes later is looked at only where it decides."""
        goes_on, builder = isinstance(node.op, ast.And), self.builder
        decided: list[tuple[ir.Block, ir.Value]] = []
        after = None
        last: bool | ir.Value = goes_on
        for place, one in enumerate(node.values):
            self.nested += place > 0
            last = test(one)
            self.nested -= place > 0
            if isinstance(last, bool):
                if last != goes_on:
                    break
                continue
            if place + 1 < len(node.values):
                after = after or self.function.append_basic_block("decided")
                following = self.function.append_basic_block("and" if goes_on else "or")
                decided.append((builder.block, ir.Constant(last.type, int(not goes_on))))
                builder.cbranch(last, *((following, after) if goes_on else (after, following)))
                builder.position_at_end(following)
        if after is None:
            return last
        if isinstance(last, bool):
            last = ir.Constant(ir.IntType(1), int(last))
        decided.append((builder.block, last))
        builder.branch(after)
        builder.position_at_end(after)
        joined = builder.phi(ir.IntType(1))
        for block, value in decided:
            joined.add_incoming(value, block)
        return joined

    def of_IfExp(self, node: ast.IfExp) -> Value:
        test = self.test(node.test)
        if isinstance(test, bool):
            return self.value(node.body if test else node.orelse)
        blocks = [self.function.append_basic_block(name) for name in ("then", "else", "chosen")]
        self.builder.cbranch(test, *blocks[:2])
        ends: list[tuple[ir.Block, Any]] = []
        self.nested += 1
        for block, one in zip(blocks, (node.body, node.orelse), strict=False):
            self.builder.position_at_end(block)
            value = at_run_time(self.value(one))
            ends.append((self.builder.block, value))
            self.builder.branch(blocks[2])
        self.nested -= 1
        self.builder.position_at_end(blocks[2])
        (from_then, then), (from_else, other) = ends
        if shape(then) != shape(other):
            raise CannotLower(ast.unparse(node))
        joined = []
        for a, b in zip(leaves(then), leaves(other), strict=True):
            phi = self.builder.phi(a.ir.type)
            phi.add_incoming(a.ir, from_then)
            phi.add_incoming(b.ir, from_else)
            joined.append(phi)
        return rebuilt(shape(then), joined)

    def of_Call(self, node: ast.Call) -> Value:
        callee = self.value(node.func)
        if not isinstance(callee, Known):
            raise CannotLower(ast.unparse(node))
        called, args = callee.value, self.arguments(node.args)
        keywords = {one.arg or "**": self.value(one.value) for one in node.keywords}
        if isinstance(called, types.Type) and len(args) == 1 and not keywords:
            return cast(self.builder, args[0], called)
        if (called is min or called is max) and len(args) > 1 and not keywords:
            return least(self.builder, args, called is max)
        if called is len and len(args) == 1 and isinstance(args[0], tuple):
            return Known(len(args[0]))
        return self.call(self.builder, called, args, keywords)


def result_type(kinds: Any) -> ir.Type:
    """What an LLVM function returns for a value of these types."""
    if not isinstance(kinds, tuple):
        return llvm_type(kinds)
    flat = [llvm_type(one) for one in flattened(kinds)]
    return ir.LiteralStructType(flat) if flat else ir.VoidType()


def _bindings(tree: ast.FunctionDef) -> list[str]:
    """The names that a function binds, as often as it does."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.append(node.id)
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef) and node is not tree:
            raise CannotLower(f"{type(node).__name__} in line {node.lineno}")
    return found
