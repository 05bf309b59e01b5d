"""The configurations of the GPU matmul kernels, and which of them run a product untuned.

A configuration is what is in `TILES` (bm, bn, bk, warps, stages), beside `splits`, the parts of k, and
`turned`, whether C^T = B^T A^T is computed instead: with few rows, the long axis of C then lies along the
64 rows that a matrix instruction has at least. Everything else follows from the product (`completed`).

The list is short on purpose: each line is compiled ahead of time for three chips, and proven without a GPU.
No line has been timed on a GPU yet; the order in which they are tried is `cuda/ranking.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda import ranking
from ...cuda.device import Device
from ...cuda.ranking import Block, Work
from ...kernel import Config
from .plans import (
    ITEM_BYTES,
    MOST_ROWS,
    VECTOR_BYTES,
    descriptor_problem,
    is_aligned,
    rows_problem,
    stores_by_descriptor,
    unit_of,
)
from .product import Product

GROUP = 8
FEW = 64
"""Rows or columns up to which a product may be turned."""
MOST_OFFERED = 10
"""Configurations that tuning may choose from, the best predicted first."""

# bm, bn, bk, warps, stages. By what moves the operands, and what multiplies.
_HALF_BY_ENGINE = (
    (128, 256, 64, 8, 4),  # the fewest bytes for each FLOP: large products
    (128, 128, 64, 4, 3),  # two blocks on a multiprocessor: one computes while the other ends
    (128, 128, 64, 8, 4),
    (64, 128, 64, 4, 4),
    (64, 64, 128, 4, 4),
    (64, 64, 64, 4, 4),  # small products; three blocks on a multiprocessor
    (64, 32, 128, 4, 6),  # few columns: a stream of A
    (64, 16, 128, 4, 6),
)
_HALF_BY_THREADS = (
    (128, 256, 32, 8, 3),
    (128, 128, 32, 4, 4),
    (128, 64, 64, 4, 3),
    (64, 64, 64, 4, 4),
    (64, 32, 128, 4, 4),
    (64, 16, 128, 4, 4),
)
_TF32_BY_ENGINE = ((128, 128, 32, 8, 4), (64, 64, 32, 4, 4), (64, 16, 64, 4, 6))
_TF32_BY_THREADS = ((128, 128, 32, 8, 3), (64, 64, 32, 4, 4), (64, 16, 32, 4, 4))
_FLOAT32 = ((128, 128, 16, 8, 3), (64, 64, 32, 4, 3), (64, 16, 32, 4, 3))
_FLOAT8_BY_ENGINE = ((128, 128, 128, 8, 4), (64, 128, 128, 4, 4), (64, 64, 128, 4, 5), (64, 16, 128, 4, 6))
_FLOAT8_BY_THREADS = ((128, 128, 64, 8, 4), (64, 64, 128, 4, 3), (64, 16, 128, 4, 4))

TILES: Mapping[tuple[str, str], tuple[tuple[int, int, int, int, int], ...]] = {
    ("engine", "bfloat16"): _HALF_BY_ENGINE,
    ("engine", "float16"): _HALF_BY_ENGINE,
    ("engine", "tf32"): _TF32_BY_ENGINE,
    ("engine", "float8_e4m3fn"): _FLOAT8_BY_ENGINE,
    ("threads", "bfloat16"): _HALF_BY_THREADS,
    ("threads", "float16"): _HALF_BY_THREADS,
    ("threads", "tf32"): _TF32_BY_THREADS,
    ("threads", "float32"): _FLOAT32,
    ("threads", "float8_e4m3fn"): _FLOAT8_BY_THREADS,
}
UNALIGNED = {
    "bfloat16": (64, 64, 32, 4, 2),
    "float16": (64, 64, 32, 4, 2),
    "tf32": (64, 64, 32, 4, 2),
    "float32": (64, 64, 16, 4, 2),
    "float8_e4m3fn": (64, 64, 32, 4, 2),
}
"""Where operands are loaded an element at a time: registers and addresses for each element of a step."""

PRECISIONS = {"bfloat16": "", "float16": "", "float32": "ieee", "tf32": "tf32", "float8_e4m3fn": "float8"}
# Instructions of an activation for each element, counted in SASS of the kernels here, rounded.
_INSTRUCTIONS = {"": 0, "relu": 2, "gelu": 24, "gelu_tanh": 14, "sigmoid": 8, "tanh": 24, "silu": 9}


def completed(p: Product, config: Mapping[str, Any], unit: str, mover: str, device: Device) -> dict[str, Any]:
    """All that a plan needs of a configuration: what follows from the product, beside what was chosen."""
    halves = config["bm"] * config["bn"] >= 128 * 128
    full = {
        **config,
        "group": GROUP,
        "precision": PRECISIONS[unit],
        "halves": halves,
        "persistent": mover == "engine",
    }
    block = block_of(p, full, unit, mover, device)
    return {**full, "resident": ranking.resident_blocks(work_of(p, unit), block, device)}


def work_of(p: Product, unit: str) -> Work:
    """The product as the model sees it."""
    return Work(
        max(p.m, 1),
        max(p.n, 1),
        p.k,
        unit,
        ITEM_BYTES[p.dtype],
        ITEM_BYTES[p.out_dtype],
        max(p.matrices, 1),
        _different(p, p.a.batch),
        _different(p, p.b.batch),
        extra=0 if p.residual is None else ITEM_BYTES[p.out_dtype],
        instructions=_INSTRUCTIONS[p.activation],
        aligned=is_aligned(p),
    )


def _different(p: Product, steps: tuple[int, ...]) -> int:
    count = 1
    for length, step in zip(p.batch, steps, strict=True):
        count *= length if step else 1
    return count


def block_of(p: Product, config: Mapping[str, Any], unit: str, mover: str, device: Device) -> Block:
    """A configuration as the model sees it."""
    block = Block(
        config["bm"],
        config["bn"],
        config["bk"],
        config["warps"],
        config["stages"],
        config["splits"],
        mover,
        group=GROUP,
        persistent=mover == "engine",
    )
    halves = config["bm"] * config["bn"] >= 128 * 128
    shared = ranking.shared_bytes(work_of(p, unit), block, device.capability, halves, stores_by_descriptor(p))
    return Block(**{**block.__dict__, "shared": shared})


def candidates(p: Product, unit: str, mover: str, device: Device) -> list[Config]:
    """Configurations that can be launched, the fastest predicted first."""
    found: list[tuple[float, int, Config]] = []
    for turned in (False, True) if min(p.m, p.n) <= FEW else (False,):
        q = p.turn() if turned else p
        work = work_of(q, unit)
        for tile in TILES[mover, unit] if work.aligned or mover == "engine" else (UNALIGNED[unit],):
            if _wasteful(q, tile):
                continue
            config = dict(zip(("bm", "bn", "bk", "warps", "stages"), tile, strict=True)) | {"splits": 1}
            block = block_of(q, config, unit, mover, device)
            if ranking.refusal(work, block, device) is not None:
                continue
            if _crowded(q, block, work):
                continue
            best = block if _most_sums(block, work) else ranking.best_splits(work, block, device)
            seconds = ranking.predict(work, best, device).seconds
            found.append((seconds, len(found), {**config, "splits": best.splits, "turned": turned}))
    return [config for _, _, config in sorted(found, key=lambda f: f[:2])][:MOST_OFFERED]


def _wasteful(p: Product, tile: tuple[int, int, int, int, int]) -> bool:
    """Whether a tile is twice as long as the axis that it covers, and there are shorter ones."""
    bm, bn = tile[:2]
    return (bm > 64 and bm >= 2 * p.m) or (bn > 64 and bn >= 2 * p.n) or (bn <= 32 and p.n > 2 * bn)


def _most_sums(block: Block, work: Work) -> bool:
    """Whether the sums of a tile leave no registers for the addresses of other parts' sums."""
    crowded = block.bn == 256 or block.mover == "threads"
    return crowded and ranking.sums_of_thread(work, block) == ranking.MOST_SUMS


