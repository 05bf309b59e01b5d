"""Arrays on a GPU, and calls of operations on them: torch CUDA tensors in, Arrays that hold such tensors out.

Memory is torch's, and so is the stream: a call is queued on torch's current stream of the tensors' device,
and nothing waits for it. What was found out for a call is kept in the memo of the settings in force, as for
calls on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..kernels import dispatch
from ..kernels.cuda.launch import runtime, torch_dtype
from ..kernels.errors import DeviceError, DTypeError, ShapeError
from ..kernels.op import Op
from ..kernels.spec import ABSENT, TensorSpec, extent, np_dtype
from .array import Array
from .views import shadow_at

_VIEWED = {"bfloat16": "int16", "float8_e4m3fn": "uint8"}  # what NumPy and torch call these bits alike


class CudaArray(Array):
    """An Array in the memory of a GPU: a thin handle on a torch CUDA tensor.

    `torch.from_dlpack(a)` is that very memory. `kw.array(a, device="cpu")` copies the numbers to the CPU, and
    is the only thing here that waits for the GPU, beside asking for numbers (`item`, `tolist`, printing).
    """

    __slots__ = ("_spec", "_tensor")
    on_cuda = True
    _spec: Any
    _tensor: Any

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    @classmethod
    def of(cls, tensor: Any, spec: TensorSpec) -> CudaArray:
        """The Array of a tensor whose spec is known."""
        made = object.__new__(cls)
        made._tensor, made._spec = tensor, spec
        return made

    @property
    def _data(self) -> NDArray[Any]:  # type: ignore[override]
        raise DeviceError(
            f"{self.spec} is on {self.device!r}, and NumPy sees memory of the CPU only; copy it there first: "
            "kw.array(a, device='cpu')."
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        return np_dtype(_name(self._tensor))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape)

    @property
    def ndim(self) -> int:
        return int(self._tensor.ndim)

    @property
    def size(self) -> int:
        return int(self._tensor.numel())

    @property
    def nbytes(self) -> int:
        return self.size * int(self._tensor.element_size())

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(stride * self._tensor.element_size() for stride in self._tensor.stride())

    @property
    def device(self) -> str:
        """Where the buffer is: `"cuda:0"`."""
        return str(runtime().place(self._tensor))

    @property
    def spec(self) -> TensorSpec:
        try:
            known: TensorSpec = self._spec
        except AttributeError:
            known = self._spec = spec_of(self._tensor)
        return known

    def copy(self) -> Array:
        return CudaArray(self._tensor.clone(memory_format=_torch().contiguous_format))

    def tolist(self) -> Any:
        return to_numpy(self._tensor).tolist()

    def item(self) -> Any:
        if self.size != 1:
            raise ShapeError(f"item() takes the one element of an Array, but {self.spec} has {self.size}.")
        return to_numpy(self._tensor).item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        _ = self._data
        raise AssertionError

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self._tensor.__dlpack_device__()
        return int(kind), int(index)

    def __repr__(self) -> str:
        head = f"Array({self.spec}, "
        numbers = to_numpy(self._tensor)
        text = np.array2string(numbers, separator=", ", prefix=head, threshold=200, precision=6)
        return head + text + ")"


def is_on_cuda(value: Any) -> bool:
    """Whether a value is an Array on a GPU, or a torch CUDA tensor."""
    if isinstance(value, CudaArray):
        return True
    return type(value).__module__.partition(".")[0] == "torch" and _place(value) is not None


def _place(value: Any) -> str | None:
    """`"cuda:0"` of a torch tensor on that device; None of all else."""
    if not hasattr(value, "is_cuda"):
        return None
    found: str | None = runtime().place(value)
    return found


def spec_of(tensor: Any) -> TensorSpec:
    """The spec of a torch CUDA tensor.

    Raises:
        DTypeError: for a dtype that this package has not.
        DeviceError: for a tensor on the CPU.
    """
    place = runtime().place(tensor)
    if place is None:
        raise DeviceError(f"a torch tensor on {tensor.device} is not on a GPU; write x.cuda().")
    size = tensor.element_size()
    strides = tuple(stride * size for stride in tensor.stride())
    return TensorSpec(tuple(tensor.shape), _name(tensor), place, strides)


def tensor_of(op: Op, name: str, value: Any, device: str | None = None) -> Any:
    """The torch tensor behind an argument of a call on a GPU; None stays None.

    Args:
        op, name: the call and the argument, for errors.
        value: the argument.
        device: where a number of the CPU, without axes, is copied to; None where it is refused.

    Raises:
        DeviceError: for an Array or a tensor on the CPU.
        DTypeError: for what is no array, or a tensor that needs a gradient, which nobody would compute.
    """
    if value is None:
        return None
    if isinstance(value, CudaArray):
        return value._tensor
    if isinstance(value, Array | np.ndarray):
        if device is not None and value.ndim == 0:
            from .gpu.scalars import on_device

            return on_device(value._data if isinstance(value, Array) else np.asarray(value), device)._tensor
        raise DeviceError(
            f"{op.name}: {name} is on the CPU and another input on a GPU; copy it there: "
            f"kw.array({name}, device='cuda')."
        )
    if _place(value) is None:
        raise DTypeError(
            f"{op.name}: {name} must be an Array on a GPU or a torch CUDA tensor, got "
            f"{type(value).__name__}; write kw.array({name}, device='cuda')."
        )
    if value.requires_grad and _torch().is_grad_enabled():
        raise DTypeError(
            f"{op.name}: {name} needs a gradient, which torch could not follow through here; write "
            f"{name}.detach(), or call under torch.no_grad()."
        )
    return value


def run(op: Op, inputs: Sequence[Any], attrs: Mapping[str, Any], out: Any = None) -> tuple[CudaArray, ...]:
    """A call whose inputs, one of them at least, are on a GPU; see `eager.call`.

    Raises:
        NoKernelError: when no CUDA kernel supports the call: nothing is copied to the CPU behind your back.
        ShapeError, DTypeError, DeviceError, LayoutError, OverlapError: before anything is written.
    """
    tensors: list[Any] = []
    key: list[Any] = [op, CudaArray, out is None, *attrs, *attrs.values()]
    for value in inputs if out is None else (*inputs, out):
        if type(value) is CudaArray:
            tensor = value._tensor
        else:
            place = min(len(tensors), len(op.inputs))
            beside = None if place == len(op.inputs) else _beside(inputs)
            tensor = tensor_of(op, (*op.inputs, "out")[place], value, beside)
        tensors.append(tensor)
        if tensor is None:
            key.append(None)
        else:
            key += (tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
    target = None if out is None else tensors.pop()
    launch, outputs = dispatch.recall(op, tuple(key), attrs, lambda: _bound(op, tensors, attrs, target))
    if target is not None:
        if any(tensor is not None and _ends_overlap(tensor, target) for tensor in tensors):
            _check_out(op, target, spec_of(target), tensors)
        launch(*tensors, target)
        return (CudaArray(target),)
    if not outputs:
        return (CudaArray(launch(tensors[0])),)
    made = [make(shape, dtype, device) for make, shape, dtype, device in outputs]
    launch(*tensors, *made)
    return tuple([CudaArray(tensor) for tensor in made])


def _beside(inputs: Sequence[Any]) -> str | None:
    """The device of the first input that is on a GPU."""
    return next((adopted(value).device for value in inputs if is_on_cuda(value)), None)


def _bound(
    op: Op, tensors: Sequence[Any], attrs: Mapping[str, Any], target: Any
) -> tuple[Callable[..., Any], list[tuple[Any, ...]]]:
    """What runs a call, and of each output what makes it; everything is checked first."""
    specs = tuple(ABSENT if tensor is None else spec_of(tensor) for tensor in tensors)
    complete = op.complete(attrs)
    outputs = op.infer(specs, **complete)
    if target is not None:
        (expected,) = outputs
        _check_out(op, target, expected, tensors)
        outputs = (spec_of(target),)
    elif op.view is not None:
        place = op.view(specs[0], **complete)
        if place is not None and min(place[2], default=0) >= 0:  # torch has no tensors that run backwards
            return _viewer(specs[0], *place), []
    launch = dispatch.bind(op, (*specs, *outputs), complete)
    empty = runtime().empty
    return launch, [(empty, spec.shape, torch_dtype(spec.dtype), spec.device) for spec in outputs]


def _viewer(
    spec: TensorSpec, start: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Callable[[Any], Any]:
    """What makes of a tensor of `spec` its view `start` bytes on, of that shape and those byte strides."""
    steps = tuple(stride // spec.itemsize for stride in strides)
    offset = start // spec.itemsize
    return lambda x: _torch().as_strided(x, shape, steps, x.storage_offset() + offset)


def _ends_overlap(x: Any, y: Any) -> bool:
    """Whether the bytes from the first to the last element of one tensor meet those of the other."""
    (low, high), (least, most) = reach(x), reach(y)
    return low < most and least < high


def reach(tensor: Any) -> tuple[int, int]:
    """The first byte of a tensor's elements, and the one behind the last."""
    size = tensor.element_size()
    strides = tuple(stride * size for stride in tensor.stride())
    low, high = extent(tuple(tensor.shape), strides, size)
    start = tensor.data_ptr()
    return start + low, start + high


