"""Weights of `linear` in the order in which its register tiles read them.

    w: [out, in]  ->  panels of `width` rows, zeros after the last, each: [in, width]

`panels<width>`: for float32 and float64, and for 16-bit numbers that are widened when they are read;
`pairs<width>`: bfloat16, with two neighbours along `in` side by side, for the instructions that take such
pairs; an odd `in` ends with zeros. The width is that of the register tile on the machine that packs.
"""

from __future__ import annotations

import re

import numpy as np

from ..cpu.cycles import ceil_div
from ..errors import ConfigError, DTypeError, ShapeError
from ..machine import machine, many_registers, vector_bytes
from ..op import AnyArray
from ..prepack import Packed
from ..spec import dtype_name
from .registers import PANEL_VECTORS, pairs_problem

_FORMAT = re.compile(r"(panels|pairs)([1-9]\d*)")
_DTYPES = ("float32", "float64", "bfloat16", "float16")


def format_for(dtype: str) -> str:
    """The format that weights of `dtype` get on this machine."""
    lanes = vector_bytes() // (8 if dtype == "float64" else 4)
    kind = "pairs" if dtype == "bfloat16" and pairs_problem(machine()) is None else "panels"
    return f"{kind}{PANEL_VECTORS[many_registers()] * lanes}"


def parsed(w_format: str) -> tuple[int, int]:
    """(columns in a panel, how many of k are side by side) of a format.

    Raises:
        ConfigError: for a format that there is not.
    """
    found = _FORMAT.fullmatch(w_format)
    if found is None:
        raise ConfigError(
            f"linear: w_format is {w_format!r}; it comes from kernels.prepack.prepack('linear', w)."
        )
    return int(found[2]), 2 if found[1] == "pairs" else 1


def packed_size(w_format: str, w_shape: tuple[int, ...]) -> int:
    """How many elements a packed weight has.

    Raises:
        ConfigError: for an unknown format.
        ShapeError: when `w_shape` has not two lengths.
    """
    width, group = parsed(w_format)
    if len(w_shape) != 2:
        raise ShapeError(f"linear: w_shape is {w_shape}; it is the (out, in) of the weight that was packed.")
    out, inner = w_shape
    return ceil_div(out, width) * width * ceil_div(inner, group) * group


def prepack(op: str, weight: AnyArray) -> Packed:
    """`weight` [out, in] packed for `op`, which is "linear".

    Raises:
        DTypeError: for another op, or a dtype that it does not take.
        ShapeError: when the weight has not two axes.
    """
    if op != "linear":
        raise DTypeError(f"{op} takes no packed weights; pass the weight itself, or use linear.")
    dtype = dtype_name(weight.dtype)
    if dtype not in _DTYPES:
        raise DTypeError(f"linear takes {', '.join(_DTYPES)}, and the weight is {dtype}.")
    if weight.ndim != 2:
        raise ShapeError(f"linear: the weight has shape {weight.shape}; its axes are [out, in].")
    name = format_for(dtype)
    width, group = parsed(name)
    out, inner = weight.shape
    size = packed_size(name, weight.shape)
    room = np.zeros(size * weight.itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    data: AnyArray = room[start : start + size * weight.itemsize].view(weight.dtype)
    panels = data.reshape(ceil_div(out, width), ceil_div(inner, group), width, group)
    for p in range(len(panels)):
        rows = weight[p * width : (p + 1) * width]
        padded = np.zeros((width, panels.shape[1] * group), weight.dtype)
        padded[: len(rows), :inner] = rows
        panels[p] = padded.reshape(width, -1, group).transpose(1, 0, 2)
    return Packed(op, data, name, (out, inner))


def unpack(data: AnyArray, w_format: str, w_shape: tuple[int, ...]) -> AnyArray:
    """The weight [out, in] behind packed data; data itself where the format is ""."""
    if not w_format:
        return data
    width, group = parsed(w_format)
    out, inner = w_shape
    panels = data.reshape(ceil_div(out, width), ceil_div(inner, group), width, group)
    rows = panels.transpose(0, 2, 1, 3).reshape(ceil_div(out, width) * width, ceil_div(inner, group) * group)
    return np.ascontiguousarray(rows[:out, :inner])
