"""Picking, joining, adding up and sorting, at 64 MB and more: what language models and their data ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...problems.problem import Operand, Problem
from .job import Race

GPT = "GPT-2 XL (Radford et al. 2019): a vocabulary of 50257, width 1600"
EXPERTS = "Mixtral 8x7B (Jiang et al. 2024): tokens of width 4096, two experts each"
UNET = "U-Net (Ronneberger et al. 2015), its joined halves, channels last"
SWIN = "Swin-T (Liu et al. 2021), shifted windows of its first stage"
TOKENS = 32768


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = list(_words())
    if not small:
        found += [*_shapes(), *_orders(), *_elements()]
    yield from ((problem, None) for problem in found)


def _words() -> Iterator[Problem]:
    words, table = Operand((TOKENS,), "int64"), Operand((50257, 1600), "bfloat16")
    yield _problem("index-embedding", "embedding", (table, words), {}, GPT)
    rows = Operand((TOKENS, 1600), "bfloat16")
    yield _problem("index-embedding-grad", "index_sum", (rows, words), {"axis": 0, "length": 50257}, GPT)
    rows = Operand((2 * 8192, 4096), "bfloat16")
    token = Operand((2 * 8192,), "int64")
    yield _problem("index-experts-sum", "index_sum", (rows, token), {"axis": 0, "length": 8192}, EXPERTS)
    logits = Operand((512, 50257), "float32")
    yield _problem("index-topk-50", "topk", (logits,), {"k": 50, "axis": 1, "largest": True}, GPT)


def _shapes() -> Iterator[Problem]:
    half = Operand((16, 128, 128, 128), "bfloat16")
    yield _problem("index-concat-channels", "concat", (half, half, *(None,) * 14), {"axis": 3}, UNET)
    border = {"before": (0, 1, 1, 0), "after": (0, 1, 1, 0)}
    yield _problem("index-pad-1", "pad", (half,), border, UNET)
    tokens = Operand((128, 56, 56, 96), "bfloat16")
    yield _problem("index-roll-3", "roll", (tokens,), {"shifts": (0, -3, -3, 0)}, SWIN)
    scores = Operand((64, 1024, 1024), "float32")
    yield _problem("index-tril", "tril", (scores,), {}, "synthetic: causal scores of 64 heads")
    words = Operand((TOKENS,), "int64")
    yield _problem(
        "index-one-hot-1000", "one_hot", (words,), {"num_classes": 1000}, "synthetic: labels of ImageNet"
    )


def _orders() -> Iterator[Problem]:
    source = "synthetic"
    rows = Operand((1 << 16, 1024), "float32")
    yield _problem("index-sort-rows-1024", "sort", (rows,), {"axis": 1}, source)
    yield _problem("index-sort-16m", "sort", (Operand((1 << 24,), "float32"),), {"axis": 0}, source)
    yield _problem("index-sort-int64-4m", "sort", (Operand((1 << 22,), "int64"),), {"axis": 0}, source)
    edges = Operand((4096,), "float32")
    yield _problem(
        "index-searchsorted-16m", "searchsorted", (edges, Operand((1 << 24,), "float32")), {}, source
    )


def _elements() -> Iterator[Problem]:
    x, index = Operand((16384, 4096), "float32"), Operand((16384, 2048), "int64")
    source = "synthetic"
    yield _problem("index-gather-rows", "gather", (x, index), {"axis": 1}, source)
    few = Operand((TOKENS, 1), "float32"), Operand((TOKENS, 1), "int64")
    yield _problem("index-scatter-one", "scatter_sum", few, {"axis": 1, "shape": (TOKENS, 1000)}, source)
    many = Operand((4096, 2048), "float32"), Operand((4096, 2048), "int64")
    yield _problem("index-scatter-many", "scatter_sum", many, {"axis": 1, "shape": (4096, 4096)}, source)


def _problem(
    name: str, op: str, inputs: tuple[Operand | None, ...], attrs: dict[str, Any], source: str
) -> Problem:
    return Problem(name, op, inputs, "index", source, attrs=attrs)


def _places(problem: Problem, draw: Any) -> list[Any]:
    """Places that are there, as the vendor asserts; the first ones come often, as words of a text do."""
    import torch

    attrs, made = problem.complete, []
    axis = attrs.get("axis", 0)
    if problem.op in ("embedding", "gather"):
        first = problem.inputs[0]
        assert first is not None
        length = first.shape[axis]
    else:
        length = attrs.get("length") or attrs.get("num_classes") or attrs["shape"][axis]
    for place, operand in enumerate(problem.inputs):
        assert operand is not None
        if operand.dtype != "int64":
            made.append(draw(operand, place))
            continue
        share = (draw(Operand((*operand.shape, 1), "float32"), place)[..., 0].abs() % 1) ** 3
        made.append((share * length).to(torch.int64).clamp_(0, length - 1))
    return made


def _integers(problem: Problem, draw: Any) -> list[Any]:
    """Whole numbers of 64 bits, most of them different."""
    import torch

    (x,) = problem.inputs
    assert x is not None
    if x.dtype != "int64":
        return [draw(x, 0)]
    return [(draw(Operand((*x.shape, 1), "float32"), 0)[..., 0] * 1e12).to(torch.int64)]


def _ascending(problem: Problem, draw: Any) -> list[Any]:
    """A row in order, and numbers among them."""
    rows, x = (draw(Operand((*o.shape, 1), o.dtype), i)[..., 0] for i, o in enumerate(problem.inputs) if o)
    return [rows.sort().values, x.contiguous()]


DRAWN = {
    **dict.fromkeys(("embedding", "index_sum", "gather", "scatter_sum", "one_hot"), _places),
    "sort": _integers,
    "searchsorted": _ascending,
}
