"""New Arrays of known numbers: zeros, ones, full, arange, linspace, eye, and the same like another Array.

Inside a traced function they are constants, wherever its values are. Numbers without a dtype are float32,
whole numbers int64, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from ...kernels.errors import ConfigError, DTypeError, ShapeError
from ...kernels.spec import dtype_name, np_dtype
from ..array import Array, asarray
from ..eager import Operand
from ..trace import active_trace

Shape = int | Sequence[int]
Number = bool | int | float


def zeros(*shape: Any, dtype: Any = "float32", device: str | None = None) -> Array:
    """Zeros: `kw.zeros((2, 3))` or `kw.zeros(2, 3)`.

    Raises:
        ShapeError: for a shape that is none.
        DTypeError, DeviceError: for an unknown dtype or device.
    """
    lengths, kind = _shape("zeros", shape, dtype)
    return _made(np.zeros(lengths, np_dtype(dtype_name(kind))), device)


def ones(*shape: Any, dtype: Any = "float32", device: str | None = None) -> Array:
    """Ones; arguments and errors as for `zeros`."""
    lengths, kind = _shape("ones", shape, dtype)
    return _made(np.ones(lengths, np_dtype(dtype_name(kind))), device)


def full(shape: Shape, fill_value: Number, dtype: Any = None, device: str | None = None) -> Array:
    """One number everywhere, of its own dtype (float32, int64 or bool) unless another is given."""
    lengths, _ = _shape("full", (shape,), None)
    kind = _kind(fill_value) if dtype is None else dtype_name(dtype)
    return _made(np.full(lengths, fill_value, np_dtype(kind)), device)


def zeros_like(x: Operand, dtype: Any = None) -> Array:
    """Zeros of x's shape, on its device, and of its dtype unless another is given."""
    return zeros(_shape_of("zeros_like", x), dtype=x.dtype if dtype is None else dtype, device=place_of(x))


def ones_like(x: Operand, dtype: Any = None) -> Array:
    """Ones of x's shape, on its device, and of its dtype unless another is given."""
    return ones(_shape_of("ones_like", x), dtype=x.dtype if dtype is None else dtype, device=place_of(x))


def full_like(x: Operand, fill_value: Number, dtype: Any = None) -> Array:
    """One number everywhere in x's shape, on its device, of x's dtype unless another is given."""
    return full(_shape_of("full_like", x), fill_value, x.dtype if dtype is None else dtype, place_of(x))


def arange(
    start: Number, stop: Number | None = None, step: Number = 1, dtype: Any = None, device: str | None = None
) -> Array:
    """start, start + step, ... as far as they are below stop (above it for a negative step), as np.arange.

    `kw.arange(n)` starts at 0. int64 of whole numbers, else float32, unless a dtype is given.

    Raises:
        ConfigError: for a step of 0, or limits that are not finite.
    """
    if stop is None:
        start, stop = 0, start
    values = (start, stop, step)
    if not all(isinstance(v, int | float | np.number) and math.isfinite(v) for v in values) or step == 0:
        raise ConfigError(f"arange: start, stop and step are finite numbers, step not 0, got {values}.")
    kind = "float32" if any(isinstance(v, float | np.floating) for v in values) else "int64"
    wide = np.arange(start, stop, step)
    return _made(wide.astype(np_dtype(kind if dtype is None else dtype_name(dtype))), device)


def linspace(
    start: float,
    stop: float,
    num: int,
    dtype: Any = "float32",
    device: str | None = None,
    *,
    endpoint: bool = True,
) -> Array:
    """`num` numbers at equal distances from start to stop, stop itself included unless endpoint is False."""
    count = index(num)
    if count < 0:
        raise ShapeError(f"linspace: num is 0 or more, got {num}.")
    wide = np.linspace(start, stop, count, endpoint=endpoint)
    return _made(wide.astype(np_dtype(dtype_name(dtype))), device)


def eye(n: int, m: int | None = None, k: int = 0, dtype: Any = "float32", device: str | None = None) -> Array:
    """[n, m] (m = n unless given) with ones on diagonal k and zeros elsewhere, as np.eye."""
    return _made(
        np.eye(index(n), None if m is None else index(m), index(k), np_dtype(dtype_name(dtype))), device
    )


def _made(data: Any, device: str | None) -> Array:
    made = Array(np.ascontiguousarray(data).reshape(data.shape))
    if device is None or device == "cpu":
        return made
    trace = active_trace()
    if trace is not None and trace.device in (device, f"{device}:0"):
        return made  # a constant of the graph, which the plan takes to its device
    return asarray(made, device=device)


def place_of(x: Any) -> str | None:
    """Where something like `x` goes: to its GPU; in a traced function it is a constant."""
    return x.device if isinstance(x, Array) and x.on_cuda else None


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int64"
    if isinstance(value, float | np.floating):
        return "float32"
    raise DTypeError(f"full: fill_value is a number, got {type(value).__name__}.")


def _shape(name: str, given: Any, dtype: Any) -> tuple[tuple[int, ...], Any]:
    """The lengths, as one sequence or one after the other; and the dtype, which may stand behind them."""
    if len(given) == 2 and not hasattr(given[0], "__index__") and not hasattr(given[1], "__index__"):
        given, dtype = given[:1], given[1]  # zeros((2, 3), "float64"), as in NumPy
    values = given[0] if len(given) == 1 and not hasattr(given[0], "__index__") else given
    try:
        lengths = tuple(map(index, values))
    except TypeError:
        lengths = (-1,)
    if any(length < 0 for length in lengths):
        raise ShapeError(f"{name}: a shape is a tuple of lengths of 0 or more such as (2, 3), got {given!r}.")
    return lengths, dtype


def _shape_of(name: str, x: Any) -> tuple[int, ...]:
    shape = getattr(x, "shape", None)
    if shape is None:
        raise DTypeError(f"{name}: x is an Array or a NumPy array, got {type(x).__name__}.")
    return tuple(shape)
