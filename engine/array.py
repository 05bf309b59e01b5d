"""Array: a buffer of numbers on a device, with its spec and the operators that people expect.

An Array on the CPU is a thin handle on a NumPy array: `np.asarray(a)` is that very memory, and so is whatever
`torch.from_dlpack(a)` returns. Indexing gives views.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.errors import DeviceError, DTypeError, KernelwrightError, ShapeError
from ..kernels.spec import SHORT_NAMES, TensorSpec, check_device, dtype_name, np_dtype
from .operators import Operators, function


class Array(Operators):
    """Numbers of one dtype in a buffer on a device; made by `kw.array`, `kw.asarray` or `kw.from_dlpack`.

    The constructor takes a NumPy array of a dtype that this package has, as it is, and checks nothing.
    """

    __slots__ = ("__weakref__", "_data")

    # NumPy must not take the operators of `ndarray @ Array` apart element by element, but leave them to us.
    __array_ufunc__ = None
    __array_priority__ = 1000

    _data: NDArray[Any]
    on_cuda = False
    """Whether the buffer is on a GPU."""

    def __init__(self, data: NDArray[Any]) -> None:
        self._data = data

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the elements."""
        return self._data.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def nbytes(self) -> int:
        """Bytes in all elements."""
        return self._data.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        return self._data.strides

    @property
    def device(self) -> str:
        """Where the buffer is: `"cpu"`, `"cuda:0"`."""
        return "cpu"

    @property
    def spec(self) -> TensorSpec:
        """Shape, dtype, device and layout."""
        return TensorSpec.of(self._data)

    @property
    def T(self) -> Array:
        """A view with the axes in reverse order."""
        return _reshaped("transpose", self)

    def transpose(self, *axes: Any) -> Array:
        """A view with the axes in another order, as ndarray.transpose."""
        return _reshaped("transpose", self, *axes)

    def permute(self, *dims: Any) -> Array:
        """A view with the axes in the order `dims`, as Tensor.permute."""
        return _reshaped("permute", self, *dims)

    def swapaxes(self, axis1: int, axis2: int) -> Array:
        """A view with two axes exchanged."""
        return _reshaped("swapaxes", self, axis1, axis2)

    def reshape(self, *shape: Any) -> Array:
        """The same elements in another shape; a view where the memory allows it, else a copy.

        Raises:
            ShapeError: when the shape has another number of elements.
        """
        return _reshaped("reshape", self, *shape)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Array:
        """The same elements with some axes (all of them) joined to one, as Tensor.flatten."""
        return _reshaped("flatten", self, start_dim, end_dim)

    def squeeze(self, axis: int | Sequence[int] | None = None) -> Array:
        """A view without the axes of length 1, or without those of `axis` that have it."""
        return _reshaped("squeeze", self, axis)

    def unsqueeze(self, axis: int) -> Array:
        """A view with a new axis of length 1."""
        return _reshaped("unsqueeze", self, axis)

    def broadcast_to(self, *shape: Any) -> Array:
        """A view repeated to another shape by NumPy's rules."""
        return _reshaped("broadcast_to", self, *shape)

    def copy(self) -> Array:
        """A row-major copy."""
        return Array(self._data.copy())

    def astype(self, dtype: Any) -> Array:
        """A copy with its elements converted to `dtype`."""
        if type(self) is not Array:
            cast: Array = function("cast")(self, dtype)
            return cast
        return Array(self._data.astype(np_dtype(dtype_name(dtype))))

    def to(self, device: str) -> Array:
        """The Array itself where it is on `device` already, or else a copy there."""
        return asarray(self, device=device)

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self._data.tolist()

    def item(self) -> Any:
        """The one element, as a Python number.

        Raises:
            ShapeError: when there is not exactly one.
        """
        if self._data.size != 1:
            raise ShapeError(f"item() takes the one element of an Array, but {self.spec} has {self.size}.")
        return self._data.item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        data = self._data
        if dtype is not None and data.dtype != dtype:
            if copy is False:
                raise ValueError(
                    f"an Array of {data.dtype} cannot be seen as {np.dtype(dtype)} without a copy."
                )
            return data.astype(dtype)
        return data.copy() if copy else data

    def __dlpack__(self, **options: Any) -> Any:
        if self._data.dtype.name not in _NUMPY_DLPACK:
            raise DTypeError(
                f"NumPy cannot hand {self._data.dtype} over by DLPack; write a.astype('float32') first."
            )
        return self._data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    def __matmul__(self, other: Any) -> Array:
        if type(other) is Array or isinstance(other, Array | np.ndarray):
            return _matmul(self, other)
        return NotImplemented

    def __rmatmul__(self, other: Any) -> Array:
        if not isinstance(other, np.ndarray):
            return NotImplemented
        return _matmul(other, self)

    def __len__(self) -> int:
        if not self.ndim:
            raise DTypeError("a 0-D Array has no length; its number is a.item().")
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Array:
        if type(self) is Array and _is_known(key):
            return Array(np.asarray(self._data[_plain_index(key)]))
        return _reshaped("indexed", self, key)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __repr__(self) -> str:
        spec = TensorSpec(self.shape, dtype_name(self._data.dtype), self.device)
        head = f"Array({spec}, "
        return (
            head + np.array2string(self._data, separator=", ", prefix=head, threshold=200, precision=6) + ")"
        )


