"""Right results pass, wrong ones are found: each bound has a control that must fail."""

from __future__ import annotations

import re
from math import inf, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from toy_op import add_kernel, right

from kernelwright.kernels import accuracy
from kernelwright.kernels.accuracy import UNIT_ROUNDOFF, Truth, Verdict, budget, check_kernel, error, judge
from kernelwright.kernels.errors import NoKernelError
from kernelwright.kernels.guard import Guarded
from kernelwright.kernels.kernel import ExtraError
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import Op, Sample, TensorSpec

U32 = 2.0**-24


def operands(k: int, dtype: str = "float32", *, positive: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(k)
    a, b = rng.standard_normal((41, k)).astype(dtype), rng.standard_normal((k, 37)).astype(dtype)
    return (np.abs(a), np.abs(b)) if positive else (a, b)


def loop(a: np.ndarray, b: np.ndarray, add_in: Any) -> np.ndarray:
    """A b, the terms added one after another in a dtype."""
    total = np.zeros((len(a), b.shape[1]), add_in)
    for p in range(a.shape[1]):
        total = (total + np.outer(a[:, p], b[p]).astype(add_in)).astype(add_in)
    return total.astype(a.dtype)


def verdict(a: np.ndarray, b: np.ndarray, result: np.ndarray, vendor: np.ndarray | None = None) -> Verdict:
    return Truth.of(MATMUL, (a, b)).judge([result], (TensorSpec.of(result),), vendor)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("k", [1, 2, 17, 300, 2000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plain_loop_is_right_and_lower_precision_is_not(dtype: str, k: int, positive: bool) -> None:
    a, b = operands(k, dtype, positive=positive)
    plain = verdict(a, b, loop(a, b, dtype))
    assert plain.ok, plain.text
    # A single product of float64 is rounded once, to what the oracle has.
    assert plain.error.norm_rel > 0 or (dtype, k) == ("float64", 1), "an oracle that rounds alike is none"
    lower = verdict(a, b, loop(a, b, "float16" if dtype == "float32" else "float32"))
    assert not lower.ok, "the control: sums in a lower precision must be found"


def test_the_budget_grows_with_the_square_root_of_the_sum() -> None:
    assert budget("float32", 0) == 2 * U32
    assert budget("float32", 100) == 12 * U32
    assert budget("float64", 100) == 12 * 2.0**-53
    assert budget("bfloat16", 100) == 2 * 2.0**-8 + 10 * U32, "16-bit results are added up in float32"
    assert budget("int32", 100) == 0


def test_one_wrong_element_among_a_million_is_found() -> None:
    exact = np.random.default_rng(0).standard_normal((1000, 1000))
    result = exact.astype("f4")
    assert judge(result, exact, dtype="float32", reduction_length=1).ok
    result[77, 123] *= 1 + 1e-5
    found = judge(result, exact, dtype="float32", reduction_length=1)
    assert found.error.norm_rel < found.budget, "the whole does not show it"
    assert not found.ok
    assert found.error.worst == (77, 123)
    assert "worst at [77, 123]" in found.text


def test_cancellation_is_not_held_against_a_result() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 50)).astype("f4")
    a, b = np.concatenate([x, -x], axis=1), rng.standard_normal((100, 8)).astype("f4")
    b[50:] = b[:50] * np.float32(1 + 1e-6)
    result = loop(a, b, "float32")
    found = verdict(a, b, result)
    assert found.ok, found.text
    exact = accuracy.oracle(MATMUL, (a, b))[0]
    assert not judge(result, exact, dtype="float32", reduction_length=100).ok, "beside the result it is large"


@pytest.mark.parametrize(
    ("got", "exact", "ok"),
    [
        ([nan, inf, -inf], [nan, inf, -inf], True),
        ([inf], [1e39], True),  # beyond float32: rounds to infinity
        ([1.0], [nan], False),
        ([nan], [1.0], False),
        ([inf], [-inf], False),
        ([inf], [1.0], False),
        ([3e38], [inf], False),
    ],
)
def test_nans_and_infinities_must_be_where_they_belong(
    got: list[float], exact: list[float], ok: bool
) -> None:
    found = judge(np.array(got, "f4"), np.array(exact), dtype="float32", reduction_length=4)
    assert found.ok is ok, found.text
    if not ok:
        assert found.error.worst == (0,)
        assert found.error.norm_rel == inf


def test_overflow_on_the_way_to_a_finite_sum_is_not_judged() -> None:
    a = np.array([[3e38, 3e38, -3e38]], "f4")
    b = np.ones((3, 1), "f4")
    assert verdict(a, b, np.array([[inf]], "f4")).ok
    assert not verdict(a / 4, b, np.array([[inf]], "f4")).ok


def test_numbers_too_small_for_all_their_bits_are_not_judged_by_them() -> None:
    exact = np.array([1e-42, 1.0])
    assert judge(np.array([0.0, 1.0], "f4"), exact, dtype="float32", reduction_length=1).ok
    wrong = np.array([1e-30, 1.0])
    assert not judge(np.array([0.0, 1.0], "f4"), wrong, dtype="float32", reduction_length=1).ok


def test_anything_where_no_term_is_anything_is_wrong() -> None:
    found = judge(np.array([1e-3, 1.0], "f4"), np.array([0.0, 1.0]), dtype="float32", reduction_length=1)
    assert not found.ok
    assert found.error.max_scaled == inf


def test_errors_of_huge_and_tiny_results_do_not_overflow() -> None:
    for size in (1e-290, 1e300):
        exact = np.array([size, -size])
        found = error(exact * (1 + 1e-10), exact)
        assert found.norm_rel == pytest.approx(1e-10, rel=1e-4)


def test_wrong_shapes_and_dtypes_are_wrong_results() -> None:
    exact = np.ones((2, 3))
    assert "shape (3, 2)" in judge(np.ones((3, 2), "f4"), exact, dtype="float32", reduction_length=1).text
    assert "float64, not float32" in judge(np.ones((2, 3)), exact, dtype="float32", reduction_length=1).text


def test_an_empty_result_is_right() -> None:
    assert judge(np.ones((0, 3), "f4"), np.ones((0, 3)), dtype="float32", reduction_length=5).ok


def test_half_precision_results_are_judged_in_their_own_precision() -> None:
    exact = np.random.default_rng(0).standard_normal(1000)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        name = np.dtype(dtype).name
        assert judge(exact.astype(dtype), exact, dtype=name, reduction_length=1).ok
        off = (exact * (1 + 20 * UNIT_ROUNDOFF[name])).astype(dtype)
        assert not judge(off, exact, dtype=name, reduction_length=1).ok


def test_integers_must_be_exact() -> None:
    exact = np.array([1.0, 2.0, 3.0])
    assert judge(np.array([1, 2, 3]), exact, dtype="int64", reduction_length=9).ok
    assert not judge(np.array([1, 2, 4]), exact, dtype="int64", reduction_length=9).ok


def test_a_result_may_be_twice_as_wrong_as_the_vendors_plus_a_rounding() -> None:
    exact = np.ones(1000)
    vendor = (exact * (1 + 4 * U32)).astype("f4")
    for times, ok in ((8, True), (10, False)):
        result = (exact + times * U32).astype("f4")
        found = judge(result, exact, dtype="float32", reduction_length=1000, vendor=vendor)
        assert found.error.norm_rel < found.budget
        assert found.ok is ok, found.text
        assert found.vendor_error is not None
        assert found.vendor_error.norm_rel == pytest.approx(4 * U32)
    assert "twice the vendor's" in found.text


def test_the_oracle_of_float64_is_not_numpys_product() -> None:
    a, b = operands(500, "float64", positive=True)
    found = verdict(a, b, a @ b, vendor=a @ b)
    assert found.ok
    assert found.vendor_error is not None
    assert found.vendor_error.norm_rel > 0


def test_a_declared_error_widens_the_budget_by_its_factor_and_no_more() -> None:
    exact = np.ones(1000)
    for times, factor, ok in ((100, 1.0, False), (100, 4.0, True), (140, 4.0, False)):
        result = (exact + times * U32).astype("f4")
        extra = ExtraError(factor, "it rounds twice")
        found = judge(result, exact, dtype="float32", reduction_length=1000, extra=extra)
        assert found.ok is ok, found.text
        assert found.budget == factor * budget("float32", 1000)
        assert (
            judge(result, exact, dtype="float32", reduction_length=1000, extra=extra, vendor=exact).ok is ok
        )


def test_elements_are_measured_against_the_terms_that_a_kernel_declares() -> None:
    exact, scale, own = np.zeros(100), np.ones(100), np.ones(100)
    scale[3], own[3], result = 1e-6, 50.0, np.zeros(100, "f4")
    result[3] = 20 * U32
    common: dict[str, Any] = {"dtype": "float32", "reduction_length": 4, "scale": scale}
    extra = ExtraError(1.0, "it adds its neighbours up")
    assert not judge(result, exact, **common).ok, "the control: large beside its own terms"
    assert judge(result, exact, **common, extra=extra, element_scale=own).ok
    assert not judge(20 * result, exact, **common, extra=extra, element_scale=own).ok
    result[3], own[3] = np.nan, np.inf
    assert judge(result, exact, **common, extra=extra, element_scale=own).ok, "an infinity may spread"
    result[4] = np.nan
    assert not judge(result, exact, **common, extra=extra, element_scale=own).ok, "no further than declared"


# check_kernel: kernels that are wrong in the ways that kernels are.

SAMPLE = Sample(
    "strided", (np.arange(70.0, dtype="f4").reshape(7, 10)[:, ::2], np.ones((5, 7), "f4").T[:, ::-1])
)


def last_column_left_out(x: Any, y: Any, out: Any, scale: float, config: Any) -> None:
    right(x[:, :-1], y[:, :-1], out[:, :-1], scale, config)


def reads_past_the_end(x: Any, y: Any, out: Any, scale: float, config: Any) -> None:
    right(np.lib.stride_tricks.as_strided(x[:, 1:], x.shape, x.strides), y, out, scale, config)


def writes_past_the_end(x: Any, y: Any, out: Any, scale: float, config: Any) -> None:
    right(x, y, out, scale, config)
    np.lib.stride_tricks.as_strided(out, (8, 5), out.strides)[7, 0] = 1.0


def writes_to_an_input(x: Any, y: Any, out: Any, scale: float, config: Any) -> None:
    right(x, y, out, scale, config)
    y *= 1.5


def writes_between_the_elements_of_an_input(x: Any, y: Any, out: Any, scale: float, config: Any) -> None:
    right(x, y, out, scale, config)
    np.lib.stride_tricks.as_strided(x, (7, 9), (40, 4))[:, 1::2] = 0.0


def wrong_by_one_percent(x: Any, y: Any, out: Any, scale: float, config: Any) -> None:
    right(x, y, out, 1.01 * scale, config)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (last_column_left_out, "nan where"),
        (reads_past_the_end, "nan where|relative error"),
        (writes_past_the_end, "outside its output"),
        (writes_to_an_input, "input y"),
        (writes_between_the_elements_of_an_input, "input x, or beside it"),
        (wrong_by_one_percent, "relative error of the whole"),
    ],
)
def test_a_wrong_kernel_is_found(body: Any, text: str, toy: Op) -> None:
    found = check_kernel(add_kernel("wrong", body), SAMPLE)
    assert not found
    assert "wrong" in found.text
    assert re.search(text, found.text), found.text


