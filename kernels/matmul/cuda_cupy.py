"""Matrix products on NVIDIA GPUs in CUDA C++: matmul, and linear with its epilogue. Compiled by NVRTC.

    simt          float32 and float64 in full precision, on the ordinary cores (cuda/simt.cu): tiles of up to
                  128 x 128, 8 x 8 sums a thread, operands copied asynchronously through three buffers
    tensor_cores  bfloat16 and float16 by mma.sync (cuda/tensor_cores.cu): tiles of up to 128 x 256,
                  64 x 64 sums a warp, ldmatrix over permuted lines

Both take any strides: an operand that is contiguous and aligned one way or the other comes 16 bytes at a
time, any other one element after the other. Both add each sum up in the order of k, so that equal calls give
equal bits. Of the rate of the ordinary cores, 67 TFLOP/s on an H200, the instructions of an inner loop leave
91% at best (`SimtTile.share`); of that of the tensor cores, mma.sync reaches 63% on Hopper (`MMA_SHARE`). No
record has measured either yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..activations import ACTIVATIONS
from ..cpu.cycles import ceil_div
from ..cuda import nvrtc
from ..cuda.code_launch import CodeLaunch, CodeStep
from ..cuda.device import Device, facts
from ..cuda.source import Code
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda.calls import LINEAR, MATMUL, Calls
from .cuda.plans import ITEM_BYTES, VECTOR_BYTES
from .cuda.product import Operand, Product

nvrtc.require()

FILES = ("matmul/cuda/product.cuh",)
BATCH_AXES = 4  # of struct Product in cuda/product.cuh
MOST_BLOCKS = 2**31 - 1
TYPES = {"float32": "float", "float64": "double", "bfloat16": "bf16", "float16": "f16"}
LAUNCH = 3e-6  # seconds from one launch to the next in a row of small ones


def _along(p: Product, operand: str) -> tuple[int, int, tuple[int, ...]]:
    """The steps of "a" or "b" along k, along its rows or columns, and along the batch."""
    if operand == "a":
        return p.a.columns, p.a.rows, p.a.batch
    return p.b.rows, p.b.columns, p.b.batch


def _even(steps: tuple[int, ...], v: int) -> bool:
    return all(step % v == 0 for step in steps)


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _ending(p: Product, aligned: bool) -> str:
    """The template arguments of how a product ends: C 16 bytes at a time, bias, residual, activation."""
    wide = aligned and p.c.columns == 1 and _even((p.c.rows, *p.c.batch), VECTOR_BYTES // ITEM_BYTES[p.dtype])
    number = ACTIVATIONS.index(p.activation) + 1 if p.activation else 0
    return f"{_flag(wide)}, {_flag(p.bias is not None)}, {_flag(p.residual is not None)}, {number}"


def _pointers(calls: Calls, p: Product) -> tuple[int | None, ...]:
    """Which tensor each pointer of struct Product is."""
    places = calls.placed(p)
    bias = None if p.bias is None else places["bias"]
    residual = None if p.residual is None else places["residual"]
    return places["a"], places["b"], bias, residual, places["c"]


def _words(p: Product, tile: SimtTile | MmaTile) -> tuple[int, ...]:
    """What follows the pointers in struct Product."""
    tiles_m, tiles_n = ceil_div(p.m, tile.bm), ceil_div(p.n, tile.bn)
    arrays = (p.a, p.b, p.c, p.residual or Operand(0, 0, (0,) * len(p.batch)))
    bias = (0, p.bias or 0) if p.bias_axis == "n" else (p.bias or 0, 0)
    steps = [(array.rows, array.columns) for array in arrays]
    unused = BATCH_AXES - len(p.batch)
    return (
        *(p.m, p.n, p.k),
        *(step for pair in (*steps[:3], bias, steps[3]) for step in pair),
        *(tiles_m, tiles_n, tiles_m * tiles_n * p.matrices),
        *((1,) * unused + p.batch),
        *(step for array in arrays for step in (0,) * unused + array.batch),
    )


# --- simt ---------------------------------------------------------------------------------------------------

SIMT_DEPTH, SIMT_STAGES = 16, 3
ALONG_K, ALONG_ROWS, VECTORS = range(3)  # enum How in cuda/simt.cu


def simt_how(p: Product, operand: str, aligned: bool) -> int:
    """How an operand comes into shared memory."""
    along_k, along_rows, batch = _along(p, operand)
    if aligned and along_rows == 1 and _even((along_k, *batch), VECTOR_BYTES // ITEM_BYTES[p.dtype]):
        return VECTORS
    nearer = along_k == 1 or (along_rows != 1 and abs(along_k) < abs(along_rows))
    return ALONG_K if nearer else ALONG_ROWS


@dataclass(frozen=True)
class SimtTile:
    """A tile of C by one block: sums of a thread, and blocks of a multiprocessor."""

    bm: int
    bn: int
    tm: int
    tn: int
    blocks: int
    needed: ClassVar[int] = 4
    """Warps of a multiprocessor: with 16 to 64 independent sums a thread, one keeps a scheduler busy."""

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.bm // self.tm * (self.bn // self.tn)

    def code(self, p: Product, aligned: bool) -> Code:
        """The kernel for a product."""
        how = (simt_how(p, "a", aligned), simt_how(p, "b", aligned))
        shape = f"{self.bm}, {self.bn}, {SIMT_DEPTH}, {self.tm}, {self.tn}, {SIMT_STAGES}"
        return Code(
            name="kw_simt_matmul",
            files=(*FILES, "matmul/cuda/simt.cu"),
            call=f"simt_matmul<{TYPES[p.dtype]}, {shape}, {how[0]}, {how[1]}, {_ending(p, aligned)}>",
            argument="Product",
            threads=self.threads,
            shared=SIMT_STAGES * SIMT_DEPTH * ((self.bm + self.bn) * ITEM_BYTES[p.dtype] + 2 * VECTOR_BYTES),
            blocks=self.blocks,
        )

    def share(self, p: Product, chip: Device) -> float:
        """Of the rate of the ordinary cores: multiply-adds among a thread's instructions for each k."""
        sums, v = self.tm * self.tn, VECTOR_BYTES // ITEM_BYTES[p.dtype]
        copies = 2 * (self.bm + self.bn) / self.threads
        return sums / (sums + (self.tm + self.tn) / v + copies)


