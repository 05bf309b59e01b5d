"""Other contents: in the very memory that is timed, in memory of its own, and changed between two calls.

A kernel that remembers results, by address or by contents, and one that is right for the usual numbers alone,
show on what they have not seen:

    heavy       numbers whose sizes spread over 12 powers of ten, where the op's errors are measured against
                the terms that it adds up; ordinary new ones elsewhere, where such numbers would saturate
    in place    other contents at the addresses of before: a call that looks like any other that is timed
    touched     a few elements change between two calls of a batch, and one of the output
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...kernels.op import AnyArray
from ...kernels.spec import np_dtype
from ..problems import Inputs, Operand, Problem
from ..timing import Args, Outputs
from .fences import READ, WRITE, Range

# Sizes are multiplied by 2**n, n normal with this deviation and at most this large: beyond the range of
# float16, within that of products of float32.
SPREAD, MOST = 5.0, 20
TOUCHED = 4  # elements changed between two calls


def floating(array: AnyArray | None) -> bool:
    """Whether an input has numbers whose values are free; lengths and labels are not."""
    return array is not None and array.dtype.kind not in "iub"


def changeable(problem: Problem, inputs: Inputs) -> list[int]:
    """The places of the inputs that may change under a lane: packed weights were copied before."""
    return [
        place
        for place, (operand, array) in enumerate(zip(problem.inputs, inputs, strict=True))
        if operand is not None and not operand.packed and floating(array) and array is not None and array.size
    ]


def others(problem: Problem, inputs: Inputs, rng: np.random.Generator) -> Inputs:
    """New contents for the inputs that may change; the same for the rest, all in memory of their own."""
    made = list(problem.copy_of(inputs))
    free = changeable(problem, inputs)
    if not free:
        return tuple(made)
    op = problem.operation
    drawn: Sequence[AnyArray | None] = (
        op.contents(rng, problem.specs, problem.attrs)
        if op.draw is not None
        else [None if operand is None else operand.draw(rng) for operand in problem.inputs]
    )
    # Gates of recurrent layers saturate, and their errors grow from step to step.
    spread = op.magnitude is not None and op.family != "recurrent"
    for place in free:
        mine, new = made[place], drawn[place]
        assert mine is not None
        assert new is not None
        with np.errstate(all="ignore"):
            mine[...] = heavy(new, rng) if spread else new
    return tuple(made)


def heavy(array: AnyArray, rng: np.random.Generator) -> AnyArray:
    """`array` with every element multiplied by a power of two of its own; signs and zeros stay."""
    # Products of several factors must stay in the range of the dtype.
    most, spread = (2, 1.0) if array.dtype == np.float16 else (MOST, SPREAD)
    powers = np.clip(np.rint(rng.normal(0.0, spread, array.shape)), -most, most)
    return array.astype(np.float64) * np.exp2(powers)


@contextmanager
def holding(inputs: Inputs, other: Inputs) -> Iterator[None]:
    """Puts other contents into the inputs' own memory while the block runs."""
    before = [None if array is None else array.copy() for array in inputs]
    fill(inputs, other)
    try:
        yield
    finally:
        fill(inputs, before)


def fill(inputs: Sequence[AnyArray | None], other: Sequence[AnyArray | None]) -> None:
    """Writes other contents into the memory of arrays."""
    for array, new in zip(inputs, other, strict=True):
        if array is not None and new is not None:
            array[...] = new


def same_bits(left: Sequence[AnyArray | None], right: Sequence[AnyArray | None]) -> bool:
    """Whether two lists of arrays have the same bits."""
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(_bits(a), _bits(b)))
        for a, b in zip(left, right, strict=True)
    )


def _bits(array: AnyArray) -> AnyArray:
    return array.view(f"u{array.dtype.itemsize}")


def copies(outputs: Outputs) -> Outputs:
    """What the outputs hold now."""
    return tuple(output.copy() for output in outputs)


def on_pages(problem: Problem, inputs: Inputs) -> tuple[Inputs, list[Range]]:
    """A copy of the inputs on pages of their own, and those pages, to be fenced against writing."""
    made: list[AnyArray | None] = []
    ranges: list[Range] = []
    for name, operand, array in zip(problem.operation.inputs, problem.inputs, inputs, strict=True):
        if operand is None or array is None or not array.size:
            made.append(array)
            continue
        stored = _mapped(operand)
        view = stored.swapaxes(-1, -2) if operand.transposed else stored
        view[...] = array
        made.append(view)
        if not operand.packed:
            start = stored.ctypes.data
            length = -(-stored.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
            ranges.append(Range(name, start, start + length, READ | WRITE))
    return tuple(made), ranges


def _mapped(operand: Operand) -> AnyArray:
    dtype = np_dtype(operand.dtype)
    memory = mmap.mmap(-1, max(operand.nbytes, 1))
    count = operand.nbytes // dtype.itemsize
    return np.frombuffer(memory, np.uint8)[: operand.nbytes].view(dtype)[:count].reshape(operand.stored_shape)


class Touching:
    """A batch of calls between which a few elements of the inputs, and of the output, change.

    An iterator in the place of a list of calls: what runs the calls does not see a difference.

    Args:
        calls: the calls.
        arrays: the inputs that may change.
        outputs: what the calls write, if that is known beforehand.
        rng: picks the elements.
        fresh: True puts other elements' values there; False the values that are there already, which takes
            the same time and changes nothing.
    """

    def __init__(
        self,
        calls: Sequence[Args],
        arrays: Sequence[AnyArray],
        outputs: Outputs,
        rng: np.random.Generator,
        fresh: bool,
    ):
        self._calls = calls
        self._plan = [
            [_change(arrays[int(rng.integers(len(arrays)))], rng, fresh) for _ in range(TOUCHED)]
            + [_change(output, rng, fresh) for output in outputs[:1]]
            for _ in calls
        ]

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Args]:
        for call, changes in zip(self._calls, self._plan, strict=True):
            for array, index, value in changes:
                array[index] = value
            yield call


def _change(array: AnyArray, rng: np.random.Generator, fresh: bool) -> tuple[AnyArray, Any, Any]:
    """An element, and what is to stand there: another element's value, or its own."""

    def somewhere() -> tuple[int, ...]:
        return tuple(int(rng.integers(length)) for length in array.shape)

    index = somewhere()
    value = array[somewhere() if fresh else index]
    # A sum of many terms of 8 bits hardly moves with one of them.
    return array, index, value * 64 if fresh and array.dtype.itemsize == 2 else value
