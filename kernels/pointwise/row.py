"""The code for one row of a row program, or for a few vectors of rows: its stages, one after the other.

See `rows.py`, which finds the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llvmlite import ir

from ..cpu.lanes import Lanes, computed, lane_numbers, register_bytes
from ..cpu.vector_ir import I32, counted_loop, i64, offset, pointer
from .emitters import start_of, step
from .places import APART, SPLAT, branch, compute, least
from .program import operands_of
from .stages import Stage

if TYPE_CHECKING:
    from .rows import Rows

Value: TypeAlias = ir.Value


class Row:
    """Emits what happens to one row, or (across) to `groups` vectors of rows."""

    def __init__(self, rows: Rows, ats: Sequence[Value], lanes: Lanes, groups: int, valid: Value | None):
        self.rows = rows
        self.b = rows.b
        self.program = rows.program
        self.ats = ats
        self.lanes = lanes
        self.groups = groups
        self.masks: list[Value | None] = [None] * groups
        if valid is not None:
            self.masks = [lanes.tail(rows.b.sub(valid, i64(group * lanes.lanes))) for group in range(groups)]
        self.known: dict[int, list[Value]] = {}

    # --- rows as a whole ------------------------------------------------------------------------------------

    def run(self) -> None:
        """All stages."""
        program = self.program
        for k in program.rows:
            self.known[k] = self._row_input(k)
        self._known_before(0)
        phase, stages = self.rows.phase, self.rows.stages.stages
        if phase == "part":
            self._leave(stages[0], self._totals(stages[0]))
            return
        for number, stage in enumerate(stages):
            totals = self._ended(stage, self._collected(stage) if phase == "rest" else self._totals(stage))
            for reduction, total in zip(stage.reductions, totals, strict=True):
                self.known[reduction] = self._finished(reduction, total)
            self._known_before(number + 1)
        for output in self.rows.stages.row_outputs:
            self._row_output(output)

    def _row_groups(self) -> int:
        """Vectors of a row value: one where all lanes are the same row."""
        return self.groups if self.rows.across else 1

    def _row_input(self, k: int) -> list[Value]:
        dtype, at = self.rows.dtypes[k], self.ats[k]
        if not self.rows.across or self.rows.modes[k] == SPLAT:
            return [self.lanes.load_one(dtype, pointer(self.b, at))] * self._row_groups()
        return [self._load(k, at, i64(0), group, self.masks[group]) for group in range(self.groups)]

    def _row_output(self, output: int) -> None:
        b, k = self.b, self.rows.count_in + output
        dtype, at, values = self.rows.dtypes[k], self.ats[k], self.known[self.program.outputs[output]]
        if not self.rows.across:
            self.lanes.store_first(dtype, values[0], pointer(b, at))
            return
        for group, value in enumerate(values):
            self._store(k, at, i64(0), group, value, self.masks[group])

    def _known_before(self, stage: int) -> None:
        """Computes the row values that are known before a stage."""
        first = len(self.program.inputs)
        for number, ready in sorted(self.rows.stages.ready.items()):
            if ready > stage or number in self.known or number < first:
                continue
            instruction = self.program.instructions[number - first]
            if instruction[0] == "length":
                dtype = self.program.dtypes[number]
                one = self.lanes.splat(self.rows.total)
                self.known[number] = [self.lanes.cast(one, "int64", dtype)] * self._row_groups()
            else:
                self.known = compute(self.lanes, self.program, self.known, self._row_groups(), [number])

    def _finished(self, reduction: int, total: list[Value]) -> list[Value]:
        """The value of a reduction from its totals."""
        name, operand = self.program.instructions[reduction - len(self.program.inputs)]
        dtype = self.program.dtypes[operand]
        if name == "reduce_mean":
            count = self.lanes.cast(self.lanes.splat(self.rows.total), "int64", computed(dtype))
            return [self.b.fdiv(value, count) for value in total]
        return total

    # --- one stage ------------------------------------------------------------------------------------------

    def _totals(self, stage: Stage) -> list[list[Value]]:
        """Goes through the row, or the part of it, once: vectors for each of the stage's reductions."""
        b, rows = self.b, self.rows
        starts = self._starts(stage, self.lanes)
        totals = [vector for vectors in starts for vector in vectors[: self._row_groups()]]

        if rows.single:
            walk = self._line_across if rows.across else self._line_along
            return self._by_reduction(stage, walk(stage, self.ats, i64(0), totals))

        def line(carried: Sequence[Value]) -> list[Value]:
            number, *sums = carried
            ats = rows.outside(rows.axes[0], rows.axes[1], number, self.ats)
            if rows.across:
                sums = self._line_across(stage, ats, number, sums)
            else:
                sums = self._line_along(stage, ats, number, sums)
            return [b.add(number, i64(1)), *sums]

        size = rows.word("line_piece")

        def group(carried: Sequence[Value]) -> list[Value]:
            number, *sums = carried
            count = least(b, size, b.sub(rows.last_line, number))
            after, *found = counted_loop(b, count, [number, *totals], line)
            owners = [reduction for reduction in stage.reductions for _ in range(self._row_groups())]
            return [after, *(self._step(self.lanes, *each) for each in zip(owners, sums, found, strict=True))]

        groups = _pieces(b, b.sub(rows.last_line, rows.first_line), size)
        flat = counted_loop(b, groups, [rows.first_line, *totals], group)[1:]
        return self._by_reduction(stage, flat)

    def _by_reduction(self, stage: Stage, flat: Sequence[Value]) -> list[list[Value]]:
        width = self._row_groups()
        return [list(flat[i * width : (i + 1) * width]) for i in range(len(stage.reductions))]

    def _ended(self, stage: Stage, totals: list[list[Value]]) -> list[list[Value]]:
        """The totals of rows, from those of lanes."""
        if self.rows.across:
            return totals
        return [
            [self._folded(reduction, vectors[0])]
            for reduction, vectors in zip(stage.reductions, totals, strict=True)
        ]

    # --- parts ----------------------------------------------------------------------------------------------

    def _left(self, stage: Stage, slot: Value) -> list[tuple[str, Value]]:
        """(dtype, where) of the vectors that a part leaves in scratch, one behind the other."""
        b, places = self.b, []
        room = 8 * self.rows.lanes * self.rows.unroll
        at = b.mul(slot, i64(room * len(stage.reductions)))
        at = b.add(self.rows.read(self.rows.words.scratch), at)
        for i, reduction in enumerate(stage.reductions):
            for group in range(self._row_groups()):
                where = i64(i * room + group * 8 * self.lanes.lanes)
                places.append((self._summed(reduction), pointer(b, b.add(at, where))))
        return places

    def _leave(self, stage: Stage, totals: list[list[Value]]) -> None:
        vectors = [vector for vectors in totals for vector in vectors]
        for (dtype, ptr), vector in zip(self._left(stage, self.rows.slot), vectors, strict=True):
            self.lanes.store(dtype, vector, ptr)

    def _collected(self, stage: Stage) -> list[list[Value]]:
        """What all parts have left, put together in their order."""
        b, width = self.b, self._row_groups()

        def part(carried: Sequence[Value]) -> list[Value]:
            slot, *totals = carried
            places = self._left(stage, slot)
            added = [
                self._step(self.lanes, stage.reductions[i // width], total, self.lanes.load(dtype, ptr))
                for i, (total, (dtype, ptr)) in enumerate(zip(totals, places, strict=True))
            ]
            return [b.add(slot, i64(1)), *added]

        starts = [v for vectors in self._starts(stage, self.lanes) for v in vectors[:width]]
        flat = counted_loop(b, self.rows.word("parts"), [self.rows.slot, *starts], part)[1:]
        return self._by_reduction(stage, flat)

    def _starts(self, stage: Stage, lanes: Lanes) -> list[list[Value]]:
        return [
            [start_of(lanes, self._name(reduction), self._summed(reduction))] * self.groups
            for reduction in stage.reductions
        ]

    def _name(self, reduction: int) -> str:
        name: str = self.program.instructions[reduction - len(self.program.inputs)][0]
        return name

    def _summed(self, reduction: int) -> str:
        """The dtype in which a reduction is added up."""
        return computed(self.program.dtypes[reduction])

    def _step(self, lanes: Lanes, reduction: int, total: Value, value: Value) -> Value:
        return step(lanes, self._name(reduction), self._summed(reduction), total, value)

    def _folded(self, reduction: int, vector: Value) -> Value:
        """All lanes of a vector as one, in every lane."""
        b, count = self.b, self.lanes.lanes
        undefined = ir.Constant(vector.type, ir.Undefined)
        width = count
        while width > 1:
            width //= 2
            order = ir.Constant(ir.VectorType(I32, count), [(i + width) % count for i in range(count)])
            other = b.shuffle_vector(vector, undefined, order)
            vector = self._step(self.lanes, reduction, vector, other)
        return self.lanes.splat(b.extract_element(vector, ir.Constant(I32, 0)))

    # --- along ----------------------------------------------------------------------------------------------

    def _line_along(self, stage: Stage, ats: Sequence[Value], line: Value, sums: list[Value]) -> list[Value]:
        b, rows, lanes = self.b, self.rows, self.lanes
        place = b.mul(line, rows.length)
        splats = self._splats(lanes, ats)
        group = lanes.lanes * self.groups
        apart = not rows.masks
        size = b.mul(rows.word("piece"), i64(lanes.lanes))

        def piece(carried: Sequence[Value]) -> list[Value]:
            start, *sums = carried
            end = least(b, b.add(start, size), rows.last)
            flat = [vector for vectors in self._starts(stage, lanes) for vector in vectors]

            def vectors(state: Sequence[Value]) -> list[Value]:
                values = self._at(stage, lanes, ats, splats, place, state[0], self.groups, None)
                return [b.add(state[0], i64(group)), *self._added(stage, lanes, state[1:], values, None)]

            whole = b.sdiv(b.sub(end, start), i64(group))
            if rows.masks and self.groups == 1:
                whole = i64(0)
            at, *flat = (
                counted_loop(b, whole, [start, *flat], vectors) if not _is_zero(whole) else [start, *flat]
            )
            found = [self._combined(r, flat[i * self.groups : (i + 1) * self.groups])
                     for i, r in enumerate(stage.reductions)]  # fmt: skip
            if rows.masks:

                def masked(state: Sequence[Value]) -> list[Value]:
                    mask = lanes.tail(b.sub(end, state[0]))
                    values = self._at(stage, lanes, ats, splats, place, state[0], 1, [mask])
                    added = self._added(stage, lanes, state[1:], values, [mask])
                    return [b.add(state[0], i64(lanes.lanes)), *added]

                left = b.sdiv(b.add(b.sub(end, at), i64(lanes.lanes - 1)), i64(lanes.lanes))
                _, *found = counted_loop(b, left, [at, *found], masked)
            elif self.groups > 1:

                def single(state: Sequence[Value]) -> list[Value]:
                    values = self._at(stage, lanes, ats, splats, place, state[0], 1, None)
                    added = self._added(stage, lanes, state[1:], values, None)
                    return [b.add(state[0], i64(lanes.lanes)), *added]

                left = b.sdiv(b.sub(end, at), i64(lanes.lanes))
                _, *found = counted_loop(b, left, [at, *found], single)
            sums = [self._step(lanes, r, s, f) for r, s, f in zip(stage.reductions, sums, found, strict=True)]
            return [b.add(start, size), *sums]

        # Without masks, the last elements of a line are done one by one, behind all pieces.
        if rows.short:
            sums = piece([rows.first, *sums])[1:]
        else:
            pieces = _pieces(b, b.sub(rows.last, rows.first), size)
            _, *sums = counted_loop(b, pieces, [rows.first, *sums], piece)
        return self._elements(stage, ats, place, sums) if apart else sums

    def _elements(self, stage: Stage, ats: Sequence[Value], place: Value, sums: list[Value]) -> list[Value]:
        """The elements of a line behind its last whole vector."""
        b, one = self.b, Lanes(self.b, 1)
        row = Row(self.rows, self.ats, one, 1, None)
        first = ir.Constant(I32, 0)
        row.known = {n: [one.splat(b.extract_element(v[0], first))] for n, v in self.known.items()}
        splats = row._splats(one, ats)
        flat = [vector for vectors in row._starts(stage, one) for vector in vectors]

        def element(state: Sequence[Value]) -> list[Value]:
            values = row._at(stage, one, ats, splats, place, state[0], 1, None)
            return [b.add(state[0], i64(1)), *row._added(stage, one, state[1:], values, None)]

        last = self.rows.last
        start = b.mul(b.sdiv(last, i64(self.lanes.lanes)), i64(self.lanes.lanes))
        _, *found = counted_loop(b, b.sub(last, start), [start, *flat], element)
        return [
            self._with_one(reduction, total, b.extract_element(value, first))
            for reduction, total, value in zip(stage.reductions, sums, found, strict=True)
        ]

    def _with_one(self, reduction: int, total: Value, scalar: Value) -> Value:
        """A total with one more number, which goes into its first lane."""
        start = start_of(self.lanes, self._name(reduction), self._summed(reduction))
        return self._step(
            self.lanes, reduction, total, self.b.insert_element(start, scalar, ir.Constant(I32, 0))
        )

    def _combined(self, reduction: int, vectors: Sequence[Value]) -> Value:
        total, *others = vectors
        for other in others:
            total = self._step(self.lanes, reduction, total, other)
        return total

    # --- across ---------------------------------------------------------------------------------------------

    def _line_across(self, stage: Stage, ats: Sequence[Value], line: Value, sums: list[Value]) -> list[Value]:
        b, rows = self.b, self.rows
        count = rows.word("count")
        first, size = b.mul(line, count), rows.word("piece")
        ats = [b.add(at, b.mul(rows.first, far)) for at, far in zip(ats, rows.far, strict=True)]

        def piece(carried: Sequence[Value]) -> list[Value]:
            start, *rest = carried
            ats, sums = rest[: len(self.ats)], rest[len(self.ats) :]
            end = least(b, b.add(start, size), rows.last)
            flat = [vector for vectors in self._starts(stage, self.lanes) for vector in vectors]

            def element(state: Sequence[Value]) -> list[Value]:
                at, *more = state
                places, totals = more[: len(self.ats)], more[len(self.ats) :]
                splats = self._splats(self.lanes, places)
                place = b.add(first, at)
                values = self._at(stage, self.lanes, places, splats, place, i64(0), self.groups, self.masks)
                added = self._added(stage, self.lanes, totals, values, None)
                moved = [b.add(p, far) for p, far in zip(places, rows.far, strict=True)]
                return [b.add(at, i64(1)), *moved, *added]

            found = counted_loop(b, b.sub(end, start), [start, *ats, *flat], element)[1:]
            ats, found = found[: len(ats)], found[len(ats) :]
            width = self.groups
            sums = [
                self._step(self.lanes, reduction, sums[i * width + group], found[i * width + group])
                for i, reduction in enumerate(stage.reductions)
                for group in range(width)
            ]
            return [end, *ats, *sums]

        if rows.short:
            return piece([rows.first, *ats, *sums])[1 + len(ats) :]
        pieces = _pieces(b, b.sub(rows.last, rows.first), size)
        return counted_loop(b, pieces, [rows.first, *ats, *sums], piece)[1 + len(ats) :]

    # --- some vectors ---------------------------------------------------------------------------------------

    def _splats(self, lanes: Lanes, ats: Sequence[Value]) -> dict[int, Value]:
        """Full inputs that are the same all along a vector."""
        return {
            k: lanes.load_one(self.rows.dtypes[k], pointer(self.b, ats[k]))
            for k in range(self.rows.count_in)
            if self.rows.modes[k] == SPLAT and k not in self.program.rows
        }

    def _load(self, k: int, at: Value, i: Value, group: int, mask: Value | None) -> Value:
        """A vector of input k, `i` places and `group` vectors from an address."""
        return self._move(self.lanes, k, at, i, group, mask, None)

    def _store(self, k: int, at: Value, i: Value, group: int, value: Value, mask: Value | None) -> None:
        self._move(self.lanes, k, at, i, group, mask, value)

    def _move(
        self, lanes: Lanes, k: int, at: Value, i: Value, group: int, mask: Value | None, value: Value | None
    ) -> Value:
        b, rows = self.b, self.rows
        i = b.add(i, i64(group * lanes.lanes)) if group else i
        dtype = rows.dtypes[k]
        if rows.modes[k] == APART:
            ptr = pointer(b, b.add(at, b.mul(i, rows.near[k])))
            if value is None:
                return lanes.load_apart(dtype, ptr, rows.near[k])
            return lanes.store_apart(dtype, value, ptr, rows.near[k])
        ptr = offset(b, pointer(b, at), b.mul(i, i64(rows.bytes[k])))
        if value is None:
            return lanes.load(dtype, ptr, mask)
        return lanes.store(dtype, value, ptr, mask)

    def _slot(self, number: int, lanes: Lanes, place: Value, i: Value, group: int) -> Value:
        """The address of a vector of what is kept."""
        b, size = self.b, register_bytes(self.program.dtypes[number])
        if self.rows.across:
            at = b.mul(place, i64(size * lanes.lanes * self.groups))
            at = b.add(at, i64(group * lanes.lanes * size))
        else:
            at = b.mul(b.add(b.add(place, i), i64(group * lanes.lanes)), i64(size))
        return pointer(b, b.add(self.rows.slots[number], at))

    def _at(
        self,
        stage: Stage,
        lanes: Lanes,
        ats: Sequence[Value],
        splats: dict[int, Value],
        place: Value,
        i: Value,
        groups: int,
        masks: Sequence[Value | None] | None,
    ) -> dict[int, list[Value]]:
        """Loads, computes and stores `groups` vectors; returns what the reductions take.

        `place` is the position in the row of the line (along) or of the element (across), `i` that in the
        line (along).
        """
        program, first = self.program, len(self.program.inputs)
        masks = masks or [None] * groups
        given = {number: self._spread(vectors, groups) for number, vectors in self.known.items()}
        given |= {k: [splat] * groups for k, splat in splats.items()}
        taken = {r: operands_of(program.instructions[r - first])[0] for r in stage.reductions}
        wanted = [*taken.values(), *stage.kept, *(program.outputs[output] for output in stage.outputs)]
        for number in self._leaves(wanted, given, stage):
            if number < first:
                given[number] = [
                    self._move(lanes, number, ats[number], i, g, masks[g], None) for g in range(groups)
                ]
            elif number in self.rows.slots:
                kind = computed(program.dtypes[number])
                given[number] = [
                    lanes.load(kind, self._slot(number, lanes, place, i, g)) for g in range(groups)
                ]
            else:
                given[number] = [self._index(number, lanes, place, i, g) for g in range(groups)]
        values = compute(lanes, program, given, groups, wanted)
        for number in stage.kept:
            kind = computed(program.dtypes[number])
            for g in range(groups):
                lanes.store(kind, values[number][g], self._slot(number, lanes, place, i, g))
        for output in stage.outputs:
            k = first + output
            for g in range(groups):
                self._move(lanes, k, ats[k], i, g, masks[g], values[program.outputs[output]][g])
        return {r: values[number] for r, number in taken.items()}

    def _leaves(self, wanted: Sequence[int], given: dict[int, Any], stage: Stage) -> list[int]:
        """What has to be loaded: inputs, kept values of earlier stages, positions."""
        program, first = self.program, len(self.program.inputs)
        found: set[int] = set()
        waiting, seen = list(wanted), set[int]()
        while waiting:
            number = waiting.pop()
            if number in given or number in seen:
                continue
            seen.add(number)
            kept = number in self.rows.slots and number not in stage.kept
            if number < first or kept or program.instructions[number - first][0] == "index":
                found.add(number)
            else:
                waiting += operands_of(program.instructions[number - first])
        return sorted(found)

    def _spread(self, vectors: list[Value], groups: int) -> list[Value]:
        return vectors if self.rows.across else vectors[:1] * groups

    def _index(self, number: int, lanes: Lanes, place: Value, i: Value, group: int) -> Value:
        """The positions in the row."""
        b, dtype = self.b, self.program.dtypes[number]
        if self.rows.across:
            return lanes.cast(lanes.splat(place), "int64", dtype)
        at = b.add(b.add(place, i), i64(group * lanes.lanes))
        splat = lanes.cast(lanes.splat(at), "int64", dtype)
        whole = dtype if dtype in ("int64", "int32") else "int64"
        numbers = lanes.cast(lane_numbers(lanes, whole), whole, dtype)
        return b.add(splat, numbers)

    def _added(
        self,
        stage: Stage,
        lanes: Lanes,
        totals: Sequence[Value],
        values: dict[int, list[Value]],
        masks: Sequence[Value] | None,
    ) -> list[Value]:
        """The totals, a vector for each reduction and group, with some vectors taken in."""
        groups = len(totals) // len(stage.reductions) if stage.reductions else 0
        result = []
        for i, reduction in enumerate(stage.reductions):
            for g in range(groups):
                total = totals[i * groups + g]
                added = self._step(lanes, reduction, total, values[reduction][g])
                result.append(self.b.select(masks[g], added, total) if masks else added)
        return result


def _pieces(b: ir.IRBuilder, length: Value, size: Value) -> Value:
    """How many pieces of a size a length has, without a division where it is one."""
    more = b.icmp_signed(">", length, size)
    return branch(b, more, lambda: b.udiv(b.add(length, b.sub(size, i64(1))), size), least(b, length, i64(1)))


def _is_zero(value: Value) -> bool:
    return isinstance(value, ir.Constant) and value.constant == 0
