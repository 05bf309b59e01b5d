"""Matrix products on the CPU, float32 and float64: C[m, n] = A[m, k] B[k, n], batched.

    tiny     a few dozen rows and columns: everything, checks included, in one compiled call (kernels/cpu/small.py)
    packed   large and middle sizes: blocks of B (and of A, where its rows are far apart) are packed; five loops around a
             register tile (kernels/cpu/gemm.py)
    direct   small sizes: the same tile, reading both operands where they are; nothing is packed
    stream   few rows, B row-major: B is read once as one long stream, C stays in the L1 cache (kernels/cpu/thin.py)
    dots     few rows or columns, operands contiguous along k: inner products, nothing is packed or turned

`model.py` predicts each one's time, tile by tile; the fastest predicted runs, unless tuning has measured. A result whose
columns are contiguous (a transposed `out`) is computed as C^T = B^T A^T by the same code.

Any strides of a and b are read in place or packed block by block; no operand is copied as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cpu import gemm as words
from ..kernel import Config, Launch
from ..machine import machine, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from . import model
from .geometry import Geometry, geometry

DTYPES = ("float32", "float64")
# Multiply-adds below which a second thread costs more than it brings (measured: about 4 us of work for each thread).
WORK_PER_THREAD = 350_000
PAGE = 4096


def _lanes(g: Geometry) -> int:
    return vector_bytes() // g.itemsize


def _tiles() -> tuple[tuple[int, int], ...]:
    """(rows, vectors of columns) that fill the register file: 32 registers (AVX-512, NEON) or 16."""
    if vector_bytes() == 64 or "neon" in machine().flags:
        return ((6, 4), (8, 3), (12, 2), (12, 1), (4, 4))
    return ((6, 2), (4, 3), (12, 1), (4, 2))


@dataclass(frozen=True)
class Split:
    """How a call is cut into tasks: `runs` of the batch, each matrix into gm x gn rectangles of at most m x n."""

    runs: int
    gm: int
    gn: int
    m: int
    n: int

    @property
    def tasks(self) -> int:
        return self.runs * self.gm * self.gn


def _splits(g: Geometry, threads: int, mr: int, nr: int, cut_rows: bool = True) -> Iterator[Split]:
    """The ways to cut a call for the threads that its work is worth."""
    threads = min(threads, max(1, g.m * g.n * max(g.k, 1) * g.batch // WORK_PER_THREAD))
    runs = min(threads, g.batch)
    cells = max(1, threads // runs)
    row_tiles, column_tiles = max(1, model.ceil_div(g.m, mr)), max(1, model.ceil_div(g.n, nr))
    for gm in range(1, cells + 1):
        if cells % gm or (gm > 1 and not cut_rows):
            continue
        rows, columns = min(gm, row_tiles), min(cells // gm, column_tiles)
        m, n = model.ceil_div(row_tiles, rows) * mr, model.ceil_div(column_tiles, columns) * nr
        yield Split(runs, rows, columns, min(g.m, m), min(g.n, n))


def _best_split(
    g: Geometry, threads: int, mr: int, nr: int, cycles: Callable[[int, int], float], cut_rows: bool = True
) -> tuple[float, Split]:
    """The cheapest split by the model, and its cycles."""

    def cost(split: Split) -> float:
        per_task = model.ceil_div(g.batch, split.runs) * cycles(split.m, split.n)
        return model.CALL + per_task + (model.HAND_OVER if split.tasks > 1 else 0.0)

    best = min(_splits(g, threads, mr, nr, cut_rows), key=cost)
    return cost(best), best


def _launch(
    g: Geometry, specs: Specs, split: Split, task: Any, key: tuple[Any, ...], **values: int
) -> Launch:
    """The argument block written, the task compiled or loaded: ready to be called with (a, b, out)."""
    if g.k == 0:
        return _write_zeros
    from ..cpu.launch import address_of_task, launcher
    from ..cpu.memory import scratch
    from ..cpu.team import team_address

    block = np.zeros(words.WORDS, np.int64)
    facts = {name: getattr(g, name.lower()) for name in _GEOMETRY_WORDS}
    facts |= {"SPLIT": split.runs, "GM": split.gm, "GN": split.gn, **values}
    facts["TABLE"] = 0 if g.table is None else g.table.ctypes.data
    for name, value in facts.items():
        block[getattr(words, name)] = value
    order = (1, 0, 2) if g.swapped else (0, 1, 2)
    run = launcher(tuple(specs[i].dtype for i in order), tuple(specs[i].ndim for i in order))
    address = address_of_task(task, key, f"matmul for {g.dtype}")
    tasks, parameters, bytes_needed = (
        split.tasks,
        int(block.ctypes.data),
        split.tasks * values.get("SCRATCH_STRIDE", 0),
    )
    keep = (block, g.table)

    def launch(a: Any, b: Any, out: Any, keep: Any = keep) -> None:
        memory = scratch(bytes_needed) if bytes_needed else 0
        run(a, b, out, parameters, words.WORDS, address, tasks, memory, team_address(tasks))

    def launch_swapped(a: Any, b: Any, out: Any, keep: Any = keep) -> None:
        memory = scratch(bytes_needed) if bytes_needed else 0
        run(b, a, out, parameters, words.WORDS, address, tasks, memory, team_address(tasks))

    return launch_swapped if g.swapped else launch


_GEOMETRY_WORDS = (
    ("M", "N", "K", "BATCH", "A_RS", "A_CS", "B_RS", "B_CS", "C_RS", "C_CS", "A_BS", "B_BS", "C_BS")
)  # fmt: skip


def _write_zeros(a: Any, b: Any, out: Any) -> None:
    """A sum over nothing."""
    out[...] = 0


def _scratch_bytes(*parts: int) -> int:
    return model.ceil_div(sum(parts) + 2 * words.ROW_PAD, PAGE) * PAGE


# --- tiny -----------------------------------------------------------------------------------------------------------


def _small_rows() -> tuple[int, int, int, int]:
    return (12, 12, 8, 6) if len(_tiles()) > 4 else (12, 6, 4, 2)


def tiny_supports(specs: Specs, attrs: Attrs) -> str | None:
    from ..cpu.small import MOST_WORK

    a, b, out = specs
    if (a.ndim, b.ndim, out.ndim) != (2, 2, 2):
        return "takes matrices, not vectors or batches"
    least = min(_small_rows())
    work = model.ceil_div(a.shape[0], least) * least * a.shape[1] * b.shape[1]
    if not 0 < work <= MOST_WORK:
        return f"takes 1 to {MOST_WORK:,} multiply-adds (m rounded up to {least}), not {work:,}"
    for name, spec in zip(("a", "b", "out"), specs, strict=True):
        if spec.strides[1] != spec.itemsize or spec.strides[0] < spec.shape[1] * spec.itemsize:
            return f"takes rows that are contiguous and apart from each other, which those of {name} are not"
    return None


def tiny_entry(dtype: str) -> Callable[..., bool]:
    """`small(a, b, out) -> bool` for 2-D arrays of `dtype`; see `kernels/cpu/small.py`."""
    from ..cpu.small import small_matmul

    entry: Callable[..., bool] = small_matmul(
        dtype, vector_bytes() // np.dtype(dtype).itemsize, _small_rows()
    )
    return entry


@kernel("matmul", dtypes=DTYPES, supports=tiny_supports, rank=1, binds=True)
def tiny(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """One compiled call that looks at shapes and strides itself; nothing is bound."""
    entry = tiny_entry(specs[0].dtype)

    def launch(a: Any, b: Any, out: Any) -> None:
        # It looks at the ends of the arrays only: an output that lies between the elements of an input is left to `packed`.
        if not entry(a, b, out):
            packed(specs, attrs, packed_configs(specs, attrs, threads)[0], threads)(a, b, out)

    launch.lane = entry  # type: ignore[attr-defined]
    return launch


# --- packed ---------------------------------------------------------------------------------------------------------


def packed_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, each with the block sizes that go with it."""
    # kc: a row tile of A stays in L1; kc * nc: a block of B in L2. With few rows, a block of B is used only a few times
    # and should still be near when it is. (measured: 512 for many rows, 128 for few)
    size = specs[2].itemsize
    scale = 4 / size
    found = []
    for mr, nv in _tiles():
        for kc in (512, 256, 128):
            found.append(
                {"mr": mr, "nv": nv, "kc": int(kc * scale), "nc": 1024, "mc": 192 if nv < 4 else 384}
            )
    return found