def _crowded(p: Product, block: Block, work: Work) -> bool:
    """Whether the end of a tile needs more registers than its sums leave.

    Elements that are stored one by one take an address each; so does a residual, beside those of operands
    that threads move.
    """
    if ranking.sums_of_thread(work, block) < ranking.MOST_SUMS:
        return False
    if unit_of(p.c, p.m, p.n, p.out_dtype) == 1 and not stores_by_descriptor(p):
        return True
    return block.mover == "threads" and p.residual is not None and block.bn == 256


def predicted(p: Product, config: Mapping[str, Any], unit: str, mover: str, device: Device) -> float:
    """Seconds by the model."""
    q = p.turn() if config["turned"] else p
    return ranking.predict(work_of(q, unit), block_of(q, config, unit, mover, device), device).seconds


def unaligned_config(unit: str) -> Config:
    """What runs where an address turns out to be no multiple of 16 bytes."""
    return dict(zip(("bm", "bn", "bk", "warps", "stages"), UNALIGNED[unit], strict=True)) | {"splits": 1}


def tiles_problem(p: Product, unit: str, mover: str, device: Device) -> str | None:
    """Why a kernel by tiles cannot take a product; None when it can."""
    if unit not in device.flops:
        return f"multiplies {unit}, which sm_{device.capability} does not"
    if mover == "threads":
        return None
    if not device.has_tma:
        return f"needs the bulk copy engine, which sm_{device.capability} has not"
    return descriptor_problem(p)


