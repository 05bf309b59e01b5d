"""Softmax and norms: right when threads share them, in pieces, with narrower vectors, and of long rows."""

from __future__ import annotations

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.normalize import cpu_vectors
from kernelwright.kernels.normalize.op import OPS
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.softmax import cpu_vectors as softmax_vectors
from kernelwright.kernels.softmax.op import OPS as SOFTMAX_OPS
from kernelwright.kernels.spec import ABSENT


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is shared by all threads that it may have, and cut into pieces where it can be."""
    monkeypatch.setattr(cpu_vectors, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(cpu_vectors, "WORTH_PIECES", 1)
    monkeypatch.setattr(softmax_vectors, "WORTH_A_THREAD", 1)


def check(name: str, sample: Sample, threads: int) -> None:
    kernel = next(k for k in kernels_for(name) if k.name == "vectors")
    op = get_op(name)
    specs = tuple(ABSENT if x is None else TensorSpec.of(x) for x in sample.inputs)
    attrs = op.complete(sample.attrs)
    outputs = op.infer(specs, **attrs)
    if any(spec.size for spec in outputs):
        assert kernel.why_not((*specs, *outputs), attrs) is None, sample
        verdict = check_kernel(kernel, sample, threads=threads)
        assert verdict.ok, f"{sample}, {threads} threads: {verdict.text}"


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*OPS, *SOFTMAX_OPS])
def test_work_that_threads_share_is_right(name: str, dtype: str) -> None:
    for place, sample in enumerate(get_op(name).samples(np.random.default_rng(2), dtype)):
        check(name, sample, 2 + place % 2)


@pytest.mark.parametrize("vector_bytes", ["16", "32"])
@pytest.mark.parametrize("name", ["softmax", "layer_norm", "layer_norm_grad", "batch_norm"])
def test_narrower_vectors_are_right(name: str, vector_bytes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", vector_bytes)
    for sample in get_op(name).samples(np.random.default_rng(3), "float32"):
        check(name, sample, 1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("axis", [1, -1])
def test_batches_larger_than_a_cache_are_right(axis: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    shape = (6, 40, 30, 30) if axis == 1 else (6, 30, 30, 40)
    x, dy, residual = (rng.standard_normal(shape).astype("f4") for _ in range(3))
    x += 3
    weight, bias, mean = (rng.standard_normal(40).astype("f4") for _ in range(3))
    var = np.ones(40, "f4")
    attrs = {"channel_axis": axis}
    check(
        "batch_norm",
        Sample("large", (x, weight, bias, mean, var, residual), {**attrs, "activation": "relu"}),
        threads,
    )
    check("batch_norm_inference", Sample("large", (x, weight, bias, mean, var, None), attrs), threads)
    axes = tuple(i for i in range(4) if i != axis % 4)
    kept = x.mean(axes), (1 / np.sqrt(x.var(axes) + 1e-5)).astype("f4")
    check("batch_norm_grad", Sample("large", (dy, x, weight, *kept, None), attrs), threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_long_rows_are_right(threads: int) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((3, 70_000)).astype("f4") for _ in range(2))
    weight, bias = (rng.standard_normal(70_000).astype("f4") for _ in range(2))
    check("softmax", Sample("long", (x,), {"axis": 1}), threads)
    check("layer_norm", Sample("long", (x, weight, bias), {"axes": 1}), threads)
    mean, rstd = x.mean(1), (1 / np.sqrt(x.var(1) + 1e-5)).astype("f4")
    check("layer_norm_grad", Sample("long", (dy, x, weight, mean, rstd), {"axes": 1}), threads)


def test_equal_thread_counts_give_equal_bits() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 12, 12, 33)).astype("f4")
    with kw.using(threads=2):
        first, again = (
            [
                np.asarray(y)
                for y in kw.batch_norm(
                    x, np.zeros(33, "f4"), np.ones(33, "f4"), training=True, channel_axis=-1
                )
            ]
            for _ in range(2)
        )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*SOFTMAX_OPS, "cumsum", "batch_norm_inference"])
def test_a_result_may_take_the_place_of_an_input(name: str, dtype: str) -> None:
    op = get_op(name)
    assert op.in_place
    for sample in op.samples(np.random.default_rng(4), dtype):
        for kernel in kernels_for(name):
            for place, x in enumerate(sample.inputs):
                plain = [None if one is None else np.ascontiguousarray(one) for one in sample.inputs]
                specs = tuple(ABSENT if one is None else TensorSpec.of(one) for one in plain)
                attrs = op.complete(sample.attrs)
                (out,) = op.infer(specs, **attrs)
                if x is None or specs[place] is not out or not out.size:
                    continue
                if kernel.why_not((*specs, out), attrs) is not None:
                    continue
                launch = kernel.bind((*specs, out), attrs, kernel.configurations(specs, attrs, 2)[0], 2)
                apart = out.empty()
                launch(*plain, apart)
                given = plain[place]
                launch(*plain, given)
                np.testing.assert_array_equal(np.asarray(given, "f8"), np.asarray(apart, "f8"), str(sample))


@pytest.mark.parametrize(("channels", "rows"), [(8, 2048), (64, 50_000)])
def test_sums_down_columns_are_as_good_as_along_rows(channels: int, rows: int) -> None:
    # Added up one after the other, 2048 rows would be off by ten times as much.
    rng = np.random.default_rng(0)
    x = (np.abs(rng.standard_normal((rows, channels))) + 1).astype("f4")
    right = x.astype("f8")
    var = right.var(0) * rows / (rows - 1)
    zeros, ones = np.zeros(channels, "f4"), np.ones(channels, "f4")
    for axis, array in ((1, x), (0, np.ascontiguousarray(x.T))):
        _, mean, new = kw.batch_norm(array, zeros, ones, training=True, momentum=1.0, channel_axis=axis)
        np.testing.assert_allclose(np.asarray(mean), right.mean(0), rtol=2e-7)
        np.testing.assert_allclose(np.asarray(new), var, rtol=6e-7)
    np.testing.assert_allclose(np.asarray(kw.sum(x, 0)), right.sum(0), rtol=1.5e-6)