def packed_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    g = geometry(specs)
    lanes = _lanes(g)

    def cycles(m: int, n: int) -> float:
        return model.packed_cycles(g, m, n, lanes, config)

    return model.seconds(_best_split(g, threads, config["mr"], config["nv"] * lanes, cycles)[0])


@kernel("matmul", dtypes=DTYPES, configs=packed_configs, model=packed_model, binds=True)
def packed(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Blocks of B packed into panels, five loops around a register tile of mr x (nv vectors)."""
    g = geometry(specs)
    lanes = _lanes(g)
    mr, nv = config["mr"], config["nv"]
    nr = nv * lanes

    def cycles(m: int, n: int) -> float:
        return model.packed_cycles(g, m, n, lanes, config)

    _, split = _best_split(g, threads, mr, nr, cycles)
    kc = max(1, min(config["kc"], g.k))
    mc = model.ceil_div(min(config["mc"], max(g.m, 1)), mr) * mr
    nc = model.ceil_div(min(config["nc"], max(split.n, 1)), nr) * nr
    pack_a = int(model.packs_a(g, split.n))
    stride = _scratch_bytes(nc * kc * g.itemsize, pack_a * mc * (kc * g.itemsize + words.ROW_PAD))
    task = words.gemm_task(g.dtype, lanes, mr, nv, pack_b=True)
    blocks = {"KC": kc, "MC": mc, "NC": nc, "PACK_A": pack_a, "SCRATCH_STRIDE": stride}
    return _launch(g, specs, split, task, ("packed", g.dtype, lanes, mr, nv), **blocks)


# --- direct ---------------------------------------------------------------------------------------------------------


def _rows_of_b_contiguous(specs: Specs, attrs: Attrs) -> str | None:
    g = geometry(specs)
    if g.b_cs != g.itemsize:
        return f"reads {'a' if g.swapped else 'b'} in place, and its vectors along the result's rows are not contiguous"
    return None


def direct_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    return [{"mr": mr, "nv": nv} for mr, nv in _tiles()]


def direct_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    g = geometry(specs)
    lanes = _lanes(g)

    def cycles(m: int, n: int) -> float:
        return model.direct_cycles(g, m, n, lanes, config)

    return model.seconds(_best_split(g, threads, config["mr"], config["nv"] * lanes, cycles)[0])


@kernel(
    "matmul",
    dtypes=DTYPES,
    supports=_rows_of_b_contiguous,
    configs=direct_configs,
    model=direct_model,
    binds=True,
)
def direct(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The register tile over operands where they are: no packing but of an A that is not contiguous along k."""
    g = geometry(specs)
    lanes = _lanes(g)
    mr, nv = config["mr"], config["nv"]

    def cycles(m: int, n: int) -> float:
        return model.direct_cycles(g, m, n, lanes, config)

    _, split = _best_split(g, threads, mr, nv * lanes, cycles)
    pack_a = int(g.a_cs != g.itemsize)
    # Unpacked, k needs no blocks; packed, a block of A of at most 384 x 512.
    kc = max(1, min(512, g.k) if pack_a else g.k)
    mc = model.ceil_div(min(384, max(g.m, 1)), mr) * mr
    stride = _scratch_bytes(mc * (kc * g.itemsize + words.ROW_PAD)) if pack_a else 0
    task = words.gemm_task(g.dtype, lanes, mr, nv, pack_b=False)
    blocks = {"KC": kc, "MC": mc, "NC": max(g.n, 1), "PACK_A": pack_a, "SCRATCH_STRIDE": stride}
    return _launch(g, specs, split, task, ("direct", g.dtype, lanes, mr, nv), **blocks)


# --- stream ---------------------------------------------------------------------------------------------------------


def stream_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    shapes = [(1, 4), (2, 8), (4, 4)] if len(_tiles()) > 4 else [(1, 4), (2, 4)]
    return [{"mr": mr, "depth": depth, "nc": nc} for mr, depth in shapes for nc in (4096, 512)]


def stream_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    g = geometry(specs)
    lanes = _lanes(g)

    def cycles(m: int, n: int) -> float:
        return model.stream_cycles(g, m, n, lanes, config)

    return model.seconds(_best_split(g, threads, max(g.m, 1), lanes, cycles, cut_rows=False)[0])


@kernel(
    "matmul",
    dtypes=DTYPES,
    supports=_rows_of_b_contiguous,
    configs=stream_configs,
    model=stream_model,
    binds=True,
)
def stream(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """B read once, `depth` rows at a time, each added into `mr` rows of C."""
    g = geometry(specs)
    lanes = _lanes(g)

    def cycles(m: int, n: int) -> float:
        return model.stream_cycles(g, m, n, lanes, config)

    from ..cpu.thin import stream_task

    _, split = _best_split(g, threads, max(g.m, 1), lanes, cycles, cut_rows=False)
    task = stream_task(g.dtype, lanes, config["mr"], config["depth"])
    key = ("stream", g.dtype, lanes, config["mr"], config["depth"])
    return _launch(g, specs, split, task, key, NC=config["nc"])


# --- dots -----------------------------------------------------------------------------------------------------------


def _rows_of_a_contiguous(specs: Specs, attrs: Attrs) -> str | None:
    g = geometry(specs)
    if g.a_cs != g.itemsize:
        return f"reads rows of {'b, transposed,' if g.swapped else 'a'} in place, and they are not contiguous along k"
    return None


def dots_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    shapes = [(4, 5), (4, 4), (1, 4), (1, 1)] if len(_tiles()) > 4 else [(3, 3), (1, 4), (1, 1)]
    return [{"mr": mr, "nr": nr, "kc": kc} for mr, nr in shapes for kc in (4096, 1024)]


def dots_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    g = geometry(specs)
    lanes = _lanes(g)

    def cycles(m: int, n: int) -> float:
        return model.dots_cycles(g, m, n, lanes, config)

    return model.seconds(_best_split(g, threads, config["mr"], config["nr"], cycles)[0])


@kernel(
    "matmul",
    dtypes=DTYPES,
    supports=_rows_of_a_contiguous,
    configs=dots_configs,
    model=dots_model,
    binds=True,
)
def dots(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Inner products of rows of A and columns of B, an mr x nr tile at a time."""
    g = geometry(specs)
    lanes = _lanes(g)
    mr, nr = config["mr"], config["nr"]

    def cycles(m: int, n: int) -> float:
        return model.dots_cycles(g, m, n, lanes, config)

    from ..cpu.thin import dots_task

    _, split = _best_split(g, threads, mr, nr, cycles)
    kc = max(1, min(config["kc"], g.k))
    turned = g.b_rs != g.itemsize and g.k > 1
    stride = _scratch_bytes(split.n * (kc * g.itemsize + words.ROW_PAD)) if turned else 0
    task = dots_task(g.dtype, lanes, mr, nr)
    return _launch(g, specs, split, task, ("dots", g.dtype, lanes, mr, nr), KC=kc, SCRATCH_STRIDE=stride)
