"""The least time in which this machine could do the work, by whatever algorithm the kernel may use.

The roof of a report counts FLOP as the field does: taps on padding, steps past the end of a short sequence.
A kernel may leave those out, and one that declares a larger error (`ExtraError`) may save multiplications, as
Winograd's convolution does. What is left after all that takes at least its FLOP at the peak rate and its
bytes at the rate of the fastest level measured. A time below it says that something was not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from ...kernels.conv.geometry import parts, reached, window
from ...kernels.cpu import roof as measure
from ...kernels.kernel import Kernel
from ...kernels.machine import machine, vector_bytes
from ..machine import Roof
from ..problems import Inputs, Problem

# F(6x6, 3x3) needs 64 multiplications for 36 outputs, 324 as the definition has them; larger tiles lose all
# precision in float32 (Lavin and Gray, CVPR 2016).
WINOGRAD = 324 / 64
# The roof is the best of several short measurements, and clocks move: 3,686 cases measured on the machine
# that this was written on (AMD Zen 5, 2 cores, 2026-11) come to at most 0.85 of it bound by memory.
MARGIN = 1.25
BURST_S, BURSTS = 1e-3, 40


@dataclass(frozen=True)
class Rates:
    """What the machine does in a second, at the very best: FLOP, and bytes from the fastest level."""

    flops: float
    bytes: float

    @classmethod
    def of(cls, roof: Roof, dtype: str, threads: int) -> Rates | None:
        """Those of a roof; None where it was not measured for these threads and this dtype."""
        peak, read = roof.fma.get(threads, {}).get(dtype), roof.read.get(threads)
        return None if peak is None or not read else cls(peak, max(read.values()))

    def least_seconds(self, problem: Problem, inputs: Inputs, kernels: Sequence[Kernel]) -> float:
        """The time that no kernel can be faster than."""
        memory = problem.cost.bytes * _steps_share(problem, inputs) / self.bytes
        return max(least_flops(problem, inputs, kernels) / self.flops, memory)

    def better(self, other: Rates) -> Rates:
        """The higher of each."""
        return Rates(max(self.flops, other.flops), max(self.bytes, other.bytes))


def bursts(dtype: str, threads: int) -> Rates | None:
    """Rates of the best of many bursts of a millisecond, for so many threads that do not hinder each other.

    A roof that was measured while the machine was busy is too low. Bursts fit into its quiet moments.
    """
    element = measure.bfloat16_computes_in() if dtype == "bfloat16" else dtype
    if element is None or element not in (*measure.ITEMSIZE, "tiles"):
        return None
    width = vector_bytes()
    if element == "tiles":
        tiles = measure.tile_loop()
        flops = _best(lambda n: tiles(n), measure.TILE_CHAINS * measure.TILE_FLOP)
    else:
        fma, pairs = measure.loop("fma", element), 2 if element == "pairs" else 1
        flop = 2.0 * pairs * measure.CHAINS[element] * width // measure.ITEMSIZE[element]
        flops = _best(lambda n: fma(n, 0, 0, 0), flop)
    # Half of L2, as the roof has it: with less, the call of the loop would show.
    size = machine().l2 // 2 or 128 << 10
    buffer = np.zeros(size + 64, np.uint8)
    read, step = measure.loop("read"), measure.STREAMS * width
    start = buffer.ctypes.data + -buffer.ctypes.data % 64

    def sweep(n: int) -> None:
        for _ in range(-(-n // (size // step))):
            read(size // step, start, 0, 0)

    return Rates(threads * flops, threads * _best(sweep, step))


_highest: dict[tuple[str, int], Rates] = {}


def highest(dtype: str, threads: int, roof: Rates, again: bool) -> Rates:
    """The highest rates known of: the roof's, and those of all bursts that this process has measured.

    Args:
        dtype, threads: of the work.
        roof: as the report has it.
        again: measure bursts now.
    """
    key = dtype, threads
    known = roof.better(_highest.get(key, roof))
    found = bursts(dtype, threads) if again else None
    _highest[key] = known if found is None else known.better(found)
    return _highest[key]


def _best(work: Callable[[int], Any], amount: float) -> float:
    """Units a second of work(n), which does n times `amount` units."""
    count = 1000
    while (took := _seconds(work, count)) < BURST_S:
        count = int(count * max(1.5, min(10.0, BURST_S / max(took, 1e-7))))
    return count * amount / min(_seconds(work, count) for _ in range(BURSTS))


def _seconds(work: Callable[[int], Any], count: int) -> float:
    start = perf_counter()
    work(count)
    return perf_counter() - start


def least_flops(problem: Problem, inputs: Inputs, kernels: Sequence[Kernel]) -> float:
    """FLOP that no kernel can do without."""
    flops = problem.cost.flops * _steps_share(problem, inputs)
    if problem.operation.family == "conv":
        taps, share = _on_the_image(problem)
        flops *= share
        if tuple(taps) == (3, 3) and any(kernel.error is not None for kernel in kernels):
            flops /= WINOGRAD
    return flops


def _steps_share(problem: Problem, inputs: Inputs) -> float:
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
