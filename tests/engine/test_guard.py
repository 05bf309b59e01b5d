"""The look at a call's arguments: what is as in the last call goes right to the plan, nothing else does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.array import Array
from kernelwright.engine.guard import guard, objects_show_themselves
from kernelwright.kernels.errors import DonatedError
from kernelwright.kernels.spec import TensorSpec


def held(*arrays: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return arrays, tuple(map(Array, arrays))


def test_objects_show_what_is_read_there() -> None:
    assert objects_show_themselves()


def test_arrays_like_those_asked_for_fit_and_others_do_not() -> None:
    fits = guard([TensorSpec((2, 3), "float32"), TensorSpec((4,), "int64")], Array)
    x, n = np.zeros((2, 3), np.float32), np.zeros(4, np.int64)
    assert fits(*held(x, n))
    wrong = (
        np.zeros((3, 2), np.float32),
        np.zeros((3, 2), np.float32).T,
        np.zeros((2, 3), np.float64),
        np.zeros((2, 3, 1), np.float32),
        np.zeros((2, 6), np.float32)[:, ::2],
        np.zeros((2, 3), np.float32).view(np.matrix),
    )
    assert not any(fits(*held(other, n)) for other in wrong)
    assert not fits(*held(x))
    assert not fits((x, n), (Array(x), n))


def test_strides_count_where_they_were_asked_for() -> None:
    turned = np.zeros((3, 2), np.float32).T
    fits = guard([TensorSpec.of(turned)], Array)
    assert fits(*held(turned))
    assert not fits(*held(np.zeros((2, 3), np.float32)))


def test_donated_memory_is_writable_and_nobody_elses() -> None:
    spec = TensorSpec((5,), "float32")
    fits = guard([spec, spec], Array, [0])
    x, y = np.zeros(5, np.float32), np.zeros(5, np.float32)
    assert fits(*held(x, y))
    assert not fits(*held(x, x))
    assert not fits(*held(x, x[:]))
    y.flags.writeable = False
    assert fits(*held(x, y))
    assert not fits(*held(y, x))


def test_what_changes_between_calls_is_noticed() -> None:
    @kw.compile
    def total(tree: Any) -> Any:
        return tree["a"] + tree["b"][0]

    a, b = kw.array([1.0, 2.0]), kw.array([3.0, 4.0])
    tree: Any = {"a": a, "b": [b]}
    for _ in range(2):
        np.testing.assert_array_equal(np.asarray(total(tree)), [4.0, 6.0])
    tree["a"] = kw.array([[1.0], [2.0]])
    assert np.asarray(total(tree)).shape == (2, 2)
    tree["a"] = kw.array([5.0, 5.0])
    np.testing.assert_array_equal(np.asarray(total(tree)), [8.0, 9.0])
    np.testing.assert_array_equal(np.asarray(total({"b": [b], "a": a})), [4.0, 6.0])
    with kw.using(threads=1):
        np.testing.assert_array_equal(np.asarray(total({"b": (b,), "a": a})), [4.0, 6.0])


def test_a_donated_array_is_refused_in_the_quick_way_too() -> None:
    step = kw.compile(lambda p, g: p - g, donate=0)
    p, g = kw.array([1.0, 2.0]), kw.array([0.5, 0.5])
    for _ in range(3):
        q = step(p, g)
        with pytest.raises(DonatedError):
            step(p, g)
        p = q
    np.testing.assert_array_equal(np.asarray(p), [-0.5, 0.5])
    with pytest.raises(DonatedError, match="same memory"):
        step(p, p)
