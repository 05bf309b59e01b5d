"""How long a matmul should take on one core or several: the models that rank the CPU kernels and their tiles.

Counted in cycles of a core that starts two vector multiply-adds, two loads and one store a cycle. The
constants marked "measured" come from `kernelwright bench skinny` and `squares` on an AVX-512 core with 2 MB
of L2 cache; they rank kernels against each other, and a wrong rank costs time but never a right result.
`kernelwright tune` measures instead.
"""

from __future__ import annotations

from ..cpu.cycles import FAR, NEAR, TURNED, ceil_div, fma_cycles
from ..machine import machine
from .geometry import Geometry

FAR_BLOCKS = 4.5  # bytes a cycle from beyond the L2 cache in short pieces of rows (measured)
SPILLED = 10.0  # bytes a cycle for a block written past the L2 cache and read back (measured)
UNALIGNED = 1.7  # times as long with vectors of B that lie across two cache lines (measured)
TILE_START = 45.0  # cycles to start and end a register tile (measured)
FINISH = 4.0  # cycles to finish a vector of sums without an activation
AMX_PAIRS = 16  # pairs of k that a product of AMX tiles takes; also its rows, and its columns
AMX_PRODUCT = 16.0  # cycles from one such product to the next (Intel's optimization manual, chapter on AMX)
AMX_NEAR = 48.0  # bytes a cycle that such a core reads from L2 for long (the same manual)
AMX_SUMS = 4 * 2 * 16.0  # cycles to read and write four tiles of sums, a row a cycle
AMX_START = 400.0  # cycles to configure the tiles and to give them back (an estimate)
SMALL_TILE_START = 30.0  # the same, where nothing is looked up on the way from tile to tile (measured)


