"""Multiply matrices, look at the choice that was made, and change it: `python quickstart.py`."""

from __future__ import annotations

import numpy as np

import kernelwright as kw

rng = np.random.default_rng(0)
a = rng.standard_normal((512, 256), dtype=np.float32)
b = rng.standard_normal((256, 128), dtype=np.float32)

# NumPy arrays go in as they are; the result is an Array. The first call compiles, and keeps what it compiled.
product = kw.matmul(a, b)
print(product.shape, product.dtype)
print("largest difference from NumPy:", float(np.abs(np.asarray(product) - a @ b).max()))

# Arrays know @, and give their memory to NumPy or to anything that speaks DLPack without a copy.
x, y = kw.array(a), kw.array(b)
assert np.array_equal(np.asarray(x @ y), np.asarray(product))
assert np.from_dlpack(product).shape == (512, 128)

# Into memory of your own, transposed and sliced operands included: nothing is copied on the way.
out = np.empty((128, 512), np.float32)
kw.matmul(b.T, a.T, out=out)
np.testing.assert_allclose(out.T, a @ b, rtol=1e-4, atol=1e-4)

# Which kernel ran, which did not, and why.
print(kw.explain(kw.matmul, a, b))

# Settings hold for a block.
with kw.using(threads=1):
    kw.matmul(a, b, out=np.empty((512, 128), np.float32))
