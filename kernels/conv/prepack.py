"""Filters packed ahead: in panels of `nr` output channels, side by side for each tap and input channel.

    w: [O, C / groups, *K]  ->  [groups, panels, taps, C / groups, nr],     panels = ceil(O / groups / nr)

Output channels past the last are zeros. The format is called `panels<nr>`. For a machine that multiplies
pairs of bfloat16, two neighbouring input channels of an output channel lie side by side: format `pairs<nr>`.
Depthwise filters, one for each channel, are packed as [taps, channels] instead: format `taps`.

Where contiguous pixels are announced (`layout="NCHW"`), the kernels read rows of W, so that w is only laid
out without gaps: format `rows`. Any format serves any call; in the other layout it is packed anew in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..machine import machine, vector_bytes
from ..op import AnyArray, get_op
from ..prepack import Packed
from ..spec import dtype_name

PREFIX = "panels"
PAIRS = "pairs"
DEPTHWISE = "taps"
ROWS = "rows"
_LINE = 64


def panel_width(format: str) -> int:
    """nr of a format; 0 for a name that is no such format."""
    for prefix in (PREFIX, PAIRS):
        digits = format.removeprefix(prefix)
        if format.startswith(prefix) and digits.isdigit():
            return int(digits)
    return 0


def prepack(op: str, weight: AnyArray, *, groups: int = 1, layout: str = "", **attrs: Any) -> Packed:
    """Pack `weight`, [O, C / groups, *K], for calls of `conv` with as many groups; other attributes are free.

    `layout` is that of most calls, "NCHW" or "NHWC"; without it, weights are packed for NHWC.

    Raises:
        DTypeError: for another op, or a dtype that conv does not take.
        ShapeError: for a weight that is none, or groups that do not divide O.
    """
    conv = get_op("conv")
    if op != "conv":
        raise DTypeError(f"{op} takes no packed weights; pass the weight itself.")
    if dtype_name(weight.dtype) not in conv.dtypes:
        raise DTypeError(f"conv takes {' or '.join(conv.dtypes)}, got a weight of {weight.dtype}.")
    if not 3 <= weight.ndim <= 5 or 0 in weight.shape:
        raise ShapeError(f"conv: a weight is [O, C / groups, *K], got shape {weight.shape}.")
    if groups < 1 or weight.shape[0] % groups:
        raise ShapeError(f"conv: groups={groups} must divide the {weight.shape[0]} output channels.")
    if weight.shape[:2] == (groups, 1):
        data = aligned(weight.size, weight.dtype)
        data.reshape(-1, groups)[...] = weight.reshape(groups, -1).T
        return Packed("conv", data, DEPTHWISE, tuple(weight.shape))
    if layout == "NCHW":
        data = aligned(weight.size, weight.dtype)
        data.reshape(weight.shape)[...] = weight
        return Packed("conv", data, ROWS, tuple(weight.shape))
    nr = best_width(weight.shape[0] // groups, weight.dtype.itemsize)
    data = aligned(packed_size(weight.shape, groups, nr), weight.dtype)
    view = data.reshape(groups, -1, prod(weight.shape[2:]), weight.shape[1], nr)
    out = weight.shape[0] // groups
    filters = weight.reshape(groups, out, weight.shape[1], -1)
    for panel in range(view.shape[1]):
        part = filters[:, panel * nr : (panel + 1) * nr]
        view[:, panel, :, :, : part.shape[1]] = part.transpose(0, 3, 2, 1)
    if not multiplies_pairs(dtype_name(weight.dtype), weight.shape[1]):
        return Packed("conv", data, f"{PREFIX}{nr}", tuple(weight.shape))
    couples = view.reshape(*view.shape[:3], -1, 2, nr)
    couples[...] = couples.swapaxes(-1, -2).reshape(couples.shape).copy()
    return Packed("conv", data, f"{PAIRS}{nr}", tuple(weight.shape))


def unpack(data: AnyArray, format: str, shape: Sequence[int], groups: int) -> AnyArray:
    """The weight that was packed.

    Raises:
        ShapeError: for an unknown format, or data of another size.
    """
    nr = panel_width(format)
    if format == DEPTHWISE and data.size == prod(shape):
        return np.ascontiguousarray(data.reshape(-1, shape[0]).T).reshape(shape)
    if format == ROWS and data.size == prod(shape):
        return data.reshape(shape)
    if not nr or data.size != packed_size(shape, groups, nr):
        raise ShapeError(
            f"conv: a weight of {data.size} numbers is none of {tuple(shape)} in format {format!r}."
        )
    view = data.reshape(groups, -1, prod(shape[2:]), shape[1], nr)
    if format.startswith(PAIRS):
        couples = view.reshape(*view.shape[:3], -1, nr, 2)
        view = couples.swapaxes(-1, -2).reshape(view.shape)
    wide = view.transpose(0, 1, 4, 3, 2).reshape(groups, -1, shape[1], prod(shape[2:]))
    return wide[:, : shape[0] // groups].reshape(shape)


def multiplies_pairs(dtype: str, channels: int) -> bool:
    """Whether conv multiplies pairs of channels here."""
    flags = machine().flags
    return dtype == "bfloat16" and channels % 2 == 0 and "avx512_bf16" in flags and vector_bytes() == 64


def packed_size(shape: Sequence[int], groups: int, nr: int) -> int:
    """Elements of a packed weight."""
    panels = -(-(shape[0] // groups) // nr)
    return groups * panels * nr * prod(shape[1:])


def best_width(out: int, itemsize: int) -> int:
    """Output channels a panel, for `out` channels in a group: the kernels' own choice."""
    from .tiles import best_panel

    return best_panel(out, itemsize)


def aligned(size: int, dtype: Any) -> AnyArray:
    """Zeros, 1-D, on a cache line."""
    itemsize = np.dtype(dtype).itemsize
    room = np.zeros(size * itemsize + _LINE, np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + size * itemsize].view(dtype)
