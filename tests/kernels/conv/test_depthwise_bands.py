"""The bands of rows of `depthwise_planes`: vectors inside an image and at its edges, few rows, many rows."""

from __future__ import annotations

import numpy as np
import pytest
from conv_calls import kernel_called, specs_of, taken

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv.cpu_numba_depthwise import bands_table, in_bands
from kernelwright.kernels.conv.problem import problem_of
from kernelwright.kernels.conv.tasks.bands import EDGE_AT, EDGES, INNER
from kernelwright.kernels.op import Sample
from kernelwright.kernels.spec import np_dtype

# Height and width: one band and several, an overlapping last band, fewer rows than a band; widths of one
# vector, of whole vectors, and of a few elements more.
SIZES = ((14, 16), (9, 70), (20, 33), (7, 7), (3, 100), (16, 5), (8, 64))


def _sample(
    size: tuple[int, int], taps: int, stride: int, pads: tuple[int, int], dtype: str, more: str
) -> Sample:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    attrs = {"stride": (stride, stride), "padding": (pads, pads), "groups": 3}
    x, w = draw(2, 3, *size), draw(3, 1, taps, taps)
    if "window" in more:
        room = draw(2, 5, size[0] + 3, size[1] + 2)
        x = room[:, 1:4, 2 : 2 + size[0], 1 : 1 + size[1]]
    residual = None
    if "residual" in more:
        places = [(s + sum(pads) - taps) // stride + 1 for s in size]
        residual = draw(2, 3, *places)
        attrs["activation"] = "relu"
    return Sample(f"{size} {taps} {stride} {pads}", (x, w, draw(3), residual), attrs)


@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_bands_are_right_at_every_edge(taps: int, stride: int) -> None:
    kernel = kernel_called("depthwise_planes")
    for size in SIZES:
        for pads in ((taps // 2, taps // 2), (0, 0), (taps, 1)):
            if min(size) + sum(pads) >= taps:
                sample = _sample(size, taps, stride, pads, "float32", "window")
                assert taken(kernel, sample)
                verdict = check_kernel(kernel, sample, threads=2)
                assert verdict.ok, f"{sample}: {verdict.text}"


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_bands_add_a_residual_before_the_activation(dtype: str) -> None:
    for size in SIZES:
        verdict = check_kernel(
            kernel_called("depthwise_planes"), _sample(size, 3, 1, (1, 1), dtype, "residual")
        )
        assert verdict.ok, f"{size}: {verdict.text}"


def test_vectors_inside_an_image_need_no_masks() -> None:
    specs, attrs = specs_of(_sample((14, 112), 3, 1, (1, 1), "float32", ""))
    p = problem_of(specs, attrs)
    assert in_bands(p)
    table = bands_table(p, 16)
    # The first vector has a tap before the row, the last one behind it.
    assert (table[EDGES], table[INNER]) == (2, 5)
    assert list(table[EDGE_AT : EDGE_AT + 6]) == [-4, 0, 0xFFFE, 0xFFFF, 0xFFFF, 0xFFFF]
