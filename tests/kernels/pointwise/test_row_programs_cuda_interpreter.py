"""The generated kernels of programs with reductions, and what all read and write, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import torch  # noqa: E402
from triton_interpreter import Guard, InterpreterRuntime, check, interpreted  # noqa: E402

from kernelwright.kernels.cuda import device, launch  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.pointwise.cuda import bind, row_text, rows  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Writer  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

pytestmark = interpreted


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    draw = np.random.default_rng(seed)
    if dtype in ("float32", "float64", "bfloat16", "float16"):
        return draw.uniform(-2, 2, shape).astype(np_dtype(dtype))
    return draw.integers(0, 2 if dtype == "bool" else 7, shape).astype(dtype)


def right(program: Program, inputs: Any, shape: Any, axes: Any, name: str = "", **how: Any) -> None:
    attrs = {"program": program, "shape": tuple(shape), "axes": tuple(axes)}
    sample = Sample(name, tuple(inputs), attrs)
    verdict = check(f"fused{len(program.inputs)}/register/program", sample, **how)
    assert verdict.ok, f"{program} on {sample!r}: {verdict.text}"


def softmax(dtype: str) -> Program:
    w = Writer()
    x = w.input(dtype)
    e = w.exp(x - w.reduce_max(x))
    w.output(e * w.reciprocal(w.reduce_sum(e)))
    return w.program()


def layer_norm(dtype: str) -> Program:
    w = Writer()
    x, scale, shift = w.inputs(dtype, dtype, dtype)
    off = x - w.reduce_mean(x)
    rstd = w.rsqrt(w.reduce_mean(off * off) + 1e-5)
    w.output(off * rstd * scale + shift, rstd)
    return w.program()


def everything(dtype: str) -> Program:
    """All reductions, a row input, the position and the length."""
    w = Writer()
    x, row = w.input(dtype), w.input(dtype, row=True)
    place = w.index(dtype)
    kept = w.where(w.less(place, w.length(dtype) - 2), x, row)
    w.output(w.reduce_max(kept) + row, w.reduce_min(kept), w.reduce_prod(w.minimum(x, 1)), kept - row)
    w.output(w.reduce_sum(place), w.reduce_max(w.equal(x, row)), w.reduce_min(w.less(x, row + 9)))
    return w.program()


LAYOUTS: dict[str, Callable[[], tuple[Any, tuple[int, ...]]]] = {
    "rows": lambda: (numbers(5, 33), (1,)),
    "long": lambda: (numbers(3, 200), (1,)),
    "columns": lambda: (numbers(33, 70), (0,)),
    "turned": lambda: (numbers(33, 20).T, (1,)),
    "all": lambda: (numbers(6, 7), (0, 1)),
    "the middle": lambda: (numbers(3, 21, 40), (1,)),
    "two of three": lambda: (numbers(4, 5, 12), (0, 2)),
    "two apart": lambda: (numbers(3, 4, 5, 6), (1, 3)),
    "three apart": lambda: (numbers(2, 3, 2, 4, 2, 3), (0, 2, 4)),
    "gaps": lambda: (numbers(4, 30, 6)[:, ::2, 1:4], (1,)),
    "of one": lambda: (numbers(7, 1), (1,)),
    "one row": lambda: (numbers(1, 40), (1,)),
}


FORMS = ("in registers", "by loops", "in parts")


def forced(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make short rows take a form."""
    if form != "in registers":
        monkeypatch.setattr(rows, "in_registers", lambda program: 1)
        monkeypatch.setattr(rows, "_LOOP", 32)
        monkeypatch.setattr(rows, "_COLUMN_TILE", 512)
        monkeypatch.setattr(rows, "_STEPS_OF_A_PART", 1)
        monkeypatch.setattr(rows, "_LEAST_STEPS", 2 if form == "in parts" else 1 << 30)


