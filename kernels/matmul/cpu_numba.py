"""Matrix products on the CPU, float32 and float64: C[m, n] = A[m, k] B[k, n], batched.

    tiny     up to about 200 rows and columns: all of it, checks included, in one compiled call
             (kernels/cpu/small.py)
    batched  many such products: the same tiles, matrix after matrix (kernels/cpu/batched.py)
    packed   middle and large sizes: blocks of B (and of A, where its rows are far apart) are packed;
             five loops around a register tile (kernels/cpu/gemm.py)
    direct   the same tile over a B that is read where it is, a few dozen rows at a time
    stream   few rows, B row-major: B is read once as one long stream, C stays in the nearest cache
             (kernels/cpu/thin.py)
    dots     few rows or columns, operands contiguous along k: inner products (kernels/cpu/thin.py)

`model.py` predicts each one's time, tile by tile; the fastest predicted runs, unless tuning has measured.
A result whose columns are contiguous (a transposed `out`) is computed as C^T = B^T A^T by the same code.
Any strides of a and b are read in place or packed block by block; no operand is copied as a whole.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..cpu import cycles
from ..cpu import gemm as words
from ..cpu.cycles import ceil_div, seconds
from ..kernel import Config, Launch
from ..machine import machine, many_registers, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from . import model
from .geometry import Geometry, geometry
from .split import Cycles, Split, best_split

DTYPES = ("float32", "float64")
PAGE = 4096
SHORT_CHAINS = 200**3  # multiply-adds up to which `packed` adds only a few terms one after the other
_GEOMETRY_WORDS = (
    *("M", "N", "K", "BATCH", "A_RS", "A_CS", "B_RS", "B_CS"),
    *("C_RS", "C_CS", "A_BS", "B_BS", "C_BS"),
)


def lanes_of(g: Geometry) -> int:
    """Elements in a vector."""
    return vector_bytes() // g.itemsize


def register_tiles() -> list[tuple[int, int]]:
    """(rows, vectors of columns) that fill the registers with accumulators."""
    if many_registers():
        return [(6, 4), (8, 3), (12, 2), (12, 1), (4, 4)]
    return [(6, 2), (4, 3), (12, 1), (4, 2)]


def _launch(specs: Specs, split: Split, task: Any, key: tuple[Any, ...], **values: int) -> Launch:
    """The argument block written, the task compiled or loaded: ready to be called with (a, b, out)."""
    g = geometry(specs)
    if g.k == 0:
        return _write_zeros
    from ..cpu.launch import address_of_task, bind_phases

    block = np.zeros(words.WORDS, np.int64)
    facts = {name: getattr(g, name.lower()) for name in _GEOMETRY_WORDS}
    facts |= {"SPLIT": split.runs, "GM": split.gm, "GN": split.gn, **values}
    facts["TABLE"] = 0 if g.table is None else g.table.ctypes.data
    for name, value in facts.items():
        block[getattr(words, name)] = value
    phases = [(address_of_task(task, key, f"matmul for {g.dtype}"), split.tasks)]
    scratch_bytes = split.tasks * values.get("SCRATCH_STRIDE", 0)
    launch = bind_phases(block, 3, phases, scratch_bytes, keep=g.table)
    if not g.swapped:
        return launch
    return lambda a, b, out: launch(b, a, out)


def _write_zeros(a: Any, b: Any, out: Any) -> None:
    """A sum over nothing."""
    from ..cpu.entry import write_zeros

    write_zeros(out)


def _scratch(*parts: int) -> int:
    """Bytes for one task's scratch, in whole pages."""
    return ceil_div(sum(parts) + 2 * words.ROW_PAD, PAGE) * PAGE


def _outer_split(cost: Cycles, specs: Specs, config: Config, threads: int) -> Split:
    """The split for a register tile of mr rows by nv vectors."""
    g = geometry(specs)
    lanes = lanes_of(g)
    return best_split(g, threads, (config["mr"], config["nv"] * lanes), cost, lanes, config)


# --- tiny ---------------------------------------------------------------------------------------------------


def _heights() -> tuple[tuple[int, int, int], ...]:
    """Of the register tiles for small matrices, 1, 2, ... vectors wide."""
    if many_registers():
        return (24, 16, 8), (12, 8, 4), (8, 4, 2), (6, 4, 2)
    return (12, 8, 4), (6, 4, 2), (4, 2, 1)