# --- few rows -----------------------------------------------------------------------------------------------


def with_few_rows(p: Product) -> Product:
    """The product, turned where that way it has the fewer rows."""
    return p.turn() if p.n < p.m else p


def few_rows_problem(p: Product, device: Device) -> str | None:
    """Why the kernel for few rows cannot take a product, as it stands or turned; None when it can."""
    if p.dtype not in device.flops:
        return f"reads {p.dtype}, which sm_{device.capability} has no instructions for"
    if min(p.m, p.n) > MOST_ROWS:
        return f"takes up to {MOST_ROWS} rows or columns, not {p.m} x {p.n}"
    return rows_problem(with_few_rows(p))


def rows_candidates(p: Product, device: Device) -> list[Config]:
    """Configurations of `few_rows`: BN columns, steps of BK, the fastest predicted first."""
    q = with_few_rows(p)
    vectors = VECTOR_BYTES // ITEM_BYTES[q.dtype]
    # What one block reads at a time: four vectors of 16 bytes a thread, half that where the sums of four rows
    # take the registers.
    loads = 2 if q.m > 2 else 4
    found = []
    for warps, lines in ((4, 16), (4, 4), (8, 8)):
        elements = 32 * warps * vectors * loads
        bk, bn = (
            (elements // lines, lines) if q.b.form("k", "n") == "k" else (lines * 4, elements // (lines * 4))
        )
        config = {"bn": bn, "bk": bk, "warps": warps}
        tiles = ceil_div(q.n, bn) * q.matrices
        wanted = max(1, 4 * device.multiprocessors // max(tiles, 1))
        splits = max(1, min(wanted, ceil_div(q.k, 2 * bk), 32))
        found.append({**config, "splits": splits})
    return sorted(found, key=lambda config: rows_predicted(p, config, device))


def rows_predicted(p: Product, config: Mapping[str, Any], device: Device) -> float:
    """Seconds by a model of a stream: B once through memory, as fast as the blocks that there are can ask."""
    q = with_few_rows(p)
    size = ITEM_BYTES[q.dtype]
    items = ceil_div(q.n, config["bn"]) * q.matrices * config["splits"]
    steps = ceil_div(ceil_div(q.k, config["splits"]), config["bk"])
    moved = _different(q, q.b.batch) * q.k * q.n * size + q.matrices * (q.m * q.k * size + q.m * q.n * 4)
    resident = max(1, min(16, 64 // config["warps"] // 2))
    slots = device.multiprocessors * resident
    rounds = ceil_div(items, slots)
    beside = min(ceil_div(items, device.multiprocessors), resident)
    memory = moved / (device.bandwidth * ranking.MEMORY_SHARE)
    padded = items * steps * config["bn"] * config["bk"]
    arithmetic = padded * (q.m + 1) * 2 / (device.flops["float32"] * ranking.FMA_SHARE)
    latency = rounds * steps * ranking.LATENCY * max(1.0, beside * 0.25)
    if not is_aligned(q):
        latency *= 4
    ends = ranking.ARRIVAL if config["splits"] > 1 else 0.0
    return ranking.LAUNCH + ranking.together(memory, arithmetic, latency) + ranking.LATENCY + ends
