"""A language model of two LSTM layers, of the size that Zaremba et al. (2014) trained on the Penn
Treebank."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....engine import nn
from .network import Batch, Network

WORDS, HIDDEN, STEPS = 10_000, 256, 35


class Language(nn.Module):
    """As kernelwright has it. words: [T, B] -> [T B, words]."""

    def __init__(self, key: int, hidden: int = HIDDEN):
        self.embed = nn.Embedding(WORDS, hidden, key=key)
        self.lstm = nn.LSTM(hidden, hidden, 2, key=key + 1)
        self.out = nn.Linear(hidden, WORDS, key=key + 2)

    def __call__(self, words: Any) -> Any:
        y, _ = self.lstm(self.embed(words))
        return self.out(y).reshape((-1, WORDS))


def torch_language(hidden: int = HIDDEN) -> Any:
    """The same as torch has it."""
    from torch import nn as tnn

    class Language(tnn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = tnn.Embedding(WORDS, hidden)
            self.lstm = tnn.LSTM(hidden, hidden, 2)
            self.out = tnn.Linear(hidden, WORDS)

        def forward(self, words: Any) -> Any:
            y, _ = self.lstm(self.embed(words))
            return self.out(y).reshape(-1, WORDS)

    return Language()


def draw(rng: np.random.Generator, size: int) -> Batch:
    """Inputs and labels."""
    words = rng.integers(0, WORDS, (STEPS + 1, size))
    return words[:-1].copy(), words[1:].reshape(-1).copy()


NETWORK = Network(
    "lstm",
    "LSTM language model, 2 x 256, T 35, batch 20, 10,000 words, Adam",
    Language,
    torch_language,
    draw,
    20,
    "Adam",
    {},
    1e-3,
    goal=1.4,
)
