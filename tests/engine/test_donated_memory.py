"""Donated memory: results take it, and nothing that somebody else can still see is overwritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import DonatedError


def some(*shape: int, seed: int = 0) -> kw.Array:
    return kw.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def same(a: Any, b: Any) -> None:
    assert np.shape(a) == np.shape(b)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_result_in_donated_memory_has_its_own_shape() -> None:
    x = np.asarray(some(2, 3))
    same(kw.compile(lambda p: p.reshape(6), donate=0)(some(2, 3)), x.reshape(6))
    same(kw.compile(lambda p: p.reshape(6) * 2, donate=0)(some(2, 3)), x.reshape(6) * 2)
    same(kw.compile(lambda p: p.reshape(1, 2, 3) + 1, donate=0)(some(2, 3)), x.reshape(1, 2, 3) + 1)


def test_memory_that_overlaps_what_is_donated_is_refused() -> None:
    step = kw.compile(lambda p, x: (p + 1, x * 2), donate=0)
    step(some(2048), some(2048, seed=1))  # so that the next call takes the quick way
    base = some(4096)
    before = np.asarray(base).copy()
    for x in (base[1024:3072], base[2047:4095], base[2047::-1], base[::2]):
        with pytest.raises(DonatedError, match="the same memory"):
            step(base[:2048], x)
    same(base, before)
    pairs = kw.array(before)
    new, _ = step(pairs[::2], pairs[1::2])  # side by side, but no element is in both
    same(new, before[::2] + 1)


def test_a_view_that_is_donated_leaves_what_is_around_it() -> None:
    base = np.zeros(100, np.float32)
    step = kw.compile(lambda p: p + 1, donate=0)
    for view in (base[10:20], base[31:41], base[61:71]):
        same(step(kw.asarray(view)), np.ones(10))
    assert base.sum() == 30
    assert not np.delete(base, [*range(10, 20), *range(31, 41), *range(61, 71)]).any()


def test_a_constant_is_not_overwritten_through_another_view_of_its_memory() -> None:
    ones = kw.array(np.ones(4, np.float32))
    clear = kw.compile(lambda p: p * 0, donate=0)
    clear(some(8)), clear(some(4))
    whole = some(8)
    part = whole[2:6]
    by_part = kw.compile(lambda x: x * part)
    before = np.asarray(by_part(ones)).copy()
    clear(whole)
    same(by_part(ones), before)

    whole = some(8, seed=1)
    part = whole[2:6]
    by_whole = kw.compile(lambda x: x * whole[2:6])
    before = np.asarray(by_whole(ones)).copy()
    clear(part)
    same(by_whole(ones), before)


def test_only_plain_arrays_can_be_donated() -> None:
    class Mine(kw.Array):
        pass

    mine = Mine(np.ones(4, np.float32))
    with pytest.raises(DonatedError, match="no Array but a Mine"):
        kw.compile(lambda p: p * 2, donate=0)(mine)
    same(mine, np.ones(4))


def test_a_call_that_fails_has_taken_nothing() -> None:
    step = kw.compile(lambda p, x: (p + 1, kw.relu(x)), donate=0)
    with kw.using(backend="reference"):
        p = some(5)
        before = np.asarray(p).copy()
        step(some(5), some(3))
        plan = step.plan
        last = plan.segments[-1]
        plan._runs._places[last] = lambda *arrays: 1 / 0
        with pytest.raises(ZeroDivisionError):
            step(p, some(3))
    same(p, before)


def test_an_update_waits_for_what_reads_its_parameter_through_a_view() -> None:
    @kw.compile(donate=0)
    def step(w: Any, x: Any, g: Any) -> Any:
        y = kw.tanh(x @ w.T)
        return w - 0.1 * g, y, kw.exp(x).sum()

    w = some(64, 64)
    before, place = np.asarray(w).copy(), np.asarray(w).__array_interface__["data"]
    x, g = some(8, 64, seed=1), some(64, 64, seed=2)
    new, y, _ = step(w, x, g)
    assert np.asarray(new).__array_interface__["data"] == place
    np.testing.assert_allclose(np.asarray(y), np.tanh(np.asarray(x) @ before.T), rtol=1e-4, atol=1e-5)


def _random(rng: np.random.Generator, values: list[Any]) -> Any:
    """One more value, made of those that are there."""
    pick = lambda: values[rng.integers(len(values))]  # noqa: E731
    x, y = pick(), pick()
    n = x.shape[0]
    makes = [
        lambda: x + y,
        lambda: x - y.T,
        lambda: x * y[:1],
        lambda: x + y[:, 2:3],
        lambda: kw.softmax(x, -1),
        lambda: kw.softmax(x, 0),
        lambda: x - kw.mean(x, -1, keepdims=True) * kw.amax(y, 0),
        lambda: (x - kw.mean(x * y, 0, keepdims=True)) * kw.tanh(x),
        lambda: kw.cumsum(x, 0) / 8,
        lambda: kw.cumsum(x, -1) / 8,
        lambda: kw.tanh(x @ y),
        lambda: x[::-1] + y,
        lambda: x.reshape(n * n).reshape(n, n) + x.T,
        lambda: kw.layer_norm(x, (n,), y[0], x[1]),
        lambda: kw.where(x > 0, y, x[:, ::-1]),
        lambda: kw.concat([x[n // 2 :], y[: n // 2]], 0),
        lambda: kw.broadcast_to(kw.sum(x, 1) / n, (n, n)) + x,
        lambda: kw.maximum(x, y) * 0.5,
    ]
    return makes[rng.integers(len(makes))]()


@pytest.mark.parametrize("seed", range(12))
def test_random_functions_of_donated_arrays_give_what_they_give_without(seed: int) -> None:
    n = (3, 17, 64)[seed % 3]

    def function(params: Any, x: Any) -> Any:
        rng = np.random.default_rng(seed)
        values = [*params, x]
        for _ in range(14):
            values.append(_random(rng, values))
        new = values[-4:]
        return [*new, new[0], params[0].T, params[1], values[5].reshape(n * n)]

    def given() -> Any:
        return [some(n, n, seed=i) for i in range(3)], some(n, n, seed=3)

    expected = kw.compile(function)(*given())
    donating = kw.compile(function, donate=0)
    for _ in range(2):
        for got, want in zip(donating(*given()), expected, strict=True):
            same(got, want)
    room = np.zeros(3 * n * n + 2, np.float32)  # memory that begins at no cache line, beside other
    params, x = given()
    views = [room[1 + i * n * n :][: n * n].reshape(n, n) for i in range(3)]
    for view, p in zip(views, params, strict=True):
        view[:] = np.asarray(p)
    for got, want in zip(donating([kw.asarray(v) for v in views], x), expected, strict=True):
        same(got, want)
    assert room[0] == room[-1] == 0
