"""The code of a row program: pointwise stages and reductions over rows that stay in the nearest cache.

    for unit in this task's units:             along: a row                 across: lanes x unroll rows
        for stage in the stages:
            for line in the lines:             the reduced axes but the innermost
                for piece, for i:              by vectors along the line    element by element, a vector of
                    load, compute, store       of one row                   neighbouring rows each
                    add to the totals
            finish the reductions, compute the row values that are known now
        store the row outputs

`along` goes by vectors along the innermost reduced axis, where the elements lie side by side there; a total
is a few vectors, whose lanes are added up at the end. `across` goes by vectors across neighbouring rows,
where these lie side by side: every lane is a row of its own. Totals are kept in two levels, of a piece and of
all pieces, about as many as a piece has terms, so that rounding errors grow with the root of the length.

Where there are fewer rows than threads, and one stage that writes nothing but row values, the work comes in
two phases: `part`, in which every unit takes some of the elements of its rows and leaves its totals in
scratch, and `rest`, in which these are put together in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from llvmlite import ir

from ..cpu.lanes import Lanes, item_bytes, register_bytes
from ..cpu.vector_ir import counted_loop, i64
from .places import APART, Reader, branch, least, splitted
from .program import Program
from .row import Row
from .stages import staged

Value: TypeAlias = ir.Value


class RowWords:
    """Where things stand in the argument block, behind the addresses of the arrays and of the scratch."""

    # tasks, units: how the work is shared. length: of the axis of vectors. blocks: how many groups of rows
    # it is cut into (across). count: elements of a line (across). lines: see above. total: elements of a row.
    # kept, reduced: how many axes there are outside, of rows and of lines. room: bytes of scratch of a task.
    # parts: how many share a row; they share its lines where `by_lines`, else each line. piece: vectors, or
    # elements across, that are added up before they go into the second level; line_piece: lines likewise.
    HEAD = (
        *("tasks", "units", "length", "blocks", "count", "lines", "total", "kept", "reduced", "room"),
        *("parts", "by_lines", "piece", "line_piece"),
    )

    def __init__(self, arrays: int, operands: int):
        self.scratch = arrays
        self.head = {name: arrays + 1 + i for i, name in enumerate(self.HEAD)}
        self.operands = operands
        self._steps = arrays + 1 + len(self.HEAD)
        self.outer = self._steps + 3 * operands

    def start(self, operand: int) -> int:
        """The byte offset of an operand; then its steps along the axis of vectors, and (across) of a line."""
        return self._steps + 3 * operand

    def total(self, depth: int) -> int:
        """Words of a block with that many axes outside, those of rows and then those of lines."""
        return self.outer + depth * (1 + self.operands)


class Rows:
    """Emits the task of one row program; see `emit_rows` for the arguments."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        block: Value,
        program: Program,
        across: bool,
        modes: tuple[str, ...],
        arrays: tuple[int, ...],
        count: int,
        lanes: int,
        unroll: int,
        masks: bool,
        keeps: bool,
        single: bool,
        short: bool,
        phase: str,
    ):
        self.b = builder
        self.single = single
        self.short = short
        self.phase = phase
        self.program = program
        self.stages = staged(program, keeps)
        self.across = across
        self.modes = modes
        self.arrays = arrays
        self.words = RowWords(count, len(modes))
        self.read = Reader(builder, block)
        self.lanes = lanes
        self.unroll = unroll
        self.masks = masks and APART not in modes
        self.dtypes = (*program.inputs, *program.output_dtypes)
        self.bytes = tuple(map(item_bytes, self.dtypes))
        self.count_in = len(program.inputs)

    def word(self, name: str) -> Value:
        """A word of the head."""
        return self.read(self.words.head[name])

    def task(self, index: Value) -> None:
        """The whole task."""
        b = self.b
        tasks, units = self.word("tasks"), self.word("units")
        if self.phase == "part":
            units = b.mul(units, self.word("parts"))
        elif self.phase == "rest":
            tasks = i64(1)
        many = b.icmp_signed(">", tasks, i64(1))
        low = branch(b, many, lambda: b.sdiv(b.mul(index, units), tasks), i64(0))
        high = branch(b, many, lambda: b.sdiv(b.mul(b.add(index, i64(1)), units), tasks), units)
        self.length, self.total, self.lines = self.word("length"), self.word("total"), self.word("lines")
        self.near = [self.read(self.words.start(k) + 1) for k in range(len(self.modes))]
        self.far = [self.read(self.words.start(k) + 2) for k in range(len(self.modes))]
        self.room = b.add(self.read(self.words.scratch), b.mul(index, self.word("room")))
        self.slots = self._slots()
        self.axes = self.word("kept"), self.word("reduced")
        bases = [
            b.add(self.read(array), self.read(self.words.start(k))) for k, array in enumerate(self.arrays)
        ]

        def unit(carried: Sequence[Value]) -> list[Value]:
            self._unit(carried[0], bases)
            return [b.add(carried[0], i64(1))]

        counted_loop(b, b.sub(high, low), [low], unit)

    def _slots(self) -> dict[int, Value]:
        """The address of what is kept of each value, one behind the other."""
        b, slots, at = self.b, {}, self.room
        width = self.lanes * self.unroll if self.across else 1
        for number in self.stages.kept:
            slots[number] = at
            size = register_bytes(self.program.dtypes[number]) * width
            # A line's last vector may be stored whole: room for one more.
            at = b.add(at, b.add(b.mul(self.total, i64(size)), i64(64 * self.lanes)))
        return slots

    def outside(self, first: Value, axes: Value, number: Value, bases: Sequence[Value]) -> list[Value]:
        """The operands' addresses at a place of some axes; the words of axis `first` and on describe them."""
        b = self.b
        words = b.add(i64(self.words.outer), b.mul(first, i64(1 + self.words.operands)))

        def axis(carried: Sequence[Value]) -> list[Value]:
            at, left, *sums = carried
            whole, place = splitted(b, left, self.read(at))
            steps = [self.read(b.add(at, i64(1 + k))) for k in range(len(sums))]
            sums = [b.add(s, b.mul(place, step)) for s, step in zip(sums, steps, strict=True)]
            return [b.add(at, i64(1 + len(sums))), whole, *sums]

        return counted_loop(b, axes, [words, number, *bases], axis)[2:]

    def _unit(self, unit: Value, bases: Sequence[Value]) -> None:
        b, width = self.b, self.lanes * self.unroll
        self.first_line, self.last_line = i64(0), self.lines
        inner = self.word("count") if self.across else self.length
        self.first, self.last = i64(0), inner
        if self.phase == "part":
            parts = self.word("parts")
            self.slot = unit
            unit, part = splitted(b, unit, parts)
            by_lines = b.icmp_signed("!=", self.word("by_lines"), i64(0))
            whole = b.select(by_lines, self.lines, inner)
            # In whole vectors, so that only the last part has a tail.
            step = b.select(by_lines, i64(1), i64(1 if self.across else self.lanes))
            some = b.sdiv(b.add(whole, b.sub(b.mul(parts, step), i64(1))), b.mul(parts, step))
            low = least(b, b.mul(part, b.mul(some, step)), whole)
            high = least(b, b.add(low, b.mul(some, step)), whole)
            self.first_line, self.last_line = (
                b.select(by_lines, low, i64(0)),
                b.select(by_lines, high, self.lines),
            )
            self.first, self.last = b.select(by_lines, i64(0), low), b.select(by_lines, inner, high)
        elif self.phase == "rest":
            self.slot = b.mul(unit, self.word("parts"))
        if not self.across:
            ats = self.outside(i64(0), self.axes[0], unit, bases)
            Row(self, ats, Lanes(b, self.lanes), self.unroll, None).run()
            return
        outer, part = splitted(b, unit, self.word("blocks"))
        ats = self.outside(i64(0), self.axes[0], outer, bases)
        if self.masks:
            first = b.mul(part, i64(width))
            ats = self._moved(ats, first)
            Row(self, ats, Lanes(b, self.lanes), self.unroll, b.sub(self.length, first)).run()
            return
        # Blocks of many rows, and what is left row by row.
        whole = b.sdiv(self.length, i64(width))
        with b.if_else(b.icmp_signed("<", part, whole)) as (then, otherwise):
            with then:
                moved = self._moved(ats, b.mul(part, i64(width)))
                Row(self, moved, Lanes(b, self.lanes), self.unroll, None).run()
            with otherwise:
                first = b.add(b.mul(whole, i64(width)), b.sub(part, whole))
                Row(self, self._moved(ats, first), Lanes(b, 1), 1, None).run()

    def _moved(self, ats: Sequence[Value], places: Value) -> list[Value]:
        b = self.b
        return [b.add(at, b.mul(places, near)) for at, near in zip(ats, self.near, strict=True)]


def emit_rows(
    builder: ir.IRBuilder,
    block: Value,
    index: Value,
    program: tuple[Any, ...],
    across: bool,
    modes: tuple[str, ...],
    arrays: tuple[int, ...],
    count: int,
    lanes: int,
    unroll: int,
    masks: bool,
    keeps: bool,
    single: bool,
    short: bool,
    phase: str,
) -> None:
    """The task of a row program.

    Args:
        builder, block, index: of the task.
        program: `Program.key`.
        across: see the top of this file.
        modes: how each operand, inputs then outputs, goes along the axis of vectors (`places.py`).
        arrays: for each operand, the number of its array in the call.
        count: how many arrays the call has.
        lanes: of a vector.
        unroll: vectors at a time.
        masks: whether tails are done under a mask.
        keeps: whether values are kept from stage to stage (`stages.py`).
        single: whether a row has one line.
        short: whether a line is one piece.
        phase: "whole", or "part" or "rest" of work that comes in two phases.
    """
    made = Program(*program)
    Rows(
        builder, block, made, across, modes, arrays, count, lanes, unroll, masks, keeps, single, short, phase
    ).task(index)
