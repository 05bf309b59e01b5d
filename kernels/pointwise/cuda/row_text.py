"""The text of row programs; see `rows.py` for what it does and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..instructions import TABLE
from ..program import Program, operands_of
from ..stages import Stage, staged
from .emitters import loaded, registers, start_of, stored
from .operands import operand_names
from .source import NAME, indented, instructions, needed

UNIT, ZERO, STEP = "unit", "zero", "step"
_COMBINED = {
    "reduce_sum": "{0} + {1}",
    "reduce_mean": "{0} + {1}",
    "reduce_prod": "{0} * {1}",
    "reduce_max": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "reduce_min": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
}
_COMBINED_BOOL = {"reduce_max": "{0} | {1}", "reduce_min": "{0} & {1}"}
_ROW = {
    "reduce_sum": "row_sum",
    "reduce_mean": "row_sum",
    "reduce_prod": "row_prod",
    "reduce_max": "row_max",
    "reduce_min": "row_min",
}


@dataclass(frozen=True)
class RowForm:
    """Which code a call of a row program needs.

    Attributes:
        program: what is computed.
        rows, elements: how each operand goes along the axis of rows, and the innermost one of a row.
        spans: of each operand, whether it goes along a row at all.
        others: axes that are not reduced, beside that of rows.
        depth: reduced axes.
        whole: whether a row is in registers.
        starts: whether operands begin beside their address.
        part: where several programs share a row, the stage that they compute, or the number of stages for
            what is made of all of them; None where a program has whole rows.
    """

    program: Program
    rows: tuple[str, ...]
    elements: tuple[str, ...]
    spans: tuple[bool, ...]
    others: int
    depth: int
    whole: bool
    starts: bool
    part: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether it puts the parts of rows together, and has none itself."""
        return self.part == len(staged(self.program, False).stages)

    def partials(self) -> list[int]:
        """The reductions whose parts are in memory: those of its stage, and of the ones before."""
        assert self.part is not None
        stages = staged(self.program, False).stages[: self.part + 1]
        return [number for stage in stages for number in stage.reductions]

    def is_vector(self, k: int) -> bool:
        """Whether an operand lies side by side along one of the axes."""
        return UNIT in (self.rows[k], self.elements[k])

    def numbers(self) -> list[str]:
        """The parameters that are numbers: lengths to divide by, then steps."""
        found = [f"len{i}" for i in range(self.others - 1)]
        for i in range(self.depth - 1) if self.whole else range(1, self.depth - 1):
            found += [f"part{i}", f"mul{i}", f"shift{i}"]
        for k, name in enumerate(operand_names(self.program)):
            found += [f"{name}_row"] if self.rows[k] == STEP else []
            found += [f"{name}_element"] if self.elements[k] == STEP else []
            found += [f"{name}_{i}" for i in range(self.others)]
            found += [f"{name}_part{i}" for i in range(1, self.depth)] if self.spans[k] else []
            found += [f"{name}_start"] if self.starts else []
        return found


def text_of(form: RowForm) -> str:
    """The source."""
    pointers = operand_names(form.program)
    head = [*pointers, "rows", "row_tiles", "length", "total", *form.numbers()]
    constants = ["R", "C", "MULTIPLE", "WIDE"]
    if form.part is not None:
        head += [f"w{number}" for number in form.partials()] + ["parts"]
        head += [] if form.is_last else ["part_steps", "steps", "line_steps"]
        constants.append("PARTS")
    lines = _places(form)
    lines += [f"{name}_at = {_row_address(form, k, name)}" for k, name in enumerate(pointers)]
    names: dict[int, str] = {}
    for k, dtype in enumerate(form.program.inputs):
        if not form.spans[k]:
            mask = ", mask=row_ok" if form.rows[k] != ZERO else ""
            lines.append(f"v{k} = {loaded(f'tl.load({pointers[k]}_at{mask})', dtype)}")
            names[k] = f"v{k}"
    if form.part is not None:
        lines += _part(form, names)
    else:
        lines += _in_registers(form, names) if form.whole else _by_loops(form, names)
    if form.part is None or form.is_last:
        lines += _row_stores(form, names)
    signature = f"def {NAME}({', '.join([*head, *(f'{name}: tl.constexpr' for name in constants)])}):"
    return "\n".join(["@triton.jit", signature, *indented(lines)]) + "\n"


