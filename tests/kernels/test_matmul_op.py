"""The op matmul: NumPy's shapes, errors that teach, and an oracle that is right to the last bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.kernels.errors import DTypeError, ShapeError
from kernelwright.kernels.matmul.exact import exact_matmul
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import Cost, TensorSpec

lengths = st.integers(0, 3)


def f32(*shape: int) -> TensorSpec:
    return TensorSpec(shape, "float32")


@given(st.lists(lengths, max_size=4), st.lists(lengths, max_size=4))
def test_infer_gives_numpys_shape_or_refuses_where_numpy_does(a: list[int], b: list[int]) -> None:
    try:
        expected = np.matmul(np.zeros(a), np.zeros(b)).shape
    except ValueError:
        with pytest.raises(ShapeError):
            MATMUL.infer((f32(*a), f32(*b)))
    else:
        assert MATMUL.infer((f32(*a), f32(*b))) == (f32(*expected),)


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ((3, 4), (5, 6), r"a is f32\[3,4\]@cpu, with 4 columns, but b is f32\[5,6\]@cpu, with 5 rows"),
        ((3, 4), (5, 4), r"b fits when transposed: matmul\(a, b\.T\)"),
        ((4, 3), (4, 5), r"a fits when transposed: matmul\(a\.T, b\)"),
        ((2, 3, 4), (2, 5, 4), r"matmul\(a, b\.swapaxes\(-1, -2\)\)"),
        ((2, 3, 4), (3, 4, 5), r"batch axes \(2,\) of a .* and \(3,\) of b .* do not broadcast"),
        ((), (3, 4), r"a is 0-D.*a \* b"),
        ((3, 4), (), "b is 0-D"),
        ((3,), (4,), "with 3 columns"),
    ],
)
def test_shapes_that_do_not_fit_say_what_to_write(a: tuple[int, ...], b: tuple[int, ...], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        MATMUL.infer((f32(*a), f32(*b)))


def test_mixed_and_foreign_dtypes_are_refused() -> None:
    with pytest.raises(DTypeError, match="a is float32 but b is float64; nothing is converted silently"):
        MATMUL.infer((f32(2, 2), TensorSpec((2, 2), "float64")))
    ints = TensorSpec((2, 2), "int32")
    with pytest.raises(DTypeError, match="matmul takes float32, float64, bfloat16 or float16, got int32"):
        MATMUL.infer((ints, ints))


def test_cost_counts_two_flop_a_term_and_each_array_once() -> None:
    assert MATMUL.cost((f32(3, 4), f32(4, 5))) == Cost(2 * 3 * 4 * 5, 4 * (12 + 20 + 15))
    assert MATMUL.cost((f32(2, 1, 3, 4), f32(6, 4, 5))).flops == 2 * 2 * 6 * 3 * 4 * 5
    assert MATMUL.cost((f32(7), f32(7))).flops == 14
    assert MATMUL.reduction_length((f32(3, 4), f32(4, 5))) == 4


@pytest.mark.parametrize("dtype", MATMUL.dtypes)
def test_samples_cover_what_kernels_get_wrong(dtype: str) -> None:
    samples = list(MATMUL.samples(np.random.default_rng(0), dtype))
    names = [sample.name for sample in samples]
    assert len(set(names)) == len(names)
    seen: set[str] = set()
    for sample in samples:
        a, b = sample.inputs
        assert a.dtype == b.dtype == dtype
        specs = (TensorSpec.of(a), TensorSpec.of(b))
        (out,) = MATMUL.infer(specs)
        for x in (a, b):
            seen.update(
                word
                for word, holds in {
                    "transposed": x.ndim == 2 and 0 < x.strides[0] < x.strides[1],
                    "negative stride": any(s < 0 for s in x.strides),
                    "zero stride": any(s == 0 and n > 1 for s, n in zip(x.strides, x.shape, strict=True)),
                    "no unit stride": x.size > 1 and x.itemsize not in x.strides,
                    "vector": x.ndim == 1,
                    "batch": x.ndim == 3,
                    "two batch axes": x.ndim == 4 or (x.ndim == 3 and out.ndim == 4),
                    "not finite": not np.isfinite(x).all(),
                }.items()
                if holds
            )
        k = MATMUL.reduction_length(specs)
        seen.update(
            word
            for word, holds in {
                "empty result": not out.size,
                "k = 0": k == 0 and out.size > 0,
                "k = 1": k == 1 and out.size > 1,
                "one number": out.size == 1,
                "odd": all(n % 2 for n in (*out.shape, k)) and out.size > 100,
                "long sum": k >= 5000,
                "wide": out.ndim == 2 and out.shape[1] > 1024,
            }.items()
            if holds
        )
    assert seen == {
        *(
            "transposed",
            "negative stride",
            "zero stride",
            "no unit stride",
            "vector",
            "batch",
            "two batch axes",
        ),
        *("not finite", "empty result", "k = 0", "k = 1", "one number", "odd", "long sum", "wide"),
    }


def test_samples_are_the_same_for_the_same_seed() -> None:
    first, second = (list(MATMUL.samples(np.random.default_rng(5), "float32")) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(
            np.array_equal(x, y, equal_nan=True) for x, y in zip(one.inputs, other.inputs, strict=True)
        )


def in_fractions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product, exactly, rounded to float64 once."""
    return np.array(
        [
            [
                float(sum((Fraction(x) * Fraction(y) for x, y in zip(r, c, strict=True)), Fraction(0)))
                for c in b.T
            ]
            for r in a
        ]
    )


