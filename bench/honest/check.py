"""Before and while a kernel is timed: is what it computes right?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...kernels import accuracy
from ...kernels.errors import KernelwrightError, WrongResultError
from ...kernels.kernel import ExtraError, Kernel
from ...kernels.op import get_op
from ...kernels.spec import TensorSpec
from ..problems import Inputs, Problem
from ..timing import Outputs


class Checker:
    """The truth about one problem, computed once and kept for all its cases.

    Args:
        problem: what is computed.
        inputs: the contents that every contestant gets.
    """

    def __init__(self, problem: Problem, inputs: Inputs):
        self._problem = problem
        self._inputs = inputs
        self._before = checksum(inputs)
        self._truth = accuracy.Truth.of(problem.operation, inputs, problem.attrs)
        self._approved: dict[str, Outputs] = {}
        self.vendor_errors: dict[str, float] = {}
        self._vendor: Outputs | None = None
        self._extra: ExtraError | None = None

    @property
    def truth(self) -> accuracy.Truth:
        """About the inputs' contents."""
        return self._truth

    def accept_vendors(self, results: Mapping[str, Outputs]) -> dict[str, str]:
        """Measures the vendors' own errors; the first one that is right is what ours is judged beside.

        Returns:
            {name: what is wrong} of those that are not right.
        """
        self._vendor, wrong = None, {}
        for name, outputs in results.items():
            verdict = self._judged(outputs)
            self.vendor_errors[name] = verdict.error.norm_rel
            if verdict.ok:
                self._approved[name] = outputs
                self._vendor = outputs if self._vendor is None else self._vendor
            else:
                wrong[name] = f"wrong: {reason(verdict)}"
        return wrong

    def judge(self, outputs: Outputs, extra: ExtraError | None = None) -> accuracy.Verdict:
        """The verdict on our result, all outputs of it; one that is right is remembered.

        Args:
            outputs: what came back.
            extra: what the kernel declared that computed it.
        """
        self._extra = extra
        verdict = self._judged(outputs, self._vendor, extra)
        if verdict.ok:
            self._approved["kernelwright"] = outputs
        return verdict

    def verify(self, name: str, outputs: Outputs) -> str | None:
        """What is wrong with the outputs of a timed call, or None.

        Outputs that are bit for bit those that were judged before are right; others (with several threads
        sums may be added up differently) are judged afresh.
        """
        known = self._approved.get(name)
        if known is not None and all(map(np.array_equal, known, outputs)):
            return None
        verdict = self._judged(outputs, extra=self._extra if name == "kernelwright" else None)
        return None if verdict.ok else reason(verdict)

    def _judged(
        self, outputs: Outputs, vendor: Outputs | None = None, extra: ExtraError | None = None
    ) -> accuracy.Verdict:
        expected = self._problem.outputs
        if len(outputs) != len(expected):
            raise WrongResultError(f"{len(outputs)} outputs came back, not the {len(expected)} of the op")
        theirs = None if vendor is None else vendor[0]
        return self._truth.judge(outputs, expected, vendor=theirs, extra=extra)

    def inputs_unchanged(self) -> bool:
        """Whether every input still has the bits it was drawn with."""
        return checksum(self._inputs) == self._before


class Prover:
    """Runs an op's samples through kernels, once for each kernel, dtype and number of threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, int], str | None] = {}

    def why_wrong(self, kernel: Kernel, dtype: str, threads: int) -> str | None:
        """What the kernel gets wrong among the calls that every kernel must survive; None when nothing."""
        key = (kernel.id, kernel.source_digest(), dtype, threads)
        if key not in self._known:
            self._known[key] = self._try(kernel, dtype, threads)
        return self._known[key]

    @staticmethod
    def _try(kernel: Kernel, dtype: str, threads: int) -> str | None:
        op = get_op(kernel.op)
        for sample in op.samples(np.random.default_rng(0), dtype):
            attrs = op.complete(sample.attrs)
            specs = tuple(TensorSpec.of(array) for array in sample.inputs)
            if kernel.why_not((*specs, *op.infer(specs, **attrs)), attrs) is not None:
                continue
            try:
                verdict = accuracy.check_kernel(kernel, sample, threads=threads)
            except KernelwrightError:
                raise
            except Exception as error:  # an extender's code may raise anything
                first = (str(error).splitlines() or [""])[0]
                return (
                    f"on the sample {sample!r} it raised {type(error).__name__}: {first}. If it is not meant "
                    "for such calls, say so: @kw.kernel(..., supports=...) with the reason"
                )
            if not verdict.ok:
                return f"on the sample {sample!r}: {reason(verdict)}"
        return None


def reason(verdict: accuracy.Verdict) -> str:
    """The verdict's text without its first word."""
    return verdict.text.removeprefix("wrong: ")


def checksum(inputs: Inputs) -> tuple[tuple[int, int], ...]:
    """Two numbers for each array that change when its bits do (but for contrived sets of changes)."""
    sums = []
    for array in inputs:
        if array is None:
            continue
        words = array.view(f"u{array.dtype.itemsize}")
        sums.append((int(words.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(words, axis=None))))
    return tuple(sums)
