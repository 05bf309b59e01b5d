"""Softmax and its gradients for a GPU compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_lines import bits, broken, prove, samples  # noqa: E402
from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.op import Sample  # noqa: E402
from kernelwright.kernels.reduce.cuda import plan  # noqa: E402
from kernelwright.kernels.softmax.op import FLOATS, OPS  # noqa: E402

pytestmark = interpreted

TWICE = {"way": "twice", "each": 1}
PARTS = {"way": "parts", "each": 1}


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of few elements, so that lines of the samples have many."""
    monkeypatch.setattr(plan, "WHOLE", 2)
    monkeypatch.setattr(plan, "_MOST_WARPS", 2)
    monkeypatch.setattr(plan, "_BYTES", 4)
    monkeypatch.setattr(plan, "_THREADS", 64)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", OPS)
def test_every_sample_in_registers(op: str, dtype: str) -> None:
    prove(op, dtype)


@pytest.mark.parametrize("op", OPS)
def test_lines_that_are_read_twice(op: str, small_tiles: None) -> None:
    prove(op, "float32", TWICE, 3)
    prove(op, "bfloat16", TWICE, 2)


@pytest.mark.parametrize("op", OPS)
def test_lines_in_parts(op: str, small_tiles: None) -> None:
    prove(op, "float32", PARTS, 3, ordered=True, backwards=True)
    prove(op, "float64", PARTS, 3, ordered=True)


@pytest.mark.parametrize("config", [TWICE, PARTS])
def test_a_result_may_take_the_place_of_an_operand(config: dict[str, Any], small_tiles: None) -> None:
    """The op says so: what is read again was not written before."""
    import torch
    from triton_interpreter import Guard, InterpreterRuntime, kernel_by_id

    from kernelwright.kernels.cuda import device, launch
    from kernelwright.kernels.cuda.check import cuda_specs

    x = np.random.default_rng(3).standard_normal((5, 200)).astype(np.float32)
    kernel = kernel_by_id("softmax/cuda_triton/lines")
    held = torch.from_numpy(x.copy())
    with device.assume(90):
        specs = cuda_specs(kernel, Sample("in place", (x,), {}))
        before = launch.set_runtime(InterpreterRuntime(Guard([held], 1, ordered=True), False))
        try:
            kernel.bind(specs, {"axis": -1}, config, 1)(held, held)
        finally:
            launch.set_runtime(before)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    assert np.allclose(held.numpy(), e / e.sum(1, keepdims=True), rtol=1e-6)


def test_parts_in_any_order_give_the_same_bits(small_tiles: None) -> None:
    x = np.random.default_rng(4).standard_normal((2, 500)).astype(np.float32)
    name, sample = "softmax/cuda_triton/lines", Sample("long", (x,), {"axis": 1})
    assert bits(name, sample, PARTS, False) == bits(name, sample, PARTS, True)


def test_broken_kernels_are_caught(small_tiles: None) -> None:
    (sample,) = [s for s in samples("softmax", "float32") if s.name.startswith("(2, 300)")]
    name = "softmax/cuda_triton/lines"
    with pytest.raises(Exception, match="OutOfBoundsError"):
        check(broken(name, length=lambda length: length + 4), sample, TWICE)
    assert not check(broken(name, KIND=lambda kind: "sum"), sample, PARTS, ordered=True).ok
