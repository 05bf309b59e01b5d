"""Softmax and its gradient: rows of attention, of a vocabulary, and channels of images; 64 MB and more."""

from __future__ import annotations

from collections.abc import Iterator

from ...problems.problem import Operand, Problem
from .job import Race

ATTENTION = "scores of BERT-base (Devlin et al. 2018): 12 heads, sequences of 512"
GPT2 = "the vocabulary of GPT-2 (Radford et al. 2019)"
LLAMA = "the vocabulary of Llama 3 (Dubey et al. 2024)"
SEGMENTS = "pixels of 19 classes (Cordts et al. 2016)"
WIDE = "synthetic: 64 MB and more, where memory is the roof"


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = list(_all())
    yield from ((problem, None) for problem in (found[::4] if small else found))


def _all() -> Iterator[Problem]:
    for dtype, short in (("bfloat16", "bf16"), ("float32", "fp32")):
        yield _problem(f"softmax-rows-4096-{short}", "softmax", (16384, 4096), dtype, WIDE)
        yield _problem(f"softmax-attention-512-{short}", "softmax", (16 * 12 * 512, 512), dtype, ATTENTION)
        yield _problem(f"softmax-rows-4096-grad-{short}", "softmax_grad", (16384, 4096), dtype, WIDE)
        yield _problem(f"softmax-vocabulary-128256-{short}", "log_softmax", (2048, 128256), dtype, LLAMA)
        yield _problem(f"softmax-vocabulary-50257-{short}", "log_softmax", (4096, 50257), dtype, GPT2)
    shape = (8, 19, 1024, 512)
    yield _problem("softmax-channels-19-fp32", "softmax", shape, "float32", SEGMENTS, axis=1)
    yield _problem("softmax-columns-8192-fp32", "softmax", (8192, 4096), "float32", WIDE, axis=0)


def _problem(name: str, op: str, shape: tuple[int, ...], dtype: str, source: str, axis: int = -1) -> Problem:
    count = 2 if op.endswith("_grad") else 1
    return Problem(name, op, (Operand(shape, dtype),) * count, "softmax", source, attrs={"axis": axis})
