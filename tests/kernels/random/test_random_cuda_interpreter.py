"""Random numbers on the GPU are the CPU's, bit for bit, and nothing is touched that is not theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton_interpreter import check, interpreted, kernel_by_id, standing_in  # noqa: E402

from kernelwright.kernels.cuda.check import cuda_specs, numpy_of, untakeable  # noqa: E402
from kernelwright.kernels.cuda.launch import torch_dtype  # noqa: E402
from kernelwright.kernels.op import AnyArray, Sample, get_op  # noqa: E402
from kernelwright.kernels.random.cuda import key_kernels, number_kernels, word_kernels  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

pytestmark = interpreted

KEY = np.array([0xDEADBEEF, 77], np.uint32)
FLOATS = ("float32", "float64", "bfloat16", "float16")


def on_cpu(op: str, sample: Sample) -> AnyArray:
    """What the generated CPU kernel gives."""
    found, (kernel,) = get_op(op), kernels_for(op, "cpu")
    specs = tuple(TensorSpec.of(array) for array in sample.inputs)
    attrs = found.complete(sample.attrs)
    (spec,) = found.infer(specs, **attrs)
    out = np.empty(spec.shape, spec.np_dtype)
    kernel.bind((*specs, spec), attrs, {}, 1)(*sample.inputs, out)
    return out


def on_gpu(op: str, sample: Sample) -> AnyArray:
    """What the CUDA kernel gives, in the interpreter."""
    import torch

    found, (kernel,) = get_op(op), kernels_for(op, "cuda")
    specs, attrs = cuda_specs(kernel, sample), found.complete(sample.attrs)
    given = [
        x.view(torch_dtype("bfloat16")) if a.dtype == np_dtype("bfloat16") else x
        for a in sample.inputs
        for x in [torch.from_numpy(np.ascontiguousarray(a).view(f"V{a.itemsize}").view(_plain(a)))]
    ]
    out = torch.empty(specs[-1].shape, dtype=torch_dtype(specs[-1].dtype))
    with standing_in(), np.errstate(all="ignore"):
        kernel.bind(specs, attrs, {}, 1)(*given, out)
    return numpy_of(out)


def _plain(array: AnyArray) -> Any:
    return np.int16 if array.dtype == np_dtype("bfloat16") else array.dtype


def same(op: str, sample: Sample) -> None:
    """Both have the same bits."""
    mine, theirs = on_gpu(op, sample), on_cpu(op, sample)
    assert mine.dtype == theirs.dtype
    wrong = np.flatnonzero(mine.view(f"u{mine.itemsize}") != theirs.view(f"u{mine.itemsize}"))
    assert not wrong.size, f"{op} {sample.attrs}: {wrong.size} of {mine.size} differ, the first {wrong[:5]}"


def draws() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kind of number, in every dtype: more than one program, and a tail that is not whole."""
    for dtype in FLOATS:
        shape = {"shape": (2**12 + 2**11 + 13,), "dtype": dtype}
        yield "random_uniform", shape
        yield "random_uniform", {**shape, "low": -0.3, "high": 0.7}
        yield "random_normal", shape
        yield "random_normal", {**shape, "mean": 0.5, "std": 0.02}
        shorter = {**shape, "shape": (301,)}
        yield "random_truncated_normal", {**shorter, "low": -1.0, "high": 1.5, "mean": 2.0, "std": 3.0}
        yield "random_exponential", {**shape, "scale": 1.7}
    yield "random_bits", {"shape": (2**13,)}
    yield "random_bernoulli", {"shape": (2**13 + 3,), "p": 0.3}
    for dtype in ("int64", "uint64", "int32", "uint8", "int16"):
        yield "random_randint", {"shape": (2**11 + 5,), "dtype": dtype, "low": 3, "high": 100}
    yield "random_randint", {"shape": (999,), "dtype": "int64", "low": -(2**62), "high": 2**40}
    yield "random_randint", {"shape": (999,), "dtype": "uint64", "low": 0, "high": 2**64}
    for n in (1, 2, 33, 700):
        yield "random_permutation", {"n": n}
    yield "random_split", {"n": 301}


@pytest.mark.parametrize(("op", "attrs"), list(draws()), ids=lambda x: str(x).replace(" ", ""))
def test_numbers_have_the_bits_of_the_cpu(op: str, attrs: dict[str, Any]) -> None:
    same(op, Sample("", (KEY,), attrs))


