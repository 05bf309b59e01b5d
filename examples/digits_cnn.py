"""Handwritten digits with a small CNN, at least 98.5% right: `python examples/digits_cnn.py`."""

from __future__ import annotations

import digits

import kernelwright as kw
from kernelwright import nn

train, test = ((images[:, None], labels) for images, labels in digits.load())


def block(inputs: int, outputs: int, key: kw.Array) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, key=key)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


keys = kw.random.split(kw.random.key(0), 4)
model = nn.Sequential(
    block(1, 32, keys[0]),
    block(32, 64, keys[1]),
    nn.MaxPool2d(2),
    block(64, 64, keys[2]),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.3),
    nn.Linear(64 * 2 * 2, 10, key=keys[3]),
)
EPOCHS = 20
steps = EPOCHS * -(-len(train[0]) // 32)
optimizer = kw.optim.adamw(lr=kw.schedule.one_cycle(3e-3, steps))
done = kw.train.fit(model, digits.cross_entropy, train, optimizer, EPOCHS, validation=test, device="auto")
digits.show("CNN of three convolutions", done.history, wanted=0.985)