@pytest.mark.parametrize("k", [1, 2, 7, 64, 500])
def test_exact_matmul_is_right_to_the_last_bits_of_wide_ranges(k: int) -> None:
    rng = np.random.default_rng(k)
    a = rng.standard_normal((3, k)) * np.exp(8 * rng.standard_normal((3, k)))
    b = rng.standard_normal((k, 4)) * np.exp(8 * rng.standard_normal((k, 4)))
    np.testing.assert_allclose(exact_matmul(a, b), in_fractions(a, b), rtol=2**-52, atol=0)


def test_exact_matmul_survives_cancellation_that_ruins_float64() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((3, 64)), rng.standard_normal((64, 3))
    a, b = np.concatenate([x, -x], axis=1), np.concatenate([y, y * (1 + 1e-13)])
    truth = in_fractions(a, b)
    np.testing.assert_allclose(exact_matmul(a, b), truth, rtol=1e-13, atol=0)
    assert np.abs(a @ b / truth - 1).max() > 1e-6, "the control: NumPy's product is far off here"


def test_exact_matmul_keeps_tiny_and_huge_numbers() -> None:
    a = np.array([[1e300, 1e20], [1e-300, 1e-305]])
    b = np.array([[1e-100, 1e5], [1e200, 1e-5]])
    np.testing.assert_allclose(exact_matmul(a, b), in_fractions(a, b), rtol=2**-52, atol=0)
    with np.errstate(over="ignore"):
        assert np.isposinf(exact_matmul(np.array([[1e308]]), np.array([[10.0]]))).all()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5,), (5,)),
        ((5,), (5, 3)),
        ((4, 5), (5,)),
        ((2, 1, 4, 5), (3, 5, 6)),
        ((3, 0), (0, 2)),
        ((0, 3), (3, 2)),
    ],
)
def test_exact_matmul_has_numpys_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    np.testing.assert_allclose(exact_matmul(x, y), x @ y, rtol=1e-13, atol=1e-13)
    assert exact_matmul(x, y).shape == (x @ y).shape


def test_exact_matmul_puts_infinities_and_nans_where_numpy_does() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 7)), rng.standard_normal((7, 5))
    a[1, 2], a[4, 0], b[3, 3] = np.inf, np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        expected = a @ b
    np.testing.assert_allclose(exact_matmul(a, b), expected, rtol=1e-13)
