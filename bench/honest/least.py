"""The least time in which this machine could do the work, by whatever algorithm the kernel may use.

The roof of a report counts FLOP as the field does: taps on padding, steps past the end of a short sequence.
A kernel may leave those out, and one that declares a larger error (`ExtraError`) may save multiplications, as
Winograd's convolution does. What is left after all that takes at least its FLOP at the peak rate and its
bytes at the rate of the fastest level measured. A time below it says that something was not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...kernels.conv.geometry import parts, reached, window
from ...kernels.kernel import Kernel
from ..machine import Roof
from ..problems import Inputs, Problem

# F(6x6, 3x3) needs 64 multiplications for 36 outputs, 324 as the definition has them; larger tiles lose all
# precision in float32 (Lavin and Gray, CVPR 2016).
WINOGRAD = 324 / 64
# The roof is the best of several short measurements, and clocks move: 3,686 cases measured on the machine
# that this was written on (AMD Zen 5, 2 cores, 2026-11) come to at most 0.85 of it bound by memory.
MARGIN = 1.25


def least_seconds(
    problem: Problem, inputs: Inputs, kernels: Sequence[Kernel], roof: Roof, threads: int
) -> float | None:
    """Seconds; None where the roof was not measured for these threads and this dtype."""
    peak = roof.fma.get(threads, {}).get(problem.dtype)
    rates = roof.read.get(threads)
    if peak is None or not rates:
        return None
    return max(
        least_flops(problem, inputs, kernels) / peak,
        problem.cost.bytes * _touched(problem, inputs) / max(rates.values()),
    )


def least_flops(problem: Problem, inputs: Inputs, kernels: Sequence[Kernel]) -> float:
    """FLOP that no kernel can do without."""
    flops = problem.cost.flops * _touched(problem, inputs)
    if problem.operation.family == "conv":
        taps, share = _on_the_image(problem)
        flops *= share
        if tuple(taps) == (3, 3) and any(kernel.error is not None for kernel in kernels):
            flops /= WINOGRAD
    return flops


def _touched(problem: Problem, inputs: Inputs) -> float:
    """The share of the steps that sequences of these lengths have."""
    names = problem.operation.inputs
    if "lengths" not in names or inputs[names.index("lengths")] is None:
        return 1.0
    lengths = np.asarray(inputs[names.index("lengths")])
    x = problem.operands[0].shape
    return float(lengths.sum()) / max(1, x[0] * x[1])


def _on_the_image(problem: Problem) -> tuple[tuple[int, ...], float]:
    """The filter's sizes, and the share of the pairs of tap and place that read an image, not padding."""
    attrs, operands = problem.complete, problem.operands
    layout = attrs["layout"]
    first, second, out = operands[0].shape, operands[1].shape, problem.outputs[0].shape
    if problem.op == "conv":
        image, places, taps = first, out, second[2:]
    elif problem.op == "conv_input_grad":
        image, places, taps = out, first, second[2:]
    elif problem.op == "conv_weight_grad":
        image, places, taps = first, second, out[2:]
    else:
        return (), 1.0
    sizes, counts = parts(layout, image)[2], parts(layout, places)[2]
    stride, padding, dilation = window(attrs, len(taps), problem.op)
    shares = []
    for axis, length in enumerate(taps):
        pairs = 0
        for tap in range(length):
            start, end = reached(
                sizes[axis], counts[axis], tap, stride[axis], padding[axis][0], dilation[axis]
            )
            pairs += end - start
        shares.append(pairs / max(1, length * counts[axis]))
    return tuple(taps), prod(shares)
