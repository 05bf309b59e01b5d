"""What the ops of convolution ask of a call, alike for all of them: layout, axes, groups, sizes, weights.

What does not fit is a ShapeError with the name of the op, the values, and what would fit.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Attrs
from ..spec import TensorSpec
from .geometry import LAYOUTS, MOST_AXES, Ints, output_size, window

DTYPES = ("float32", "float64", "bfloat16", "float16")
WINDOW = {"stride": (), "padding": (), "dilation": (), "groups": 1, "layout": "NCHW"}


def layout_of(name: str, attrs: Attrs) -> str:
    """The layout of a call."""
    layout = attrs["layout"]
    if layout not in LAYOUTS:
        raise ShapeError(
            f"{name}: layout must be 'NCHW' (channels first) or 'NHWC' (channels last), for any number of "
            f"spatial axes, got {layout!r}."
        )
    return str(layout)


def axes_of(name: str, what: str, spec: TensorSpec, layout: str) -> int:
    """How many spatial axes the images `what` have."""
    axes = spec.ndim - 2
    if not 1 <= axes <= MOST_AXES:
        form = "[N, C, *S]" if layout == "NCHW" else "[N, *S, C]"
        raise ShapeError(
            f"{name}: {what} must be {form} with 1 to {MOST_AXES} spatial axes, got {spec}; for a single "
            f"image write {what}[None]."
        )
    return axes


def groups_of(name: str, attrs: Attrs, channels: int, out: int) -> int:
    """The number of groups, which divides both numbers of channels."""
    groups = attrs["groups"]
    if not isinstance(groups, int) or groups < 1:
        raise ShapeError(f"{name}: groups must be a whole number of 1 or more, got {groups!r}.")
    if channels % groups or out % groups:
        raise ShapeError(
            f"{name}: groups={groups} must divide the {channels} input and {out} output channels."
        )
    return groups


def weight_shape(name: str, w: TensorSpec, attrs: Attrs) -> Ints:
    """The shape [O, C / groups, *K] of a weight that may be packed.

    Raises:
        ShapeError: for a packed weight that is no 1-D array, is too short, or comes without its shape.
    """
    if not attrs.get("w_format"):
        return w.shape
    shape = tuple(attrs["w_shape"])
    if w.ndim != 1 or len(shape) < 3 or w.size < prod(shape):
        raise ShapeError(
            f"{name}: a packed weight is a 1-D array with the shape of the weight in w_shape, got {w} and "
            f"w_shape={shape}; pass what prepack returned."
        )
    return shape


def places_of(name: str, x: TensorSpec | None, size: Ints, taps: Ints, attrs: Attrs) -> Ints:
    """The spatial sizes of the output.

    Raises:
        ShapeError: when a filter has no tap, or finds no place.
    """
    stride, padding, dilation = window(attrs, len(size), name, crops=name == "conv_input_grad")
    if min(taps) < 1:
        raise ShapeError(f"{name}: a filter needs at least one tap on each axis, got {list(taps)}.")
    places = tuple(map(output_size, size, taps, stride, padding, dilation))
    if min(places) < 1:
        axis = next(i for i, count in enumerate(places) if count < 1)
        reach = dilation[axis] * (taps[axis] - 1) + 1
        raise ShapeError(
            f"{name}: on spatial axis {axis} the filter reaches over {reach} elements ({taps[axis]} taps, "
            f"dilation {dilation[axis]}), but the image has {size[axis]} and padding {padding[axis]}; pad "
            f"more, or use a smaller filter."
        )
    return places


def unpacked(w: AnyArray, attrs: Attrs) -> AnyArray:
    """The weight of a call, which may be packed."""
    if not attrs.get("w_format"):
        return w
    from .prepack import unpack

    return unpack(w, attrs["w_format"], attrs["w_shape"], attrs["groups"])


def longer(x: AnyArray | None) -> AnyArray | None:
    """An array in long double."""
    return None if x is None else x.astype(np.longdouble)
