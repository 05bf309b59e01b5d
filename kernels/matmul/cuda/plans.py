"""From a product and a configuration to one launch of a kernel in `tile_kernels.py` or `row_kernels.py`.

Nothing here needs triton or a GPU: what is launched, with which numbers, and how much scratch it takes, are
facts of the problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...cpu.cycles import ceil_div
from .product import BATCH_AXES, Operand, Product

LONGEST = 2**31 - 2**12
"""The largest size of an axis: row and column numbers of a tile that reaches past the end are 32-bit."""
MOST_ROWS = 4
"""Above it, multiply-adds of float32 would take longer than reading B."""
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8, "float8_e4m3fn": 1}
VECTOR_BYTES = 16

_NO_TILES = {
    "bm": 1,
    "group": 1,
    "precision": "",
    "halves": False,
    "persistent": False,
    "resident": 1,
    "stages": 1,
}


@dataclass(frozen=True)
class Box:
    """What a tensor descriptor says: lengths, steps in elements (the last is 1) and the block of one copy."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]
    block: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """One launch.

    Attributes:
        function: the name of the kernel function.
        integers: its integer arguments by name.
        constants: its compile-time arguments by name.
        boxes: of the operands that go by descriptor, by name.
        programs: the size of the grid.
        sums, arrivals: scratch: float32 numbers, and int32 counters that are zero.
        warps, stages: how it is compiled.
    """

    function: str
    integers: Mapping[str, int]
    constants: Mapping[str, Any]
    boxes: Mapping[str, Box]
    programs: int
    sums: int
    arrivals: int
    warps: int
    stages: int


def size_problem(p: Product) -> str | None:
    """Why no kernel here can take a product, whatever the configuration; None when they can."""
    longest = max(p.m, p.n, p.k)
    if longest > LONGEST:
        return f"counts rows and columns in 32 bits, and an axis of {longest:,} is too long"
    return None


def unit_of(x: Operand, rows: int, columns: int, dtype: str) -> int:
    """How many elements, 16 bytes or one, the operand's steps and its contiguous length are multiples of."""
    unit = VECTOR_BYTES // ITEM_BYTES[dtype]
    if 1 not in (x.rows, x.columns):
        return 1
    step, length = (x.rows, columns) if x.columns == 1 else (x.columns, rows)
    return 1 if any(value % unit for value in (step, length, *x.batch)) else unit


def is_aligned(p: Product) -> bool:
    """Whether A and B can be loaded 16 bytes at a time."""
    return unit_of(p.a, p.m, p.k, p.dtype) > 1 and unit_of(p.b, p.k, p.n, p.dtype) > 1


def descriptor_problem(p: Product) -> str | None:
    """Why A or B cannot be behind a tensor descriptor; None when they can."""
    for name, x, rows, columns in (("a", p.a, p.m, p.k), ("b", p.b, p.k, p.n)):
        reason = _descriptor_refusal(x, rows, columns, ITEM_BYTES[p.dtype], len(p.batch))
        if reason is not None:
            return f"the copy engine cannot read {'ba'[name == 'a'] if p.turned else name}: {reason}"
    return None


def _descriptor_refusal(x: Operand, rows: int, columns: int, size: int, axes: int) -> str | None:
    if rows == 0 or columns == 0:
        return "it is empty"
    if axes > 1:
        return f"its batch has {axes} axes that no one step walks"
    if 1 not in (x.rows, x.columns):
        return "no axis has its elements side by side"
    step, length = (x.rows, columns) if x.columns == 1 else (x.columns, rows)
    if step < length:
        return f"a step of {step} elements puts rows on top of each other"
    odd = [s for s in (step, *x.batch) if s * size % VECTOR_BYTES or s * size >= 2**40]
    return f"a step of {odd[0]} elements is no multiple of 16 bytes" if odd else None


def stores_by_descriptor(p: Product) -> bool:
    """Whether C can be written by the copy engine."""
    size = ITEM_BYTES[p.out_dtype]
    if p.c.columns != 1 or len(p.batch) > 1 or p.c.rows < p.n:
        return False
    return all(s > 0 and s * size % VECTOR_BYTES == 0 and s * size < 2**40 for s in (p.c.rows, *p.c.batch))


def pointer_plans(p: Product, config: Mapping[str, Any], multiprocessors: int) -> list[Plan]:
    """The launches of `by_pointers`: one, unless the batch has more axes than a launch walks."""
    one = p.one_launch()
    return [_pointer_plan(one, config, multiprocessors, firsts) for firsts in p.outer_offsets()]


