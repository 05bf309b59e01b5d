"""Results that are written past the caches: the same bits, wherever they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conv_calls import kernel_called, specs_of, taken

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv import block
from kernelwright.kernels.conv.problem import problem_of
from kernelwright.kernels.machine import vector_bytes
from kernelwright.kernels.op import Sample

# Channels and pixels whose lines all start at cache lines, and others; some with a part of a tile left over.
CASES = [
    (o, size, stride, groups)
    for o, size in ((64, (8, 16)), (80, (6, 32)), (32, (4, 48)), (20, (8, 16)), (64, (9, 13)))
    for stride, groups in ((1, 1), (2, 1), (1, 4))
]


def call(case: tuple[Any, ...], layout: str) -> Sample:
    """A call with normal numbers whose result is [2, o, h, w] or [2, h, w, o]."""
    o, (h, w), stride, groups = case
    rng = np.random.default_rng(o)
    x = rng.standard_normal((2, stride * h, stride * w, 8)).astype("f4")
    x = x if layout == "NHWC" else np.ascontiguousarray(np.moveaxis(x, -1, 1))
    weight = rng.standard_normal((o, 8 // groups, 3, 3)).astype("f4")
    attrs = {"layout": layout, "stride": (stride, stride), "padding": ((1, 1), (1, 1)), "groups": groups}
    b = rng.standard_normal(o).astype("f4")
    return Sample(str(case), (x, weight, b, None), attrs)


def computed(name: str, sample: Sample, shift: int) -> np.ndarray:
    """The result, in memory `shift` bytes behind a cache line."""
    kernel = kernel_called(name)
    specs, attrs = specs_of(sample)
    out = specs[-1]
    memory = np.full(out.nbytes + 128, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64 + shift
    y = memory[start : start + out.nbytes].view("f4").reshape(out.shape)
    kernel.bind(specs, attrs, kernel.configurations(specs, attrs, 2)[0], 2)(*sample.inputs, y)
    return y


@pytest.mark.parametrize(("name", "layout"), [("direct", "NHWC"), ("planes", "NCHW"), ("rows", "NCHW")])
def test_results_past_the_caches_are_right(monkeypatch: pytest.MonkeyPatch, name: str, layout: str) -> None:
    for case in CASES:
        sample = call(case, layout)
        if name == "rows" and case[3] > 1:
            continue  # for one group
        assert taken(kernel_called(name), sample)
        near = computed(name, sample, 0)
        with monkeypatch.context() as patch:
            patch.setattr(block, "is_large", lambda nbytes: True)
            verdict = check_kernel(kernel_called(name), sample, threads=2)
            assert verdict.ok, f"{sample}: {verdict.text}"
            for shift in (0, 4):
                assert np.array_equal(computed(name, sample, shift), near), (case, shift)


def test_only_lines_that_are_large_go_past_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = call((64, (8, 16), 1, 1), "NHWC")
    p = problem_of(*specs_of(sample))
    assert not block.goes_past(p, 64), "a small result"
    monkeypatch.setattr(block, "is_large", lambda nbytes: True)
    assert block.goes_past(p, 64, 256) is (vector_bytes() == 64)
    assert not block.goes_past(p, 64, 96), "not all lines start at cache lines"


@pytest.mark.parametrize("stride", [1, 2])
def test_panels_inside_a_long_line_are_right(stride: int) -> None:
    rng = np.random.default_rng(stride)
    for width, taps, pads, dilation, c in (
        (230, (3, 3), ((0, 0), (0, 0)), 1, 1),
        (230, (3, 5), ((1, 1), (2, 2)), 1, 3),
        (333, (2, 20), ((2, 0), (0, 0)), 1, 1),
        (250, (3, 3), ((2, 2), (0, 0)), 3, 2),
    ):
        x = rng.standard_normal((1, c, 7, width)).astype("f4")
        w = rng.standard_normal((9, c, *taps)).astype("f4")
        attrs = {"stride": (stride, stride), "padding": pads, "dilation": (dilation, dilation)}
        verdict = check_kernel(kernel_called("planes"), Sample("long", (x, w, None, None), attrs), threads=2)
        assert verdict.ok, f"{width} {taps} {pads}: {verdict.text}"
