"""The Triton kernels that pick, place, join, add up and sort compute what their ops define, interpreted."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.runtime.errors import InterpreterError  # noqa: E402
from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.index.cuda import move_kernels, order_steps, sort_steps, sum_steps  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.shape.common import ANY_DTYPE  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

pytestmark = interpreted

MOVES = ("index_select", "gather", "concat", "pad", "roll", "tril", "triu", "slice_grad")
SUMS = ("index_sum", "scatter_sum")
SORTS = ("sort", "topk", "searchsorted")


@cache
def samples(op: str, dtype: str) -> tuple[Sample, ...]:
    """The op's samples that torch can hold, with something to compute."""
    found = [s for s in get_op(op).samples(np.random.default_rng(0), dtype) if not untakeable(s)]
    (kernel,) = kernels_for(op, "cuda")
    outputs = len(get_op(op).inputs)
    return tuple(s for s in found if any(out.size for out in cuda_specs(kernel, s)[outputs:]))


def prove(op: str, sample: Sample, **how: Any) -> None:
    (kernel,) = kernels_for(op, "cuda")
    verdict = check(kernel, sample, **how)
    assert verdict.ok, f"{kernel.id} of {sample!r}: {verdict.text}"


def launched(op: str, sample: Sample) -> list[str]:
    """The kernels that a call launches."""
    (kernel,) = kernels_for(op, "cuda")
    with device.assume(90):
        specs, attrs = cuda_specs(kernel, sample), get_op(op).complete(sample.attrs)
        return [step.name for step in kernel.bind(specs, attrs, {}, 1).steps]


# --- Moves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", [*MOVES, "embedding"])
def test_numbers_are_moved_to_where_they_belong(op: str) -> None:
    for place, sample in enumerate(samples(op, "float32")):
        prove(op, sample, backwards=place % 2 == 1)


@pytest.mark.parametrize("dtype", [dtype for dtype in ANY_DTYPE if dtype != "float32"])
def test_every_dtype_is_moved(dtype: str) -> None:
    for op in MOVES:
        prove(op, next(s for s in samples(op, dtype) if s.name not in ("one", "1-d", "rows")))


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_one_hot_rows(dtype: str) -> None:
    for sample in samples("one_hot", dtype):
        prove("one_hot", sample)
    outside = np.array([-1, 0, 4, 5, 99], dtype)
    prove("one_hot", Sample("places that are none of the classes", (outside,), {"num_classes": 5}))


def test_parts_of_rows_are_joined_by_one_launch() -> None:
    joined = {s.name: launched("concat", s) for s in samples("concat", "float32")}
    assert joined["many"] == joined["columns"] == joined["rows"] == ["joined"]


def test_a_part_in_another_order_is_copied_by_a_launch_of_its_own() -> None:
    x, y = np.arange(24, dtype=np.float32).reshape(6, 4), np.arange(20, dtype=np.float32).reshape(4, 5)
    sample = Sample("a turned part", (x.T, y, *[None] * 14), {"axis": 1})
    prove("concat", sample)
    assert launched("concat", sample) == ["mapped", "mapped"]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_padding_is_the_number_that_was_given(dtype: str) -> None:
    x = np.ones((2, 3), np_dtype(dtype))
    for value in (-1.5, float("inf"), float("nan"), 1e-3):
        prove("pad", Sample("value", (x,), {"before": (1, 0), "after": (0, 2), "value": value}))


def turned(spec: TensorSpec) -> TensorSpec:
    """The same array with its first axis innermost."""
    steps = np.cumprod([spec.itemsize, *spec.shape[:-1]]).tolist()
    return TensorSpec(spec.shape, spec.dtype, "cuda", tuple(steps))


@pytest.mark.parametrize("op", [*MOVES, "embedding", "one_hot", "index_sum", "sort", "topk", "searchsorted"])
def test_results_of_any_order_are_written(op: str) -> None:
    """Column by column: what a plan may ask for."""
    (kernel,) = kernels_for(op, "cuda")
    dtype = "int64" if op == "one_hot" else "float32"
    sample = next(s for s in samples(op, dtype) if np.ndim(s.inputs[0]) > 1 or op == "one_hot")
    outputs = cuda_specs(kernel, sample)[len(get_op(op).inputs) :]
    prove(op, sample, outputs=[turned(spec) for spec in outputs])


WILD = np.array([3, -1, -7, -8, 99, -(2**63), 2**63 - 1, 0], np.int64)


def test_a_place_that_is_not_there_is_the_nearest() -> None:
    """Negative places count from the end; no other memory is read or written."""
    draw = np.random.default_rng(1)
    x = draw.standard_normal((7, 40)).astype(np.float32)
    y = draw.standard_normal((8, 40)).astype(np.float32)
    each = np.broadcast_to(WILD[:, None], (8, 40)).copy()
    prove("embedding", Sample("wild", (x, WILD), {"padding_idx": None}))
    prove("index_select", Sample("wild", (x, WILD), {"axis": 0, "skip": 6}))
    prove("gather", Sample("wild", (x, each), {"axis": 0}))
    prove("index_sum", Sample("wild", (y, WILD), {"axis": 0, "length": 7, "skip": -1}))
    prove("scatter_sum", Sample("wild", (y, each), {"axis": 0, "shape": (7, 40)}))


@triton.jit
def _trusting(place, length):
    """What takes a place as it is."""
    return place.to(tl.int64)


def test_a_kernel_that_trusts_its_index_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move_kernels, "settled", _trusting)
    x = np.zeros((7, 40), np.float32)
    with pytest.raises(InterpreterError, match="OutOfBoundsError"):
        prove("embedding", Sample("wild", (x, WILD), {"padding_idx": None}))


