"""Attention: beside torch, forward and backward; threads; narrow vectors; memory; special rows; bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.eager import call_all
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.attention import cpu_llvm
from kernelwright.kernels.attention.op import ATTENTION, ATTENTION_GRAD
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.registry import kernels_for

OPS = {"attention": ATTENTION, "attention_grad": ATTENTION_GRAD}


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def masks() -> dict[str, Any]:
    allowed = np.random.default_rng(1).random((5, 9)) < 0.7
    allowed[:, 0] = True
    return {
        "none": None,
        "bool": allowed,
        "keys": np.array([True] * 6 + [False] * 3).reshape(1, 1, 1, 9),
        "float": normal(3, 5, 9, seed=4),
    }


CALLS: list[dict[str, Any]] = [
    {},
    {"is_causal": True},
    {"scale": 0.3},
    *({"attn_mask": mask} for mask in masks().values()),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: "-".join(c) or "plain")
def test_results_and_gradients_are_those_of_torch(call: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    inputs = [normal(2, 3, n, 8, seed=n + i) for i, n in enumerate((5, 9, 9))]
    dout = normal(2, 3, 5, 8, seed=3)
    tensors = [torch.from_numpy(x).requires_grad_() for x in inputs]
    mask = call.get("attn_mask")
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *tensors, **{**call, **({} if mask is None else {"attn_mask": torch.from_numpy(mask)})}
    )
    theirs.backward(torch.from_numpy(dout))
    mine = kw.scaled_dot_product_attention(*inputs, **call)
    np.testing.assert_allclose(np.asarray(mine), theirs.detach().numpy(), rtol=2e-5, atol=2e-6)

    def loss(*args: Any) -> Any:
        return kw.sum(kw.mul(kw.scaled_dot_product_attention(*args, **call), dout))

    for mine, tensor in zip(kw.grad(loss, (0, 1, 2))(*map(kw.array, inputs)), tensors, strict=True):
        np.testing.assert_allclose(np.asarray(mine), tensor.grad.numpy(), rtol=5e-5, atol=5e-6)


def test_shared_heads_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    inputs = normal(2, 6, 7, 8), normal(2, 2, 11, 8, seed=1), normal(2, 2, 11, 4, seed=2)
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, inputs), enable_gqa=True)
    mine = kw.scaled_dot_product_attention(*inputs, enable_gqa=True)
    np.testing.assert_allclose(np.asarray(mine), theirs.numpy(), rtol=2e-5, atol=2e-6)


def test_a_float_mask_has_a_gradient() -> None:
    inputs = [normal(2, 2, n, 4, seed=n + i, dtype="float64") for i, n in enumerate((3, 6, 6))]
    for shape in ((3, 6), (2, 1, 1, 6), (1, 2, 3, 1)):
        mask = normal(*shape, seed=9, dtype="float64")
        kw.check_grads(kw.scaled_dot_product_attention, *inputs, mask)


def test_leading_axes_broadcast() -> None:
    query, key, value = normal(4, 2, 5, 8), normal(1, 2, 7, 8, seed=1), normal(2, 7, 8, seed=2)
    mine = kw.scaled_dot_product_attention(query, key, value)
    full = kw.scaled_dot_product_attention(
        query, np.broadcast_to(key, (4, 2, 7, 8)), np.broadcast_to(value, (4, 2, 7, 8))
    )
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(full))


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("width", ["16", "32"])
def test_narrower_vectors_are_right(name: str, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", width)
    (kernel,) = kernels_for(name)
    for sample in list(OPS[name].samples(np.random.default_rng(1), "float32"))[4:12:2]:
        verdict = check_kernel(kernel, sample, threads=2)
        assert verdict.ok, f"{sample}: {verdict.text}"


@pytest.mark.parametrize("name", OPS)
def test_many_tasks_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small calls in as many tasks as large ones; keys in several runs where there are few heads."""
    monkeypatch.setattr(cpu_llvm, "TASK_WORK", 1)
    for plan in (cpu_llvm.plan_forward, cpu_llvm.plan_backward):
        plan.cache_clear()
    (kernel,) = kernels_for(name)
    ran = 0
    for sample in OPS[name].samples(np.random.default_rng(2), "float32"):
        specs = tuple(map(TensorSpec.of, sample.inputs))
        outputs = OPS[name].infer(specs, **OPS[name].complete(sample.attrs))
        if any(spec.size for spec in outputs) and specs[1].shape[-2] > 100:
            verdict = check_kernel(kernel, sample, threads=7)
            assert verdict.ok, f"{sample}: {verdict.text}"
            ran += 1
    assert ran >= 6
    for plan in (cpu_llvm.plan_forward, cpu_llvm.plan_backward):
        plan.cache_clear()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    inputs = [normal(1, 2, 300, 16, seed=i) for i in range(3)]
    results = []
    for threads in (1, 2, 5):
        with kw.using(threads=threads):
            results.append(np.asarray(kw.scaled_dot_product_attention(*inputs, is_causal=True)))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_memory_grows_with_length_and_not_with_its_square() -> None:
    def scratch(length: int, dtype: str) -> tuple[int, int]:
        x, sums = TensorSpec((1, 4, length, 64), dtype), TensorSpec((1, 4, length), "float32")
        absent = TensorSpec.of(None)
        forward = cpu_llvm.plan_forward((x, x, x, absent, x, sums), True, None, 4, 64)[-1]
        specs = (x, x, x, absent, x, sums, x, absent, x, x, x)
        return forward, cpu_llvm.plan_backward(specs, True, None, 8, 64).nbytes

    for dtype in ("float32", "bfloat16"):
        for short, long in zip(scratch(1 << 12, dtype), scratch(1 << 14, dtype), strict=True):
            assert long <= 4.1 * short


