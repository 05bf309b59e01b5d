"""A model of the time that a product of tiles takes on a GPU: which configuration runs untuned.

    predict(Work(m=4096, ...), Block(bm=128, bn=256, ...), facts()) -> Prediction, `seconds` and its parts

A product C[m, n] = A[m, k] B[k, n] is cut into tiles of bm x bn, each computed by one block of threads in
steps of bk; `splits` parts of k are computed apart. The busiest multiprocessor computes
ceil(tiles splits / SMs) of them. For each, these go on at one time, and the slowest is what counts
(`together`):

    arithmetic   2 bm bn bk FLOP a step at the rate of the unit, times what shared memory lets through
    L2           (bm + bn) bk elements a step from the second-level cache
    latency      a load takes LATENCY; as many are in flight as stages and resident blocks allow
    issue        instructions that move the elements, where threads do that and not the copy engine

Beside that stands the time that device memory takes for what is read from it: every operand once, and again
for each wave of tiles whose operands do not stay in the L2 cache. On top come what does not overlap:
filling the pipeline, ending a tile, the sums of split k.

The model ranks configurations; its seconds are no forecast. Its constants are facts of the chips with their
source, or assumptions named as such, until measurements on a GPU are recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cpu.cycles import ceil_div
from .device import Device

# Dense FLOP of one multiprocessor in one clock in bfloat16: NVIDIA's whitepapers of the A100, H100 and B200.
# The clock that goes with the rates of `Device.flops` follows from them.
_FLOP_A_CLOCK = {80: 2048, 90: 4096, 100: 8192}
# NVIDIA A100 whitepaper: 5120 bytes a clock from the L2 cache; none is given for its successors, which have
# at least that.
_L2_BYTES_A_CLOCK = 5120
_PORT_BYTES_A_CLOCK = 64  # from the L2 cache into one multiprocessor (the same paper)
_SHARED_BYTES_A_CLOCK = 128  # 32 banks of 4 bytes
_SHARED_OF_MULTIPROCESSOR = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}  # CUDA programming guide
_SHARED_RESERVED = 1024  # of each block, by the system (the same guide)
_REGISTERS = 65536
_THREADS = 2048
_BLOCKS = 32
_LANES = 128

# Assumptions, until a GPU is measured.
LATENCY = 0.7e-6
"""Seconds from asking for a block of device memory or L2 to having it, under load."""
LAUNCH = 2.5e-6
"""Seconds of a launch that finds the device idle."""
ARRIVAL = 1.0e-6
"""Seconds of an atomic that orders memory, and of seeing what another block has written."""
ISSUE_SHARE = {"engine": 0.92, "threads": 0.8}
"""Share of the rate that a loop of matrix instructions reaches, by who moves the operands."""
FMA_SHARE = 0.6
"""The same for multiply-adds without tensor cores."""
MEMORY_SHARE = 0.9
"""Share of the bandwidth of the datasheet that a stream reaches."""
END_INSTRUCTIONS = 8
"""Instructions for each element that is ended and stored."""
MOST_SUMS = 128
"""Accumulators of one thread, of its 255 registers: with more, addresses and operands do not fit beside."""


@dataclass(frozen=True)
class Work:
    """A product.

    Attributes:
        m, n, k: sizes.
        matrices: how many such products.
        unit: what multiplies: a key of `Device.flops`.
        item: bytes of an element of A and B.
        out_item: bytes of an element of C.
        a_matrices, b_matrices: how many different A and B there are.
        extra: bytes that the end of each element reads beside, such as a residual's.
        instructions: what an activation takes for each element.
        aligned: whether operands can be loaded 16 bytes at a time.
    """

    m: int
    n: int
    k: int
    unit: str
    item: int
    out_item: int
    matrices: int = 1
    a_matrices: int = 1
    b_matrices: int = 1
    extra: int = 0
    instructions: int = 0
    aligned: bool = True


@dataclass(frozen=True)
class Block:
    """How a product is cut, and what computes a tile.

    Attributes:
        bm, bn, bk: the tile and the step.
        warps: of a block of threads.
        stages: steps whose operands are in shared memory at one time.
        splits: parts of k.
        mover: `"engine"` for the bulk copy engine, `"threads"` for loads by threads.
        shared: bytes of shared memory.
        group: rows of tiles that are computed side by side.
        persistent: whether a block goes on with the next tile, loading it while it ends the one before.
    """

    bm: int
    bn: int
    bk: int
    warps: int
    stages: int
    splits: int = 1
    mover: str = "threads"
    shared: int = 0
    group: int = 8
    persistent: bool = False


@dataclass(frozen=True)
class Prediction:
    """Seconds, and where they come from."""

    seconds: float
    arithmetic: float
    l2: float
    latency: float
    issue: float
    memory: float
    ends: float
    rounds: int
    resident: int

    @property
    def bound(self) -> str:
        """What takes longest."""
        parts = {
            name: getattr(self, name) for name in ("arithmetic", "l2", "latency", "issue", "memory", "ends")
        }
        return max(parts, key=lambda name: parts[name])


def shared_bytes(work: Work, block: Block, capability: int, halves: bool, by_descriptor: bool) -> int:
    """Shared memory of a block: the operands of all stages, and the tile on its way out.

    An upper bound; tests hold it against what the compiler lays out. Without the copy engine, the way out
    uses the memory of the operands again, and one stage of Ampere's is in registers.
    """
    step = (block.bm + block.bn) * block.bk * work.item
    if capability >= 100 and work.out_item == 4:
        halves = False  # both halves of float32 are laid out side by side there
    tile = block.bm * block.bn // (2 if halves else 1)
    if block.mover == "engine":
        return block.stages * step + tile * (work.out_item if by_descriptor else 4) + 768
    if not work.aligned:
        return max(step, tile * 4) + 256
    return max(block.stages * step, tile * 4 + 4096) + 256


def refusal(work: Work, block: Block, device: Device) -> str | None:
    """Why a configuration cannot be launched on a device; None when it can."""
    if block.mover == "engine" and not device.has_tma:
        return f"sm_{device.capability} has no bulk copy engine"
    if block.shared > device.shared_bytes:
        return f"{block.shared:,} bytes of shared memory; a block has at most {device.shared_bytes:,}"
    sums = sums_of_thread(work, block)
    if sums > MOST_SUMS:
        return f"{sums} sums for each thread, at most {MOST_SUMS} fit beside addresses and operands"
    if work.unit not in device.flops:
        return f"{device.name} does not multiply {work.unit}"
    return None


def sums_of_thread(work: Work, block: Block) -> int:
    """Accumulators of one thread; for float8 a second set, in which the unit adds up one step."""
    return block.bm * block.bn // (32 * block.warps) * (2 if work.unit.startswith("float8") else 1)


def resident_blocks(work: Work, block: Block, device: Device) -> int:
    """How many blocks one multiprocessor holds at one time, by shared memory, registers and threads."""
    room = _SHARED_OF_MULTIPROCESSOR[_known(device)]
    by_shared = room // (block.shared + _SHARED_RESERVED)
    registers = min(255, sums_of_thread(work, block) + (90 if block.mover == "engine" else 120))
    by_registers = _REGISTERS // (32 * block.warps * registers)
    return max(1, min(by_shared, by_registers, _THREADS // (32 * block.warps), _BLOCKS))


def clock(device: Device) -> float:
    """Clocks a second that go with the rates of the datasheet."""
    return device.flops["bfloat16"] / device.multiprocessors / _FLOP_A_CLOCK[_known(device)]


def predict(work: Work, block: Block, device: Device) -> Prediction:
    """What a launchable configuration is expected to take."""
    hertz = clock(device)
    tiles = ceil_div(work.m, block.bm) * ceil_div(work.n, block.bn) * work.matrices
    items = tiles * block.splits
    resident = resident_blocks(work, block, device)
    busiest = ceil_div(items, device.multiprocessors)
    beside = min(resident, busiest)
    rounds = ceil_div(busiest, resident)
    steps = ceil_div(ceil_div(work.k, block.splits), block.bk)
    rate = device.flops[work.unit] / device.multiprocessors * _share(work, block, device)
    loaded = (block.bm + block.bn) * block.bk * work.item
    port = min(_PORT_BYTES_A_CLOCK, _L2_BYTES_A_CLOCK / min(items, device.multiprocessors)) * hertz
    times = busiest * steps
    arithmetic = times * 2 * block.bm * block.bn * block.bk / rate
    l2 = times * loaded / port
    in_flight = max(block.stages - 1, 1) if work.aligned else 1
    latency = times * LATENCY / (in_flight * beside)
    issue = times * _issued(work, block) / hertz
    ends = _ends(work, block, device, rounds, busiest)
    memory = _from_memory(work, block, device, items, resident) / (device.bandwidth * MEMORY_SHARE)
    busy = together(arithmetic, l2, latency, issue) + ends
    seconds = LAUNCH + together(busy, memory + LATENCY)
    return Prediction(seconds, arithmetic, l2, latency, issue, memory, ends, rounds, resident)


def together(*seconds: float) -> float:
    """What things take that go on at one time: the longest, and a little more for others that are as long.

    Two that take the same time do not overlap perfectly: 1.19 times the time of one, by the 4-norm. Without
    that, nothing would tell apart configurations that the same thing bounds.
    """
    return float(sum(s**4 for s in seconds) ** 0.25)


def best_splits(work: Work, block: Block, device: Device, most: int = 32) -> Block:
    """The block with the number of parts of k that is expected to be fastest: 1 unless more pays by 5%.

    Parts are of two steps or more, so that none of them only fills its pipeline.
    """
    steps = ceil_div(work.k, block.bk)
    tiles = ceil_div(work.m, block.bm) * ceil_div(work.n, block.bn) * work.matrices
    best, least = block, predict(work, block, device).seconds * 0.95
    if tiles >= device.multiprocessors * resident_blocks(work, block, device):
        return best
    tried = 1
    while (tried := _next_splits(tried)) <= min(most, steps // 2):
        whole = ceil_div(steps, ceil_div(steps, tried))
        candidate = replace(block, splits=whole)
        seconds = predict(work, candidate, device).seconds
        if seconds < least:
            best, least = candidate, seconds
    return best


def _next_splits(splits: int) -> int:
    return splits + max(1, splits // 4)


def _known(device: Device) -> int:
    return max((c for c in _FLOP_A_CLOCK if c <= device.capability), default=80)


def _share(work: Work, block: Block, device: Device) -> float:
    """The share of the unit's rate that a loop over steps reaches, operands being in shared memory."""
    if work.unit == "float32":
        return FMA_SHARE
    share = ISSUE_SHARE[block.mover if work.aligned else "threads"]
    flop_a_clock = _FLOP_A_CLOCK[_known(device)] * device.flops[work.unit] / device.flops["bfloat16"]
    if device.capability >= 90 and block.bm >= 64:
        # One matrix instruction of a warpgroup reads 64 rows of A and all columns of B.
        flop, moved = 2 * 64 * block.bn, (64 + block.bn) * work.item
    else:
        # Each warp reads its rows of A and columns of B; warps divide the tile as evenly as they can.
        high, wide = _tile_of_warp(block)
        flop, moved = 2 * high * wide, (high + wide) * work.item
    return share * min(1.0, (flop / flop_a_clock) / (moved / _SHARED_BYTES_A_CLOCK))


