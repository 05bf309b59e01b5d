"""TensorSpec: what is known of an array without its numbers. Also the dtypes of this package, by name."""

from __future__ import annotations

from math import prod
from operator import index
from threading import Lock
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from .errors import DeviceError, DTypeError, LayoutError, ShapeError, did_you_mean

SHORT_NAMES = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint64": "u64",
    "uint32": "u32",
    "uint16": "u16",
    "uint8": "u8",
    "bool": "b8",
}
"""Every dtype that ops in general take, and the short name that a printed spec shows."""

FEW_OPS_NAMES = {"float8_e4m3fn": "f8"}
"""The same for dtypes that only ops take which name them: numbers that are stored, and multiplied."""

_ALL_NAMES = {**SHORT_NAMES, **FEW_OPS_NAMES}

ABSENT_NAME = "absent"

_NP_DTYPES: dict[str, np.dtype[Any]] = {}
_NAMES: dict[np.dtype[Any], str] = {}


def np_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype called `name`; `ml_dtypes` is imported when one of its own is first asked for."""
    found = _NP_DTYPES.get(name)
    if found is None:
        if name in ("bfloat16", "float8_e4m3fn"):
            import ml_dtypes

            found = np.dtype(getattr(ml_dtypes, name))
        elif name in SHORT_NAMES:
            found = np.dtype(name)
        else:
            _refuse_dtype(name)
        _NP_DTYPES[name] = found
    return found


def dtype_name(dtype: Any) -> str:
    """The name, such as `"float32"`, of anything that names a dtype: a str, a np.dtype, np.float32, float.

    Raises:
        DTypeError: for a dtype that this package has not: complex, object, text, foreign byte order.
    """
    if isinstance(dtype, str) and dtype in _ALL_NAMES:
        return dtype
    if isinstance(dtype, np.dtype):
        known = _NAMES.get(dtype)
        if known is not None:
            return known
    try:
        found = np.dtype(dtype)
    except TypeError:
        _refuse_dtype(dtype)
    if dtype is None or found.name not in _ALL_NAMES:
        _refuse_dtype(dtype if dtype is None else found.name)
    if not found.isnative:
        raise DTypeError(
            f"dtype {found.str!r} has the byte order of another machine; write "
            f"x.astype({found.name!r}) to get it in this machine's order."
        )
    _NAMES[found] = name = str(found.name)
    return name


def _refuse_dtype(dtype: Any) -> NoReturn:
    name = str(dtype)
    if "complex" in name:
        hint = "Complex numbers are not supported; compute with x.real and x.imag."
    elif name == "object":
        hint = "It holds Python objects, not numbers; give it a dtype: np.asarray(x, dtype='float32')."
    else:
        hint = f"It must be one of {', '.join(SHORT_NAMES)}.{did_you_mean(name, SHORT_NAMES)}"
    raise DTypeError(f"dtype {name!r} is not one of this package's. {hint}")


def row_major(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The byte strides of a row-major contiguous array (axes of length 0 count as 1)."""
    strides = []
    step = itemsize
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def extent(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """The bytes `[low, high)` that an array touches, relative to the address of its first element."""
    if not prod(shape):
        return 0, 0
    reach = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + itemsize


class TensorSpec:
    """Shape, dtype, device and memory layout of an array.

    Specs are interned: two equal specs are one object, so comparing and hashing them costs what an identity
    costs.

    Args:
        shape: the length of each axis.
        dtype: a name such as `"float32"` (see `SHORT_NAMES`); anything `np.dtype` takes works.
        device: `"cpu"`, `"cuda"` or `"cuda:<number>"`.
        layout: byte strides, or None for row-major contiguous. Strides that describe a row-major contiguous
            array become None; the stride of an axis of length 1, which says nothing, is replaced by the one
            it would have were the array contiguous from there inwards.

    Raises:
        ShapeError, DTypeError, DeviceError, LayoutError: with the value, and what to write.
    """

    __slots__ = ("__weakref__", "device", "dtype", "layout", "shape")

    shape: tuple[int, ...]
    dtype: str
    device: str
    layout: tuple[int, ...] | None

    def __new__(
        cls, shape: tuple[int, ...], dtype: str, device: str = "cpu", layout: tuple[int, ...] | None = None
    ) -> TensorSpec:
        try:
            known = _SPECS.get((shape, dtype, device, layout))
        except TypeError:  # unhashable, such as a list: normalised below
            known = None
        return known if known is not None else _intern(cls, shape, dtype, device, layout)

    @classmethod
    def of(cls, array: NDArray[Any] | None, device: str = "cpu") -> TensorSpec:
        """The spec of a NumPy array; `ABSENT` for None.

        Raises:
            DTypeError: for a dtype that this package has not.
            LayoutError: for elements at unaligned addresses, such as a field of a packed record.
        """
        if array is None:
            return ABSENT
        dtype = _NAMES.get(array.dtype) or dtype_name(array.dtype)
        flags = array.flags
        if not flags.aligned:
            raise LayoutError(
                f"an array of {dtype} starts at an address that is no multiple of {array.dtype.alignment} "
                "bytes; write x.copy() to get it aligned."
            )
        if flags.c_contiguous:
            return cls(array.shape, dtype, device)
        return cls(array.shape, dtype, device, array.strides)

    @property
    def present(self) -> bool:
        """False for `ABSENT`, the spec of an optional input that was left out."""
        return self is not ABSENT

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def np_dtype(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return np_dtype(self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes in one element; 0 of `ABSENT`."""
        if self is ABSENT:
            return 0
        return np_dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes in all elements, however far apart they lie."""
        return self.size * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Byte strides, also of a row-major contiguous array."""
        return row_major(self.shape, self.itemsize) if self.layout is None else self.layout

    def empty(self) -> NDArray[Any]:
        """A new NumPy array of exactly this spec, its elements not set.

        Raises:
            DeviceError: when the device is not the CPU.
        """
        if self.device != "cpu":
            raise DeviceError(
                f"{self}.empty() makes NumPy arrays, which live on 'cpu', not on {self.device!r}."
            )
        if self.layout is None:
            return np.empty(self.shape, self.np_dtype)
        low, high = extent(self.shape, self.layout, self.itemsize)
        memory = np.empty(high - low, np.uint8)
        return np.ndarray(self.shape, self.np_dtype, memory, offset=-low, strides=self.layout)

    def __str__(self) -> str:
        if self is ABSENT:
            return "-"
        shape = ",".join(map(str, self.shape))
        layout = "" if self.layout is None else "; " + ",".join(map(str, self.layout))
        return f"{_ALL_NAMES[self.dtype]}[{shape}{layout}]@{self.device}"

    def __repr__(self) -> str:
        return f"TensorSpec({self})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"a TensorSpec is frozen; make another: TensorSpec({self.shape}, {self.dtype!r})."
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a TensorSpec is frozen.")

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        if self is ABSENT:
            return _absent, ()
        return TensorSpec, (self.shape, self.dtype, self.device, self.layout)


# Weak, so that a program which meets ever new shapes does not keep a spec for each of them.
_SPECS: WeakValueDictionary[tuple[object, ...], TensorSpec] = WeakValueDictionary()
_LOCK = Lock()


def _intern(cls: type[TensorSpec], shape: Any, dtype: Any, device: Any, layout: Any) -> TensorSpec:
    """Check and normalise the four fields, then find or make the one spec that has them."""
    shape = _lengths(shape)
    dtype = dtype_name(dtype)
    check_device(device)
    if layout is not None:
        layout = _normal_layout(shape, layout, np_dtype(dtype).itemsize)
    key = (shape, dtype, device, layout)
    with _LOCK:
        spec = _SPECS.get(key)
        if spec is None:
            spec = object.__new__(cls)
            for name, value in zip(("shape", "dtype", "device", "layout"), key, strict=True):
                object.__setattr__(spec, name, value)
            _SPECS[key] = spec
    return spec


def _lengths(shape: Any) -> tuple[int, ...]:
    try:
        lengths = tuple(index(length) for length in shape)
    except TypeError:
        raise ShapeError(f"a shape is a tuple of whole numbers such as (32, 128), got {shape!r}.") from None
    if any(length < 0 for length in lengths):
        raise ShapeError(f"the lengths of a shape are 0 or more, got {lengths}.")
    return lengths


def check_device(device: Any) -> str:
    """`device` if it is one this package knows the name of; DeviceError with the names otherwise."""
    if isinstance(device, str) and (
        device in ("cpu", "cuda") or (device[:5] == "cuda:" and device[5:].isdigit())
    ):
        return device
    raise DeviceError(f"device {device!r} is unknown; write 'cpu', 'cuda' or 'cuda:0'.")


def _normal_layout(shape: tuple[int, ...], layout: Any, itemsize: int) -> tuple[int, ...] | None:
    try:
        strides = [index(stride) for stride in layout]
    except TypeError:
        raise LayoutError(f"a layout is a tuple of byte strides such as (512, 4), got {layout!r}.") from None
    if len(strides) != len(shape):
        raise LayoutError(
            f"shape {shape} has {len(shape)} axes but layout {layout!r} has {len(strides)} strides."
        )
    if any(stride % itemsize for stride in strides):
        raise LayoutError(
            f"byte strides {tuple(strides)} are no multiples of the {itemsize} bytes of one element; "
            f"write np.ascontiguousarray(x) for a copy with aligned elements."
        )
    if not prod(shape):
        return None
    step = itemsize
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] == 1:
            strides[axis] = step
        step = abs(strides[axis]) * shape[axis]
    return None if tuple(strides) == row_major(shape, itemsize) else tuple(strides)


def _absent() -> TensorSpec:
    """Makes `ABSENT`; afterwards, what a pickled one comes back as."""
    known = globals().get("ABSENT")
    if known is not None:
        return known  # type: ignore[no-any-return]
    spec = object.__new__(TensorSpec)
    for name, value in (("shape", (0,)), ("dtype", ABSENT_NAME), ("device", "cpu"), ("layout", None)):
        object.__setattr__(spec, name, value)
    return spec


ABSENT: TensorSpec = _absent()
"""Stands for an optional input that was left out: its array is None, it has no elements and no dtype."""
