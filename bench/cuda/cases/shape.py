"""Views that have to be copied: matrices turned, images and heads in another order of axes."""

from __future__ import annotations

from collections.abc import Iterator

from ...problems.problem import Operand, Problem
from .job import Race

RESNET = "ResNet-50 (He et al. 2015): 64 images after the first stage"
GPT = "GPT-2 XL (Radford et al. 2019): 32 sequences of 1024, 25 heads of 64"


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = [turned("transpose-bfloat16", (8192, 8192), (1, 0), "bfloat16", "synthetic")]
    if not small:
        found += [
            turned("transpose-float32", (8192, 8192), (1, 0), "float32", "synthetic"),
            turned("to-channels-last", (64, 256, 56, 56), (0, 2, 3, 1), "bfloat16", RESNET),
            turned("to-channels-first", (64, 56, 56, 256), (0, 3, 1, 2), "bfloat16", RESNET),
            turned("heads", (32, 1024, 25, 64), (0, 2, 1, 3), "bfloat16", GPT),
        ]
    yield from ((problem, None) for problem in found)


def turned(name: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: str, source: str) -> Problem:
    """A transpose, as a copy."""
    inputs = (Operand(shape, dtype),)
    return Problem(f"shape-{name}", "transpose", inputs, "shape", source, attrs={"axes": axes})
