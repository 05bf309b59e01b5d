"""Matmul of bfloat16 and float16: right on random problems, summed in float32, rounded once, to even."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from matmul_calls import Problem, bound, plain, problems, turned, what_is_wrong, why_not

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel, judge, oracle, scales
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.machine import machine
from kernelwright.kernels.matmul import amx_proof, cpu_numba_16bit
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.matmul.registers import pairs_problem
from kernelwright.kernels.op import Sample, TensorSpec
from kernelwright.kernels.registry import kernels_for

BF16 = np.dtype(ml_dtypes.bfloat16)
HAS_PAIRS = pairs_problem(machine()) is None
WAYS = [("bfloat16", "pairs"), ("bfloat16", "widened"), ("float16", "widened")]


def kernel_of(dtype: str, name: str) -> Kernel:
    (found,) = [k for k in kernels_for("matmul") if k.id == f"matmul/cpu_numba_16bit/{name}"]
    if name == "pairs" and not HAS_PAIRS:
        pytest.skip("waits for a CPU with AVX-512 BF16")
    return found


@settings(max_examples=500)
@given(problems(dtypes=("bfloat16", "bfloat16"), most_work=150**3))
def test_random_products_of_bfloat16_are_right(problem: Problem) -> None:
    assert what_is_wrong(problem) is None


@settings(max_examples=500)
@given(problems(dtypes=("float16", "float16"), contents=("normal", "whole", "not finite"), most_work=150**3))
def test_random_products_of_float16_are_right(problem: Problem) -> None:
    assert what_is_wrong(problem) is None


@pytest.mark.parametrize(("dtype", "name"), WAYS)
@pytest.mark.usefixtures("every_thread_gets_work")
def test_every_configuration_is_right_across_its_blocks(dtype: str, name: str) -> None:
    kernel = kernel_of(dtype, name)
    specs = (TensorSpec((64, 64), dtype),) * 3
    sizes = [(1, 1, 1), (13, 33, 65), (3, 1500, 70), (200, 7, 530), (1030, 1026, 40), (7, 1025, 129)]
    for config in kernel.configurations(specs, {}, 1):
        for place, (m, k, n) in enumerate(sizes):
            layouts = (turned(2), plain(2)) if place % 2 else (plain(2), turned(2))
            problem = Problem((m, k), (k, n), *layouts, plain(2), dtype, seed=place, threads=1 + place % 2)
            assert why_not(kernel, problem) is None
            fault = what_is_wrong(problem, bound(kernel, config))
            assert fault is None, f"{name} {config}: {fault}: {problem}"


@pytest.mark.parametrize("vector_bytes", ["16", "32"])
@pytest.mark.parametrize(("dtype", "name"), WAYS)
def test_narrower_vectors_are_right(
    dtype: str, name: str, vector_bytes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", vector_bytes)
    kernel = kernel_of(dtype, name)
    for sample in list(MATMUL.samples(np.random.default_rng(1), dtype))[5:40:3]:
        specs = MATMUL.infer(tuple(map(TensorSpec.of, sample.inputs)))
        if specs[0].size:
            verdict = check_kernel(kernel, sample, threads=2)
            assert verdict.ok, f"{sample}: {verdict.text}"


# --- rounding -----------------------------------------------------------------------------------------------


def products_with_one(values: np.ndarray, dtype: Any) -> np.ndarray:
    """values * 1 + 0 in each kernel's arithmetic: what is left is how results are rounded."""
    a = np.stack([values, np.zeros_like(values)], axis=1)
    results = [np.asarray(kw.matmul(a.astype(dtype), np.ones((2, n), dtype))) for n in (1, 67)]
    for column in results[1].T:
        np.testing.assert_array_equal(column.astype(np.float32), results[0][:, 0].astype(np.float32))
    return results[0][:, 0]


@pytest.mark.parametrize("dtype", [BF16, np.dtype("float16")])
def test_sums_are_rounded_once_to_nearest_even(dtype: Any) -> None:
    """1 + j/2 steps: ties go to the even neighbour, and small terms are not lost one by one."""
    step = float(ml_dtypes.finfo(dtype).eps)
    for j in range(9):
        a = np.array([[1.0, *[step / 4] * (2 * j)]]).astype(dtype)
        expected = np.array(1 + j * step / 2, np.float32).astype(dtype)
        for n in (5, 67):
            b = np.ones((a.shape[1], n), dtype)
            np.testing.assert_array_equal(np.asarray(kw.matmul(a, b)), np.full((1, n), expected))


