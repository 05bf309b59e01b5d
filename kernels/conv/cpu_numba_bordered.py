"""Convolution of images with few contiguous channels ("NHWC"), such as a first layer, inside a border.

    bordered    x  ->  a border of zeros around it, an even number of channels for pairs of bfloat16
                then `direct`, or what else is chosen for that, without padding

With few channels the taps of a row are one run of x; on padding they are not, and such a pixel needs a copy
of its own. One copy of all pixels is less work, and its rows need no test. The copies are whole arrays, in
memory that the thread keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ..cpu.cycles import CALL, HAND_OVER, NEAR, ceil_div, seconds
from ..dispatch import Choice, choose
from ..kernel import Config, Launch
from ..op import AnyArray, Attrs, Specs, get_op
from ..registry import kernel
from ..settings import Settings
from ..spec import TensorSpec, row_major
from .plan import MERGE_BELOW
from .prepack import multiplies_pairs
from .problem import Problem, problem_of

DTYPES = ("float32", "float64", "bfloat16")
MOST_BYTES = 256 << 20  # of the copy
WORTH = 100_000  # bytes that another thread is worth starting for
MOVE = 3.0  # cycles to move an element that is not part of a longer run
PIXEL = 2.0  # cycles to move a pixel that is a word


@dataclass(frozen=True)
class Bordered:
    """A call without padding that computes the same.

    Attributes:
        specs: of x with its border, w, b, the residual and y.
        attrs: without padding.
        widens: whether w is copied too, because x gets more channels.
    """

    specs: Specs
    attrs: dict[str, Any]
    widens: bool


@lru_cache(maxsize=1024)
def _bordered(specs: Specs, items: tuple[tuple[str, Any], ...]) -> Bordered:
    attrs = dict(items)
    x, w, *rest = specs
    p = problem_of(specs, attrs)
    axes = x.ndim - 2
    more = multiplies_pairs(p.dtype, p.cg + 1)
    channels = p.cg + more
    size = tuple(lo + n + hi for lo, n, hi in zip(p.lo, p.size, p.hi, strict=True))[3 - axes :]
    shape = (p.n, *size, channels)
    x = TensorSpec(shape, x.dtype, x.device, row_major(shape, x.itemsize))
    attrs["padding"] = ((0, 0),) * axes
    if more:
        filters = (p.og, *p.taps[3 - axes :], channels)
        inside = row_major(filters, w.itemsize)
        w = TensorSpec(
            (p.og, channels, *filters[1:-1]), w.dtype, w.device, (inside[0], inside[-1], *inside[1:-1])
        )
        attrs |= {"w_format": "", "w_shape": ()}
    return Bordered((x, w, *rest), attrs, more)


def bordered_call(specs: Specs, attrs: Attrs) -> Bordered:
    """The call that does the work."""
    return _bordered(tuple(specs), tuple(attrs.items()))


def _choice(specs: Specs, attrs: Attrs, threads: int) -> Choice:
    call = bordered_call(specs, attrs)
    return choose(get_op("conv"), call.specs, call.attrs, Settings(threads, extra_error=False))


def supports(specs: Specs, attrs: Attrs) -> str | None:
    """Few contiguous channels, and padding or channels that make no pairs."""
    p = problem_of(specs, attrs)
    if attrs["layout"] != "NHWC" or p.x.c != p.itemsize or p.groups != 1:
        return "takes images with contiguous channels, NHWC, and filters of one group"
    if not 0 < p.cg < MERGE_BELOW or p.taps[2] == 1:
        return f"is for fewer than {MERGE_BELOW} channels and filters of more than one tap a row"
    if min(p.lo) < 0:
        return "adds borders, and negative padding takes away"
    widens = multiplies_pairs(p.dtype, p.cg + 1)
    if not p.padded and not widens:
        return "would add nothing: there is no padding, and the channels are as the kernels want them"
    if bordered_call(specs, attrs).specs[0].nbytes > MOST_BYTES:
        return f"keeps a copy of at most {MOST_BYTES >> 20} MiB"
    if _choice(specs, attrs, 1).kernel is None:
        return "no kernel takes the call with a border"
    return None


def _copying(p: Problem, call: Bordered, threads: int) -> float:
    """Cycles of the copies."""
    whole = not call.widens and p.x.space[2] == p.cg * p.itemsize
    pixel = PIXEL if (p.cg + 1) * p.itemsize == 8 else MOVE * (p.cg + 1)
    copy = call.specs[0].nbytes / NEAR if whole else prod(call.specs[0].shape[:-1]) * pixel
    weights = call.specs[1].size * MOVE if call.widens else 0.0
    return (copy + weights) / threads + (CALL + HAND_OVER * (threads > 1)) * (1 + call.widens)


def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """Predicted seconds."""
    choice = _choice(specs, attrs, threads)
    if choice.kernel is None:
        return None
    inner = choice.kernel.predict(choice.specs, choice.attrs, choice.config, threads)
    copying = _copying(problem_of(specs, attrs), bordered_call(specs, attrs), threads)
    return None if inner is None else inner + seconds(copying)


@kernel("conv", dtypes=DTYPES, supports=supports, model=model, binds=True)
def bordered(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """What is chosen for a copy with a border."""
    from ..cpu.memory import held_scratch

    call, inner = bordered_call(specs, attrs), _choice(specs, attrs, threads).bind()
    xb, wb = call.specs[:2]
    add_border = _bind_border(specs, attrs, threads)
    widen = _bind_widened(specs, attrs, threads) if call.widens else None
    weight_at = ceil_div(xb.nbytes, 4096) * 4096 + 192

    def launch(x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, y: AnyArray) -> None:
        room = held_scratch("border", weight_at + (wb.nbytes if call.widens else 0))
        inside = np.ndarray(xb.shape, xb.np_dtype, room.data, 0, xb.strides)
        add_border(x, inside)
        if widen is not None:
            wide = np.ndarray(wb.shape, wb.np_dtype, room.data, weight_at, wb.strides)
            widen(w, wide)
            w = wide
        inner(inside, w, b, residual, y)

    return launch


def _bind_border(specs: Specs, attrs: Attrs, threads: int) -> Callable[[AnyArray, AnyArray], None]:
    """`launch(x, copy)`."""
    from ..cpu.launch import address_of_task, bind_phases
    from .tasks import border as words

    p, to = problem_of(specs, attrs), bordered_call(specs, attrs).specs[0]
    block = np.zeros(words.WORDS, np.int64)
    rows = p.n * prod(lo + n + hi for lo, n, hi in zip(p.lo[:2], p.size[:2], p.hi[:2], strict=True))
    tasks = max(1, min(threads, rows, to.nbytes // WORTH))
    block[[words.UNITS, words.TASKS]] = rows, tasks
    block[words.SIZE_D : words.HI_W + 1] = (*p.size, *p.lo, *p.hi)
    block[words.FROM_N : words.FROM_W + 1] = (p.x.n, *p.x.space)
    block[[words.FROM_BYTES, words.TO_BYTES]] = p.cg * p.itemsize, to.shape[-1] * p.itemsize
    address = address_of_task(words.border_task(p.dtype), ("border", p.dtype), f"conv for {p.dtype}")
    return bind_phases(block, 2, [(address, tasks)])


def _bind_widened(specs: Specs, attrs: Attrs, threads: int) -> Callable[[AnyArray, AnyArray], None]:
    """`launch(w, copy)`."""
    from ..cpu.launch import address_of_task, bind_phases
    from .tasks import border as words

    p, to = problem_of(specs, attrs), bordered_call(specs, attrs).specs[1]
    block = np.zeros(words.WORDS, np.int64)
    tasks = max(1, min(threads, p.og, to.nbytes // WORTH))
    block[[words.UNITS, words.TASKS]] = p.og, tasks
    block[[words.FROM_C, words.TO_C]] = p.cg, to.shape[1]
    block[words.TAPS_D : words.TAPS_W + 1] = p.taps
    if p.w is None:
        block[words.PANEL] = p.nr
    else:
        block[words.W_O : words.W_W + 1] = p.w
    address = address_of_task(words.widened_task(p.dtype), ("widened", p.dtype), f"conv for {p.dtype}")
    return bind_phases(block, 2, [(address, tasks)])
