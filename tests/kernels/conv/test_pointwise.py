"""`pointwise`: convolutions of one tap as matrix products on the arrays where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conv_calls import kernel_called, specs_of

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Sample
from kernelwright.kernels.registry import kernels_for


def pointwise() -> Kernel:
    (found,) = [kernel for kernel in kernels_for("conv") if kernel.name == "pointwise"]
    return found


def sample(x: np.ndarray, o: int, **more: Any) -> Sample:
    w = np.random.default_rng(o).standard_normal((o, x.shape[1], *(1,) * (x.ndim - 2))).astype(x.dtype)
    return Sample("one tap", (x, w, more.pop("b", None), more.pop("residual", None)), more)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_all_images_are_right(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape, o in (((1, 40, 9, 7), 5), ((3, 17, 28, 28), 64), ((2, 3, 50), 1), ((2, 5, 2, 3, 4), 33)):
        x = rng.standard_normal(shape).astype(dtype)
        # A part of the channels, so that images do not follow each other, and weights in another order.
        for images in (x, rng.standard_normal((shape[0], 2 * shape[1], *shape[2:])).astype(dtype)[:, ::2]):
            call = sample(images, o)
            turned = np.asfortranarray(call.inputs[1])
            for w in (call.inputs[1], turned):
                verdict = check_kernel(
                    pointwise(), Sample(str(shape), (images, w, None, None), {}), threads=2
                )
                assert verdict.ok, f"{shape} {o}: {verdict.text}"


def test_the_result_is_that_of_planes() -> None:
    x = np.random.default_rng(0).standard_normal((2, 64, 14, 14)).astype("f4")
    call = sample(x, 48)
    specs, attrs = specs_of(call)
    results = []
    for kernel in (pointwise(), kernel_called("planes")):
        out = np.full(specs[-1].shape, np.nan, "f4")
        kernel.bind(specs, attrs, kernel.configurations(specs, attrs, 1)[0], 1)(*call.inputs, out)
        results.append(out)
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stride": (2, 2)}, "a single tap with stride 1"),
        ({"padding": ((1, 1), (0, 0))}, "no padding"),
        ({"b": np.ones(6, "f4")}, "no bias"),
        ({"activation": "relu"}, "no activation"),
        ({"layout": "NHWC"}, "planes of pixels side by side"),
    ],
)
def test_other_calls_are_refused_with_a_reason(change: dict[str, Any], reason: str) -> None:
    call = sample(np.ones((2, 6, 6, 6), "f4"), 6, **change)
    why = pointwise().why_not(*specs_of(call))
    assert why is not None
    assert reason in why
