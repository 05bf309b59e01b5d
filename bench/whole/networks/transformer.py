"""A transformer encoder of four layers (Vaswani et al. 2017) that classifies texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .... import mean
from ....engine import nn
from .network import Batch, Network

WORDS, CLASSES = 1000, 10


@dataclass(frozen=True)
class Size:
    """The lengths of an encoder: its axes, layers, and the words of a text."""

    width: int = 256
    heads: int = 4
    inner: int = 1024
    layers: int = 4
    steps: int = 128


SIZE = Size()


class Encoder(nn.Module):
    """As kernelwright has it. words: [B, T] -> [B, classes]."""

    def __init__(self, key: int, size: Size = SIZE):
        self.embed = nn.Embedding(WORDS, size.width, key=key)
        self.place = nn.Embedding(size.steps, size.width, key=key + 1)
        layers = [
            nn.TransformerEncoderLayer(
                size.width, size.heads, size.inner, dropout=0.0, batch_first=True, key=key + 2 + number
            )
            for number in range(size.layers)
        ]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(size.width, CLASSES, key=key + 10)

    def __call__(self, words: Any) -> Any:
        x = self.layers(self.embed(words) + self.place.weight)
        return self.out(mean(x, axis=1))


def torch_encoder(size: Size = SIZE) -> Any:
    """The same as torch has it."""
    from torch import nn as tnn

    class Encoder(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = tnn.Embedding(WORDS, size.width)
            self.place = tnn.Embedding(size.steps, size.width)
            layers = [
                tnn.TransformerEncoderLayer(size.width, size.heads, size.inner, dropout=0.0, batch_first=True)
                for _ in range(size.layers)
            ]
            self.layers = tnn.Sequential(*layers)
            self.out = tnn.Linear(size.width, CLASSES)

        def forward(self, words: Any) -> Any:
            x = self.layers(self.embed(words) + self.place.weight)
            return self.out(x.mean(1))

    return Encoder()


def draw(rng: np.random.Generator, size: int, steps: int = SIZE.steps) -> Batch:
    """Inputs and labels."""
    return rng.integers(0, WORDS, (size, steps)), rng.integers(0, CLASSES, size)


NETWORK = Network(
    "transformer",
    "transformer encoder of 4 layers, d 256, T 128, batch 8, AdamW",
    Encoder,
    torch_encoder,
    draw,
    8,
    "AdamW",
    {},
    1e-4,
    goal=1.1,
)
