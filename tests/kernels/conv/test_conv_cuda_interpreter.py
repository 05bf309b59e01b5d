"""The Triton convolutions compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from triton_interpreter import check, interpreted, kernel_by_id  # noqa: E402

from kernelwright.kernels.conv.cuda import problem as problems  # noqa: E402
from kernelwright.kernels.conv.cuda import products  # noqa: E402
from kernelwright.kernels.cuda import device as cuda_device  # noqa: E402
from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

pytestmark = interpreted

FORWARD, GRADS, POINTS = "conv/cuda_triton", "conv_{}_grad/cuda_triton_grads", "{}/cuda_triton_1x1"
INPUT, WEIGHT, BIAS = (GRADS.format(name) for name in ("input", "weight", "bias"))


@cache
def samples(op: str, dtype: str) -> dict[str, Sample]:
    """The op's samples by name, those that a GPU can hold."""
    found = get_op(op).samples(np.random.default_rng(0), dtype)
    return {s.name: s for s in found if not untakeable(s) and not s.name.startswith("no image")}


def named(op: str, dtype: str, *beginnings: str) -> list[Sample]:
    """Samples whose names begin so."""
    found = [s for name, s in samples(op, dtype).items() if name.startswith(beginnings)]
    assert found
    return found


def default(kernel: str, sample: Sample) -> dict[str, Any]:
    """The configuration that runs untuned on an H200."""
    found = kernel_by_id(kernel)
    with cuda_device.assume(90):
        specs = cuda_specs(found, sample)
        attrs = get_op(found.op).complete(sample.attrs)
        configs = found.configurations(specs, attrs, 1)
        return min(configs, key=lambda config: found.predict(specs, attrs, config, 1) or 0.0)


def prove(kernel: str, sample: Sample, **changes: Any) -> None:
    """The kernel's result is within the budget, in its own configuration with some changes."""
    verdict = check(kernel, sample, {**default(kernel, sample), **changes})
    assert verdict.ok, f"{sample!r}: {verdict.text}"


SMALL = {"bm": 32, "bn": 32}  # many tiles where the images of the samples would fill but one

# Each stands for what no other does: strides, taps, sides, groups, ranks.
SHAPES = (
    "1x1, stride 2",
    "1x1, padded",
    "3x3, stride 2",
    "3x3, dilation 3 and stride 2",
    "2x4, uneven steps",
    "3x3, padding on one side",
    "padding larger than the filter",
    "filter larger than the image",
    "one of everything",
    "last places skip a row",
    "groups of 20",
    "groups of one output",
    "1-D, stride 2, dilation 2",
    "3-D, uneven",
)


