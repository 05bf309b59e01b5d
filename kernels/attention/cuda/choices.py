"""Which tiles attention may be computed with, and how long each is expected to take.

The lists are short on purpose: every configuration is compiled for the chips and looked at. Which one runs
untuned is decided by a model that adds up what the busiest multiprocessor does: products in the tensor cores,
exponentials beside them where another block computes at that time, bytes from L2, and a start and an end for
each tile; beside that stands device memory, which has to deliver each array once. Its constants are those of
`cuda/ranking.py`; it ranks, and its seconds are no forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda import ranking
from ...cuda.device import Device
from ...cuda.ranking import ARRIVAL, FMA_SHARE, ISSUE_SHARE, LATENCY, LAUNCH, MEMORY_SHARE, together
from ...kernel import Config
from .problem import Problem

PRECISIONS = {"bfloat16": "", "float16": "", "float32": "ieee", "tf32": "tf32", "tf32x3": "tf32x3"}
PASSES = {"tf32x3": 3}
"""Products for one: numbers are sums of two, and one of the four products is left out."""
Tile = tuple[int, int, int, int]

# Forward: (bm, bn, warps, stages) by what moves k and v, what multiplies, and the features of the wider of
# both, the highest tiles first. On Hopper, two stages of boxes leave the copy of the next k uncovered;
# another block on the multiprocessor hides that where registers and shared memory hold two (128 x 64 by 4
# warps), and three do not.
FORWARD: dict[tuple[str, str], dict[int, tuple[Tile, ...]]] = {
    ("engine", "half"): {
        64: ((128, 64, 4, 3), (128, 128, 8, 3), (64, 64, 4, 3), (32, 64, 4, 3), (16, 64, 4, 4)),
        128: (
            (128, 128, 8, 3), (128, 64, 8, 3), (128, 64, 4, 2),
            (64, 64, 4, 3), (32, 64, 4, 3), (16, 64, 4, 4),
        ),
        256: ((128, 64, 8, 2), (64, 64, 4, 2), (16, 32, 4, 4)),
    },
    ("threads", "half"): {
        64: ((128, 64, 4, 3), (64, 64, 4, 3), (32, 64, 4, 3), (16, 64, 4, 4)),
        128: ((128, 64, 8, 3), (64, 64, 4, 3), (32, 64, 4, 3), (16, 64, 4, 4)),
        256: ((64, 32, 8, 2), (16, 32, 4, 3)),
    },
    ("threads", "float32"): {
        64: ((64, 32, 4, 2), (16, 32, 4, 2)),
        128: ((32, 32, 4, 2), (16, 32, 8, 2)),
        256: ((32, 16, 8, 2), (16, 16, 4, 2)),
    },
    ("threads", "tf32x3"): {64: ((64, 32, 4, 2), (16, 32, 4, 2)), 128: ((16, 32, 4, 2),)},
    ("threads", "tf32"): {
        64: ((64, 32, 4, 2), (16, 32, 4, 2)),
        128: ((64, 32, 8, 2), (16, 32, 4, 2)),
        256: ((16, 16, 4, 2),),
    },
}  # fmt: skip

# Backward: the tile of `slopes_of_queries` and that of `slopes_of_keys`, (bm, bn, warps, stages) each; the
# last pair is for calls with a mask too.
BACKWARD: dict[tuple[str, str], dict[int, tuple[tuple[Tile, Tile], ...]]] = {
    ("engine", "half"): {
        64: (((128, 64, 8, 3), (64, 128, 8, 3)), ((64, 64, 4, 3), (64, 64, 4, 3))),
        128: (((128, 64, 8, 3), (64, 128, 8, 3)), ((64, 64, 4, 3), (32, 64, 4, 3))),
        256: (
            ((64, 32, 4, 3), (32, 64, 8, 3)),
            ((64, 32, 4, 3), (32, 32, 8, 3)),
            ((64, 32, 4, 3), (32, 32, 8, 2)),
        ),
    },
    ("threads", "half"): {
        64: (((64, 64, 4, 3), (32, 128, 8, 2)), ((64, 32, 4, 3), (16, 64, 4, 2))),
        128: (((64, 32, 4, 2), (32, 64, 8, 2)),),
        256: (((32, 32, 4, 2), (32, 32, 8, 2)),),
    },
    ("threads", "float32"): {
        64: (((32, 32, 4, 1), (32, 64, 8, 1)),),
        128: (((16, 32, 4, 1), (32, 32, 8, 1)),),
        256: (((16, 32, 8, 1), (16, 16, 8, 1)), ((16, 16, 8, 1), (16, 16, 8, 1))),
    },
    ("threads", "tf32x3"): {64: (((64, 32, 4, 1), (32, 32, 8, 1)), ((16, 32, 4, 1), (32, 32, 8, 1)))},
    ("threads", "tf32"): {
        64: (((32, 32, 4, 2), (32, 32, 4, 2)),),
        128: (((32, 32, 8, 1), (16, 32, 8, 1)),),
        256: (((16, 16, 4, 1), (16, 16, 4, 1)),),
    },
}

# (compute capability, mover, unit, features, tile)
SPILLED = frozenset(
    {
        (100, "engine", "half", 128, (64, 128, 8, 3)),
        (100, "engine", "half", 256, (32, 64, 8, 3)),
        (100, "threads", "half", 64, (128, 64, 4, 3)),
        (100, "threads", "float32", 256, (16, 16, 4, 2)),
        (100, "threads", "tf32", 128, (64, 32, 8, 2)),
        (80, "threads", "float32", 64, (64, 32, 4, 2)),
        *((chip, "threads", "tf32x3", 64, (64, 32, 4, stages)) for chip in (80, 100) for stages in (1, 2)),
    }
)
"""What the compiler was seen to spill: these are not offered on those chips."""

# Where rows are loaded an element at a time: registers and addresses for each element of a step.
UNALIGNED: dict[str, dict[int, Tile]] = {
    "half": {64: (64, 32, 4, 1), 128: (32, 32, 4, 1), 256: (32, 16, 4, 1)},
    "float32": {64: (16, 16, 4, 1), 128: (16, 16, 4, 1), 256: (16, 16, 4, 1)},
    "tf32x3": {64: (16, 16, 4, 1), 128: (16, 16, 4, 1)},
    "tf32": {64: (16, 16, 4, 1), 128: (16, 16, 4, 1), 256: (16, 16, 4, 1)},
}
UNALIGNED_GRAD: dict[str, dict[int, tuple[Tile, Tile]]] = {
    "half": {
        64: ((32, 32, 4, 1), (32, 32, 4, 1)),
        128: ((32, 16, 4, 1), (16, 32, 4, 1)),
        256: ((16, 16, 4, 1), (16, 16, 4, 1)),
    },
    "float32": {
        64: ((16, 16, 4, 1), (16, 16, 4, 1)),
        128: ((16, 16, 4, 1), (16, 16, 4, 1)),
        256: ((16, 16, 8, 1), (16, 16, 8, 1)),
    },
    "tf32x3": {64: ((16, 16, 4, 1), (16, 16, 4, 1))},
    "tf32": {
        64: ((16, 16, 4, 1), (16, 16, 4, 1)),
        128: ((16, 16, 4, 1), (16, 16, 4, 1)),
        256: ((16, 16, 4, 1), (16, 16, 4, 1)),
    },
}

EXPONENTIALS_A_CLOCK = 16
"""2^x of one multiprocessor (CUDA C++ Programming Guide, "Arithmetic Instructions")."""
_INSTRUCTIONS = {False: 6, True: 9}
"""Others for a pair of a query and a key, forward and backward, counted in the sources here, rounded."""
MMA_SYNC_SHARE = 0.63
"""Of Hopper's rate that mma.sync reaches, which is all that tiles of fewer than 64 rows use (Luo and others,
"Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking", 2024)."""
CHAIN = 0.8e-6
"""Seconds of one block of keys when nothing else is computed: two products, reductions of rows between warps,
barriers. An assumption, until a GPU is measured."""
MOST_SPLITS = 64


def is_packed(p: Problem, bm: int) -> bool:
    """Whether the rows of a program are those of all heads that share a key: where those of one are few."""
    return p.group > 1 and p.l < bm


def tiles_of(p: Problem, bm: int) -> tuple[int, int]:
    """(units, tiles of each) forward: heads of query, or with packed rows those of key."""
    if is_packed(p, bm):
        return p.batch * p.key_heads, ceil_div(p.l * p.group, bm)
    return p.batch * p.heads, ceil_div(p.l, bm)


def parts(p: Problem, bn: int, splits: int) -> tuple[int, int]:
    """(parts into which keys are cut, blocks of bn in one): none of them empty, causality aside."""
    blocks = max(ceil_div(p.s, bn), 1)
    of_part = ceil_div(blocks, max(splits, 1))
    return ceil_div(blocks, of_part), of_part


def bands(p: Problem, units: int, sharing: int, l2: int) -> int:
    """How many units are computed side by side.

    Without causality all tiles of a head take the same time, and the heads that share keys are enough. With
    it, long tiles of many heads come before short ones of any: of as many as half of the L2 cache holds the
    keys and values of.
    """
    if not p.causal:
        return max(sharing, 1)
    of_head = max(p.s * (p.e + p.ev) * p.arrays["k"].itemsize, 1)
    return max(sharing, min(units, l2 // 2 // of_head * sharing), 1)


def _class(unit: str) -> str:
    return "half" if unit in ("bfloat16", "float16") else unit


def width_problem(p: Problem, grad: bool, unit: str) -> str | None:
    """Why there is no tile for heads of so many features; None where there is."""
    known = (UNALIGNED_GRAD if grad else UNALIGNED)[_class(unit)]
    if _width(p) in known:
        return None
    return (
        f"keeps both parts of each number in registers, for up to {max(known)} features, not {max(p.e, p.ev)}"
    )


def _width(p: Problem) -> int:
    return max(64, p.widest)


def _aligned(p: Problem, grad: bool) -> bool:
    names = ("q", "k", "v", "g") if grad else ("k", "v")
    return all(p.arrays[name].unit > 1 for name in names)


def candidates(p: Problem, grad: bool, unit: str, boxes: bool, device: Device) -> list[Config]:
    """Configurations that can be launched, the fastest predicted first."""
    key, wide = ("engine" if boxes else "threads", _class(unit)), _width(p)
    found: list[Config] = []
    if grad:
        pairs = BACKWARD[key][wide] if boxes or _aligned(p, True) else (UNALIGNED_GRAD[_class(unit)][wide],)
        kept = [pair for pair in pairs if not any(_spills(t, key, wide, device) for t in pair)]
        if p.mask:  # which takes registers that the others do not have
            kept = kept[-1:]
        found = [_pair(*pair) for pair in kept]
    else:
        tiles = FORWARD[key][wide] if boxes or _aligned(p, False) else (UNALIGNED[_class(unit)][wide],)
        for tile in fitting(p, tuple(t for t in tiles if not _spills(t, key, wide, device)), unit):
            config = _named(tile) | {"splits": 1}
            found.append(config | {"splits": _best_splits(p, config, unit, boxes, device)})
    fitting_ones = [config for config in found if fits(p, grad, config, device)] or found[-1:]
    return sorted(fitting_ones, key=lambda config: predicted(p, grad, config, unit, boxes, device))


def fitting(p: Problem, tiles: tuple[Tile, ...], unit: str) -> list[Tile]:
    """Tiles that are not twice as high as there are rows, or the lowest."""
    rows = p.l * p.group
    kept = [tile for tile in tiles if tile[0] < 2 * rows] or list(tiles[-1:])
    if p.by_rows() and unit == "float32":
        kept = kept[-1:]  # without tensor cores, operands are in registers too
    elif p.by_rows():
        # A mask beside 128 x 128 scores would not fit the registers.
        kept = [tile for tile in kept if tile[0] * tile[1] < 128 * 128] or kept
    if p.causal or p.mask:
        # By 4 warps, sums of 128 x 128 and scores leave no register for the number of a row.
        kept = [tile for tile in kept if tile[2] > 4 or tile[0] < 128 or p.widest < 128] or kept
    return kept


def _spills(tile: Tile, key: tuple[str, str], wide: int, device: Device) -> bool:
    """Whether the compiler was seen to spill a tile on a chip."""
    return (ranking._known(device), *key, wide, tile) in SPILLED


def _named(tile: Tile) -> Config:
    return dict(zip(("bm", "bn", "warps", "stages"), tile, strict=True))


def _pair(queries: Tile, keys: Tile) -> Config:
    return _named(queries) | dict(zip(("kbm", "kbn", "kwarps", "kstages"), keys, strict=True))


def unaligned(p: Problem, grad: bool, config: Mapping[str, Any], unit: str) -> Config:
    """What runs where an address turns out to be no multiple of 16 bytes; with the same scratch."""
    if grad:
        return _pair(*UNALIGNED_GRAD[_class(unit)][_width(p)])
    if config["splits"] > 1:
        return {**config, "stages": 1}
    return _named(UNALIGNED[_class(unit)][_width(p)]) | {"splits": 1}


@dataclass(frozen=True)
class Sweep:
    """One kernel of a call, as the model sees it.

    Attributes:
        items: programs.
        rows: of the tile that a program keeps; step: rows of a block that it sweeps over.
        blocks: how many of those a program has, on average, and longest: the most.
        depth: the sum of the inner lengths of its products; scored: that of those whose operands are both in
            shared memory, the scores. kept: features of what it sums up.
        held, moved: bytes that a program keeps in shared memory, and that a block brings.
        pairs_cost: instructions for a pair.
        warps, stages: of a program.
        parts: into which what is swept over is cut.
    """

    items: int
    rows: int
    step: int
    blocks: float
    longest: float
    depth: int
    scored: int
    kept: int
    held: int
    moved: int
    pairs_cost: int
    warps: int
    stages: int
    parts: int = 1

    @property
    def shared(self) -> int:
        """Bytes of shared memory, and some to spare for barriers and what the ends of rows are kept in.

        Below 64 rows operands go on to registers (mma.sync), which frees the stage that is computed.
        """
        low = self.rows < 64
        return self.held + (self.stages - low) * self.moved + (4096 if low else 2048)

    @property
    def registers(self) -> int:
        """Of a thread: sums, scores and their 16-bit copies, and what addresses take."""
        return min(255, (self.rows * self.kept + self.rows * self.step * 3 // 2) // (32 * self.warps) + 72)


def forward_sweep(p: Problem, config: Mapping[str, Any]) -> Sweep:
    """`attend` in a configuration."""
    bm, bn, item = config["bm"], config["bn"], p.arrays["k"].itemsize
    units, tiles = tiles_of(p, bm)
    splits, of_part = parts(p, bn, config["splits"])
    both = p.wide_e + p.wide_ev
    mean, most = _seen(p.l, p.s, bm, p.causal)
    return Sweep(
        units * tiles * splits, bm, bn, mean / bn / splits, min(ceil_div(most, bn), of_part), both, p.wide_e,
        p.wide_ev,
        bm * p.wide_e * item, bn * both * item + _of_mask(p, bm, bn), _INSTRUCTIONS[False] + 4 * bool(p.mask),
        config["warps"], config["stages"], splits,
    )  # fmt: skip


def backward_sweeps(p: Problem, config: Mapping[str, Any]) -> tuple[Sweep, Sweep]:
    """`slopes_of_queries` and `slopes_of_keys` in a configuration."""
    item, both = p.arrays["k"].itemsize, p.wide_e + p.wide_ev
    bm, bn = config["bm"], config["bn"]
    mean, most = _seen(p.l, p.s, bm, p.causal)
    cost = _INSTRUCTIONS[True] + 4 * bool(p.mask)
    queries = Sweep(
        p.batch * p.heads * ceil_div(p.l, bm), bm, bn, mean / bn, ceil_div(most, bn), both + p.wide_e,
        both, p.wide_e, bm * both * item, bn * both * item + _of_mask(p, bm, bn), cost, config["warps"],
        config["stages"],
    )  # fmt: skip
    rows, step = config["kbn"], config["kbm"]
    mean, most = _seen(p.s, p.l, rows, p.causal)
    keys = Sweep(
        p.batch * p.key_heads * ceil_div(p.s, rows), rows, step, p.group * mean / step,
        p.group * ceil_div(most, step), 2 * both, both, both, rows * both * item, step * (both * item + 8) +
        _of_mask(p, rows, step), cost, config["kwarps"], config["kstages"],
    )  # fmt: skip
    return queries, keys


def _of_mask(p: Problem, rows: int, step: int) -> int:
    """Bytes of a block of a mask that differs from row to row."""
    return rows * step * p.arrays["mask"].itemsize if p.by_rows() else 0


def _seen(rows: int, others: int, tile: int, causal: bool) -> tuple[float, int]:
    """How many of the others a tile of rows sweeps over, on average and at most."""
    if not causal or not rows:
        return others, others
    inside = min(rows, others)
    pairs = inside * (inside + tile) / 2 + (rows - inside) * others
    return min(pairs / rows, others), others


def fits(p: Problem, grad: bool, config: Mapping[str, Any], device: Device) -> bool:
    """Whether the shared memory of a block holds what its kernels keep there."""
    sweeps = backward_sweeps(p, config) if grad else (forward_sweep(p, config),)
    return all(sweep.shared <= device.shared_bytes for sweep in sweeps)


def predicted(
    p: Problem, grad: bool, config: Mapping[str, Any], unit: str, boxes: bool, device: Device
) -> float:
    """Seconds by the model."""
    sweeps = backward_sweeps(p, config) if grad else (forward_sweep(p, config),)
    size = p.arrays["k"].itemsize
    of_queries = p.batch * p.heads * p.l * (p.e + p.ev) * size
    of_keys = p.batch * p.key_heads * p.s * (p.e + p.ev) * size
    memory = (of_queries + of_keys) * (2 if grad else 1) / (device.bandwidth * MEMORY_SHARE)
    aligned = boxes or _aligned(p, grad)
    return sum(LAUNCH + together(_busy(s, unit, boxes, aligned, device), memory) for s in sweeps if s.items)


def _busy(x: Sweep, unit: str, boxes: bool, aligned: bool, device: Device) -> float:
    """Seconds of the busiest multiprocessor."""
    hertz = ranking.clock(device)
    beside = min(_resident(x, device), ceil_div(x.items, device.multiprocessors))
    products = 2 * x.rows * x.step * _depth(x, device) * PASSES.get(unit, 1) / _rate(x, unit, boxes, device)
    pairs = x.rows * x.step / hertz
    # Beside what each pair takes, sums are multiplied by what the largest score has become.
    others = max(pairs / EXPONENTIALS_A_CLOCK, (pairs * x.pairs_cost + x.rows * x.kept / hertz) / 128)
    # One block's warps wait for each other at each step: only another block computes meanwhile.
    block = together(products, others) if beside > 1 and unit != "float32" else products + others
    shared = ranking._L2_BYTES_A_CLOCK / min(x.items, device.multiprocessors)
    port = min(ranking._PORT_BYTES_A_CLOCK, shared) * hertz
    block = together(block, x.moved / port, CHAIN / beside)
    if x.stages < 3 or not aligned:
        block += LATENCY / beside * (1 if aligned else 4)
    rounds = ceil_div(x.items, device.multiprocessors * _resident(x, device))
    ends = 2 * LATENCY + x.rows * x.kept * ranking.END_INSTRUCTIONS / 128 / hertz
    if x.parts > 1:
        ends += ARRIVAL + x.rows * x.kept * 4 * (1 + x.parts) / port
    if x.longest > 1.5 * x.blocks:  # tiles of many lengths, the longest first
        return max(x.items / device.multiprocessors * x.blocks, x.longest) * block + rounds * ends
    return ceil_div(x.items, device.multiprocessors) * x.blocks * block + rounds * ends


def _depth(x: Sweep, device: Device) -> float:
    """The inner length of all products, those counted more that shared memory holds up.

    A matrix instruction of Hopper reads 64 rows and n columns for 128 n FLOP of each term: with n below 64 it
    waits for the 128 bytes a clock of shared memory.
    """
    if device.capability != 90 or x.rows < 64 or x.step >= 64:
        return x.depth
    return x.depth + x.scored * ((64 + x.step) / (2 * x.step) - 1)


def _rate(x: Sweep, unit: str, boxes: bool, device: Device) -> float:
    """FLOP a second of one multiprocessor."""
    if unit == "float32":
        return device.flops[unit] / device.multiprocessors * FMA_SHARE
    flops = device.flops["tf32" if unit == "tf32x3" else unit] / device.multiprocessors
    share = ISSUE_SHARE["engine" if boxes else "threads"]
    return flops * share * (MMA_SYNC_SHARE if device.capability >= 90 and x.rows < 64 else 1.0)


def _resident(x: Sweep, device: Device) -> int:
    """How many programs a multiprocessor holds at one time."""
    room = ranking._SHARED_OF_MULTIPROCESSOR[ranking._known(device)]
    by_shared = room // (x.shared + ranking._SHARED_RESERVED)
    by_registers = ranking._REGISTERS // (32 * x.warps * x.registers)
    return max(1, min(by_shared, by_registers))


def _best_splits(p: Problem, config: Config, unit: str, boxes: bool, device: Device) -> int:
    """Parts of the keys: 1 unless more are expected to be faster by a twentieth."""
    units, tiles = tiles_of(p, config["bm"])
    blocks = ceil_div(p.s, config["bn"])
    if not 0 < units * tiles < 2 * device.multiprocessors or blocks < 4:
        return 1
    best, least = 1, predicted(p, False, config, unit, boxes, device) * 0.95
    tried = 1
    while tried < min(MOST_SPLITS, blocks // 2):
        tried += max(1, tried // 4)
        splits, _ = parts(p, config["bn"], tried)
        seconds = predicted(p, False, {**config, "splits": splits}, unit, boxes, device)
        if seconds < least:
            best, least = splits, seconds
    return best
