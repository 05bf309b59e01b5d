"""Matrix products on NVIDIA GPUs in CUDA C++: matmul, and linear with its epilogue. Compiled by NVRTC.

    simt          float32 and float64 in full precision, on the ordinary cores (cuda/simt.cu): tiles of up to
                  128 x 128, 8 x 8 sums a thread, operands copied asynchronously through three buffers
    tensor_cores  bfloat16 and float16 by mma.sync (cuda/tensor_cores.cu): tiles of up to 128 x 256,
                  64 x 64 sums a warp, ldmatrix over permuted lines

Both take any strides: an operand that is contiguous and aligned one way or the other comes 16 bytes at a
time, any other one element after the other. Both add each sum up in the order of k, so that equal calls give
equal bits. Of the rate of the ordinary cores, 67 TFLOP/s on an H200, the instructions of an inner loop leave
92% at best; of that of the tensor cores, mma.sync reaches 63% on Hopper (see `MMA_SHARE`). No record has
measured either yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..activations import ACTIVATIONS
from ..cpu.cycles import ceil_div
from ..cuda import nvrtc
from ..cuda.code_launch import CodeLaunch, CodeStep
from ..cuda.device import Device, facts
from ..cuda.source import Code
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda.strided_product import BATCH_AXES, Product, linear_product, matmul_product

nvrtc.require()

FILES = ("matmul/cuda/product.cuh",)
MOST_BLOCKS = 2**31 - 1
TYPES = {"float32": "float", "float64": "double", "bfloat16": "bf16", "float16": "f16"}
SIMT_DEPTH = 16
MMA_DEPTH = 64
# Of the rate of the tensor cores, what mma.sync reaches. On Hopper 63%: W. Luo et al., "Benchmarking and
# Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking", 2024, table on mma against wgmma. On
# Blackwell's data centre chips it was not measured: their tensor cores are built for tcgen05 alone, so it is
# put last.
MMA_SHARE = {80: 0.95, 90: 0.63, 100: 0.25}
LAUNCH = 3e-6  # seconds from one launch to the next in a row of small ones


def product_of(specs: Specs, attrs: Attrs) -> Product:
    """The product behind a call of either op."""
    return (
        linear_product(specs, attrs["activation"] or "") if "activation" in attrs else matmul_product(specs)
    )


def call_problem(specs: Specs, attrs: Attrs) -> str | None:
    """What both kernels ask of a call."""
    if attrs.get("w_format"):
        return "takes a weight that is not packed"
    if facts(specs[0].device).capability < 80:
        return "needs asynchronous copies, which compute capability 8.0 has first"
    axes = len(product_of(specs, attrs).axes)
    if axes > BATCH_AXES:
        return f"takes at most {BATCH_AXES} batch axes that do not join, and here are {axes}"
    return None


def _even(steps: tuple[int, ...], v: int) -> bool:
    return all(step % v == 0 for step in steps)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _ending(p: Product) -> str:
    """The template arguments of how a product ends."""
    number = ACTIVATIONS.index(p.activation) + 1 if p.activation else 0
    return f"{_flag(p.pointers[2] is not None)}, {_flag(p.pointers[3] is not None)}, {number}"


def _wide_c(p: Product, aligned: bool) -> bool:
    """Whether C is written 16 bytes at a time."""
    rs, cs, steps = p.lines("c")
    return aligned and cs == 1 and _even((rs, *steps), 16 // p.itemsize)


def _grid(p: Product, bm: int, bn: int) -> int:
    return min(ceil_div(p.m, bm) * ceil_div(p.n, bn) * p.batch, MOST_BLOCKS)


def _seconds(
    p: Product, chip: Device, tile: SimtTile | MmaTile, share: float, rate: float, needed: int
) -> float:
    """The longer of computing and moving: tiles fill all multiprocessors as evenly as they can.

    share is the part of `rate`, FLOP/s of the chip, that a multiprocessor reaches inside a tile when it has
    as many warps as are needed for one to go on while another waits.
    """
    tiles = ceil_div(p.m, tile.bm) * ceil_div(p.n, tile.bn) * p.batch
    turns = ceil_div(tiles, chip.multiprocessors)
    warps = min(tile.blocks, turns) * tile.threads // 32
    reached = rate / chip.multiprocessors * share * min(1.0, warps / needed)
    busy = turns * 2.0 * tile.bm * tile.bn * max(p.k, 1) / reached
    moved = p.itemsize * p.batch * (p.m * p.k + p.k * p.n + p.m * p.n)
    # Through L2, which serves about three times what memory does, comes what each tile reads.
    through = p.itemsize * tiles * (tile.bm + tile.bn) * p.k / (3 * chip.bandwidth)
    return LAUNCH + max(busy, moved / chip.bandwidth, through)


# --- simt ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SimtTile:
    """A tile of C by one block: sums of a thread, and blocks of a multiprocessor."""

    bm: int
    bn: int
    tm: int
    tn: int
    blocks: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.bm // self.tm * (self.bn // self.tn)


SIMT_TILES = {
    4: (
        SimtTile(128, 128, 8, 8, 2),
        SimtTile(64, 128, 8, 8, 3),
        SimtTile(64, 64, 4, 8, 3),
        SimtTile(32, 64, 4, 4, 4),
    ),
    8: (SimtTile(64, 64, 4, 4, 2), SimtTile(32, 64, 4, 4, 3)),
}
SIMT_STAGES = 3
ALONG_K, ALONG_ROWS, VECTORS = range(3)  # enum How in cuda/simt.cu


def simt_how(p: Product, operand: str, aligned: bool) -> int:
    """How an operand comes into shared memory."""
    rs, cs, steps = p.lines(operand)
    along_k, along_rows = (cs, rs) if operand == "a" else (rs, cs)
    rows = p.m if operand == "a" else p.n
    if aligned and (along_rows == 1 or rows == 1) and _even((along_k, *steps), 16 // p.itemsize):
        return VECTORS
    nearer = along_k == 1 or (along_rows != 1 and abs(along_k) < abs(along_rows))
    return ALONG_K if nearer else ALONG_ROWS


def simt_code(p: Product, tile: SimtTile, aligned: bool) -> Code:
    """The kernel for a product."""
    v = 16 // p.itemsize
    how = (simt_how(p, "a", aligned), simt_how(p, "b", aligned))
    shape = f"{tile.bm}, {tile.bn}, {SIMT_DEPTH}, {tile.tm}, {tile.tn}, {SIMT_STAGES}"
    wide = _flag(_wide_c(p, aligned))
    return Code(
        name="kw_simt_matmul",
        files=(*FILES, "matmul/cuda/simt.cu"),
        call=f"simt_matmul<{TYPES[p.dtype]}, {shape}, {how[0]}, {how[1]}, {wide}, {_ending(p)}>",
        argument="Product",
        threads=tile.threads,
        shared=SIMT_STAGES * SIMT_DEPTH * (tile.bm + tile.bn + 2 * v) * p.itemsize,
        blocks=tile.blocks,
    )


def simt_tile(specs: Specs, config: Config) -> SimtTile:
    """The tile that a configuration names."""
    tiles = SIMT_TILES[specs[0].itemsize]
    return next(tile for tile in tiles if (tile.bm, tile.bn) == (config["bm"], config["bn"]))


def simt_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    return [{"bm": tile.bm, "bn": tile.bn} for tile in SIMT_TILES[specs[0].itemsize]]


def simt_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds. For each k a thread issues its multiply-adds, its loads, its part of the copies."""
    p, tile, chip = product_of(specs, attrs), simt_tile(specs, config), facts(specs[0].device)
    sums, v = tile.tm * tile.tn, 16 // p.itemsize
    copies = 2 * (tile.bm + tile.bn) / tile.threads
    share = sums / (sums + (tile.tm + tile.tn) / v + copies)
    # 16 to 64 independent sums a thread: one warp keeps a scheduler busy.
    return _seconds(p, chip, tile, share, chip.flops[p.dtype], needed=4)