def _matmul(a: Any, b: Any) -> Array:
    """`matmul` of `functional`, which imports this module: found at the first `@`, then known here."""
    global _matmul
    from .functional.matmul import matmul as _matmul

    return _matmul(a, b)


_NUMPY_DLPACK = frozenset(SHORT_NAMES) - {"bfloat16"}


def _shapes() -> Any:
    """The module `functional.shape`, which imports this one: found at the first use, then known here."""
    global _shapes
    from .functional import shape

    _shapes = lambda: shape  # noqa: E731
    return shape


def _reshaped(name: str, x: Array, *args: Any) -> Array:
    """`name(x, *args)` of `functional.shape`."""
    made: Array = getattr(_shapes(), name)(x, *args)
    return made


def _is_known(key: Any) -> bool:
    """Whether all Arrays in an index have numbers."""
    if isinstance(key, tuple):
        return all(map(_is_known, key))
    return not isinstance(key, Array) or type(key) is Array


def _plain_index(key: Any) -> Any:
    """An index that NumPy understands: Arrays in it become NumPy arrays."""
    if isinstance(key, Array):
        return key._data
    if isinstance(key, tuple):
        return tuple(_plain_index(part) for part in key)
    return key


def array(x: Any, dtype: Any = None, device: str | None = None) -> Array:
    """A new Array with the numbers of `x`.

    Args:
        x: an Array, a NumPy array, nested lists of numbers, a number, or anything that speaks DLPack.
        dtype: the dtype to convert to, such as `"float32"`; that of `x` unless given (float64 for Python
            floats).
        device: `"cpu"`, `"cuda"` (torch's current GPU), `"cuda:1"`; where `x` is unless given.

    Raises:
        DTypeError: when `x` holds no real numbers: objects, text, complex numbers.
        ShapeError: for nested lists of different lengths.
        DeviceError: for an unknown device, or one that is not there.
    """
    _check_device(device)
    if is_on_gpu(x):
        return _from_gpu(x, dtype, device, copy=True)
    if device is not None and device != "cpu":
        there: Array = _cuda().to_device(array(x, dtype)._data, device)
        return there
    data = _numpy_of(x)
    name = dtype_name(data.dtype.newbyteorder("=") if dtype is None else dtype)
    # order="C" because a copy is a chance to have plain rows, which every kernel likes best.
    return Array(np.array(data, dtype=np_dtype(name), order="C", copy=True))


def asarray(x: Any, dtype: Any = None, device: str | None = None) -> Array:
    """`x` as an Array, sharing its memory where that is possible; arguments and errors as for `kw.array`."""
    if isinstance(x, Array) and dtype is None and device in (None, x.device):
        return x
    _check_device(device)
    if is_on_gpu(x):
        return _from_gpu(x, dtype, device, copy=False)
    if device is not None and device != "cpu":
        there: Array = _cuda().to_device(array(x, dtype)._data, device)
        return there
    data = _numpy_of(x)
    name = dtype_name(data.dtype if dtype is None else dtype)
    wanted = np_dtype(name)
    return Array(data if data.dtype == wanted else data.astype(wanted))