def tile_rows(m: int, mr: int, low: int = 0) -> int:
    """Rows that are computed for m rows: a remainder of up to `low` (or half a tile) takes such a tile."""
    whole, left = divmod(m, mr)
    half = low or max(1, mr // 2)
    return whole * mr + (0 if left == 0 else half if left <= half else mr)


def packed_cycles(
    g: Geometry, m: int, n: int, lanes: int, config: dict[str, int], *, panels: bool = False
) -> float:
    """One task of `packed` on an m x n part of C; with `panels`, B has been packed before."""
    mr, columns, kc, nc = config["mr"], config["nv"], config["kc"], config["nc"]
    widths = ceil_div(n, columns * lanes)
    rows = tile_rows(m, mr, config.get("low", 0))
    compute = rows * widths * columns * g.k * fma_cycles(mr, columns)
    tiles = ceil_div(m, mr) * widths * ceil_div(g.k, kc)
    rows = m * g.k * g.itemsize
    pack = 0.0
    if packs_a(g, n):
        pack = ceil_div(n, nc) * rows / (NEAR if g.a_cs == g.itemsize else TURNED)
    updates = m * n * g.itemsize * ceil_div(g.k, kc) / NEAR
    in_panels = 0.0 if panels else _pack_b_cycles(g, n, kc, nc)
    return compute + tiles * (TILE_START + mr * columns) + pack + in_panels + updates


def _pack_b_cycles(g: Geometry, n: int, kc: int, nc: int) -> float:
    """Packing n columns of B in blocks of kc x nc."""
    b_bytes = g.k * n * g.itemsize
    # A packed block that takes most of the L2 cache is pushed out before it is read.
    share = kc * min(n, nc) * g.itemsize / machine().l2
    spilled = b_bytes / SPILLED * min(1.0, max(0.0, share - 0.25) / 0.75)
    if g.b_cs != g.itemsize:
        return b_bytes / TURNED + spilled
    return b_bytes / (FAR if b_bytes > machine().l2 // 2 else NEAR) + spilled


def ending_cycles(
    g: Geometry, m: int, n: int, lanes: int, config: dict[str, int], *, panels: bool, widens: bool
) -> float:
    """One task of a product with an epilogue; B may be in packed `panels`, and its numbers may be widened.

    `g` counts in elements of packed operands.
    """
    cycles = packed_cycles(g, m, n, lanes, config, panels=panels)
    if panels:
        # What is far away has to be read, partly while the tiles are busy.
        b_bytes = g.k * n * g.itemsize
        wait = b_bytes / (FAR if b_bytes > machine().l2 // 2 else NEAR)
        cycles = max(cycles, wait) + 0.3 * min(cycles, wait)
    if widens and not packs_a(g, n):
        cycles += ceil_div(n, config["nc"]) * m * g.k * g.itemsize / NEAR
    return cycles + m * ceil_div(n, lanes) * FINISH


def amx_cycles(
    pairs: Geometry, m: int, n: int, lanes: int, config: dict[str, int], *, panels: bool, packs: bool
) -> float:
    """One task of a product of bfloat16 on AMX tiles. Counted from the instructions' rates, not measured.

    `pairs` counts in elements of packed operands; `packs`: A is packed.
    """
    steps, blocks = ceil_div(pairs.k, AMX_PAIRS), ceil_div(2 * pairs.k, config["kc"])
    across, down = ceil_div(n, 2 * AMX_PAIRS), ceil_div(m, 2 * AMX_PAIRS)
    rows = ceil_div(m, AMX_PAIRS)
    # A step of four products reads 2 KB of A and 2 KB of B. 32 rows of A serve both halves of a panel, and a
    # panel all rows; what does not fit into L1 with them comes from L2 every time.
    depth, l1d = min(config["kc"], 2 * pairs.k), machine().l1d
    far = 0 if depth * 192 <= l1d else 2048 if depth * 64 <= 0.75 * l1d else 4096
    step = max(4 * AMX_PRODUCT, far / AMX_NEAR)
    compute = 2 * rows * across * steps * step / 4
    sums = down * across * blocks * (TILE_START + AMX_SUMS)
    pack = 0.0 if panels else _pack_b_cycles(pairs, n, config["kc"] // 2, config["nc"])
    if packs:
        a_bytes = m * pairs.k * pairs.itemsize
        pack += ceil_div(n, config["nc"]) * a_bytes / (NEAR if pairs.a_cs == pairs.itemsize else TURNED)
    b_bytes = pairs.k * n * pairs.itemsize
    wait = b_bytes / (FAR if b_bytes > machine().l2 // 2 else NEAR) if panels else 0.0
    busy = max(compute, wait) + 0.3 * min(compute, wait)
    return AMX_START + busy + sums + pack + m * ceil_div(n, lanes) * FINISH


def packs_a(g: Geometry, n: int) -> bool:
    """Whether A is worth packing (or must be): rows that are pages apart, read for many panels of B."""
    return g.a_cs != g.itemsize or (g.a_rs >= 4096 and n >= 256)


def direct_cycles(g: Geometry, m: int, n: int, lanes: int, config: dict[str, int]) -> float:
    """One task of `direct` on an m x n part of C."""
    mr, columns, kc = config["mr"], config["nv"], min(config["kc"], max(g.k, 1))
    panels, row_tiles, blocks = ceil_div(n, columns * lanes), ceil_div(m, mr), ceil_div(g.k, kc)
    compute = tile_rows(m, mr) * panels * columns * g.k * fma_cycles(mr, columns)
    updates = 2 * m * n * g.itemsize * (blocks - 1) / NEAR
    pack = m * g.k * g.itemsize / TURNED if g.a_cs != g.itemsize else 0.0
    if g.b_rs % 64 and g.k * n * g.itemsize > machine().l1d:
        compute *= UNALIGNED
    busy = compute + updates + pack + row_tiles * panels * blocks * (TILE_START + mr * columns)
    b_bytes = g.k * n * g.itemsize
    # A few dozen rows of B at a time are as many streams, which the prefetchers follow from panel to panel
    # while the tile is busy; the panel stays in L1 for the rows of A.
    far = b_bytes > machine().l2 // 2
    wait = b_bytes / (NEAR * 2 if not far else FAR if kc <= 32 else FAR_BLOCKS)
    return max(busy, wait) + 0.3 * min(busy, wait)


def batch_is_far(g: Geometry) -> bool:
    """Whether the matrices of a batch, all together, are more than the last cache holds for one caller."""
    nbytes = g.batch * (g.m * g.k + g.k * g.n + g.m * g.n) * g.itemsize
    return g.batch > 1 and nbytes > max(machine().l3 // 2, 2 * machine().l2)


Heights = tuple[tuple[int, int, int], ...]


def batched_cycles(
    heights: Heights, g: Geometry, m: int, n: int, lanes: int, config: dict[str, int]
) -> float:
    """One matrix, or an m x n part of it, of `batched`, by tiles of these heights (see cpu/small.py)."""
    compute = 0.0
    for width in batched_panels(n, lanes, len(heights)):
        rows, _ = batched_rows(m, heights[width - 1])
        compute += rows * width * g.k * fma_cycles(heights[width - 1][0], width)
    if g.b_rs % 64 and g.b_cs == g.itemsize and g.k * n * g.itemsize > machine().l1d:
        compute *= UNALIGNED
    # C is added to while it is near: that costs next to nothing (measured).
    updates = 0.5 * m * n * g.itemsize * (ceil_div(g.k, 64) - 1) / NEAR
    turned = (m if g.a_cs != g.itemsize else 0) * g.k + (n if g.b_cs != g.itemsize and g.b_bs else 0) * g.k
    tiles = batched_tiles(heights, m, n, g.k, lanes)
    return compute + updates + tiles * SMALL_TILE_START + turned * g.itemsize / TURNED


def batched_tiles(heights: Heights, m: int, n: int, k: int, lanes: int) -> int:
    """How many register tiles there are, each for 64 of k."""
    panels = batched_panels(n, lanes, len(heights))
    return ceil_div(k, 64) * sum(batched_rows(m, heights[width - 1])[1] for width in panels)


def batched_panels(n: int, lanes: int, widest: int) -> list[int]:
    """The widths in vectors of the panels that n columns are cut into."""
    left, widths = ceil_div(n, lanes), []
    while left > 0:
        widths.append(left if left <= widest else min(widest, ceil_div(left, 2)))
        left -= widths[-1]
    return widths


def batched_rows(m: int, heights: tuple[int, int, int]) -> tuple[int, int]:
    """(rows computed, tiles) for m rows in tiles of three heights."""
    high, middle, low = heights
    whole, left = divmod(m, high)
    if left == 0:
        return m, whole
    if left <= low:
        # One high tile and the rest may do as two of middle height.
        both = whole > 0 and high + left <= 2 * middle
        return (m - left - high + 2 * middle, whole + 1) if both else (m - left + low, whole + 1)
    return (m - left + middle, whole + 1) if left <= middle else (m - left + high, whole + 1)


def stream_cycles(g: Geometry, m: int, n: int, lanes: int, config: dict[str, int]) -> float:
    """One task of `stream` on n columns."""
    mr, depth = config["mr"], config["depth"]
    groups = ceil_div(m, mr)
    vectors = ceil_div(n, lanes) * ceil_div(g.k, depth)
    update = max(0.5 * mr * depth, 0.5 * (depth + mr), 1.0 * mr) * 1.1
    b_bytes = g.k * n * g.itemsize
    read = b_bytes / (FAR if b_bytes > machine().l2 // 2 else NEAR) + (groups - 1) * b_bytes / NEAR
    sweeps = groups * ceil_div(g.k, depth) * ceil_div(n, config["nc"])
    # Rows of C that overflow L1 are read and written at the pace of L2 in every sweep.
    spill = (
        0.0
        if m * min(n, config["nc"]) * g.itemsize < machine().l1d // 2
        else 2 * groups * vectors * mr * lanes * g.itemsize / NEAR
    )
    return max(vectors * groups * update + spill, read) + sweeps * (20.0 + 2.5 * mr * depth)


def dots_cycles(g: Geometry, m: int, n: int, lanes: int, config: dict[str, int]) -> float:
    """One task of `dots` on an m x n part of C."""
    mr, nr, kc = config["mr"], config["nr"], config["kc"]
    tiles = ceil_div(m, mr) * ceil_div(n, nr)
    steps = ceil_div(g.k, lanes)
    per_step = max(0.5 * mr * nr, 0.5 * (mr + nr), 4.0 if mr * nr < 8 else 0.0) * 1.1
    # The shorter operand's block in L1 costs nothing more; from L2 its vectors are waited for.
    block = min(m, n) * min(g.k, kc) * g.itemsize
    per_step += 0.0 if block < machine().l1d // 2 else (nr if n <= m else mr) * lanes * g.itemsize / NEAR
    a_bytes, b_bytes = m * g.k * g.itemsize, n * g.k * g.itemsize
    read = a_bytes / (FAR if a_bytes > machine().l2 // 2 else NEAR) + b_bytes / (
        FAR if b_bytes > machine().l2 // 2 else NEAR
    )
    pack = 0.0 if g.b_rs == g.itemsize or g.k <= 1 else b_bytes / TURNED
    return (
        max(tiles * steps * per_step, read) + tiles * ceil_div(g.k, kc) * (TILE_START + 12.0 * mr * nr) + pack
    )
