"""An autoencoder squeezes handwritten digits into 8 numbers and draws them again:
`python examples/digits_autoencoder.py [picture.png]`. The picture has digits above their reconstructions.
"""

from __future__ import annotations

import struct
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import digits
import numpy as np

import kernelwright as kw
from kernelwright import nn


def network(sizes: tuple[int, ...], key: kw.Array) -> list[Any]:
    """Linear layers of these sizes with ReLU between them."""
    keys = kw.random.split(key, len(sizes))
    layers: list[Any] = []
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs, key=keys[number]), nn.ReLU()]
    return layers[:-1]


def error(model, images):
    """The mean square of what is drawn wrong."""
    return kw.mse_loss(model(images), images)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Grey pixels, uint8 [height, width], as a PNG file (W3C, "Portable network graphics", 2003)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), "u1"), pixels], axis=1)  # each begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def picture(rows: list[np.ndarray], scale: int = 8, gap: int = 1) -> np.ndarray:
    """Rows of images [n, 8, 8] in 0..1, dark on white, each pixel `scale` wide."""
    framed = [np.pad(images, ((0, 0), (gap, gap), (gap, gap))) for images in rows]
    whole = np.concatenate([np.concatenate(list(images), axis=1) for images in framed], axis=0)
    return np.kron((255 * (1 - np.clip(whole, 0, 1))).astype("u1"), np.ones((scale, scale), "u1"))


(train, _), (test, _) = digits.load()
train, test = train.reshape(-1, 64), test.reshape(-1, 64)
down, up = kw.random.split(kw.random.key(0))
model = nn.Sequential(*network((64, 128, 64, 8), down), *network((8, 64, 128, 64), up), nn.Sigmoid())
EPOCHS = 60
optimizer = kw.optim.adam(lr=kw.schedule.cosine(2e-3, EPOCHS * -(-len(train) // 32)))
done = kw.train.fit(model, error, (train,), optimizer, EPOCHS, validation=(test,), device="auto")
reached, variance = done.history[-1]["val_loss"], test.var(0).mean()

shown = test[:16]
drawn = np.asarray(kw.to_device(done.model, "cpu")(kw.array(shown)))
path = Path(sys.argv[1] if len(sys.argv) > 1 else "digits_autoencoder.png")
write_png(path, picture([shown.reshape(-1, 8, 8), drawn.reshape(-1, 8, 8)]))
print(f"mean square error on the test set {reached:.4f}, of a variance of {variance:.4f}")
print(f"digits and their reconstructions: {path}")
if reached > 0.25 * variance:
    raise SystemExit("the reconstructions lost more than a quarter of the variance")
