"""From specs to argument blocks: which word gets which value, and where everything lies in the scratch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..machine import vector_bytes
from ..op import Op, Specs
from ..spec import TensorSpec
from . import block as words

LINE = 64
_AXES = {
    "x": ("X_TS", "X_BS", "X_CS"),
    "h0": ("H0_BS", "H0_CS"),
    "c0": ("C0_BS", "C0_CS"),
    "w_ih": ("WI_RS", "WI_CS"),
    "w_hh": ("WH_RS", "WH_CS"),
    "w_hr": ("HR_RS", "HR_CS"),
    "b_ih": ("BI_S",),
    "b_hh": ("BH_S",),
    "lengths": ("LENGTHS_S",),
    "y": ("Y_TS", "Y_BS", ""),
    "h_n": ("HN_BS", ""),
    "c_n": ("CN_BS", ""),
    "gates": ("G_TS", "G_BS", ""),
    "cells": ("CE_TS", "CE_BS", ""),
    "dy": ("DY_TS", "DY_BS", "DY_CS"),
    "dh_n": ("DHN_BS", "DHN_CS"),
    "dc_n": ("DCN_BS", "DCN_CS"),
    "dx": ("DX_TS", "DX_BS", ""),
    "dh0": ("HN_BS", ""),
    "dc0": ("CN_BS", ""),
}


def round_up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-value // step) * step


class Scratch:
    """Hands out the scratch, piece by piece, each on a cache line."""

    def __init__(self) -> None:
        self.nbytes = 0

    def take(self, nbytes: int) -> int:
        """The offset of the next `nbytes` bytes."""
        at = self.nbytes
        self.nbytes = round_up(at + nbytes, LINE)
        return at


def array_words(
    op: Op, outputs: tuple[str, ...], specs: Specs, batch_first: bool, widened: bool = False
) -> tuple[NDArray[np.int64], dict[str, TensorSpec]]:
    """A block with the places and strides of a call's arrays filled in, and the specs by role.

    Args:
        widened: w_ih and w_hh of 16 bits are read from where `widen_phases` puts them.
    """
    names = (*op.inputs, *outputs)
    block = np.zeros(words.WORDS, np.int64)
    block[words.FIRST : words.SCRATCH] = -1
    block[words.SCRATCH] = len(names)
    roles = dict(zip(names, specs, strict=True))
    for place, (name, spec) in enumerate(roles.items()):
        if not spec.present:
            continue
        if widened and spec.dtype == "bfloat16" and name in ("w_ih", "w_hh"):
            _widened(block, name, place, spec)
            continue
        block[getattr(words, name.upper())] = place
        strides: list[int] = list(spec.strides)
        if batch_first and spec.ndim == 3:
            strides[:2] = strides[1::-1]
        for word, stride in zip(_AXES.get(name, ()), strides, strict=False):
            if word:
                block[getattr(words, word)] = stride
    return block, roles


def _widened(block: NDArray[np.int64], name: str, place: int, spec: TensorSpec) -> None:
    """Weights of 16 bits: everything but `widen.py` reads them as float32, from the scratch."""
    letter, size = name[2].upper(), 4
    block[words.WORD[f"W16_{name[2:].upper()}"]] = place
    block[words.WORD[f"W16{letter}_RS"]], block[words.WORD[f"W16{letter}_CS"]] = spec.strides
    block[words.WORD[name.upper()]] = words.WORD[f"WIDE_{name[2:].upper()}"]
    block[words.WORD[f"W{letter}_RS"]], block[words.WORD[f"W{letter}_CS"]] = spec.shape[1] * size, size


def widen_phases(block: NDArray[np.int64], roles: dict[str, TensorSpec], memory: Scratch, tasks: int) -> Any:
    """The phase that widens w_ih and w_hh from bfloat16, in a list; none for others."""
    if roles["w_ih"].dtype != "bfloat16":
        return []
    from ..cpu.launch import address_of_task
    from .widen import widen_task

    lanes = vector_bytes() // 4
    fill(
        block,
        COUNT_G=roles["w_ih"].shape[0],
        TASKS=tasks,
        WIDEI_AT=memory.take(roles["w_ih"].size * 4),
        WIDEH_AT=memory.take(roles["w_hh"].size * 4),
    )
    return [(address_of_task(widen_task(lanes), (lanes,), "bfloat16 weights"), tasks)]


def fill(block: NDArray[np.int64], **values: Any) -> None:
    """Sets words by name."""
    for name, value in values.items():
        block[words.WORD[name]] = int(value)
