"""New Arrays of known numbers, beside NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, DeviceError, DTypeError, ShapeError


def test_new_arrays_hold_what_their_names_say() -> None:
    for name, number in (("zeros", 0), ("ones", 1)):
        make = getattr(kw, name)
        for made in (make((2, 3)), make(2, 3), make([2, 3], dtype="float32")):
            assert made.spec is kw.TensorSpec((2, 3), "float32")
            assert (np.asarray(made) == number).all()
        assert make(()).shape == ()
        assert make(4, dtype="bfloat16").dtype.name == "bfloat16"
        assert make((2, 3), "float64").dtype == np.float64
        like = getattr(kw, f"{name}_like")(np.empty((3, 1), np.int32))
        assert like.spec is kw.TensorSpec((3, 1), "int32")
    assert kw.full((2,), 3.5).tolist() == [3.5, 3.5]
    assert [kw.full(2, v).dtype.name for v in (3.5, 3, True)] == ["float32", "int64", "bool"]
    assert kw.full_like(kw.zeros(2), 7).spec is kw.TensorSpec((2,), "float32")


def test_ranges_are_those_of_numpy() -> None:
    for args in ((5,), (2, 9), (9, 2, -3), (0, 1, 0.25), (3, 3), (1.5,)):
        made, exact = kw.arange(*args), np.arange(*args)
        np.testing.assert_allclose(np.asarray(made), exact)
        assert made.dtype == ("int64" if exact.dtype.kind == "i" else "float32")
    assert kw.arange(3, dtype="float64").dtype == np.float64
    np.testing.assert_allclose(np.asarray(kw.linspace(-1, 2, 7)), np.linspace(-1, 2, 7), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(kw.linspace(0, 1, 4, endpoint=False)), [0, 0.25, 0.5, 0.75])
    for args in ((3,), (2, 4), (4, 2, 1), (3, 3, -1)):
        np.testing.assert_array_equal(np.asarray(kw.eye(*args)), np.eye(*args, dtype="f4"))


def test_inside_a_compiled_function_they_are_constants() -> None:
    def function(x: kw.Array) -> kw.Array:
        return x * kw.full_like(x, 2.0) + kw.arange(3, dtype="float32") + kw.ones_like(x)

    x = kw.array(np.float32([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(np.asarray(kw.compile(function)(x)), [[3, 6, 9], [9, 12, 15]])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"zeros: a shape is a tuple of lengths"):
        kw.zeros(-1)
    with pytest.raises(ShapeError, match=r"ones: a shape is a tuple of lengths"):
        kw.ones(2.5)
    with pytest.raises(DTypeError, match="fill_value is a number"):
        kw.full(2, "x")
    with pytest.raises(ConfigError, match="step not 0"):
        kw.arange(0, 5, 0)
    with pytest.raises(DTypeError, match="x is an Array or a NumPy array, got int"):
        kw.zeros_like(3)
    with pytest.raises(DeviceError):
        kw.zeros(3, device="cuda:99")