@pytest.mark.parametrize("form", FORMS)
def test_every_layout(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(form, monkeypatch)
    for name, make in LAYOUTS.items():
        x, axes = make()
        right(softmax("bfloat16"), (x.astype(np_dtype("bfloat16")),), x.shape, axes, name, backwards=True)
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        weights = tuple(n if i in axes else 1 for i, n in enumerate(x.shape))
        given = (x, numbers(*weights, seed=1), numbers(*weights, seed=2))
        right(layer_norm("float32"), given, x.shape, axes, name)
        if name in ("rows", "columns", "two apart"):
            for dtype in ("int8", "uint16", "float64") if name == "rows" else ("int64",):
                whole, row = numbers(*x.shape, dtype=dtype), numbers(*kept, dtype=dtype, seed=1)
                right(everything(dtype), (whole, row), x.shape, axes, name)


@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinity_come_through(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(form, monkeypatch)
    x = numbers(6, 190)
    x[0, 3], x[1, 0], x[2, 18], x[3, 149] = np.nan, np.inf, -np.inf, np.nan
    w = Writer()
    value = w.input("float32")
    w.output(w.reduce_max(value), w.reduce_min(value), w.reduce_sum(value))
    right(w.program(), (x,), x.shape, (1,))


def test_a_row_that_is_not_masked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    text_of = row_text.text_of
    w = Writer()
    w.output(w.reduce_max(w.input("float32")))
    faults = {'float("-inf")': "9.0", "row_ok = row < count": "row_ok = row < count + 1"}
    for old, new in faults.items():
        monkeypatch.setattr(rows, "text_of", lambda form, a=old, b=new: text_of(form).replace(a, b))
        rows.function.cache_clear()
        with pytest.raises(Exception, match=r"OutOfBounds|wrong"):
            right(w.program(), (numbers(1057, 19),), (1057, 19), (1,))
    rows.function.cache_clear()


def test_what_a_program_keeps_in_registers_bounds_its_rows() -> None:
    assert rows.most_live(softmax("float32")) == 1
    assert rows.in_registers(softmax("float32")) == 32768
    assert rows.in_registers(softmax("float64")) == 16384
    assert rows.too_few((4, 1 << 20), (1,), 132) is not None
    assert rows.too_few((4096, 1 << 20), (1,), 132) is None


# --- memory -------------------------------------------------------------------------------------------------


def spec_of(x: Any) -> TensorSpec:
    found = TensorSpec.of(x)
    return TensorSpec(found.shape, found.dtype, "cuda", found.layout)


def pairs() -> dict[str, Program]:
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


@pytest.mark.parametrize("form", FORMS)
def test_an_output_may_lie_where_an_input_lies(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forced(form, monkeypatch)
    made = pairs()
    for x, y in (
        (numbers(50, 70), numbers(50, 70, seed=1)),
        (numbers(50, 70), numbers(70, seed=1)),
        (numbers(50, 70), numbers(70, 50, seed=1).T),
        (numbers(70, 50).T, numbers(50, 70, seed=1)),
        (numbers(50, 140)[:, ::2], numbers(50, 1, seed=1)),
    ):
        if form == FORMS[0]:
            in_place(made["pointwise"], x.copy(order="K"), y, ())
        for axes in ((0,), (1,)):
            in_place(made["rows"], x.copy(order="K"), y, axes)


def test_offsets_of_64_bits_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for arrays past 2^31 elements, over small ones."""
    monkeypatch.setattr(bind, "is_wide", lambda *specs: True)
    x, made = numbers(3, 20, 33), pairs()
    for y in (numbers(3, 20, 33), numbers(33), numbers(3, 1, 33), numbers(3, 33, 20).transpose(0, 2, 1)):
        for program, axes in ((made["pointwise"], ()), (made["rows"], (0, 2))):
            attrs = {"program": program, "shape": x.shape if axes else (), "axes": axes}
            verdict = check("fused2/register/program", Sample("wide", (x, y), attrs))
            assert verdict.ok, verdict.text
    attrs = {"program": made["rows"], "shape": x.shape, "axes": (0, 2)}
    for form in FORMS[1:]:
        forced(form, monkeypatch)
        assert check("fused2/register/program", Sample("wide", (x, numbers(33)), attrs)).ok


def test_steps_of_more_than_2_to_the_31_elements_are_followed() -> None:
    """Rows that far apart, in memory of which only they are touched."""
    step = (1 << 31) + 16  # a number of 32 bits times 16
    memory = torch.empty(step + 64, dtype=torch.int8)
    w = Writer()
    x, y = w.inputs("int8", "int8")
    w.output(x * y, w.cast(x, "int32"))
    pointwise = w.program()
    w = Writer()
    x, y = w.inputs("int8", "int8")
    w.output(w.reduce_sum(x * y))
    reduced = w.program()
    for columns, own in ((32, 1), (13, 3), (1, 1)):
        held = torch.as_strided(memory, (2, columns), (step, own))
        held.copy_(torch.arange(2 * columns).reshape(2, columns) % 11)
        beside = torch.arange(columns, dtype=torch.int8) % 5
        spec = TensorSpec((2, columns), "int8", "cuda", (step, own))
        for program, axes in ((pointwise, ()), (reduced, (0,)), (reduced, (1,)), (reduced, (0, 1))):
            attrs = {"program": program, "shape": (2, columns) if axes else (), "axes": axes}
            specs = (spec, TensorSpec((columns,), "int8", "cuda"))
            outputs = get_op("fused2").infer(specs, **attrs)
            (kernel,) = kernels_for("fused2", "cuda")
            with device.assume(90):
                made = kernel.bind((*specs, *outputs), attrs, {}, 1)
            assert all(one.args["WIDE"] for one in made.steps)
            results = [torch.zeros(s.shape, dtype=getattr(torch, s.dtype)) for s in outputs]
            tensors = [held, beside, *results]
            before = launch.set_runtime(InterpreterRuntime(Guard(tensors, len(results)), False))
            try:
                made(*tensors)
            finally:
                launch.set_runtime(before)
            exact = get_op("fused2").reference(held.numpy(), beside.numpy(), **attrs)
            for result, wanted in zip(results, exact, strict=True):
                assert np.array_equal(result.numpy(), wanted), (columns, axes)
