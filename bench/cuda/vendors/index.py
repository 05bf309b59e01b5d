"""Picking, joining, adding up and sorting by torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _embedding(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import embedding

    weight, words = tensors
    return lambda: embedding(words, weight)


def _index_sum(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """The gradient of torch's embedding: rows alone."""
    import torch

    x, index = tensors
    back, length = torch.ops.aten.embedding_dense_backward, problem.complete["length"]
    return lambda: back(x, index, length, -1, False)


def _gather(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    x, index = tensors
    return lambda: torch.gather(x, problem.complete["axis"], index)


def _scatter_sum(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    x, index = tensors
    axis, shape = problem.complete["axis"], problem.complete["shape"]
    return lambda: torch.zeros(shape, dtype=x.dtype, device=x.device).scatter_add_(axis, index, x)


def _concat(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    parts = [t for t in tensors if t is not None]
    return lambda: torch.cat(parts, problem.complete["axis"])


def _pad(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import pad

    attrs = problem.complete
    widths = [
        n for pair in zip(reversed(attrs["before"]), reversed(attrs["after"]), strict=True) for n in pair
    ]
    return lambda: pad(tensors[0], widths, value=attrs["value"])


def _roll(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    moved = [(shift, axis) for axis, shift in enumerate(problem.complete["shifts"]) if shift]
    shifts, axes = zip(*moved, strict=True)
    return lambda: torch.roll(tensors[0], shifts, axes)


def _tril(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    return lambda: torch.tril(tensors[0], problem.complete["diagonal"])


def _one_hot(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """As torch.nn.functional.one_hot computes it, but for the look at the numbers, which waits for them."""
    import torch

    (index,) = tensors
    classes = problem.complete["num_classes"]

    def call() -> Any:
        zeros = torch.zeros((*index.shape, classes), dtype=torch.int64, device=index.device)
        return zeros.scatter_(-1, index.unsqueeze(-1), 1)

    return call


def _sort(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    attrs = problem.complete
    return lambda: tuple(
        torch.sort(tensors[0], stable=True, dim=attrs["axis"], descending=attrs["descending"])
    )


def _topk(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """The values; of equal ones, torch takes any."""
    import torch

    attrs = problem.complete
    return lambda: (torch.topk(tensors[0], attrs["k"], attrs["axis"], attrs["largest"])[0], None)


def _searchsorted(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    rows, x = tensors
    return lambda: torch.searchsorted(rows, x, right=problem.complete["right"])


NAMES = {
    "embedding": "torch.nn.functional.embedding",
    "index_sum": "embedding_dense_backward",
    "gather": "torch.gather",
    "scatter_sum": "scatter_add_",
    "concat": "torch.cat",
    "pad": "torch.nn.functional.pad",
    "roll": "torch.roll",
    "tril": "torch.tril",
    "one_hot": "torch.nn.functional.one_hot",
    "sort": "torch.sort",
    "topk": "torch.topk",
    "searchsorted": "torch.searchsorted",
}
WAYS: dict[str, Callable[..., Any]] = {
    "embedding": _embedding,
    "index_sum": _index_sum,
    "gather": _gather,
    "scatter_sum": _scatter_sum,
    "concat": _concat,
    "pad": _pad,
    "roll": _roll,
    "tril": _tril,
    "one_hot": _one_hot,
    "sort": _sort,
    "topk": _topk,
    "searchsorted": _searchsorted,
}
