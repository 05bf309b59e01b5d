"""Filters packed ahead: in panels of `nr` output channels, side by side for each tap and input channel.

    w: [O, C / groups, *K]  ->  [groups, panels, taps, C / groups, nr],     panels = ceil(O / groups / nr)

Output channels past the last are zeros. The format is called `panels<nr>`. For a machine that multiplies
pairs of bfloat16, two neighbouring input channels of an output channel lie side by side: format `pairs<nr>`.
Depthwise filters, one for each channel, are packed as [taps, channels] instead: format `taps`.

What a Winograd convolution multiplies by can follow the panels, in panels as wide: format
`panels<nr>+winograd<m>`, for m = 2 or 4.

    U = G w G^T:  [panels, (m + 2)^2, C, nr],  with a cache line behind each [C, nr]

So the weight itself is always there: which kernel reads a packed weight is decided call by call, and a call
that allows no error beyond the standard one is computed from the panels. The price is memory: 16 / 9 or 4
times as much more.

Where contiguous pixels are announced (`layout="NCHW"`) and Winograd is none of the ways, the kernels read
rows of W, so that w is only laid out without gaps: format `rows`. Any format serves any call; in the other
layout it is packed anew in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import ConfigError, DTypeError, ShapeError
from ..machine import machine, vector_bytes
from ..op import AnyArray, get_op
from ..prepack import Packed
from ..settings import current
from ..spec import dtype_name, np_dtype

PREFIX = "panels"
PAIRS = "pairs"
DEPTHWISE = "taps"
WINOGRAD = "+winograd"
# Channels in and out from which on transformed filters are packed unasked: below, they rarely pay.
_WINOGRAD_FROM = 8
ROWS = "rows"
_LINE = 64
_APART = 16  # elements of a dtype that is computed with: a cache line or more
_START = 32  # elements of any dtype: the same


def panel_width(format: str) -> int:
    """nr of a format; 0 for a name that is no such format."""
    format = format.partition(WINOGRAD)[0]
    for prefix in (PREFIX, PAIRS):
        digits = format.removeprefix(prefix)
        if format.startswith(prefix) and digits.isdigit():
            return int(digits)
    return 0


def winograd_side(format: str) -> int:
    """m of a format with transformed filters for F(m x m, 3 x 3); 0 for one without them."""
    digits = format.partition(WINOGRAD)[2]
    return int(digits) if digits.isdigit() else 0


def panels_end(shape: Sequence[int], format: str) -> int:
    """Where what follows the panels of a format begins, in elements."""
    return -(-packed_size(shape, 1, panel_width(format)) // _START) * _START


def prepack(
    op: str, weight: AnyArray, *, groups: int = 1, layout: str = "", winograd: int | None = None, **attrs: Any
) -> Packed:
    """Pack `weight`, [O, C / groups, *K], for calls of `conv` with as many groups.

    Args:
        op: "conv".
        weight: float32, float64 or bfloat16.
        groups: of the calls.
        layout: that of most calls, "NCHW" or "NHWC"; without it, weights are packed for NHWC.
        winograd: 2 or 4 to pack the filters of F(2 x 2, 3 x 3) or F(4 x 4, 3 x 3) as well, 0 for none. Left
            out, those of F(4 x 4) are packed where `attrs` say that a Winograd kernel may compute the calls.
        attrs: further attributes of the calls. They may differ from these in the calls themselves.

    Raises:
        ConfigError: for a `winograd` that this weight cannot be packed for.
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
    attrs = {**attrs, "layout": layout}
    form, size = packed_form(weight.shape, dtype_name(weight.dtype), groups, winograd, attrs)
    data = aligned(size, weight.dtype)
    if form == DEPTHWISE:
        data.reshape(-1, groups)[...] = weight.reshape(groups, -1).T
    elif form == ROWS:
        data.reshape(weight.shape)[...] = weight
    else:
        _pack_panels(data, weight, groups, form)
    return Packed("conv", data, form, tuple(weight.shape))