# --- Sums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", SUMS)
def test_terms_are_added_where_they_belong(op: str) -> None:
    for sample in samples(op, "float32"):
        prove(op, sample)


@pytest.mark.parametrize(
    "dtype", ["float64", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8"]
)
def test_every_dtype_is_added_up(dtype: str) -> None:
    for op in SUMS:
        for sample in samples(op, dtype)[:2]:
            prove(op, sample)


def frequent(n: int, length: int) -> Any:
    """Places of which one is half of all, as in a text."""
    draw = np.random.default_rng(2)
    found = draw.integers(0, length, n)
    found[draw.random(n) < 0.5] = length // 3
    return found


def numbers(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(3).standard_normal(shape).astype(np_dtype(dtype))


@pytest.mark.parametrize("backwards", [False, True])
def test_runs_that_reach_over_many_chunks(backwards: bool) -> None:
    rows = Sample("runs", (numbers(300, 40), frequent(300, 9)), {"axis": 0, "length": 9})
    assert launched("index_sum", rows)[-2:] == ["run_sums", "run_joints"]
    prove("index_sum", rows, backwards=backwards)
    one = np.zeros(300, np.int32)
    prove(
        "index_sum", Sample("one run", (numbers(300, 40), one), {"axis": 0, "length": 1}), backwards=backwards
    )
    attrs = {"axis": 1, "length": 5, "skip": 1}
    middle = Sample("one skipped", (numbers(3, 200, 20, dtype="bfloat16"), frequent(200, 5)), attrs)
    prove("index_sum", middle, backwards=backwards)


def test_single_columns_are_added_along_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sum_steps, "LINE_BLOCK", 64)
    lines = Sample("lines", (numbers(200, 3), frequent(200, 7)), {"axis": 0, "length": 7})
    assert launched("index_sum", lines)[-2:] == ["line_sums", "run_joints"]
    prove("index_sum", lines)
    prove("index_sum", lines, backwards=True)


def test_many_terms_are_sorted_by_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sum_steps, "few", lambda *call: False)
    for sample in samples("scatter_sum", "float32"):
        prove("scatter_sum", sample)
    large = Sample("", (numbers(3, 4), np.zeros((3, 4), np.int64)), {"axis": 1, "shape": (3, 5)})
    assert "cell_keys" in launched("scatter_sum", large)


def test_a_sum_that_forgets_what_lies_before_its_chunk_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum_steps.run_steps
    monkeypatch.setattr(sum_steps, "run_steps", lambda *call: whole(*call)[:-1])
    sample = Sample("runs", (numbers(300, 40), frequent(300, 9)), {"axis": 0, "length": 9})
    with pytest.raises(AssertionError, match="wrong"):
        prove("index_sum", sample)


# --- Orders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", SORTS)
def test_rows_are_put_in_order(op: str) -> None:
    for sample in samples(op, "float32"):
        prove(op, sample)


def extremes(dtype: str, *shape: int) -> Any:
    """Numbers with the least, the largest, zeros of both signs, NaNs of both, and many equal ones."""
    draw, kind = np.random.default_rng(4), np_dtype(dtype)
    if dtype == "bool":
        return draw.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        ends = np.iinfo(kind)
        x = draw.integers(0, 9, shape).astype(kind)
        x.flat[:4] = [ends.min, ends.max, ends.max, ends.min]
        return x
    x = draw.standard_normal(shape).round(1).astype(kind)
    x.flat[:10] = [np.nan, np.inf, -np.inf, 0.0, -0.0, -np.nan, -0.0, 0.0, np.nan, -np.inf]
    return x


@pytest.mark.parametrize("dtype", ANY_DTYPE)
def test_equal_numbers_stay_as_they_were_and_nan_is_the_largest(dtype: str) -> None:
    x = extremes(dtype, 3, 35)
    for down in (False, True):
        prove("sort", Sample("extremes", (x,), {"axis": 1, "descending": down}))
    prove("topk", Sample("extremes", (x,), {"k": 12, "axis": 1, "largest": True}))
    wide = np.float64 if np_dtype(dtype).kind not in "iub" else x.dtype
    rows = np.sort(x.astype(wide), -1).astype(x.dtype)
    prove("searchsorted", Sample("extremes", (rows, x[:, ::-1].copy()), {"right": True}))


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float64"])
def test_long_rows_are_sorted_digit_by_digit(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MOST_RANKED", 0), ("RADIX_BLOCK", 16), ("MOST_SUMMED", 16)):
        monkeypatch.setattr(order_steps, name, value)
    monkeypatch.setattr(sort_steps, "MOST_IN_ORDER", 4)
    sample = Sample("long", (extremes(dtype, 2, 75),), {"axis": 1, "descending": dtype == "float32"})
    assert set(launched("sort", sample)) == {"number_keys", "counted", "summed", "moved", "placed"}
    prove("sort", sample)
    prove("sort", sample, backwards=True)


def test_rows_of_64_bits_are_ranked_by_comparison() -> None:
    sample = Sample("few", (extremes("int64", 40, 3),), {"axis": 0, "descending": True})
    assert launched("sort", sample) == ["number_keys", "ranked", "placed"]
    prove("sort", sample)


@pytest.mark.parametrize("largest", [False, True])
def test_the_best_of_long_rows_come_through_several_launches(
    largest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sort_steps, "BEST_BLOCK", 32)
    monkeypatch.setattr(sort_steps, "MOST_IN_ORDER", 8)
    sample = Sample("long", (extremes("bfloat16", 3, 150),), {"k": 5, "axis": 1, "largest": largest})
    assert launched("topk", sample) == ["best"] * 3
    prove("topk", sample, backwards=largest)