def _pointer_plan(
    p: Product, config: Mapping[str, Any], multiprocessors: int, firsts: tuple[int, int, int, int]
) -> Plan:
    splits, steps = _parts(p, config)
    outer, inner = (1, 1, *p.batch)[-BATCH_AXES:]
    integers = {"m": p.m, "n": p.n, "k": p.k, "batch": outer * inner, "inner": inner}
    integers |= {"splits": splits, "steps_of_part": steps}
    nothing = Operand(0, 0, (0,) * len(p.batch))
    operands = (("a", p.a, "ms", "ks"), ("b", p.b, "ks", "ns"), ("c", p.c, "ms", "ns"))
    for (name, x, rows, columns), first in zip(
        (*operands, ("r", p.residual or nothing, "ms", "ns")), firsts, strict=True
    ):
        outer_step, inner_step = (0, 0, *x.batch)[-BATCH_AXES:]
        integers |= {f"{name}_first": first, f"{name}_os": outer_step, f"{name}_is": inner_step}
        integers |= {f"{name}_{rows}": x.rows, f"{name}_{columns}": x.columns}
    constants = _constants(p, config, splits)
    units = {"A": unit_of(p.a, p.m, p.k, p.dtype), "B": unit_of(p.b, p.k, p.n, p.dtype)}
    units |= {"C": constants["C_UNIT"], "R": constants["R_UNIT"]}
    for (name, unit), first in zip(units.items(), firsts, strict=True):
        constants[f"{name}_UNIT"] = unit if first % unit == 0 else 1
    along_k = "k" in (constants["A_FORM"], constants["B_FORM"])
    constants |= {"K_UNIT": _multiple_of(p.k) if along_k else 1}
    if constants["A_FORM"] == "m":
        constants["M_UNIT"] = _multiple_of(p.m)
    if constants["B_FORM"] == "n":
        constants["N_UNIT"] = _multiple_of(p.n)
    constants |= {"BATCH_AXES": len(p.batch), "WHOLE_K": p.k % config["bk"] == 0}
    return _plan("by_pointers", p, config, integers | _ends(p), constants, {}, multiprocessors)