def _row_stores(form: RowForm, names: dict[int, str]) -> list[str]:
    """The lines that store outputs of one number a row."""
    program, lines = form.program, []
    for i, number in enumerate(program.outputs):
        k = len(program.inputs) + i
        if not program.full[number]:
            value = stored(names[number], program.dtypes[number])
            beside = " + row * 0" if form.rows[k] == ZERO else ""
            lines.append(f"tl.store({operand_names(program)[k]}_at{beside}, {value}, mask=row_ok)")
    return lines


def _places(form: RowForm) -> list[str]:
    """The lines that say which rows are this program's, and which part of them."""
    lines = ["place = tl.program_id(0)"]
    if form.part is not None and not form.is_last:
        lines += ["rest = place // parts", "part = place - rest * parts", "place = rest"]
    rows, span = " * MULTIPLE" * (UNIT in form.rows), " * MULTIPLE" * (UNIT in form.elements)
    lines += [
        "if WIDE:",
        "    place = place.to(tl.int64)",
        f"    count = rows.to(tl.int64){rows}",
        f"    span = length.to(tl.int64){span}",
        "else:",
        f"    count = rows{rows}",
        f"    span = length{span}",
        "outer = place // row_tiles",
        "row = ((place - outer * row_tiles) * R + tl.arange(0, R))[:, None]",
        "row_ok = row < count",
    ]
    if form.part is not None:
        lines.append("number = outer * count + row")
    for i in range(form.others):
        if i < form.others - 1:
            lines += [f"left{i} = outer // len{i}", f"p{i} = outer - left{i} * len{i}", f"outer = left{i}"]
        else:
            lines.append(f"p{i} = outer")
    return lines


def _times(form: RowForm, k: int, what: str, step: str) -> str:
    """`what` steps. From the left: in 64 bits where `what` is, whatever the step is told as."""
    return f"{what} * {step}" + (" * MULTIPLE" if form.is_vector(k) else "")


def _row_address(form: RowForm, k: int, name: str) -> str:
    """Where an operand's rows begin."""
    terms = [_times(form, k, f"{name}_start.to(tl.int64)", "1")] if form.starts else []
    terms += [_times(form, k, f"p{i}", f"{name}_{i}") for i in range(form.others)]
    text = name + (f" + ({' + '.join(terms)})" if terms else "")
    if form.rows[k] != ZERO:
        text += " + row" if form.rows[k] == UNIT else f" + {_times(form, k, 'row', f'{name}_row')}"
    return text


def _element_address(form: RowForm, k: int, name: str) -> str:
    """Where the elements of this step are."""
    terms = []
    if form.elements[k] != ZERO:
        terms.append("e0" if form.elements[k] == UNIT else _times(form, k, "e0", f"{name}_element"))
    terms += [_times(form, k, f"e{i}", f"{name}_part{i}") for i in range(1, form.depth)]
    return f"{name}_at + ({' + '.join(terms)})"


def _taken_apart(form: RowForm, begin: int) -> list[str]:
    """The lines that take the number e<begin> apart into places along the reduced axes from there on."""
    lines = []
    for i in range(begin, form.depth - 1):
        lines += [
            f"e{i + 1} = divided(e{i}.to(tl.int32), mul{i}, shift{i})",
            f"e{i} = e{i} - e{i + 1} * part{i}",
        ]
    if form.depth > 1:
        lines += ["if WIDE:", *(f"    e{i} = e{i}.to(tl.int64)" for i in range(begin, form.depth))]
    return lines


def _loads(form: RowForm, wanted: Sequence[int], names: dict[int, str], tag: str) -> list[str]:
    """The lines that load inputs which go along the rows."""
    pointers, lines = operand_names(form.program), []
    for k in wanted:
        mask = "ok" if form.rows[k] != ZERO else "element_ok"
        dtype = form.program.inputs[k]
        load = f"tl.load({_element_address(form, k, pointers[k])}, mask={mask})"
        names[k] = f"v{k}{tag}"
        lines.append(f"{names[k]} = {loaded(load, dtype)}")
    return lines


