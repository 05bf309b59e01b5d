"""Pooling as functions of Arrays, with the names, defaults and shapes of torch.nn.functional.

What users may write for kernel_size, stride, padding and dilation (a number, one for each axis, pairs) is
brought here into the one form that the ops take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from operator import index
from typing import Any

from ...kernels.errors import ShapeError
from ...kernels.pool.op import AVG_POOL, MAX_POOL, MAX_POOL_INDICES
from ...kernels.pool.windows import parts
from ..array import Array, asarray
from ..eager import Operand, call, call_all
from .prepared import Prepared, prepared_by
from .shape import reshape

Steps = int | Sequence[int]
Places = int | Sequence[int | None] | None


def max_pool1d(
    x: Operand,
    kernel_size: Steps,
    stride: Steps | None = None,
    padding: Any = 0,
    dilation: Steps = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """The largest element of each window of sequences x: [N, C, L]; everything else as for `max_pool2d`."""
    return _max(1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool2d(
    x: Operand,
    kernel_size: Steps,
    stride: Steps | None = None,
    padding: Any = 0,
    dilation: Steps = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """The largest element of each window, as torch.nn.functional.max_pool2d.

    Args:
        x: images [N, C, H, W], or [N, H, W, C] with layout="NHWC"; one image without N works too. float32,
            float64, bfloat16 or float16; any strides.
        kernel_size: of the windows: one number, or one for each spatial axis.
        stride: from one window to the next; kernel_size unless given.
        padding: elements of minus infinity around the image: one number, one for each axis, or a pair
            (before, after) for each; at most half of the kernel.
        dilation: from one element of a window to the next.
        ceil_mode: a last window that starts inside but reaches outside counts.
        return_indices: return (y, indices): the place of each element in its image, counted in rows, int64.
        layout: "NCHW" or "NHWC".

    Returns:
        y: [N, C, *P] or [N, *P, C]. Of equal elements the first is taken; a NaN is larger than any number.

    Raises:
        ShapeError: for shapes or windows that do not fit.
        DTypeError: for another dtype, or an x that is no array.
        ConfigError: for an unknown layout.
    """
    return _max(2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def max_pool3d(
    x: Operand,
    kernel_size: Steps,
    stride: Steps | None = None,
    padding: Any = 0,
    dilation: Steps = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    layout: str = "NCHW",
) -> Any:
    """The largest element of each window of volumes x: [N, C, D, H, W]; all else as for `max_pool2d`."""
    return _max(3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, layout)


def avg_pool1d(
    x: Operand,
    kernel_size: Steps,
    stride: Steps | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    layout: str = "NCHW",
    out: Operand | None = None,
) -> Array:
    """The mean of each window of sequences x: [N, C, L]; everything else as for `avg_pool2d`."""
    return _avg(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None, layout, out)


def avg_pool2d(
    x: Operand,
    kernel_size: Steps,
    stride: Steps | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
    out: Operand | None = None,
) -> Array:
    """The mean of each window, as torch.nn.functional.avg_pool2d.

    Args:
        x, kernel_size, stride, ceil_mode, layout: as for `max_pool2d`.
        padding: zeros around the image.
        count_include_pad: whether padding counts among the elements that a sum is divided by.
        divisor_override: divide by this whole number instead.
        out: where y goes; shaped like y, sharing no memory with x.

    Returns:
        y: [N, C, *P] or [N, *P, C].

    Raises:
        ShapeError, DTypeError, ConfigError: as `max_pool2d`.
        LayoutError, OverlapError: for an out that cannot be written, or shares memory with x.
    """
    return _avg(
        2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout, out
    )


def avg_pool3d(
    x: Operand,
    kernel_size: Steps,
    stride: Steps | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    layout: str = "NCHW",
    out: Operand | None = None,
) -> Array:
    """The mean of each window of volumes x: [N, C, D, H, W]; all else as for `avg_pool2d`."""
    return _avg(
        3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout, out
    )


def adaptive_avg_pool1d(x: Operand, output_size: Places, *, layout: str = "NCHW") -> Array:
    """Means of sequences x: [N, C, L] in windows that give a result of output_size."""
    return _adaptive_avg(1, x, output_size, layout)


def adaptive_avg_pool2d(x: Operand, output_size: Places, *, layout: str = "NCHW") -> Array:
    """The means of windows chosen to give a result of `output_size`, as torch.nn.functional's function.

    Args:
        x, layout: as for `max_pool2d`.
        output_size: one number, or one for each axis; None keeps the image's own. Output o of p sees the
            elements floor(o n / p) to ceil((o + 1) n / p) of n.

    Raises:
        ShapeError, DTypeError, ConfigError: as `max_pool2d`.
    """
    return _adaptive_avg(2, x, output_size, layout)


def adaptive_avg_pool3d(x: Operand, output_size: Places, *, layout: str = "NCHW") -> Array:
    """Means of volumes x: [N, C, D, H, W] in windows that give a result of output_size."""
    return _adaptive_avg(3, x, output_size, layout)


def adaptive_max_pool1d(
    x: Operand, output_size: Places, return_indices: bool = False, *, layout: str = "NCHW"
) -> Any:
    """The largest elements of sequences x: [N, C, L], in the windows of `adaptive_avg_pool1d`."""
    return _adaptive_max(1, x, output_size, return_indices, layout)


def adaptive_max_pool2d(
    x: Operand, output_size: Places, return_indices: bool = False, *, layout: str = "NCHW"
) -> Any:
    """The largest element of each window of `adaptive_avg_pool2d`; return_indices as in `max_pool2d`."""
    return _adaptive_max(2, x, output_size, return_indices, layout)


def adaptive_max_pool3d(
    x: Operand, output_size: Places, return_indices: bool = False, *, layout: str = "NCHW"
) -> Any:
    """The largest elements of volumes x: [N, C, D, H, W], in the windows of `adaptive_avg_pool3d`."""
    return _adaptive_max(3, x, output_size, return_indices, layout)


def lp_pool1d(
    x: Operand, norm_type: float, kernel_size: Steps, stride: Steps | None = None, ceil_mode: bool = False
) -> Array:
    """The power mean of sequences x: [N, C, L], as `lp_pool2d`."""
    return _power(1, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    x: Operand, norm_type: float, kernel_size: Steps, stride: Steps | None = None, ceil_mode: bool = False
) -> Array:
    """(the sum of x^p over each window)^(1 / p), p = norm_type, as torch.nn.functional.lp_pool2d.

    Sums below 0 keep their sign, as there. The other arguments are those of `avg_pool2d`.
    """
    return _power(2, x, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    x: Operand, norm_type: float, kernel_size: Steps, stride: Steps | None = None, ceil_mode: bool = False
) -> Array:
    """The power mean of volumes x: [N, C, D, H, W], as `lp_pool2d`."""
    return _power(3, x, norm_type, kernel_size, stride, ceil_mode)


def _power(axes: int, x: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Array:
    from .pointwise import abs, relu, sign

    powers: Any = asarray(x) ** float(norm_type)
    taps = _steps(f"lp_pool{axes}d", "kernel_size", _hashable(kernel_size), axes, 1)
    means: Any = _avg(axes, powers, taps, stride, 0, ceil_mode, True, None, "NCHW")
    result: Array = (sign(means) * relu(abs(means)) * float(prod(taps))) ** (1.0 / norm_type)
    return result


def _max(
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
    layout: str,
) -> Any:
    given = (kernel_size, stride, padding, dilation)
    try:
        attrs = _max_attrs(axes, *given, ceil_mode, layout)
    except TypeError:  # lists
        attrs = _max_attrs(axes, *map(_hashable, given), ceil_mode, layout)
    return _largest(f"max_pool{axes}d", axes, x, attrs, return_indices)


@lru_cache(maxsize=1024)
def _max_attrs(
    axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, layout: Any
) -> dict[str, Any]:
    """The attributes of max_pool; whoever gets them leaves them as they are."""
    window = _window(f"max_pool{axes}d", axes, kernel_size, stride, padding, dilation)
    return {**window, "ceil_mode": bool(ceil_mode), "layout": layout}


@lru_cache(maxsize=1024)
def _avg_attrs(
    axes: int,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: Any,
    count_include_pad: Any,
    divisor_override: Any,
    layout: Any,
) -> dict[str, Any]:
    """The attributes of avg_pool; whoever gets them leaves them as they are."""
    window = _window(f"avg_pool{axes}d", axes, kernel_size, stride, padding, 1)
    del window["dilation"]
    flags = {"ceil_mode": bool(ceil_mode), "count_include_pad": bool(count_include_pad)}
    return {**window, **flags, "divisor_override": divisor_override, "layout": layout}


def _adaptive_max(axes: int, x: Any, output_size: Any, return_indices: bool, layout: str) -> Any:
    name = f"adaptive_max_pool{axes}d"
    x, single = _batched(name, axes, x)
    attrs = {"output_size": _places(name, axes, x, output_size, layout), "layout": layout}
    result = _largest(name, axes, x, attrs, return_indices)
    return _unbatched(result, single)


def _largest(name: str, axes: int, x: Any, attrs: dict[str, Any], return_indices: bool) -> Any:
    x, single = _batched(name, axes, x)
    y, taps = call_all(MAX_POOL, (x,), attrs)
    if not return_indices:
        return _unbatched(y, single)
    size = parts(attrs["layout"], tuple(x.shape), name)[2]
    return _unbatched((y, call(MAX_POOL_INDICES, (taps,), {**attrs, "input_size": size})), single)


def _avg(
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    layout: str,
    out: Any = None,
) -> Array:
    x, single = _batched(f"avg_pool{axes}d", axes, x)
    op, inputs, attrs = _prepare_avg(
        axes, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, layout
    )
    if single and out is not None:
        into = asarray(out)
        call(op, inputs, attrs, reshape(into, (1, *into.shape)))
        return into
    result: Array = _unbatched(call(op, inputs, attrs, out), single)
    return result


def _adaptive_avg(axes: int, x: Any, output_size: Any, layout: str) -> Array:
    name = f"adaptive_avg_pool{axes}d"
    x, single = _batched(name, axes, x)
    attrs = {"output_size": _places(name, axes, x, output_size, layout), "layout": layout}
    result: Array = _unbatched(call(AVG_POOL, (x,), attrs), single)
    return result


def _prepare_avg(
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    layout: str = "NCHW",
) -> Prepared:
    given = (kernel_size, stride, padding)
    rest = (ceil_mode, count_include_pad, divisor_override, layout)
    try:
        attrs = _avg_attrs(axes, *given, *rest)
    except TypeError:  # lists
        attrs = _avg_attrs(axes, *map(_hashable, given), *rest)
    return AVG_POOL, (x,), attrs


def _prepare_max(
    axes: int,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
) -> Prepared:
    given = map(_hashable, (kernel_size, stride, padding, dilation))
    return MAX_POOL, (x,), _max_attrs(axes, *given, ceil_mode, layout)


def _batched(name: str, axes: int, x: Any) -> tuple[Any, bool]:
    """x with a batch axis, and whether it had none."""
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) == axes + 2:
        return x, False  # what is no array is refused later
    if len(shape) == axes + 1:
        return reshape(x, (1, *shape)), True
    right = f" Write {name[:-2]}{len(shape) - 2}d." if 3 <= len(shape) <= 5 else ""
    raise ShapeError(
        f"{name}: x must have {axes + 2} axes, a batch of images with {axes} spatial axes (or {axes + 1}, "
        f"one image), got shape {tuple(shape)}.{right}"
    )


def _unbatched(result: Any, single: bool) -> Any:
    if not single:
        return result
    if isinstance(result, tuple):
        return tuple(_unbatched(one, single) for one in result)
    return reshape(result, tuple(result.shape)[1:])


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(part) for part in value)
    return value


def _window(
    name: str, axes: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> dict[str, Any]:
    taps = _steps(name, "kernel_size", kernel_size, axes, 1)
    empty = stride is None or stride == ()
    return {
        "kernel_size": taps,
        "stride": taps if empty else _steps(name, "stride", stride, axes, 1),
        "padding": _pairs(name, padding, axes),
        "dilation": _steps(name, "dilation", dilation, axes, 1),
    }


def _steps(name: str, what: str, value: Any, axes: int, least: int) -> tuple[int, ...]:
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


def _pairs(name: str, padding: Any, axes: int) -> tuple[tuple[int, int], ...]:
    """Padding in any of its forms as a pair for each axis."""
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
            f"{name}: padding is a whole number of 0 or more, one for each of {axes} spatial axes, or a pair "
            f"(before, after) for each, got {padding!r}."
        )
    return pairs


def _places(name: str, axes: int, x: Any, output_size: Any, layout: str) -> tuple[int, ...]:
    """output_size as a number for each axis; None stands for the image's own."""
    shape = getattr(x, "shape", None)
    size = (0,) * axes if shape is None else parts(layout, tuple(shape), name)[2]
    given = _hashable(output_size)
    wanted = given if isinstance(given, tuple) else (given,) * axes
    if len(wanted) == 1:
        wanted *= axes
    try:
        places = tuple(n if p is None else index(p) for n, p in zip(size, wanted, strict=True))
    except (TypeError, ValueError):
        places = ()
    if len(places) != axes or min(places) < 0:
        raise ShapeError(
            f"{name}: output_size is a whole number of 0 or more, or one (or None) for each of {axes} "
            f"spatial axes, got {output_size!r}."
        )
    return places


_functions: list[tuple[Any, Callable[..., Prepared], int]] = [
    *(
        (function, _prepare_max, axes)
        for axes, function in enumerate((max_pool1d, max_pool2d, max_pool3d), 1)
    ),
    *(
        (function, _prepare_avg, axes)
        for axes, function in enumerate((avg_pool1d, avg_pool2d, avg_pool3d), 1)
    ),
]
for _function, _of, _rank in _functions:
    _function.prepare = prepared_by(_of, _rank)