def descriptor_plan(p: Product, config: Mapping[str, Any], multiprocessors: int) -> Plan:
    """The launch of `by_descriptors` for a product that `descriptor_problem` has nothing against."""
    bm, bn, bk = config["bm"], config["bn"], config["bk"]
    splits, steps = _parts(p, config)
    rank = 3 if p.batch else 2
    boxes = {
        "a": _box(p.a, p.m, p.k, p.matrices, (bm, bk)),
        "b": _box(p.b, p.k, p.n, p.matrices, (bk, bn)),
    }
    store = "pointers"
    if stores_by_descriptor(p):
        store = "descriptor" if rank == 2 else "descriptor3"
        boxes["c"] = _box(p.c, p.m, p.n, p.matrices, (bm, bn // 2 if config["halves"] else bn))
    residual = p.residual or Operand(0, 0)
    integers = {
        "m": p.m,
        "n": p.n,
        "k": p.k,
        "batch": p.matrices,
        "splits": splits,
        "steps_of_part": steps,
        "c_is": sum(p.c.batch),
        "c_ms": p.c.rows,
        "c_ns": p.c.columns,
        "r_is": sum(residual.batch),
        "r_ms": residual.rows,
        "r_ns": residual.columns,
        **_ends(p),
    }
    constants = _constants(p, config, splits)
    constants |= {"RANK": rank, "STORE": store}
    # A loop that goes on with the next tile while it ends this one has no registers left for a residual.
    constants |= {"FLATTEN": splits == 1 and p.residual is None}
    constants |= {"A_BATCHED": any(p.a.batch), "B_BATCHED": any(p.b.batch)}
    return _plan("by_descriptors", p, config, integers, constants, boxes, multiprocessors)


def rows_problem(p: Product) -> str | None:
    """Why the kernel for few rows cannot take a product as it stands; None when it can."""
    if p.m > MOST_ROWS:
        return f"takes up to {MOST_ROWS} rows, not {p.m}"
    if p.k and p.n and not p.b.form("k", "n"):
        return "reads the larger operand by vectors, and no axis of it has its elements side by side"
    return None


def rows_plans(p: Product, config: Mapping[str, Any]) -> list[Plan]:
    """The launches of `few_rows`."""
    plans = []
    for tiled in pointer_plans(p, {**_NO_TILES, **config}, 1):
        left_out = ("BM", "GROUP", "PRECISION", "PROMOTE", "HALVES", "C_UNIT", "M_UNIT")
        constants = {name: value for name, value in tiled.constants.items() if name not in left_out}
        splits, batch = tiled.integers["splits"], tiled.integers["batch"]
        tiles = ceil_div(p.n, config["bn"]) * batch
        sums = tiles * splits * p.m * config["bn"] if splits > 1 else 0
        arrivals = tiles if splits > 1 else 0
        constants |= {"ROWS": p.m}
        plans.append(
            Plan(
                "few_rows", tiled.integers, constants, {}, tiles * splits, sums, arrivals, config["warps"], 1
            )
        )
    return plans


def _parts(p: Product, config: Mapping[str, Any]) -> tuple[int, int]:
    """How many parts k is cut into, none of them empty but for k = 0, and how many steps each has."""
    steps = max(ceil_div(p.k, config["bk"]), 1)
    of_part = ceil_div(steps, config["splits"])
    return ceil_div(steps, of_part), of_part


def _plan(
    function: str,
    p: Product,
    config: Mapping[str, Any],
    integers: Mapping[str, int],
    constants: Mapping[str, Any],
    boxes: Mapping[str, Box],
    multiprocessors: int,
) -> Plan:
    tiles = ceil_div(p.m, config["bm"]) * ceil_div(p.n, config["bn"]) * p.matrices
    splits = integers["splits"]
    work = tiles * splits
    most = multiprocessors * config["resident"]
    return Plan(
        function,
        integers,
        constants,
        boxes,
        programs=min(work, most) if config["persistent"] else work,
        sums=work * config["bm"] * config["bn"] if splits > 1 else 0,
        arrivals=tiles if splits > 1 else 0,
        warps=config["warps"],
        stages=config["stages"],
    )


def _ends(p: Product) -> dict[str, int]:
    a_scale, b_scale = p.scales or (0, 0)
    return {"bias_step": p.bias or 0, "a_scale_step": a_scale, "b_scale_step": b_scale}


def _constants(p: Product, config: Mapping[str, Any], splits: int) -> dict[str, Any]:
    """The compile-time arguments that both functions take."""
    along = {p.c.form("m", "n"), "" if p.residual is None else p.residual.form("m", "n")}
    along.add("" if p.bias is None else p.bias_axis)
    return {
        "BM": config["bm"],
        "BN": config["bn"],
        "BK": config["bk"],
        "GROUP": config["group"],
        "A_FORM": p.a.form("m", "k"),
        "B_FORM": p.b.form("k", "n"),
        "C_FORM": p.c.form("m", "n"),
        "R_FORM": "" if p.residual is None else p.residual.form("m", "n"),
        "C_UNIT": unit_of(p.c, p.m, p.n, p.out_dtype),
        "R_UNIT": 1 if p.residual is None else unit_of(p.residual, p.m, p.n, p.out_dtype),
        "M_UNIT": _multiple_of(p.m) if "m" in along else 1,
        "N_UNIT": _multiple_of(p.n) if "n" in along else 1,
        "SPLIT": splits > 1,
        "PRECISION": config["precision"],
        "PROMOTE": config["bk"] if config["precision"] == "float8" else 0,
        "BIAS": "" if p.bias is None else p.bias_axis,
        "BIAS_UNIT": 16 if p.bias == 1 else 1,
        "RESIDUAL": p.residual is not None,
        "SCALED": p.scales is not None,
        "ACTIVATION": p.activation,
        "HALVES": bool(config["halves"]),
    }


def _multiple_of(length: int) -> int:
    """The largest of 16, 8, 4 and 1 that divides a length."""
    return next(unit for unit in (16, 8, 4, 1) if length % unit == 0)


def _box(x: Operand, rows: int, columns: int, matrices: int, block: tuple[int, int]) -> Box:
    """Of the matrix, or of its transpose; with the batch in front, of length 1 where it is repeated."""
    shape, steps = (rows, columns), (x.rows, x.columns)
    if x.columns != 1:
        shape, steps, block = shape[::-1], steps[::-1], block[::-1]
    if not x.batch:
        return Box(shape, steps, block)
    (step,) = x.batch
    return Box((matrices if step else 1, *shape), (step or shape[0] * steps[0], *steps), (1, *block))
