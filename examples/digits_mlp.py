"""Handwritten digits with three linear layers, at least 97% right: `python examples/digits_mlp.py`."""

from __future__ import annotations

import digits

import kernelwright as kw

train, test = ((images.reshape(-1, 64), labels) for images, labels in digits.load())

keys = kw.random.split(kw.random.key(0), 3)
model = kw.nn.Sequential(
    kw.nn.Linear(64, 128, key=keys[0]),
    kw.nn.ReLU(),
    kw.nn.Dropout(0.2),
    kw.nn.Linear(128, 128, key=keys[1]),
    kw.nn.ReLU(),
    kw.nn.Dropout(0.2),
    kw.nn.Linear(128, 10, key=keys[2]),
)
EPOCHS = 40
steps = EPOCHS * -(-len(train[0]) // 32)
optimizer = kw.optim.adamw(lr=kw.schedule.one_cycle(3e-3, steps))
done = kw.train.fit(model, digits.cross_entropy, train, optimizer, EPOCHS, validation=test, device="auto")
digits.show("MLP 64-128-128-10", done.history, wanted=0.97)
