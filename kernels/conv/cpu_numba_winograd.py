"""Winograd convolution on the CPU: 3 x 3 filters at every pixel of images with contiguous channels ("NHWC").

    winograd2   F(2 x 2, 3 x 3): 4 products an output instead of 9
    winograd4   F(4 x 4, 3 x 3): 2.25 products

    tiles of x  --B^T x B-->  V[p]   V[p] U[p] -> M[p]   M  --A^T M A-->  tiles of y
      vectors of channels            (m + 2)^2 matrix products of tiles x C by C x nr

The tasks are in `tasks/winograd.py`, the transforms in `tasks/winograd_transform.py`, and what errors they
make in `winograd_error.py`. `winograd_plan.py` predicts the time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ..cpu.cycles import ceil_div, seconds
from ..kernel import Config, Launch
from ..machine import machine
from ..op import Attrs, Specs
from ..registry import kernel
from .block import LINE, PAGE, lines_of_bytes
from .plan import lanes_of
from .prepack import transformed_row
from .problem import Problem, problem_of
from .tasks import winograd as words
from .tasks.elements import computed
from .tasks.winograd_transform import side
from .tiles import register_tiles
from .winograd_error import extra_error
from .winograd_plan import WinogradPlan, computed_bytes, tiles_of, winograd_plan

DTYPES = ("float32", "float64", "bfloat16")
# Bytes of filters that a call may transform: they stay in the scratch of the thread.
MOST_TRANSFORMED = 64 << 20


def supports(m: int, specs: Specs, attrs: Attrs) -> str | None:
    """3 x 3 filters at every pixel of images with contiguous channels."""
    p = problem_of(specs, attrs)
    if specs[0].ndim != 4:
        return "computes images with two spatial axes"
    if p.taps != (1, 3, 3) or p.stride != (1, 1, 1) or p.dilation != (1, 1, 1) or p.groups != 1:
        return "computes 3 x 3 filters of one group with stride and dilation 1"
    if p.cg == 0:
        return "takes at least one input channel"
    if p.x.c != p.itemsize or p.y.c != p.itemsize:
        return "reads and writes vectors of channels, and those of x or y are not contiguous"
    if p.residual is not None and p.residual.c != p.itemsize:
        return "adds vectors of channels, and those of the residual are not contiguous"
    if p.w is not None and side(m) ** 2 * p.cg * p.og * computed_bytes(p) > MOST_TRANSFORMED:
        return f"transforms at most {MOST_TRANSFORMED >> 20} MiB of filters in a call: pack them ahead"
    if p.w is None:
        if p.winograd != m:
            return f"finds no filters transformed for it in the weight's format {attrs['w_format']!r}"
        if p.nr not in {nv * lanes_of(p) for _, nv in register_tiles()}:
            return f"has no register tile for the weight's format {attrs['w_format']!r}"
        if specs[1].strides != (p.itemsize,):
            return "takes packed weights side by side"
    return None


def configs(m: int, specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles."""
    p = problem_of(specs, attrs)
    return [{"mr": mr, "nv": nv} for mr, nv in register_tiles() if not p.nr or p.nr == nv * lanes_of(p)]