def _check_out(op: Op, out: Any, expected: TensorSpec, inputs: Sequence[Any]) -> None:
    """Refuse an `out` that cannot take the result, as `eager.check_out` does."""
    from .eager import check_out

    place = runtime().place(out)
    if place != expected.device:
        raise DeviceError(f"{op.name}: out is on {place!r}, but the result on {expected.device!r}.")
    hosted = TensorSpec(expected.shape, expected.dtype, "cpu", expected.layout)
    check_out(op, _shadow(out), hosted, [None if x is None else _shadow(x) for x in inputs])


def _shadow(tensor: Any) -> NDArray[Any]:
    """A NumPy array with a tensor's address, shape and strides, to be asked about and never read."""
    spec = spec_of(tensor)
    return shadow_at(tensor.data_ptr(), spec.shape, spec.strides, spec.np_dtype)


def to_numpy(tensor: Any) -> NDArray[Any]:
    """A copy of a tensor's numbers on the CPU; waits for the GPU."""
    from .gpu.failures import asking

    name = _name(tensor)
    with asking("copying an Array to the CPU"):
        host = tensor.detach().cpu()
    if name in _VIEWED:
        numbers: NDArray[Any] = host.contiguous().view(torch_dtype(_VIEWED[name])).numpy()
        numbers = numbers.view(np_dtype(name))
    else:
        numbers = np.asarray(host.numpy())
    # A tensor that is on the CPU already, as stand-ins are, is its own copy there.
    return numbers.copy() if host.data_ptr() == tensor.data_ptr() else numbers


