"""Dropout, and random numbers: what a training step draws, and what a network starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...problems.problem import Operand, Problem
from .job import Race

SOURCE = "synthetic"
# Activations of a transformer: a batch of sequences by features.
_DROPOUT = ((8, 4096, 4096), (32, 512, 1024), (5, 999, 1001))
_MANY = 1 << 27


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    for dtype in ("bfloat16", "float32"):
        for shape in _DROPOUT[1:2] if small else _DROPOUT:
            yield dropout(shape, dtype), None
    for op in ("random_uniform", "random_normal", "random_bernoulli")[: 1 if small else 3]:
        yield drawn(op, _MANY // 8 if small else _MANY), None


def dropout(shape: tuple[int, ...], dtype: str, p: float = 0.1) -> Problem:
    """Elements left out by chance."""
    name = f"dropout-{dtype}-{'x'.join(map(str, shape))}"
    inputs = (Operand(shape, dtype), Operand((2,), "uint32"))
    return Problem(name, "dropout", inputs, "dropout", SOURCE, attrs={"p": p})


def drawn(op: str, count: int) -> Problem:
    """Numbers as they come."""
    name = f"{op.removeprefix('random_')}-{count}"
    return Problem(name, op, (Operand((2,), "uint32"),), "random", SOURCE, attrs={"shape": (count,)})


def _key(device: Any) -> Any:
    import torch

    return torch.tensor([77, 5], dtype=torch.uint32, device=device)


def _keys(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> Sequence[Any]:
    return [_key(draw(Operand((1,), "float32"), 0).device)]


def _with_key(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> Sequence[Any]:
    x = draw(problem.inputs[0], 0)
    return [x, _key(x.device)]


DRAWN = {
    "dropout": _with_key,
    "random_uniform": _keys,
    "random_normal": _keys,
    "random_bernoulli": _keys,
}
