"""`rows`, the kernels of convolution and its gradients along rows of pixels: results, refusals, plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.dispatch import choose
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import np_dtype

OPS = ("conv", "conv_input_grad", "conv_weight_grad")


def kernel_of(op: str) -> Kernel:
    """The kernel `rows` of an op."""
    (found,) = [kernel for kernel in kernels_for(op) if kernel.name == "rows"]
    return found


def random_sample(op: str, dtype: str, seed: int) -> Sample:
    """A convolution of few channels with stride 1: uneven paddings, dilations and memory."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    n, c, o = (int(rng.integers(1, most)) for most in (5, 10, 12))
    taps = tuple(int(k) for k in rng.integers(1, 6, 2))
    dilation = tuple(int(d) for d in rng.integers(1, 3, 2))
    reach = [(k - 1) * d for k, d in zip(taps, dilation, strict=True)]
    padding = tuple(tuple(int(rng.integers(0, r + 1)) for _ in range(2)) for r in reach)
    size = tuple(
        int(rng.integers(max(1, r + 1 - sum(p)), r + top))
        for r, p, top in zip(reach, padding, (12, 40), strict=True)
    )
    places = [s + sum(p) - r for s, p, r in zip(size, padding, reach, strict=True)]
    attrs: dict[str, Any] = {"padding": padding, "dilation": dilation, "stride": (1, 1)}
    x, grad = draw(n, c, *size), draw(n, o, *places)
    w = draw(o, c, *taps)
    if seed % 3 == 1:  # windows of larger arrays
        room = draw(n, c + 1, size[0] + 2, size[1] + 3)
        x = room[:, 1:, 1:-1, 2:-1]
    if seed % 3 == 2:  # weights and images in another order
        w, grad = np.ascontiguousarray(w.T).T, draw(o, n, *places).swapaxes(0, 1)[:, ::-1]
    if op == "conv":
        attrs["activation"] = (None, "relu")[seed % 2]
        return Sample(f"random {seed}", (x, w, draw(o) if seed % 4 else None, None), attrs)
    if op == "conv_input_grad":
        inputs = (grad, w, None if seed % 4 else draw(c))
        return Sample(f"random {seed}", inputs, {**attrs, "input_size": size})
    return Sample(f"random {seed}", (x, grad), {**attrs, "kernel_size": taps})


def specs_of(op: str, sample: Sample) -> tuple[tuple[TensorSpec, ...], dict[str, Any]]:
    """The specs of inputs and output, and the complete attributes."""
    attrs = get_op(op).complete(sample.attrs)
    specs = tuple(map(TensorSpec.of, sample.inputs))
    return (*specs, *get_op(op).infer(specs, **attrs)), attrs


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_problems_are_right(op: str, dtype: str) -> None:
    kernel = kernel_of(op)
    for seed in range(4):
        sample = random_sample(op, dtype, seed)
        verdict = check_kernel(kernel, sample, threads=1 + seed % 3)
        assert verdict.ok, f"{sample}: {verdict.text}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 1)])
def test_strides_are_right(dtype: str, stride: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for size, taps, padding, dilation in (
        ((31, 45), (7, 7), ((3, 3), (3, 3)), (1, 1)),
        ((9, 6), (2, 3), ((0, 1), (2, 0)), (2, 3)),
        ((5, 70), (1, 4), ((0, 0), (5, 6)), (1, 2)),
        ((4, 1), (3, 1), ((1, 1), (0, 0)), (1, 1)),
    ):
        x, w = (rng.standard_normal(s).astype(dtype) for s in ((2, 3, *size), (9, 3, *taps)))
        attrs = {"padding": padding, "dilation": dilation, "stride": stride}
        sample = Sample(f"{size} {taps}", (x, w, np.ones(9, dtype), None), attrs)
        verdict = check_kernel(kernel_of("conv"), sample, threads=2)
        assert verdict.ok, f"{sample}: {verdict.text}"


def test_images_larger_than_a_band_are_right() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 70, 90)), rng.standard_normal((5, 3, 5, 5))
    grad = rng.standard_normal((2, 5, 70, 90))
    attrs = {"padding": ((2, 2), (2, 2)), "stride": (1, 1)}
    for op, inputs, more in (
        ("conv", (x, w, None, None), {}),
        ("conv_input_grad", (grad, w, None), {"input_size": (70, 90)}),
        ("conv_weight_grad", (x, grad), {"kernel_size": (5, 5)}),
    ):
        verdict = check_kernel(kernel_of(op), Sample("bands", inputs, {**attrs, **more}), threads=2)
        assert verdict.ok, f"{op}: {verdict.text}"


