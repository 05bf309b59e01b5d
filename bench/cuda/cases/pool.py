"""Pooling on NHWC and NCHW images: the first and last of ResNet-50, LeNet's, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...problems.problem import Operand, Problem
from .job import Race

RESNET = "ResNet-50 (He et al. 2015), 224x224 images"
LENET = "LeNet (LeCun et al. 1998), 28x28 images, at a large batch"

STEM = {"kernel_size": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
HALVES = {"kernel_size": (2, 2), "stride": (2, 2)}
WHOLE = {"output_size": (1, 1)}


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = list(_resnet("NHWC"))
    if not small:
        found += [*_resnet("NCHW"), *_lenet()]
    yield from ((problem, None) for problem in found)


def _resnet(layout: str) -> Iterator[Problem]:
    kind = "bfloat16" if layout == "NHWC" else "float32"
    x, y = _image(layout, 64, 64, 112), _image(layout, 64, 64, 56)
    attrs = {**STEM, "layout": layout}
    end = f"{layout.lower()}-b64"
    yield _problem(f"pool-max-stem-{end}", "max_pool", [Operand(x, kind)], attrs, RESNET)
    back, taps = {**attrs, "input_size": (112, 112)}, Operand(y, "uint8")
    yield _problem(f"pool-max-stem-grad-{end}", "max_pool_grad", [Operand(y, kind), taps], back, RESNET)
    last = _image(layout, 512, 2048, 7)
    attrs = {**WHOLE, "layout": layout}
    yield _problem(f"pool-mean-last-{end}", "avg_pool", [Operand(last, kind)], attrs, RESNET)
    mean = Operand(_image(layout, 512, 2048, 1), kind)
    back = {**attrs, "input_size": (7, 7)}
    yield _problem(f"pool-mean-last-grad-{end}", "avg_pool_grad", [mean], back, RESNET)


def _lenet() -> Iterator[Problem]:
    attrs = {**HALVES, "layout": "NCHW"}
    x = Operand(_image("NCHW", 8192, 6, 28), "float32")
    yield _problem("pool-lenet-max-b8192", "max_pool", [x], attrs, LENET)
    yield _problem("pool-lenet-mean-b8192", "avg_pool", [x], attrs, LENET)
    y = Operand(_image("NCHW", 8192, 6, 14), "float32")
    back = {**attrs, "input_size": (28, 28)}
    yield _problem("pool-lenet-mean-grad-b8192", "avg_pool_grad", [y], back, LENET)


def _image(layout: str, n: int, channels: int, size: int) -> tuple[int, ...]:
    return (n, channels, size, size) if layout == "NCHW" else (n, size, size, channels)


def _problem(name: str, op: str, inputs: list[Operand], attrs: dict[str, Any], source: str) -> Problem:
    return Problem(name, op, tuple(inputs), "pool", source, attrs=attrs)


def _with_taps(problem: Problem, draw: Callable[..., Any]) -> list[Any]:
    """dy, and taps of windows that all see an element: those of the last two rows and columns of 3 x 3."""
    import torch

    dy, taps = problem.inputs
    assert taps is not None
    numbers = draw(Operand(taps.shape, "float32"), 1)
    which = (numbers > 0).to(torch.uint8) * 3 + (numbers.abs() > 0.7).to(torch.uint8) + 4
    return [draw(dy, 0), which]


DRAWN: dict[str, Callable[..., Any]] = {"max_pool_grad": _with_taps}
