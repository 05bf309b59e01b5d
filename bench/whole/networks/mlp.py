"""A perceptron of two hidden layers: 64 - 128 - 128 - 10."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import relu
from ....engine import nn
from .network import Batch, Network

SIZES = (64, 128, 128, 10)


class MLP(nn.Module):
    """As kernelwright has it."""

    def __init__(self, key: int):
        self.first = nn.Linear(SIZES[0], SIZES[1], key=key)
        self.second = nn.Linear(SIZES[1], SIZES[2], key=key + 1)
        self.last = nn.Linear(SIZES[2], SIZES[3], key=key + 2)

    def __call__(self, x: Any) -> Any:
        return self.last(relu(self.second(relu(self.first(x)))))


def torch_mlp() -> Any:
    """The same as torch has it."""
    from torch import nn as tnn
    from torch.nn import functional as F

    class MLP(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = tnn.Linear(SIZES[0], SIZES[1])
            self.second = tnn.Linear(SIZES[1], SIZES[2])
            self.last = tnn.Linear(SIZES[2], SIZES[3])

        def forward(self, x: Any) -> Any:
            return self.last(F.relu(self.second(F.relu(self.first(x)))))

    return MLP()


def draw(rng: np.random.Generator, size: int) -> Batch:
    """Inputs and labels."""
    return rng.standard_normal((size, SIZES[0]), np.float32), rng.integers(0, SIZES[-1], size)


NETWORK = Network(
    "mlp", "MLP 64-128-128-10, batch 32, Adam", MLP, torch_mlp, draw, 32, "Adam", {}, 1e-3, goal=5.0
)
