"""Reductions and scans of 64 MB and more: along rows, along columns, to one number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...problems.problem import Operand, Problem
from .job import Race

SOURCE = "synthetic: 64 MB and more, where memory is the roof"
ROWS, COLUMNS = (16384, 4096), (200704, 256)


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = list(_all())
    yield from ((problem, None) for problem in (found[::4] if small else found))


def _all() -> Iterator[Problem]:
    for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16")):
        for op, attrs in (("sum", {}), ("amax", {}), ("var", {"correction": 1}), ("logsumexp", {})):
            yield _problem(f"reduce-{op}-rows-{short}", op, ROWS, dtype, axis=1, **attrs)
            yield _problem(f"reduce-{op}-columns-{short}", op, COLUMNS, dtype, axis=0, **attrs)
        yield _problem(f"reduce-sum-all-{short}", "sum", ROWS, dtype, axis=None)
        yield _problem(f"reduce-cumsum-rows-{short}", "cumsum", ROWS, dtype, axis=1)
    # In 16 bits the largest is often there twice, and torch names any of them.
    yield _problem("reduce-argmax-rows-fp32", "argmax", ROWS, "float32", axis=1)
    yield _problem("reduce-argmax-columns-fp32", "argmax", COLUMNS, "float32", axis=0)
    yield _problem("reduce-sum-middle-fp32", "sum", (64, 256, 56, 56), "float32", axis=(0, 2, 3))


def _problem(name: str, op: str, shape: tuple[int, ...], dtype: str, **attrs: Any) -> Problem:
    return Problem(name, op, (Operand(shape, dtype),), "reduce", SOURCE, attrs=attrs)
