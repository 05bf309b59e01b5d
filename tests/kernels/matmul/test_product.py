"""Calls as products: the fewest axes, forms, what the copy engine can read, and what k = 0 becomes."""

from __future__ import annotations

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError
from kernelwright.kernels.matmul.cuda import plans
from kernelwright.kernels.matmul.cuda.product import Product, of_linear, of_matmul
from kernelwright.kernels.matmul.op import MATMUL, SCALED_MATMUL
from kernelwright.kernels.op import Op
from kernelwright.kernels.spec import ABSENT, TensorSpec, np_dtype


def spec(*shape: int, dtype: str = "bfloat16", strides: tuple[int, ...] | None = None) -> TensorSpec:
    """An array on a GPU; strides in elements."""
    size = TensorSpec((), dtype).itemsize
    return TensorSpec(shape, dtype, "cuda", None if strides is None else tuple(size * s for s in strides))


def matmul(a: TensorSpec, b: TensorSpec, c: TensorSpec | None = None) -> Product:
    return of_matmul((a, b, *((c,) if c else MATMUL.infer((a, b)))))


def test_a_batch_times_one_matrix_is_one_product() -> None:
    p = matmul(spec(3, 5, 16), spec(16, 8))
    assert (p.m, p.n, p.k, p.batch) == (15, 8, 16, ())


def test_neighbouring_axes_become_one() -> None:
    p = matmul(spec(2, 3, 5, 16), spec(2, 3, 16, 8))
    assert p.batch == (6,)
    apart = matmul(spec(2, 3, 5, 16), spec(3, 16, 8))
    assert apart.batch == (2, 3)
    assert apart.b.batch[0] == 0


def test_a_result_by_columns_is_computed_as_its_transpose() -> None:
    p = matmul(spec(16, 32), spec(32, 24), spec(16, 24, strides=(1, 16)))
    assert p.turned
    assert (p.m, p.n) == (24, 16)
    assert p.c.columns == 1


def test_gradients_are_transposed_operands_and_no_copies() -> None:
    x, w, dy = spec(64, 128), spec(256, 128), spec(64, 256)
    dx = matmul(dy, w)
    dw = matmul(spec(256, 64, strides=(1, 256)), x)
    assert (dx.a.form("m", "k"), dx.b.form("k", "n")) == ("k", "n")
    assert (dw.a.form("m", "k"), dw.b.form("k", "n")) == ("m", "n")
    assert plans.descriptor_problem(dx) is None
    assert plans.descriptor_problem(dw) is None


@pytest.mark.parametrize(
    ("a", "reason"),
    [
        (spec(16, 33), "a step of 33 elements is no multiple of 16 bytes"),
        (spec(16, 32, strides=(64, 2)), "no axis has its elements side by side"),
        (spec(16, 32, strides=(0, 1)), "puts rows on top of each other"),
        (spec(16, 0), "it is empty"),
    ],
)
def test_what_the_copy_engine_cannot_read(a: TensorSpec, reason: str) -> None:
    assert reason in (plans.descriptor_problem(matmul(a, spec(a.shape[1], 8))) or "")


def test_no_columns_to_add_up_leave_one_empty_part() -> None:
    config = {"bm": 64, "bn": 64, "bk": 32, "warps": 4, "stages": 2, "splits": 8, "group": 8}
    config |= {"precision": "", "halves": False, "persistent": False, "resident": 1}
    (plan,) = plans.pointer_plans(matmul(spec(5, 0), spec(0, 7)), config, 132)
    assert (plan.integers["splits"], plan.integers["k"], plan.sums) == (1, 0, 0)


def test_linear_is_a_product_with_the_transpose_of_w() -> None:
    x, w, b = spec(2, 3, 32), spec(48, 32), spec(48)
    p = of_linear((x, w, b, ABSENT, spec(2, 3, 48)), "gelu")
    assert (p.m, p.n, p.k, p.batch, p.bias, p.activation) == (6, 48, 32, (), 1, "gelu")
    assert p.b.form("k", "n") == "k"
    assert p.turn().bias_axis == "m"
    assert p.turn().turn() == p


def test_axes_too_long_for_32_bits_are_refused() -> None:
    assert "too long" in (plans.size_problem(matmul(spec(2**31, 8), spec(8, 8))) or "")


def _infer(op: Op, *specs: TensorSpec, **attrs: object) -> TensorSpec:
    return op.infer(specs, **op.complete(attrs))[0]


def test_scaled_matmul_says_what_does_not_fit() -> None:
    a, b = spec(8, 32, dtype="float8_e4m3fn"), spec(32, 16, dtype="float8_e4m3fn")
    one = spec(1, dtype="float32")
    assert _infer(SCALED_MATMUL, a, b, one, spec(16, dtype="float32"), ABSENT) == spec(8, 16)
    with pytest.raises(ShapeError, match=r"one for each of the 8 rows of a"):
        _infer(SCALED_MATMUL, a, b, spec(3, dtype="float32"), one, ABSENT)
    with pytest.raises(DTypeError, match="factors are float32"):
        _infer(SCALED_MATMUL, a, b, spec(1), one, ABSENT)
    with pytest.raises(ConfigError, match="out_dtype is 'float64'"):
        _infer(SCALED_MATMUL, a, b, one, one, ABSENT, out_dtype="float64")
    with pytest.raises(DTypeError, match="takes float8_e4m3fn"):
        _infer(SCALED_MATMUL, spec(8, 32), spec(32, 16), one, one, ABSENT)


def test_scaled_matmul_computes_by_its_reference_where_there_is_no_kernel() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np_dtype("float8_e4m3fn")) for shape in ((5, 16), (16, 3)))
    rows, one = rng.random(5).astype(np.float32), np.float32([0.5])
    c = kw.scaled_matmul(a, b, rows, one, out_dtype="float32")
    exact = rows[:, None] * 0.5 * (a.astype(np.float64) @ b.astype(np.float64))
    assert np.allclose(np.asarray(c), exact, rtol=1e-6)