def _tile_of_warp(block: Block) -> tuple[int, int]:
    high, wide, warps = block.bm, block.bn, block.warps
    while warps > 1:
        high, wide, warps = (high // 2, wide, warps // 2) if high >= wide else (high, wide // 2, warps // 2)
    return max(high, 16), max(wide, 8)


def _issued(work: Work, block: Block) -> float:
    """Clocks of one multiprocessor that moving the operands of a step takes."""
    elements = (block.bm + block.bn) * block.bk
    if block.mover == "engine":
        return 0.0
    if work.aligned:
        return elements * work.item / 16 * 4 / _LANES
    return elements * 6 / _LANES  # an element a load: load, mask, address, convert, store to shared memory


def _ends(work: Work, block: Block, device: Device, rounds: int, busiest: int) -> float:
    """Seconds of the busiest multiprocessor that no loop over steps covers."""
    hertz = clock(device)
    tile = block.bm * block.bn
    end = tile * (END_INSTRUCTIONS + work.instructions) / _LANES / hertz
    end += tile * work.extra / _PORT_BYTES_A_CLOCK / hertz
    # A block that goes on to its next tile loads while it ends; resident blocks end while others compute.
    fill = LATENCY * (1 if block.persistent else rounds)
    total = fill + end * rounds
    if block.splits > 1:
        moved = tile * 4 * (1 + block.splits) * ceil_div(busiest, block.splits)
        total += ARRIVAL + moved / _PORT_BYTES_A_CLOCK / hertz
    return total


def _from_memory(work: Work, block: Block, device: Device, items: int, resident: int) -> float:
    """Bytes that pass between the L2 cache and device memory."""
    a = work.m * work.k * work.item * work.a_matrices
    b = work.k * work.n * work.item * work.b_matrices
    c = work.m * work.n * work.matrices * (work.out_item + work.extra)
    at_once = min(items, device.multiprocessors * resident)
    # Tiles that are computed at one time: `group` rows of tiles, and as many columns as that makes.
    high = min(ceil_div(work.m, block.bm), block.group)
    wide = min(ceil_div(work.n, block.bn), max(1, at_once // (high * block.splits)))
    of_wave = (high * block.bm + wide * block.bn) * work.k * work.item
    again = ceil_div(items, at_once) * of_wave if a + b > device.l2_bytes else 0
    return max(a + b, min(again, 8 * (a + b))) + c