def packed_form(
    shape: Sequence[int], dtype: str, groups: int, winograd: int | None, attrs: Mapping[str, Any]
) -> tuple[str, int]:
    """The format of a weight of that shape when it is packed for such calls, and how many elements it has.

    Args:
        shape, dtype: of the weight.
        groups, winograd: as `prepack` has them.
        attrs: of the calls, among them the layout.

    Raises:
        ConfigError: for a `winograd` that this weight cannot be packed for.
    """
    if tuple(shape[:2]) == (groups, 1):
        return DEPTHWISE, prod(shape)
    m = _winograd(shape, dtype, groups, winograd, attrs)
    if attrs["layout"] == "NCHW" and not m:
        return ROWS, prod(shape)
    nr = best_width(shape[0] // groups, np_dtype(dtype).itemsize)
    form = f"{PAIRS if multiplies_pairs(dtype, shape[1]) else PREFIX}{nr}"
    if not m:
        return form, packed_size(shape, groups, nr)
    form += f"{WINOGRAD}{m}"
    return form, _winograd_size(shape, form, np_dtype(dtype))


def _pack_panels(data: AnyArray, weight: AnyArray, groups: int, form: str) -> None:
    """Fill in the panels of a format, and the transformed filters behind them."""
    nr, out = panel_width(form), weight.shape[0] // groups
    panels = data[: packed_size(weight.shape, groups, nr)]
    view = panels.reshape(groups, -1, prod(weight.shape[2:]), weight.shape[1], nr)
    filters = weight.reshape(groups, out, weight.shape[1], -1)
    for panel in range(view.shape[1]):
        part = filters[:, panel * nr : (panel + 1) * nr]
        view[:, panel, :, :, : part.shape[1]] = part.transpose(0, 3, 2, 1)
    if form.startswith(PAIRS):
        couples = view.reshape(*view.shape[:3], -1, 2, nr)
        couples[...] = couples.swapaxes(-1, -2).reshape(couples.shape).copy()
    if m := winograd_side(form):
        _transform(data, weight, m, form)


def unpack(data: AnyArray, format: str, shape: Sequence[int], groups: int) -> AnyArray:
    """The weight that was packed.

    Raises:
        ShapeError: for an unknown format, or data of another size.
    """
    nr, m = panel_width(format), winograd_side(format)
    # An oracle reads a weight of bfloat16 as float64: as many numbers as 16 bits each would take.
    kinds = (data.dtype, "float16") if data.dtype == np.float64 else (data.dtype,)
    if m and data.size in {_winograd_size(shape, format, kind) for kind in kinds}:
        data = data[: packed_size(shape, groups, nr)]
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


def _winograd(
    shape: Sequence[int], dtype: str, groups: int, asked: int | None, attrs: Mapping[str, Any]
) -> int:
    """m of the transformed filters to pack, or 0."""
    fits = tuple(shape[2:]) == (3, 3) and groups == 1
    if asked:
        from .tasks.winograd_transform import POINTS

        if asked not in POINTS or not fits:
            raise ConfigError(
                f"conv: winograd={asked!r} for a weight of {dtype}{list(shape)} with "
                f"groups={groups}; it is 2 or 4, for 3 x 3 filters of one group."
            )
        return asked
    if asked == 0 or not fits or not current().allows_extra_error(dtype):
        return 0
    dense = all(step == 1 for name in ("stride", "dilation") for step in attrs.get(name, ()))
    large = min(shape[:2]) >= _WINOGRAD_FROM
    return 4 if dense and large and attrs["layout"] else 0


def _transform(data: AnyArray, weight: AnyArray, m: int, form: str) -> None:
    """The transformed filters, behind the panels."""
    from .tasks.winograd_transform import transformed_filters

    nr, (out, channels) = panel_width(form), weight.shape[:2]
    behind = data[panels_end(weight.shape, form) :].view(transformed_dtype(weight.dtype))
    rows = behind.reshape(-1, (m + 2) ** 2, transformed_row(channels, nr))
    for panel in range(len(rows)):
        part = weight[panel * nr : min(out, (panel + 1) * nr)]
        view = rows[panel, :, : channels * nr].reshape(-1, channels, nr)
        view[..., : len(part)] = transformed_filters(part, m)


def transformed_dtype(dtype: Any) -> np.dtype[Any]:
    """Of the transformed filters of a weight: those of bfloat16 are float32, in the place of two elements."""
    return np_dtype("float32") if np.dtype(dtype).itemsize < 4 else np.dtype(dtype)


def _winograd_size(shape: Sequence[int], form: str, dtype: Any) -> int:
    """Elements of panels with transformed filters behind them."""
    nr, products = panel_width(form), (winograd_side(form) + 2) ** 2
    behind = -(-shape[0] // nr) * products * transformed_row(shape[1], nr)
    return panels_end(shape, form) + behind * transformed_dtype(dtype).itemsize // np.dtype(dtype).itemsize


def transformed_row(channels: int, nr: int) -> int:
    """Elements from [C, nr] to [C, nr] of transformed filters.

    With the line in between, those of one channel do not meet in one set of a cache.
    """
    return -(-channels * nr // _APART) * _APART + _APART


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
