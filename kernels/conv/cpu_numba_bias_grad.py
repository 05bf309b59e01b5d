"""Bias gradients of convolutions on the CPU: db[o] = the sum of grad[n, p, o] over images and pixels.

    sums     rows of channels are added up where channels are side by side, else lines of pixels
             (tasks/bias_grad.py); as fast as grad can be read

Any strides are read in place. An axis of stride 0, as the gradient of a plain sum has, is a multiplication.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernel import Config, Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from .cpu_numba_weight_grad import write_zeros
from .geometry import channel_axis
from .tasks import bias_grad as words

DTYPES = ("float32", "float64")
ELEMENTS_PER_THREAD = 50_000  # that a second thread is worth starting for


def joined_axes(spec: TensorSpec, channel: int) -> tuple[list[tuple[int, int]], int]:
    """The axes but the channels' as (length, stride), the innermost first, and how often each element counts.

    Axes that follow each other without a gap are one; those of stride 0 are left out and counted.
    """
    axes = [(spec.shape[i], spec.strides[i]) for i in range(spec.ndim) if i != channel and spec.shape[i] > 1]
    factor = 1
    for length, stride in axes:
        factor *= length if stride == 0 else 1
    joined: list[tuple[int, int]] = []
    for length, stride in sorted((a for a in axes if a[1]), key=lambda axis: abs(axis[1])):
        if joined and stride == joined[-1][0] * joined[-1][1]:
            joined[-1] = (joined[-1][0] * length, joined[-1][1])
        else:
            joined.append((length, stride))
    return joined or [(1, spec.itemsize)], factor


@kernel("conv_bias_grad", dtypes=DTYPES, rank=1, binds=True)
def sums(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Vector sums over pixels, by rows of channels or channel by channel."""
    from ..cpu.launch import address_of_task, bind_phases

    grad, db = specs
    if grad.size == 0:
        return write_zeros
    channel = channel_axis(attrs["layout"], grad.ndim)
    channels, g_c, size = grad.shape[channel], grad.strides[channel], grad.itemsize
    axes, factor = joined_axes(grad, channel)
    wide = g_c == size and channels > 1 and (axes[0][1] != size or axes[0][0] == 1)
    runs = max(1, min(threads, axes[0][0] if wide else channels, grad.size // factor // ELEMENTS_PER_THREAD))
    row = -(-channels * size // 64) * 64
    block: Any = np.zeros(words.WORDS, np.int64)
    for place, value in {
        words.CHANNELS: channels,
        words.G_C: g_c,
        words.DB_C: db.strides[0],
        words.FACTOR: factor,
        words.RUNS: runs,
        words.RUN_BYTES: row,
    }.items():
        block[place] = value
    block[words.LENGTHS : words.LENGTHS + 4] = [length for length, _ in axes] + [1] * (4 - len(axes))
    block[words.STRIDES : words.STRIDES + 4] = [stride for _, stride in axes] + [0] * (4 - len(axes))
    key, name = (grad.dtype, vector_bytes() // size), f"convolution bias gradient for {grad.dtype}"
    columns, gather, lines = (
        (lambda task=task: address_of_task(task, key, name)) for task in words.bias_grad_tasks(*key)
    )
    if wide:
        return bind_phases(block, 2, [(columns(), runs), (gather(), 1)], 3 * row * runs)
    return bind_phases(block, 2, [(lines(), runs)])
