"""A matmul call reduced to sizes and strides, which kernel runs it and why, and that it always runs alike."""

from __future__ import annotations

import mmap
import sys
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from matmul_calls import PATHS, Problem, bound, built_in, label, problems

import kernelwright as kw
from kernelwright.kernels import registry
from kernelwright.kernels.accuracy import Truth, budget
from kernelwright.kernels.cpu import cycles
from kernelwright.kernels.dispatch import Choice, choose
from kernelwright.kernels.errors import NoKernelError
from kernelwright.kernels.matmul.geometry import Geometry, geometry
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.settings import Settings

Specs = tuple[TensorSpec, ...]


def spec(array: np.ndarray) -> TensorSpec:
    return TensorSpec.of(array)


def specs_of(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> Specs:
    inputs = (spec(a), spec(b))
    return (*inputs, *(MATMUL.infer(inputs) if out is None else (spec(out),)))


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, "f4")


# --- geometry -----------------------------------------------------------------------------------------------


def by_geometry(g: Geometry, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """C = A B by nothing but what a geometry says, byte by byte."""
    first, second = (b, a) if g.swapped else (a, b)

    def matrix(base: np.ndarray, at: int, rows: int, columns: int, rs: int, cs: int) -> np.ndarray:
        whole, start = memory_of(base)
        return np.ndarray((rows, columns), base.dtype, whole, start + at, (rs, cs))

    for p in range(g.batch):
        at = g.table[p] if g.table is not None else (p * g.a_bs, p * g.b_bs, p * g.c_bs)
        x = matrix(first, int(at[0]), g.m, g.k, g.a_rs, g.a_cs)
        y = matrix(second, int(at[1]), g.k, g.n, g.b_rs, g.b_cs)
        matrix(c, int(at[2]), g.m, g.n, g.c_rs, g.c_cs)[...] = x @ y


def memory_of(array: np.ndarray) -> tuple[Any, int]:
    """The buffer that an array is a view of, and where in it the array begins."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    return base, array.ctypes.data - base.ctypes.data


@settings(max_examples=300)
@given(problems(contents=("whole",), most_work=10**5))
def test_a_geometry_says_all_that_there_is_to_a_call(problem: Problem) -> None:
    a, b = problem.inputs(np.random.default_rng(problem.seed))
    (expected,) = MATMUL.infer((spec(a), spec(b)))
    out = problem.out(expected)
    # A buffer of bytes, so that no step that a geometry takes is outside what NumPy will view.
    room = np.zeros(sum(abs(s) * n for s, n in zip(out.strides, out.shape, strict=True)) + 64, np.uint8)
    c: np.ndarray = np.ndarray(out.shape, out.np_dtype, room, 0, out.strides)
    if not c.size or not problem.k:
        return
    by_geometry(geometry((spec(a), spec(b), out)), a, b, c)
    np.testing.assert_array_equal(c, a @ b)


def test_a_result_with_contiguous_columns_is_computed_transposed() -> None:
    a, b, out = f32(5, 7), f32(7, 9), np.zeros((9, 5), "f4").T
    g = geometry(specs_of(a, b, out))
    assert g.swapped
    assert (g.m, g.n, g.k) == (9, 5, 7)
    assert (g.c_rs, g.c_cs) == (20, 4)
    assert (g.a_rs, g.a_cs) == (4, 36), "b, transposed"
    assert (g.b_rs, g.b_cs) == (4, 28), "a, transposed"
    assert not geometry(specs_of(a, b)).swapped


@pytest.mark.parametrize(
    ("a", "b", "sizes"),
    [
        ((7,), (7,), (1, 1, 7)),
        ((7,), (7, 9), (1, 9, 7)),
        ((5, 7), (7,), (1, 5, 7)),  # one column: as a row, transposed
        ((5, 7), (7, 1), (1, 5, 7)),
        ((1, 7), (7, 9), (1, 9, 7)),
    ],
)
def test_a_thin_result_is_contiguous_along_its_rows(
    a: tuple[int, ...], b: tuple[int, ...], sizes: tuple[int, int, int]
) -> None:
    g = geometry(specs_of(f32(*a), f32(*b)))
    assert (g.m, g.n, g.k) == sizes
    assert g.c_cs == 4


def test_batches_are_one_step_where_they_can_be() -> None:
    g = geometry(specs_of(f32(2, 3, 5, 7), f32(2, 3, 7, 9)))
    assert (g.batch, g.a_bs, g.b_bs, g.c_bs) == (6, 140, 252, 180)
    assert g.table is None
    g = geometry(specs_of(f32(2, 3, 5, 7), f32(7, 9)))
    assert (g.batch, g.a_bs, g.b_bs, g.table) == (6, 140, 0, None)
    g = geometry(specs_of(f32(1, 1, 5, 7), f32(1, 7, 9)))
    assert (g.batch, g.a_bs, g.b_bs, g.table) == (1, 0, 0, None)
    g = geometry(specs_of(f32(6, 5, 7)[::-2], f32(7, 9)))
    assert (g.batch, g.a_bs, g.table) == (3, -280, None)


def test_batches_are_a_table_of_offsets_where_one_step_does_not_do() -> None:
    g = geometry(specs_of(f32(2, 1, 5, 7), f32(3, 7, 9)))
    assert g.table is not None
    assert g.table.dtype == np.int64
    assert g.table.flags.c_contiguous
    assert g.table.tolist() == [[140 * i, 252 * j, 180 * (3 * i + j), 0] for i in range(2) for j in range(3)]
    turned = geometry(specs_of(f32(2, 1, 5, 7), f32(3, 7, 9), np.zeros((2, 3, 9, 5), "f4").swapaxes(2, 3)))
    assert turned.swapped
    assert turned.table is not None
    assert turned.table.tolist() == [[b, a, c, 0] for a, b, c, _ in g.table.tolist()], (
        "a and b have changed places"
    )


def test_a_length_of_one_hides_no_contiguous_matrix() -> None:
    strange = np.lib.stride_tricks.as_strided(f32(100), (1, 7), (360, 4))
    g = geometry(specs_of(strange, f32(7, 9)))
    assert (g.a_rs, g.a_cs) == (28, 4)
    column = f32(7, 30)[:, 3:4]
    g = geometry(specs_of(f32(5, 7), column, f32(5, 8)[:, :1]))
    assert (g.m, g.n, g.b_cs, g.b_rs, g.c_cs) == (5, 1, 4, 120, 4)
    assert not g.swapped


# --- reasons ------------------------------------------------------------------------------------------------

ROWS, COLUMNS = f32(64, 64), np.zeros((64, 64), "f4").T
REASONS = [
    ("tiny", (f32(64, 64), f32(64, 64), f32(64, 64)), None),
    ("tiny", (f32(500, 500), f32(500, 500), f32(500, 500)), "multiply-adds"),
    ("tiny", (f32(64), f32(64, 64), f32(64)), "takes matrices, not vectors or batches"),
    ("tiny", (f32(2, 8, 8), f32(8, 8), f32(2, 8, 8)), "takes matrices, not vectors or batches"),
    ("tiny", (COLUMNS, ROWS, ROWS), "contiguous and apart from each other, which those of a are not"),
    ("tiny", (ROWS, COLUMNS, ROWS), "which those of b are not"),
    ("tiny", (ROWS, ROWS, COLUMNS), "which those of out are not"),
    ("tiny", (np.broadcast_to(f32(64), (64, 64)), ROWS, ROWS), "which those of a are not"),
    ("tiny", (ROWS[::-1], ROWS, ROWS), "which those of a are not"),
    ("batched", (COLUMNS, COLUMNS, ROWS), None),
    ("batched", (f32(3, 8, 64), f32(64, 8), f32(3, 8, 8)), None),
    ("batched", (f32(8, 2000), f32(2000, 2000), f32(8, 2000)), "takes at most"),
    ("batched", (f32(3000, 8).T, f32(3000, 8), f32(8, 8)), "up to 2,048 long, not 3000"),
    ("packed", (COLUMNS[::-1, ::-2], ROWS[::2, ::-1], COLUMNS), None),
    ("packed", (f32(3), f32(3), f32()), None),
    ("direct", (COLUMNS, ROWS, ROWS), None),
    ("direct", (ROWS, COLUMNS, ROWS), "reads b by vectors along the result's rows"),
    ("direct", (ROWS, COLUMNS, COLUMNS), "reads a by vectors along the result's rows"),
    ("direct", (COLUMNS, COLUMNS, COLUMNS), None),
    ("stream", (ROWS, ROWS[:, ::-1], ROWS), "reads b by vectors along the result's rows"),
    ("stream", (ROWS[:, ::2], ROWS[::2], ROWS), None),
    ("dots", (ROWS, COLUMNS, ROWS), None),
    ("dots", (COLUMNS, COLUMNS, ROWS), "reads rows of a by vectors, and they are not contiguous along k"),
    ("dots", (ROWS, ROWS, COLUMNS), "reads columns of b by vectors"),
]


@pytest.mark.parametrize(("name", "arrays", "reason"), REASONS)
def test_a_kernel_says_why_it_cannot_run_a_call(
    name: str, arrays: tuple[np.ndarray, ...], reason: str | None
) -> None:
    specs = specs_of(*arrays)
    found = built_in(name).why_not(specs, {})
    assert found is None if reason is None else found is not None and reason in found, found
    with kw.using(backend=f"matmul/cpu_numba/{name}", strict=True):
        if reason is None:
            assert choose(MATMUL, specs).kernel is built_in(name)
        else:
            with pytest.raises(NoKernelError) as refusal:
                kw.matmul(*arrays[:2], out=specs[2].empty())
            assert reason in str(refusal.value)


@pytest.mark.parametrize("name", PATHS)
def test_other_dtypes_are_a_reason(name: str) -> None:
    halves = (TensorSpec((8, 8), "float16"),) * 3
    assert built_in(name).why_not(halves, {}) == "takes float32 or float64, not float16"


# --- the choice ---------------------------------------------------------------------------------------------


def chosen(specs: Specs, threads: int = 1) -> Choice:
    return choose(MATMUL, specs, settings=Settings(threads))


def matrices(
    m: int, k: int, n: int, *, turn_a: bool = False, turn_b: bool = False, dtype: str = "float32"
) -> Specs:
    """Specs of a call on row-major operands, or turned ones, that need not exist."""
    size = np.dtype(dtype).itemsize
    return (
        TensorSpec((m, k), dtype, layout=(size, m * size) if turn_a else None),
        TensorSpec((k, n), dtype, layout=(size, k * size) if turn_b else None),
        TensorSpec((m, n), dtype),
    )


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("call", "names"),
    [
        ((8, 8, 8, False, False), {"tiny"}),
        ((30, 20, 40, False, False), {"tiny"}),
        ((1024, 1024, 1024, False, False), {"packed"}),
        ((1024, 1024, 1024, True, True), {"packed"}),
        ((3000, 2000, 500, False, True), {"packed"}),
        ((1, 2048, 2048, False, False), {"stream"}),
        ((1, 4096, 4096, False, True), {"dots"}),
        ((2048, 2048, 1, False, False), {"dots"}),
        ((4, 4096, 4096, False, True), {"dots"}),
        # Strips: everything but going through packed blocks of an operand that is used once.
        ((4, 2048, 2048, False, False), {"stream", "direct"}),
        ((2048, 2048, 4, False, False), {"dots", "direct", "packed"}),
    ],
)
def test_the_shape_of_a_call_decides_which_path_it_takes(
    call: tuple[int, int, int, bool, bool], names: set[str], dtype: str
) -> None:
    *sizes, turn_a, turn_b = call
    for threads in (1, 2):
        found = chosen(matrices(*sizes, turn_a=turn_a, turn_b=turn_b, dtype=dtype), threads)
        assert found.kernel is not None
        assert found.kernel.name in names
        assert found.fallback is None


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "sizes", [(512, 512, 512), (4, 4096, 1024), (4096, 1024, 3), (100, 100, 100), (1, 5000, 7)]
)
def test_the_choice_is_what_the_model_predicts_to_be_fastest(sizes: tuple[int, int, int]) -> None:
    specs = matrices(*sizes)
    found = chosen(specs)
    predictions = {
        (name, label(config)): built_in(name).predict(specs, {}, config, 1)
        for name in PATHS[1:]
        if built_in(name).why_not(specs, {}) is None
        for config in built_in(name).configurations(specs, {}, 1)
    }
    assert found.kernel is not None
    if found.kernel.name == "tiny":
        assert "rank 1, the highest" in found.why
        return
    best = min(predictions.values())  # type: ignore[type-var]
    assert predictions[found.kernel.name, label(found.config)] == best
    assert "fastest of" in found.why
    assert "predicted" in found.why


def test_a_call_is_explained_with_every_candidate() -> None:
    text = str(kw.explain(kw.matmul, f32(300, 200), COLUMNS_300))
    for name in PATHS:
        assert f"matmul/cpu_numba/{name}" in text
    assert "matmul(a: f32[300,200]@cpu, b: f32[200,300; 4,800]@cpu) -> f32[300,300]@cpu" in text
    assert f"{2 * 300 * 200 * 300:,} FLOP" in text
    assert "runs matmul/cpu_numba/" in text
    assert "reads b by vectors along the result's rows" in text, "the reason of those that cannot"
    assert sum(line.lstrip().startswith(">") for line in text.splitlines()) == 1
    assert any(unit in text for unit in (" us", " ms")), "predicted times"


COLUMNS_300 = np.zeros((300, 200), "f4").T


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_models_are_finite_and_positive_for_every_configuration(dtype: str, threads: int) -> None:
    rng = np.random.default_rng(threads)
    sizes = [(0, 5, 3), (4, 0, 3), (1, 1, 1), (1, 300, 1), (7, 5000, 3), (4096, 4096, 4096), (200_000, 64, 2)]
    sizes += [tuple(2 ** rng.integers(0, 12, 3)) for _ in range(20)]  # type: ignore[misc]
    for m, k, n in sizes:
        for turn_b in (False, True):
            specs = matrices(int(m), int(k), int(n), turn_b=turn_b, dtype=dtype)
            for name in PATHS[1:]:
                kernel = built_in(name)
                for config in kernel.configurations(specs, {}, threads):
                    seconds = kernel.predict(specs, {}, config, threads)
                    assert seconds is not None, (name, config, specs)
                    assert 0 < seconds < inf, (name, config, specs)


def test_models_grow_with_the_work() -> None:
    for name in PATHS[1:]:
        kernel = built_in(name)
        config = kernel.configurations(matrices(64, 64, 64), {}, 1)[0]
        times = [kernel.predict(matrices(n, n, n), {}, config, 1) or 0.0 for n in (16, 64, 256, 1024)]
        assert times == sorted(times), name
        assert times[-1] > 1000 * times[0] / 4, name
    assert cycles.seconds(cycles.CLOCK_HZ) == 1


# --- threads ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_thread_gets_work")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PATHS)
def test_the_number_of_threads_changes_no_more_than_rounding(name: str, dtype: str) -> None:
    kernel = built_in(name)
    rng = np.random.default_rng(0)
    for m, k, n in ((37, 130, 41), (5, 70, 64), (64, 33, 5)):
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        config = kernel.configurations(specs_of(a, b), {}, 1)[0]
        results = []
        for threads in (1, 2, 3, 1, 2, 3):
            out = np.full((m, n), np.nan, dtype)
            with kw.using(threads=threads):
                bound(kernel, config)(a, b, out)
            results.append(out)
        for first, again in zip(results[:3], results[3:], strict=True):
            assert np.array_equal(first, again), "the same bits with the same number of threads"
        (scale,) = Truth.of(MATMUL, (a, b)).scales
        for other in results[1:3]:
            apart = np.linalg.norm(other.astype("f8") - results[0]) / np.linalg.norm(scale)
            assert apart <= budget(dtype, k)


def test_a_large_call_gives_the_same_bits_every_time() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((400, 300)).astype("f4"), rng.standard_normal((300, 500)).astype("f4")
    for threads in (1, 2):
        with kw.using(threads=threads):
            first = np.asarray(kw.matmul(a, b))
            assert all(np.array_equal(first, np.asarray(kw.matmul(a, b))) for _ in range(5))


# --- far away -----------------------------------------------------------------------------------------------

FAR = 5 << 29  # bytes: 2.5 GiB, beyond what 32 bits hold with and without a sign
needs_sparse_memory = pytest.mark.skipif(
    sys.platform != "linux",
    reason="waits for memory that costs nothing until it is touched elsewhere than on Linux",
)


def far(rows: int, columns: int, dtype: str) -> np.ndarray:
    """A matrix whose rows lie 2.5 GiB apart; only the pages that are touched take memory."""
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # its value on Linux; Python 3.13 names it
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    area = mmap.mmap(-1, (rows - 1) * FAR + (1 << 20), flags=flags)
    return np.ndarray((rows, columns), dtype, area, 4096, (FAR, np.dtype(dtype).itemsize))


@needs_sparse_memory
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PATHS)
def test_rows_beyond_the_reach_of_32_bits_are_found(name: str, dtype: str) -> None:
    kernel, ran = built_in(name), 0
    rng = np.random.default_rng(0)
    n = 37
    near = rng.integers(-8, 9, (3, n)).astype(dtype)
    square = rng.integers(-8, 9, (n, n)).astype(dtype)
    x = far(3, n, dtype)
    x[...] = near
    out = far(3, n, dtype)
    cases = [
        ("a", x, square, np.empty((3, n), dtype)),
        ("a reversed", x[::-1], square, np.empty((3, n), dtype)),
        ("b", np.ascontiguousarray(near.T), x, np.empty((n, n), dtype)),
        ("b reversed", np.ascontiguousarray(near.T), x[::-1], np.empty((n, n), dtype)),
        ("a transposed", x.T, near, np.empty((n, n), dtype)),
        ("b transposed", square, x.T, np.empty((n, 3), dtype)),
        ("out", near, square, out),
        ("out transposed", square, near.T, out.T),
        ("all", x, square, out),
        ("batch of a", x[:, None, :], square, np.empty((3, 1, n), dtype)),
        ("batch of rows", x[:, None, :], x[None, :, :, None], out[None, :, None, :1]),
    ]
    for what, a, b, c in cases:
        specs = specs_of(a, b, c)
        if MATMUL.infer(specs[:2])[0].shape != c.shape:
            raise AssertionError(what)
        if kernel.why_not(specs, {}) is not None:
            continue
        for config in kernel.configurations(specs, {}, 1):
            c[...] = np.nan
            bound(kernel, config)(a, b, c)
            np.testing.assert_array_equal(c, np.asarray(a) @ np.asarray(b), err_msg=f"{what} {label(config)}")
            ran += 1
    assert ran >= 2
    np.testing.assert_array_equal(x, near)


@needs_sparse_memory
def test_what_is_chosen_for_a_far_call_is_right() -> None:
    x = far(2, 100, "float32")
    x[...] = np.arange(200).reshape(2, 100) % 7
    expected = np.ascontiguousarray(x) @ np.ascontiguousarray(x).T
    np.testing.assert_array_equal(np.asarray(kw.asarray(x) @ kw.asarray(x).T), expected)
    out = far(2, 2, "float32")
    np.testing.assert_array_equal(np.asarray(kw.matmul(x, x.T, out=out)), expected)
    np.testing.assert_array_equal(out, expected)


def test_the_suite_knows_every_built_in_kernel() -> None:
    ids = {kernel.id for kernel in registry.kernels_for("matmul") if "/cpu_numba/" in kernel.id}
    assert ids == {f"matmul/cpu_numba/{name}" for name in PATHS}
