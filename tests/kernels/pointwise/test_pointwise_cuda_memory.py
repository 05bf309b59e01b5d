"""Where generated kernels read and write: in place, past 2^31 elements, and views that are copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import torch  # noqa: E402
from triton_interpreter import Guard, InterpreterRuntime, check, interpreted  # noqa: E402

from kernelwright.kernels.cuda import device, launch  # noqa: E402
from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.pointwise.cuda import bind, rows  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Writer  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

pytestmark = interpreted


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


def spec_of(x: Any) -> TensorSpec:
    found = TensorSpec.of(x)
    return TensorSpec(found.shape, found.dtype, "cuda", found.layout)


def programs() -> dict[str, Program]:
    w = Writer()
    x, y = w.inputs("float32", "float32")
    w.output(w.tanh(x) + y)
    pointwise = w.program()
    w = Writer()
    x, y = w.inputs("float32", "float32")
    e = w.exp(x - w.reduce_max(x))
    w.output(e / w.reduce_sum(e) * y)
    return {"pointwise": pointwise, "rows": w.program()}


def in_place(program: Program, x: Any, y: Any, axes: Any) -> None:
    """The program over x and y, with x's memory as its output."""
    op, (kernel,) = get_op("fused2"), kernels_for("fused2", "cuda")
    attrs = {"program": program, "shape": x.shape if axes else (), "axes": axes}
    (exact,) = op.reference(x.astype(np.float64), y.astype(np.float64), **attrs)
    specs = (spec_of(x), spec_of(y), spec_of(x))
    with device.assume(90):
        assert kernel.why_not(specs, attrs) is None
        made = kernel.bind(specs, attrs, {}, 1)
    held, beside = torch.from_numpy(x), torch.from_numpy(y)
    runtime = InterpreterRuntime(Guard([beside, held, held], 2), False)
    before = launch.set_runtime(runtime)
    try:
        made(held, beside, held)
    finally:
        launch.set_runtime(before)
    np.testing.assert_allclose(x, exact, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("long", [False, True])
def test_an_output_may_lie_where_an_input_lies(long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if long:
        monkeypatch.setattr(rows, "in_registers", lambda program: 1)
    made = programs()
    for x, y in (
        (numbers(50, 70), numbers(50, 70, seed=1)),
        (numbers(50, 70), numbers(70, seed=1)),
        (numbers(50, 70), numbers(70, 50, seed=1).T),
        (numbers(70, 50).T, numbers(50, 70, seed=1)),
        (numbers(50, 140)[:, ::2], numbers(50, 1, seed=1)),
    ):
        if not long:
            in_place(made["pointwise"], x.copy(order="K"), y, ())
        for axes in ((0,), (1,)):
            in_place(made["rows"], x.copy(order="K"), y, axes)


def test_offsets_of_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for arrays past 2^31 elements, over small ones."""
    monkeypatch.setattr(bind, "is_wide", lambda *specs: True)
    x, made = numbers(9, 40, 33), programs()
    for y in (numbers(9, 40, 33), numbers(33), numbers(9, 1, 33), numbers(9, 33, 40).transpose(0, 2, 1)):
        for program, axes in ((made["pointwise"], ()), (made["rows"], (2,)), (made["rows"], (0, 2))):
            attrs = {"program": program, "shape": x.shape if axes else (), "axes": axes}
            verdict = check("fused2/register/program", Sample("wide", (x, y), attrs))
            assert verdict.ok, verdict.text
    monkeypatch.setattr(rows, "in_registers", lambda program: 1)
    attrs = {"program": made["rows"], "shape": x.shape, "axes": (0, 2)}
    assert check("fused2/register/program", Sample("wide", (x, numbers(33)), attrs)).ok


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "int64"])
@pytest.mark.parametrize("op", ["reshape", "transpose", "broadcast_to", "slice"])
def test_views_are_copied(op: str, dtype: str) -> None:
    proven = 0
    for sample in get_op(op).samples(np.random.default_rng(3), dtype):
        specs = tuple(TensorSpec.of(x) for x in sample.inputs)
        (out,) = get_op(op).infer(specs, **get_op(op).complete(sample.attrs))
        if out.size and not untakeable(sample):
            verdict = check(f"{op}/cuda_triton/copy", sample)
            assert verdict.ok, f"{sample!r}: {verdict.text}"
            proven += 1
    assert proven


def test_no_bit_of_a_copy_changes() -> None:
    """Also of numbers that are NaN."""
    bits = np.arange(0, 1 << 16, 7, dtype=np.uint16).reshape(-1, 3)
    op, (kernel,) = get_op("transpose"), kernels_for("transpose", "cuda")
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.from_numpy(bits.view(np.int16).copy()).view(dtype)
        spec = TensorSpec(tuple(x.shape), str(dtype).removeprefix("torch."), "cuda")
        attrs = op.complete({"axes": (1, 0)})
        with device.assume(90):
            (out,) = op.infer((spec,), **attrs)
            out = TensorSpec(out.shape, out.dtype, "cuda")
            made = kernel.bind((spec, out), attrs, {}, 1)
        result = torch.zeros(out.shape, dtype=dtype)
        before = launch.set_runtime(InterpreterRuntime(Guard([x, result], 1), True))
        try:
            made(x, result)
        finally:
            launch.set_runtime(before)
        assert torch.equal(result.view(torch.int16), x.view(torch.int16).T)
