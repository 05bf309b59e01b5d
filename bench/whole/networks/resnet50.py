"""ResNet-50 (He et al. 2016, with the strides of its 3x3 convolutions as torchvision has them), 224x224."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import adaptive_avg_pool2d, flatten, max_pool2d, relu
from ....engine import nn
from .network import Batch, Network

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
WIDER = 4
CLASSES = 1000


def plan() -> list[tuple[int, int, int]]:
    """Of each block: channels before, inside, and its stride."""
    found, before = [], 64
    for inside, count, stride in STAGES:
        for number in range(count):
            found.append((before, inside, stride if number == 0 else 1))
            before = WIDER * inside
    return found


class Block(nn.Module):
    """1x1 down, 3x3, 1x1 up, and a way past them."""

    def __init__(self, before: int, inside: int, stride: int, key: int):
        after = WIDER * inside
        self.conv1 = nn.Conv2d(before, inside, 1, bias=False, key=key)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, inside, 3, stride, 1, bias=False, key=key + 1)
        self.bn2 = nn.BatchNorm2d(inside)
        self.conv3 = nn.Conv2d(inside, after, 1, bias=False, key=key + 2)
        self.bn3 = nn.BatchNorm2d(after)
        self.shortcut = None
        if stride > 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False, key=key + 3)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))

    def __call__(self, x: Any) -> Any:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(nn.Module):
    """As kernelwright has it."""

    def __init__(self, key: int):
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False, key=key)
        self.bn1 = nn.BatchNorm2d(64)
        blocks = [Block(*sizes, key + 10 * number + 1) for number, sizes in enumerate(plan())]
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(WIDER * STAGES[-1][0], CLASSES, key=key + 200)

    def __call__(self, x: Any) -> Any:
        x = max_pool2d(relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(flatten(adaptive_avg_pool2d(self.blocks(x), 1), 1))


def torch_resnet50() -> Any:
    """The same as torch has it, channels-last."""
    import torch
    from torch import nn as tnn
    from torch.nn import functional as F

    class Block(tnn.Module):
        def __init__(self, before: int, inside: int, stride: int):
            super().__init__()
            after = WIDER * inside
            self.conv1 = tnn.Conv2d(before, inside, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(inside)
            self.conv2 = tnn.Conv2d(inside, inside, 3, stride, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(inside)
            self.conv3 = tnn.Conv2d(inside, after, 1, bias=False)
            self.bn3 = tnn.BatchNorm2d(after)
            self.shortcut = None
            if stride > 1 or before != after:
                conv = tnn.Conv2d(before, after, 1, stride, bias=False)
                self.shortcut = tnn.Sequential(conv, tnn.BatchNorm2d(after))

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)), inplace=True)
            y = F.relu(self.bn2(self.conv2(y)), inplace=True)
            y = self.bn3(self.conv3(y))
            y += x if self.shortcut is None else self.shortcut(x)
            return F.relu(y, inplace=True)

    class ResNet50(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = tnn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = tnn.BatchNorm2d(64)
            self.blocks = tnn.Sequential(*[Block(*sizes) for sizes in plan()])
            self.fc = tnn.Linear(WIDER * STAGES[-1][0], CLASSES)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
            return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1))

    model: Any = ResNet50()
    return model.to(memory_format=torch.channels_last)


def draw(rng: np.random.Generator, size: int) -> Batch:
    """Inputs and labels."""
    return rng.standard_normal((size, 3, 224, 224), np.float32), rng.integers(0, CLASSES, size)


NETWORK = Network(
    "resnet50",
    "ResNet-50 on 224x224, batch 64, SGD with momentum, bfloat16, channels-last",
    ResNet50,
    torch_resnet50,
    draw,
    64,
    "SGD",
    {"momentum": 0.9},
    1e-3,
    goal=0.95,
    precision="bfloat16",
)
