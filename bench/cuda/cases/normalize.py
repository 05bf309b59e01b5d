"""The norms and their gradients: rows of transformers, images of ResNet-50 and of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...problems.problem import Operand, Problem
from .job import Race

TRANSFORMERS = (
    "BERT-base (Devlin et al. 2018), Llama 3 8B and 70B (Dubey et al. 2024): rows of 64 MB and more"
)
RESNET = "ResNet-50 (He et al. 2015), 224x224 images at a batch of 64"
DIFFUSION = "the U-Net of latent diffusion (Rombach et al. 2022), 64x64 at a batch of 32"


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = list(_all())
    yield from ((problem, None) for problem in (found[::5] if small else found))


def _all() -> Iterator[Problem]:
    for dtype, short in (("bfloat16", "bf16"), ("float32", "fp32")):
        yield _rows(f"layer-norm-4096-{short}", "layer_norm", 16384, 4096, dtype)
        yield _rows(f"layer-norm-4096-grad-{short}", "layer_norm_grad", 16384, 4096, dtype)
        yield _rows(f"layer-norm-768-{short}", "layer_norm", 65536, 768, dtype)
        yield _rows(f"layer-norm-768-grad-{short}", "layer_norm_grad", 65536, 768, dtype)
        yield _rows(f"rms-norm-8192-{short}", "rms_norm", 8192, 8192, dtype)
    for layout, dtype in (("nhwc", "bfloat16"), ("nchw", "float32")):
        for channels, size in ((256, 56), (64, 112)):
            name = f"batch-norm-{channels}-{size}-{layout}"
            yield _channels(name, "batch_norm", layout, channels, size, dtype)
            yield _channels(f"{name}-grad", "batch_norm_grad", layout, channels, size, dtype)
    x, w = Operand((32, 320, 64, 64), "bfloat16"), Operand((320,), "bfloat16")
    attrs: dict[str, Any] = {"groups": 32}
    yield Problem("group-norm-320-64", "group_norm", (x, w, w), "norms", DIFFUSION, attrs=attrs)
    kept = Operand((32, 32), "float32")
    inputs = (x, x, w, kept, kept)
    yield Problem("group-norm-320-64-grad", "group_norm_grad", inputs, "norms", DIFFUSION, attrs=attrs)


def _rows(name: str, op: str, lines: int, length: int, dtype: str) -> Problem:
    x, w, kept = Operand((lines, length), dtype), Operand((length,), dtype), Operand((lines,), "float32")
    given: dict[str, tuple[Operand, ...]] = {
        "layer_norm": (x, w, w),
        "rms_norm": (x, w),
        "layer_norm_grad": (x, x, w, kept, kept),
    }
    return Problem(name, op, given[op], "norms", TRANSFORMERS)


def _channels(name: str, op: str, layout: str, channels: int, size: int, dtype: str) -> Problem:
    last = layout == "nhwc"
    shape = (64, size, size, channels) if last else (64, channels, size, size)
    x, c = Operand(shape, dtype), Operand((channels,), "float32")
    grad = op == "batch_norm_grad"
    inputs = (x, x, c, c, c, None) if grad else (x, c, c, None, None, None)
    return Problem(name, op, inputs, "norms", RESNET, attrs={"channel_axis": -1 if last else 1})


def _with_statistics(problem: Problem, draw: Callable[..., Any]) -> list[Any]:
    """dy, x, weight, and the mean and rstd of this x."""
    dy, x, w = (draw(one, place) for place, one in enumerate(problem.inputs[:3]))
    if problem.op == "layer_norm_grad":
        lines = x.reshape(x.shape[0], -1)
    elif problem.op == "group_norm_grad":
        lines = x.reshape(x.shape[0], problem.attrs["groups"], -1)
    else:
        lines = x.movedim(problem.attrs["channel_axis"], 0).flatten(1)
    wide = lines.float()
    mean, var = wide.mean(-1), wide.var(-1, correction=0)
    rest = [None] if problem.op == "batch_norm_grad" else []
    return [dy, x, w, mean.contiguous(), (var + 1e-5).rsqrt().contiguous(), *rest]


DRAWN: dict[str, Callable[..., Any]] = dict.fromkeys(
    ("layer_norm_grad", "group_norm_grad", "batch_norm_grad"), _with_statistics
)
