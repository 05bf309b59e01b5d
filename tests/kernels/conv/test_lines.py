"""Convolutions with few channels: vectors along w."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelwright.kernels import accuracy, dispatch
from kernelwright.kernels.op import Sample, get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.settings import using
from kernelwright.kernels.spec import TensorSpec

WINDOW = {"dilation": (1, 1), "groups": 1, "layout": "NCHW"}


def lines(op: str) -> Any:
    """The kernel of that op."""
    return next(k for k in kernels_for(op) if k.id.endswith("/lines"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("channels", "out", "size", "taps", "pad"),
    [
        (1, 6, (28, 28), (5, 5), (2, 2)),
        (3, 7, (5, 33), (3, 8), (2, 7)),
        (2, 1, (1, 1), (3, 3), (2, 1)),
        (5, 4, (9, 17), (1, 1), (0, 0)),
    ],
)
def test_lines_compute_a_convolution_and_its_gradients(
    dtype: str, channels: int, out: int, size: Any, taps: Any, pad: Any
) -> None:
    rng = np.random.default_rng(0)
    padding = tuple((p, p) for p in pad)
    places = tuple(s + 2 * p - t + 1 for s, p, t in zip(size, pad, taps, strict=True))
    x, w = rng.standard_normal((3, channels, *size)), rng.standard_normal((out, channels, *taps))
    grad, b = rng.standard_normal((3, out, *places)), rng.standard_normal(out)
    x, w, grad, b = (a.astype(dtype) for a in (x, w, grad, b))
    window = {**WINDOW, "stride": (1, 1), "padding": padding}
    for name, arrays, more in (
        ("conv", (x, w, b, None), {"activation": "relu"}),
        ("conv_input_grad", (grad, w, None), {"input_size": size}),
        ("conv_weight_grad", (x, grad), {"kernel_size": taps}),
    ):
        sample = Sample(name, arrays, get_op(name).complete({**window, **more}))
        for threads in (1, 2):
            verdict = accuracy.check_kernel(lines(name), sample, threads=threads)
            assert verdict.ok, verdict.text


def test_lines_are_chosen_for_an_image_of_one_channel() -> None:
    specs = [TensorSpec(s, "float32") for s in ((64, 1, 28, 28), (6, 1, 5, 5), (6,))]
    attrs = get_op("conv").complete({**WINDOW, "stride": (1, 1), "padding": ((2, 2), (2, 2))})
    with using(threads=1):
        choice = dispatch.choose(get_op("conv"), (*specs, TensorSpec.of(None)), attrs)
    assert choice.kernel is lines("conv")
