"""What the declarations of operations that move numbers share."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Specs
from ..spec import SHORT_NAMES, np_dtype

View = tuple[int, tuple[int, ...], tuple[int, ...]]
ANY_DTYPE = tuple(SHORT_NAMES)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> AnyArray:
    """Contents of a sample: small numbers, all the values of `dtype` that they may be."""
    kind = np_dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        return rng.integers(0 if kind.kind == "u" else -100, 100, shape).astype(kind)
    return rng.standard_normal(shape).astype(kind)


def moves_only(specs: Specs, **attrs: Any) -> int:
    """`reduction_length` of an op that adds nothing up."""
    return 0


def check_lengths(op: str, shape: Any) -> None:
    """Refuses, with a ShapeError, what is no tuple of lengths."""
    if not isinstance(shape, tuple) or any(
        isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape
    ):
        raise ShapeError(
            f"{op}: a shape is a tuple of lengths of 0 or more such as (32, 128), got {shape!r}."
        )
