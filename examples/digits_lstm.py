"""Handwritten digits read row by row by an LSTM, at least 96% right: `python examples/digits_lstm.py`."""

from __future__ import annotations

import digits

import kernelwright as kw
from kernelwright import nn


class Reader(nn.Module):
    """Reads eight rows of eight pixels; the state after the last one says which digit it was."""

    def __init__(self, hidden: int, key: kw.Array) -> None:
        first, second = kw.random.split(key)
        self.lstm = nn.LSTM(8, hidden, batch_first=True, key=first)
        self.out = nn.Linear(hidden, 10, key=second)

    def __call__(self, images: kw.Array) -> kw.Array:
        _, (h, _) = self.lstm(images)
        return self.out(h[0])


train, test = digits.load()
EPOCHS = 30
steps = EPOCHS * -(-len(train[0]) // 32)
optimizer = kw.optim.adam(lr=kw.schedule.one_cycle(1e-2, steps))
model = Reader(64, kw.random.key(0))
done = kw.train.fit(
    model, digits.cross_entropy, train, optimizer, EPOCHS, validation=test, clip_norm=1.0, device="auto"
)
digits.show("LSTM of 64 units over rows", done.history, wanted=0.96)
