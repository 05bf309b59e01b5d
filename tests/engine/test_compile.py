"""kw.compile: traced once for each set of specs, right results, and errors that name the user's line."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels import dispatch
from kernelwright.kernels.errors import DonatedError, DTypeError, NonFiniteError, TraceError


def some(*shape: int, seed: int = 0, dtype: str = "float32") -> kw.Array:
    return kw.array(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_function_is_traced_once_for_each_set_of_specs() -> None:
    calls = []

    @kw.compile
    def double(x: kw.Array) -> kw.Array:
        calls.append(x.shape)
        return x + x

    x, y = some(3, 4), some(5)
    same(double(x), np.asarray(x) * 2)
    same(double(some(3, 4, seed=1)), np.asarray(some(3, 4, seed=1)) * 2)
    same(double(y), np.asarray(y) * 2)
    turned = kw.array(np.asarray(x)).T
    same(double(turned), np.asarray(turned) * 2)
    assert calls == [(3, 4), (5,), (4, 3)]
    assert double.traces == 3
    assert "add" in str(double.graph)
    assert "test_compile.py" in str(double.plan)


def test_trees_go_in_and_come_out() -> None:
    @kw.compile
    def swap(tree: Any, *, scale: kw.Array) -> Any:
        return {"first": tree[1]["b"] * scale, "rest": (tree[0], None, [tree[1]["a"]])}

    a, b, c, scale = some(2), some(3), some(4), some()
    got = swap([a, {"a": b, "b": c}], scale=scale)
    same(got["first"], np.asarray(c) * np.asarray(scale))
    same(got["rest"][0], a)
    same(got["rest"][2][0], b)
    assert got["rest"][1] is None


def test_python_may_branch_on_shapes_and_not_on_values() -> None:
    @kw.compile
    def by_shape(x: kw.Array) -> kw.Array:
        return x * 2 if x.shape[0] > 2 else x

    same(by_shape(some(3)), np.asarray(some(3)) * 2)
    same(by_shape(some(2)), some(2))

    @kw.compile
    def by_value(x: kw.Array) -> kw.Array:
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(TraceError, match=r"test_compile\.py:\d+: .*kw\.where\(condition, a, b\)"):
        by_value(some(3))

    @kw.compile
    def by_number(x: kw.Array) -> kw.Array:
        return x * float(x.sum())

    with pytest.raises(TraceError, match=r"item\(\), int\(\) and float\(\)"):
        by_number(some(3))


def test_a_tracer_that_is_kept_is_refused_later() -> None:
    kept = []

    @kw.compile
    def leaky(x: kw.Array) -> kw.Array:
        kept.append(x)
        return x + 1

    leaky(some(3))
    with pytest.raises(TraceError, match="whose tracing has ended"):
        kept[0] + 1
    with pytest.raises(TraceError, match="has no numbers yet"):
        np.asarray(kept[0])


def test_arrays_from_outside_are_constants_that_nobody_can_change_unseen() -> None:
    weight, plain = some(4), np.ones(4, np.float32)
    f = kw.compile(lambda x: x * weight + plain)
    before = np.asarray(f(some(4, seed=1)))
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(weight)[0] = 7
    plain[:] = 100  # a copy was taken: NumPy arrays belong to the caller
    same(f(some(4, seed=1)), before)


def test_what_is_no_array_is_refused_by_its_path() -> None:
    f = kw.compile(lambda tree: tree["a"]["rate"])
    with pytest.raises(DTypeError, match=r"\['a'\]\['rate'\]"):
        f({"a": {"rate": 0.1}})
    with pytest.raises(DTypeError, match=r"what .* returns"):
        kw.compile(lambda x: "text")(some(3))


def test_results_are_memory_of_their_own() -> None:
    @kw.compile
    def f(x: kw.Array) -> Any:
        y = x * 2
        return x, y, y, y.T, y.reshape(6), y[0]

    x = some(2, 3)
    first = f(x)
    second = f(some(2, 3, seed=5))
    expected = np.asarray(x) * 2
    for got, want in zip(
        first, (x, expected, expected, expected.T, expected.reshape(6), expected[0]), strict=True
    ):
        same(got, want)
    everything = [np.asarray(a) for a in (*first, *second, x)]
    for i, a in enumerate(everything):
        assert not any(np.shares_memory(a, b) for b in everything[i + 1 :])


def test_donated_arrays_give_their_memory_to_the_results() -> None:
    @kw.compile(donate=0)
    def step(params: dict[str, kw.Array], x: kw.Array) -> dict[str, kw.Array]:
        return {name: value - 0.1 * x for name, value in params.items()}

    params, x = {"a": some(1000), "b": some(1000, seed=1)}, some(1000, seed=2)
    expected = {name: np.asarray(value) - np.float32(0.1) * np.asarray(x) for name, value in params.items()}
    places = {name: value.__array_interface__["data"] for name, value in _numpy(params).items()}
    new = step(params, x)
    for name, value in new.items():
        np.testing.assert_allclose(np.asarray(value), expected[name], rtol=1e-6)
        assert np.asarray(value).__array_interface__["data"][0] == places[name][0]
    with pytest.raises(DonatedError, match="donated"):
        params["a"] + 1
    again = step(new, x)
    assert np.isfinite(np.asarray(again["b"])).all()


def _numpy(tree: dict[str, kw.Array]) -> dict[str, Any]:
    return {name: np.asarray(value) for name, value in tree.items()}


def test_memory_that_others_still_see_cannot_be_donated() -> None:
    step = kw.compile(lambda p, x: p + x, donate=0)
    x = some(8)
    with pytest.raises(DonatedError, match="the same memory"):
        step(x, x)
    with pytest.raises(DonatedError, match=r"write kw\.array"):
        step(np.ones(8, np.float32), x)
    same(step(some(8, seed=1), x), np.asarray(some(8, seed=1)) + np.asarray(x))


def test_a_read_only_array_that_is_donated_is_copied_first() -> None:
    held = some(8)
    kw.compile(lambda x: x * held)(some(8, seed=1))  # now read-only
    before = np.asarray(held).copy()
    kept = np.asarray(held)
    same(kw.compile(lambda p: p + 1, donate=0)(held), before + 1)
    same(kept, before)


def test_debug_nans_names_the_op_and_the_line_and_saves_the_parameters() -> None:
    @kw.compile(donate=0)
    def step(p: kw.Array, x: kw.Array) -> Any:
        q = p + 1
        return q, kw.log(x)

    p, before = some(4), np.asarray(some(4))
    with (
        kw.debug_nans(),
        pytest.raises(NonFiniteError, match=r"log \(test_compile\.py:\d+\) gave nan at \[1\]"),
    ):
        step(p, kw.array([1.0, -1.0, 2.0, 3.0], dtype="float32"))
    same(p, before)
    q, _ = step(p, kw.array([1.0, 1.0, 2.0, 3.0], dtype="float32"))
    same(q, before + 1)


def test_an_argument_by_name_without_arrays_is_told_from_one_left_out() -> None:
    bias = some(4, seed=3)
    f = kw.compile(lambda x, b=bias: x if b is None else x + b)
    x = some(4)
    same(f(x, b=None), x)
    same(f(x), np.asarray(x) + np.asarray(bias))
    same(f(x, b=None), x)


def test_a_compiled_function_goes_with_its_plans() -> None:
    f = kw.compile(lambda x: x * 2 + 1)
    f(some(10))
    function, plan = weakref.ref(f), weakref.ref(f.plan)
    del f
    gc.collect()
    assert function() is None
    assert plan() is None


def test_many_other_calls_do_not_make_a_plan_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_MEMO_LIMIT", 2)
    f, x = kw.compile(lambda x: x * 2), some(10)
    f(x)
    for n in range(1, 6):
        kw.tanh(some(n))
    f(x)
    assert f.traces == 1


def test_two_threads_may_call_one_function_at_once() -> None:
    @kw.compile
    def f(x: kw.Array, w: kw.Array) -> kw.Array:
        return kw.relu(x @ w) @ w

    w = some(64, 64)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = some(64, 64, seed=seed)
        expected = np.asarray(f(x, w)).copy()
        wrong.extend(seed for _ in range(30) if not np.array_equal(np.asarray(f(x, w)), expected))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_compiled_functions_and_sizes_of_0_and_1_fit_into_each_other() -> None:
    inner = kw.compile(lambda x: x * 3)
    inner(some(4))
    outer = kw.compile(lambda x: inner(x) + 1)
    same(outer(some(4)), np.asarray(some(4)) * 3 + 1)
    for shape in ((), (0,), (1,), (3, 0, 2), (5, 1)):
        x = some(*shape)
        np.testing.assert_allclose(np.asarray(outer(x)), np.asarray(x) * 3 + 1, rtol=1e-6)


def test_every_dtype_survives_a_plan() -> None:
    f = kw.compile(lambda x: (x, x.reshape(2, 3).T))
    for dtype in ("float64", "float16", "bfloat16", "int8", "int64", "uint16", "bool"):
        x = kw.array(np.arange(6) % 2, dtype=dtype)
        a, b = f(x)
        same(a, x)
        same(b, np.asarray(x).reshape(2, 3).T)


def test_an_op_without_a_kernel_runs_through_python_in_between() -> None:
    with kw.using(backend="reference"):
        f = kw.compile(lambda x, y: kw.relu(x @ y) * 2)
        x, y = some(5, 7), some(7, 3, seed=1)
        np.testing.assert_allclose(
            np.asarray(f(x, y)), np.maximum(np.asarray(x) @ np.asarray(y), 0) * 2, rtol=1e-5
        )
        assert "through Python" in str(f.plan)
    assert "in one compiled call" in str(_called(kw.compile(lambda x, y: kw.relu(x @ y) * 2), x, y).plan)


def _called(f: Any, *args: Any) -> Any:
    f(*args)
    return f