def tiny_supports(specs: Specs, attrs: Attrs) -> str | None:
    """Matrices with contiguous rows and little work."""
    from ..cpu.small import objects_are_known, small_enough

    a, b, out = specs
    if (a.ndim, b.ndim, out.ndim) != (2, 2, 2):
        return "takes matrices, not vectors or batches"
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    least = min(rows[0] for rows in _heights())
    if not small_enough(m, n, k, a.itemsize, b.strides[0], least, machine().l1d, machine().l2):
        return (
            f"takes little work on 4 columns or more, and a b that fits the near caches, not "
            f"{m} x {n} x {k} multiply-adds of {a.dtype}"
        )
    for name, spec in zip(("a", "b", "out"), specs, strict=True):
        if spec.strides[1] != spec.itemsize or spec.strides[0] < spec.shape[1] * spec.itemsize:
            return f"takes rows that are contiguous and apart from each other, which those of {name} are not"
    if not objects_are_known():
        return "reads NumPy's arrays where CPython and NumPy keep their shapes, which is elsewhere here"
    return None


@kernel("matmul", dtypes=DTYPES, supports=tiny_supports, rank=1, binds=True)
def tiny(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """One compiled call that looks at dtypes, shapes and strides itself; nothing is bound."""
    from ..cpu import steps
    from ..cpu.small import MOST_WORK, WORTH_A_TEAM, Caches, small_matmul, small_plan
    from ..cpu.team import team_address

    size, lanes = specs[0].itemsize, vector_bytes() // specs[0].itemsize
    entry = small_matmul(specs[0].dtype, lanes, _heights(), Caches(machine().l1d, machine().l2))
    plan = small_plan(specs[0].dtype, threads, cycles.WORK_PER_THREAD)
    plan_at = int(plan.ctypes.data)

    def with_team(a: Any, b: Any, out: Any, held: Any = plan) -> int:
        return entry(id(a), id(b), id(out), plan_at, team_address(threads) or -1)

    def launch(a: Any, b: Any, out: Any) -> None:
        if steps.active is not None and steps.recording() is not None:
            # In a plan, shapes are known: the same tiles without a look at Python's objects.
            batched(specs, attrs, {}, threads)(a, b, out)
            return
        done = entry(id(a), id(b), id(out), plan_at, 0)
        if done == WORTH_A_TEAM:
            done = with_team(a, b, out)
        # It looks at the ends of the arrays only: an output that lies between the elements of an input is
        # left to `batched`, which adds in the same order.
        if not done:
            batched(specs, attrs, {}, threads)(a, b, out)

    launch.lane = entry, MOST_WORK // size, plan_at, with_team  # type: ignore[attr-defined]
    return launch


# --- batched ------------------------------------------------------------------------------------------------

_BLOCK_ROWS = 192  # of an A that is turned into scratch at a time
_SHORT_ROWS = 64  # terms that are added in a row; a longer sum comes back to the same rows of A later


def batched_supports(specs: Specs, attrs: Attrs) -> str | None:
    """A B that stays in the near caches, and an A that does, or is read only once."""
    g = geometry(specs)
    most = machine().l2 // 2
    if g.k * g.n * g.itemsize > most:
        return f"reads b again and again where it is: it takes at most {most:,} bytes, not {g.k} x {g.n}"
    if g.k > _SHORT_ROWS and g.m * g.k * g.itemsize > 2 * most:
        # Rows of A are read 64 numbers at a time: from far memory, such pieces arrive at half the pace.
        return f"reads a in short pieces: it takes at most {2 * most:,} bytes, not {g.m} x {g.k}"
    if g.k > 2048 and g.a_cs != g.itemsize:
        return f"turns rows of a that are not contiguous into scratch, up to 2,048 long, not {g.k}"
    return None


def _batched_split(specs: Specs, config: Config, threads: int) -> Split:
    g = geometry(specs)
    lanes = lanes_of(g)
    cost = partial(model.batched_cycles, _heights())
    return best_split(g, threads, (_heights()[-1][1], lanes), cost, lanes, config)


def batched_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(_batched_split(specs, config, threads).cycles)


@kernel("matmul", dtypes=DTYPES, supports=batched_supports, model=batched_model, binds=True)
def batched(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Matrix after matrix by the tiles of `tiny`; whatever is not contiguous is turned into scratch."""
    from ..cpu.batched import batched_task

    g = geometry(specs)
    lanes, heights = lanes_of(g), _heights()
    split = _batched_split(specs, config, threads)
    turned_a, turned_b = g.a_cs != g.itemsize, g.b_cs != g.itemsize
    mc = min(_BLOCK_ROWS, max(g.m, 1)) if turned_a else max(g.m, 1)
    stride = _scratch(
        turned_a * mc * (g.k * g.itemsize + words.ROW_PAD),
        turned_b * g.k * (g.n * g.itemsize + words.ROW_PAD),
    )
    task = batched_task(g.dtype, lanes, heights)
    stride = stride if turned_a or turned_b else 0
    # While one matrix is computed, the next is fetched, if it is far and lies in one piece.
    size = g.itemsize
    whole = (g.a_rs, g.b_rs, g.c_rs) == (g.k * size, g.n * size, g.n * size)
    far = model.batch_is_far(g)
    tiles = model.batched_tiles(heights, split.m, split.n, g.k, lanes)
    fetch = tiles if whole and far and not (turned_a or turned_b) else 0
    key = ("batched", g.dtype, lanes, *heights)
    return _launch(specs, split, task, key, KC=fetch, MC=mc, SCRATCH_STRIDE=stride)


# --- packed -------------------------------------------------------------------------------------------------


def packed_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles and block sizes.

    A row tile of A (mr * kc) stays in L1 and a block of B (kc * nc) in L2; with few rows, that block is used
    only a few times and should still be near when it is, so kc is smaller. It is also how many terms are
    added one after the other: where C is small enough to be updated for little, a shorter chain loses less.
    """
    g = geometry(specs)
    depths = (512 // g.itemsize,) if g.m * g.n * g.k <= SHORT_CHAINS else (512, 256, 128)
    mc = 1536 // g.itemsize
    return [
        {"mr": mr, "nv": nv, "kc": kc, "nc": 1024, "mc": mc if nv == 4 else mc // 2}
        for mr, nv in register_tiles()
        for kc in depths
    ]


def packed_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(_outer_split(model.packed_cycles, specs, config, threads).cycles)


@kernel("matmul", dtypes=DTYPES, configs=packed_configs, model=packed_model, binds=True)
def packed(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Blocks of B packed into panels, five loops around a register tile of mr x (nv vectors)."""
    g = geometry(specs)
    lanes, mr, nv = lanes_of(g), config["mr"], config["nv"]
    split = _outer_split(model.packed_cycles, specs, config, threads)
    kc = max(1, min(config["kc"], g.k))
    mc = ceil_div(min(config["mc"], max(g.m, 1)), mr) * mr
    nc = ceil_div(min(config["nc"], max(split.n, 1)), nv * lanes) * nv * lanes
    pack_a = int(model.packs_a(g, split.n))
    stride = _scratch(nc * kc * g.itemsize, pack_a * mc * (kc * g.itemsize + words.ROW_PAD))
    task = words.gemm_task(g.dtype, lanes, mr, nv, pack_b=True)
    key = ("packed", g.dtype, lanes, mr, nv)
    return _launch(specs, split, task, key, KC=kc, MC=mc, NC=nc, PACK_A=pack_a, SCRATCH_STRIDE=stride)


# --- direct -------------------------------------------------------------------------------------------------


def _b_in_place(specs: Specs, attrs: Attrs) -> str | None:
    g = geometry(specs)
    if g.b_cs == g.itemsize:
        return None
    name = "a" if g.swapped else "b"
    return f"reads {name} by vectors along the result's rows, and there it is not contiguous"


def direct_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and how many rows of B at a time.

    A few dozen, or all of a small B: so many streams the prefetchers can follow, and so many terms are added
    one after the other.
    """
    return [{"mr": mr, "nv": nv, "kc": kc} for mr, nv in register_tiles() for kc in (64, 32, 128)]


def direct_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(_outer_split(model.direct_cycles, specs, config, threads).cycles)


@kernel("matmul", dtypes=DTYPES, supports=_b_in_place, configs=direct_configs, model=direct_model, binds=True)
def direct(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The register tile over operands where they are; only an A that is not contiguous along k is packed."""
    g = geometry(specs)
    lanes, mr, nv = lanes_of(g), config["mr"], config["nv"]
    split = _outer_split(model.direct_cycles, specs, config, threads)
    pack_a = int(g.a_cs != g.itemsize)
    kc = max(1, min(config["kc"], g.k))
    mc = ceil_div(min(384, max(g.m, 1)), mr) * mr
    stride = _scratch(mc * (kc * g.itemsize + words.ROW_PAD)) if pack_a else 0
    # With k in blocks, C is updated block by block and should stay near.
    nc = ceil_div(min(1024, g.n) if kc < g.k else max(g.n, 1), nv * lanes) * nv * lanes
    task = words.gemm_task(g.dtype, lanes, mr, nv, pack_b=False)
    key = ("direct", g.dtype, lanes, mr, nv)
    return _launch(specs, split, task, key, KC=kc, MC=mc, NC=nc, PACK_A=pack_a, SCRATCH_STRIDE=stride)


# --- stream -------------------------------------------------------------------------------------------------


def stream_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Rows of C by rows of B at a time, and how many columns before the next rows of B."""
    shapes = [(4, 4), (2, 8), (1, 4)] if many_registers() else [(2, 4), (1, 4)]
    return [{"mr": mr, "depth": depth, "nc": nc} for mr, depth in shapes for nc in (4096, 512)]


def _stream_split(specs: Specs, config: Config, threads: int) -> Split:
    g = geometry(specs)
    lanes = lanes_of(g)
    return best_split(g, threads, (max(g.m, 1), lanes), model.stream_cycles, lanes, config)


def stream_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(_stream_split(specs, config, threads).cycles)


@kernel("matmul", dtypes=DTYPES, supports=_b_in_place, configs=stream_configs, model=stream_model, binds=True)
def stream(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """B read once, `depth` rows at a time, each added into `mr` rows of C."""
    from ..cpu.thin import stream_task

    g = geometry(specs)
    lanes, mr, depth = lanes_of(g), config["mr"], config["depth"]
    split = _stream_split(specs, config, threads)
    task = stream_task(g.dtype, lanes, mr, depth)
    return _launch(specs, split, task, ("stream", g.dtype, lanes, mr, depth), NC=config["nc"])


# --- dots ---------------------------------------------------------------------------------------------------


def _a_in_place(specs: Specs, attrs: Attrs) -> str | None:
    g = geometry(specs)
    if g.a_cs == g.itemsize:
        return None
    name = "columns of b" if g.swapped else "rows of a"
    return f"reads {name} by vectors, and they are not contiguous along k"


def dots_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Tiles of inner products, and how much of k at a time."""
    shapes = [(4, 5), (4, 4), (1, 4), (1, 1)] if many_registers() else [(3, 3), (1, 4), (1, 1)]
    return [{"mr": mr, "nr": nr, "kc": kc} for mr, nr in shapes for kc in (4096, 1024)]


def _dots_split(specs: Specs, config: Config, threads: int) -> Split:
    g = geometry(specs)
    return best_split(g, threads, (config["mr"], config["nr"]), model.dots_cycles, lanes_of(g), config)


def dots_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(_dots_split(specs, config, threads).cycles)


@kernel("matmul", dtypes=DTYPES, supports=_a_in_place, configs=dots_configs, model=dots_model, binds=True)
def dots(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Inner products of rows of A and columns of B, an mr x nr tile at a time."""
    from ..cpu.thin import dots_task

    g = geometry(specs)
    lanes, mr, nr = lanes_of(g), config["mr"], config["nr"]
    split = _dots_split(specs, config, threads)
    kc = max(1, min(config["kc"], g.k))
    turned = g.b_rs != g.itemsize and g.k > 1
    stride = _scratch(split.n * (kc * g.itemsize + words.ROW_PAD)) if turned else 0
    task = dots_task(g.dtype, lanes, mr, nr)
    return _launch(specs, split, task, ("dots", g.dtype, lanes, mr, nr), KC=kc, SCRATCH_STRIDE=stride)
