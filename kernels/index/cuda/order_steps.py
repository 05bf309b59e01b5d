"""The launches that put keys in order, and which way of doing so is the shorter one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...conv.cuda.problem import step_of
from ...cpu.cycles import ceil_div
from ...cuda.device import Device
from ...cuda.ranking import LAUNCH, MEMORY_SHARE
from ...cuda.step import Arg, Step, Workspace, element_strides
from ...op import Specs
from ...spec import TensorSpec
from .order_kernels import DIGIT, DIGITS, counted, moved, number_keys, place_keys, placed, ranked, summed
from .walk import WARPS, Axis, joined, power

MOST_RANKED = 32768
"""Keys of a row that are compared with each other: with more, no chip here is faster that way."""
PAIR_INSTRUCTIONS = 4  # two comparisons, a selection, an addition
RADIX_BLOCK = 512  # keys: four neighbours for each of 128 threads
PARTS_OF_A_MULTIPROCESSOR = 8
MOST_SUMMED = 8192  # entries of a table that are added up at a time
RANK_BLOCK, RANK_WIDTH = 32, 128
OUTER_AXES = 4


@dataclass(frozen=True)
class Plan:
    """How rows of keys are put in order.

    Attributes:
        rows, n: how many rows of how many keys.
        bits: of a key.
        wide: whether keys have 64 bits.
        block: keys of a block of the radix sort; 0 where all are compared with all.
        each: blocks of a part, which one program does.
    """

    rows: int
    n: int
    bits: int
    wide: bool
    block: int
    each: int = 1

    @property
    def pitch(self) -> int:
        """Elements from row to row of keys."""
        return ceil_div(self.n, self.block) * self.block if self.block else self.n

    def room(self, dtype: str = "") -> Workspace:
        """A workspace for a number for each key; for keys unless a dtype is given."""
        return Workspace((self.rows * self.pitch,), dtype or ("int64" if self.wide else "int32"))


@dataclass(frozen=True)
class Ordered:
    """Rows of keys in order.

    Attributes:
        steps: the launches.
        keys: in order.
        origin: where each of them was: int32.
    """

    steps: list[Step]
    keys: Workspace
    origin: Workspace


def plan(rows: int, n: int, bits: int, wide: bool, device: Device) -> Plan:
    """The shorter way."""
    itemsize = 8 if wide else 4
    if n <= MOST_RANKED and rank_seconds(rows, n, device) <= radix_seconds(rows, n, bits, itemsize, device):
        return Plan(rows, n, bits, wide, 0)
    # As many parts as keep the device busy, and no more: their counts are summed up by one program.
    blocks = ceil_div(n, RADIX_BLOCK)
    each = max(1, rows * blocks // (PARTS_OF_A_MULTIPROCESSOR * device.multiprocessors))
    return Plan(rows, n, bits, wide, RADIX_BLOCK, each)


def rank_seconds(rows: int, n: int, device: Device) -> float:
    """Of comparing all keys of each row with each other."""
    return LAUNCH + rows * n * n * PAIR_INSTRUCTIONS / (device.flops["float32"] / 2)


def radix_seconds(rows: int, n: int, bits: int, itemsize: int, device: Device) -> float:
    """Of a radix sort: three launches a digit; keys read twice and written, origins read and written."""
    moved_bytes = rows * n * (3 * itemsize + 8)
    return ceil_div(bits, DIGIT) * (3 * LAUNCH + moved_bytes / (device.bandwidth * MEMORY_SHARE))


def order_seconds(rows: int, n: int, bits: int, itemsize: int, device: Device) -> float:
    """Of the shorter one."""
    radix = radix_seconds(rows, n, bits, itemsize, device)
    return min(radix, rank_seconds(rows, n, device)) if n <= MOST_RANKED else radix


def ordered(keys: Workspace, how: Plan) -> Ordered:
    """The launches that sort rows of keys; the keys themselves are lost."""
    into, origin = how.room(), how.room("int32")
    if not how.block:
        values = {
            "keys": keys,
            "into": into,
            "origin": origin,
            "n": how.n,
            "pitch": how.pitch,
            "WIDE": how.wide,
        }
        values |= {"BI": RANK_BLOCK, "BJ": min(RANK_WIDTH, power(how.n))}
        grid = how.rows * ceil_div(how.n, RANK_BLOCK)
        return Ordered([step_of(ranked, (grid,), values, WARPS, 1)], into, origin)
    blocks = ceil_div(how.n, how.block)
    parts = ceil_div(blocks, how.each)
    table = Workspace((how.rows * DIGITS * parts,), "int32")
    common: dict[str, Any] = {"table": table, "n": how.n, "blocks": blocks, "each": how.each}
    common |= {"WIDE": how.wide, "B": how.block}
    here, there = (keys, how.room("int32")), (into, origin)
    steps = []
    for number in range(max(ceil_div(how.bits, DIGIT), 1)):
        values = {**common, "keys": here[0], "origin": here[1], "shift": number * DIGIT, "FIRST": number == 0}
        values |= {"to_keys": there[0], "to_origin": there[1]}
        steps.append(step_of(counted, (how.rows * parts,), values, WARPS, 1))
        entries = DIGITS * parts
        total = {"table": table, "n": entries, "B": min(MOST_SUMMED, power(entries))}
        steps.append(step_of(summed, (how.rows,), total, 8, 1))
        steps.append(step_of(moved, (how.rows * parts,), values, WARPS, 1))
        here, there = there, here
    return Ordered(steps, *here)


def placed_keys(index_place: int, index: TensorSpec, length: int, skip: int, into: Workspace) -> Step:
    """The launch that makes keys of a one-dimensional index."""
    n = index.shape[0]
    block = min(1024, power(n))
    values = {"index": Arg(index_place), "keys": into, "n": n, "step": element_strides(index)[0]}
    values |= {"length": length, "skip": skip, "SKIPS": skip >= 0, "B": block}
    return step_of(place_keys, (ceil_div(n, block),), values, 4, 1)


# --- Rows of numbers ----------------------------------------------------------------------------------------

KINDS: dict[str, str | int] = {
    **{f"int{bits}": "signed" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": "unsigned" for bits in (8, 16, 32, 64)},
    "bool": "unsigned",
    "float16": 0x7C00,
    "bfloat16": 0x7F80,
    "float32": 0x7F800000,
    "float64": 0x7FF0 << 48,
}
"""How a dtype's bits are ordered; of floating point, the bits of infinity."""


