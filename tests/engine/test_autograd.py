"""kw.grad and its relatives: trees, several arguments, marks, second derivatives, and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import GradientError, WrongResultError


def some(*shape: int, seed: int = 0) -> kw.Array:
    return kw.array(np.random.default_rng(seed).standard_normal(shape))


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-10, atol=1e-12)


def test_gradients_have_the_shape_of_their_arguments() -> None:
    def loss(params: Any, x: kw.Array) -> kw.Array:
        return ((x @ params["w"] + params["b"][0]) ** 2).sum()

    params, x = {"w": some(3, 2), "b": [some(2, seed=1)]}, some(4, 3, seed=2)
    value, grads = kw.value_and_grad(loss)(params, x)
    error = np.asarray(x) @ np.asarray(params["w"]) + np.asarray(params["b"][0])
    close(value, (error**2).sum())
    close(grads["w"], np.asarray(x).T @ (2 * error))
    close(grads["b"][0], (2 * error).sum(0))
    first, second = kw.grad(loss, argnums=(0, 1))(params, x)
    close(first["w"], grads["w"])
    close(second, (2 * error) @ np.asarray(params["w"]).T)


def test_more_results_come_along_as_aux() -> None:
    def loss(x: kw.Array) -> Any:
        y = x * x
        return y.sum(), {"y": y}

    x = some(5)
    gradient, aux = kw.grad(loss, has_aux=True)(x)
    close(gradient, 2 * np.asarray(x))
    close(aux["y"], np.asarray(x) ** 2)
    (value, aux), gradient = kw.value_and_grad(loss, has_aux=True)(x)
    close(value, (np.asarray(x) ** 2).sum())


def test_an_argument_that_does_not_matter_has_a_gradient_of_zeros() -> None:
    gradient = kw.grad(lambda x, y: (y * y).sum())(some(2, 3), some(4))
    close(gradient, np.zeros((2, 3)))


def test_compiled_and_eager_gradients_are_the_same() -> None:
    def loss(w: kw.Array, x: kw.Array) -> kw.Array:
        return kw.tanh(x @ w).mean()

    w, x = some(3, 3), some(5, 3, seed=1)
    close(kw.compile(kw.grad(loss))(w, x), kw.grad(loss)(w, x))


def test_arrays_from_outside_may_change_between_eager_gradients() -> None:
    scale = np.ones(3)
    f = kw.grad(lambda x: (x * scale).sum())
    close(f(some(3)), [1, 1, 1])
    scale[:] = 5
    close(f(some(3)), [5, 5, 5])


def test_gradients_of_gradients() -> None:
    def cube(x: kw.Array) -> kw.Array:
        return (x * x * x).sum()

    second = kw.grad(lambda x: kw.grad(cube)(x).sum())
    third = kw.grad(lambda x: second(x).sum())
    x = some(4)
    close(second(x), 6 * np.asarray(x))
    close(third(x), np.full(4, 6.0))


def test_the_inner_gradient_does_not_see_the_outer_variable() -> None:
    # d/dx [x * d/dy (x + y)] at y = 1 is 1, not 2: perturbations must not be confused.
    inner = kw.grad(lambda y, x: x + y)
    close(kw.grad(lambda x: x * inner(kw.array(1.0), x))(kw.array(3.0)), 1.0)
    close(kw.grad(lambda x: x * kw.grad(lambda y: x + y)(x))(kw.array(3.0)), 1.0)


def test_stop_gradient_holds_still() -> None:
    gradient = kw.grad(lambda x: (x * kw.stop_gradient(x)).sum())(some(3))
    close(gradient, some(3))


def test_checkpoint_changes_memory_and_nothing_else() -> None:
    def block(x: kw.Array) -> kw.Array:
        for _ in range(4):
            x = kw.sin(x) * kw.tanh(x)
        return x

    def plain(x: kw.Array) -> kw.Array:
        for _ in range(4):
            x = block(x)
        return x.sum()

    def saving(x: kw.Array) -> kw.Array:
        for _ in range(4):
            x = kw.checkpoint(block)(x)
        return x.sum()

    x = some(200, 50)
    none = kw.compile(lambda x: x).switches.none()
    once, less = (kw.compile(kw.grad(f), switches=none) for f in (plain, saving))
    np.testing.assert_array_equal(np.asarray(once(x)), np.asarray(less(x)))
    assert less.plan.arena_bytes < 0.7 * once.plan.arena_bytes
    close(kw.checkpoint(block)(x), block(x))


def test_errors_say_what_has_no_gradient() -> None:
    with pytest.raises(
        GradientError, match=r"argument 0\['n'\] is i64\[2\]@cpu, and integers have no gradient"
    ):
        kw.grad(lambda t: t["x"].sum())({"x": some(2), "n": kw.array([1, 2])})
    with pytest.raises(GradientError, match=r"reduce it: \.mean\(\) or \.sum\(\)"):
        kw.grad(lambda x: x * 2)(some(3))
    with pytest.raises(GradientError, match="has_aux=True"):
        kw.grad(lambda x: (x.sum(), x))(some(3))
    with pytest.raises(GradientError, match="argnums is 1, but"):
        kw.grad(lambda x: x.sum(), argnums=1)(some(3))


def test_an_op_that_can_be_differentiated_once_says_so() -> None:
    def loss(x: kw.Array, w: kw.Array, u: kw.Array) -> kw.Array:
        y, _ = kw.lstm(x, None, w, u)
        return y.sum()

    args = some(2, 1, 3), some(8, 3), some(8, 2)
    kw.grad(loss)(*args)
    with pytest.raises(GradientError, match=r"lstm_grad \(test_autograd\.py:\d+\) has no gradient rule"):
        kw.grad(lambda *a: kw.grad(loss)(*a).sum())(*args)


def test_check_grads_passes_right_rules_and_refuses_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.engine import gradients

    kw.check_grads(lambda x: kw.exp(x) * kw.sigmoid(x), some(5), order=2)
    monkeypatch.setitem(gradients.RULES, "exp", lambda grads, inputs, outputs, attrs: (grads[0] * 2,))
    with pytest.raises(WrongResultError, match="finite differences have"):
        kw.check_grads(lambda x: kw.exp(x), some(5))


def test_an_argument_may_be_named_twice_and_from_the_end() -> None:
    x, y = kw.array([1.0, 2.0]), kw.array([3.0, 5.0])
    first, second, third = kw.grad(lambda x, y: (x * y).sum(), (1, -1, 0))(x, y)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(x))
    np.testing.assert_array_equal(np.asarray(second), np.asarray(x))
    np.testing.assert_array_equal(np.asarray(third), np.asarray(y))


def test_a_gradient_outside_of_compiled_functions_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    f = kw.grad(lambda x: (kw.checkpoint(kw.tanh)(x) * x).sum())
    x = kw.array([1.0, 2.0])
    expected = np.asarray(f(x))
    f(x)  # kernels that the first call has loaded void what was planned before
    made: list[Any] = []
    monkeypatch.setattr("kernelwright.engine.compile.make_plan", lambda *args: made.append(args))
    np.testing.assert_array_equal(np.asarray(f(x)), expected)
    assert not made
