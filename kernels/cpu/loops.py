"""Loops and reads of the argument block, for tasks that are written in LLVM IR throughout (`generate.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from .vector_ir import I32, I64, i64, offset, pointer


def word(builder: ir.IRBuilder, block: ir.Value, index: int) -> ir.Value:
    """The word of that number in the argument block, as an i64."""
    return builder.load(offset(builder, pointer(builder, block), 8 * index), typ=I64)


def share(
    builder: ir.IRBuilder, count: ir.Value, index: ir.Value, tasks: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The units [first, end) of `count` that task `index` of `tasks` computes."""

    def cut(at: ir.Value) -> ir.Value:
        return builder.udiv(builder.mul(count, at), tasks)

    return cut(index), cut(builder.add(index, i64(1)))


def for_range(
    builder: ir.IRBuilder,
    first: ir.Value,
    end: ir.Value,
    carried: Sequence[ir.Value],
    body: Callable[[ir.Value, list[ir.Value]], Sequence[ir.Value]],
    step: int = 1,
) -> list[ir.Value]:
    """Emits `for i in range(first, end, step): carried = body(i, carried)`; returns what it carries out."""
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", first, end), loop, after)
    builder.position_at_end(loop)
    i = builder.phi(I64)
    phis = [builder.phi(value.type) for value in carried]
    results = list(body(i, phis))
    last = builder.block
    following = builder.add(i, i64(step))
    i.add_incoming(first, before)
    i.add_incoming(following, last)
    for phi, start, result in zip(phis, carried, results, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, last)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
    builder.position_at_end(after)
    out = []
    for start, result in zip(carried, results, strict=True):
        phi = builder.phi(start.type)
        phi.add_incoming(start, before)
        phi.add_incoming(result, last)
        out.append(phi)
    return out


def load_int32(builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    """Element `index` of the int32 numbers at the address `base`, as an i64."""
    at = builder.gep(pointer(builder, base), [index], source_etype=I32)
    return builder.sext(builder.load(at, typ=I32), I64)
