"""The code of a pointwise program: for every place of a nest of loops, in vectors along the innermost axis.

    for unit in this task's units:              a unit: a piece of the innermost axis by a piece of the next,
        for row in the piece of axis 1:         at one place of the axes outside
            for i in the piece of axis 0:       by `unroll` vectors at a time, then single ones, the last one
                load, compute, store            under a mask (or by elements, where there are no masks)

How an operand goes along the innermost axis is known when the code is made:

    side    elements side by side: vectors           splat   one element for all: loaded once a row
    apart   any step: element by element             turned  side by side along axis 1 instead: a block is
                                                             transposed into scratch first, and read there
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir

from ..cpu.lanes import Lanes, item_bytes
from ..cpu.vector_ir import I64, Vectors, counted_loop, i64, offset, pointer
from .emitters import emit
from .program import Program, operands_of

SIDE, SPLAT, APART, TURNED = "side", "splat", "apart", "turned"
TILE = 64  # places of either axis in a block that is turned: 16 KiB of float32, half of a first cache
Value: TypeAlias = ir.Value


class Words:
    """Where things stand in the argument block, behind the addresses of `arrays` arrays and the scratch."""

    HEAD = ("tasks", "units", "length", "piece", "pieces", "rows", "row_piece", "row_pieces", "depth")

    def __init__(self, arrays: int, operands: int):
        self.scratch = arrays
        self.head = {name: arrays + 1 + i for i, name in enumerate(self.HEAD)}
        self.operands = operands
        self._steps = arrays + 1 + len(self.HEAD)
        self.outer = self._steps + 3 * operands

    def start(self, operand: int) -> int:
        """The byte offset at which an operand starts; behind it, its steps along axes 0 and 1."""
        return self._steps + 3 * operand

    def total(self, depth: int) -> int:
        """Words of a block with that many axes outside: for each its length and the operands' steps."""
        return self.outer + depth * (1 + self.operands)


class Reader:
    """Reads the argument block."""

    def __init__(self, builder: ir.IRBuilder, block: Value):
        self.builder = builder
        self.base = pointer(builder, block)

    def __call__(self, number: int | Value) -> Value:
        b = self.builder
        at = offset(b, self.base, 8 * number if isinstance(number, int) else b.mul(number, i64(8)))
        return b.load(at, typ=I64)


def branch(b: ir.IRBuilder, condition: Value, then: Callable[[], Value], other: Value) -> Value:
    """`then()` where the condition holds, else `other`: an i64."""
    before = b.block
    yes, after = b.append_basic_block("yes"), b.append_basic_block("after")
    b.cbranch(condition, yes, after)
    b.position_at_end(yes)
    value = then()
    end = b.block
    b.branch(after)
    b.position_at_end(after)
    result = b.phi(value.type)
    result.add_incoming(other, before)
    result.add_incoming(value, end)
    return result


def splitted(b: ir.IRBuilder, number: Value, count: Value) -> tuple[Value, Value]:
    """(number // count, number % count), without a division where count is 1 or more than number."""
    once = b.and_(b.icmp_signed(">", count, i64(1)), b.icmp_signed(">=", number, count))
    few = b.select(b.icmp_signed(">", count, i64(1)), i64(0), number)
    whole = branch(b, once, lambda: b.udiv(number, count), few)
    return whole, b.sub(number, b.mul(whole, count))


def compute(
    lanes: Lanes, program: Program, given: dict[int, list[Value]], groups: int, wanted: Sequence[int]
) -> dict[int, list[Value]]:
    """All values that `wanted` ones need, as a list of `groups` vectors each.

    Args:
        lanes: where to emit.
        program: the program.
        given: what is known already.
        groups: vectors of each value; they are computed side by side, so that the CPU always has several.
        wanted: the numbers of the values.
    """
    values = dict(given)
    first = len(program.inputs)
    needed: set[int] = set()
    waiting = list(wanted)
    while waiting:
        number = waiting.pop()
        if number in values or number in needed:
            continue
        needed.add(number)
        waiting += operands_of(program.instructions[number - first])
    for number in sorted(needed):
        instruction = program.instructions[number - first]
        name, dtype = instruction[0], program.dtypes[number]
        if name == "constant":
            values[number] = [lanes.constant(dtype, instruction[1])] * groups
            continue
        operands = operands_of(instruction)
        dtypes = [program.dtypes[operand] for operand in operands]
        values[number] = [
            emit(lanes, name, dtypes, dtype, [values[operand][group] for operand in operands])
            for group in range(groups)
        ]
    return values


