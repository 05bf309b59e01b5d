"""The runs of `depthwise`: at the borders of a line, inside it, and past the caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conv_calls import kernel_called, specs_of, taken

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv import cpu_numba_depthwise as depthwise
from kernelwright.kernels.op import Sample
from kernelwright.kernels.spec import np_dtype

# Widths around one run, two runs, and a run inside; channels around one vector and two; paddings that leave
# whole runs outside, and ones that cut x off.
CASES = [
    (width, channels, taps, stride, pads, dilation)
    for width, channels in ((7, 16), (9, 5), (16, 33), (23, 32), (31, 16))
    for taps, stride, pads, dilation in (
        (3, 1, (1, 1), 1),
        (3, 2, (1, 1), 1),
        (5, 1, (0, 0), 1),
        (5, 2, (9, 3), 1),
        (3, 1, (2, 2), 2),
        (2, 3, (0, 1), 1),
    )
]


def _sample(case: tuple[Any, ...], dtype: str, residual: bool) -> Sample:
    width, channels, taps, stride, pads, dilation = case
    rng = np.random.default_rng(width)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    attrs: dict[str, Any] = {"stride": (stride, stride), "padding": (pads, pads), "groups": channels}
    attrs |= {"dilation": (dilation, dilation), "layout": "NHWC", "activation": "relu" if residual else None}
    places = [(size + sum(pads) - dilation * (taps - 1) - 1) // stride + 1 for size in (6, width)]
    x, w = draw(2, 6, width, channels), draw(channels, 1, taps, taps)
    return Sample(str(case), (x, w, draw(channels), draw(2, *places, channels) if residual else None), attrs)


def _computed(sample: Sample, shift: int) -> np.ndarray:
    """The result, in memory `shift` bytes behind a cache line."""
    kernel = kernel_called("depthwise")
    specs, attrs = specs_of(sample)
    out = specs[-1]
    memory = np.full(out.size * out.itemsize + 128, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64 + shift
    y = memory[start : start + out.size * out.itemsize].view(np_dtype(out.dtype)).reshape(out.shape)
    kernel.bind(specs, attrs, {}, 2)(*sample.inputs, y)
    return y


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_runs_are_right(monkeypatch: pytest.MonkeyPatch, dtype: str, far: bool) -> None:
    monkeypatch.setattr(depthwise, "is_far", lambda p: far)
    kernel = kernel_called("depthwise")
    for number, case in enumerate(CASES):
        if case[0] + sum(case[4]) < case[5] * (case[2] - 1) + 1 or (dtype != "float32" and number % 3):
            continue
        sample = _sample(case, dtype, residual=dtype == "float32" and number % 4 == 0)
        assert taken(kernel, sample)
        verdict = check_kernel(kernel, sample, threads=2)
        assert verdict.ok, f"{sample}: {verdict.text}"


def test_past_the_caches_or_not_the_bits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in CASES:
        sample = _sample(case, "float32", residual=False)
        near = _computed(sample, 0)
        with monkeypatch.context() as patch:
            patch.setattr(depthwise, "is_far", lambda p: True)
            for shift in (0, 4):
                assert np.array_equal(_computed(sample, shift), near), (case, shift)


def test_a_large_call_goes_past_the_caches() -> None:
    def problem(batch: int) -> Any:
        x, w = np.empty((batch, 112, 112, 32), np.float32), np.empty((32, 1, 3, 3), np.float32)
        attrs = {"groups": 32, "padding": ((1, 1), (1, 1)), "layout": "NHWC", "stride": (2, 2)}
        specs, complete = specs_of(Sample("large", (x, w, None, None), attrs))
        return depthwise.problem_of(specs, complete)

    small, large = problem(1), problem(512)
    assert (depthwise.is_far(small), depthwise.is_far(large)) == (False, True)
    assert (depthwise.run_of(small), depthwise.run_of(large)) == (depthwise.RUN, depthwise.SHORT_RUN)
