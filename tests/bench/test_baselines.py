"""The vendors: right results, the number of threads that was asked for, and all put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.baselines import Baseline, UnknownBaselineError, base, baselines, get_baseline
from kernelwright.bench.baselines.numpy_matmul import blas_threads
from kernelwright.bench.problems import Problem, select
from kernelwright.bench.runner import Request, Runner
from kernelwright.bench.timing import Lane, Timing

THERE = [b for b in baselines() if b.missing() is None and "matmul" in b.ops]
PROBLEMS = ["tiny-8-f64", "transposed-tatb-128", "batched-64x32x32x32", "batched-broadcast-16x64x256x256"]


def pairs() -> Iterator[Any]:
    """Each problem with each baseline that computes it."""
    for name in PROBLEMS:
        (problem,) = select(problem=name).problems
        for baseline in THERE:
            if baseline.unsupported(problem) is None:
                yield pytest.param(problem, baseline, id=f"{baseline.name} {name}")


@pytest.mark.parametrize(("problem", "baseline"), pairs())
def test_baselines_compute_matrix_products(problem: Problem, baseline: Baseline) -> None:
    inputs = problem.draw()
    with baseline.session(1):
        (found,) = baseline.lane(problem, [inputs]).compute()
    exact = np.matmul(*(x.astype(np.float64) for x in inputs))
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)


def test_numpys_blas_gets_the_threads_asked_for_and_its_own_back() -> None:
    from kernelwright.bench.baselines.numpy_matmul import _openblas

    control = _openblas()
    if control is None:
        pytest.skip("this NumPy is not linked with OpenBLAS")
    get, _ = control
    before = get()
    with blas_threads(1):
        assert get() == 1
        with blas_threads(2):
            assert get() == 2
        assert get() == 1
    assert get() == before


def test_torch_gets_the_threads_asked_for_and_its_settings_back() -> None:
    torch = pytest.importorskip("torch", reason="the torch baseline needs torch")
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    with get_baseline("torch").session(1):
        assert torch.get_num_threads() == 1
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.is_grad_enabled()
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()) == before


class NotThere(Baseline):
    """A library that nobody has."""

    name = "not-there"
    ops = ("matmul",)
    module = "surely_not_installed_anywhere"
    install = "pip install surely-not"

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        raise AssertionError("a missing baseline was used")
        yield

    def lane(self, problem: Problem, sets: Sequence[Any]) -> Lane:
        raise AssertionError("a missing baseline was used")


class Silent:
    def begin(self, *args: Any) -> None: ...

    def end(self, *args: Any) -> None: ...


class NoProbe:
    """Checking needs no clock."""


def test_a_baseline_that_is_not_installed_says_what_to_install_and_the_rest_runs() -> None:
    missing = NotThere()
    why = missing.missing()
    assert why is not None
    assert "pip install surely-not" in why
    request = Request(
        "all",
        select(problem="tiny-8").problems,
        baselines=(missing, get_baseline("numpy")),
        timing=Timing(),
        time_them=False,
    )
    (case,) = Runner(request, NoProbe()).cases(Silent())  # type: ignore[arg-type]
    assert case.status == "checked", case.message


def test_names_are_unique_and_unknown_ones_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownBaselineError, match=r"'nunpy'.*Did you mean 'numpy'\?"):
        get_baseline("nunpy")
    monkeypatch.setattr(base, "_BASELINES", dict(base._BASELINES))
    clash = NotThere()
    clash.name = "numpy"
    with pytest.raises(Exception, match="two baselines are called 'numpy'"):
        base.register(clash)
