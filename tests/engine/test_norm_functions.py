"""Norms as functions: results and gradients as torch's, running statistics as results; bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
F = torch.nn.functional
rng = np.random.default_rng(0)
X = rng.standard_normal((4, 6, 5, 7)).astype("f4") + 1
C = [rng.standard_normal(6).astype("f4") for _ in range(3)] + [rng.uniform(0.5, 2, 6).astype("f4")]
W = [rng.standard_normal((5, 7)).astype("f4") for _ in range(2)]
CALLS: dict[str, tuple[Any, Any]] = {
    "layer_norm": (
        lambda x, w, b: kw.layer_norm(x, (5, 7), w, b),
        lambda x, w, b: F.layer_norm(x, (5, 7), w, b),
    ),
    "rms_norm": (lambda x, w, b: kw.rms_norm(x, [5, 7], w), lambda x, w, b: F.rms_norm(x, [5, 7], w)),
    "group_norm": (lambda x, w, b: kw.group_norm(x, 3, w, b), lambda x, w, b: F.group_norm(x, 3, w, b)),
    "instance_norm": (
        lambda x, w, b: kw.instance_norm(x, weight=w, bias=b),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    ),
    "batch_norm": (
        lambda x, w, b: kw.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
    ),
    "batch_norm kept": (
        lambda x, w, b: kw.batch_norm(x, C[2], C[3], w, b),
        lambda x, w, b: F.batch_norm(x, torch.from_numpy(C[2]), torch.from_numpy(C[3]), w, b),
    ),
}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_are_those_of_torch(name: str, affine: bool) -> None:
    mine, theirs = CALLS[name]
    pair = W if name in ("layer_norm", "rms_norm") else C[:2]
    dy = np.random.default_rng(1).standard_normal(X.shape).astype("f4")
    given = [X, *pair] if affine else [X]
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in given]
    y = theirs(*tensors, *(() if affine else (None, None)))
    (y * torch.from_numpy(dy)).sum().backward()

    def loss(*arrays: Any) -> Any:
        return kw.sum(mine(*arrays, *(() if affine else (None, None))) * dy)

    result = mine(X, *(pair if affine else (None, None)))
    np.testing.assert_allclose(np.asarray(result), y.detach().numpy(), rtol=1e-4, atol=2e-5)
    grads = kw.grad(loss, argnums=tuple(range(len(given))))(*map(kw.array, given))
    for got, tensor in zip(grads, tensors, strict=True):
        right = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(np.asarray(got), right, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("axis", [1, -1])
def test_new_running_statistics_are_those_that_torch_writes(axis: int) -> None:
    mean, var = torch.from_numpy(C[2].copy()), torch.from_numpy(C[3].copy())
    right = F.batch_norm(torch.from_numpy(X), mean, var, None, None, True, 0.3).numpy()
    x = X if axis == 1 else np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    y, new_mean, new_var = kw.batch_norm(x, C[2], C[3], training=True, momentum=0.3, channel_axis=axis)
    y = np.asarray(y) if axis == 1 else np.asarray(y).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(new_mean), mean.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(new_var), var.numpy(), rtol=1e-5)


def test_the_ending_is_applied_after_the_norm() -> None:
    residual = np.random.default_rng(2).standard_normal(X.shape).astype("f4")
    plain = np.asarray(kw.batch_norm(X, C[2], C[3]))
    ended = kw.batch_norm(X, C[2], C[3], activation="relu", residual=residual)
    np.testing.assert_allclose(np.asarray(ended), np.maximum(plain + residual, 0), rtol=1e-5, atol=1e-6)


def test_statistics_of_16_bit_numbers_stay_float32() -> None:
    x = kw.array(X, dtype="bfloat16")
    y, mean, var = kw.batch_norm(x, C[2], C[3], C[0], C[1], training=True)
    assert [str(a.dtype) for a in (y, mean, var)] == ["bfloat16", "float32", "float32"]


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "normalized_shape": (lambda: kw.layer_norm(X, 5), ShapeError, "it names the lengths of x's last axes"),
    "normalized_shape's type": (lambda: kw.layer_norm(X, "7"), ShapeError, r"write x.shape\[-1:\]"),
    "weight": (lambda: kw.layer_norm(X, 7, C[0]), ShapeError, r"weight has the shape \(7,\)"),
    "weight's dtype": (lambda: kw.layer_norm(X, 7, np.ones(7)), DTypeError, "beside that x it is float32"),
    "groups": (lambda: kw.group_norm(X, 4), ShapeError, "6 channels do not make up 4 groups"),
    "one number": (
        lambda: kw.batch_norm(np.ones((1, 3), "f4"), None, None, training=True),
        ShapeError,
        "write training=False",
    ),
    "no statistics": (lambda: kw.batch_norm(X, None, None), DTypeError, "write training=True"),
    "one statistic": (lambda: kw.batch_norm(X, C[2], None, training=True), DTypeError, "give both or none"),
    "activation": (lambda: kw.batch_norm(X, C[2], C[3], activation="gelu"), ConfigError, "'relu' or None"),
    "residual": (lambda: kw.batch_norm(X, C[2], C[3], residual=X[0]), ShapeError, "residual has the shape"),
    "instance statistics": (lambda: kw.instance_norm(X, C[2], C[3]), ConfigError, "use_input_stats=False"),
    "integers": (lambda: kw.layer_norm(X.astype("i4"), 7), DTypeError, "got int32"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()