class Places:
    """Emits the task of one program; see `emit_places` for the arguments."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        block: Value,
        program: Program,
        modes: tuple[str, ...],
        arrays: tuple[int, ...],
        count: int,
        lanes: int,
        unroll: int,
        masks: bool,
        past: bool,
    ):
        self.b = builder
        self.program = program
        self.modes = modes
        self.arrays = arrays
        self.words = Words(count, len(modes))
        self.read = Reader(builder, block)
        self.lanes = lanes
        self.unroll = unroll
        self.masks = masks and APART not in modes
        self.past = past
        self.dtypes = (*program.inputs, *program.output_dtypes)
        self.bytes = tuple(map(item_bytes, self.dtypes))
        self.count_in = len(program.inputs)
        self.inputs = range(self.count_in)
        self.outputs = range(self.count_in, len(modes))

    def word(self, name: str) -> Value:
        """A word of the head."""
        return self.read(self.words.head[name])

    def task(self, index: Value) -> None:
        """The whole task."""
        b = self.b
        tasks, units = self.word("tasks"), self.word("units")
        many = b.icmp_signed(">", tasks, i64(1))
        low = branch(b, many, lambda: b.sdiv(b.mul(index, units), tasks), i64(0))
        high = branch(b, many, lambda: b.sdiv(b.mul(b.add(index, i64(1)), units), tasks), units)
        bases = [
            b.add(self.read(array), self.read(self.words.start(k))) for k, array in enumerate(self.arrays)
        ]

        def unit(carried: Sequence[Value]) -> list[Value]:
            self._unit(carried[0], bases, index)
            return [b.add(carried[0], i64(1))]

        counted_loop(b, b.sub(high, low), [low], unit)
        if self.past:
            b.fence("seq_cst")

    def _unit(self, unit: Value, bases: Sequence[Value], index: Value) -> None:
        b = self.b
        rest, piece = splitted(b, unit, self.word("pieces"))
        outer, row_piece = splitted(b, rest, self.word("row_pieces"))
        ats = self._outside(outer, bases)
        first = b.mul(piece, self.word("piece"))
        first_row = b.mul(row_piece, self.word("row_piece"))
        length = least(b, self.word("piece"), b.sub(self.word("length"), first))
        rows = least(b, self.word("row_piece"), b.sub(self.word("rows"), first_row))
        near = [self.read(self.words.start(k) + 1) for k in range(len(self.modes))]
        far = [self.read(self.words.start(k) + 2) for k in range(len(self.modes))]
        ats = [b.add(at, b.add(b.mul(first, near[k]), b.mul(first_row, far[k]))) for k, at in enumerate(ats)]
        if TURNED in self.modes:
            ats, far = self._turn(ats, near, far, length, rows, index)

        def row(carried: Sequence[Value]) -> list[Value]:
            self._row(carried, near, length)
            return [b.add(at, step) for at, step in zip(carried, far, strict=True)]

        counted_loop(b, rows, ats, row)

    def _outside(self, outer: Value, bases: Sequence[Value]) -> list[Value]:
        """The operands' addresses at a place of the axes outside."""
        b, words = self.b, self.words

        def axis(carried: Sequence[Value]) -> list[Value]:
            at, left, *sums = carried
            whole, place = splitted(b, left, self.read(at))
            steps = [self.read(b.add(at, i64(1 + k))) for k in range(len(sums))]
            sums = [b.add(s, b.mul(place, step)) for s, step in zip(sums, steps, strict=True)]
            return [b.add(at, i64(1 + len(sums))), whole, *sums]

        return counted_loop(b, self.word("depth"), [i64(words.outer), outer, *bases], axis)[2:]

    # --- a block that is turned -----------------------------------------------------------------------------

    def _turn(
        self,
        ats: list[Value],
        near: list[Value],
        far: list[Value],
        length: Value,
        rows: Value,
        index: Value,
    ) -> tuple[list[Value], list[Value]]:
        """Transposes the turned operands' blocks into scratch: their addresses and row steps there."""
        b = self.b
        turned = [k for k, mode in enumerate(self.modes) if mode == TURNED]
        room = sum(TILE * TILE * self.bytes[k] for k in turned)
        at = b.add(self.read(self.words.scratch), b.mul(index, i64(room)))
        ats, far = list(ats), list(far)
        for k in turned:
            transpose_block(b, self.bytes[k], ats[k], near[k], at, length, rows)
            ats[k], far[k] = at, i64(TILE * self.bytes[k])
            at = b.add(at, i64(TILE * TILE * self.bytes[k]))
        return ats, far

    # --- a row ----------------------------------------------------------------------------------------------

    def _row(self, ats: Sequence[Value], near: Sequence[Value], length: Value) -> None:
        b = self.b
        wide = Lanes(b, self.lanes)
        splats = self._splats(wide, ats)
        done: Value = i64(0)
        if self.past:
            done = self._until_aligned(ats, near, length)
            splats = self._splats(wide, ats)
        group = self.lanes * self.unroll
        whole = b.sdiv(b.sub(length, done), i64(group))
        single = self.masks and self.unroll == 1 and not self.past
        if not single:

            def vectors(carried: Sequence[Value]) -> list[Value]:
                self._at(wide, ats, near, splats, carried[0], self.unroll, None, past=self.past)
                return [b.add(carried[0], i64(group))]

            done = counted_loop(b, whole, [done], vectors)[0]
        if self.masks:

            def masked(carried: Sequence[Value]) -> list[Value]:
                mask = wide.tail(b.sub(length, carried[0]))
                self._at(wide, ats, near, splats, carried[0], 1, mask)
                return [b.add(carried[0], i64(self.lanes))]

            left = b.sdiv(b.add(b.sub(length, done), i64(self.lanes - 1)), i64(self.lanes))
            counted_loop(b, left, [done], masked)
            return
        if self.unroll > 1:

            def one_vector(carried: Sequence[Value]) -> list[Value]:
                self._at(wide, ats, near, splats, carried[0], 1, None)
                return [b.add(carried[0], i64(self.lanes))]

            left = b.sdiv(b.sub(length, done), i64(self.lanes))
            done = counted_loop(b, left, [done], one_vector)[0]
        self._elements(ats, near, done, b.sub(length, done))

    def _elements(self, ats: Sequence[Value], near: Sequence[Value], start: Value, count: Value) -> Value:
        """Element by element; returns where it ended."""
        b, narrow = self.b, Lanes(self.b, 1)
        splats = self._splats(narrow, ats)

        def element(carried: Sequence[Value]) -> list[Value]:
            self._at(narrow, ats, near, splats, carried[0], 1, None)
            return [b.add(carried[0], i64(1))]

        return counted_loop(b, count, [start], element)[0]

    def _until_aligned(self, ats: Sequence[Value], near: Sequence[Value], length: Value) -> Value:
        """Does the places before the first whole vector of the output; returns how many."""
        b, size = self.b, self.bytes[-1]
        line = self.lanes * size
        before = b.and_(b.sub(i64(0), ats[-1]), i64(line - 1))
        count = least(b, b.udiv(before, i64(size)), length)
        if not self.masks:
            return self._elements(ats, near, i64(0), count)
        wide = Lanes(b, self.lanes)
        self._at(wide, ats, near, self._splats(wide, ats), i64(0), 1, wide.tail(count))
        return count

    def _splats(self, lanes: Lanes, ats: Sequence[Value]) -> dict[int, Value]:
        """What is the same for a whole row: operands that are, and all that is made of them."""
        known: dict[int, list[Value]] = {
            k: [lanes.load_one(self.dtypes[k], pointer(self.b, ats[k]))]
            for k in self.inputs
            if self.modes[k] == SPLAT
        }
        program, same = self.program, set(known)
        for place, instruction in enumerate(program.instructions):
            operands = operands_of(instruction)
            if operands and all(number in same or self._constant(number) for number in operands):
                same.add(self.count_in + place)
        return {k: vectors[0] for k, vectors in compute(lanes, program, known, 1, sorted(same)).items()}

    def _constant(self, number: int) -> bool:
        place = number - self.count_in
        return place >= 0 and self.program.instructions[place][0] == "constant"

    def _at(
        self,
        lanes: Lanes,
        ats: Sequence[Value],
        near: Sequence[Value],
        splats: dict[int, Value],
        place: Value,
        groups: int,
        mask: Value | None,
        past: bool = False,
    ) -> None:
        """`groups` vectors from a place on: everything is loaded before anything is stored."""
        b, program = self.b, self.program

        def address(k: int, group: int) -> tuple[Value, Value | None]:
            at = b.add(place, i64(group * lanes.lanes)) if group else place
            if self.modes[k] == APART:
                return pointer(b, b.add(ats[k], b.mul(at, near[k]))), near[k]
            return offset(b, pointer(b, ats[k]), b.mul(at, i64(self.bytes[k]))), None

        given = {number: [value] * groups for number, value in splats.items()}
        for k in self.inputs:
            if k in given:
                continue
            vectors = []
            for group in range(groups):
                ptr, step = address(k, group)
                if step is None:
                    vectors.append(lanes.load(self.dtypes[k], ptr, mask))
                else:
                    vectors.append(lanes.load_apart(self.dtypes[k], ptr, step))
            given[k] = vectors
        values = compute(lanes, program, given, groups, program.outputs)
        for k in self.outputs:
            number = program.outputs[k - self.count_in]
            for group in range(groups):
                ptr, step = address(k, group)
                value = values[number][group]
                if step is None:
                    lanes.store(self.dtypes[k], value, ptr, mask, past)
                else:
                    lanes.store_apart(self.dtypes[k], value, ptr, step)


