"""Convolutions of images on NVIDIA GPUs in CUDA C++: depthwise ones, and those of a few channels. By NVRTC.

    depthwise_channels  channels contiguous ("NHWC"): vectors of channels by strips of places
    depthwise_planes    any other layout, "NCHW" above all: tiles of planes in shared memory
    direct              up to 4 input channels, such as the first layer of a network, in float32 arithmetic:
                        8 places by 8 channels a thread

The first two are in `cuda/depthwise.cu`, the last in `cuda/few_channels.cu`.

Sums are float32 whatever the dtype. A depthwise convolution has as many FLOP as twice its taps for two
elements moved: its roof is memory. `direct` is bound by the ordinary cores, 67 TFLOP/s on an H200. No
record has measured either yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..activations import ACTIVATIONS
from ..cpu.cycles import ceil_div
from ..cuda import nvrtc
from ..cuda.code_launch import CodeLaunch, CodeStep
from ..cuda.device import facts
from ..cuda.source import Code
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .problem import Problem, Strides, problem_of

nvrtc.require()

DTYPES = ("float32", "bfloat16", "float16")
TYPES = {"float32": "float", "bfloat16": "bf16", "float16": "f16"}
FILES = ("conv/cuda/window.cuh",)
MOST_TAPS = 49  # of a filter: each is in a register, or unrolled
MOST_COLUMNS = 32  # of the input under the neighbouring places of a thread
CHANNEL_THREADS, CHANNEL_BLOCKS = 128, 3  # leaves a thread the 150 registers that its sums and pixels need
PLANE_THREADS = 256
KERNEL: dict[str, Any] = {"device": "cuda", "language": "cupy", "dtypes": DTYPES, "binds": True}
Made = tuple[Code, int, tuple[int, ...]]  # a kernel, how many blocks, and the rest of its argument
LAUNCH = 3e-6  # seconds from one launch to the next in a row of small ones
MEMORY_SHARE = 0.8  # of the datasheet's bandwidth: an assumption, until a GPU is measured


def flat_problem(p: Problem, attrs: Attrs) -> str | None:
    """What all kernels here ask of a call."""
    if attrs["w_format"]:
        return "takes a weight that is not packed"
    if (p.size[0], p.taps[0], p.places[0]) != (1, 1, 1):
        return "takes one or two spatial axes, not three"
    if p.taps[1] * p.taps[2] > MOST_TAPS:
        return f"unrolls filters of at most {MOST_TAPS} taps, not {p.taps[1]} x {p.taps[2]}"
    return None


def _filter(p: Problem) -> str:
    sizes = (*p.taps[1:], *p.stride[1:], *p.dilation[1:])
    return f"Filter<{', '.join(map(str, sizes))}>"


def _wide(p: Problem, places: int) -> int:
    """Columns of the input under that many neighbouring places."""
    return (places - 1) * p.stride[2] + (p.taps[2] - 1) * p.dilation[2] + 1


def _high(p: Problem, places: int) -> int:
    return (places - 1) * p.stride[1] + (p.taps[1] - 1) * p.dilation[1] + 1


def _ending(p: Problem) -> str:
    number = ACTIVATIONS.index(p.activation) + 1 if p.activation else 0
    flags = ["true" if there else "false" for there in (p.b is not None, p.residual is not None)]
    return f"{', '.join(flags)}, {number}"


def _steps(strides: Strides | None, size: int) -> tuple[int, int, int, int]:
    """n, h, w, c in elements."""
    if strides is None:
        return 0, 0, 0, 0
    return strides.n // size, strides.space[1] // size, strides.space[2] // size, strides.c // size


def _words(p: Problem, blocks: int, tiles_h: int, tiles_w: int, tiles: int) -> tuple[int, ...]:
    """What follows the pointers in struct Window."""
    assert p.w is not None
    size = p.itemsize
    arrays = [step for strides in (p.x, p.y, p.residual) for step in _steps(strides, size)]
    return (
        *(p.n, p.channels, p.out, *p.size[1:], *p.places[1:], *p.lo[1:]),
        *arrays,
        *(p.w[i] // size for i in (0, 1, 3, 4)),
        0 if p.b is None else p.b // size,
        *(blocks, tiles_h, tiles_w, tiles),
    )


def _pointers(p: Problem) -> tuple[int | None, ...]:
    return 0, 1, None if p.b is None else 2, None if p.residual is None else 3, 4


def _code(p: Problem, name: str, file: str, sizes: str, threads: int, shared: int, blocks: int) -> Code:
    """The template of that name in conv/cuda/, with what follows the filter among its arguments."""
    return Code(
        name=f"kw_{name}",
        files=(*FILES, f"conv/cuda/{file}"),
        call=f"{name}<{TYPES[p.dtype]}, {_filter(p)}, {sizes}, {_ending(p)}>",
        argument="Window",
        threads=threads,
        shared=shared,
        blocks=blocks,
    )


def _shared_problem(specs: Specs, code: Code) -> str | None:
    most = facts(specs[0].device).shared_bytes
    if code.shared <= most:
        return None
    return f"needs {code.shared:,} bytes of shared memory for a tile, and a block has at most {most:,}"


def _launch(specs: Specs, attrs: Attrs, make: Callable[[Problem, bool, int], Made]) -> CodeLaunch:
    """`make(p, aligned, multiprocessors)` for the tensors of a call."""
    p, chips = problem_of(specs, attrs), facts(specs[0].device).multiprocessors

    def step(aligned: bool) -> CodeStep:
        code, grid, words = make(p, aligned, chips)
        return CodeStep(code, grid, _pointers(p), words)

    return CodeLaunch(specs, step)


def _bytes(p: Problem) -> int:
    read = p.n * p.size[1] * p.size[2] * p.channels
    written = p.pixels * p.out * (1 + (p.residual is not None))
    return (read + written) * p.itemsize


# --- depthwise ----------------------------------------------------------------------------------------------


def depthwise_problem(specs: Specs, attrs: Attrs) -> str | None:
    """What both depthwise kernels ask."""
    p = problem_of(specs, attrs)
    if (p.cg, p.og) != (1, 1):
        return f"takes one input and one output channel a group, not {p.cg} and {p.og}"
    if _wide(p, 1) > MOST_COLUMNS:
        return f"reaches over at most {MOST_COLUMNS} columns, not {_wide(p, 1)}"
    return flat_problem(p, attrs)


def channels_supports(specs: Specs, attrs: Attrs) -> str | None:
    reason = depthwise_problem(specs, attrs)
    p = problem_of(specs, attrs)
    if reason is None and (p.x.c != p.itemsize or p.y.c != p.itemsize):
        reason = "works on neighbouring channels, and those of x or y are not contiguous"
    return reason


def channels_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Places of a thread. Two rows of 3 x 3 share half of what they read; larger filters have no room."""
    p = problem_of(specs, attrs)
    if p.taps[1] * p.taps[2] > 9:
        shapes = [(1, 4), (1, 2)]
    elif p.stride[2] > 1:
        shapes = [(2, 2), (1, 2)]
    else:
        shapes = [(2, 4), (1, 4)]
    fit = [shape for shape in shapes if _wide(p, shape[1]) <= MOST_COLUMNS] or [(1, 1)]
    return [{"rh": rh, "rw": rw} for rh, rw in fit]