SIMT_TILES = {
    4: (
        SimtTile(128, 128, 8, 8, 2),
        SimtTile(64, 128, 8, 8, 3),
        SimtTile(64, 64, 4, 8, 3),
        SimtTile(32, 64, 4, 4, 4),
    ),
    8: (SimtTile(64, 64, 4, 4, 2), SimtTile(32, 64, 4, 4, 3)),
}


def simt_tiles(specs: Specs) -> Sequence[SimtTile]:
    """Those that a call chooses from."""
    return SIMT_TILES[specs[0].itemsize]


# --- tensor_cores -------------------------------------------------------------------------------------------

MMA_DEPTH = 64
# Of the rate of the tensor cores, what mma.sync reaches. On Hopper 63%: W. Luo et al., "Benchmarking and
# Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking", 2024, table on mma against wgmma. On
# Blackwell's data centre chips it was not measured: their tensor cores are built for tcgen05 alone, so it is
# put last.
MMA_SHARE = {80: 0.95, 90: 0.63, 100: 0.25}


def mma_order(p: Product, operand: str, aligned: bool) -> tuple[bool, bool]:
    """Whether an operand's lines lie along k, and whether they come 16 bytes at a time."""
    along_k, along_rows, batch = _along(p, operand)
    for by_k, inner, outer in ((True, along_k, along_rows), (False, along_rows, along_k)):
        if aligned and inner == 1 and _even((outer, *batch), 8):
            return by_k, True
    return along_k == 1 or (along_rows != 1 and abs(along_k) < abs(along_rows)), False


