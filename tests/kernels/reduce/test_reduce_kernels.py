"""Reductions and scans: right when threads share them, on random calls, with narrower vectors; controls."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.reduce import cpu_scans, cpu_vectors
from kernelwright.kernels.reduce.op import REDUCTIONS
from kernelwright.kernels.reduce.samples import around_one, numbers
from kernelwright.kernels.reduce.scan import SCANS
from kernelwright.kernels.registry import kernels_for

NAMES = (*REDUCTIONS, *SCANS)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is shared by all threads that it may have."""
    monkeypatch.setattr(cpu_vectors, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(cpu_scans, "WORTH_A_THREAD", 1)


def wrong(name: str, sample: Sample, threads: int) -> str | None:
    """What is wrong with what the kernel did, or None."""
    kernel = next(k for k in kernels_for(name) if k.name == "vectors")
    op = get_op(name)
    specs = tuple(map(TensorSpec.of, sample.inputs))
    attrs = op.complete(sample.attrs)
    outputs = op.infer(specs, **attrs)
    if not any(spec.size for spec in outputs):
        return None
    assert kernel.why_not((*specs, *outputs), attrs) is None, sample
    verdict = check_kernel(kernel, sample, threads=threads)
    return None if verdict.ok else f"{sample}, {threads} threads: {verdict.text}"


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("name", NAMES)
def test_work_that_threads_share_is_right(name: str) -> None:
    for dtype in ("float32", "bool"):
        if dtype not in get_op(name).dtypes:
            continue
        for place, sample in enumerate(get_op(name).samples(np.random.default_rng(2), dtype)):
            assert wrong(name, sample, 2 + place % 2) is None


@pytest.mark.parametrize("vector_bytes", ["16", "32"])
@pytest.mark.parametrize("name", ["sum", "amax", "logsumexp", "std", "any", "argmin", "cumsum"])
def test_narrower_vectors_are_right(name: str, vector_bytes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", vector_bytes)
    for sample in list(get_op(name).samples(np.random.default_rng(3), "float32"))[5:]:
        assert wrong(name, sample, 1) is None


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Sample, int]:
    """Any reduction of up to four axes, some of them long, laid out in any way."""
    name = draw(st.sampled_from(NAMES))
    op = get_op(name)
    dtype = draw(st.sampled_from(op.dtypes))
    shape = tuple(draw(st.lists(st.sampled_from((1, 2, 3, 5, 17, 70)), min_size=1, max_size=4)))
    while prod(shape) > 20000:
        shape = shape[1:]
    if draw(st.booleans()):
        shape = (*shape[:1], draw(st.sampled_from((500, 4097, 9000))))[-2:]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    order = draw(st.permutations(range(len(shape))))
    make = around_one if name in ("prod", "cumprod") else numbers
    x: Any = make(rng, dtype, *(shape[i] for i in order)).transpose(np.argsort(order))
    for axis in range(x.ndim):
        step = draw(st.sampled_from((1, 1, 1, -1, 2)))
        x = x[(slice(None),) * axis + (slice(None, None, step),)]
    attrs: dict[str, Any] = {"axis": draw(st.integers(-x.ndim, x.ndim - 1))}
    if name in SCANS:
        attrs["reverse"] = draw(st.booleans())
    else:
        attrs["keepdims"] = draw(st.booleans())
        if name not in ("argmax", "argmin"):
            axes = draw(st.sets(st.integers(0, x.ndim - 1), min_size=1))
            attrs["axis"] = tuple(sorted(axes))
        elif draw(st.booleans()):
            attrs["axis"] = None
        if "correction" in op.attrs:
            attrs["correction"] = 0
    return name, Sample("random", (x,), attrs), draw(st.integers(1, 3))


@pytest.mark.usefixtures("shared")
def test_random_calls_are_right() -> None:
    @settings(max_examples=300, deadline=None)
    @given(calls())
    def each(call: tuple[str, Sample, int]) -> None:
        assert wrong(*call) is None

    each()


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("shape", [(40000,), (300, 70), (5, 4000)])
def test_equal_thread_counts_give_equal_bits(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    for function in (kw.sum, kw.var, kw.logsumexp):
        for axis in (None, 0):
            with kw.using(threads=3):
                first, again = np.asarray(function(x, axis)), np.asarray(function(x, axis))
            np.testing.assert_array_equal(first, again)


def test_a_long_sum_of_small_numbers_keeps_its_digits() -> None:
    # One accumulator would stop at 2^24.
    x = np.ones(40_000_001, "f4")
    assert kw.sum(x).item() == np.float32(40_000_001)
    assert kw.mean(x).item() == 1.0


def test_a_variance_beside_a_large_mean_keeps_its_digits() -> None:
    x = (np.random.default_rng(1).standard_normal((3, 50_000)) + 1000).astype("f4")
    right = x.astype("f8").var(1, ddof=1)
    np.testing.assert_allclose(np.asarray(kw.var(x, 1)), right, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(kw.var(np.ascontiguousarray(x.T), 0)), right, rtol=1e-5)


@pytest.mark.parametrize("mistake", ["last element", "order of merging", "the mean's square"])
def test_a_mistake_is_found(mistake: str) -> None:
    from kernelwright.kernels.accuracy import Truth

    op = get_op("var")
    x = (np.random.default_rng(1).standard_normal((4, 300)) + 50).astype("f4")
    attrs = {"axis": (1,), "correction": 0}
    specs = (TensorSpec.of(x), *op.infer((TensorSpec.of(x),), **op.complete(attrs)))
    right = x.astype("f8").var(1).astype("f4")
    wrong = {
        "last element": x[:, :-1].astype("f8").var(1).astype("f4"),
        "order of merging": right[::-1],
        "the mean's square": (x * x).mean(1) - x.mean(1) ** 2,
    }[mistake]
    truth = Truth.of(op, (x,), attrs)
    assert truth.judge([right], specs).ok
    assert not truth.judge([wrong], specs).ok
