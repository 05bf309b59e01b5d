"""ResNet-18 (He et al. 2016) with its ImageNet stem, on images of 64x64."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import adaptive_avg_pool2d, flatten, max_pool2d, relu
from ....engine import nn
from .network import Batch, Network

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
CLASSES = 1000


class Block(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(self, before: int, after: int, stride: int, key: int):
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False, key=key)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False, key=key + 1)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = None
        if stride > 1 or before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False, key=key + 2)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))

    def __call__(self, x: Any) -> Any:
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet18(nn.Module):
    """As kernelwright has it."""

    def __init__(self, key: int):
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False, key=key)
        self.bn1 = nn.BatchNorm2d(64)
        blocks: list[Block] = []
        before = 64
        for channels, stride in STAGES:
            for step in (stride, 1):
                blocks.append(Block(before, channels, step, key + 10 * len(blocks) + 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, CLASSES, key=key + 100)

    def __call__(self, x: Any) -> Any:
        x = max_pool2d(relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(flatten(adaptive_avg_pool2d(self.blocks(x), 1), 1))


def torch_resnet18() -> Any:
    """The same as torch has it."""
    import torch
    from torch import nn as tnn
    from torch.nn import functional as F

    class Block(tnn.Module):
        def __init__(self, before: int, after: int, stride: int):
            super().__init__()
            self.conv1 = tnn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = tnn.BatchNorm2d(after)
            self.conv2 = tnn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = tnn.BatchNorm2d(after)
            self.shortcut = None
            if stride > 1 or before != after:
                conv = tnn.Conv2d(before, after, 1, stride, bias=False)
                self.shortcut = tnn.Sequential(conv, tnn.BatchNorm2d(after))

        def forward(self, x: Any) -> Any:
            y = F.relu(self.bn1(self.conv1(x)), inplace=True)
            y = self.bn2(self.conv2(y))
            y += x if self.shortcut is None else self.shortcut(x)
            return F.relu(y, inplace=True)

    class ResNet18(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = tnn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = tnn.BatchNorm2d(64)
            blocks: list[Block] = []
            before = 64
            for channels, stride in STAGES:
                for step in (stride, 1):
                    blocks.append(Block(before, channels, step))
                    before = channels
            self.blocks = tnn.Sequential(*blocks)
            self.fc = tnn.Linear(before, CLASSES)

        def forward(self, x: Any) -> Any:
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
            return self.fc(torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1))

    return ResNet18()


def draw(rng: np.random.Generator, size: int) -> Batch:
    """Inputs and labels."""
    return rng.standard_normal((size, 3, 64, 64), np.float32), rng.integers(0, CLASSES, size)


NETWORK = Network(
    "resnet18",
    "ResNet-18 on 64x64, batch 8, SGD with momentum",
    ResNet18,
    torch_resnet18,
    draw,
    8,
    "SGD",
    {"momentum": 0.9},
    1e-3,
    goal=1.1,
)
