"""Memory of a plan on a GPU: blocks of bytes, each one tensor of torch's, and views into them.

A block is allocated once and stays where it is as long as the plan lives, so that the addresses in a captured
graph stay right. Everything in it starts at a multiple of `LINE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.cuda.launch import runtime, torch_dtype
from ...kernels.spec import TensorSpec, row_major
from ..cuda import bytes_to_device

LINE = 256
"""Bytes: two of the memory's lines of 128, and more than any load or bulk copy asks its address to be a
multiple of (16 for vectors and tensor maps)."""


def lines(nbytes: int) -> int:
    """Bytes in whole lines, one at least."""
    return -(-max(nbytes, 1) // LINE) * LINE


def lasting() -> Any:
    """A context for memory that is kept: written later too, when the call that needed it first is long over.

    What torch makes inside of `torch.inference_mode()` may not be written outside of it.
    """
    import torch

    return torch.inference_mode(False)


class Block:
    """Bytes of a device.

    Attributes:
        nbytes: how many.
        tensor: torch's, of uint8.
    """

    def __init__(self, nbytes: int, device: str, tensor: Any = None):
        self.nbytes = lines(nbytes)
        self.tensor = (
            runtime().empty((self.nbytes,), torch_dtype("uint8"), device) if tensor is None else tensor
        )
        self._typed: dict[str, Any] = {}

    def view(self, offset: int, spec: TensorSpec) -> Any:
        """The tensor of `spec` whose first element lies `offset` bytes behind the block's start."""
        typed = self._typed.get(spec.dtype)
        if typed is None:
            typed = self._typed[spec.dtype] = self.tensor.view(torch_dtype(spec.dtype))
        return strided(typed, offset // spec.itemsize, spec)


def strided(tensor: Any, start: int, spec: TensorSpec) -> Any:
    """What lies `start` elements behind a tensor's first one, with the shape and strides of `spec`."""
    size = spec.itemsize
    steps = tuple(stride // size for stride in spec.strides)
    return tensor.as_strided(spec.shape, steps, tensor.storage_offset() + start)


class Constants:
    """The constants of a plan: all in one block, copied there at once.

    Args:
        arrays: of the CPU.
        device: where they go.

    Attributes:
        views: a tensor for each.
        nbytes: of the block.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]], device: str):
        self.views: list[Any] = []
        self.nbytes = 0
        if not arrays:
            return
        kept = [_kept(array) for array in arrays]
        sizes = [lines(array.nbytes) for array in kept]
        self.nbytes = sum(sizes)
        host = np.zeros(self.nbytes, np.uint8)
        at = 0
        starts = []
        for array, size in zip(kept, sizes, strict=True):
            host[at : at + array.nbytes] = array.reshape(-1).view(np.uint8)
            starts.append(at)
            at += size
        block = Block(len(host), device, bytes_to_device(host, device))
        self.block = block
        for array, start in zip(arrays, starts, strict=True):
            self.views.append(block.view(start, constant_spec(array, device)))


def constant_spec(array: NDArray[Any], device: str) -> TensorSpec:
    """The spec that a constant has on a device: row-major; what is repeated on the CPU is repeated there."""
    strides = _strides(array)
    dense = row_major(array.shape, array.itemsize)
    name = TensorSpec.of(array).dtype
    return TensorSpec(array.shape, name, device, None if strides == dense else strides)


def _repeated(array: NDArray[Any]) -> list[bool]:
    return [stride == 0 and length > 1 for stride, length in zip(array.strides, array.shape, strict=True)]


def _kept(array: NDArray[Any]) -> NDArray[Any]:
    """The elements of an array that are more than repetitions, row-major."""
    once = tuple(slice(0, 1) if repeats else slice(None) for repeats in _repeated(array))
    return np.ascontiguousarray(array[once])


def _strides(array: NDArray[Any]) -> tuple[int, ...]:
    """The byte strides of the whole array over what `_kept` keeps of it."""
    repeated = _repeated(array)
    lengths = tuple(1 if r else length for r, length in zip(repeated, array.shape, strict=True))
    steps = row_major(lengths, array.itemsize)
    return tuple(0 if r else step for r, step in zip(repeated, steps, strict=True))
