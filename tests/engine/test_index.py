"""Picking, joining and ordering beside torch: names, defaults, results, gradients; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, DTypeError, OutOfRangeError, ShapeError

X = np.random.default_rng(0).standard_normal((4, 5, 6)).astype("f4")
Y = np.random.default_rng(1).standard_normal((4, 5, 6)).astype("f4")
PLACES = np.random.default_rng(2).integers(0, 4, (3, 5, 6))
FEW = np.array([3, 0, 3, 1])
WORDS = np.array([[1, 3, 0], [2, 3, 3]])
TABLE = np.random.default_rng(3).standard_normal((4, 7)).astype("f4")


def both(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same function of ours and of torch's."""
    torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
    theirs = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    return getattr(kw, name), theirs


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("embedding", (WORDS, TABLE), {}),
    ("embedding", (WORDS, TABLE), {"padding_idx": 3}),
    ("embedding", (WORDS, TABLE), {"padding_idx": -4}),
    ("index_select", (X, 1, FEW), {}),
    ("index_select", (X, -1, FEW), {}),
    ("gather", (X, 0, PLACES), {}),
    ("gather", (X, 2, PLACES[:, :2]), {}),
    ("scatter_add", (X, 0, PLACES, Y[:3]), {}),
    ("scatter_add", (X, -1, PLACES, Y[:3]), {}),
    ("index_add", (X, 0, FEW, Y), {"alpha": 2}),
    ("concat", ([X, Y, X],), {}),
    ("concat", ([X, Y[:, :2]], 1), {}),
    ("cat", ([X] * 37, 2), {}),
    ("stack", ([X, Y],), {}),
    ("stack", ([X, Y], -1), {}),
    ("pad", (X, (1, 2)), {}),
    ("pad", (X, (1, 2, 0, 3, 2, 1)), {"value": -1.5}),
    ("pad", (X, (-1, 2, 3, -2)), {}),
    ("pad", (X, (1, 3, 2, 0)), {"mode": "reflect"}),
    ("pad", (X, (1, 3, 2, 0)), {"mode": "replicate"}),
    ("pad", (X, (1, 6, -2, 3)), {"mode": "circular"}),
    ("tile", (X, (2, 1, 3)), {}),
    ("tile", (X, (2,)), {}),
    ("repeat_interleave", (X, 2), {}),
    ("repeat_interleave", (X, 3, 1), {}),
    ("repeat_interleave", (X, FEW, 0), {}),
    ("roll", (X, 5), {}),
    ("roll", (X, (2, -3), (0, 2)), {}),
    ("tril", (X,), {}),
    ("triu", (X, 2), {}),
    ("sort", (X,), {}),
    ("sort", (X, 0, True), {}),
    ("argsort", (X, 1), {}),
    ("topk", (X, 3), {}),
    ("topk", (X, 2, 0, False), {}),
    ("searchsorted", (np.sort(X, -1), Y), {}),
    ("searchsorted", (np.sort(X[0, 0]), Y), {"side": "right"}),
    ("one_hot", (WORDS,), {}),
    ("one_hot", (WORDS, 9), {}),
]


def converted(value: Any, make: Callable[[np.ndarray], Any]) -> Any:
    if isinstance(value, np.ndarray):
        return make(value)
    if isinstance(value, list):
        return [make(part) for part in value]
    return value


