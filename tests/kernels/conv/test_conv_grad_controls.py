"""Proof that the tests of convolution gradients can fail: they find several mistakes in the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conv_grads import GRADIENTS, forget_plans, random_conv

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv import cpu_numba_input_grad, phases
from kernelwright.kernels.conv.tasks import bias_grad as bias_grad_task
from kernelwright.kernels.conv.tasks import weight_grad as weight_grad_task
from kernelwright.kernels.cpu import launch
from kernelwright.kernels.registry import kernels_for

KERNELS = {"conv_input_grad": "taps", "conv_weight_grad": "outer", "conv_bias_grad": "sums"}


@pytest.fixture(autouse=True)
def fresh_plans() -> Iterator[None]:
    forget_plans()
    yield
    forget_plans()


def faults(op_name: str) -> list[str]:
    """What the check says of a few problems."""
    (kernel,) = (k for k in kernels_for(op_name) if k.name == KERNELS[op_name])
    found = []
    for seed in range(8):
        verdict = check_kernel(kernel, random_conv(seed, plain=True).sample(op_name))
        if not verdict.ok:
            found.append(verdict.text)
    return found


@pytest.mark.parametrize("op_name", GRADIENTS)
def test_without_a_mistake_all_is_right(op_name: str) -> None:
    assert faults(op_name) == []


def last_tap_dropped(found: list[phases.Segment]) -> list[phases.Segment]:
    return [replace(segment, taps=segment.taps[:-1]) for segment in found]


def last_phase_missed(found: list[phases.Segment]) -> list[phases.Segment]:
    last = max(segment.first for segment in found)
    return [segment for segment in found if segment.first < last] if last else found


def segment_too_short(found: list[phases.Segment]) -> list[phases.Segment]:
    longest = max(found, key=lambda segment: segment.steps)
    short = replace(longest, high=longest.high - 1) if longest.steps > 1 else longest
    return [short if segment == longest else segment for segment in found]


def neighbour_read(found: list[phases.Segment]) -> list[phases.Segment]:
    return [replace(s, taps=tuple((tap, max(0, off - 1)) for tap, off in s.taps)) for s in found]


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (last_tap_dropped, "error"),
        (last_phase_missed, "nan where"),
        (segment_too_short, "nan where"),
        (neighbour_read, "error"),
    ],
)
def test_a_mistake_in_the_regions_of_an_input_gradient_is_found(
    mistake: Callable[..., Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_numba_input_grad, "segments", lambda *axis: mistake(phases.segments(*axis)))
    assert any(text in fault for fault in faults("conv_input_grad"))


def change_block(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Every call is bound with an argument block that `change` has been at."""
    true_bind = launch.bind_phases

    def bind(parameters: Any, *rest: Any, **more: Any) -> Any:
        change(parameters)
        return true_bind(parameters, *rest, **more)

    monkeypatch.setattr(launch, "bind_phases", bind)


def test_a_last_pixel_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def shorter(block: Any) -> None:
        block[weight_grad_task.PLACES + 2] -= block[weight_grad_task.PLACES + 2] > 1

    change_block(monkeypatch, shorter)
    assert any("error" in fault for fault in faults("conv_weight_grad"))


def test_a_last_tap_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fewer(block: Any) -> None:
        block[weight_grad_task.DILATION + 2] += 1

    change_block(monkeypatch, fewer)
    assert any("error" in fault for fault in faults("conv_weight_grad"))


def test_a_pixel_that_a_bias_gradient_leaves_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def shorter(block: Any) -> None:
        block[bias_grad_task.LENGTHS] -= 1

    change_block(monkeypatch, shorter)
    assert any("error" in fault for fault in faults("conv_bias_grad"))


def test_a_sum_in_half_precision_is_found() -> None:
    """The budget is no wider than it must be: rounding the result to float16 is too much."""
    from kernelwright.kernels.accuracy import Truth
    from kernelwright.kernels.op import get_op

    for op_name in GRADIENTS:
        sample, op = random_conv(3, plain=True).sample(op_name), get_op(op_name)
        truth = Truth.of(op, sample.inputs, sample.attrs)
        specs = op.infer(tuple(map(_spec, sample.inputs)), **op.complete(sample.attrs))
        right, rough = (truth.outputs[0].astype(kind).astype("float32") for kind in ("float32", "float16"))
        assert truth.judge([right], specs).ok
        assert not truth.judge([rough], specs).ok


def _spec(array: Any) -> Any:
    from kernelwright.kernels.op import TensorSpec

    return TensorSpec.of(array if array is None else np.asarray(array))
