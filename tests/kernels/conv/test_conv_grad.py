"""Gradients of convolutions: hard calls, random ones, finite differences, PyTorch's results, equal bits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conv_grads import GRADIENTS, Conv, forget_plans, random_conv, split_everything
from problem_count import problem_count

import kernelwright as kw
from kernelwright.kernels import dispatch
from kernelwright.kernels.accuracy import Truth, check_kernel, judge
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.registry import kernels_for


@pytest.fixture(autouse=True)
def every_thread_gets_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    split_everything(monkeypatch)
    yield
    forget_plans()


def specs_of(sample: Sample, op: Any) -> tuple[TensorSpec, ...]:
    inputs = tuple(TensorSpec.of(array) for array in sample.inputs)
    return (*inputs, *op.infer(inputs, **op.complete(sample.attrs)))


def run(op_name: str, inputs: tuple[Any, ...], attrs: Any, threads: int = 1) -> Any:
    """The result of whatever is chosen."""
    op = get_op(op_name)
    with kw.using(threads=threads):
        choice = dispatch.choose(op, tuple(map(TensorSpec.of, inputs)), attrs)
    out = choice.specs[-1].empty()
    choice.bind()(*inputs, out)
    return out


@pytest.mark.parametrize("op_name", GRADIENTS)
def test_the_kernels_survive_the_hard_calls(op_name: str) -> None:
    op, ran = get_op(op_name), 0
    for kernel in kernels_for(op_name):
        for dtype in kernel.dtypes:
            samples = list(op.samples(np.random.default_rng(3), dtype))
            # The oracle of float64 is slow: it sees a third of them.
            for place, sample in enumerate(samples if dtype == "float32" else samples[::3]):
                specs, attrs = specs_of(sample, op), op.complete(sample.attrs)
                if kernel.why_not(specs, attrs) is None:
                    verdict = check_kernel(kernel, sample, threads=1 + place % 2)
                    assert verdict.ok, f"{kernel.id}, {sample}: {verdict.text}"
                    ran += 1
    assert ran > 130


@pytest.mark.parametrize("op_name", ["conv_input_grad", "conv_weight_grad"])
def test_every_register_tile_is_right(op_name: str) -> None:
    op = get_op(op_name)
    for kernel in kernels_for(op_name):
        for seed in range(3):
            sample = random_conv(seed).sample(op_name)
            specs, attrs = specs_of(sample, op), op.complete(sample.attrs)
            if kernel.why_not(specs, attrs) is None:
                for config in kernel.configurations(specs, attrs, 1):
                    verdict = check_kernel(kernel, sample, config=config)
                    assert verdict.ok, f"{kernel.id} {config}, {sample}: {verdict.text}"


@pytest.mark.parametrize(("dtype", "problems"), [("float32", 200), ("float64", 40), ("bfloat16", 40)])
def test_hundreds_of_random_gradients_are_right(dtype: str, problems: int) -> None:
    for seed in range(problem_count(problems)):
        conv = random_conv(1000 + seed, dtype)
        for op_name in GRADIENTS:
            sample, op = conv.sample(op_name), get_op(op_name)
            specs = tuple(map(TensorSpec.of, sample.inputs))
            with kw.using(threads=1 + seed % 2):
                choice = dispatch.choose(op, specs, sample.attrs)
            assert choice.kernel is not None, choice.why
            verdict = check_kernel(choice.kernel, sample, config=choice.config, threads=choice.threads)
            assert verdict.ok, f"{seed}: {choice.kernel.id}, {sample}: {verdict.text}"


@pytest.mark.parametrize("seed", range(12))
def test_gradients_match_finite_differences(seed: int) -> None:
    """A step of 1 along any direction is exact here: a convolution is linear in x, in w and in b."""
    conv = random_conv(seed, "float64")
    rng, window = np.random.default_rng(seed), conv.window
    names = ("conv_input_grad", "conv_weight_grad", "conv_bias_grad")
    places = {
        "conv_input_grad": conv.x,
        "conv_weight_grad": conv.w,
        "conv_bias_grad": np.zeros(conv.w.shape[0]),
    }
    for op_name in names:
        sample, at = conv.sample(op_name), places[op_name]
        inputs = (*sample.inputs[:2], None) if op_name == "conv_input_grad" else sample.inputs
        gradient = run(op_name, inputs, sample.attrs, threads=2)
        step = rng.standard_normal(at.shape)

        def loss(sign: float, op_name: str = op_name, step: Any = step) -> Any:
            at = [np.asarray(conv.x), np.asarray(conv.w), np.zeros(conv.w.shape[0])]
            at[names.index(op_name)] = at[names.index(op_name)] + sign * step
            return np.sum(conv.grad * run("conv", (*at, None), window))

        difference = (loss(1.0) - loss(-1.0)) / 2
        assert np.sum(gradient * step) == pytest.approx(difference, rel=1e-9, abs=1e-9)


def torch_gradients(torch: Any, conv: Conv) -> tuple[Any, Any, Any]:
    """dx, dw and db by PyTorch, channels first."""
    axes, window = conv.w.ndim - 2, conv.window

    def first(x: Any) -> Any:
        return x if window["layout"] == "NCHW" else np.moveaxis(x, -1, 1)

    grad, x, w = (torch.from_numpy(np.array(a)) for a in (first(conv.grad), first(conv.x), conv.w))
    lows = [low for low, _ in window["padding"]]
    return torch.ops.aten.convolution_backward(
        *(grad, x, w, [w.shape[0]], window["stride"], lows, window["dilation"]),
        *(False, [0] * axes, window["groups"], [True, True, True]),
    )


def test_errors_are_at_most_twice_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, an optional package")
    compared = 0
    for seed in range(60):
        conv = random_conv(seed, even=True)
        theirs = dict(zip(GRADIENTS, torch_gradients(torch, conv), strict=True))
        for op_name in GRADIENTS:
            sample, op = conv.sample(op_name), get_op(op_name)
            inputs = (*sample.inputs[:2], None) if op_name == "conv_input_grad" else sample.inputs
            truth = Truth.of(op, inputs, sample.attrs)
            vendor = theirs[op_name].numpy()
            if op_name == "conv_input_grad" and conv.window["layout"] == "NHWC":
                vendor = np.moveaxis(vendor, 1, -1)
            verdict = judge(
                run(op_name, inputs, sample.attrs, threads=2),
                truth.outputs[0],
                dtype="float32",
                reduction_length=truth.reduction_length,
                vendor=vendor,
                scale=truth.scales[0],
            )
            assert verdict.ok, f"{seed}: {sample}: {verdict.text}"
            compared += 1
    assert compared == 180


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_long_sums_of_positive_numbers_are_as_good_as_those_of_pytorch(layout: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch, an optional package")
    rng = np.random.default_rng(5)
    shape = (4, 3, 120, 120) if layout == "NCHW" else (4, 120, 120, 3)
    x, grad = (rng.random(shape).astype("float32") for _ in range(2))
    window = {
        "stride": (1, 1),
        "padding": ((1, 1), (1, 1)),
        "dilation": (1, 1),
        "groups": 1,
        "layout": layout,
    }
    conv = Conv(x, rng.random((3, 3, 3, 3)).astype("float32"), None, grad, window)
    _, dw, db = torch_gradients(torch, conv)
    for op_name, vendor in (("conv_weight_grad", dw.numpy()), ("conv_bias_grad", db.numpy())):
        sample, op = conv.sample(op_name), get_op(op_name)
        truth = Truth.of(op, sample.inputs, sample.attrs)
        verdict = judge(
            run(op_name, sample.inputs, sample.attrs),
            truth.outputs[0],
            dtype="float32",
            reduction_length=truth.reduction_length,
            vendor=vendor,
            scale=truth.scales[0],
        )
        assert verdict.ok, f"{op_name}: {verdict.text}"


@pytest.mark.parametrize("op_name", GRADIENTS)
def test_the_gradient_of_a_plain_sum_arrives_with_strides_of_zero(op_name: str) -> None:
    for layout in ("NCHW", "NHWC"):
        rng = np.random.default_rng(1)
        shape, places = ((2, 5, 7, 6), (2, 18, 7, 6)) if layout == "NCHW" else ((2, 7, 6, 5), (2, 7, 6, 18))
        x, w = rng.standard_normal(shape), rng.standard_normal((18, 5, 3, 3))
        ones = np.broadcast_to(np.ones(()), places)
        window = {
            "stride": (1, 1),
            "padding": ((1, 1),) * 2,
            "dilation": (1, 1),
            "groups": 1,
            "layout": layout,
        }
        given = Conv(x, w, None, ones, window).sample(op_name)
        full = Conv(x, w, None, np.ones(places), window).sample(op_name)
        assert set(ones.strides) == {0}
        np.testing.assert_allclose(
            run(op_name, given.inputs, given.attrs),
            run(op_name, full.inputs, full.attrs),
            rtol=1e-12,
            atol=1e-12,
        )


@pytest.mark.parametrize("op_name", GRADIENTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_give_the_same_bits(op_name: str, threads: int) -> None:
    for seed in range(10):
        sample = random_conv(seed).sample(op_name)
        one, two = (run(op_name, sample.inputs, sample.attrs, threads) for _ in range(2))
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("op_name", GRADIENTS)
def test_two_python_threads_at_once_get_the_bits_of_one(op_name: str) -> None:
    samples = [random_conv(seed, plain=True).sample(op_name) for seed in range(6)]
    alone = [run(op_name, s.inputs, s.attrs, 2) for s in samples]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(10):
            for place, s in enumerate(samples):
                if not np.array_equal(run(op_name, s.inputs, s.attrs, 2), alone[place]):
                    wrong.append(place)

    both = [threading.Thread(target=work) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not wrong


def test_nothing_is_multiplied_by_padding() -> None:
    """An infinite weight, and infinities in x and grad, reach only the elements that they are terms of."""
    window = {"stride": (1, 1), "padding": ((1, 1),) * 2, "dilation": (1, 1), "groups": 1, "layout": "NHWC"}
    rng = np.random.default_rng(0)
    x, grad = (rng.standard_normal((1, 5, 6, 4)).astype("float32") for _ in range(2))
    w = rng.standard_normal((4, 4, 3, 3)).astype("float32")
    w[1, 2, 0, 0], x[0, 0, 0, 0], grad[0, 4, 5, 1] = np.inf, np.inf, -np.inf
    conv = Conv(x, w, None, grad, window)
    for op_name in GRADIENTS:
        (kernel,) = (k for k in kernels_for(op_name) if k.name in ("taps", "outer", "sums"))
        verdict = check_kernel(kernel, conv.sample(op_name))
        assert verdict.ok, f"{op_name}: {verdict.text}"


def test_no_images_give_a_weight_gradient_of_zeros() -> None:
    window = {"stride": (1,), "padding": ((0, 0),), "dilation": (1,), "groups": 1, "layout": "NCHW"}
    conv = Conv(np.zeros((0, 3, 9)), np.zeros((4, 3, 2)), None, np.zeros((0, 4, 8)), window)
    for op_name in ("conv_weight_grad", "conv_bias_grad"):
        sample = conv.sample(op_name)
        assert not run(op_name, sample.inputs, sample.attrs).any()


def test_one_tap_channels_first_is_a_matrix_product_of_any_strides() -> None:
    rng, ran = np.random.default_rng(2), 0
    (kernel,) = (k for k in kernels_for("conv_input_grad") if k.name == "pointwise")
    for batch, c, o, size in ((1, 3, 5, (4, 6)), (3, 17, 33, (7, 7)), (2, 1, 9, (5,)), (2, 8, 1, (2, 3, 4))):
        w = rng.standard_normal((o, c, *(1,) * len(size))).astype("float32")
        grad = rng.standard_normal((batch, o, *size)).astype("float32")
        window = {"stride": (1,) * len(size), "padding": ((0, 0),) * len(size), "dilation": (1,) * len(size)}
        attrs = {**window, "groups": 1, "layout": "NCHW", "input_size": size}
        for given in (grad, np.repeat(grad, 2, axis=1)[:, ::2], np.broadcast_to(grad[:1], grad.shape)):
            for weights in (w, np.repeat(w, 2, axis=1)[:, ::2]):
                verdict = check_kernel(kernel, Sample("", (given, weights, None), attrs), threads=1 + ran % 2)
                assert verdict.ok, verdict.text
                ran += 1
    assert ran == 24