def test_padding_adds_nothing_to_the_gradient_of_infinite_slopes() -> None:
    x, grad = np.ones((1, 1, 3, 3), "float32"), np.zeros((1, 1, 3, 3), "float32")
    grad[0, 0, 0, 0] = np.inf
    sample = Sample("inf", (x, grad), {"padding": ((1, 1), (1, 1)), "stride": (1, 1), "kernel_size": (3, 3)})
    specs, attrs = specs_of("conv_weight_grad", sample)
    dw = np.zeros((1, 1, 3, 3), "float32")
    kernel_of("conv_weight_grad").bind(specs, attrs, {}, 1)(x, grad, dw)
    # The first row and column of taps lie on padding there.
    assert not np.isnan(dw).any()
    np.testing.assert_array_equal(np.isinf(dw[0, 0]), [[False] * 3, [False, True, True], [False, True, True]])


@pytest.mark.parametrize("op", OPS)
def test_equal_threads_give_equal_bits(op: str) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((16, 4, 28, 28)), rng.standard_normal((6, 4, 5, 5))
    grad = rng.standard_normal((16, 6, 24, 24))
    inputs, more = {
        "conv": ((x, w, None, None), {}),
        "conv_input_grad": ((grad, w, None), {"input_size": (28, 28)}),
        "conv_weight_grad": ((x, grad), {"kernel_size": (5, 5)}),
    }[op]
    specs, attrs = specs_of(op, Sample("bits", inputs, {"stride": (1, 1), **more}))
    results = []
    for _ in range(3):
        out = np.full(specs[-1].shape, np.nan)
        kernel_of(op).bind(specs, attrs, {}, 2)(*inputs, out)
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stride": (1, 3)}, "strides of 1 or 2 along a row, not 3"),
        ({"groups": 2}, "one group"),
        ({"layout": "NHWC"}, "not contiguous"),
    ],
)
def test_other_convolutions_are_refused_with_a_reason(change: dict[str, Any], reason: str) -> None:
    x, w = np.ones((2, 4, 8, 8), "float32"), np.ones((4, 4 // change.get("groups", 1), 3, 3), "float32")
    if change.get("layout"):
        x = np.moveaxis(x, 1, -1).copy()
    specs, attrs = specs_of("conv", Sample("no", (x, w, None, None), {"stride": (1, 1), **change}))
    why = kernel_of("conv").why_not(specs, attrs)
    assert why is not None
    assert reason in why


def test_few_channels_are_computed_along_rows() -> None:
    x, w = np.ones((64, 1, 28, 28), "float32"), np.ones((6, 1, 5, 5), "float32")
    grad = np.ones((64, 6, 28, 28), "float32")
    attrs = {"padding": ((2, 2), (2, 2)), "stride": (1, 1)}
    for op, inputs, more in (
        ("conv", (x, w, None, None), {}),
        ("conv_input_grad", (grad, w, None), {"input_size": (28, 28)}),
        ("conv_weight_grad", (x, grad), {"kernel_size": (5, 5)}),
    ):
        specs, complete = specs_of(op, Sample("lenet", inputs, {**attrs, **more}))
        with kw.using(threads=1):
            chosen = choose(get_op(op), specs[: len(inputs)], complete)
        assert chosen.kernel is not None
        assert chosen.kernel.language == "llvm", chosen.kernel.id


def test_plans_run_them_without_python() -> None:
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((4, 2, 12, 12)), rng.standard_normal((4, 6, 12, 12))
    w = rng.standard_normal((6, 2, 5, 5))

    def loss(x: Any, w: Any, grad: Any) -> Any:
        return (kw.conv2d(x, w, padding=2) * grad).sum()

    with kw.using(threads=1, backend="rows"):
        step = kw.compile(kw.grad(loss, argnums=(0, 1)))
        dx, dw = step(x, w, grad)
        text = str(step.plan)
    assert "conv_input_grad/cpu_llvm_rows/rows" in text
    assert "conv_weight_grad/cpu_llvm_row_sums/rows" in text
    assert "through Python" not in text
    np.testing.assert_allclose(np.asarray(dx), np.asarray(kw.grad(loss)(x, w, grad)), rtol=1e-9, atol=1e-9)
    assert np.asarray(dw).shape == w.shape
