"""Programs: what may be written, what merging makes of several, and kernels over layouts and threads."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kernelwright.kernels.dispatch import bind, complete_specs
from kernelwright.kernels.errors import DTypeError, ShapeError
from kernelwright.kernels.machine import machine
from kernelwright.kernels.op import TensorSpec, get_op
from kernelwright.kernels.pointwise.kernel import call_for
from kernelwright.kernels.pointwise.merge import merged
from kernelwright.kernels.pointwise.op import OPS, fused_op
from kernelwright.kernels.pointwise.program import Program, Writer
from kernelwright.kernels.settings import using


def run(program: Program, *inputs: np.ndarray, threads: int = 1, **attrs: Any) -> list[np.ndarray]:
    """The results of a fused program, computed by its kernel."""
    op, attrs = fused_op(program), {"program": program, **attrs}
    specs = [TensorSpec.of(array) for array in inputs]
    with using(threads=threads, strict=True):
        outputs = [spec.empty() for spec in complete_specs(op, specs, op.complete(attrs))[len(inputs) :]]
        bind(op, specs, attrs)(*inputs, *outputs)
    return outputs


def chain(steps: int = 3) -> Program:
    w = Writer()
    x, y = w.inputs("float32", "float32")
    for _ in range(steps):
        x = w.tanh(x * y + 0.5)
    w.output(x)
    return w.program()


def test_equal_programs_are_one_object() -> None:
    assert chain() is chain()
    assert pickle.loads(pickle.dumps(chain())) is chain()
    assert chain(2) is not chain(3)


def test_constants_that_python_takes_for_equal_make_different_programs() -> None:
    made = [
        Program(["float32"], [("constant", value, "float32"), ("div", 0, 1)], [2]) for value in (0.0, -0.0)
    ]
    assert made[0] is not made[1]
    assert run(made[0], np.ones(1, "f"))[0][0] == np.inf
    assert run(made[1], np.ones(1, "f"))[0][0] == -np.inf


def test_what_is_written_twice_is_computed_once() -> None:
    w = Writer()
    x = w.input("float32")
    w.output(w.exp(x) + w.exp(x))
    assert [instruction[0] for instruction in w.program().instructions] == ["exp", "add"]


@pytest.mark.parametrize(
    ("instructions", "text"),
    [
        ([("nothing", 0)], "there is no instruction 'nothing'"),
        ([("add", 0)], "add takes 2 operands"),
        ([("add", 0, 7)], "does not exist yet"),
        ([("add", 0, 1)], "nothing is converted silently"),
        ([("bitwise_and", 0, 0)], "bitwise_and takes int8"),
        ([("cast", 0, "float31")], "'float31' is no dtype"),
    ],
)
def test_a_program_that_means_nothing_is_refused(instructions: Any, text: str) -> None:
    with pytest.raises(DTypeError, match=text):
        Program(["float32", "float64"], instructions, [2]).dtypes  # noqa: B018


def test_operands_that_do_not_broadcast_are_refused_with_their_specs() -> None:
    specs = [TensorSpec((3, 4), "float32"), TensorSpec((3,), "float32")]
    with pytest.raises(ShapeError, match=r"add: x f32\[3,4\]@cpu, y f32\[3\]@cpu do not broadcast.* 3 and 4"):
        OPS["add"].infer(specs)


def test_two_dtypes_are_refused() -> None:
    specs = [TensorSpec((3,), "float32"), TensorSpec((3,), "float64")]
    with pytest.raises(DTypeError, match="nothing is converted silently"):
        OPS["mul"].infer(specs)


def softmax() -> Program:
    w = Writer()
    x = w.input("float32")
    e = w.exp(x - w.reduce_max(x))
    w.output(e * w.reciprocal(w.reduce_sum(e)))
    return w.program()


def test_merged_programs_share_inputs_and_instructions_and_leave_out_the_rest() -> None:
    w = Writer()
    x, y = w.inputs("float32", "float32")
    w.output(w.exp(x) * y, x - y)
    first = w.program()
    w = Writer()
    x, y = w.inputs("float32", "float32")
    w.output(w.exp(x) + y)
    second = w.program()
    program, inputs = merged([(first, "ab", "tu"), (second, "at", "z")], "z")
    assert inputs == ("a", "b")
    assert [instruction[0] for instruction in program.instructions] == ["exp", "mul", "add"]
    a, b = np.random.default_rng(0).standard_normal((2, 50)).astype("f")
    np.testing.assert_allclose(run(program, a, b)[0], np.exp(a) + np.exp(a) * b, rtol=1e-6)


def test_a_pointwise_program_merges_into_a_row_program() -> None:
    program, inputs = merged([(chain(1), "xy", "t"), (softmax(), "t", "s")], "s")
    x = np.random.default_rng(0).standard_normal((4, 33)).astype("f")
    y = np.linspace(-1, 1, 33, dtype="f")
    t = np.tanh(x * y + 0.5).astype("d")
    (s,) = run(program, x, y, shape=(4, 33), axes=(1,))
    assert inputs == ("x", "y")
    np.testing.assert_allclose(s, np.exp(t) / np.exp(t).sum(1, keepdims=True), rtol=1e-5)


def test_programs_that_do_not_fit_are_not_merged() -> None:
    w = Writer()
    x, row = w.input("float32"), w.input("float32", row=True)
    w.output(x * row)
    scaled = w.program()
    with pytest.raises(DTypeError, match="full"):
        merged([(chain(1), "xy", "t"), (scaled, "xt", "z")], "z")
    with pytest.raises(DTypeError, match="float64"):
        merged([(chain(1), "xy", "t"), (Program(["float64"], [("exp", 0)], [1]), "t", "z")], "z")


def test_any_op_tells_the_program_that_computes_it() -> None:
    specs = (TensorSpec((2, 3), "float32"),) * 3
    call = call_for(OPS["add"], specs, {})
    assert call is not None
    assert (call.program.instructions, call.shape) == ((("add", 0, 1),), (2, 3))
    matrices = (TensorSpec((3, 3), "float32"),) * 3
    assert call_for(get_op("matmul"), matrices, {}) is None


@pytest.mark.parametrize("shape", [(1,), (1000,), (3, 5000), (40, 3, 70), (130, 90)])
def test_threads_give_the_bits_of_one(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.kernels.pointwise import bind as binding
    from kernelwright.kernels.pointwise import bind_rows

    monkeypatch.setattr(binding, "TASK_NS", 10)
    monkeypatch.setattr(bind_rows, "TASK_NS", 10)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, *shape)).astype("f")
    turned = np.ascontiguousarray(y.T).T
    axes = (len(shape) - 1,)
    for threads in (2, 3):
        for other in (y, turned, y[..., :1]):
            assert np.array_equal(run(chain(), x, other)[0], run(chain(), x, other, threads=threads)[0])
        rows = {"shape": shape, "axes": axes}
        assert np.array_equal(run(softmax(), x, **rows)[0], run(softmax(), x, threads=threads, **rows)[0])


def test_a_result_may_take_the_place_of_an_operand() -> None:
    rng = np.random.default_rng(0)
    for shape, attrs in (((7, 133), {}), ((7, 133), {"shape": (7, 133), "axes": (1,)})):
        program = softmax() if attrs else Program(["float32"], [("gelu", 0)], [1])
        x = rng.standard_normal(shape).astype("f")
        expected = run(program, x, **attrs)[0]
        bind(fused_op(program), [TensorSpec.of(x)], {"program": program, **attrs})(x, x)
        assert np.array_equal(x, expected)


def test_blocks_that_are_turned_have_any_size() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("int8", "uint16", "float32", "float64"):
        for rows, columns in ((8, 8), (64, 64), (65, 130), (200, 9), (17, 300)):
            x = rng.integers(0, 100, (columns, rows)).astype(dtype)
            y = rng.integers(0, 20, (rows, columns)).astype(dtype)
            program = Program([dtype, dtype], [("add", 0, 1)], [2])
            assert np.array_equal(run(program, x.T, y)[0], x.T + y), (dtype, rows, columns)


def test_large_results_are_written_past_the_caches_wherever_they_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kernelwright.kernels.pointwise import bind as binding

    small = dataclasses.replace(machine(), l2=0, l3=0)
    monkeypatch.setattr(binding, "machine", lambda: small)
    monkeypatch.setattr(binding, "_LONG", 0)
    op, program = fused_op(chain(1)), chain(1)
    x, y = np.random.default_rng(0).standard_normal((2, 3, 200)).astype("f")
    expected = np.tanh(x.astype("d") * y + 0.5)
    room = np.empty(3 * 200 + 64, "f")
    for start in (0, 1, 5, 16):
        for length in (1, 3, 17, 200):
            out = room[start : start + 3 * 200].reshape(3, 200)[:, :length]
            room[:] = 7
            arrays = x[:, :length], y[:, :length], out
            bind(op, [TensorSpec.of(array) for array in arrays], {"program": program})(*arrays)
            np.testing.assert_allclose(out, expected[:, :length], rtol=1e-6, atol=1e-7)
            assert (room == 7).sum() == room.size - 3 * length


def rows_of(shape: Sequence[int], axes: Sequence[int]) -> dict[str, Any]:
    return {"shape": tuple(shape), "axes": tuple(axes)}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5, 37), (1,)),
        ((5, 37), (0,)),
        ((3, 4, 50), (0, 2)),
        ((3, 4, 5, 7), (1, 3)),
        ((9, 1), (1,)),
        ((4500,), (0,)),
    ],
)
def test_norms_of_rows_match_their_definition(
    shape: tuple[int, ...], axes: tuple[int, ...], dtype: str
) -> None:
    w = Writer()
    x, gain, eps = w.input(dtype), w.input(dtype), w.input(dtype, row=True)
    mean = w.reduce_mean(x)
    apart = x - mean
    scale = w.rsqrt(w.reduce_mean(apart * apart) + eps)
    w.output(apart * scale * gain, mean, w.reduce_max(x), w.reduce_min(x))
    rng = np.random.default_rng(0)
    kind = TensorSpec((1,), dtype).np_dtype
    kept = tuple(n if i in axes else 1 for i, n in enumerate(shape))
    a, g = rng.standard_normal(shape).astype(kind), rng.standard_normal(kept).astype(kind)
    wide = a.astype("d")
    deviation = np.sqrt(wide.var(axes, keepdims=True) + float(kind.type(1e-3)))
    expected = [
        (wide - wide.mean(axes, keepdims=True)) / deviation * g.astype("d"),
        wide.mean(axes, keepdims=True),
        wide.max(axes, keepdims=True),
        wide.min(axes, keepdims=True),
    ]
    tolerance = {"float32": 1e-5, "float64": 1e-13, "bfloat16": 1e-2}[dtype]
    for layout in (a, np.asfortranarray(a), np.repeat(a, 2, -1)[..., ::2], a[::-1].copy()[::-1]):
        results = run(w.program(), layout, g, np.array(1e-3, kind), **rows_of(shape, axes))
        for result, exact in zip(results, expected, strict=True):
            np.testing.assert_allclose(result.astype("d"), exact, rtol=tolerance, atol=tolerance)


def test_positions_in_rows_pick_elements() -> None:
    w = Writer()
    x, label = w.input("float32"), w.input("int64", row=True)
    w.output(w.reduce_sum(w.where(w.equal(w.index("int64"), label), x, 0.0)))
    x_in = np.random.default_rng(0).standard_normal((6, 5, 21)).astype("f")
    flat = x_in.transpose(1, 0, 2).reshape(5, -1)
    labels = np.array([0, 125, 7, 64, 33])
    for layout in (x_in, np.asfortranarray(x_in)):
        (picked,) = run(w.program(), layout, labels, **rows_of((6, 5, 21), (0, 2)))
        assert np.array_equal(picked.ravel(), flat[np.arange(5), labels])


def test_nan_is_the_largest_and_the_smallest_of_its_row() -> None:
    w = Writer()
    x = w.input("float32")
    w.output(w.reduce_max(x), w.reduce_min(x), w.reduce_sum(x))
    x_in = np.ones((3, 40), "f")
    x_in[1, 17] = np.nan
    for axes, layout in (((1,), x_in), ((0,), np.ascontiguousarray(x_in.T))):
        for result in run(w.program(), layout, **rows_of(layout.shape, axes)):
            assert np.array_equal(np.isnan(result.ravel()), [False, True, False])


def test_sums_of_equal_numbers_do_not_drift() -> None:
    w = Writer()
    x = w.input("float32")
    w.output(w.reduce_sum(x))
    for n, columns in ((1 << 21, 1), (1 << 15, 70), (2210, 17)):
        for shape, axes in (((n, columns), (0,)), ((columns, n), (1,))):
            (total,) = run(w.program(), np.full(shape, 0.1, "f"), **rows_of(shape, axes))
            assert np.abs(total / (n * float(np.float32(0.1))) - 1).max() < 1e-7 * n**0.5 + 1e-6


def test_long_rows_are_computed_again_instead_of_kept() -> None:
    x = np.random.default_rng(0).standard_normal((2, 100_003)).astype("f")
    wide = np.exp(x.astype("d"))
    (y,) = run(softmax(), x, **rows_of(x.shape, (1,)))
    np.testing.assert_allclose(y, wide / wide.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40_001,), (0,)),
        ((3, 7, 1001), (1, 2)),
        ((900, 5), (0,)),
        ((40, 3, 50), (0, 2)),
        ((7,), (0,)),
        ((31, 70), (0,)),
    ],
)
def test_few_long_rows_are_shared_among_threads(
    shape: tuple[int, ...], axes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernelwright.kernels.pointwise import bind_rows

    monkeypatch.setattr(bind_rows, "TASK_NS", 10)
    w = Writer()
    x, y = w.inputs("float32", "float32")
    d = x - y
    w.output(w.sqrt(w.reduce_mean(d * d)), w.reduce_max(d), w.reduce_max(x > y))
    a, b = np.random.default_rng(0).standard_normal((2, *shape)).astype("f")
    exact = (a - b).astype("d")
    for layout in (a, np.asfortranarray(a)):
        results = run(w.program(), layout, b, threads=8, **rows_of(shape, axes))
        again = run(w.program(), layout, b, threads=8, **rows_of(shape, axes))
        root, largest, above = results
        np.testing.assert_allclose(root, np.sqrt((exact**2).mean(axes, keepdims=True)), rtol=1e-6)
        assert np.array_equal(largest, (a - b).max(axes, keepdims=True))
        assert np.array_equal(above, (a > b).any(axes, keepdims=True))
        assert all(np.array_equal(one, other) for one, other in zip(results, again, strict=True))


def test_float16_without_its_conversions_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.kernels.pointwise import kernel as programs
    from kernelwright.kernels.registry import kernels_for

    plain = dataclasses.replace(machine(), flags=frozenset({"sse2"}))
    monkeypatch.setattr(programs, "machine", lambda: plain)
    (program,) = kernels_for("exp")
    for dtype, reason in (("float16", "F16C"), ("bfloat16", None), ("float32", None)):
        why = program.why_not((TensorSpec((3,), dtype),) * 2, {})
        assert why is None if reason is None else reason in str(why)
