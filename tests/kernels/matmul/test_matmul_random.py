"""Matmul on random shapes, strides and dtypes: within the budget, beside NumPy, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from matmul_calls import (
    PATHS,
    Layout,
    Problem,
    bound,
    built_in,
    easy_layout,
    label,
    plain,
    problems,
    result_ndim,
    rows_apart,
    turned,
    what_is_wrong,
    why_not,
)

import kernelwright as kw
from kernelwright.kernels.errors import NoKernelError
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.settings import clear_memos


@settings(max_examples=2000)
@given(problems())
def test_two_thousand_random_products_are_right(problem: Problem) -> None:
    assert what_is_wrong(problem) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(1, 300, 1), (3, 100, 1), (4, 300, 4), (300, 300, 1), (1, 300, 100), (20, 300, 20), (150, 300, 150)],
)
def test_sums_of_positive_numbers_are_as_good_as_the_vendors(m: int, k: int, n: int, dtype: str) -> None:
    """Partial sums that only grow are rounded ever more coarsely, the more so the longer one sum runs."""
    layout = plain(2)
    problem = Problem((m, k), (k, n), layout, layout, layout, dtype, contents="positive")
    assert what_is_wrong(problem) is None
    turned_b = Problem((m, k), (k, n), layout, turned(2), layout, dtype, contents="positive")
    assert what_is_wrong(turned_b) is None


@settings(max_examples=200)
@given(problems(kinds=("matrices", "vectors", "batch"), contents=("positive",), most_work=10**6))
def test_sums_of_positive_numbers_are_within_the_budget(problem: Problem) -> None:
    assert what_is_wrong(problem, beside_vendor=False) is None


@pytest.mark.parametrize("name", PATHS)
def test_each_kernel_is_right_where_it_does_not_refuse(name: str) -> None:
    kernel, ran, refused = built_in(name), [], []
    kinds = ("matrices",) if name == "tiny" else ("matrices", "matrices", "batch")

    @settings(max_examples=150)
    @given(
        problems(
            kinds=kinds,
            layouts=rows_apart if name == "tiny" else easy_layout,
            outs=rows_apart if name == "tiny" else easy_layout,
            contents=("normal", "normal", "not finite"),
            most_work=10**6,
        )
    )
    def each(problem: Problem) -> None:
        reason = why_not(kernel, problem)
        with kw.using(backend=kernel.id, strict=True):
            if reason is None:
                # Without out, the layout of the result is another, which the kernel may refuse.
                def forced(a: object, b: object, out: object) -> object:
                    return kw.matmul(a, b, out=out)  # type: ignore[arg-type]

                assert what_is_wrong(problem, forced) is None
                ran.append(problem)
            else:
                refuse(problem, reason)
                refused.append(problem)

    each()
    assert len(ran) > 40, f"{name} ran only {len(ran)} problems"
    # What those two refuse is larger than these problems, or nothing.
    assert refused or name in ("packed", "batched")


def refuse(problem: Problem, reason: str) -> None:
    """Forcing a kernel on a call that it refuses shows its reason, unless there is nothing to compute."""
    a, b = problem.inputs(np.random.default_rng(0))
    (expected,) = MATMUL.infer((TensorSpec.of(a), TensorSpec.of(b)))
    out = problem.out(expected).empty()
    if not out.size:
        kw.matmul(a, b, out=out)
        return
    with pytest.raises(NoKernelError) as refusal:
        kw.matmul(a, b, out=out)
    assert reason in str(refusal.value)


def tile_of(config: dict[str, int], dtype: str) -> tuple[int, int, int]:
    """The rows, columns and inner length at whose multiples a configuration's loops turn over."""
    lanes = kw.kernels.machine.vector_bytes() // np.dtype(dtype).itemsize
    mr = config.get("mr", 12)
    if "depth" in config:
        return mr, lanes, config["depth"]
    if "nr" in config:
        return mr, config["nr"], lanes
    return mr, config.get("nv", 4) * lanes, 4


def around(*sizes: int) -> list[int]:
    return sorted({n for size in sizes for n in (size - 1, size, size + 1) if n > 0})


def edge_problems(config: dict[str, int], dtype: str, count: int) -> list[Problem]:
    """Problems one short of, at and one past the ends of a configuration's tiles and blocks."""
    mr, nr, kr = tile_of(config, dtype)
    rng = np.random.default_rng(sum(config.values()))
    some = {
        "m": around(1, mr // 2, mr, 2 * mr),
        "n": around(1, nr // 2, nr, 2 * nr),
        "k": around(1, kr, 2 * kr, 3 * kr),
    }
    # Past a block, in one direction at a time: these are large.
    blocks = [("m", config.get("mc", 0)), ("n", config.get("nc", 0)), ("k", config.get("kc", 512))]
    cases = []
    for place in range(count):
        sizes = {axis: int(rng.choice(lengths)) for axis, lengths in some.items()}
        axis, size = blocks[place % 6] if place % 6 < 3 else ("", 0)
        if size:
            sizes[axis] = size + int(rng.integers(-1, 2))
        m, k, n = sizes["m"], sizes["k"], sizes["n"]
        batch = (3,) if place % 5 == 4 else ()
        a, b = (*batch, m, k), (k, n) if place % 10 == 4 else (*batch, k, n)
        layouts = [plain, turned, lambda ndim: Layout(tuple(range(ndim)), (1,) * ndim, (5,) * ndim, 3)]
        # The kernels that read an operand in place need it along its rows; the others see every third turned.
        pick = [layouts[i] for i in ((0, 0, 0), (2, 2, 2), (2, 0, 1), (1, 0, 0), (0, 1, 0))[place % 5]]
        ndim = result_ndim(a, b)
        a_layout, b_layout, out_layout = pick[0](len(a)), pick[1](len(b)), pick[2](ndim)
        cases.append(Problem(a, b, a_layout, b_layout, out_layout, dtype, "normal", place, 1 + place % 3))
    return cases


@pytest.mark.usefixtures("every_thread_gets_work")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PATHS)
def test_every_configuration_is_right_at_the_ends_of_its_tiles_and_blocks(name: str, dtype: str) -> None:
    kernel = built_in(name)
    specs = (TensorSpec((64, 64), dtype),) * 3
    for config in kernel.configurations(specs, {}, 1):
        ran = 0
        for problem in edge_problems(config, dtype, 25):
            if why_not(kernel, problem) is not None:
                continue
            fault = what_is_wrong(problem, bound(kernel, config))
            assert fault is None, f"{name} {label(config)}: {fault}: {problem}"
            ran += 1
        assert ran >= 8, f"{name} {label(config)} ran only {ran} problems"


@pytest.mark.parametrize(("vector_bytes", "dtype"), [("16", "float32"), ("32", "float64")])
@pytest.mark.parametrize("name", PATHS)
def test_narrower_vectors_are_right(
    name: str, vector_bytes: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", vector_bytes)
    clear_memos()
    kernel = built_in(name)
    specs = (TensorSpec((64, 64), dtype),) * 3
    config = kernel.configurations(specs, {}, 1)[0]
    ran = 0
    for problem in edge_problems(config, dtype, 30):
        if why_not(kernel, problem) is None:
            fault = what_is_wrong(problem, bound(kernel, config))
            assert fault is None, f"{name} {label(config)}: {fault}: {problem}"
            ran += 1
    clear_memos()
    assert ran >= 8
