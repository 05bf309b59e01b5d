"""The losses on the GPU compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton_interpreter import check, interpreted, kernel_by_id, standing_in  # noqa: E402

from kernelwright.kernels.cuda.check import cuda_specs, numpy_of, untakeable  # noqa: E402
from kernelwright.kernels.loss import cuda_triton  # noqa: E402
from kernelwright.kernels.loss.cuda import entropy_kernels, label_kernels, long_kernels  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

pytestmark = interpreted

TILES, LONG = "{}/cuda_triton/tiles", "{}/cuda_triton/long_rows"
DTYPES = ("float32", "float64", "bfloat16", "float16")


@cache
def samples(op: str, dtype: str) -> tuple[Sample, ...]:
    """Those that a GPU can hold, and that have something to compute."""
    found = get_op(op)
    made = []
    for sample in found.samples(np.random.default_rng(2), dtype):
        if not untakeable(sample):
            specs = cuda_specs(kernel_by_id(TILES.format(op)), sample)
            if any(spec.size for spec in specs[len(found.inputs) :]):
                made.append(sample)
    assert made
    return tuple(made)


def prove(kernel: str, sample: Sample, **more: Any) -> None:
    verdict = check(kernel, sample, **more)
    assert verdict.ok, f"{kernel} on {sample!r}: {verdict.text}"


def some(op: str, dtype: str) -> Iterator[tuple[int, Sample]]:
    """Most samples in float32, every third in other dtypes."""
    for place, sample in enumerate(samples(op, dtype)):
        if (dtype == "float32" and place % 4 < 2) or place % 3 == DTYPES.index(dtype) % 3:
            yield place, sample


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "op",
    [
        *("cross_entropy", "cross_entropy_grad", "nll_loss", "nll_loss_grad"),
        *("multi_margin_loss", "multi_margin_loss_grad"),
    ],
)
def test_tiles_survive_the_samples_of_their_op(op: str, dtype: str) -> None:
    kernel = kernel_by_id(TILES.format(op))
    for place, sample in some(op, dtype):
        # Small tiles by turns: several of them, of rows and of classes.
        config = {"br": 4, "bc": 16, "warps": 4} if place % 2 else None
        prove(kernel.id, sample, config=config, backwards=place % 8 > 3)


def vocabulary(
    op: str, dtype: str, rows: tuple[int, ...], classes: int, *, weights: bool = False, **attrs: Any
) -> Sample:
    """Scores of a vocabulary, some rows ignored, one with a label that is no class."""
    draw = np.random.default_rng(classes)
    kind = np_dtype(dtype)
    x = (4 * draw.standard_normal((*rows, classes))).astype(kind)
    if len(rows) > 1:
        x = np.moveaxis(x, -1, 1)  # [N, C, ...]: classes side by side all the same
    target = draw.integers(0, classes, rows)
    target[..., :1] = -100
    target[..., -1:] = classes if len(rows) == 1 and rows[0] > 3 else 0
    weight = draw.uniform(0.2, 2.0, classes).astype(kind) if weights else None
    inputs: tuple[Any, ...] = (x, target, weight)
    if op == "cross_entropy_grad":
        wide = x.astype(np.float64)
        axis = 1 if x.ndim > 1 else 0
        sums = np.log(np.exp(wide).sum(axis)).astype(np.float64 if dtype == "float64" else np.float32)
        inputs = (draw.standard_normal(rows).astype(kind), *inputs, sums)
    return Sample(f"{rows} rows of {classes}", inputs, attrs)


STEPS = {"sets": 2, "warps": 1}  # a step of 512 bfloat16 numbers


@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_grad"])
def test_long_rows_are_right_wherever_they_start(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of any number of classes; in one part and in several, whole steps and not."""
    monkeypatch.setattr(cuda_triton, "LONG", 300)
    for programs in (0, 1):
        monkeypatch.setattr(cuda_triton, "PROGRAMS", programs)
        for dtype, classes in (("bfloat16", 1027), ("bfloat16", 1536), ("float32", 1021), ("float16", 515)):
            sample = vocabulary(op, dtype, (5,), classes)
            prove(LONG.format(op), sample, config=STEPS, ordered=True, backwards=bool(programs))
    monkeypatch.setattr(cuda_triton, "PROGRAMS", 1)
    prove(LONG.format(op), vocabulary(op, "float64", (3,), 333), config=STEPS, ordered=True)
    if op == "cross_entropy":  # a gradient is row-major: there classes are apart, and tiles take it
        prove(LONG.format(op), vocabulary(op, "float32", (2, 3), 640), config=STEPS, ordered=True)


@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_grad"])
def test_long_rows_take_weights_and_smoothing(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_triton, "LONG", 300)
    monkeypatch.setattr(cuda_triton, "PROGRAMS", 1)
    for weights, smoothing in ((True, 0.0), (False, 0.1), (True, 0.1)):
        sample = vocabulary(op, "bfloat16", (5,), 1301, weights=weights, label_smoothing=smoothing)
        prove(LONG.format(op), sample, config=STEPS, ordered=True)
        prove(TILES.format(op), sample, config={"br": 2, "bc": 256, "warps": 4})


