"""Cross entropy over large vocabularies and over the classes of images, with its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...problems.problem import Operand, Problem
from .job import Race

LLAMA = "Llama 3 (Dubey et al. 2024): 128,256 tokens"
GPT2 = "GPT-2 (Radford et al. 2019): 50,257 tokens, an odd number of them"
IMAGENET = "ImageNet: 1000 classes"
SEGMENTATION = "Cityscapes (Cordts et al. 2016): 19 classes for each pixel"

# Scores: rows by classes, or [N, C, H, W].
_SIZES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("llama-8192", (8192, 128256), LLAMA),
    ("gpt2-8192", (8192, 50257), GPT2),
    ("llama-256", (256, 128256), LLAMA),
    ("gpt2-1024", (1024, 50257), GPT2),
    ("imagenet-65536", (65536, 1000), IMAGENET),
    ("cityscapes-8", (8, 19, 512, 1024), SEGMENTATION),
)


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    for place in (1, 2) if small else range(len(_SIZES)):
        for op in ("cross_entropy", "cross_entropy_grad"):
            yield problem(op, *_SIZES[place]), None


def problem(op: str, name: str, shape: tuple[int, ...], source: str, dtype: str = "bfloat16") -> Problem:
    """Scores of a shape, a label for each row."""
    rows = (shape[0], *shape[2:])
    inputs: list[Operand | None] = [Operand(shape, dtype), Operand(rows, "int64"), None]
    group = "cross-entropy"
    if op == "cross_entropy_grad":
        inputs = [Operand(rows, dtype), *inputs, Operand(rows, "float32")]
        group += "-grad"
    return Problem(f"{group}-{name}", op, tuple(inputs), group, source)


def _labels(x: Any) -> Any:
    """A label for each row, drawn on the device."""
    import torch

    rows = (x.shape[0], *x.shape[2:])
    return torch.randint(0, x.shape[1], rows, device=x.device)


def _forward(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> Sequence[Any]:
    x = draw(problem.inputs[0], 0)
    return [x, _labels(x), None]


def _backward(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> Sequence[Any]:
    """With the logsumexp of the very scores, some rows after the others."""
    import torch

    x = draw(problem.inputs[1], 1)
    total = torch.cat([part.float().logsumexp(1) for part in x.split(max(1, 2**28 // x[0].numel()))])
    return [draw(problem.inputs[0], 0), x, _labels(x), None, total]


DRAWN = {"cross_entropy": _forward, "cross_entropy_grad": _backward}