def test_a_row_in_which_nothing_takes_part_is_zero() -> None:
    query, key, value = (normal(2, n, 8, seed=n) for n in (4, 6, 6))
    mask = np.ones((4, 6), bool)
    mask[2] = False
    out, total = (np.asarray(x) for x in call_all(ATTENTION, (query, key, value, mask)))
    assert not out[:, 2].any()
    assert (total[:, 2] == -np.inf).all()
    dq, dk, dv = call_all(ATTENTION_GRAD, (query, key, value, mask, out, total, np.ones_like(out), None))
    assert not np.asarray(dq)[:, 2].any()
    assert np.isfinite(np.asarray(dk)).all()
    assert np.isfinite(np.asarray(dv)).all()


def test_dropout_takes_a_key_and_drops_whole_probabilities() -> None:
    query, key = normal(1, 4, 8), normal(1, 50, 8, seed=1)
    value = np.broadcast_to(np.eye(50, dtype="float32"), (1, 50, 50))
    with pytest.raises(ConfigError, match="dropout_key"):
        kw.scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    whole = np.asarray(kw.scaled_dot_product_attention(query, key, value))
    dropped = np.asarray(
        kw.scaled_dot_product_attention(query, key, value, dropout_p=0.5, dropout_key=kw.random.key(1))
    )
    gone = dropped == 0
    assert 60 < gone.sum() < 140
    np.testing.assert_allclose(dropped[~gone], 2 * whole[~gone], rtol=1e-5)


def test_second_derivatives_match_finite_differences() -> None:
    query, key, value = (
        normal(2, heads, n, 4, seed=n, dtype="float64") for heads, n in ((4, 3), (2, 5), (2, 5))
    )
    mask = normal(4, 3, 1, seed=7, dtype="float64")

    def shared(q: Any, k: Any, v: Any) -> Any:
        return kw.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    kw.check_grads(shared, query, key, value, order=2)
    kw.check_grads(kw.scaled_dot_product_attention, query[:, :2], key, value, mask[:2], order=2)


BAD: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((normal(5), normal(5, 4), normal(5, 4)), {}, ShapeError, "two axes or more"),
    ((normal(2, 5, 4), normal(2, 7, 3), normal(2, 7, 3)), {}, ShapeError, "4 and 3 features"),
    ((normal(2, 5, 4), normal(2, 7, 4), normal(2, 6, 4)), {}, ShapeError, "7 and 6 rows"),
    ((normal(6, 5, 4), normal(2, 7, 4), normal(2, 7, 4)), {}, ShapeError, "enable_gqa"),
    ((normal(5, 5, 4), normal(2, 7, 4), normal(2, 7, 4)), {"enable_gqa": True}, ShapeError, "no multiple"),
    (
        (normal(2, 5, 4), normal(2, 7, 4), normal(2, 7, 4), normal(5, 6)),
        {},
        ShapeError,
        "cannot be repeated",
    ),
    (
        (normal(2, 5, 4), normal(2, 7, 4), normal(2, 7, 4), np.ones((5, 7), "int64")),
        {},
        DTypeError,
        "True: takes part",
    ),
    (
        (normal(2, 5, 4), normal(2, 7, 4), normal(2, 7, 4), np.ones((5, 7), bool)),
        {"is_causal": True},
        ConfigError,
        "into the mask",
    ),
    ((normal(2, 5, 4), normal(2, 7, 4, dtype="float64"), normal(2, 7, 4)), {}, DTypeError, "float64"),
]


@pytest.mark.parametrize(("args", "attrs", "error", "text"), BAD, ids=lambda x: x if type(x) is str else "")
def test_bad_input_is_refused_with_what_would_do(
    args: tuple[Any, ...], attrs: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        kw.scaled_dot_product_attention(*args, **attrs)
