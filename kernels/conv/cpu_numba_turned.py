"""Convolution of images with contiguous pixels ("NCHW") by the kernels for contiguous channels ("NHWC").

    turned             x, residual -> NHWC      direct, or what else is chosen there      y -> NCHW
    turned_winograd4   the same                 winograd4                                 the same

    [C, pixels]  --tiles of lanes x lanes, turned in registers-->  [pixels, C]

What the turning costs are two passes over x and y; what it brings is that weights are read by vectors and
taps are addresses, so that nothing is copied for each tap. The turned copies are whole arrays, in memory that
the thread keeps; a pixel's channels start an odd number of cache lines apart where rows would share sets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..cpu.cycles import CALL, HAND_OVER, TURNED, ceil_div, seconds
from ..dispatch import Choice, choose
from ..kernel import Config, Launch
from ..op import AnyArray, Attrs, Specs, get_op
from ..registry import kernel
from ..settings import Settings
from ..spec import ABSENT, TensorSpec
from . import cpu_numba_winograd as winograd
from .geometry import parts
from .winograd_error import extra_error

DTYPES = ("float32", "float64")
MOST_BYTES = 256 << 20  # of turned copies: they stay in the thread's memory


@dataclass(frozen=True)
class Turned:
    """A call for contiguous channels that computes the same.

    Attributes:
        specs: of x, w, b, the residual and y; those of images are turned.
        attrs: with the layout "NHWC".
        nbytes: of each turned copy, x, the residual (0 for none) and y.
    """

    specs: Specs
    attrs: dict[str, Any]
    nbytes: tuple[int, int, int]


def _channels_last(spec: TensorSpec) -> tuple[TensorSpec, int]:
    """The spec of the turned copy of an image, and its bytes."""
    batch, channels, size = parts("NCHW", spec.shape)
    step = channels * spec.itemsize
    # Pixels whose channels start a multiple of a KiB apart would fall into few sets of the nearest cache.
    step += 64 if step >= 1024 and step % 1024 == 0 else 0
    strides = [spec.itemsize]
    for length in (0, *reversed(size)):
        strides.append(step if length == 0 else strides[-1] * length)
    layout = tuple(reversed(strides))
    return TensorSpec((batch, *size, channels), spec.dtype, spec.device, layout), batch * layout[0]


@lru_cache(maxsize=1024)
def _turned(specs: Specs, attrs: tuple[tuple[str, Any], ...]) -> Turned:
    x, w, b, residual, y = specs
    (xt, x_bytes), (yt, y_bytes) = _channels_last(x), _channels_last(y)
    rt, r_bytes = _channels_last(residual) if residual.present else (ABSENT, 0)
    return Turned((xt, w, b, rt, yt), {**dict(attrs), "layout": "NHWC"}, (x_bytes, r_bytes, y_bytes))


def turned_call(specs: Specs, attrs: Attrs) -> Turned:
    """The call that does the work."""
    return _turned(tuple(specs), tuple(attrs.items()))


def supports(specs: Specs, attrs: Attrs) -> str | None:
    """Channels first, planes of pixels side by side."""
    if attrs["layout"] != "NCHW":
        return "turns images with contiguous pixels, NCHW"
    for name, spec in (("x", specs[0]), ("the residual", specs[3]), ("y", specs[4])):
        if not spec.present:
            continue
        step = spec.itemsize
        for length, stride in zip(reversed(spec.shape[2:]), reversed(spec.strides[2:]), strict=True):
            if length > 1 and stride != step:
                return f"turns planes of pixels side by side, which those of {name} are not"
            step *= length
    call = turned_call(specs, attrs)
    if sum(call.nbytes) > MOST_BYTES:
        return f"keeps at most {MOST_BYTES >> 20} MiB of turned copies"
    return None


def _turning(specs: Specs, threads: int) -> float:
    """Cycles of the passes over x, the residual and y."""
    nbytes = sum(specs[i].nbytes for i in (0, 3, 4) if specs[i].present)
    return nbytes / TURNED / threads + (2 if specs[3] is ABSENT else 3) * (CALL + HAND_OVER * (threads > 1))


# --- by the kernel that is chosen ---------------------------------------------------------------------------


def _choice(specs: Specs, attrs: Attrs, threads: int) -> Choice:
    call = turned_call(specs, attrs)
    return choose(get_op("conv"), call.specs, call.attrs, Settings(threads, extra_error=False))


def turned_supports(specs: Specs, attrs: Attrs) -> str | None:
    """What some kernel for contiguous channels takes."""
    reason = supports(specs, attrs)
    if reason is None and _choice(specs, attrs, 1).kernel is None:
        reason = "no kernel for NHWC takes the turned call"
    return reason


def turned_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """Predicted seconds."""
    choice = _choice(specs, attrs, threads)
    if choice.kernel is None:
        return None
    inner = choice.kernel.predict(choice.specs, choice.attrs, choice.config, threads)
    return None if inner is None else inner + seconds(_turning(specs, threads))


@kernel("conv", dtypes=DTYPES, supports=turned_supports, model=turned_model, binds=True)
def turned(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The kernel that contiguous channels would get, between two turns."""
    return _bind(specs, attrs, threads, _choice(specs, attrs, threads).bind())