def simt_launch(specs: Specs, attrs: Attrs, config: Config) -> CodeLaunch:
    """The launch of either op."""
    p, tile = product_of(specs, attrs), simt_tile(specs, config)

    def step(aligned: bool) -> CodeStep:
        grid = _grid(p, tile.bm, tile.bn)
        return CodeStep(simt_code(p, tile, aligned), grid, p.pointers, p.words(tile.bm, tile.bn))

    return CodeLaunch(specs, step)


_SIMT: dict[str, Any] = {
    "device": "cuda",
    "language": "cupy",
    "dtypes": ("float32", "float64"),
    "name": "simt",
    "supports": call_problem,
    "configs": simt_configs,
    "model": simt_model,
    "binds": True,
}


@kernel("matmul", **_SIMT)
def simt(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """Full precision on the ordinary cores."""
    return simt_launch(specs, attrs, config)


@kernel("linear", **_SIMT)
def simt_linear(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """The same with an epilogue."""
    return simt_launch(specs, attrs, config)


# --- tensor_cores -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MmaTile:
    """A tile of C by one block: warps down and across, buffers, and blocks of a multiprocessor."""

    bm: int
    bn: int
    warps_m: int
    warps_n: int
    stages: int
    blocks: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps_m * self.warps_n

    @property
    def shared(self) -> int:
        """Bytes of a block."""
        return self.stages * MMA_DEPTH * (self.bm + self.bn) * 2


MMA_TILES = (
    MmaTile(128, 128, 2, 2, 3, 2),
    MmaTile(128, 256, 2, 4, 3, 1),
    MmaTile(64, 128, 2, 2, 3, 2),
    MmaTile(64, 64, 2, 2, 3, 3),
)


def mma_order(p: Product, operand: str, aligned: bool) -> tuple[bool, bool]:
    """Whether an operand's lines lie along k, and whether they come 16 bytes at a time."""
    rs, cs, steps = p.lines(operand)
    along_k, along_rows = (cs, rs) if operand == "a" else (rs, cs)
    rows = p.m if operand == "a" else p.n
    for by_k, inner, outer in ((True, along_k, along_rows), (False, along_rows, along_k)):
        contiguous = inner == 1 or (p.k if by_k else rows) == 1
        if aligned and contiguous and _even((outer, *steps), 8):
            return by_k, True
    return along_k == 1 or (along_rows != 1 and abs(along_k) < abs(along_rows)), False


def mma_code(p: Product, tile: MmaTile, aligned: bool) -> Code:
    """The kernel for a product."""
    shape = f"{tile.bm}, {tile.bn}, {MMA_DEPTH}, {tile.warps_m}, {tile.warps_n}, {tile.stages}"
    orders = ", ".join(_flag(flag) for operand in "ab" for flag in mma_order(p, operand, aligned))
    wide = _flag(_wide_c(p, aligned))
    return Code(
        name="kw_tensor_core_matmul",
        files=(*FILES, "matmul/cuda/tensor_cores.cu"),
        call=f"tensor_core_matmul<{TYPES[p.dtype]}, {shape}, {orders}, {wide}, {_ending(p)}>",
        argument="Product",
        threads=tile.threads,
        shared=tile.shared,
        blocks=tile.blocks,
    )


def mma_tile(config: Config) -> MmaTile:
    """The tile that a configuration names."""
    return next(tile for tile in MMA_TILES if (tile.bm, tile.bn) == (config["bm"], config["bn"]))


def mma_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    chip = facts(specs[0].device)
    return [{"bm": tile.bm, "bn": tile.bn} for tile in MMA_TILES if tile.shared <= chip.shared_bytes]


def mma_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds. What ldmatrix reads from shared memory bounds small tiles of a warp."""
    p, tile, chip = product_of(specs, attrs), mma_tile(config), facts(specs[0].device)
    wm, wn = tile.bm // tile.warps_m, tile.bn // tile.warps_n
    # 2 (wm + wn) bytes a k for wm wn multiply-adds: at 128 bytes a clock of a multiprocessor against 1024
    # multiply-adds (A100) or 2048, the reads take as long as the products at 64 x 64 (32 x 32).
    share = MMA_SHARE[chip.capability // 10 * 10 if chip.capability >= 80 else 80]
    share *= min(1.0, wm * wn / (wm + wn) / 32)
    if not all(mma_order(p, operand, True)[1] for operand in "ab"):
        share /= 4  # element by element; the copies are then waited for
    # ldmatrix and mma take turns in a warp: each scheduler needs two.
    return _seconds(p, chip, tile, share, chip.flops[p.dtype], needed=8)


def mma_launch(specs: Specs, attrs: Attrs, config: Config) -> CodeLaunch:
    """The launch of either op."""
    p, tile = product_of(specs, attrs), mma_tile(config)

    def step(aligned: bool) -> CodeStep:
        grid = _grid(p, tile.bm, tile.bn)
        return CodeStep(mma_code(p, tile, aligned), grid, p.pointers, p.words(tile.bm, tile.bn))

    return CodeLaunch(specs, step)


_MMA: dict[str, Any] = {
    **_SIMT,
    "dtypes": ("bfloat16", "float16"),
    "name": "tensor_cores",
    "configs": mma_configs,
    "model": mma_model,
}


@kernel("matmul", **_MMA)
def tensor_cores(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """bfloat16 and float16 by mma.sync."""
    return mma_launch(specs, attrs, config)


@kernel("linear", **_MMA)
def tensor_cores_linear(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """The same with an epilogue."""
    return mma_launch(specs, attrs, config)