def from_dlpack(x: Any) -> Array:
    """An Array that shares the memory of another framework's tensor, handed over by DLPack.

    Args:
        x: a tensor on the CPU or an NVIDIA GPU that has `__dlpack__`, such as a torch.Tensor without
            gradient.

    Raises:
        DeviceError: when the tensor is elsewhere.
        DTypeError: when it speaks no DLPack, or its framework or NumPy cannot hand its dtype over.
    """
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        raise DTypeError(
            f"kw.from_dlpack takes a tensor with __dlpack__, got {type(x).__name__}; write kw.array(x)."
        )
    kind = int(x.__dlpack_device__()[0])
    if kind == _DLPACK_CUDA:
        there: Array = _cuda().adopted(x)
        return there
    if kind != _DLPACK_CPU:
        raise DeviceError(
            f"kw.from_dlpack: the {type(x).__name__} is on DLPack device type {kind}, and Arrays are on the "
            "CPU (1) or an NVIDIA GPU (2); bring it to the CPU first: x.cpu()."
        )
    try:
        data = np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DTypeError(
            f"kw.from_dlpack: the {type(x).__name__} cannot be handed over: {error}. A torch tensor that "
            "needs gradients wants x.detach(); bfloat16 wants x.float()."
        ) from error
    dtype_name(data.dtype)
    return Array(data)


_DLPACK_CPU, _DLPACK_CUDA = 1, 2


def _check_device(device: str | None) -> None:
    """Refuse a device that is unknown or not there."""
    if device is not None and check_device(device) != "cpu":
        from ..kernels.cuda.launch import runtime

        runtime().number(device)


def _cuda() -> Any:
    """The module `engine.cuda`, which imports this one."""
    from . import cuda

    return cuda


def is_on_gpu(x: Any) -> bool:
    """Whether `x` is an Array on a GPU or a torch CUDA tensor; nothing is imported for all else."""
    if type(x) is Array or isinstance(x, np.ndarray | list | tuple | int | float):
        return False
    return bool(_cuda().is_on_cuda(x)) if isinstance(x, Array) or hasattr(x, "is_cuda") else False


def _from_gpu(x: Any, dtype: Any, device: str | None, copy: bool) -> Array:
    """`x`, which is on a GPU, as an Array there or, when asked for by name, on the CPU."""
    cuda = _cuda()
    here: Array = cuda.adopted(x)
    if device == "cpu":
        return array(cuda.to_numpy(here._tensor), dtype)  # type: ignore[attr-defined]
    if dtype is not None and np_dtype(dtype_name(dtype)) != here.dtype:
        here, copy = here.astype(dtype), False
    if device is not None and device not in ("cuda", here.device):
        return cuda.moved(here, device)  # type: ignore[no-any-return]
    return here.copy() if copy else here


def _numpy_of(x: Any) -> NDArray[Any]:
    """The numbers of `x` as a NumPy array, if possible without a copy; refuses what is not real numbers."""
    if isinstance(x, Array):
        return x._data
    if isinstance(x, np.ndarray):
        if hasattr(x, "mask"):
            raise DTypeError("a masked array would lose its mask; fill it first: x.filled(0).")
        data = np.asarray(x)
    elif hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return from_dlpack(x)._data
    else:
        data = _from_python(x)
    if data.dtype.newbyteorder("=").name not in SHORT_NAMES:
        dtype_name(data.dtype)  # raises, with the reason
    return data


def _from_python(x: Any) -> NDArray[Any]:
    if isinstance(x, list | tuple):
        x = _unwrapped(x)
    try:
        data = np.asarray(x)
    except ValueError as error:
        raise ShapeError(
            f"these nested lists form no array: {error}. Give every row the same length."
        ) from None
    except KernelwrightError:
        raise
    except Exception as error:
        raise DTypeError(
            f"a {type(x).__name__} cannot become an Array: {type(error).__name__}: {error}."
        ) from error
    if data.dtype == object:
        raise DTypeError(f"a {type(x).__name__} of Python objects is no array of numbers: {str(x)[:60]}.")
    return data


def _unwrapped(x: Any) -> Any:
    """Nested lists with the Arrays in them as NumPy arrays."""
    if isinstance(x, list | tuple):
        return [_unwrapped(part) for part in x]
    return x._data if isinstance(x, Array) else x
