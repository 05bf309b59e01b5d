"""What a weight will be is known before it is packed; few pixels by many weights are right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.conv.prepack import packed_form
from kernelwright.kernels.machine import machine
from kernelwright.kernels.prepack import prepack
from kernelwright.kernels.spec import np_dtype

SHAPES = [(24, 16, 3, 3), (6, 3, 7, 7), (64, 64, 1, 1), (16, 1, 3, 3), (8, 4, 3), (12, 6, 2, 2, 2)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_form_of_a_packed_weight_is_known_ahead(shape: tuple[int, ...], dtype: str) -> None:
    weight = np.ones(shape, np_dtype(dtype))
    groups = shape[0] if shape[1] == 1 else 2
    for layout, stride, some in itertools.product(("NCHW", "NHWC"), (1, 2), (1, groups)):
        attrs = {"layout": layout, "stride": (stride,) * (len(shape) - 2)}
        made = prepack("conv", weight, groups=some, **attrs)
        assert (made.format, made.data.size) == packed_form(shape, dtype, some, None, attrs)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_few_pixels_by_weights_beyond_the_caches_are_right(pixels: int, threads: int) -> None:
    rng = np.random.default_rng(pixels)
    channels = 64 * int(np.ceil(np.sqrt(machine().l2 / 9 / 4) / 64) + 1)
    x = rng.standard_normal((1, pixels, 2, channels)).astype(np.float32)
    w = rng.standard_normal((channels, channels, 3, 3)).astype(np.float32) / np.float32(np.sqrt(9 * channels))
    packed = prepack("conv", w, layout="NHWC", winograd=0)
    with kw.using(threads=threads):
        found = np.asarray(kw.conv2d(x, packed, padding=1, layout="NHWC"))
    wide = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = np.zeros(found.shape)
    for i, j in itertools.product(range(3), range(3)):
        exact += wide[:, i : i + pixels, j : j + 2] @ w[:, :, i, j].T.astype(np.float64)
    assert np.abs(found - exact).max() < 1e-5