def channels_vector(p: Problem, aligned: bool) -> int:
    """Channels of a thread: 4 where every pixel of x and y begins at a multiple of so many elements."""
    steps = [step for strides in (p.x, p.y) for step in _steps(strides, p.itemsize)[:3]]
    for v in (4, 2):
        if aligned and p.channels % v == 0 and all(step % v == 0 for step in steps):
            return v
    return 1


def channels_step(p: Problem, config: Config, aligned: bool, chips: int) -> Made:
    """The launch: each block goes from strip to strip."""
    v, rh, rw = channels_vector(p, aligned), config["rh"], config["rw"]
    lanes = 1
    while lanes < 32 and lanes * v < p.channels:
        lanes *= 2
    sizes = f"{v}, {lanes}, {rh}, {rw}, {CHANNEL_THREADS}"
    shared = p.taps[1] * p.taps[2] * lanes * v * 4
    code = _code(p, "depthwise_channels", "depthwise.cu", sizes, CHANNEL_THREADS, shared, CHANNEL_BLOCKS)
    strips_h, strips_w = ceil_div(p.places[1], rh), ceil_div(p.places[2], rw)
    blocks, strips = ceil_div(p.channels, lanes * v), p.n * strips_h * strips_w
    # Each block brings its taps once: enough blocks for every multiprocessor several times over, and no more.
    groups = max(1, min(ceil_div(strips, CHANNEL_THREADS // lanes), ceil_div(16 * chips, blocks)))
    return code, blocks * groups, _words(p, blocks, strips_h, strips_w, strips)


def depthwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds: x and y moved once; rows of places beyond the image are computed too."""
    p, chip = problem_of(specs, attrs), facts(specs[0].device)
    rh, rw = config.get("rh", 4), config.get("rw", 1)
    useful = p.places[1] * p.places[2] / (ceil_div(p.places[1], rh) * rh * ceil_div(p.places[2], rw) * rw)
    # Each number that a thread reads serves so many taps; the other reads come from the caches.
    again = _high(p, rh) * _wide(p, rw) / (rh * rw * p.stride[1] * p.stride[2])
    return LAUNCH + _bytes(p) / (chip.bandwidth * MEMORY_SHARE) * max(1.0, again / 4 / useful)


@kernel("conv", **KERNEL, supports=channels_supports, configs=channels_configs, model=depthwise_model)
def depthwise_channels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """Vectors of channels by strips of places."""
    return _launch(specs, attrs, lambda p, aligned, chips: channels_step(p, config, aligned, chips))


PLANE_ROWS = 4  # outputs of a thread, one above the other


def planes_step(p: Problem, chips: int) -> Made:
    """The launch: small images share a block."""
    tw = 32 if p.places[2] > 16 else 16 if p.places[2] > 8 else 8
    th = 32 if tw == 32 and p.places[1] > 16 else max(tw // 2, 8) if tw == 32 else tw
    planes = PLANE_THREADS // (th // PLANE_ROWS * tw)
    sizes = f"{th}, {tw}, {PLANE_ROWS}, {planes}"
    shared = planes * (_high(p, th) * _wide(p, tw) + p.taps[1] * p.taps[2]) * 4
    code = _code(p, "depthwise_planes", "depthwise.cu", sizes, PLANE_THREADS, shared, blocks=2)
    tiles_h, tiles_w = ceil_div(p.places[1], th), ceil_div(p.places[2], tw)
    tiles = ceil_div(p.n * p.channels, planes) * tiles_h * tiles_w
    return code, min(tiles, 16 * chips), _words(p, 1, tiles_h, tiles_w, tiles)


def planes_supports(specs: Specs, attrs: Attrs) -> str | None:
    reason = depthwise_problem(specs, attrs)
    return reason or _shared_problem(specs, planes_step(problem_of(specs, attrs), 1)[0])


def planes_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds; where pixels are apart, each comes in 32 bytes of its own."""
    p = problem_of(specs, attrs)
    apart = p.size[2] > 1 and p.x.space[2] != p.itemsize
    return depthwise_model(specs, attrs, config, threads) * (32 / p.itemsize if apart else 1.0)


@kernel("conv", **KERNEL, supports=planes_supports, model=planes_model)
def depthwise_planes(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """Tiles of planes in shared memory."""
    return _launch(specs, attrs, lambda p, aligned, chips: planes_step(p, chips))


# --- direct -------------------------------------------------------------------------------------------------

MOST_CHANNELS = 4
PLACES = 256  # of an image, by one block


def few_store(p: Problem, aligned: bool) -> tuple[bool, int]:
    """Whether results are written along the places, not the channels, and how many at a time."""
    n, h, w, c = _steps(p.y, p.itemsize)
    pixels_first = w == 1 and c != 1
    others = (n, h, c) if pixels_first else (n, h, w)
    if aligned and (pixels_first or c == 1):
        for v in (16 // p.itemsize, 8 // p.itemsize, 2):
            if all(step % v == 0 for step in others):
                return pixels_first, v
    return pixels_first, 1


def few_step(p: Problem, aligned: bool, chips: int) -> Made:
    """The launch: each block goes from tile to tile."""
    outputs = 64 if p.out > 32 else 32

    def computed(tw: int) -> int:
        th = PLACES // tw
        return ceil_div(p.places[1], th) * th * ceil_div(p.places[2], tw) * tw

    tw = min((16, 32, 64), key=computed)
    th = PLACES // tw
    pitch = (tw // 8 - 1) * 8 * p.stride[2] + ceil_div(_wide(p, 8), 4) * 4
    pixels_first, v = few_store(p, aligned)
    sizes = f"{p.cg}, {outputs}, {th}, {tw}, {'true' if pixels_first else 'false'}, {v}"
    threads = outputs // 8 * PLACES // 8
    shared = p.cg * (p.taps[1] * p.taps[2] * outputs + _high(p, th) * pitch) * 4
    code = _code(
        p, "few_channels", "few_channels.cu", sizes, threads, shared, blocks=2 if outputs == 64 else 3
    )
    blocks, tiles_h, tiles_w = ceil_div(p.out, outputs), ceil_div(p.places[1], th), ceil_div(p.places[2], tw)
    tiles = p.n * tiles_h * tiles_w
    # Each block brings its filters once: as many blocks as run at the same time.
    groups = max(1, min(tiles, ceil_div(code.blocks * chips, blocks)))
    return code, blocks * groups, _words(p, blocks, tiles_h, tiles_w, tiles)


def few_supports(specs: Specs, attrs: Attrs) -> str | None:
    """A few channels, one group, and a tile's pixels and filters in shared memory."""
    p = problem_of(specs, attrs)
    if p.groups != 1 or p.cg > MOST_CHANNELS:
        return f"takes one group of at most {MOST_CHANNELS} channels, not {p.groups} of {p.cg}"
    reason = flat_problem(p, attrs)
    if reason is None and _wide(p, 8) > MOST_COLUMNS:
        reason = f"holds at most {MOST_COLUMNS} columns under 8 places, not {_wide(p, 8)}"
    return reason or _shared_problem(specs, few_step(p, False, 1)[0])


def few_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds: multiply-adds on the ordinary cores, tiles beyond the image included."""
    p, chip = problem_of(specs, attrs), facts(specs[0].device)
    code, _, words = few_step(p, True, chip.multiprocessors)
    outputs = code.threads * 8 * 8 // PLACES
    turns = ceil_div(words[-1] * ceil_div(p.out, outputs), chip.multiprocessors)
    work = turns * 2.0 * PLACES * outputs * p.cg * p.tap_count
    # For each tap 64 multiply-adds and two loads, for each row of taps the pixels.
    share = 64 / (64 + 2 + ceil_div(_wide(p, 8), 4) / p.taps[2])
    busy = work / (chip.flops["float32"] / chip.multiprocessors * share)
    return LAUNCH + max(busy, _bytes(p) / (chip.bandwidth * MEMORY_SHARE))


@kernel("conv", **KERNEL, supports=few_supports, model=few_model)
def direct(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CodeLaunch:
    """8 places by 8 channels a thread, pixels and filters in shared memory."""
    return _launch(specs, attrs, few_step)