def _given(form: RowForm, names: dict[int, str], what: str, source: str, tag: str = "") -> list[str]:
    """The lines of the values of one kind, `index` or `length`, made of a whole number."""
    lines = []
    for place, instruction in enumerate(form.program.instructions):
        if instruction[0] == what:
            number, kind = len(form.program.inputs) + place, instruction[-1]
            names[number] = f"v{number}{tag}"
            text = f"{source} != 0" if kind == "bool" else f"{source}.to(tl.{registers(kind)})"
            lines.append(f"{names[number]} = {text}")
    return lines


def _stores(form: RowForm, outputs: Sequence[int], names: dict[int, str]) -> list[str]:
    """The lines that store outputs which go along the rows."""
    program, lines = form.program, []
    for i in outputs:
        k, number = len(program.inputs) + i, program.outputs[i]
        address = _element_address(form, k, operand_names(program)[k])
        if form.rows[k] == ZERO:
            address += " + row * 0"
        if form.elements[k] == ZERO and form.depth == 1:
            address = f"{operand_names(program)[k]}_at + (row * 0 + e0 * 0)"
        lines.append(f"tl.store({address}, {stored(names[number], program.dtypes[number])}, mask=ok)")
    return lines


def _total(name: str, dtype: str, tile: str) -> str:
    """The reduction of a tile of terms, without those that are not there; of bool as int32."""
    return f"{_ROW[name]}({tile}{'.to(tl.int32)' if dtype == 'bool' else ''})"


def _finished(name: str, dtype: str, total: str) -> str:
    """What a reduction gives, made of its total."""
    if name == "reduce_mean":
        return f"exact_quotient({total}, total.to(tl.{registers(dtype)}))"
    return f"{total} != 0" if dtype == "bool" else total


def _term(value: str, name: str, dtype: str) -> str:
    """A term of a reduction: what changes nothing in the place of elements that are not there."""
    return f"tl.where(element_ok, {value}, {_start(name, dtype)})"


def _start(name: str, dtype: str) -> str:
    return f"tl.full([], {start_of(name, dtype)}, tl.{registers(dtype)})"


def _in_registers(form: RowForm, names: dict[int, str]) -> list[str]:
    """The program from its first instruction to its last."""
    program, first = form.program, len(form.program.inputs)
    lines = ["position = tl.arange(0, C)[None, :]", "if WIDE:", "    position = position.to(tl.int64)"]
    if form.depth == 1:
        lines += ["e0 = position", "element_ok = e0 < span"]
    else:
        lines += ["element_ok = position < total", "e0 = position"]
        lines += _taken_apart(form, 0)
    lines.append("ok = row_ok & element_ok")
    lines += _loads(form, [k for k in range(first) if form.spans[k]], names, "")
    lines += _given(form, names, "length", "total") + _given(form, names, "index", "position")
    for place, instruction in enumerate(program.instructions):
        number = first + place
        if number in names:
            continue
        if TABLE[instruction[0]].reduces:
            (operand,) = operands_of(instruction)
            term = _term(names[operand], instruction[0], program.dtypes[number])
            names[number] = f"v{number}"
            total = _total(instruction[0], program.dtypes[number], term)
            lines.append(f"v{number} = {_finished(instruction[0], program.dtypes[number], total)}")
        else:
            lines += instructions(program, names, [number])
    return lines + _stores(form, [i for i, n in enumerate(program.outputs) if program.full[n]], names)


def _by_loops(form: RowForm, names: dict[int, str]) -> list[str]:
    """A loop over the row for each stage."""
    lines = _given(form, names, "length", "total")
    for place, stage in enumerate(staged(form.program, False).stages):
        lines += _row_values(form.program, names)
        lines += _stage(form, names, f"_{place}", stage)
        for number in stage.reductions:
            name, dtype = reduction(form.program, number)
            total = _total(name, dtype, f"t{number}")
            lines.append(f"v{number} = {_finished(name, dtype, total)}")
            names[number] = f"v{number}"
    return lines + _row_values(form.program, names)


