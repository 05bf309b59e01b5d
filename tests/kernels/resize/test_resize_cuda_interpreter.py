"""The Triton interpolation kernels compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.resize.cuda import steps, tap_kernels  # noqa: E402
from kernelwright.kernels.resize.taps import taps  # noqa: E402

pytestmark = interpreted

OPS = ("interpolate", "interpolate_grad")


@cache
def samples(op: str, dtype: str) -> tuple[Sample, ...]:
    """The op's samples that torch can hold, with something to compute."""
    found = get_op(op).samples(np.random.default_rng(0), dtype)
    return tuple(s for s in found if not untakeable(s) and s.inputs[0] is not None and s.inputs[0].size)


def prove(op: str, sample: Sample, **how: Any) -> None:
    verdict = check(f"{op}/cuda_triton/taps", sample, **how)
    assert verdict.ok, f"{op} of {sample!r} {sample.attrs}: {verdict.text}"


@pytest.mark.parametrize("op", OPS)
def test_every_mode_and_size(op: str) -> None:
    for place, sample in enumerate(samples(op, "float32")):
        prove(op, sample, backwards=place % 2 == 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_every_dtype_is_resized(dtype: str) -> None:
    for op in OPS:
        for name in ("bilinear [5, 7]", "bicubic [6", "nearest [4"):
            prove(op, next(s for s in samples(op, dtype) if s.name.startswith(name)))


def test_images_in_the_order_of_channels_last() -> None:
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 9)).astype(np.float32).transpose(0, 3, 1, 2)
    attrs = {"size": (7, 9), "mode": "bilinear", "align_corners": False, "scales": (0.0, 0.0)}
    prove("interpolate", Sample("channels last", (x,), attrs))


SIZES = [(1, 1), (1, 5), (5, 1), (2, 9), (7, 3), (8, 16), (16, 8), (10, 7), (33, 100), (100, 33)]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "bicubic"])
def test_as_many_outputs_are_looked_at_as_reach_an_input(mode: str) -> None:
    """Where the first one is found exactly; the host says how many may follow."""
    for n, m in SIZES:
        for aligned in (False,) if mode.startswith("nearest") else (False, True):
            for scale in (0.0, m / n, 1.7):
                attrs = {"mode": mode, "align_corners": aligned}
                kind, step = steps.how(n, m, attrs), steps.step_along(n, m, scale, aligned)
                nearest = float(np.float32(1 / scale) if scale else np.float32(n) / np.float32(m))
                most = steps.most_outputs(n, m, kind, step, nearest, aligned)
                places, weights = taps(n, m, mode, aligned, scale)
                for i in range(n):
                    reached = np.flatnonzero(((places == i) & (weights != 0)).any(0))
                    assert not reached.size or reached[-1] - reached[0] < most


@triton.jit
def _late(i, n, step, inverse, nearest, MODE: tl.constexpr, ALIGNED: tl.constexpr):
    """What misses the first output that reaches an input."""
    return i * 0 + 1


def test_a_gradient_that_misses_an_output_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap_kernels, "first_output", _late)
    with pytest.raises(AssertionError, match="wrong"):
        prove(
            "interpolate_grad",
            next(s for s in samples("interpolate_grad", "float32") if "bilinear" in s.name),
        )
