"""`bordered`: a copy of x inside zeros, with an even number of channels for pairs of bfloat16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conv_calls import CONV, kernel_called, specs_of, taken

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv.cpu_numba_bordered import bordered_call
from kernelwright.kernels.conv.prepack import multiplies_pairs, prepack
from kernelwright.kernels.op import Sample
from kernelwright.kernels.spec import np_dtype


def call(
    c: int, size: tuple[int, ...], taps: int, pads: tuple[int, int], dtype: str, packed: bool, **more: Any
) -> Sample:
    """A call with normal numbers."""
    rng = np.random.default_rng(c)
    axes = len(size)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    attrs: dict[str, Any] = {"layout": "NHWC", "padding": (pads,) * axes, **more}
    x, w = draw(2, *size, c), draw(9, c, *(taps,) * axes)
    if packed:
        held = prepack("conv", w, layout="NHWC")
        return Sample("border", (x, held.data, draw(9), None), attrs | held_as(held))
    return Sample("border", (x, w, draw(9), None), attrs)


def held_as(held: Any) -> dict[str, Any]:
    """The attributes that say how a weight is packed."""
    return {"w_format": held.format, "w_shape": held.shape}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_it_computes_every_sample_that_it_takes(dtype: str) -> None:
    kernel, count = kernel_called("bordered"), 0
    for place, sample in enumerate(CONV.samples(np.random.default_rng(0), dtype)):
        if taken(kernel, sample) and sample.attrs.get("activation") in (None, "relu"):
            verdict = check_kernel(kernel, sample, threads=1 + place % 3)
            assert verdict.ok, f"{sample}: {verdict.text}"
            count += 1
    assert count >= 10


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("c", [1, 2, 3, 5, 7])
def test_channels_and_borders_of_every_kind(c: int, packed: bool, dtype: str) -> None:
    kernel = kernel_called("bordered")
    for size, taps, pads, more in (
        ((12, 9), 3, (1, 1), {}),
        ((7, 20), 4, (0, 3), {"stride": (2, 3), "activation": "relu"}),
        ((23,), 5, (2, 0), {"stride": (2,)}),
        ((4, 5, 6), 2, (1, 0), {}),
        ((9, 9), 3, (4, 2), {"dilation": (2, 2)}),
    ):
        sample = call(c, size, taps, pads, dtype, packed, **more)
        assert taken(kernel, sample)
        verdict = check_kernel(kernel, sample, threads=2)
        assert verdict.ok, f"{sample}: {verdict.text}"


def test_a_window_of_an_image_is_all_that_is_read() -> None:
    x, w, b, _ = call(3, (14, 15), 3, (1, 1), "bfloat16", packed=False).inputs
    assert x is not None
    sample = Sample("window", (x[:, 2:-3, 1:-1], w, b, None), {"layout": "NHWC", "padding": ((1, 1), (1, 1))})
    verdict = check_kernel(kernel_called("bordered"), sample)
    assert verdict.ok, verdict.text


def test_without_padding_and_pairs_to_make_there_is_nothing_to_do() -> None:
    kernel = kernel_called("bordered")
    specs, attrs = specs_of(call(3, (9, 9), 3, (0, 0), "float32", packed=False))
    assert "would add nothing" in str(kernel.why_not(specs, attrs))
    specs, attrs = specs_of(call(32, (9, 9), 3, (1, 1), "float32", packed=False))
    assert "fewer than 32 channels" in str(kernel.why_not(specs, attrs))


def test_odd_channels_become_even_where_pairs_are_multiplied() -> None:
    specs, attrs = specs_of(call(3, (9, 9), 3, (1, 1), "bfloat16", packed=False))
    inner = bordered_call(specs, attrs)
    wide = multiplies_pairs("bfloat16", 4)
    assert inner.widens is wide
    assert inner.specs[0].shape == (2, 11, 11, 4 if wide else 3)


def test_turned_and_bordered_keep_out_of_each_others_memory() -> None:
    sample = call(3, (40, 40), 7, (3, 3), "float32", packed=False)
    x, w = np.asarray(sample.inputs[0]), np.asarray(sample.inputs[1])
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    with kw.using(backend="bordered", strict=True):
        expected = np.asarray(kw.conv2d(x, w, padding=3, layout="NHWC"))
    with kw.using(backend="turned", strict=True):
        found = np.asarray(kw.conv2d(first, w, padding=3))
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), expected, rtol=0, atol=1e-3)