def to_device(data: NDArray[Any], device: str) -> CudaArray:
    """A copy of a NumPy array's numbers on a GPU, row-major.

    Raises:
        DeviceError: when there is no such device.
    """
    index = runtime().number(device)
    name = TensorSpec.of(data).dtype
    plain = np.array(data, order="C", copy=True)
    if name in _VIEWED:
        host = _torch().from_numpy(plain.view(_VIEWED[name])).view(torch_dtype(name))
    else:
        host = _torch().from_numpy(plain)
    return CudaArray(runtime().moved(host, index))


def bytes_to_device(host: NDArray[Any], device: str) -> Any:
    """A torch tensor of bytes on a GPU, with those of an array of uint8."""
    return runtime().moved(_torch().from_numpy(host), runtime().number(device))


def moved(x: CudaArray, device: str) -> CudaArray:
    """A copy of an Array on another GPU; the very Array where it is there already."""
    index = runtime().number(device)
    return x if runtime().number(x.device) == index else CudaArray(runtime().moved(x._tensor, index))


def adopted(value: Any) -> CudaArray:
    """An Array of a torch CUDA tensor, of another framework's by DLPack, or the very Array it is already."""
    if isinstance(value, CudaArray):
        return value
    if not hasattr(value, "is_cuda"):
        runtime().number(f"cuda:{value.__dlpack_device__()[1]}")
        value = _torch().from_dlpack(value)
    tensor = value
    spec = spec_of(tensor)
    # A tensor of our own over the same memory, whose shape nobody else can change.
    return CudaArray.of(tensor.detach(), spec)


def _name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _torch() -> Any:
    import torch

    return torch