def least(b: ir.IRBuilder, x: Value, y: Value) -> Value:
    """The smaller of two i64."""
    return b.select(b.icmp_signed("<", x, y), x, y)


def transpose_block(
    b: ir.IRBuilder, size: int, source: Value, step: Value, target: Value, length: Value, rows: Value
) -> None:
    """target[r][i] = source[i][r] for i < length, r < rows, both up to TILE.

    Args:
        b: the builder.
        size: bytes of an element.
        source: the address of element (0, 0); elements lie side by side along r, `step` bytes apart along i.
        step: see above.
        target: the address of rows of TILE elements.
        length, rows: of the block.
    """
    lanes = min(16, 64 // size)
    v = _Integers(b, size, lanes)
    lines, columns = b.sdiv(length, i64(lanes)), b.sdiv(rows, i64(lanes))

    def strip(carried: Sequence[Value]) -> list[Value]:
        i, from_ = carried

        def square(inner: Sequence[Value]) -> list[Value]:
            r, at = inner
            loaded = [v.load(pointer(b, b.add(at, b.mul(step, i64(lane))))) for lane in range(lanes)]
            to = b.add(target, b.add(b.mul(r, i64(TILE * size)), b.mul(i, i64(size))))
            for lane, value in enumerate(v.transpose(loaded)):
                v.store(value, pointer(b, b.add(to, i64(lane * TILE * size))))
            return [b.add(r, i64(lanes)), b.add(at, i64(lanes * size))]

        counted_loop(b, columns, [i64(0), from_], square)
        return [b.add(i, i64(lanes)), b.add(from_, b.mul(step, i64(lanes)))]

    counted_loop(b, lines, [i64(0), source], strip)
    done, done_rows = b.mul(lines, i64(lanes)), b.mul(columns, i64(lanes))
    # What is left: the rows behind the last square of each strip, and all rows of the lines behind the last.
    _move_elements(b, v, source, step, target, (i64(0), done), (done_rows, rows))
    _move_elements(b, v, source, step, target, (done, length), (i64(0), rows))


def _move_elements(
    b: ir.IRBuilder,
    v: _Integers,
    source: Value,
    step: Value,
    target: Value,
    lines: tuple[Value, Value],
    rows: tuple[Value, Value],
) -> None:
    size = v.size

    def line(carried: Sequence[Value]) -> list[Value]:
        (i,) = carried

        def element(inner: Sequence[Value]) -> list[Value]:
            (r,) = inner
            at = b.add(source, b.add(b.mul(i, step), b.mul(r, i64(size))))
            to = b.add(target, b.add(b.mul(r, i64(TILE * size)), b.mul(i, i64(size))))
            one = b.load(pointer(b, at), typ=v.element)
            one.align = 1
            b.store(one, pointer(b, to)).align = 1
            return [b.add(r, i64(1))]

        counted_loop(b, b.sub(rows[1], rows[0]), [rows[0]], element)
        return [b.add(i, i64(1))]

    counted_loop(b, b.sub(lines[1], lines[0]), [lines[0]], line)


class _Integers(Vectors):
    """Vectors of elements of any size, which are only moved."""

    def __init__(self, builder: ir.IRBuilder, size: int, lanes: int):
        super().__init__(builder, "float32", lanes)
        self.size = size
        self.element = ir.IntType(8 * size)
        self.type = ir.VectorType(self.element, lanes)


def emit_places(
    builder: ir.IRBuilder,
    block: Value,
    index: Value,
    program: tuple[Any, ...],
    modes: tuple[str, ...],
    arrays: tuple[int, ...],
    count: int,
    lanes: int,
    unroll: int,
    masks: bool,
    past: bool,
) -> None:
    """The task of a pointwise program.

    Args:
        builder, block, index: of the task.
        program: `Program.key`.
        modes: of each operand, inputs then outputs: "side", "splat", "apart" or "turned".
        arrays: for each operand, the number of its array in the call.
        count: how many arrays the call has.
        lanes: of a vector.
        unroll: vectors at a time.
        masks: whether tails are done under a mask.
        past: whether the one output, side by side, is written past the caches.
    """
    made = Program(*program)
    Places(builder, block, made, modes, arrays, count, lanes, unroll, masks, past).task(index)
