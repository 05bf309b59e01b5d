"""Copies between the host and a GPU that nobody waits for: on a stream beside the one that computes.

    sent = transfers.send(arrays)         copies begin, through pinned memory, on a stream of their own
    ...                                   steps are queued meanwhile
    tensors = transfers.receive(sent)     torch's current stream waits for them, the host does not

    asked = transfers.ask(tensors)        numbers are copied to pinned memory, behind what is queued by now
    values = transfers.answer(asked)      waits for these copies alone

torch's allocators keep pinned and device memory until the streams that were told of it are done with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..op import AnyArray
from ..spec import np_dtype

_VIEWED = {"bfloat16": "int16", "float8_e4m3fn": "uint8"}  # what NumPy and torch call these bits alike


class TorchTransfers:
    """The transfers of one device.

    Args:
        index: the number of the device.
    """

    def __init__(self, index: int) -> None:
        import torch

        self._torch, self._device = torch, torch.device("cuda", index)
        self._beside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def send(self, arrays: Sequence[AnyArray]) -> Any:
        """Begin to copy arrays to the device; for `receive`."""
        pinned = [host_tensor(array).pin_memory() for array in arrays]
        with self._torch.cuda.stream(self._beside):
            made = [one.to(self._device, non_blocking=True) for one in pinned]
            return made, self._beside.record_event()

    def receive(self, sent: Any) -> list[Any]:
        """The tensors of a `send`, which whatever is queued on torch's current stream from now on may use."""
        made, done = sent
        here = self._torch.cuda.current_stream(self._device)
        here.wait_event(done)
        for tensor in made:
            tensor.record_stream(here)
        return list(made)

    def ask(self, tensors: Sequence[Any]) -> Any:
        """Begin to copy tensors to the host, behind all that is queued on torch's current stream."""
        torch = self._torch
        made = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True) for t in tensors]
        for host, tensor in zip(made, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        return made, torch.cuda.current_stream(self._device).record_event()

    def answer(self, asked: Any) -> list[AnyArray]:
        """The numbers that an `ask` was for."""
        made, done = asked
        done.synchronize()
        return [host_array(host) for host in made]


def host_tensor(array: AnyArray) -> Any:
    """A torch tensor on the CPU over an array's memory where it is row-major, else over a copy."""
    import torch

    plain, name = np.ascontiguousarray(array).reshape(array.shape), array.dtype.name
    if not plain.flags.writeable:
        plain = plain.copy()
    if name not in _VIEWED:
        return torch.from_numpy(plain)
    return torch.from_numpy(plain.view(_VIEWED[name])).view(getattr(torch, name))


def host_array(tensor: Any) -> AnyArray:
    """The NumPy array over the memory of a torch tensor on the CPU."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    if name not in _VIEWED:
        return np.asarray(tensor.numpy())
    numbers: AnyArray = tensor.view(getattr(torch, _VIEWED[name])).numpy().view(np_dtype(name))
    return numbers
