"""Which tiles convolutions may be computed with, and how long each is expected to take.

The lists are short on purpose: every configuration is proven for each chip. Which one runs untuned is decided
by `cuda/ranking.py`, whose product of m rows, n columns and k terms a convolution is: m pixels, n output
channels, k taps times channels. One thing is another here: images are read once for all taps that look at a
pixel, so what device memory has to deliver is the arrays themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod

from ...cpu.cycles import ceil_div
from ...cuda.device import Device
from ...cuda.ranking import LATENCY, LAUNCH, MEMORY_SHARE, Block, Work, predict, refusal, shared_bytes
from ...kernel import Config
from .problem import Problem
from .products import class_taps, folded, folded_channels, folded_size, needs_layout, ways

# (bm, bn, warps, stages) by what multiplies; the step bk follows from the channels. 128 x 256 has 128 sums a
# thread, the most that leave room for addresses; 128 x 64 and smaller leave room for a second block beside.
_HALF = (
    (128, 256, 8, 3),
    (256, 128, 8, 3),
    (128, 128, 8, 3),
    (256, 64, 8, 3),
    (128, 64, 8, 4),
    (64, 64, 4, 4),
    (128, 32, 8, 4),
)
_TF32 = ((128, 128, 8, 3), (64, 64, 4, 3), (128, 32, 8, 3))
_FLOAT32 = ((64, 64, 4, 3), (64, 32, 4, 3))
_WEIGHTS_HALF = ((128, 128, 8, 3), (64, 128, 8, 3), (64, 64, 4, 4))
_WEIGHTS_FLOAT32 = ((64, 64, 8, 3), (32, 64, 4, 3))
_GATHER = ((64, 64, 4, 2), (64, 32, 4, 2))
MOST_SPLITS = 64
MOST_TURNED = 128 * 64
"""Elements of a tile that is turned before it is stored: beside larger ones there is no room in registers."""
MOST_KEPT = 9
"""Taps whose weights a depthwise kernel keeps in registers: 36 of them, for 16 bytes of channels a thread."""


@dataclass(frozen=True)
class Unit:
    """What multiplies: a key of `Device.flops`, and the longest step."""

    name: str
    longest: int


def unit_of(p: Problem, tf32: bool) -> Unit:
    """What multiplies the numbers of a problem."""
    if p.itemsize == 2:
        return Unit(p.dtype, 64)
    return Unit("tf32", 32) if tf32 else Unit("float32", 16)


def step_length(terms: int, longest: int) -> int:
    """bk: the longest step that wastes no more than a quarter of the terms of a tap, and at least 16."""
    bk = longest
    while bk > 16 and ceil_div(terms, bk) * bk * 3 > 4 * terms:
        bk //= 2
    return bk


def product_configs(p: Problem, back: bool, tf32: bool, device: Device) -> list[Config]:
    """Configurations of `implicit`."""
    to, unit = ways(p, back), unit_of(p, tf32)
    bk = step_length(to.terms, unit.longest)
    tiles = _HALF if p.itemsize == 2 else _TF32 if tf32 else _FLOAT32
    found = []
    for bm, bn, warps, stages in tiles:
        # Ampere multiplies from registers: beside 128 sums there is no room for operands.
        if bn > max(32, 2 * to.outs - 1) or (bm + bn > 256 and device.capability < 90):
            continue
        if to.dst.c_step != 1 and bm * bn > MOST_TURNED:
            continue
        config = {"bm": bm, "bn": bn, "bk": bk, "warps": warps, "stages": stages, "splits": 1, "tf32": tf32}
        if refusal(_work(p, to.outs, unit), _block(p, config), device) is None:
            found.append(_split(p, config, back, device))
    return found


def _split(p: Problem, config: Config, back: bool, device: Device) -> Config:
    """The number of parts that is expected to be fastest: 1 unless more pays by 5%."""
    to = ways(p, back)
    steps = ceil_div(to.terms, config["bk"]) * p.conv.taps // to.classes
    tiles = (
        ceil_div(to.dst.n * to.rows, config["bm"])
        * ceil_div(to.outs, config["bn"])
        * p.conv.groups
        * to.classes
    )
    best, least = config, product_seconds(p, config, back, device) * 0.95
    splits = 2
    while splits <= min(MOST_SPLITS, steps // 4) and tiles * splits <= 4 * device.multiprocessors:
        seconds = product_seconds(p, {**config, "splits": splits}, back, device)
        if seconds < least:
            best, least = {**config, "splits": splits}, seconds
        splits += max(1, splits // 4)
    return best


def _work(
    p: Problem, outs: int, unit: Unit, m: int = 1, k: int = 1, matrices: int = 1, extra: int = 0
) -> Work:
    return Work(
        m=max(m, 1), n=max(outs, 1), k=max(k, 1), unit=unit.name, item=p.itemsize, out_item=p.itemsize,
        matrices=matrices, a_matrices=matrices, b_matrices=matrices, extra=extra,
    )  # fmt: skip


def _block(p: Problem, config: Config) -> Block:
    block = Block(
        bm=int(config["bm" if "bm" in config else "bo"]),
        bn=config["bn"],
        bk=config["bk"],
        warps=config["warps"],
        stages=config["stages"],
        splits=config.get("splits", 1),
    )
    work = _work(p, 1, unit_of(p, bool(config.get("tf32"))))
    return replace(block, shared=shared_bytes(work, block, 90, halves=block.bn == 256, by_descriptor=False))


def _seconds(p: Problem, work: Work, block: Block, device: Device, bytes: float, launches: int) -> float:
    """The ranking's prediction with the bytes of a convolution, and `launches` beside the first."""
    found = predict(work, block, device)
    busy = max(found.arithmetic, found.l2, found.latency, found.issue) + found.ends
    memory = bytes / (device.bandwidth * MEMORY_SHARE) + LATENCY
    return launches * LAUNCH + LAUNCH + max(busy, memory)


