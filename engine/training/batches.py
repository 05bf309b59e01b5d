"""The batches of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...kernels.errors import ShapeError
from ..array import Array

Batch = tuple[Any, ...]
Data = tuple[Any, ...] | Iterable[Batch] | Callable[[int], Iterable[Batch]]


def batches(data: Data, size: int, shuffle: bool, seed: int, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch; those of arrays are gathered in an order that only seed and epoch decide."""
    if callable(data):
        yield from data(epoch)
        return
    if not isinstance(data, tuple):
        yield from data
        return
    arrays = [np.asarray(part) for part in data]
    lengths = {len(part) if part.ndim else 0 for part in arrays}
    if len(lengths) != 1:
        raise ShapeError(
            f"the arrays of data have shapes {', '.join(str(part.shape) for part in arrays)}; the first axis "
            "counts examples, and must be equally long."
        )
    (rows,) = lengths
    order = np.arange(rows)
    if shuffle:
        np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(order)
    for start in range(0, rows, size):
        chosen = order[start : start + size]
        yield tuple(Array(np.take(part, chosen, axis=0)) for part in arrays)