@pytest.mark.parametrize("number", [0, 5, 2**32 + 1, -3])
def test_keys_folded_have_the_bits_of_the_cpu(number: int) -> None:
    for dtype in ("int64", "int32") if abs(number) < 2**31 else ("int64", "uint64"):
        same("random_fold_in", Sample("", (KEY, np.asarray(number, dtype))))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(4096,), (77, 59)])
def test_dropout_leaves_out_what_it_leaves_out_on_the_cpu(dtype: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).standard_normal(shape).astype(np_dtype(dtype))
    same("dropout", Sample("", (x, KEY), {"p": 0.3}))


OPS = ("random_bits", "random_uniform", "random_normal", "random_truncated_normal", "random_exponential")
OPS += (
    "random_bernoulli",
    "random_randint",
    "random_permutation",
    "random_split",
    "random_fold_in",
    "dropout",
)


@pytest.mark.parametrize("op", OPS)
def test_kernels_survive_the_samples_of_their_op(op: str) -> None:
    (kernel,) = kernels_for(op, "cuda")
    found, proven = get_op(op), 0
    dtypes = found.dtypes if op == "dropout" else found.dtypes[:1]
    for place, dtype in enumerate(dtypes):
        for turn, sample in enumerate(found.samples(np.random.default_rng(1), dtype)):
            # Of numbers between 2.0 and 2.5 hundreds of attempts have to be made: too slow here.
            slow = sample.name == "2.0 to 2.5"
            if slow or untakeable(sample) or not cuda_specs(kernel, sample)[-1].size:
                continue
            verdict = check(kernel, sample, backwards=(place + turn) % 2 == 1)
            assert verdict.ok, f"{kernel.id} on {sample!r}: {verdict.text}"
            proven += 1
    assert proven > 4


def test_a_number_depends_on_key_and_place_alone() -> None:
    """Not on how many there are, nor on the size of a program."""
    many = on_gpu("random_normal", Sample("", (KEY,), {"shape": (5000,)}))
    few = on_gpu("random_normal", Sample("", (KEY,), {"shape": (1003,)}))
    np.testing.assert_array_equal(few, many[:1003])
    kept = on_gpu("dropout", Sample("", (np.ones(5000, np.float32), KEY), {"p": 0.25})) != 0
    halves = np.ones(5000, np_dtype("bfloat16"))
    np.testing.assert_array_equal(on_gpu("dropout", Sample("", (halves, KEY), {"p": 0.25})) != 0, kept)


# --- controls: kernels that are wrong must be found ---------------------------------------------------------


def test_philox_with_a_round_too_few_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_kernels, "_ROUNDS", tl.constexpr(9))
    with pytest.raises(AssertionError, match="differ"):
        same("random_bits", Sample("", (KEY,), {"shape": (100,)}))


def test_an_angle_that_is_not_reduced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_kernels, "_TURN_32", tl.constexpr(1.46291807e-9 * 1.0001))
    with pytest.raises(AssertionError, match="differ"):
        same("random_normal", Sample("", (KEY,), {"shape": (100,)}))


@triton.jit
def put_everything(out, at, value, left, UNIT: tl.constexpr):
    tl.store(out + at, value.to(out.dtype.element_ty))


def test_a_store_past_the_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(number_kernels, "put", put_everything)
    with pytest.raises(Exception, match="OutOfBounds"):
        check("random_bits/cuda_triton/philox", Sample("", (KEY,), {"shape": (100,)}))


@triton.jit
def first_step(heads, following, place, step, active):
    """Some step that went there, not the last one before `step`."""
    return tl.load(heads + place, mask=active, other=-1).to(tl.int64)


def test_a_permutation_that_takes_any_step_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_kernels, "last_before", first_step)
    with pytest.raises(AssertionError, match="differ"):
        same("random_permutation", Sample("", (KEY,), {"n": 500}))


def test_results_in_other_layouts_are_refused() -> None:
    kernel = kernel_by_id("dropout/cuda_triton/philox")
    x = TensorSpec((4, 6), "float32", "cuda")
    key, turned = TensorSpec((2,), "uint32", "cuda"), TensorSpec((4, 6), "float32", "cuda", (4, 16))
    assert kernel.why_not((x, key, x), {"p": 0.5}) is None
    assert "row-major" in (kernel.why_not((x, key, turned), {"p": 0.5}) or "")
    far = TensorSpec((2,) * 9, "float32", "cuda", tuple(4 * 3**i for i in range(9)))
    assert "axes" in (kernel.why_not((far, key, TensorSpec((2,) * 9, "float32", "cuda")), {"p": 0.5}) or "")
