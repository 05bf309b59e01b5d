"""Calls of `conv` for the tests: which kernels take one, what they make of it, and random ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kernelwright.kernels.accuracy import Verdict, check_kernel
from kernelwright.kernels.kernel import Config, Kernel
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import np_dtype

CONV = get_op("conv")
NAMES = ("direct", "planes", "depthwise", "depthwise_planes")


def kernel_called(name: str) -> Kernel:
    """The CPU kernel of that name."""
    (found,) = [kernel for kernel in kernels_for("conv") if kernel.name == name]
    return found


def specs_of(sample: Sample) -> tuple[tuple[TensorSpec, ...], dict[str, Any]]:
    """The specs of inputs and output, and the complete attributes."""
    attrs = CONV.complete(sample.attrs)
    specs = tuple(map(TensorSpec.of, sample.inputs))
    return (*specs, *CONV.infer(specs, **attrs)), attrs


def taken(kernel: Kernel, sample: Sample) -> bool:
    """Whether the kernel takes the call, which must have a result."""
    specs, attrs = specs_of(sample)
    return specs[-1].size > 0 and kernel.why_not(specs, attrs) is None


def configs(kernel: Kernel, sample: Sample, threads: int = 1) -> list[Config]:
    """The kernel's configurations for the call."""
    specs, attrs = specs_of(sample)
    return kernel.configurations(specs, attrs, threads)


def verdicts(kernel: Kernel, dtype: str, seed: int = 0) -> Iterator[tuple[Sample, Verdict]]:
    """The kernel's result for every sample that it takes, by its default configuration.

    Each activation is code of its own to compile: other dtypes than float32 try the two most different ones.
    """
    for place, sample in enumerate(CONV.samples(np.random.default_rng(seed), dtype)):
        left_out = dtype != "float32" and sample.attrs.get("activation") not in (None, "relu", "gelu")
        if taken(kernel, sample) and not left_out:
            yield sample, check_kernel(kernel, sample, threads=1 + place % 3)


_SIDE = st.integers(0, 3)
_CHANNELS = st.one_of(st.integers(1, 9), st.sampled_from((15, 16, 17, 31, 33, 48, 65)))


@st.composite
def random_calls(draw: st.DrawFn, dtype: str) -> Sample:
    """Any convolution whose filter finds a place, with small sizes."""
    axes = draw(st.sampled_from((1, 2, 2, 2, 3)))
    kind = draw(st.sampled_from(("plain", "plain", "plain", "groups", "depthwise")))
    groups = draw(st.integers(2, 4)) if kind == "groups" else 1
    cg, og = draw(_CHANNELS), draw(_CHANNELS)
    if kind == "depthwise":
        groups, cg, og = draw(_CHANNELS), 1, 1
    taps = [draw(st.integers(1, 4 if axes < 3 else 3)) for _ in range(axes)]
    stride = [draw(st.sampled_from((1, 1, 2, 3))) for _ in range(axes)]
    dilation = [draw(st.sampled_from((1, 1, 1, 2))) for _ in range(axes)]
    padding = [(draw(_SIDE), draw(_SIDE)) for _ in range(axes)]
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - sum(p)), 20 if axes == 1 else 10 if axes == 2 else 5))
        if max(1, d * (k - 1) + 1 - sum(p)) <= 5
        else d * (k - 1) + 1
        for k, d, p in zip(taps, dilation, padding, strict=True)
    ]
    layout = draw(st.sampled_from(("NCHW", "NHWC")))
    batch = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def images(channels: int, lengths: list[int]) -> np.ndarray:
        shape = [batch, channels, *lengths] if layout == "NCHW" else [batch, *lengths, channels]
        values = rng.standard_normal(shape).astype(np_dtype(dtype))
        form = draw(st.integers(0, 4))
        if form == 1:
            return (
                np.ascontiguousarray(np.moveaxis(values, 1, -1))
                .swapaxes(0, 0)
                .transpose(0, values.ndim - 1, *range(1, values.ndim - 1))
            )
        if form == 2:
            return np.repeat(values, 2, axis=-1)[..., ::2]
        return values

    x = images(groups * cg, size)
    w = rng.standard_normal((groups * og, cg, *taps)).astype(np_dtype(dtype))
    b = rng.standard_normal(groups * og).astype(np_dtype(dtype)) if draw(st.booleans()) else None
    attrs = {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "layout": layout,
    }
    residual = None
    if draw(st.integers(0, 3)) == 0:
        (y,) = CONV.infer(tuple(TensorSpec.of(a) for a in (x, w, b, None)), **CONV.complete(attrs))
        lengths = list(y.shape[2:] if layout == "NCHW" else y.shape[1:-1])
        residual = images(groups * og, lengths)
        attrs["activation"] = draw(st.sampled_from((None, "relu")))
    return Sample("random", (x, w, b, residual), attrs)
