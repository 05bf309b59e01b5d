"""Linear: right on random calls, packed or not; beside torch; controls; bad input; the choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from linear_calls import Problem, problems, what_is_wrong
from matmul_calls import plain, turned

import kernelwright as kw
from kernelwright.kernels import activations, prepack
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.errors import ConfigError, DTypeError, OverlapError, ShapeError
from kernelwright.kernels.matmul.op import LINEAR
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.registry import kernels_for

BF16 = np.dtype(ml_dtypes.bfloat16)
PATHS = ("panels", "prepacked", "dots")


@pytest.mark.parametrize("dtype", LINEAR.dtypes)
def test_five_hundred_random_calls_are_right(dtype: str) -> None:
    ran = []

    @settings(max_examples=500)
    @given(problems(dtype))
    def each(problem: Problem) -> None:
        assert what_is_wrong(problem) is None
        ran.append(problem)

    each()
    assert {p.packed for p in ran} == {False, True}
    assert {p.activation for p in ran} == {None, *activations.ACTIVATIONS}


@pytest.mark.parametrize("dtype", LINEAR.dtypes)
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.usefixtures("every_thread_gets_work")
def test_each_kernel_passes_the_samples_it_does_not_refuse(name: str, dtype: str) -> None:
    (kernel,) = [k for k in kernels_for("linear") if k.name == name]
    ran = 0
    for place, sample in enumerate(LINEAR.samples(np.random.default_rng(3), dtype)):
        specs = tuple(map(TensorSpec.of, sample.inputs))
        attrs = LINEAR.complete(sample.attrs)
        specs = (*specs, *LINEAR.infer(specs, **attrs))
        if not specs[-1].size or kernel.why_not(specs, attrs) is not None:
            continue
        threads = 1 + place % 3
        for config in kernel.configurations(specs, attrs, threads):
            verdict = check_kernel(kernel, sample, config, threads=threads)
            assert verdict.ok, f"{sample} {config}: {verdict.text}"
            ran += 1
    assert ran > 7


BLOCKS = [(1, 1030, 70), (70, 2050, 130), (200, 30, 600), (1030, 1030, 66), (5, 4100, 65), (16, 1100, 640)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_calls_of_several_blocks_are_right(dtype: str, packed: bool) -> None:
    for place, (m, k, n) in enumerate(BLOCKS):
        layout = plain(2)
        problem = Problem(
            *((m,), k, n, turned(2) if place % 3 == 2 else layout, layout, plain(1), layout),
            *(turned(2) if place % 2 else layout, dtype, "gelu"),
            packed=packed,
            threads=1 + place % 2,
        )
        assert what_is_wrong(problem) is None, problem


@pytest.mark.parametrize(
    ("vector_bytes", "dtype"), [("16", "bfloat16"), ("32", "float32"), ("32", "float16")]
)
def test_narrower_vectors_are_right(vector_bytes: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", vector_bytes)
    ran = set()
    for kernel in kernels_for("linear"):
        for sample in list(LINEAR.samples(np.random.default_rng(1), dtype))[8:]:
            specs = tuple(map(TensorSpec.of, sample.inputs))
            attrs = LINEAR.complete(sample.attrs)
            specs = (*specs, *LINEAR.infer(specs, **attrs))
            few = sample.attrs.get("activation") in (None, "gelu")
            if few and specs[-1].size and kernel.why_not(specs, attrs) is None:
                verdict = check_kernel(kernel, sample, threads=2)
                assert verdict.ok, f"{sample}: {verdict.text}"
                ran.add(kernel.name)
    assert ran == set(PATHS)


# --- beside torch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, *activations.ACTIVATIONS])
def test_results_are_those_of_torch(activation: str | None) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    rng = np.random.default_rng(5)
    x, w, b = (rng.standard_normal(s).astype("f4") for s in ((3, 7, 50), (90, 50), (90,)))
    functional = torch.nn.functional
    theirs = functional.linear(*map(torch.from_numpy, (x, w, b)))
    if activation == "gelu_tanh":
        theirs = functional.gelu(theirs, approximate="tanh")
    elif activation is not None:
        theirs = getattr(functional, activation)(theirs)
    for weight in (w, prepack.prepack("linear", w)):
        mine = np.asarray(kw.linear(x, weight, b, activation))
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=2e-5, atol=2e-5)


# --- packed weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", LINEAR.dtypes)
@pytest.mark.parametrize("shape", [(1, 1), (64, 33), (65, 64), (0, 4), (5, 0)])
def test_a_packed_weight_is_the_weight(dtype: str, shape: tuple[int, int]) -> None:
    from kernelwright.kernels.matmul.prepack import unpack

    weight = np.random.default_rng(0).standard_normal(shape).astype(BF16 if dtype == "bfloat16" else dtype)
    packed = prepack.prepack("linear", weight.T.copy().T)
    assert packed.shape == shape
    assert packed.data.dtype == weight.dtype
    assert packed.data.size == 0 or packed.data.ctypes.data % 64 == 0
    np.testing.assert_array_equal(unpack(packed.data, packed.format, packed.shape), weight)


def test_a_weight_packed_for_another_machine_is_refused_with_the_reason_and_still_right() -> None:
    w, x = np.ones((5, 6), "f4"), np.ones((3, 6), "f4")
    data = np.zeros((1, 6, 16), "f4")
    data[0, :, :5] = w.T
    foreign = prepack.Packed("linear", data.reshape(-1), "panels16", (5, 6))
    text = str(kw.explain("linear", x, foreign.data, None, None, w_format="panels16", w_shape=(5, 6)))
    if "the weight is packed as panels16" in text:
        np.testing.assert_array_equal(np.asarray(kw.linear(x, foreign)), np.full((3, 5), 6.0))


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(DTypeError, match="takes no packed weights"):
        prepack.prepack("matmul", np.ones((2, 2), "f4"))
    with pytest.raises(DTypeError, match="the weight is int32"):
        prepack.prepack("linear", np.ones((2, 2), "i4"))
    with pytest.raises(ShapeError, match=r"its axes are \[out, in\]"):
        prepack.prepack("linear", np.ones(2, "f4"))


# --- bad input ----------------------------------------------------------------------------------------------

X, W, B = np.ones((3, 4), "f4"), np.ones((5, 4), "f4"), np.ones(5, "f4")
ODD = prepack.Packed("linear", np.ones(20, "f4"), "tiles", (5, 4))
SHORT = prepack.Packed("linear", np.ones(20, "f4"), "panels64", (5, 4))
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "inner lengths": ({"x": np.ones((3, 6), "f4")}, ShapeError, "which takes rows of 4"),
    "w turned": ({"w": W.T}, ShapeError, r"It fits when transposed: linear\(x, w.T\)"),
    "w of three axes": ({"w": np.ones((2, 5, 4), "f4")}, ShapeError, "with 3 axes, not two"),
    "0-D x": ({"x": np.ones((), "f4")}, ShapeError, "which takes rows of 4"),
    "b of another length": ({"b": np.ones(4, "f4")}, ShapeError, r"write b with the shape \(5,\)"),
    "b of two axes": ({"b": np.ones((1, 5), "f4")}, ShapeError, r"write b with the shape \(5,\)"),
    "residual": ({"residual": np.ones(5, "f4")}, ShapeError, r"np.broadcast_to\(residual, \(3, 5\)\)"),
    "dtypes": ({"b": np.ones(5, "f8")}, DTypeError, "x is float32 but b is float64"),
    "integers": ({"x": X.astype("i4"), "w": W.astype("i4"), "b": None}, DTypeError, "got int32"),
    "activation": ({"activation": "rellu"}, ConfigError, "'rellu' is no activation"),
    "activation's type": ({"activation": ["relu"]}, ConfigError, "is no activation"),
    "no w": ({"w": None}, DTypeError, "w (must be a kernelwright Array|is None)"),
    "list": ({"x": [[1.0]]}, DTypeError, "x must be a kernelwright Array"),
    "out": ({"out": np.ones((3, 4), "f4")}, ShapeError, "out has shape"),
    "out is x": ({"w": np.ones((4, 4), "f4"), "b": None, "out": X}, OverlapError, "shares memory with x"),
    "out is residual": ({"residual": (r := np.ones((3, 5), "f4")), "out": r}, OverlapError, "with residual"),
    "a format": ({"w": ODD}, ConfigError, "w_format is 'tiles'"),
    "a packed length": ({"w": SHORT}, ShapeError, "1-D with 256"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_written(name: str) -> None:
    change, error, text = BAD[name]
    call = {"x": X, "w": W, "b": B, **change}
    before = [array.copy() for array in (X, W, B)]
    for out in (np.full((3, 5), 7.0, "f4"), None):
        given = {"out": out, **call}
        with pytest.raises(error, match=text):
            kw.linear(**given)
        assert out is None or (out == 7.0).all()
    for array, old in zip((X, W, B), before, strict=True):
        np.testing.assert_array_equal(array, old)


# --- controls -----------------------------------------------------------------------------------------------

LAYOUT = plain(2)
CONTROL = Problem((9,), 70, 33, LAYOUT, LAYOUT, plain(1), LAYOUT, LAYOUT, "float32", "gelu")


def in_numpy(mistake: str) -> Any:
    """linear in float32 with one mistake."""

    def linear(x: Any, w: Any, b: Any, activation: Any, *, residual: Any, out: Any) -> None:
        y = x @ w.T
        if mistake == "sums in 16 bits":
            y = y.astype(np.float16).astype(y.dtype)
        if mistake == "residual after the activation":
            out[...] = activations.reference(activation, y + b) + residual
            return
        y = y + (0 if mistake == "no residual" else residual)
        y = y + (np.roll(b, 1) if mistake == "bias of the next column" else b)
        other = "gelu_tanh" if mistake == "another activation" else activation
        out[...] = activations.reference(other, y)
        if mistake == "last column left out":
            out[:, -1] = np.nan

    return linear


def test_the_definition_itself_passes() -> None:
    assert what_is_wrong(CONTROL, in_numpy("none")) is None


@pytest.mark.parametrize(
    "mistake",
    [
        *("sums in 16 bits", "residual after the activation", "no residual", "bias of the next column"),
        *("another activation", "last column left out"),
    ],
)
def test_a_mistake_is_found(mistake: str) -> None:
    assert what_is_wrong(CONTROL, in_numpy(mistake)) is not None


def test_bfloat16_summed_in_bfloat16_is_found() -> None:
    def linear(x: Any, w: Any, b: Any, activation: Any, *, residual: Any, out: Any) -> None:
        total = np.zeros(out.shape, BF16)
        for k in range(x.shape[1]):
            total = (total + np.multiply.outer(x[:, k], w[:, k])).astype(BF16)
        out[...] = total + b

    # Of one sign, so that sums grow past the terms.
    problem = replace(CONTROL, dtype="bfloat16", activation=None, residual=None, k=3000, positive=True)
    assert what_is_wrong(problem) is None
    assert what_is_wrong(problem, linear) is not None


# --- the choice ---------------------------------------------------------------------------------------------


def test_few_rows_are_inner_products_and_many_are_packed() -> None:
    def chosen(m: int) -> str:
        specs = TensorSpec((m, 1024), "float32"), TensorSpec((1024, 1024), "float32"), None, None
        kernel = kw.explain("linear", *specs).choice.kernel
        assert kernel is not None
        return kernel.name

    assert chosen(1) == "dots"
    assert chosen(1024) == "panels"


def test_rows_of_a_batch_are_one_matrix_where_one_stride_serves_them() -> None:
    from kernelwright.kernels.matmul.cpu_numba_linear import call_of
    from kernelwright.kernels.op import ABSENT

    w = TensorSpec((5, 7), "float32")

    def batch(x: TensorSpec) -> tuple[int, int]:
        (y,) = LINEAR.infer((x, w, ABSENT, ABSENT), **LINEAR.complete({}))
        e = call_of((x, w, ABSENT, ABSENT, y), None, False)
        return e.g.batch, e.g.m

    assert batch(TensorSpec((2, 3, 7), "float32")) == (1, 6)
    assert batch(TensorSpec((7,), "float32")) == (1, 1)
    apart = TensorSpec.of(np.zeros((2, 6, 7), "f4")[:, ::2])
    assert batch(apart) == (1, 6)
    assert batch(TensorSpec.of(np.zeros((2, 5, 7), "f4")[:, :3])) == (2, 3)


def test_one_row_by_a_large_weight_is_shared_and_by_a_small_one_is_not() -> None:
    tasks = {}
    for n in (64, 4096):
        weight = kw.array(np.ones((n, 512), np.float32))
        with kw.using(threads=2):
            f = kw.compile(lambda x, weight=weight: kw.linear(x, weight))
            f(kw.array(np.ones((1, 512), np.float32)))
        tasks[n] = [step.most_tasks for step in f.plan._runs._steps]
    assert tasks == {64: [1], 4096: [2]}
