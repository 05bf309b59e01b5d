"""The generated kernels of programs with reductions, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.op import Sample  # noqa: E402
from kernelwright.kernels.pointwise.cuda import row_text, rows  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Writer  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

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


@pytest.mark.parametrize("long", [False, True], ids=["in registers", "by loops"])
def test_every_layout(long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if long:
        monkeypatch.setattr(rows, "in_registers", lambda program: 1)
        monkeypatch.setattr(rows, "_LOOP", 16)
        monkeypatch.setattr(rows, "_COLUMN_TILE", 128)
    for name, make in LAYOUTS.items():
        x, axes = make()
        right(softmax("float32"), (x,), x.shape, axes, name)
        right(softmax("bfloat16"), (x.astype(np_dtype("bfloat16")),), x.shape, axes, name, backwards=True)
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        weights = tuple(n if i in axes else 1 for i, n in enumerate(x.shape))
        given = (x, numbers(*weights, seed=1), numbers(*weights, seed=2))
        right(layer_norm("float32"), given, x.shape, axes, name)
        if name in ("rows", "columns", "two apart"):
            for dtype in ("int8", "uint16", "int32", "int64", "float64"):
                whole, row = numbers(*x.shape, dtype=dtype), numbers(*kept, dtype=dtype, seed=1)
                right(everything(dtype), (whole, row), x.shape, axes, name)


@pytest.mark.parametrize("long", [False, True], ids=["in registers", "by loops"])
def test_nan_and_infinity_come_through(long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if long:
        monkeypatch.setattr(rows, "in_registers", lambda program: 1)
    x = numbers(6, 19)
    x[0, 3], x[1, 0], x[2, 18], x[3, 4] = np.nan, np.inf, -np.inf, np.nan
    w = Writer()
    value = w.input("float32")
    w.output(w.reduce_max(value), w.reduce_min(value), w.reduce_sum(value))
    right(w.program(), (x,), x.shape, (1,))


def test_a_row_that_is_not_masked_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    text_of = row_text.text_of
    w = Writer()
    w.output(w.reduce_max(w.input("float32")))
    faults = {'float("-inf")': "9.0", "row_ok = row < rows": "row_ok = row < rows + 1"}
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
