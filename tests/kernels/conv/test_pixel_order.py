"""Tiles of pixels that miss the same taps: every pixel once, fewer taps, the bits of the order of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conv_calls import kernel_called, specs_of

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv import cpu_numba as direct_file
from kernelwright.kernels.conv import pixel_order as orders
from kernelwright.kernels.conv.plan import plan
from kernelwright.kernels.conv.problem import problem_of
from kernelwright.kernels.op import Sample
from kernelwright.kernels.spec import np_dtype

# (images, size, taps, stride, padding, dilation, groups)
CASES: list[tuple[int, tuple[int, ...], int, int, int, int, int]] = [
    (8, (7, 7), 3, 1, 1, 1, 1),
    (1, (7, 7), 3, 1, 1, 1, 1),
    (1, (14, 14), 3, 2, 1, 1, 1),
    (3, (5, 9), 5, 1, 2, 1, 2),
    (2, (6, 6), 3, 1, 2, 2, 1),
    (2, (4, 5, 3), 3, 1, 1, 1, 1),
    (5, (9,), 3, 1, 1, 1, 1),
    (2, (3, 3), 3, 1, 3, 1, 1),  # pixels whose taps are all on padding
]
CHANNELS = 40


def _sample(case: tuple[Any, ...], dtype: str = "float32", residual: bool = False) -> Sample:
    n, size, taps, stride, pad, dilation, groups = case
    rng = np.random.default_rng(n)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    axes = len(size)
    attrs: dict[str, Any] = {"stride": (stride,) * axes, "padding": ((pad, pad),) * axes, "groups": groups}
    attrs |= {"dilation": (dilation,) * axes, "layout": "NHWC"}
    places = [(s + 2 * pad - dilation * (taps - 1) - 1) // stride + 1 for s in size]
    x, w = draw(n, *size, CHANNELS * groups), draw(24 * groups, CHANNELS, *(taps,) * axes)
    other = draw(n, *places, 24 * groups) if residual else None
    return Sample(str(case), (x, w, draw(24 * groups), other), attrs)


def _order(case: tuple[Any, ...], threads: int, mr: int = 6) -> Any:
    p = problem_of(*specs_of(_sample(case)))
    return p, orders.pixel_order(p, plan(p, {"mr": mr, "nv": 4, "kc": 2304}, threads), mr)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_pixel_is_computed_once_and_taps_are_saved(threads: int) -> None:
    saved = 0
    for case in CASES:
        p, order = _order(case, threads)
        if order is None:
            continue
        assert sorted(order) == list(range(p.pixels))
        axes = tuple(zip(p.size, p.places, p.taps, p.stride, p.lo, p.dilation, strict=True))
        met = orders.taps_met(p.n, axes)
        before, after = orders.taps_of_tiles(met, 6), orders.taps_of_tiles(met[order], 6)
        assert met.sum() / 6 <= after < before, case
        saved += 1
    assert saved >= 3


def test_an_image_without_padding_stays_in_order() -> None:
    assert _order((8, (7, 7), 3, 1, 0, 1, 1), 1)[1] is None


@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_are_those_of_the_order_of_memory(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = kernel_called("direct")
    for number, case in enumerate(CASES):
        sample = _sample(case, residual=number % 2 == 0)
        specs, attrs = specs_of(sample)
        results = []
        for ordered in (True, False):
            with monkeypatch.context() as patch:
                if not ordered:
                    patch.setattr(direct_file, "pixel_order", lambda p, how, mr: None)
                out = np.full(specs[-1].shape, np.nan, np.float32)
                config = kernel.configurations(specs, attrs, threads)[0]
                kernel.bind(specs, attrs, config, threads)(*sample.inputs, out)
                results.append(out)
        assert np.array_equal(*results), case


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_results_are_right(dtype: str) -> None:
    for number, case in enumerate(CASES):
        verdict = check_kernel(kernel_called("direct"), _sample(case, dtype, number % 2 == 1), threads=2)
        assert verdict.ok, f"{case}: {verdict.text}"