def test_the_shipped_steps_are_right() -> None:
    for op in ("cross_entropy", "cross_entropy_grad"):
        prove(LONG.format(op), vocabulary(op, "bfloat16", (3,), 20011), ordered=True)


@pytest.mark.parametrize("kernel", [TILES, LONG])
def test_a_gradient_may_be_written_over_the_scores(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(cuda_triton, "LONG", 300)
    for op in ("cross_entropy_grad", "multi_margin_loss_grad")[: 2 if kernel == TILES else 1]:
        found = kernel_by_id(kernel.format(op))
        sample = vocabulary("cross_entropy_grad", "float32", (3,), 1021)
        given = sample.inputs[: len(get_op(op).inputs)]
        specs = cuda_specs(found, Sample("", given))
        config = STEPS if kernel == LONG else {"br": 2, "bc": 256, "warps": 4}
        results = []
        for over in (False, True):
            tensors = [None if x is None else torch.from_numpy(x.copy()) for x in given]
            tensors.append(tensors[1] if over else torch.empty(tuple(specs[-1].shape)))
            with standing_in(), np.errstate(all="ignore"):
                found.bind(specs, get_op(op).complete({}), config, 1)(*tensors)
            results.append(numpy_of(tensors[-1]))
        np.testing.assert_array_equal(*results)


def test_infinities_and_nan_stay_in_their_rows() -> None:
    x = np.zeros((5, 300), np.float32)
    x[0, 3], x[1, 7], x[2, :], x[3, 1] = np.inf, np.nan, -np.inf, -np.inf
    target = np.array([3, 2, 1, 0, 9])
    for label in (target, np.roll(target, 1)):
        sample = Sample("infinities", (x, label, None))
        prove(TILES.format("cross_entropy"), sample, config={"br": 4, "bc": 64, "warps": 4})
    before, cuda_triton.LONG = cuda_triton.LONG, 100
    try:
        prove(LONG.format("cross_entropy"), sample, config={"sets": 1, "warps": 1}, ordered=True)
    finally:
        cuda_triton.LONG = before


def test_labels_that_are_no_class_give_nan_and_index_nothing() -> None:
    """Far outside, on both sides; `check` refuses every access outside of the arrays."""
    for op in ("cross_entropy", "nll_loss", "multi_margin_loss"):
        x, target = np.ones((4, 6), np.float32), np.array([2**62, -5, 6, 1])
        prove(TILES.format(op), Sample("outside", (x, target, None)))
        prove(TILES.format(op), Sample("outside", (x, target, np.ones(6, np.float32))))


# --- controls: kernels that are wrong must be found ---------------------------------------------------------


@triton.jit
def no_mask(i, first, end, UNIT: tl.constexpr, EVEN: tl.constexpr):
    return i >= 0


def test_steps_past_the_end_of_a_row_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_triton, "LONG", 300)
    monkeypatch.setattr(long_kernels, "among", no_mask)
    with pytest.raises(Exception, match="OutOfBounds"):
        check(LONG.format("cross_entropy"), vocabulary("cross_entropy", "float32", (3,), 301), STEPS)


@triton.jit
def zero(COUNT: tl.constexpr, TYPE: tl.constexpr):
    return tl.full([COUNT], 0.0, TYPE)


def test_a_maximum_that_starts_at_zero_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exponentials of scores far below it are zero."""
    monkeypatch.setattr(entropy_kernels, "lowest", zero)
    x = np.full((2, 5), -300.0, np.float32)
    steps = {"br": 2, "bc": 4, "warps": 4}
    verdict = check(TILES.format("cross_entropy"), Sample("", (x, np.array([1, 2]), None)), steps)
    assert not verdict.ok


@triton.jit
def any_part(sums, row, parts, PARTS: tl.constexpr, TYPE: tl.constexpr):
    """The first part alone."""
    at = sums + row * (4 * PARTS)
    return tl.load(at), tl.load(at + PARTS), tl.load(at + 2 * PARTS), tl.load(at + 3 * PARTS)


def test_parts_left_out_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_triton, "LONG", 300)
    monkeypatch.setattr(long_kernels, "together", any_part)
    sample = vocabulary("cross_entropy", "float32", (2,), 4000)
    assert not check(LONG.format("cross_entropy"), sample, STEPS, ordered=True).ok


@triton.jit
def every_class(x, at, there, base, c, label, TYPE: tl.constexpr):
    value = tl.load(x + at, mask=there, other=0.0).to(TYPE) + base[:, None]
    return tl.where(there, tl.where(value < 0, 0.0, value), 0.0)


def test_the_labels_own_distance_is_found_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_kernels, "short_of", every_class)
    x = np.array([[0.0, 0.25, 3.0]], np.float32)
    sample = Sample("", (x, np.array([2]), None))
    assert not check(TILES.format("multi_margin_loss"), sample).ok
