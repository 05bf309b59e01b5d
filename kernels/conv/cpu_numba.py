"""Convolutions on the CPU: y = act(x * w + b + residual), for 1 to 3 spatial axes.

    direct   channels of y contiguous ("NHWC"): a register tile of pixels by output channels, over lists of
             where each tap of each pixel is read (`tasks/tap_table.py`); 1x1 is the case of one tap

The kernels for contiguous pixels are in `cpu_numba_planes.py`, depthwise ones in `cpu_numba_depthwise.py`,
Winograd's for 3x3 filters in `cpu_numba_winograd.py`.

`plan.py` predicts the time of each register tile; the fastest predicted runs, unless tuning has measured.
"""

from __future__ import annotations

import numpy as np

from ..cpu.cycles import ceil_div, seconds
from ..kernel import Config, Launch
from ..machine import machine
from ..op import Attrs, Specs
from ..registry import kernel
from .block import LINE, PAGE, common_block, goes_past, lines_of_bytes
from .pixel_order import pixel_order
from .plan import Plan, lanes_of, panels_of, plan
from .prepack import multiplies_pairs
from .problem import Problem, problem_of
from .tasks import words
from .tasks.indirect import conv_task
from .tasks.pack_panels import pack_task
from .tiles import register_tiles

DTYPES = ("float32", "float64", "bfloat16")


def direct_supports(specs: Specs, attrs: Attrs) -> str | None:
    """Any call whose result has contiguous channels."""
    p = problem_of(specs, attrs)
    if p.cg == 0:
        return "takes at least one input channel"
    if p.y.c != p.itemsize:
        return "writes vectors of output channels, and those of y are not contiguous"
    if p.w is None:
        lanes = lanes_of(p)
        if p.nr not in {nv * lanes for _, nv in register_tiles()}:
            return f"has no register tile for the weight's format {attrs['w_format']!r}"
        if p.paired and not multiplies_pairs(p.dtype, p.cg):
            return f"has no instruction for the weight's format {attrs['w_format']!r} here"
        if specs[1].strides != (p.itemsize,):
            return "takes packed weights side by side"
    return None


def direct_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and how many terms are added before the next pixels' turn."""
    p = problem_of(specs, attrs)
    return [
        {"mr": mr, "nv": nv, "kc": kc}
        for kc in (2304, 512)
        for mr, nv in register_tiles()
        if not p.nr or p.nr == nv * lanes_of(p)
    ]


def direct_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(plan(problem_of(specs, attrs), config, threads).cycles)


@kernel(
    "conv", dtypes=DTYPES, supports=direct_supports, configs=direct_configs, model=direct_model, binds=True
)
def direct(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Implicit matrix product on a tile of mr pixels by nv vectors of output channels."""
    from ..cpu.launch import address_of_task, bind_phases

    p = problem_of(specs, attrs)
    how = plan(p, config, threads)
    lanes, mr, nv = lanes_of(p), config["mr"], config["nv"]
    nr = nv * lanes
    paired = multiplies_pairs(p.dtype, p.cg) and (p.paired or p.w is not None)
    block, scratch_bytes = direct_block(p, how, mr, nr, threads)
    phases = []
    if p.w is not None:
        packing = pack_task(p.dtype, lanes, nr, paired)
        phases.append(
            (
                address_of_task(packing, ("conv pack", p.dtype, lanes, nr, paired), f"conv for {p.dtype}"),
                int(block[words.PACK_TASKS]),
            )
        )
    order = pixel_order(p, how, mr)
    block[words.ORDER] = 0 if order is None else order.ctypes.data
    ahead = _streams_weights(p, ceil_div(ceil_div(p.pixels, mr), how.gm))
    task = conv_task(p.dtype, lanes, mr, nv, p.activation, paired, ahead)
    key = ("conv", p.dtype, lanes, mr, nv, p.activation, paired, ahead)
    phases.append((address_of_task(task, key, f"conv for {p.dtype}"), how.gm * how.gn))
    return bind_phases(block, 5, phases, scratch_bytes, keep=order)


def _streams_weights(p: Problem, tiles: int) -> bool:
    """Whether a task with so many tiles of pixels spends its time on weights that come from beyond L2.

    Up to 4 tiles: more hide the reading behind their multiply-adds, and asking costs them 1 to 3 percent.
    """
    weights = p.out * p.cg * p.tap_count * p.itemsize
    return p.w is None and tiles <= 4 and weights > machine().l2


def direct_block(p: Problem, how: Plan, mr: int, nr: int, threads: int) -> tuple[np.ndarray, int]:
    """The argument block, and the bytes of scratch."""
    per_block, blocks = how.block_entries, ceil_div(how.entries, how.block_entries)
    table_words = 2 * mr + blocks * (1 + per_block * (1 + mr))
    zeros = lines_of_bytes(how.length * p.groups * p.itemsize)
    bias_bytes = lines_of_bytes(p.out * p.itemsize) if p.b not in (None, p.itemsize) else 0
    table_at = zeros + bias_bytes
    copies_at = lines_of_bytes(table_at + 8 * table_words * how.block_tiles)
    task_bytes = ceil_div(copies_at + how.copies * how.block_tiles, PAGE) * PAGE + LINE
    packed = 0
    pack_tasks = 0
    if p.w is not None:
        panels = panels_of(p, nr)
        packed = lines_of_bytes(panels * nr * p.cg * p.tap_count * p.itemsize)
        pack_tasks = min(panels, threads if how.gm * how.gn > 1 else 1)
    block = common_block(p)
    facts = {
        "GM": how.gm,
        "GN": how.gn,
        "BLOCK_TILES": how.block_tiles,
        "MERGED": how.merged,
        "GATHER": how.gather,
        "BLOCK_ENTRIES": per_block,
        "BLOCKS": blocks,
        "LENGTH": how.length,
        "CHANNELS": how.channels,
        "PACK_TASKS": pack_tasks,
        "PACKED": 0,
        "TASKS_AT": packed,
        "TASK_BYTES": task_bytes,
        "ZEROS_BYTES": zeros if p.padded else 0,
        "BIAS_AT": zeros,
        "TABLE_AT": table_at,
        "TABLE_WORDS": table_words,
        "COPIES_AT": copies_at,
        "PAST": goes_past(p, p.y.n, *p.y.space, p.og * p.itemsize),
    }
    for name, value in facts.items():
        block[getattr(words, name)] = int(value)
    return block, packed + how.gm * how.gn * task_bytes
