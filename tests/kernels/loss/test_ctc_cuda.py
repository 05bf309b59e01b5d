"""CTC on the GPU: right in Triton's interpreter, and good machine code."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from cuda_code import Case, Proof  # noqa: E402
from triton_interpreter import check, interpreted, kernel_by_id  # noqa: E402

from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.loss.cuda import path_kernels  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

LOSS, GRAD = "ctc_loss/cuda_triton_ctc/paths", "ctc_loss_grad/cuda_triton_ctc/paths"


@interpreted
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", [LOSS, GRAD])
def test_kernels_survive_the_samples_of_their_op(kernel: str, dtype: str) -> None:
    op, proven = get_op(kernel.partition("/")[0]), 0
    for place, sample in enumerate(op.samples(np.random.default_rng(4), dtype)):
        if dtype == "float64" and sample.name.startswith("40 steps"):
            continue  # nothing that float32 has not shown
        if untakeable(sample) or not cuda_specs(kernel_by_id(kernel), sample)[-1].size:
            continue
        verdict = check(kernel, sample, backwards=place % 2 == 1)
        assert verdict.ok, f"{sample!r}: {verdict.text}"
        proven += 1
    assert proven > 4


def drawn(t: int, n: int, classes: int, longest: int, **changes: Any) -> Sample:
    """Sequences of full length over few labels, so that many of them are equal."""
    draw = np.random.default_rng(t)
    x = draw.standard_normal((t, n, classes))
    probs = (x - np.log(np.exp(x).sum(-1, keepdims=True))).astype(np.float32)
    targets = draw.integers(1, classes, (n, longest))
    lengths = np.full(n, t), np.full(n, longest)
    inputs = (draw.standard_normal(n).astype(np.float32), probs, targets, *lengths)
    return Sample("equal labels", inputs, changes)


@interpreted
def test_many_equal_labels_are_added_up() -> None:
    verdict = check(GRAD, drawn(33, 1, 4, 15))
    assert verdict.ok, verdict.text


@interpreted
def test_lengths_and_labels_that_do_not_fit_stay_inside_the_arrays() -> None:
    """What comes of them is not judged: that nothing outside is touched is."""
    dloss, probs, targets, _, _ = drawn(5, 3, 4, 3).inputs
    assert targets is not None
    odd = targets.copy()
    odd[0, 0], odd[1, 1] = 2**40, -7
    for steps, lengths in (([99, -5, 3], [50, 2, -1]), ([5, 5, 5], [3, 3, 3])):
        inputs = (dloss, probs, odd, np.array(steps), np.array(lengths))
        for row in (odd, odd.reshape(-1)[:7]):
            given = (*inputs[:2], row, *inputs[3:])
            attrs = {"longest": 3} if row.ndim == 1 else {}
            # The definition itself cannot take them; by then the kernel has run.
            with contextlib.suppress(IndexError, ValueError):
                check(GRAD, Sample("odd", given, attrs))


@triton.jit
def only_one_back(x, y, z):
    return path_kernels_log_sum(x, y, tl.full(z.shape, float("-inf"), z.dtype))


path_kernels_log_sum = path_kernels.log_sum


@interpreted
def test_paths_that_skip_no_blank_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_kernels, "log_sum", only_one_back)
    sample = drawn(9, 2, 4, 3)
    assert not check(LOSS, Sample("", sample.inputs[1:], {})).ok


@interpreted
def test_labels_that_are_counted_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @triton.jit
    def no_links(
        links, leads, targets, label, place, mine, i, begin, length, classes, blank, most, targets_n,
        targets_s,
    ):  # fmt: skip
        tl.store(links + place, tl.zeros(label.shape, tl.int32), mask=mine)
        tl.store(leads + place, (place % 2).to(tl.int32), mask=mine)

    monkeypatch.setattr(path_kernels, "equal_labels", no_links)
    assert not check(GRAD, drawn(9, 2, 3, 4)).ok


# --- machine code -------------------------------------------------------------------------------------------


def case(kernel: str, t: int, n: int, classes: int, longest: int, chip: int, **more: Any) -> Case:
    op = get_op(kernel.partition("/")[0])
    given: tuple[TensorSpec, ...] = (
        TensorSpec((n,), "float32", "cuda"),
        TensorSpec((t, n, classes), "float32", "cuda"),
        TensorSpec((n, longest), "int64", "cuda"),
        *(TensorSpec((n,), "int64", "cuda") for _ in range(2)),
    )
    given = given if kernel == GRAD else given[1:]
    attrs = op.complete({})
    return Case(kernel, (*given, *op.infer(given, **attrs)), attrs, {}, chip, **more)


CASES = [
    *(case(GRAD, 1000, 32, 5000, 100, chip) for chip in (80, 90)),
    case(LOSS, 1000, 32, 29, 30, 90, forbid=("BAR",)),
    case(LOSS, 1000, 32, 5000, 4000, 90),
]
ENORMOUS = [case(GRAD, 4000, 256, 5000, 300, 90, wide=True)]
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", [*CASES, *ENORMOUS], ids=str)
def test_paths_are_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


def test_targets_too_long_for_a_program_are_refused() -> None:
    probs, targets = TensorSpec((9, 2, 5), "float32", "cuda"), TensorSpec((2, 9000), "int64", "cuda")
    lengths, losses = TensorSpec((2,), "int64", "cuda"), TensorSpec((2,), "float32", "cuda")
    reason = kernel_by_id(LOSS).why_not(
        (probs, targets, lengths, lengths, losses), get_op("ctc_loss").complete({})
    )
    assert "4095 labels" in (reason or "")
