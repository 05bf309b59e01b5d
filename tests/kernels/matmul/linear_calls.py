"""Calls of linear drawn at random, and the function that says what is wrong with what a call did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from matmul_calls import Layout, any_layout, out_layout

import kernelwright as kw
from kernelwright.kernels.accuracy import Truth
from kernelwright.kernels.activations import ACTIVATIONS
from kernelwright.kernels.guard import Guarded
from kernelwright.kernels.matmul.op import LINEAR
from kernelwright.kernels.prepack import prepack
from kernelwright.kernels.spec import TensorSpec, np_dtype

Shape = tuple[int, ...]
Linear = Callable[..., Any]


@dataclass(frozen=True)
class Problem:
    """One call of linear, but for its numbers; a layout is None where the input is left out.

    Attributes:
        rows: the leading axes of x.
        k, n: the lengths `in` and `out`.
        x, w, b, residual, out: where they lie; w is ignored where it is packed.
        extremes: whether x has an infinity and a NaN.
        positive: whether all numbers are.
    """

    rows: Shape
    k: int
    n: int
    x: Layout
    w: Layout
    b: Layout | None
    residual: Layout | None
    out: Layout
    dtype: str
    activation: str | None = None
    packed: bool = False
    extremes: bool = False
    positive: bool = False
    seed: int = 0
    threads: int = 1

    def inputs(self) -> list[np.ndarray | None]:
        """x, w, b and residual, w not packed."""
        rng = np.random.default_rng(self.seed)

        def array(shape: Shape, layout: Layout | None, scale: float = 1.0) -> np.ndarray | None:
            numbers = (scale * rng.standard_normal(shape)).astype(np_dtype(self.dtype))
            numbers = np.abs(numbers) if self.positive else numbers
            return None if layout is None else layout.place(numbers)

        made = [
            array((*self.rows, self.k), self.x),
            array((self.n, self.k), self.w, max(1, self.k) ** -0.5),
            array((self.n,), self.b),
            array((*self.rows, self.n), self.residual),
        ]
        if self.extremes and made[0] is not None and made[0].size:
            for value in (np.inf, np.nan):
                made[0][tuple(rng.integers(0, length) for length in made[0].shape)] = value
        return made


@st.composite
def problems(draw: st.DrawFn, dtype: str) -> Problem:
    """Any call of linear on lengths up to some hundred."""
    rows = tuple(draw(st.lists(st.sampled_from((1, 2, 3, 4, 0)), max_size=3)))
    if draw(st.integers(0, 2)) == 0:
        rows = (draw(st.sampled_from((1, 3, 4, 6, 7, 13, 16, 33))),)
    k = draw(st.one_of(st.integers(0, 40), st.sampled_from((63, 64, 65, 128, 300, 1026))))
    n = draw(st.one_of(st.integers(0, 40), st.sampled_from((63, 64, 65, 128, 130))))
    axes = len(rows) + 1
    flags = draw(st.integers(0, 63))
    extremes = flags % 8 == 7
    # Where one number repeats along a sum, all its roundings go the same way.
    layouts = [draw(any_layout(axes)), draw(any_layout(2))]
    for i, layout in enumerate(layouts):
        if layout.steps[-1] == 0:
            layouts[i] = Layout(layout.order, (*layout.steps[:-1], 1), layout.gaps, layout.shift)
    return Problem(
        rows,
        k,
        n,
        *layouts,
        draw(any_layout(1)) if flags & 16 else None,
        draw(any_layout(axes)) if flags & 32 else None,
        draw(out_layout(axes)),
        dtype,
        draw(st.sampled_from((None, None, *ACTIVATIONS))),
        packed=bool(flags & 1),
        extremes=extremes,
        seed=draw(st.integers(0, 2**32 - 1)),
        threads=1 + (flags & 2) // 2,
    )


def what_is_wrong(problem: Problem, linear: Linear = kw.linear) -> str | None:
    """Run a call twice with a NaN-filled out, and once without; None when all of it is right.

    Right is: within the budget of `kernels.accuracy`; the same bits each time; inputs, and all memory around
    inputs and out, bit for bit as they were.
    """
    given = problem.inputs()
    guards = [None if array is None else Guarded.copy_of(array) for array in given]
    x, w, b, residual = (None if guard is None else guard.array for guard in guards)
    weight: Any = prepack("linear", w) if problem.packed else w
    attrs = {"activation": problem.activation}
    specs = tuple(map(TensorSpec.of, given))
    (y,) = LINEAR.infer(specs, **LINEAR.complete(attrs))
    placed = TensorSpec(y.shape, y.dtype, layout=problem.out.strides(y.shape, y.itemsize))
    results = []
    with kw.using(threads=problem.threads), np.errstate(all="ignore"):
        for _ in range(2):
            out = Guarded.filled(placed)
            linear(x, weight, b, problem.activation, residual=residual, out=out.array)
            if not out.surroundings_untouched():
                return "wrote beside out"
            results.append(out.array.copy())
        if linear is kw.linear:
            results.append(np.asarray(kw.linear(x, weight, b, problem.activation, residual=residual)))
    if not np.array_equal(results[0], results[1], equal_nan=True):
        return "the second call gives other bits than the first"
    for name, guard in zip(LINEAR.inputs, guards, strict=True):
        if guard is not None and not guard.untouched():
            return f"wrote to {name}, or beside it"
    truth = Truth.of(LINEAR, given, attrs)
    for result in results[1:]:
        verdict = truth.judge([result], (*specs, y))
        if not verdict.ok:
            return verdict.text
    return None
