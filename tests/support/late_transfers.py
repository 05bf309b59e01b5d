"""Transfers between the host and a stand-in for a GPU, which really are late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernelwright.kernels.cuda.transfers import host_array, host_tensor


class LateTransfers:
    """A copy is only made when it is waited for: until then there are zeros.

    Attributes:
        log: what was asked of it, in order.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self._count = 0

    def send(self, arrays: Sequence[Any]) -> Any:
        import torch

        self.log.append(f"send {self._count}")
        self._count += 1
        kept = [np.array(array) for array in arrays]
        return self._count - 1, kept, [torch.zeros_like(host_tensor(array)) for array in kept]

    def receive(self, sent: Any) -> list[Any]:
        number, kept, made = sent
        self.log.append(f"receive {number}")
        for tensor, array in zip(made, kept, strict=True):
            tensor.copy_(host_tensor(array))
        return list(made)

    def ask(self, tensors: Sequence[Any]) -> Any:
        self.log.append("ask")
        return [tensor.clone() for tensor in tensors]

    def answer(self, asked: Any) -> list[Any]:
        self.log.append("answer")
        return [host_array(tensor) for tensor in asked]
