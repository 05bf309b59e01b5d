"""Whether two functions computed the same: their results, and what they left in their arguments.

Numbers may differ as sums in another order do: each by `atol` plus `rtol` times the largest magnitude of the
baseline's array (relative to each number itself, those that cancel to almost nothing could never agree).
Without an `rtol`, three quarters of the digits must agree: eps to the power of 3/4 of the baseline's dtype,
6e-6 for float32, 2e-12 for float64. Everything that is no floating number must be equal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...kernels.accuracy import UNIT_ROUNDOFF
from ...kernels.op import AnyArray

DIGITS = 0.75


def difference(
    found: Any, expected: Any, rtol: float | None = None, atol: float = 0.0, where: str = "the result"
) -> str | None:
    """What differs, in words; None when nothing does.

    Args:
        found, expected: numbers, strings, None, arrays (NumPy's, or what converts to them, such as tensors),
            and tuples, lists and dicts of these.
        rtol: relative to the largest magnitude of the expected array; None: by its dtype.
        atol: absolute.
        where: how the words name it.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or set(found) != set(expected):
            return f"{where} has other keys: {_short(found)} instead of {_short(expected)}"
        parts = [(found[key], expected[key], f"{where}[{key!r}]") for key in expected]
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            return f"{where} is {_short(found)} instead of {_short(expected)}"
        parts = [
            (one, other, f"{where}[{i}]") for i, (one, other) in enumerate(zip(found, expected, strict=True))
        ]
    elif is_array(expected) or isinstance(expected, int | float | complex):
        return _numbers_differ(found, expected, rtol, atol, where)
    else:
        return _objects_differ(found, expected, where)
    return next((why for part in parts if (why := difference(*part[:2], rtol, atol, part[2]))), None)


def is_array(value: Any) -> bool:
    """Whether it is an array, or converts to one."""
    return isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__")


def arrays_in(value: Any) -> Iterator[Any]:
    """The arrays in arguments: themselves, or in tuples, lists and dicts."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from arrays_in(each)
    elif is_array(value):
        yield value


def copied(value: Any) -> Any:
    """A deep copy; what can't be copied, such as a lock or a module, stands for itself."""
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(copied, value))
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    try:
        return copy.deepcopy(value)
    except Exception:  # whatever an object's own __deepcopy__ raises
        return value


def _numbers_differ(found: Any, expected: Any, rtol: float | None, atol: float, where: str) -> str | None:
    try:
        one, other = _array(found), _array(expected)
    except (TypeError, ValueError) as problem:
        return f"{where} is {_short(found)}, which is no array of numbers ({problem})"
    if one.shape != other.shape:
        return f"{where} has shape {one.shape} instead of {other.shape}"
    if not other.size:
        return None
    if other.dtype.kind in "biuSUOM" and one.dtype.kind in "biuSUOM":
        if np.array_equal(one, other):
            return None
        at = np.unravel_index(int(np.argmax(one != other)), one.shape)
        return f"{where}{_place(at)} is {one[at].item()!r} instead of {other[at].item()!r}"
    if rtol is None:
        rtol = _eps(expected, other) ** DIGITS
    a, b = _double(one), _double(other)
    finite = np.isfinite(b)
    # Numbers that are not finite must be the same: NaN for NaN, infinity for infinity of that sign.
    with np.errstate(invalid="ignore"):
        far = np.where(finite, abs(a - b), np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, math.inf))
    far = np.where(np.isnan(far), math.inf, far)
    allowed = atol + rtol * float(abs(b[finite]).max(initial=0.0))
    if (far <= allowed).all():
        return None
    at = np.unravel_index(int(np.argmax(far)), far.shape)
    return (
        f"{where}{_place(at)} is {one[at]} instead of {other[at]}; it may differ by {allowed:.2g} "
        f"(rtol={rtol:.2g} of the largest, atol={atol:g}), {int((far > allowed).sum())} of {far.size} differ "
        "by more"
    )


def _objects_differ(found: Any, expected: Any, where: str) -> str | None:
    if found is expected:
        return None
    if expected is not None and found is not None and _no_equality(expected):
        return (
            f"{where} is of {type(expected).__name__}, which can't be compared: pass "
            "check=a function of both results, or check=None"
        )
    # An array's == is no yes or no, and it is nothing that is expected here.
    same = not is_array(found) and found == expected
    return None if same else f"{where} is {_short(found)} instead of {_short(expected)}"


def _no_equality(value: Any) -> bool:
    """Whether its class has no `==` of its own, so that only the object itself is equal."""
    return getattr(type(value), "__eq__", None) is getattr(object, "__eq__", None)


def _array(value: Any) -> AnyArray:
    if hasattr(value, "detach"):  # a tensor of PyTorch, perhaps with a gradient, on a device, or of bfloat16
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError("it holds objects")
    return array


def _double(array: AnyArray) -> AnyArray:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _eps(value: Any, array: AnyArray) -> float:
    """The distance from 1 to the next number of the dtype; a tensor's own where NumPy got another."""
    name = str(getattr(value, "dtype", array.dtype)).removeprefix("torch.")
    if name not in UNIT_ROUNDOFF:  # complex numbers of two floats, and the plain ones of Python
        name = "float32" if name == "complex64" else "float64"
    return 2 * UNIT_ROUNDOFF[name]


def _place(at: tuple[Any, ...]) -> str:
    return f"[{', '.join(str(int(i)) for i in at)}]" if at else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