@dataclass(frozen=True)
class MmaTile:
    """A tile of C by one block: warps down and across, buffers, and blocks of a multiprocessor."""

    bm: int
    bn: int
    warps_m: int
    warps_n: int
    stages: int
    blocks: int
    needed: ClassVar[int] = 8
    """Warps of a multiprocessor: ldmatrix and mma take turns in a warp, so that each scheduler needs two."""

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps_m * self.warps_n

    @property
    def shared(self) -> int:
        """Bytes of a block."""
        return self.stages * MMA_DEPTH * (self.bm + self.bn) * 2

    def code(self, p: Product, aligned: bool) -> Code:
        """The kernel for a product."""
        shape = f"{self.bm}, {self.bn}, {MMA_DEPTH}, {self.warps_m}, {self.warps_n}, {self.stages}"
        orders = ", ".join(_flag(flag) for operand in "ab" for flag in mma_order(p, operand, aligned))
        return Code(
            name="kw_tensor_core_matmul",
            files=(*FILES, "matmul/cuda/tensor_cores.cu"),
            call=f"tensor_core_matmul<{TYPES[p.dtype]}, {shape}, {orders}, {_ending(p, aligned)}>",
            argument="Product",
            threads=self.threads,
            shared=self.shared,
            blocks=self.blocks,
        )

    def share(self, p: Product, chip: Device) -> float:
        """Of the rate of the tensor cores; what ldmatrix reads from shared memory bounds small tiles."""
        wm, wn = self.bm // self.warps_m, self.bn // self.warps_n
        # 2 (wm + wn) bytes a k for wm wn multiply-adds: at 128 bytes a clock of a multiprocessor against 1024
        # multiply-adds (A100) or 2048, the reads take as long as the products at 64 x 64 (32 x 32).
        share = MMA_SHARE[chip.capability // 10 * 10 if chip.capability >= 80 else 80]
        share *= min(1.0, wm * wn / (wm + wn) / 32)
        if not all(mma_order(p, operand, True)[1] for operand in "ab"):
            share /= 4  # element by element; the copies are then waited for
        return share


MMA_TILES = (
    MmaTile(128, 128, 2, 2, 3, 2),
    MmaTile(128, 256, 2, 4, 3, 1),
    MmaTile(64, 128, 2, 2, 3, 2),
    MmaTile(64, 64, 2, 2, 3, 3),
)


def mma_tiles(specs: Specs) -> Sequence[MmaTile]:
    """Those that a call chooses from: those that the chip has the shared memory for."""
    most = facts(specs[0].device).shared_bytes
    return [tile for tile in MMA_TILES if tile.shared <= most]


# --- both ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernels:
    """One of the two, for the calls of one op."""

    calls: Calls
    tiles: Callable[[Specs], Sequence[SimtTile | MmaTile]]

    def supports(self, specs: Specs, attrs: Attrs) -> str | None:
        """For `@kernel`."""
        reason = self.calls.refuse(specs, attrs)
        if reason is not None:
            return reason
        if facts(specs[0].device).capability < 80:
            return "needs asynchronous copies, which compute capability 8.0 has first"
        axes = len(self.calls.product(specs, attrs).batch)
        if axes > BATCH_AXES:
            return f"takes at most {BATCH_AXES} batch axes that do not join, and here are {axes}"
        return None

    def configs(self, specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        """For `@kernel`."""
        return [{"bm": tile.bm, "bn": tile.bn} for tile in self.tiles(specs)]

    def model(self, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        """Predicted seconds: the longer of computing and moving.

        Tiles fill all multiprocessors as evenly as they can. Inside a tile, a multiprocessor reaches its
        share of the chip's rate when it has as many warps as are needed for one to go on while another waits.
        """
        p, tile, chip = self.calls.product(specs, attrs), self._tile(specs, config), facts(specs[0].device)
        size, rate = ITEM_BYTES[p.dtype], chip.flops[p.dtype]
        tiles = ceil_div(p.m, tile.bm) * ceil_div(p.n, tile.bn) * p.matrices
        turns = ceil_div(tiles, chip.multiprocessors)
        warps = min(tile.blocks, turns) * tile.threads // 32
        share = tile.share(p, chip)
        reached = rate / chip.multiprocessors * share * min(1.0, warps / tile.needed)
        busy = turns * 2.0 * tile.bm * tile.bn * max(p.k, 1) / reached
        moved = size * p.matrices * (p.m * p.k + p.k * p.n + p.m * p.n)
        # Through L2, which serves about three times what memory does, comes what each tile reads.
        through = size * tiles * (tile.bm + tile.bn) * p.k / (3 * chip.bandwidth)
        return LAUNCH + max(busy, moved / chip.bandwidth, through)

    def bind(self, specs: Specs, attrs: Attrs, config: Config) -> CodeLaunch:
        """The launch of a call."""
        p, tile = self.calls.product(specs, attrs), self._tile(specs, config)
        blocks = min(ceil_div(p.m, tile.bm) * ceil_div(p.n, tile.bn) * p.matrices, MOST_BLOCKS)

        def step(aligned: bool) -> CodeStep:
            return CodeStep(tile.code(p, aligned), blocks, _pointers(self.calls, p), _words(p, tile))

        return CodeLaunch(specs, step)

    def _tile(self, specs: Specs, config: Config) -> SimtTile | MmaTile:
        found = [tile for tile in self.tiles(specs) if (tile.bm, tile.bn) == (config["bm"], config["bn"])]
        return found[0]


def _register(op: str, name: str, way: Kernels, dtypes: tuple[str, ...]) -> None:
    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
        return way.bind(specs, attrs, config)

    kernel(
        op, device="cuda", language="cupy", name=name, dtypes=dtypes, supports=way.supports,
        configs=way.configs, model=way.model, binds=True,
    )(bind)  # fmt: skip


for _op, _calls in (("matmul", MATMUL), ("linear", LINEAR)):
    _register(_op, "simt", Kernels(_calls, simt_tiles), ("float32", "float64"))
    _register(_op, "tensor_cores", Kernels(_calls, mma_tiles), ("bfloat16", "float16"))