def row_axes(axis: int, *specs: TensorSpec) -> list[Axis]:
    """The axes around one, joined; out and index of each are the steps of the second and third array."""
    steps = [element_strides(spec) for spec in specs]
    steps += [steps[0]] * (3 - len(steps))
    x, out, index = steps
    return joined([Axis(n, out[i], x[i], index[i]) for i, n in enumerate(specs[0].shape) if i != axis])


def axis_values(axes: list[Axis], *names: tuple[str, str], most: int = OUTER_AXES) -> dict[str, int]:
    """The parameters `n0, s0, n1, s1 ...` of kernels that find rows; names: (parameter, attribute)."""
    found = {}
    for place in range(most):
        axis = axes[-1 - place] if place < len(axes) else Axis(1, 0, 0)
        found[f"n{place}"] = axis.length
        for parameter, attribute in names:
            found[f"{parameter}{place}"] = getattr(axis, attribute)
    return found


def keys_of(x: TensorSpec, axis: int, axes: list[Axis], down: bool, how: Plan) -> tuple[Step, Workspace]:
    """The launch that makes keys of the numbers along an axis of tensor 0."""
    keys = how.room()
    block = min(1024, power(how.n))
    values = {
        "x": Arg(0), "keys": keys, "n": how.n, "pitch": how.pitch, "step": element_strides(x)[axis],
        **axis_values(axes, ("s", "x")), "KIND": KINDS[x.dtype], "BYTES": x.itemsize, "DOWN": down,
        "B": block,
    }  # fmt: skip
    return step_of(number_keys, (how.rows * ceil_div(how.n, block),), values, WARPS, 1), keys


def placed_step(specs: Specs, axis: int, axes: list[Axis], origin: Workspace, how: Plan) -> Step:
    """The launch that writes values and places: tensors 1 and 2."""
    x, out, index = specs
    taken = out.shape[axis]
    block = min(1024, power(taken))
    values = {
        "x": Arg(0), "origin": origin, "out": Arg(1), "index": Arg(2), "pitch": how.pitch, "taken": taken,
        **axis_values(axes, ("s", "x"), ("o", "out"), ("i", "index")), "step": element_strides(x)[axis],
        "out_step": element_strides(out)[axis], "index_step": element_strides(index)[axis],
        "BYTES": x.itemsize, "B": block,
    }  # fmt: skip
    return step_of(placed, (how.rows * ceil_div(taken, block),), values, WARPS, 1)