def _part(form: RowForm, names: dict[int, str]) -> list[str]:
    """One stage over a part of the rows, or what is made of all parts in the end."""
    program, stages = form.program, staged(form.program, False).stages
    assert form.part is not None
    lines = _given(form, names, "length", "total")
    lines += ["piece = tl.arange(0, PARTS)[None, :]", "piece_ok = row_ok & (piece < parts)"]
    for stage in stages[: form.part]:
        lines += _row_values(program, names)
        for number in stage.reductions:
            name, dtype = reduction(program, number)
            start = f"tl.full([], {start_of(name, dtype)}, tl.{_kept_dtype(dtype)})"
            load = f"tl.load(w{number} + (number * parts + piece), mask=piece_ok)"
            total = f"{_ROW[name]}(tl.where(piece_ok, {load}, {start}))"
            lines.append(f"v{number} = {_finished(name, dtype, total)}")
            names[number] = f"v{number}"
    lines += _row_values(program, names)
    if form.is_last:
        return lines
    stage = stages[form.part]
    lines += ["first_step = part * part_steps", "last_step = tl.minimum(first_step + part_steps, steps)"]
    lines += _stage(form, names, "", stage)
    for number in stage.reductions:
        total = _total(*reduction(program, number), f"t{number}")
        lines.append(f"tl.store(w{number} + (number * parts + part), {total}, mask=row_ok)")
    return lines


def reduction(program: Program, number: int) -> tuple[str, str]:
    """The name and the dtype of a reduction."""
    return program.instructions[number - len(program.inputs)][0], program.dtypes[number]


def _kept_dtype(dtype: str) -> str:
    """The dtype of a reduction's total in memory."""
    return "int32" if dtype == "bool" else registers(dtype)


def _row_values(program: Program, names: dict[int, str]) -> list[str]:
    """The lines of all row values that are known by now."""
    lines, first = [], len(program.inputs)
    for place, instruction in enumerate(program.instructions):
        number = first + place
        known = all(operand in names for operand in operands_of(instruction))
        if number in names or program.full[number] or TABLE[instruction[0]].reduces or not known:
            continue
        lines += instructions(program, names, [number])
    return lines


def _stage(form: RowForm, names: dict[int, str], tag: str, stage: Stage) -> list[str]:
    """One way through the rows, or this program's part of it: the totals t<number>, and outputs."""
    program, first = form.program, len(form.program.inputs)
    lines = []
    for number in stage.reductions:
        name, dtype = reduction(program, number)
        lines.append(f"t{number} = tl.full([R, C], {start_of(name, dtype)}, tl.{registers(dtype)})")
    inside = dict(names)
    terms = [operands_of(program.instructions[number - first])[0] for number in stage.reductions]
    wanted = [*terms, *(program.outputs[i] for i in stage.outputs)]
    step = [
        "e0 = base + tl.arange(0, C)[None, :]",
        "element_ok = e0 < span",
        "if WIDE:",
        "    e0 = e0.to(tl.int64)",
        "ok = row_ok & element_ok",
    ]
    step.append("position = line * span + e0" if form.depth > 1 else "position = e0")
    step += _given(form, inside, "index", "position", tag)
    step += _loads(form, [k for k in needed(program, wanted, inside) if k < first], inside, tag)
    step += instructions(program, inside, wanted, tag)
    for number, term in zip(stage.reductions, terms, strict=True):
        name, dtype = reduction(program, number)
        combined = _COMBINED_BOOL[name] if dtype == "bool" else _COMBINED[name]
        one = _term(inside[term], name, dtype)
        step.append(f"t{number} = {combined.format(f't{number}', one)}")
    step += _stores(form, stage.outputs, inside)
    line = ["e1 = line", *_taken_apart(form, 1)] if form.depth > 1 else []
    if form.part is not None:
        begin = ["line = step // line_steps", "base = step - line * line_steps"]
        begin += ["if WIDE:", "    base = base.to(tl.int64)", "base = base * C"]
        return [*lines, "for step in range(first_step, last_step):", *indented([*begin, *line, *step])]
    loop = ["for base in range(0, span, C):", *indented(step)]
    if form.depth > 1:
        loop = ["for line in range(0, total // span):", *indented([*line, *loop])]
    return [*lines, *loop]