@pytest.mark.parametrize(("name", "args", "how"), CALLS, ids=[name for name, _, _ in CALLS])
def test_results_and_gradients_are_torchs(name: str, args: Any, how: Any) -> None:
    ours, theirs = both(name)
    import torch

    tensors = [converted(a, lambda x: torch.from_numpy(x.copy())) for a in args]
    found = ours(*(converted(a, kw.array) for a in args), **how)
    moving = [i for i, t in enumerate(tensors) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    for i in moving:
        tensors[i].requires_grad_()
    right = theirs(*tensors, **how)
    right, found = (r if isinstance(r, tuple) else (r,) for r in (right, found))
    for mine, one in zip(found, right, strict=True):
        assert str(one.dtype) == f"torch.{mine.dtype}"
        np.testing.assert_allclose(np.asarray(mine), one.detach().numpy(), rtol=1e-6, atol=1e-6)
    if not moving or not right[0].requires_grad:
        return
    weights = np.random.default_rng(4).standard_normal(right[0].shape).astype("f4")
    right[0].backward(torch.from_numpy(weights))

    def loss(*xs: kw.Array) -> kw.Array:
        given = list(args)
        for i, x in zip(moving, xs, strict=True):
            given[i] = x
        result = ours(*given, **how)
        return ((result[0] if isinstance(result, tuple) else result) * weights).sum()

    gradients = kw.grad(loss, argnums=tuple(range(len(moving))))(*(kw.array(args[i]) for i in moving))
    for i, mine in zip(moving, gradients, strict=True):
        np.testing.assert_allclose(np.asarray(mine), tensors[i].grad.numpy(), rtol=1e-5, atol=1e-5)


def test_take_is_numpys() -> None:
    for axis, index in [(None, WORDS), (0, FEW), (1, WORDS), (-1, np.array([-1, -6])), (2, np.array(3))]:
        np.testing.assert_array_equal(np.asarray(kw.take(X, index, axis)), np.take(X, index, axis))
    order = np.argsort(X, 1)
    along = kw.take_along_axis(X, order, 1)
    np.testing.assert_array_equal(np.asarray(along), np.take_along_axis(X, order, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "bool", "uint64"])
def test_all_dtypes_are_moved(dtype: str) -> None:
    x = kw.array((X * 3).astype("f4")).astype("bool" if dtype == "bool" else "f4")
    x = kw.array(np.abs(np.asarray(x)) if dtype.startswith("u") else np.asarray(x)).astype(dtype)
    data = np.asarray(x)
    np.testing.assert_array_equal(np.asarray(kw.concat([x, x], 1)), np.concatenate([data, data], 1))
    np.testing.assert_array_equal(np.asarray(kw.gather(x, 0, PLACES)), np.take_along_axis(data, PLACES, 0))
    np.testing.assert_array_equal(np.asarray(kw.roll(x, 2, 1)), np.roll(data, 2, 1))
    np.testing.assert_array_equal(np.asarray(kw.tril(x)), np.tril(data))


def test_a_place_that_is_not_there_is_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"embedding: index holds 4, but the places are 0 to 3"):
        kw.embedding(np.array([0, 4]), TABLE)
    with pytest.raises(IndexError, match=r"index holds -1, but the places are 0 to 3"):
        kw.index_select(X, 0, np.array([-1]))
    with pytest.raises(OutOfRangeError, match=r"take: index holds -5, but the places are -4 to 3"):
        kw.take(X, np.array([-5]), 0)
    with pytest.raises(OutOfRangeError, match="places are 0 to 1"):
        kw.one_hot(WORDS, 2)
    with pytest.raises(OutOfRangeError, match="padding_idx 4 is none of the 4 rows"):
        kw.embedding(WORDS, TABLE, padding_idx=4)
    with pytest.raises(DTypeError, match="must be int64 or int32, got float32"):
        kw.gather(X, 0, X)


def test_what_does_not_fit_is_explained() -> None:
    with pytest.raises(ShapeError, match=r"array 1 has shape \(4, 4, 6\) and the first one \(4, 5, 6\)"):
        kw.concat([X, X[:, :4]])
    with pytest.raises(ShapeError, match="no array to join"):
        kw.stack([])
    with pytest.raises(DTypeError, match="x0 is float32 but x1 is float64"):
        kw.concat([X, X.astype("f8")])
    with pytest.raises(ShapeError, match=r"index \(3, 9, 6\) must have the axes of x \(4, 5, 6\)"):
        kw.gather(X, 0, np.zeros((3, 9, 6), int))
    with pytest.raises(ShapeError, match="must be two lengths, before and after"):
        kw.pad(X, (1, 2, 3))
    with pytest.raises(ShapeError, match="too few to pad it by 6 and 0 in mode 'reflect'"):
        kw.pad(X, (6, 0), "reflect")
    with pytest.raises(ConfigError, match="mode is one of constant, reflect"):
        kw.pad(X, (1, 1), "mirror")
    with pytest.raises(ShapeError, match="k is 0 to 6"):
        kw.topk(X, 7)
    with pytest.raises(ShapeError, match="num_classes must be given"):
        kw.one_hot(np.zeros(0, int))


def test_index_operations_run_in_a_plan() -> None:
    def step(table: kw.Array, words: kw.Array) -> Any:
        x = kw.embedding(words, table)
        best, where = kw.topk(kw.concat([x, kw.roll(x, 1, -1)], -1), 3)
        return kw.pad(best, (1, 1)), where, kw.one_hot(words, 5)

    words, table = kw.array(WORDS), kw.array(TABLE)
    for mine, right in zip(kw.compile(step)(table, words), step(table, words), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(right))


def test_gradients_of_index_operations_run_in_a_plan() -> None:
    def loss(table: kw.Array, words: kw.Array) -> kw.Array:
        x = kw.embedding(words, table, padding_idx=3)
        y = kw.interpolate(kw.pad(x, (1, 1), "replicate")[None], scale_factor=2.0)
        picked = kw.sort(x, -1)[0][:, words[0], 1:] * 3.0
        return (y * y).sum() + (picked * picked).sum()

    table, words = kw.array(TABLE.astype("f8")), kw.array(np.minimum(WORDS, 2))
    gradient = kw.grad(loss)
    np.testing.assert_allclose(
        np.asarray(kw.compile(gradient)(table, words)), np.asarray(gradient(table, words)), rtol=1e-12
    )
    kw.check_grads(lambda t: loss(t, words), table, order=2)