def product_seconds(
    p: Problem, config: Config, back: bool, device: Device, before: tuple[float, int] = (0.0, 0)
) -> float:
    """Predicted seconds of `implicit` and all that goes with it; `before` are bytes and launches of more."""
    to, unit, block = ways(p, back), unit_of(p, bool(config["tf32"])), _block(p, config)
    m = to.dst.n * to.rows
    extra = p.itemsize if p.residual else 0
    classes = range(to.classes)
    # Classes differ in their taps: as many pixels with a mean number of taps.
    taps = p.conv.taps if not back else sum(class_taps(p, cls) for cls in classes) / to.classes
    work = _work(p, to.outs, unit, m, round(to.terms * taps), p.conv.groups * to.classes, extra)
    images, weights = needs_layout(p, back)
    unit_src = gcd(16 // p.itemsize, to.terms) if images else to.src.unit(p.itemsize, to.terms)
    work = replace(work, aligned=unit_src * p.itemsize >= 4)
    moved = before[0] + p.bytes
    if images:
        moved += 2.0 * p.itemsize * to.src.n * to.src.pixels * to.src.channels
    if config["splits"] > 1:
        moved += 8.0 * config["splits"] * m * to.classes * to.outs * p.conv.groups
    return _seconds(p, work, block, device, moved, before[1] + images + weights + (config["splits"] > 1))


def folded_configs(p: Problem, tf32: bool, device: Device) -> list[Config]:
    """Configurations of `implicit` for a folded convolution."""
    return product_configs(folded(p), False, tf32, device)


def folded_seconds(p: Problem, config: Config, device: Device) -> float:
    """Predicted seconds of a folded convolution: images are written once more, and read again."""
    other = folded(p)
    padded = p.itemsize * p.x.n * prod(folded_size(p)) * folded_channels(p)
    return product_seconds(other, config, False, device, (2.0 * padded + p.bytes - other.bytes, 2))


def gather_configs(p: Problem, tf32: bool, device: Device) -> list[Config]:
    """Configurations of `gather`."""
    bk = 32 if p.itemsize == 2 or tf32 else 16
    return [
        {"bm": bm, "bn": bn, "bk": bk, "warps": warps, "stages": stages, "tf32": tf32}
        for bm, bn, warps, stages in _GATHER
        if bn <= max(32, 2 * p.conv.o - 1)
    ]


def gather_seconds(p: Problem, config: Config, device: Device) -> float:
    """Predicted seconds of `gather`."""
    unit = unit_of(p, bool(config["tf32"]))
    extra = p.itemsize if p.residual else 0
    m, k = p.y.n * p.y.pixels, p.conv.c * p.conv.taps
    work = replace(_work(p, p.conv.o, unit, m, k, p.conv.groups, extra), aligned=False)
    return _seconds(p, work, _block(p, config), device, p.bytes, 0)


def weight_configs(p: Problem, tf32: bool, device: Device) -> list[Config]:
    """Configurations of `weight_grad`."""
    unit = unit_of(p, tf32)
    columns = p.conv.c * p.conv.taps
    found = []
    for bo, bn, warps, stages in _WEIGHTS_HALF if p.itemsize == 2 else _WEIGHTS_FLOAT32:
        if bo > max(64, 2 * p.conv.o - 1) or bn > max(64, 2 * columns - 1):
            continue
        bk = min(unit.longest, 32 if tf32 else 64)
        config = {"bo": bo, "bn": bn, "bk": bk, "warps": warps, "stages": stages, "splits": 1, "tf32": tf32}
        found.append(_weight_split(p, config, device))
    return found


def _weight_split(p: Problem, config: Config, device: Device) -> Config:
    """The number of parts of the pixels that is expected to be fastest."""
    steps = ceil_div(p.y.n * p.y.pixels, config["bk"])
    best, least = config, weight_seconds(p, config, device) * 0.95
    tiles = ceil_div(p.conv.c * p.conv.taps, config["bn"]) * ceil_div(p.conv.o, config["bo"]) * p.conv.groups
    splits = 2
    while splits <= steps // 4 and tiles * splits <= 6 * device.multiprocessors:
        seconds = weight_seconds(p, {**config, "splits": splits}, device)
        if seconds < least:
            best, least = {**config, "splits": splits}, seconds
        splits += max(1, splits // 4)
    return best


def weight_seconds(p: Problem, config: Config, device: Device, before: tuple[float, int] = (0.0, 0)) -> float:
    """Predicted seconds of `weight_grad` and all that goes with it; `before`: more bytes and launches."""
    unit = unit_of(p, bool(config["tf32"]))
    columns, m = p.conv.c * p.conv.taps, p.y.n * p.y.pixels
    work = Work(
        m=max(p.conv.o, 1), n=max(columns, 1), k=max(m, 1), unit=unit.name, item=p.itemsize,
        out_item=p.itemsize, matrices=p.conv.groups, a_matrices=p.conv.groups, b_matrices=p.conv.groups,
    )  # fmt: skip
    work = replace(work, aligned=p.x.unit(p.itemsize, p.conv.c) * p.itemsize >= 4 or p.x.c_step != 1)
    laid = [i for i, n in ((p.x, p.conv.c), (p.y, p.conv.o)) if i.c_step != 1 and n >= 8]
    moved = before[0] + p.bytes + 2.0 * p.itemsize * sum(i.n * i.pixels * i.channels for i in laid)
    splits = config["splits"]
    if splits > 1:
        moved += 8.0 * splits * p.outs * columns
    return _seconds(p, work, _block(p, config), device, moved, before[1] + len(laid) + (splits > 1))


def folded_weight_seconds(p: Problem, config: Config, device: Device) -> float:
    """Predicted seconds of `weight_grad` over folded images: these are written once more, and read again."""
    other = folded(p)
    padded = p.itemsize * p.x.n * prod(folded_size(p)) * folded_channels(p)
    before = (2.0 * padded + p.bytes - other.bytes, 1 + (config["splits"] == 1))
    return weight_seconds(other, config, device, before)


# --- Without matrix products --------------------------------------------------------------------------------


def depthwise_configs(p: Problem, turned: bool) -> list[Config]:
    """Configurations of `depthwise` and `depthwise_back`: rows, columns and channels of a tile.

    A thread has 16 bytes of channels of a few columns; turned, one channel of a few columns.
    """
    # Weights of more than 9 taps would not stay in registers, and rows share nothing where they are dilated.
    plain = p.conv.kernel[1] * p.conv.kernel[2] > MOST_KEPT or p.conv.dilation[1] != 1
    high = (1,) if plain else (4, 1)
    if turned:
        return [{"ph": ph, "bw": 128 // ph, "bc": 4, "warps": 2} for ph in high]
    bc = 64 if p.itemsize == 2 else 32
    return [{"ph": ph, "bw": 8, "bc": bc, "warps": 2} for ph in high]


def depthwise_seconds(p: Problem, config: Config, back: bool, device: Device) -> float:
    """Predicted seconds: the bytes, or the loads of L1 lines and multiply-adds that a tile takes."""
    dst = p.x if back else p.y
    d, h, w = dst.size
    ph, bw, bc = config["ph"], config["bw"], config["bc"]
    whole = dst.n * d * ceil_div(h, ph) * ph * ceil_div(w, bw) * bw * ceil_div(p.outs, bc) * bc
    rows = (ph - 1) * p.conv.stride[1] + p.conv.kernel[1] if ph > 1 else p.conv.kernel[1]
    loads = rows * p.conv.kernel[2] * p.conv.kernel[0] / ph  # of each output element
    # Of one element: a multiply-add and the share of a conversion, and of a load, its address and its mask.
    clocks = whole * (p.conv.taps + loads * (1 + 8 * p.itemsize / 16)) / 128 / device.multiprocessors
    busy = clocks / (device.flops["float32"] / device.multiprocessors / 256)
    memory = p.bytes / (device.bandwidth * MEMORY_SHARE) + LATENCY
    return LAUNCH + max(busy, memory)


def depthwise_weight_config(p: Problem, device: Device) -> Config:
    """The configuration of `depthwise_weights`: as many parts as give each multiprocessor four programs."""
    bc = 64 if p.itemsize == 2 else 32
    bm = 32
    programs = p.conv.kernel[0] * p.conv.kernel[1] * ceil_div(p.outs, bc)
    rows = p.y.n * p.y.pixels
    splits = max(1, min(ceil_div(4 * device.multiprocessors, programs), ceil_div(rows, 4 * bm)))
    return {"bm": bm, "bc": bc, "splits": splits, "warps": 4}


def bias_config(pixels: int, channels: int, dense: bool, itemsize: int, device: Device) -> Config:
    """The configuration of `pixel_sums`: as many parts as give each multiprocessor four programs."""
    bc = min(64 if itemsize == 2 else 32, 1 << max(3, (channels - 1).bit_length())) if dense else 4
    bm = 4096 // bc if dense else 512
    blocks = ceil_div(channels, bc)
    parts = max(1, min(ceil_div(4 * device.multiprocessors, blocks), ceil_div(pixels, bm)))
    return {"bm": bm, "bc": bc, "parts": parts, "warps": 4}
