"""A transformer encoder of four layers (Vaswani et al. 2017) that classifies texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from .... import mean
from ....engine import nn
from .network import Batch, Network

WORDS, WIDTH, HEADS, INNER, LAYERS, STEPS, CLASSES = 1000, 256, 4, 1024, 4, 128, 10


class Encoder(nn.Module):
    """As kernelwright has it. words: [B, T] -> [B, classes]."""

    def __init__(self, key: int):
        self.embed = nn.Embedding(WORDS, WIDTH, key=key)
        self.place = nn.Embedding(STEPS, WIDTH, key=key + 1)
        layers = [
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, INNER, dropout=0.0, batch_first=True, key=key + 2 + number
            )
            for number in range(LAYERS)
        ]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(WIDTH, CLASSES, key=key + 10)

    def __call__(self, words: Any) -> Any:
        x = self.layers(self.embed(words) + self.place.weight)
        return self.out(mean(x, axis=1))


def torch_encoder() -> Any:
    """The same as torch has it."""
    from torch import nn as tnn

    class Encoder(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = tnn.Embedding(WORDS, WIDTH)
            self.place = tnn.Embedding(STEPS, WIDTH)
            layers = [
                tnn.TransformerEncoderLayer(WIDTH, HEADS, INNER, dropout=0.0, batch_first=True)
                for _ in range(LAYERS)
            ]
            self.layers = tnn.Sequential(*layers)
            self.out = tnn.Linear(WIDTH, CLASSES)

        def forward(self, words: Any) -> Any:
            x = self.layers(self.embed(words) + self.place.weight)
            return self.out(x.mean(1))

    return Encoder()


def draw(rng: np.random.Generator, size: int) -> Batch:
    """Inputs and labels."""
    return rng.integers(0, WORDS, (size, STEPS)), rng.integers(0, CLASSES, size)


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
