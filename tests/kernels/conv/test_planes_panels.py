"""Panels of pixels of `planes`: vectors that span rows, pixels that are left over, all that can be added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conv_calls import configs, kernel_called, specs_of, taken

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv.plan import plan_planes
from kernelwright.kernels.conv.problem import problem_of
from kernelwright.kernels.errors import ShapeError
from kernelwright.kernels.op import Sample
from kernelwright.kernels.prepack import prepack
from kernelwright.kernels.spec import np_dtype

# Name, batch, channels, output channels, size, taps, stride, padding, groups; and what a panel of 32 leaves.
CASES = (
    ("1x1", 2, 40, 26, (7, 7), 1, 1, 0, 1, 0),
    ("1x1, one left", 1, 19, 14, (5, 13), 1, 1, 0, 1, 1),
    ("1x1, two left in each image", 2, 8, 25, (6, 11), 1, 1, 0, 1, 2),
    ("3x3, four left", 2, 11, 20, (14, 14), 3, 1, 1, 1, 4),
    ("3x3, stride 2, three left", 1, 6, 13, (13, 10), 3, 2, 1, 1, 3),
    ("3x3, no padding, three left", 1, 6, 13, (7, 9), 3, 1, 0, 1, 3),
    ("3x3, groups, one left", 1, 9, 21, (5, 13), 3, 1, 1, 3, 1),
    ("3x3, rows of 3", 2, 5, 9, (40, 3), 3, 1, 1, 1, 0),
    ("3x3, rows of 50", 1, 5, 9, (4, 50), 3, 1, 1, 1, 0),
    ("5x5, stride 2", 1, 5, 9, (17, 23), 5, 2, 2, 1, 0),
)


def _sample(case: tuple, dtype: str, added: bool) -> Sample:  # type: ignore[type-arg]
    name, batch, channels, out, size, taps, stride, pad, groups, _ = case
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    attrs = {"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "groups": groups}
    residual = None
    if added:
        places = [(s + 2 * pad - taps) // stride + 1 for s in size]
        residual = draw(batch, out, *places)
        attrs["activation"] = "relu"
    x, w = draw(batch, channels, *size), draw(out, channels // groups, taps, taps)
    return Sample(name, (x, w, draw(out), residual), attrs)


@pytest.mark.parametrize(("dtype", "added"), [("float32", True), ("float64", False), ("bfloat16", True)])
def test_panels_and_what_they_leave_are_right(dtype: str, added: bool) -> None:
    kernel = kernel_called("planes")
    for case in CASES:
        sample = _sample(case, dtype, added)
        assert taken(kernel, sample)
        (config,) = [c for c in configs(kernel, sample) if (c["mr"], c["nv"]) in ((12, 2), (6, 2))]
        for kc in (config["kc"], 20):
            verdict = check_kernel(kernel, sample, {**config, "kc": kc}, threads=2)
            assert verdict.ok, f"{sample} {kc}: {verdict.text}"


def test_few_pixels_beyond_whole_panels_are_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", "64")
    for case in CASES:
        specs, attrs = specs_of(_sample(case, "float32", False))
        plan = plan_planes(problem_of(specs, attrs), {"mr": 12, "nv": 2, "kc": 2304}, 1)
        assert plan.left == case[-1], case[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_panels_are_turned_back_into_rows(dtype: str) -> None:
    rng = np.random.default_rng(0)
    # Whole tiles of lanes x lanes, and channels and terms beyond them, in two groups.
    x, w = rng.standard_normal((1, 14, 5, 5)), rng.standard_normal((170, 7, 3, 3))
    x, w = x.astype(dtype), w.astype(dtype)
    with kw.using(threads=2):
        plain = np.asarray(kw.conv2d(x, w, padding=1, groups=2))
        packed = np.asarray(kw.conv2d(x, prepack("conv", w, groups=2), padding=1, groups=2))
    np.testing.assert_array_equal(packed, plain)


def test_packed_weights_must_be_as_long_as_their_shape() -> None:
    packed = prepack("conv", np.ones((4, 3, 3, 3), "float32"), layout="NCHW")
    short = replace(packed, data=packed.data[:-1])
    with pytest.raises(ShapeError, match="packed weight"):
        kw.conv2d(np.ones((1, 3, 5, 5), "float32"), short)