@pytest.mark.parametrize("dtype", [BF16, np.dtype("float16")])
def test_extremes_survive_rounding(dtype: Any) -> None:
    top = float(ml_dtypes.finfo(dtype).max)
    values = np.array([0.0, 1.0, -top, top, np.inf, -np.inf, np.nan], np.float32).astype(dtype)
    np.testing.assert_array_equal(products_with_one(values[:4], dtype), values[:4])
    assert np.isnan(products_with_one(values[6:], dtype)).all()
    with np.errstate(all="ignore"):
        a, b = values[3:4].reshape(1, 1), np.full((1, 1), 4, dtype)
        assert np.isinf(np.asarray(kw.matmul(a, b)))  # beyond the range
        inf = values[4:6].reshape(2, 1)
        np.testing.assert_array_equal(np.asarray(kw.matmul(inf, np.ones((1, 1), dtype)))[:, 0], values[4:6])


def test_subnormal_results_are_kept_where_numbers_are_widened() -> None:
    small = np.full((1, 1), 2.0**-70).astype(BF16)
    with kw.using(backend="matmul/cpu_numba_16bit/widened"):
        result = np.asarray(kw.matmul(small, (small * BF16.type(2.0**6)).astype(BF16)))
    np.testing.assert_array_equal(result, np.full((1, 1), 2.0**-134).astype(BF16))
    half = np.full((1, 1), 2.0**-12, np.float16)
    assert np.asarray(kw.matmul(half, half))[0, 0] == np.float16(2.0**-24)


# --- beside torch, and controls -----------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "k", "n"), [(64, 64, 64), (33, 1025, 70), (3, 4096, 128)])
def test_errors_are_at_most_twice_those_of_torch(m: int, k: int, n: int) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch's bfloat16")
    rng = np.random.default_rng(m)
    a, b = (rng.standard_normal(s).astype(BF16) for s in ((m, k), (k, n)))
    theirs = torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) @ torch.from_numpy(
        b.view(np.int16)
    ).view(torch.bfloat16)
    vendor = theirs.view(torch.int16).numpy().view(BF16)
    exact, scale = oracle(MATMUL, (a, b))[0], scales(MATMUL, (a, b))
    assert scale is not None
    mine = np.asarray(kw.matmul(a, b))
    verdict = judge(mine, exact, dtype="bfloat16", reduction_length=k, vendor=vendor, scale=scale[0])
    assert verdict.ok, verdict.text


@contextmanager
def rounding_each_step(dtype: Any) -> Iterator[Any]:
    """A matmul whose partial sums are rounded to 16 bits: what must not pass."""

    def matmul(a: Any, b: Any, out: Any) -> None:
        total = np.zeros(out.shape, dtype)
        for k in range(a.shape[1]):
            total = (total + np.multiply.outer(a[:, k], b[k])).astype(dtype)
        out[...] = total

    yield matmul


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_kept_in_16_bits_do_not_pass(dtype: str) -> None:
    layout = plain(2)
    problem = Problem((9, 600), (600, 33), layout, layout, layout, dtype, contents="positive")
    assert what_is_wrong(problem) is None
    with rounding_each_step(np.dtype(dtype)) as wrong:
        fault = what_is_wrong(problem, wrong)
    assert fault is not None
    assert "error" in fault


def test_bfloat16_uses_tiles_or_pairs_where_the_cpu_has_them() -> None:
    a = np.ones((64, 64), BF16)
    chosen = kw.explain(kw.matmul, a, a).choice.kernel
    assert chosen is not None
    best = "tiles" if amx_proof.problem() is None else "pairs" if HAS_PAIRS else "widened"
    assert chosen.name == best


def test_a_cpu_without_the_instructions_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    poor = replace(machine(), flags=frozenset({"sse2"}))
    monkeypatch.setattr(cpu_numba_16bit, "machine", lambda: poor)
    text = str(kw.explain(kw.matmul, TensorSpec((5, 5), "bfloat16"), TensorSpec((5, 5), "bfloat16")))
    assert "needs the instructions of AVX-512 BF16" in text
    specs = (TensorSpec((5, 5), "float16"),) * 3
    assert "F16C" in str(kernel_of("float16", "widened").why_not(specs, {}))


def test_mixed_dtypes_are_refused() -> None:
    sample = Sample("", (np.ones((2, 2), BF16), np.ones((2, 2), np.float32)))
    with pytest.raises(TypeError, match="nothing is converted silently"):
        kw.matmul(*sample.inputs)  # type: ignore[arg-type]
