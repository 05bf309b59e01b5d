"""Convolutions as functions of Arrays, with the names, defaults and shapes of torch.nn.functional.

What users may write for stride, padding and dilation (a number, one for each axis, pairs, "same") is brought
here into the one form that the ops take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import index
from typing import Any

from ...kernels.conv.geometry import Ints, Pairs, parts, transposed_size
from ...kernels.conv.op import CONV, CONV_INPUT_GRAD
from ...kernels.errors import ShapeError
from ...kernels.prepack import Packed
from ..array import Array
from ..eager import Operand, call
from .prepared import Prepared, prepared_by

Steps = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]
Weight = Operand | Packed

_WORDS = {1: "conv1d", 2: "conv2d", 3: "conv3d"}


def conv1d(
    x: Operand,
    w: Weight,
    b: Operand | None = None,
    stride: Steps = 1,
    padding: Padding = 0,
    dilation: Steps = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    *,
    residual: Operand | None = None,
    out: Operand | None = None,
) -> Array:
    """Convolution of sequences x: [N, C, L], or [N, L, C] with layout="NHWC", with w: [O, C / groups, K].

    Everything else is as for `conv2d`.
    """
    op, inputs, attrs = _prepare(1, x, w, b, stride, padding, dilation, groups, layout, activation, residual)
    return call(op, inputs, attrs, out)


def conv2d(
    x: Operand,
    w: Weight,
    b: Operand | None = None,
    stride: Steps = 1,
    padding: Padding = 0,
    dilation: Steps = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    *,
    residual: Operand | None = None,
    out: Operand | None = None,
) -> Array:
    """y = activation(x * w + b + residual), `*` being the cross-correlation of torch.nn.functional.conv2d.

    Args:
        x: images [N, C, H, W], or [N, H, W, C] with layout="NHWC"; float32, float64 or bfloat16, any strides.
        w: [O, C / groups, KH, KW] in both layouts, or what `prepack("conv", w, groups=groups,
            layout=layout)` made of it.
        b: [O], or None.
        stride, dilation: one number, or one for each axis.
        padding: zeros around the image: one number, one for each axis, a pair (before, after) for each axis,
            "valid" for none, or "same" for an output of the image's size, as PyTorch has them.
        groups: channels and filters are split into as many groups, each filter sees its own.
        layout: "NCHW" or "NHWC", of x, residual and y.
        activation: None, "relu", "gelu", "gelu_tanh", "sigmoid", "tanh" or "silu".
        residual: added before the activation; of y's shape.
        out: where y goes.

    Returns:
        y: [N, O, *P] or [N, *P, O] with P = (H + padding - dilation (KH - 1) - 1) // stride + 1.

    Raises:
        ShapeError: for shapes, strides, paddings or groups that do not fit.
        DTypeError: for other or mixed dtypes, an unknown activation, or an operand that is no array.
        LayoutError, OverlapError: for an out that cannot be written, or shares memory with an input.
    """
    op, inputs, attrs = _prepare(2, x, w, b, stride, padding, dilation, groups, layout, activation, residual)
    return call(op, inputs, attrs, out)


def conv3d(
    x: Operand,
    w: Weight,
    b: Operand | None = None,
    stride: Steps = 1,
    padding: Padding = 0,
    dilation: Steps = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    *,
    residual: Operand | None = None,
    out: Operand | None = None,
) -> Array:
    """Convolution of volumes x: [N, C, D, H, W], or [N, D, H, W, C] with layout="NHWC", with
    w: [O, C / groups, KD, KH, KW].

    Everything else is as for `conv2d`.
    """
    op, inputs, attrs = _prepare(3, x, w, b, stride, padding, dilation, groups, layout, activation, residual)
    return call(op, inputs, attrs, out)


def conv_transpose1d(
    x: Operand,
    w: Operand,
    b: Operand | None = None,
    stride: Steps = 1,
    padding: Padding = 0,
    output_padding: Steps = 0,
    groups: int = 1,
    dilation: Steps = 1,
    layout: str = "NCHW",
    *,
    out: Operand | None = None,
) -> Array:
    """Transposed convolution of sequences x: [N, C, L]; as `conv_transpose2d`."""
    op, inputs, attrs = _transposed(1, x, w, b, stride, padding, output_padding, groups, dilation, layout)
    return call(op, inputs, attrs, out)


def conv_transpose2d(
    x: Operand,
    w: Operand,
    b: Operand | None = None,
    stride: Steps = 1,
    padding: Padding = 0,
    output_padding: Steps = 0,
    groups: int = 1,
    dilation: Steps = 1,
    layout: str = "NCHW",
    *,
    out: Operand | None = None,
) -> Array:
    """Transposed convolution: the gradient of conv2d for its input, as torch.nn.functional.conv_transpose2d.

    Args:
        x: images [N, C, H, W], or [N, H, W, C] with layout="NHWC"; float32, float64 or bfloat16.
        w: [C, O / groups, KH, KW].
        b: [O], or None.
        stride, dilation: one number, or one for each axis.
        padding: what the conv had: one number, one for each axis, or a pair (before, after) for each axis.
        output_padding: rows and columns added at the end of the output, which a conv with this stride would
            skip; smaller than the stride or the dilation.
        groups, layout, out: as for `conv2d`.

    Returns:
        [N, O, *P] or [N, *P, O] with P = (H - 1) stride - padding + dilation (KH - 1) + output_padding + 1.

    Raises:
        ShapeError, DTypeError, LayoutError, OverlapError: as `conv2d`.
    """
    op, inputs, attrs = _transposed(2, x, w, b, stride, padding, output_padding, groups, dilation, layout)
    return call(op, inputs, attrs, out)


def conv_transpose3d(
    x: Operand,
    w: Operand,
    b: Operand | None = None,
    stride: Steps = 1,
    padding: Padding = 0,
    output_padding: Steps = 0,
    groups: int = 1,
    dilation: Steps = 1,
    layout: str = "NCHW",
    *,
    out: Operand | None = None,
) -> Array:
    """Transposed convolution of volumes x: [N, C, D, H, W]; as `conv_transpose2d`."""
    op, inputs, attrs = _transposed(3, x, w, b, stride, padding, output_padding, groups, dilation, layout)
    return call(op, inputs, attrs, out)


def _prepare(
    axes: int,
    x: Any,
    w: Any,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NCHW",
    activation: str | None = None,
    residual: Any = None,
) -> Prepared:
    """The op, its inputs and its attributes for a call of conv1d, conv2d or conv3d."""
    name = _WORDS[axes]
    packed = w if isinstance(w, Packed) else None
    shape = tuple(w.shape) if hasattr(w, "shape") else ()
    _check_axes(name, x, axes)
    attrs = {
        **_window(name, axes, shape[2:], _hashable(stride), _hashable(padding), _hashable(dilation)),
        "groups": groups,
        "layout": layout,
        "activation": activation,
    }
    if packed is not None:
        attrs |= {"w_format": packed.format, "w_shape": packed.shape}
        w = packed.data
    return CONV, (x, w, b, residual), attrs


def _transposed(
    axes: int,
    x: Any,
    w: Any,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    layout: str = "NCHW",
) -> Prepared:
    """The op, its inputs and its attributes for a call of conv_transpose1d, 2d or 3d."""
    name = f"conv_transpose{axes}d"
    _check_axes(name, x, axes)
    if isinstance(padding, str):
        raise ShapeError(
            f"{name}: padding must be given in numbers, got {padding!r}; 'same' says nothing here."
        )
    window = _window(name, axes, (), _hashable(stride), _hashable(padding), _hashable(dilation))
    attrs = {**window, "groups": groups, "layout": layout}
    shape = getattr(x, "shape", ())
    taps = getattr(w, "shape", ())[2:]
    if len(shape) != axes + 2 or len(taps) != axes or layout not in ("NCHW", "NHWC"):
        return CONV_INPUT_GRAD, (x, w, b), attrs  # infer says what is wrong
    extra = _steps(name, "output_padding", _hashable(output_padding), axes, 0)
    steps, dilated = window["stride"], window["dilation"]
    if any(more >= max(pair) for more, *pair in zip(extra, steps, dilated, strict=True)):
        raise ShapeError(
            f"{name}: output_padding {extra} must be smaller than the stride {steps} or the dilation "
            f"{dilated} on each axis."
        )
    size = parts(layout, shape)[2]
    attrs["input_size"] = tuple(
        map(transposed_size, size, taps, window["stride"], window["padding"], window["dilation"], extra)
    )
    if min(attrs["input_size"]) < 1:
        raise ShapeError(
            f"{name}: x of {size} with filters of {tuple(taps)} and padding {window['padding']} leaves an "
            f"output of {attrs['input_size']}; use less padding."
        )
    # Whole steps of output_padding are elements that the conv of this gradient does not come to read.
    attrs["padding"] = tuple(
        (low, high - more // step * step)
        for (low, high), more, step in zip(window["padding"], extra, steps, strict=True)
    )
    return CONV_INPUT_GRAD, (x, w, b), attrs


def _check_axes(name: str, x: Any, axes: int) -> None:
    shape = getattr(x, "shape", None)
    if shape is not None and len(shape) != axes + 2:
        right = f" Write {name[:-2]}{len(shape) - 2}d." if 3 <= len(shape) <= 5 else ""
        single = f" For a single image write {name}(x[None], ...)[0]." if len(shape) == axes + 1 else ""
        raise ShapeError(
            f"{name}: x must have {axes + 2} axes, a batch of images with {axes} spatial axes, got shape "
            f"{tuple(shape)}.{right}{single}"
        )


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(part) for part in value)
    return value


@lru_cache(maxsize=1024)
def _window(name: str, axes: int, taps: Ints, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    steps = _steps(name, "stride", stride, axes, 1)
    dilated = _steps(name, "dilation", dilation, axes, 1)
    return {
        "stride": steps,
        "padding": _pairs(name, padding, axes, taps, steps, dilated),
        "dilation": dilated,
    }


def _steps(name: str, what: str, value: Any, axes: int, least: int) -> Ints:
    try:
        steps = tuple(map(index, value)) if isinstance(value, tuple) else (index(value),) * axes
    except TypeError:
        steps = ()
    if len(steps) == 1:
        steps *= axes
    if len(steps) != axes or min(steps) < least:
        raise ShapeError(
            f"{name}: {what} is a whole number of {least} or more, or one for each of {axes} spatial axes, "
            f"got {value!r}."
        )
    return steps


def _pairs(name: str, padding: Any, axes: int, taps: Ints, stride: Ints, dilation: Ints) -> Pairs:
    """Padding in any of its forms as a pair for each axis."""
    if padding == "valid":
        return ((0, 0),) * axes
    if padding == "same":
        if max(stride) > 1:
            raise ShapeError(
                f"{name}: padding='same' needs a stride of 1, got {stride}; with a larger one give numbers."
            )
        around = [step * (count - 1) for step, count in zip(dilation, taps, strict=False)]
        return tuple((total // 2, total - total // 2) for total in around)
    try:
        if isinstance(padding, tuple) and any(isinstance(part, tuple) for part in padding):
            pairs = tuple((index(low), index(high)) for low, high in padding)
        elif isinstance(padding, tuple):
            pairs = tuple((index(side), index(side)) for side in padding)
        else:
            pairs = ((index(padding), index(padding)),)
    except (TypeError, ValueError):
        pairs = ()
    if len(pairs) == 1:
        pairs *= axes
    if len(pairs) != axes or any(side < 0 for pair in pairs for side in pair):
        raise ShapeError(
            f"{name}: padding is a whole number of 0 or more, one for each of {axes} spatial axes, a pair "
            f"(before, after) for each, 'same' or 'valid', got {padding!r}."
        )
    return pairs


_functions: list[tuple[Any, Callable[..., Prepared], int]] = [
    *((function, _prepare, axes) for axes, function in enumerate((conv1d, conv2d, conv3d), 1)),
    *(
        (function, _transposed, axes)
        for axes, function in enumerate((conv_transpose1d, conv_transpose2d, conv_transpose3d), 1)
    ),
]
for _function, _of, _rank in _functions:
    _function.prepare = prepared_by(_of, _rank)