def turns(op: str, dtype: str, names: tuple[str, ...]) -> Iterator[Sample]:
    """A sample of each name, in one layout and the other by turns."""
    for place, name in enumerate(names):
        found = named(op, dtype, name)
        yield found[place % 2 * (len(found) - 1)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_product_over_gathered_pixels_is_the_convolution(dtype: str) -> None:
    for sample in turns("conv", dtype, SHAPES if dtype == "float32" else SHAPES[:4]):
        prove(f"{FORWARD}/implicit", sample, **SMALL)


def test_a_product_is_right_in_float16_and_for_tf32_and_in_the_tiles_that_ship() -> None:
    for sample in named("conv", "float16", "3x3, padded, even", "long sums, NHWC"):
        prove(f"{FORWARD}/implicit", sample)
        prove(f"{FORWARD}/implicit", sample, bm=128, bn=256)
    (sample,) = named("conv", "float32", "3x3, padded, even channels, NHWC")
    prove(f"{FORWARD}/implicit_tf32", sample)


def test_parts_of_a_split_product_add_up() -> None:
    for sample in named("conv", "bfloat16", "3x3, padded, all", "3x3, padded, relu, NCHW"):
        prove(f"{FORWARD}/implicit", sample, **SMALL, splits=3)
    for sample in named("conv_input_grad", "bfloat16", "3x3, stride 2", "2x4, uneven steps, NCHW"):
        prove(f"{INPUT}/implicit", sample, **SMALL, splits=2)


def test_any_memory_is_read_right() -> None:
    memory = ("x axes reversed", "w axes reversed", "residual channels", "x a window")
    repeated = ("x repeated along 3", "w repeated", "b one number", "residual repeated")
    for sample in turns("conv", "float32", (*memory, *repeated)):
        prove(f"{FORWARD}/implicit", sample, **SMALL)


def test_every_activation_follows_bias_and_residual() -> None:
    names = (
        "gelu, NHWC",
        "gelu_tanh, NHWC",
        "sigmoid, NHWC",
        "tanh, NHWC",
        "silu, NHWC",
        "1x1, many channels, all",
    )
    for sample in named("conv", "float32", *names):
        prove(f"{FORWARD}/implicit", sample, bm=16)


def test_infinities_and_nan_stay_where_they_belong() -> None:
    for sample in named("conv", "float32", "infinities"):
        prove(f"{FORWARD}/implicit", sample)
        prove(f"{FORWARD}/gathered", Sample(sample.name, *few(sample)))


def few(sample: Sample) -> tuple[Any, Any]:
    """The inputs and attributes of a sample with its first channels alone."""
    x, w, *rest = sample.inputs
    assert x is not None
    assert w is not None
    keep = (slice(None), slice(0, 5)) if sample.attrs["layout"] == "NCHW" else (..., slice(0, 5))
    return (np.ascontiguousarray(x[keep]), np.ascontiguousarray(w[:, :5]), *rest), sample.attrs


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_few_channels_are_gathered_with_the_taps(dtype: str) -> None:
    names = ("7x7, stride 2", "one channel", "2x4, uneven", "two groups", "1-D, stride 2", "3-D, uneven")
    for sample in turns("conv", dtype, names if dtype == "float32" else names[:2]):
        prove(f"{FORWARD}/gathered", sample, bm=32, bn=16)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_columns_of_a_filter_may_be_folded_into_the_channels(dtype: str) -> None:
    names = ("7x7, stride 2", "filter larger", "padding larger", "3x3, padding on one side", "3-D, N")
    for sample in turns("conv", dtype, names if dtype == "float32" else names[:2]):
        prove(f"{FORWARD}/folded", sample, bm=32, bn=32)
    for sample in turns("conv_weight_grad", dtype, names if dtype == "float32" else names[:2]):
        prove(f"{WEIGHT}/folded", sample, bo=32, bn=32, splits=2)
    (sample,) = named("conv", dtype, "infinities and NaN, NHWC")
    prove(f"{FORWARD}/folded", Sample("infinities in five channels", *few(sample)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_depthwise_filters(dtype: str) -> None:
    shapes = (
        "depthwise, NHWC",
        "depthwise, stride 2, NCHW",
        "depthwise, 5x5",
        "depth multiplier",
        "1-D, depthwise",
    )
    memory = ("depthwise, all, NHWC", "depthwise, x axes reversed", "depthwise, x a window")
    if dtype == "bfloat16":
        shapes, memory = shapes[1:4], memory[:1]
    for sample in turns("conv", dtype, (*shapes, *memory)):
        prove(f"{FORWARD}/depthwise", sample)
    for sample in turns("conv_input_grad", dtype, shapes):
        if not sample.name.startswith("depth m"):
            prove(f"{INPUT}/depthwise", sample)
    for sample in turns("conv_weight_grad", dtype, shapes):
        prove(f"{WEIGHT}/depthwise", sample, bm=16, splits=2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_gradient_for_the_input_and_transposed_convolutions(dtype: str) -> None:
    memory = ("grad axes reversed", "w axes reversed", "grad one number")
    for sample in turns("conv_input_grad", dtype, (*SHAPES, *memory) if dtype == "float32" else SHAPES[2:6]):
        prove(f"{INPUT}/implicit", sample, **SMALL)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_gradient_for_the_weight(dtype: str) -> None:
    memory = ("x axes reversed", "grad one number", "grad repeated along 2")
    names = (*SHAPES, *memory) if dtype == "float32" else SHAPES[2:6]
    for place, sample in enumerate(turns("conv_weight_grad", dtype, names)):
        prove(f"{WEIGHT}/products", sample, bo=32, bn=32, splits=1 + place % 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_gradient_for_the_bias(dtype: str) -> None:
    names = (
        "3x3, padded",
        "1-D",
        "3-D, uneven",
        "channels of",
        "one number",
        "repeated along 2",
        "many places",
    )
    for sample in turns("conv_bias_grad", dtype, names):
        prove(f"{BIAS}/pixel_sums", sample)


@pytest.mark.parametrize("op", ["conv", "conv_input_grad", "conv_weight_grad"])
def test_one_by_one_filters_are_products_of_matrices(op: str) -> None:
    for dtype, name in (
        ("bfloat16", "1x1_pointers"),
        ("float32", "1x1_pointers"),
        ("float32", "1x1_tf32_pointers"),
    ):
        for sample in named(op, dtype, "1x1, NHWC", "1x1, many channels, NHWC"):
            prove(f"{POINTS.format(op)}/{name}", sample)
    draw = np.random.default_rng(1)
    x, w, y = (
        draw.standard_normal(shape).astype(np_dtype("bfloat16"))
        for shape in ((2, 5, 3, 32), (24, 32, 1, 1), (2, 5, 3, 24))
    )
    attrs: dict[str, Any] = {"layout": "NHWC"}
    inputs: tuple[Any, ...] = (x, w, w[:, 0, 0, 0].copy(), y)
    if op == "conv_input_grad":
        inputs, attrs = (y, w, None), {**attrs, "input_size": (5, 3)}
    elif op == "conv_weight_grad":
        inputs, attrs = (x, y), {**attrs, "kernel_size": (1, 1)}
    prove(f"{POINTS.format(op)}/1x1_descriptors", Sample("1x1 of 32 channels", inputs, attrs))


@pytest.mark.parametrize("back", [False, True])
def test_weights_are_loaded_in_boxes_where_their_order_allows(back: bool) -> None:
    """In the order of channels last, and in any other from a workspace that has it."""
    draw = np.random.default_rng(2)
    channels, out = (64, 40) if not back else (40, 64)
    w = draw.standard_normal((out, channels, 3, 3)).astype(np_dtype("bfloat16"))
    images = draw.standard_normal((1, 5, 6, 64)).astype(np_dtype("bfloat16"))
    attrs: dict[str, Any] = {"layout": "NHWC", "padding": ((1, 1), (1, 1))}
    attrs |= {"input_size": (5, 6)} if back else {}
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(w, 1, -1)), -1, 1)
    for weight in (w, last):
        inputs = (images, weight, None) if back else (images, weight, None, None)
        prove(f"{INPUT if back else FORWARD}/implicit", Sample("boxes", inputs, attrs))
    p = (problems.input_grad if back else problems.forward)(
        cuda_specs(kernel_by_id(f"{INPUT if back else FORWARD}/implicit"), Sample("boxes", inputs, attrs)),
        get_op("conv_input_grad" if back else "conv").complete(attrs),
    )
    config = {"bm": 64, "bn": 64, "bk": 64, "warps": 4, "stages": 4, "splits": 1}
    assert products.product_steps(p, config, back=back, boxes=True)[-1].descriptors()


def test_batches_that_are_too_large_to_count_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MOST_ROWS", 50)
    for sample in named("conv", "float32", "3x3, padded, NHWC", "two groups, NCHW"):
        prove(f"{FORWARD}/implicit", sample, **SMALL)
        if sample.name.startswith("two"):
            prove(f"{FORWARD}/gathered", sample)


def test_a_convolution_of_no_channels_is_its_bias() -> None:
    x, w, b = (
        np.ones((2, 3, 4, 0), np.float32),
        np.ones((5, 0, 3, 3), np.float32),
        np.arange(5, dtype=np.float32),
    )
    sample = Sample("no channels", (x, w, b, None), {"layout": "NHWC", "padding": ((1, 1), (1, 1))})
    for kernel in ("implicit", "gathered"):
        prove(f"{FORWARD}/{kernel}", sample)


def test_the_order_of_programs_does_not_matter() -> None:
    for kernel, sample in (
        (f"{FORWARD}/implicit", named("conv", "float32", "3x3, stride 2, NHWC")[0]),
        (f"{INPUT}/implicit", named("conv_input_grad", "float32", "3x3, stride 2, NHWC")[0]),
        (f"{WEIGHT}/products", named("conv_weight_grad", "float32", "3x3, padded, NHWC")[0]),
    ):
        verdict = check(kernel, sample, default(kernel, sample), backwards=True)
        assert verdict.ok, verdict.text


def test_division_by_multiplication_is_exact() -> None:
    draw = np.random.default_rng(3)
    for divisor in (1, 2, 3, 5, 7, 56, 57, 224, 2**16 - 1, 2**16 + 1, 2**30 + 1, 2**31 - 1):
        factor, shift = problems.magic(divisor)
        numbers = {0, 1, divisor - 1, divisor, min(divisor + 1, 2**31 - 1), 2**31 - 1}
        for n in numbers | set(draw.integers(0, 2**31, 200).tolist()):
            high = n * (factor % 2**32) >> 32
            assert high + n < 2**32
            assert (high + n) >> shift == n // divisor
