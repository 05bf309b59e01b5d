"""A language model of characters, two layers of LSTM, reads the project's own licence and writes on:
`python examples/char_rnn.py [text file]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import kernelwright as kw
from kernelwright import nn

STEPS, BATCH, EPOCHS = 32, 32, 15


class Writer(nn.Module):
    """Characters [B, T] -> for each place, a score for every character that may come next."""

    def __init__(self, letters: int, hidden: int, key: kw.Array) -> None:
        keys = kw.random.split(key, 3)
        self.embed = nn.Embedding(letters, 32, key=keys[0])
        self.lstm = nn.LSTM(32, hidden, num_layers=2, dropout=0.1, batch_first=True, key=keys[1])
        self.out = nn.Linear(hidden, letters, key=keys[2])

    def __call__(self, letters: kw.Array, state: Any = None) -> tuple[kw.Array, Any]:
        y, state = self.lstm(self.embed(letters), state)
        return self.out(y), state


def loss(model, letters, following):
    """Cross-entropy of the next character, in nats."""
    scores, _ = model(letters)
    return kw.cross_entropy(scores.reshape((-1, scores.shape[-1])), following.reshape((-1,)))


@kw.compile
def next_letter(model, letter, state, key):
    """A letter drawn from what the model expects, at a temperature of 0.7, by Gumbel's trick."""
    scores, state = model(letter, state)
    noise = -kw.log(-kw.log(kw.random.uniform(key, scores.shape, low=1e-9)))
    return kw.argmax(scores / 0.7 + noise, -1), state


path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "LICENSE"
text = path.read_text(encoding="utf-8")
alphabet = sorted(set(text))
letters = np.array([alphabet.index(letter) for letter in text])
starts = np.arange(0, len(letters) - STEPS - 1, 3)
data = tuple(np.stack([letters[s + shift : s + shift + STEPS] for s in starts]) for shift in (0, 1))

model = Writer(len(alphabet), 128, kw.random.key(0))
optimizer = kw.optim.adam(lr=kw.schedule.one_cycle(5e-3, EPOCHS * -(-len(starts) // BATCH)))
done = kw.train.fit(model, loss, data, optimizer, EPOCHS, batch_size=BATCH, clip_norm=1.0)

letter, state, written = kw.array(letters[None, :1]), None, ""
state = (kw.zeros((2, 1, 128)),) * 2
for number in range(400):
    letter, state = next_letter(done.model, letter, state, kw.random.fold_in(kw.random.key(1), number))
    written += alphabet[int(letter[0, 0])]
print(
    f"\n{done.history[-1]['loss'] / np.log(2):.3f} bits a character of {path.name}; it writes:\n\n{written}"
)
