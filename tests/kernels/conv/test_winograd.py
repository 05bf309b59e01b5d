"""Winograd convolution: right within what it declares, chosen where it pays, and left out when asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conv_calls import CONV, kernel_called, taken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kernelwright as kw
from kernelwright.kernels.accuracy import budget, check_kernel, error, scales
from kernelwright.kernels.conv.prepack import unpack
from kernelwright.kernels.conv.tasks import winograd_transform
from kernelwright.kernels.errors import ConfigError
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.prepack import prepack
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.settings import clear_memos
from kernelwright.kernels.spec import np_dtype

SIDES = (2, 4)
_FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ONE = ((1, 1), (1, 1))


def call(
    c: int,
    o: int,
    size: tuple[int, int],
    padding: Any = ONE,
    batch: int = 1,
    dtype: str = "float32",
    **more: Any,
) -> Sample:
    """A call with normal numbers; bias=True and residual=True add those."""
    rng = np.random.default_rng(c + 1000 * o)
    attrs = {"layout": "NHWC", "padding": padding, "activation": more.pop("activation", None)}
    kind = np_dtype(dtype)
    x = rng.standard_normal((batch, *size, c)).astype(kind)
    w = rng.standard_normal((o, c, 3, 3)).astype(kind)
    b = rng.standard_normal(o).astype(kind) if more.pop("bias", False) else None
    inputs: tuple[Any, ...] = (x, w, b, None)
    if more.pop("residual", False):
        (y,) = CONV.infer(tuple(map(TensorSpec.of, inputs)), **CONV.complete(attrs))
        inputs = (x, w, b, rng.standard_normal(y.shape).astype(kind))
    return Sample("winograd", inputs, attrs)


def packed(sample: Sample, m: int) -> Sample:
    """The same call with the filters of F(m x m, 3 x 3) packed ahead."""
    x, w, b, residual = sample.inputs
    assert w is not None
    found = prepack("conv", w, winograd=m)
    attrs = {**sample.attrs, "w_format": found.format, "w_shape": found.shape}
    return Sample(sample.name, (x, found.data, b, residual), attrs)


def chosen(sample: Sample, **under: Any) -> str:
    """The name of the kernel that runs a call."""
    with kw.using(**{"threads": 1, **under}):
        kernel = kw.explain("conv", *sample.inputs, **sample.attrs).choice.kernel
    assert kernel is not None
    return kernel.name


@pytest.mark.parametrize("m", SIDES)
def test_the_matrices_compute_a_correlation(m: int) -> None:
    at, g, bt = winograd_transform.matrices(m)
    rng = np.random.default_rng(0)
    d, f = rng.standard_normal(m + 2), rng.standard_normal(3)
    np.testing.assert_allclose(at @ ((g @ f) * (bt @ d)), np.correlate(d, f, "valid"), rtol=0, atol=1e-14)
    for matrix in (at, bt):
        np.testing.assert_array_equal(matrix.astype("f4"), matrix, err_msg="exact in binary")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("m", SIDES)
def test_it_computes_every_sample_that_it_takes(m: int, dtype: str) -> None:
    kernel, count = kernel_called(f"winograd{m}"), 0
    for place, sample in enumerate(CONV.samples(np.random.default_rng(0), dtype)):
        # Each activation is code of its own to compile, and the same code in all kernels.
        if taken(kernel, sample) and sample.attrs.get("activation") in (None, "relu"):
            verdict = check_kernel(kernel, sample, threads=1 + place % 3)
            assert verdict.ok, f"{sample}: {verdict.text}"
            count += 1
    assert count >= 30


@pytest.mark.parametrize("m", SIDES)
@given(data=st.data())
@_FEW
def test_random_problems_are_within_the_declared_error(m: int, data: st.DataObject) -> None:
    side, channels = st.integers(1, 15), st.one_of(st.integers(1, 9), st.sampled_from((16, 17, 33, 64, 65)))
    pads = st.tuples(st.integers(0, 4), st.integers(0, 4))
    size, padding = data.draw(st.tuples(side, side)), data.draw(st.tuples(pads, pads))
    size = tuple(max(length, 3 - sum(pad)) for length, pad in zip(size, padding, strict=True))
    sample = call(
        data.draw(channels),
        data.draw(channels),
        size,  # type: ignore[arg-type]
        padding,
        data.draw(st.integers(1, 3)),
        bias=data.draw(st.booleans()),
    )
    if data.draw(st.booleans()):
        sample = packed(sample, m)
    kernel = kernel_called(f"winograd{m}")
    verdict = check_kernel(kernel, sample, threads=data.draw(st.integers(1, 3)))
    assert verdict.ok, f"{sample}: {verdict.text}"


@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("contents", ["spread", "lonely pixels", "single taps"])
def test_uneven_numbers_are_within_the_declared_error(m: int, contents: str) -> None:
    rng = np.random.default_rng(0)
    for c in (1, 5, 40):
        x, w = rng.standard_normal((1, 14, 11, c)), rng.standard_normal((20, c, 3, 3))
        if contents == "spread":
            x, w = x * 10 ** rng.uniform(-3, 3, x.shape), w * 10 ** rng.uniform(-3, 3, w.shape)
        elif contents == "lonely pixels":
            x *= rng.random((1, 14, 11, 1)) < 0.05
        else:
            w[:, :, :2] = w[:, :, 2, :2] = 0
        inputs = (x.astype("f4"), w.astype("f4"), None, None)
        sample = Sample(contents, inputs, {"layout": "NHWC", "padding": ONE})
        verdict = check_kernel(kernel_called(f"winograd{m}"), sample)
        assert verdict.ok, f"{c} channels: {verdict.text}"


def test_errors_are_of_the_size_that_the_declaration_says() -> None:
    sample = call(64, 48, (18, 18))
    attrs = CONV.complete(sample.attrs)
    exact = CONV.reference(*[None if a is None else a.astype("f8") for a in sample.inputs], **attrs)[0]
    scale = scales(CONV, sample.inputs, attrs)
    assert scale is not None
    errors = {}
    for name in ("direct", "winograd2", "winograd4"):
        with kw.using(backend=name, strict=True):
            y = np.asarray(kw.conv2d(*sample.inputs[:2], padding=1, layout="NHWC"))  # type: ignore[arg-type]
        errors[name] = error(y, exact, scale=scale[0]).norm_rel
    assert errors["winograd2"] < errors["direct"], "it adds up fewer products"
    assert 1.2 < errors["winograd4"] / errors["direct"] < 2.5
    assert errors["winograd4"] < 0.1 * budget("float32", 576)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_bias_residual_and_activation_are_part_of_the_result(activation: str | None) -> None:
    for m, dtype in ((4, "float32"), (2, "float32"), (4, "float64"), (4, "bfloat16")):
        sample = call(9, 21, (7, 10), dtype=dtype, bias=True, residual=True, activation=activation)
        for taken_one in (sample, packed(sample, m)):
            verdict = check_kernel(kernel_called(f"winograd{m}"), taken_one, threads=2)
            assert verdict.ok, verdict.text


def test_narrow_vectors_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", "32")
    clear_memos()
    sample = call(10, 27, (9, 6), ((0, 2), (3, 0)), bias=True)
    for taken_one in (sample, packed(sample, 4)):
        verdict = check_kernel(kernel_called("winograd4"), taken_one)
        assert verdict.ok, verdict.text
    clear_memos()


def test_infinities_reach_no_further_than_their_tile() -> None:
    x = np.ones((1, 12, 12, 3), "f4")
    x[0, 6, 6] = np.inf
    with kw.using(backend="winograd4", strict=True):
        y = np.asarray(kw.conv2d(x, np.ones((5, 3, 3, 3), "f4"), layout="NHWC", padding=1))
    finite = np.isfinite(y[0, :, :, 0])
    assert not finite[5:8, 5:8].any(), "each output that has it as a term"
    assert finite[:4].all(), "the tiles above"
    assert finite[:, 8:].all(), "the tiles on the right"


def test_packed_filters_are_read_by_direct_where_no_extra_error_is_allowed() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 30, 30, 40)).astype("f4"), rng.standard_normal((50, 40, 3, 3)).astype("f4")
    both, plain = prepack("conv", w, layout="NHWC"), prepack("conv", w, layout="NHWC", winograd=0)
    assert both.format.endswith("+winograd4")
    assert "winograd" not in plain.format
    np.testing.assert_array_equal(unpack(both.data, both.format, both.shape, 1), w)
    fast = np.asarray(kw.conv2d(x, both, layout="NHWC"))
    with kw.using(extra_error=False):
        exact = np.asarray(kw.conv2d(x, both, layout="NHWC"))
        np.testing.assert_array_equal(exact, np.asarray(kw.conv2d(x, plain, layout="NHWC")))
        assert prepack("conv", w, layout="NHWC").format == plain.format
    assert np.any(fast != exact)
    np.testing.assert_allclose(fast, exact, rtol=0, atol=1e-3)
    first = np.asarray(kw.conv2d(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), both))
    np.testing.assert_allclose(first.transpose(0, 2, 3, 1), exact, rtol=0, atol=1e-3)
    assert prepack("conv", w).format == plain.format, "channels first: no Winograd kernel"
    assert prepack("conv", w, layout="NHWC", stride=(2, 2)).format == plain.format


def test_bfloat16_is_computed_in_float32_and_rounded_once() -> None:
    sample = call(64, 64, (12, 12), dtype="bfloat16")
    x, w = sample.inputs[:2]
    assert w is not None
    held = prepack("conv", w, layout="NHWC")
    assert held.format.endswith("+winograd4")
    np.testing.assert_array_equal(unpack(held.data, held.format, held.shape, 1), w)
    with kw.using(backend="winograd4", strict=True):
        y = np.asarray(kw.conv2d(x, held, layout="NHWC", padding=1))  # type: ignore[arg-type]
        wide = prepack("conv", w.astype("f4"), layout="NHWC")
        exact = np.asarray(kw.conv2d(np.asarray(x, "f4"), wide, layout="NHWC", padding=1))
    np.testing.assert_array_equal(y, exact.astype(np_dtype("bfloat16")))


@pytest.mark.parametrize(("shape", "m"), [((8, 8, 1, 1), 4), ((8, 8, 3, 3), 3)])
def test_filters_that_winograd_cannot_use_are_refused(shape: tuple[int, ...], m: int) -> None:
    with pytest.raises(ConfigError, match=rf"winograd={m} for a weight of float32\[8, 8, "):
        prepack("conv", np.zeros(shape, "f4"), winograd=m)


def test_it_is_chosen_where_it_is_faster_and_only_there() -> None:
    for c, o, size in ((64, 64, 56), (128, 128, 28), (256, 256, 14), (48, 80, 33)):
        assert chosen(packed(call(c, o, (size, size)), 4)) == "winograd4"
    assert chosen(call(64, 64, (56, 56))) == "winograd4", "its filters transformed in the call"
    assert chosen(call(512, 512, (7, 7))) == "direct", "more time for its filters than it saves"
    assert chosen(packed(call(128, 128, (2, 2)), 4)) == "direct", "one tile: 36 products for 4 pixels"


def test_the_choice_says_why_it_was_left_out() -> None:
    sample = call(64, 64, (20, 20))
    with kw.using(extra_error=False):
        text = str(kw.explain("conv", *sample.inputs, **sample.attrs))
    assert "may err by more than the standard budget, and extra_error=False is set (F(4x4, 3x3)" in text
    assert chosen(sample, extra_error=False) == "direct"
    wide = call(64, 64, (20, 20), dtype="float64")
    assert chosen(wide) == "direct"
    assert chosen(wide, extra_error=True) == "winograd4"


def test_calls_it_does_not_take_are_refused_with_a_reason() -> None:
    kernel = kernel_called("winograd4")
    x = np.zeros((1, 9, 9, 8), "f4")
    w = np.zeros((8, 8, 3, 3), "f4")
    for inputs, attrs in (
        ((x, w, None, None), {"layout": "NHWC", "stride": (2, 2)}),
        ((x, w, None, None), {"layout": "NHWC", "dilation": (2, 2)}),
        ((x, w[:, :2], None, None), {"layout": "NHWC", "groups": 4}),
        ((x, w[..., :1], None, None), {"layout": "NHWC"}),
        ((np.asfortranarray(x), w, None, None), {"layout": "NHWC"}),
        ((x.transpose(0, 3, 1, 2).copy(), w, None, None), {}),
        ((np.zeros((1, 3, 3, 800), "f4"), np.zeros((800, 800, 3, 3), "f4"), None, None), {"layout": "NHWC"}),
    ):
        assert not taken(kernel, Sample("refused", inputs, attrs))


# --- input gradients ----------------------------------------------------------------------------------------


def gradient_call(
    c: int, o: int, size: tuple[int, int], padding: Any = ONE, dtype: str = "float32"
) -> Sample:
    """A call of conv_input_grad for images of c channels and this size."""
    rng = np.random.default_rng(c + 1000 * o)
    places = [length + sum(pad) - 2 for length, pad in zip(size, padding, strict=True)]
    grad = rng.standard_normal((2, *places, o)).astype(dtype)
    w, b = rng.standard_normal((o, c, 3, 3)).astype(dtype), rng.standard_normal(c).astype(dtype)
    attrs = {"layout": "NHWC", "padding": padding, "input_size": size}
    return Sample("gradient", (grad, w, b if c % 2 else None), attrs)


def gradient_kernel(m: int) -> Kernel:
    """The kernel of that tile."""
    (found,) = [kernel for kernel in kernels_for("conv_input_grad") if kernel.name == f"winograd{m}"]
    return found


@pytest.mark.parametrize("m", SIDES)
@pytest.mark.parametrize("padding", [ONE, ((0, 0), (0, 0)), ((2, 0), (1, 2))])
def test_input_gradients_are_within_the_declared_error(padding: Any, m: int) -> None:
    for c, o, size in ((5, 9, (6, 11)), (17, 3, (4, 4)), (16, 40, (9, 3)), (1, 1, (3, 3))):
        for dtype in ("float32", "float64") if c == 5 else ("float32",):
            sample = gradient_call(c, o, size, padding, dtype)
            verdict = check_kernel(gradient_kernel(m), sample, threads=2)
            assert verdict.ok, f"{sample}: {verdict.text}"


def test_input_gradients_take_filters_in_any_memory() -> None:
    grad, w, b = gradient_call(7, 20, (8, 9)).inputs
    assert w is not None
    for laid in (
        np.asfortranarray(w),
        np.ascontiguousarray(w[..., ::-1])[..., ::-1],
        np.repeat(w, 2, 1)[:, ::2],
    ):
        sample = Sample("memory", (grad, laid, b), {"layout": "NHWC", "padding": ONE, "input_size": (8, 9)})
        verdict = check_kernel(gradient_kernel(4), sample)
        assert verdict.ok, verdict.text


def test_input_gradients_are_computed_so_where_that_is_faster() -> None:
    for size, under, name in (
        ((56, 56), True, "winograd4"),
        ((56, 56), False, "taps"),
        ((3, 3), True, "taps"),
    ):
        sample = gradient_call(64, 64, size)
        with kw.using(threads=1, extra_error=under):
            kernel = kw.explain("conv_input_grad", *sample.inputs, **sample.attrs).choice.kernel
        assert kernel is not None
        assert kernel.name == name
    wide = gradient_call(4, 4, (5, 5), ((3, 3), (3, 3)))
    specs = tuple(map(TensorSpec.of, wide.inputs))
    op = get_op("conv_input_grad")
    attrs = op.complete(wide.attrs)
    reason = gradient_kernel(4).why_not((*specs, *op.infer(specs, **attrs)), attrs)
    assert reason is not None
    assert "padding of at most 2" in reason


# --- controls: a wrong kernel must be caught ----------------------------------------------------------------


@pytest.mark.parametrize("damage", ["none", "a filter's tap", "a pixel of a tile", "half precision"])
def test_damaged_results_are_not_within_the_declared_error(damage: str) -> None:
    kernel, sample = kernel_called("winograd4"), call(48, 20, (11, 11))
    bind = kernel.function

    def wrong(specs: Any, attrs: Any, config: Any, threads: int) -> Any:
        launch = bind(specs, attrs, config, threads)

        def run(x: Any, w: Any, b: Any, residual: Any, y: Any) -> None:
            if damage == "a filter's tap":
                w = w.copy()
                w[3, 7, 2, 2] = 0
            elif damage == "half precision":
                x = x.astype("f2").astype("f4")
            launch(x, w, b, residual, y)
            if damage == "a pixel of a tile":
                y[0, 5, 6] = y[0, 5, 5]

        return run

    assert check_kernel(replace(kernel, function=wrong), sample).ok == (damage == "none")


def test_no_other_kernel_computes_by_winograd_unasked() -> None:
    """bfloat16 gradients run float32 kernels and declare no error: an infinity stays where it belongs."""
    (kernel,) = (k for k in kernels_for("conv_input_grad") if k.name == "widened")
    rng = np.random.default_rng(0)
    grad = rng.standard_normal((1, 28, 28, 64)).astype(np_dtype("bfloat16"))
    grad[0, 10, 10, 3] = np.inf
    w = rng.standard_normal((64, 64, 3, 3)).astype(np_dtype("bfloat16"))
    attrs = {"input_size": (28, 28), "padding": ((1, 1), (1, 1)), "layout": "NHWC"}
    verdict = check_kernel(kernel, Sample("an infinity", (grad, w, None), attrs))
    assert verdict.ok, verdict.text
