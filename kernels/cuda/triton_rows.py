"""Reductions of a tile along its second axis, [R, C] -> [R, 1], in a fixed order. Needs triton.

The largest and the smallest of numbers are NaN where one of them is; `tl.max` passes over NaN. Triton's
interpreter walks through reductions by functions of one's own element by element: there NumPy does them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton
import triton.language as tl


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _product(a, b):
    return a * b


@triton.jit
def _total(a, b):
    return a + b


def _by_numpy(function: Any) -> Any:
    from triton.runtime.interpreter import TensorHandle

    def call(x: Any) -> Any:
        data = x.handle.data
        found = function(data, axis=1, keepdims=True).astype(data.dtype)
        return tl.tensor(TensorHandle(found, x.dtype), tl.block_type(x.dtype, list(found.shape)))

    return call


if type(_larger).__name__ == "InterpretedFunction":
    row_sum, row_prod = _by_numpy(np.sum), _by_numpy(np.prod)
    row_max, row_min = _by_numpy(np.max), _by_numpy(np.min)
else:

    @triton.jit
    def row_sum(x):
        """The sum of each row."""
        return tl.reduce(x, 1, _total, keep_dims=True)

    @triton.jit
    def row_prod(x):
        """The product of each row."""
        return tl.reduce(x, 1, _product, keep_dims=True)

    @triton.jit
    def row_max(x):
        """The largest of each row; NaN where one is."""
        return tl.reduce(x, 1, _larger, keep_dims=True)

    @triton.jit
    def row_min(x):
        """The smallest of each row; NaN where one is."""
        return tl.reduce(x, 1, _smaller, keep_dims=True)