def test_a_right_kernel_passes_in_every_layout_of_its_output(toy: Op) -> None:
    kernel = add_kernel("fine")
    assert check_kernel(kernel, SAMPLE)
    columns_first = TensorSpec((7, 5), "float32", layout=(4, 28))
    spread = TensorSpec((7, 5), "float32", layout=(64, 4))
    for layout in (columns_first, spread):
        assert check_kernel(kernel, SAMPLE, outputs=[layout])
    wider = add_kernel("wider", lambda x, y, out, s, c: (right(x, y, out, s, c), _smear(out)), rank=1)
    assert check_kernel(wider, SAMPLE), "the control: harmless when the rows touch"
    assert not check_kernel(wider, SAMPLE, outputs=[spread]), "writes into the gaps between rows"


def _smear(out: np.ndarray) -> None:
    if out.strides[0] == 64:
        np.lib.stride_tricks.as_strided(out, (7, 6), (64, 4))[:, 5] = 0.0


def test_a_call_that_a_kernel_refuses_is_not_checked(toy: Op) -> None:
    kernel = add_kernel("picky", supports=lambda specs, attrs: "only on Sundays")
    with pytest.raises(NoKernelError, match="only on Sundays"):
        check_kernel(kernel, SAMPLE)


def test_the_configuration_is_handed_to_the_kernel(toy: Op) -> None:
    seen = []
    kernel = add_kernel(
        "configured",
        lambda x, y, out, s, c: (seen.append(c), right(x, y, out, s, c)),
        configs=[{"n": 1}, {"n": 2}],
    )
    check_kernel(kernel, SAMPLE)
    check_kernel(kernel, SAMPLE, config={"n": 2})
    assert seen == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_guarded_copies_have_the_very_numbers_strides_and_alignment(dtype: str) -> None:
    for sample in MATMUL.samples(np.random.default_rng(0), dtype):
        for array in sample.inputs:
            guarded = Guarded.copy_of(array)
            assert guarded.array.strides == array.strides
            assert guarded.array.ctypes.data % 64 == array.ctypes.data % 64
            assert np.array_equal(guarded.array, array, equal_nan=True)
            assert guarded.untouched()
            if array.size:
                around = guarded.memory.copy()
                view = np.ndarray(
                    array.shape,
                    dtype,
                    around,
                    guarded.array.ctypes.data - guarded.memory.ctypes.data,
                    array.strides,
                )
                view[...] = np.nan
                assert np.isnan(around.view(dtype)).all(), "everything around the numbers is NaN"


def test_the_oracle_alone_passes_every_sample() -> None:
    for sample in MATMUL.samples(np.random.default_rng(0), "float32"):
        with np.errstate(all="ignore"):
            result = np.asarray(np.matmul(*sample.inputs))
        found = Truth.of(MATMUL, sample.inputs).judge([result], (TensorSpec.of(result),))
        assert found.ok, f"{sample}: {found.text}"
