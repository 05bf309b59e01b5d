"""The Triton pooling kernels compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.runtime.errors import InterpreterError  # noqa: E402
from triton_interpreter import check, interpreted, kernel_by_id  # noqa: E402

from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.pool.cuda import window_kernels  # noqa: E402

pytestmark = interpreted

OPS = ("max_pool", "avg_pool", "max_pool_grad", "avg_pool_grad", "max_pool_take")

# Each stands for what no other does: strides, sides, ranks, windows of their own sizes, taps in a loop.
WINDOWS = (
    "2x2, odd rows",
    "3x3 by 2",
    "steps of 3",
    "a pad for each side",
    "rounded up",
    "one",
    "a sequence",
    "a volume",
    "adaptive, N",
    "adaptive, larger",
    "whole images",
    "whole volumes",
    "long windows, uneven",
    "gaps by 2",
    "padding left out, up",
    "a divisor",
)
MEMORY = (
    "channels last in memory",
    "steps everywhere",
    "turned",
    "channels apart",
    "one image",
    "a gradient of",
)
NUMBERS = ("infinities and NaN", "equal elements", "minus infinity")


@cache
def samples(op: str, dtype: str) -> tuple[Sample, ...]:
    """The op's samples that torch can hold, with something to compute."""
    found = get_op(op).samples(np.random.default_rng(0), dtype)
    return tuple(s for s in found if not untakeable(s) and not s.name.startswith(("no images", "no windows")))


def named(op: str, dtype: str, *beginnings: str) -> Iterator[Sample]:
    """Of the samples whose names begin so one for each, in one layout and the other by turns."""
    for place, name in enumerate(beginnings):
        found = [s for s in samples(op, dtype) if s.name.startswith(name)]
        if found:
            yield found[place % 2 * (len(found) - 1)]


def prove(op: str, sample: Sample, **how: Any) -> None:
    verdict = check(f"{op}/cuda_triton/windows", sample, **how)
    assert verdict.ok, f"{op} of {sample!r}: {verdict.text}"


@pytest.mark.parametrize("op", OPS)
def test_windows_of_every_kind(op: str) -> None:
    for sample in named(op, "float32", *WINDOWS):
        prove(op, sample)


@pytest.mark.parametrize("op", OPS)
def test_any_memory_is_read_right(op: str) -> None:
    for sample in named(op, "float32", *MEMORY):
        prove(op, sample)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_dtype(dtype: str) -> None:
    for op in OPS:
        for sample in named(op, dtype, "3x3 by 2", "adaptive, N", "whole images"):
            prove(op, sample)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_of_equals_and_the_last_nan_are_chosen(dtype: str) -> None:
    for sample in (s for s in samples("max_pool", dtype) if s.name.startswith(NUMBERS)):
        prove("max_pool", sample)
    for sample in named("avg_pool", "float32", *NUMBERS):
        prove("avg_pool", sample)


def test_taps_beyond_a_byte_are_counted() -> None:
    for sample in named("max_pool", "float32", "many taps"):
        prove("max_pool", sample)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_taps_become_places(dtype: str) -> None:
    found = list(named("max_pool_indices", dtype, "many taps", *WINDOWS, *MEMORY))
    assert found
    for sample in found:
        prove("max_pool_indices", sample)


def test_taps_that_stand_for_nothing_are_zeros() -> None:
    """Whatever taps hold, no other memory is read."""
    taps = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    window = {"kernel_size": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
    prove("max_pool_take", Sample("all taps", (x, taps), window))


def test_results_of_any_order_are_written() -> None:
    """NCHW in the order of channels last: threads lie along channels."""
    (sample,) = named("max_pool", "float32", "channels last in memory")
    kernel = kernel_by_id("max_pool/cuda_triton/windows")
    y, taps = cuda_specs(kernel, sample)[1:]
    _, c, h, w = y.shape
    outputs = [
        type(y)(s.shape, s.dtype, "cuda", tuple(k * s.itemsize for k in (h * w * c, 1, w * c, c)))
        for s in (y, taps)
    ]
    prove("max_pool", sample, outputs=outputs)


def test_the_order_of_programs_does_not_matter() -> None:
    for op in OPS:
        for sample in named(op, "float32", "3x3 by 2", "whole images"):
            prove(op, sample, backwards=True)


@triton.jit
def _seen_everywhere(start, count, k, size, D: tl.constexpr):
    """What reads beyond the edges of an image."""
    return start + k * D, k < count


def test_a_kernel_that_reads_the_padding_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_kernels, "seen", _seen_everywhere)
    (sample,) = named("max_pool", "float32", "a pad for each side")
    with pytest.raises((InterpreterError, AssertionError), match=r"OutOfBoundsError|wrong"):
        prove("max_pool", sample)
