"""A network like LeNet-5 (LeCun et al. 1998) on images of 28x28, with ReLU and max pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import flatten, max_pool2d, relu
from ....engine import nn
from .network import Batch, Network


class LeNet(nn.Module):
    """As kernelwright has it."""

    def __init__(self, key: int):
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2, key=key)
        self.conv2 = nn.Conv2d(6, 16, 5, key=key + 1)
        self.fc1 = nn.Linear(400, 120, key=key + 2)
        self.fc2 = nn.Linear(120, 84, key=key + 3)
        self.fc3 = nn.Linear(84, 10, key=key + 4)

    def __call__(self, x: Any) -> Any:
        x = max_pool2d(relu(self.conv1(x)), 2)
        x = max_pool2d(relu(self.conv2(x)), 2)
        x = relu(self.fc1(flatten(x, 1)))
        return self.fc3(relu(self.fc2(x)))


def torch_lenet() -> Any:
    """The same as torch has it."""
    import torch
    from torch import nn as tnn
    from torch.nn import functional as F

    class LeNet(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = tnn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = tnn.Conv2d(6, 16, 5)
            self.fc1 = tnn.Linear(400, 120)
            self.fc2 = tnn.Linear(120, 84)
            self.fc3 = tnn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(x)), 2)
            x = F.relu(self.fc1(torch.flatten(x, 1)))
            return self.fc3(F.relu(self.fc2(x)))

    return LeNet()


def draw(rng: np.random.Generator, size: int) -> Batch:
    """Inputs and labels."""
    return rng.standard_normal((size, 1, 28, 28), np.float32), rng.integers(0, 10, size)


NETWORK = Network(
    "lenet",
    "LeNet on 28x28, batch 64, SGD with momentum",
    LeNet,
    torch_lenet,
    draw,
    64,
    "SGD",
    {"momentum": 0.9},
    1e-2,
    goal=1.5,
)