# --- by Winograd --------------------------------------------------------------------------------------------


def winograd_supports(specs: Specs, attrs: Attrs) -> str | None:
    """What winograd4 takes when it is turned."""
    reason = supports(specs, attrs)
    if reason is not None:
        return reason
    call = turned_call(specs, attrs)
    return winograd.supports(4, call.specs, call.attrs)


def winograd_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles."""
    call = turned_call(specs, attrs)
    return winograd.configs(4, call.specs, call.attrs, threads)


def winograd_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    call = turned_call(specs, attrs)
    return winograd.model(4, call.specs, call.attrs, config, threads) + seconds(_turning(specs, threads))


@kernel(
    "conv",
    dtypes=DTYPES,
    supports=winograd_supports,
    configs=winograd_configs,
    model=winograd_model,
    binds=True,
    error=extra_error(4),
)
def turned_winograd4(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """F(4 x 4, 3 x 3) between two turns."""
    call = turned_call(specs, attrs)
    return _bind(specs, attrs, threads, winograd.bind(4, call.specs, call.attrs, config, threads))


# --- turning ------------------------------------------------------------------------------------------------


def _bind(specs: Specs, attrs: Attrs, threads: int, inner: Launch) -> Launch:
    from ..cpu.memory import held_scratch

    call = turned_call(specs, attrs)
    xt, _, _, rt, yt = call.specs
    to_last = _turn(specs[0], xt, threads, back=False)
    residual_to_last = _turn(specs[3], rt, threads, back=False) if rt.present else None
    to_first = _turn(specs[4], yt, threads, back=True)
    places = np.cumsum([0, *(-(-nbytes // 4096) * 4096 + 192 for nbytes in call.nbytes)]).tolist()

    def launch(x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, y: AnyArray) -> None:
        room = held_scratch("turned", places[3])
        x_last, y_last = _view(room, places[0], xt), _view(room, places[2], yt)
        r_last = None if residual_to_last is None else _view(room, places[1], rt)
        to_last(x, x_last)
        if residual is not None and residual_to_last is not None and r_last is not None:
            residual_to_last(residual, r_last)
        inner(x_last, w, b, r_last, y_last)
        to_first(y_last, y)

    return launch


def _view(room: AnyArray, at: int, spec: TensorSpec) -> AnyArray:
    return np.ndarray(spec.shape, spec.np_dtype, room.data, at, spec.strides)


def _turn(
    first: TensorSpec, last: TensorSpec, threads: int, *, back: bool
) -> Callable[[AnyArray, AnyArray], None]:
    """`launch(source, target)` from channels first to channels last, or back."""
    from ..cpu.launch import address_of_task, bind_phases
    from ..machine import vector_bytes
    from .tasks import turn as words

    batch, channels, size = parts("NCHW", first.shape)
    pixels = prod(size)
    lanes = vector_bytes() // first.itemsize
    runs = ceil_div(pixels, words.PIXELS_AT_ONCE)
    near, far = (first.strides[0], first.strides[1]), (last.strides[0], last.strides[-2])
    block = np.zeros(words.WORDS, np.int64)
    for place, value in {
        words.PIXELS: pixels,
        words.CHANNELS: channels,
        words.RUNS: runs,
        words.UNITS: batch * runs,
        words.FIRST_N: near[0],
        words.FIRST_C: near[1],
        words.LAST_N: far[0],
        words.LAST_P: far[1],
    }.items():
        block[place] = value
    tasks = max(1, min(threads, batch * runs, first.size // words.WORTH))
    block[words.TASKS] = tasks
    key = (first.dtype, lanes, back)
    address = address_of_task(words.turn_task(*key), ("turn", *key), f"conv for {first.dtype}")
    return bind_phases(block, 2, [(address, tasks)])