def model(m: int, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(winograd_plan(problem_of(specs, attrs), m, config, threads).cycles)


def _declared(m: int) -> dict[str, Any]:
    """The arguments of @kernel for F(m x m, 3 x 3)."""
    return {
        "dtypes": DTYPES,
        "supports": partial(supports, m),
        "configs": partial(configs, m),
        "model": partial(model, m),
        "binds": True,
        "error": extra_error(m),
    }


@kernel("conv", **_declared(2))
def winograd2(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """F(2 x 2, 3 x 3): 4 products an output."""
    return bind(2, specs, attrs, config, threads)


@kernel("conv", **_declared(4))
def winograd4(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """F(4 x 4, 3 x 3): 2.25 products an output."""
    return bind(4, specs, attrs, config, threads)


def bind(m: int, specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """A register tile of mr tiles of pixels by nv vectors of output channels."""
    from ..cpu.launch import address_of_task, bind_phases

    p = problem_of(specs, attrs)
    how = winograd_plan(p, m, config, threads)
    lanes, mr, nv = lanes_of(p), config["mr"], config["nv"]
    block, scratch_bytes = winograd_block(p, how, m, nv * lanes, threads)
    phases = []
    if p.w is not None:
        packing = words.pack_task(p.dtype, lanes, nv, m)
        key: tuple[object, ...] = ("winograd pack", p.dtype, lanes, nv, m)
        phases.append((address_of_task(packing, key, f"conv for {p.dtype}"), int(block[words.PACK_TASKS])))
    parts: tuple[tuple[str, Callable[..., Any], tuple[Any, ...]], ...] = (
        ("IMAGES", words.images_task, (p.dtype, lanes, m)),
        ("PRODUCT", words.products_task, (computed(p.dtype), lanes, mr, nv)),
        ("RESULTS", words.results_task, (p.dtype, lanes, nv, m, p.activation, p.residual is not None)),
    )
    for name, factory, made_for in parts:
        address = address_of_task(factory(*made_for), ("winograd", name, *made_for), f"conv for {p.dtype}")
        block[getattr(words, name)] = address
    task = words.conv_task(p.dtype)
    phases.append((address_of_task(task, ("winograd", p.dtype), f"conv for {p.dtype}"), how.gm * how.gn))
    return bind_phases(block, 5, phases, scratch_bytes)


def winograd_block(p: Problem, how: WinogradPlan, m: int, nr: int, threads: int) -> tuple[np.ndarray, int]:
    """The argument block, and the bytes of scratch."""
    size, wide, lanes, products = p.itemsize, computed_bytes(p), lanes_of(p), side(m) ** 2
    panels = ceil_div(p.og, nr)
    u_step = transformed_row(p.cg, nr) * wide
    v_row = ceil_div(p.cg, lanes) * lanes * wide
    v_step = _odd_lines(how.tiles * v_row)
    m_step = _odd_lines(how.tiles * nr * wide)
    zeros = lines_of_bytes(p.cg * size + lanes * size)
    trash_at = zeros
    bias_at = trash_at + lines_of_bytes(panels * nr * size)
    table_at = bias_at + lines_of_bytes(panels * nr * size)
    v_at = table_at + lines_of_bytes(16 * m * m * how.tiles)
    m_at = v_at + products * v_step
    task_bytes = ceil_div(m_at + products * m_step, PAGE) * PAGE + LINE
    packed = pack_tasks = pack_bytes = 0
    if p.w is not None:
        packed = panels * products * u_step
        pack_tasks = min(panels, threads if how.gm * how.gn > 1 else 1)
        pack_bytes = lines_of_bytes(9 * how.pack_channels * nr * wide)
    facts = {
        "B_STEP": p.b or 0,
        "CHANNELS": p.cg,
        "OUT": p.og,
        "TILES_H": ceil_div(p.places[1], m),
        "TILES_W": ceil_div(p.places[2], m),
        "TILES": tiles_of(p, m),
        "GM": how.gm,
        "GN": how.gn,
        "BLOCK_TILES": how.tiles,
        "KC": how.channels,
        "PACK_TASKS": pack_tasks,
        "PACKED": p.winograd_at,
        "TASKS_AT": packed + pack_tasks * pack_bytes,
        "TASK_BYTES": task_bytes,
        "TRASH_AT": trash_at,
        "BIAS_AT": bias_at,
        "TABLE_AT": table_at,
        "V_AT": v_at,
        "M_AT": m_at,
        "U_STEP": u_step,
        "WIDTH": nr,
        "PRODUCTS": products,
        "FETCH": p.n * prod(p.size) * p.cg * size > machine().l2 // 2,
        "V_STEP": v_step,
        "M_STEP": m_step,
        "V_ROW": v_row,
        "ZEROS_BYTES": zeros,
        "PACK_AT": packed,
        "PACK_BYTES": pack_bytes,
        "PACK_CHANNELS": how.pack_channels,
    }
    block = np.zeros(words.WORDS, np.int64)
    for name, value in facts.items():
        block[getattr(words, name)] = int(value)
    block[words.X_N : words.X_W + 1] = (p.x.n, *p.x.space[1:])
    block[words.Y_N : words.Y_W + 1] = (p.y.n, *p.y.space[1:])
    if p.residual is not None:
        block[words.R_N : words.R_W + 1] = (p.residual.n, *p.residual.space[1:])
    if p.w is not None:
        block[words.W_O : words.W_W + 1] = (*p.w[:2], *p.w[3:])
    block[words.SIZE_H : words.LO_W + 1] = (*p.size[1:], *p.places[1:], *p.lo[1:])
    return block, packed + pack_tasks * pack_bytes + how.gm * how.gn * task_bytes


def _odd_lines(nbytes: int) -> int:
    """So many bytes in an odd number of cache lines: what lies so far apart shares no set of a cache."""
    return lines_of_bytes(nbytes) + (LINE if nbytes // LINE % 2 == 0 else 0)
