"""What the bench tests share: a clock that tests turn by hand, and a run with made-up times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from kernelwright.bench.compare.result import Comparison, Duel, Round, Side
from kernelwright.bench.compare.verdict import Kind, Verdict
from kernelwright.bench.machine import Roof
from kernelwright.bench.problems import get_suite
from kernelwright.bench.store import Case, RaceRecord, Run
from kernelwright.kernels import registry


@dataclass
class FakeProbe:
    """A clock that moves only when told, with disturbances at will.

    `spinning` is how many more pauses the process will look busy, `idle_s` how long it was off the cores,
    `waited_s` how long its threads waited for one: None is a system that does not count.
    """

    time: float = 0.0
    switched: int = 0
    stolen_s: float = 0.0
    spinning: int | None = 0
    chain: Callable[[], float] = lambda: 25e-6
    step_s: float = 1e-8
    idle_s: float = 0.0
    waited_s: float | None = None
    faulted: int = 0
    others_s: float | None = 0.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def step(self) -> float:
        return self.step_s

    def cpu(self) -> float:
        return self.time - self.idle_s

    def waited(self) -> float | None:
        return self.waited_s

    def faults(self) -> int:
        return self.faulted

    def others(self) -> float | None:
        return self.others_s

    def busy_threads(self) -> int | None:
        return self.spinning

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds
        if self.spinning:
            self.spinning -= 1

    def switches(self) -> int:
        return self.switched

    def stolen(self) -> float:
        return self.stolen_s

    def calibrate(self) -> float:
        return self.chain()


@pytest.fixture(autouse=True)
def store_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes on with another's run, or leaves its own in the user's store."""
    monkeypatch.setenv("KERNELWRIGHT_STORE", str(tmp_path / "kernelwright-results" / "results.sqlite"))


@pytest.fixture(autouse=True)
def no_kernels_left_behind(tmp_path: Path) -> Iterator[None]:
    """Takes out the kernels of files that a test wrote: two tests' files may claim the same rank."""
    yield
    for kernel in registry.registered():
        if Path(kernel.source_file).is_relative_to(tmp_path):
            registry.unregister(kernel)


@pytest.fixture
def fake_probe() -> FakeProbe:
    return FakeProbe()


@pytest.fixture(scope="session")
def documents() -> Callable[[], tuple[Run, Comparison]]:
    """What makes a run and a comparison with invented times, for fixtures that live longer than a test."""

    def make() -> tuple[Run, Comparison]:
        run = make_run()
        return run, make_comparison(run)

    return make


@pytest.fixture
def made_up_comparison(made_up_run: Run) -> Comparison:
    """Four duels of the quick suite."""
    return make_comparison(made_up_run)


@pytest.fixture
def made_up_run() -> Run:
    """The quick suite on 1 and 2 threads, with invented times; one case is wrong, one disturbed."""
    return make_run()


def make_run() -> Run:
    rng = np.random.default_rng(7)
    roof = Roof(
        fma={
            1: {"float32": 230e9, "float64": 115e9, "bfloat16": 460e9},
            2: {"float32": 450e9, "float64": 225e9, "bfloat16": 900e9},
        },
        read={
            1: {1 << 20: 160e9, 16 << 20: 29e9, 128 << 20: 21e9},
            2: {1 << 20: 300e9, 16 << 20: 58e9, 128 << 20: 38e9},
        },
        triad={1: 18e9, 2: 33e9},
        measured_at="2025-01-02T03:04:05+00:00",
    )
    run = Run(suite="quick", started="2025-01-02T03:04:05+00:00", command="kernelwright bench quick")
    run.status, run.finished, run.seconds = "complete", "2025-01-02T03:06:05+00:00", 120.0
    run.machine = {"cpu": "Imaginary CPU", "simd": "AVX-512", "cores": 2, "caches": {"l2": 2 << 20}}
    run.versions = {"python": "3.12.1", "kernelwright": "0.1.0", "numba": "0.61.0", "torch": None}
    run.git = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True}
    run.baselines = {"torch": "torch 2.6.0 (MKL 2024.2)", "numpy": "numpy 2.2.0 (openblas 0.3.28)"}
    run.roof = roof.to_json()
    run.left_out = {"big": "17.2 GFLOP is over the limit of 5 (--max-gflop)"}
    for problem in get_suite("quick").problems:
        for threads in (1, 2):
            run.results.append(_made_up_case(problem, threads, roof, rng))
    cases = {(case.problem.name, case.threads): case for case in run.results}
    for race in cases["square-512-f64", 1].races:
        race.noisy = 15
    wrong = cases["square-512-bf16", 2]
    wrong.status, wrong.message, wrong.races = (
        "wrong",
        "the relative error of the whole is 0.5 <b>&</b> more",
        [],
    )
    return run


def _made_up_case(problem, threads: int, roof: Roof, rng: np.random.Generator) -> Case:  # type: ignore[no-untyped-def]
    case = Case(
        problem, threads, "warm", kernel="matmul/cpu_numba/packed", config={"mc": 96}, why="predicted"
    )
    ceiling = roof.ceiling(problem.cost.flops, problem.cost.bytes, problem.footprint, problem.dtype, threads)
    assert ceiling is not None
    case.roof_s, case.bound = ceiling.seconds, ceiling.bound
    case.error, case.budget, case.first_call_s = 2.1e-8, 1e-6, 0.4
    base = ceiling.seconds / rng.uniform(0.5, 0.9)
    for name, mean in (("torch", rng.normal(0.04, 0.12)), ("numpy", rng.normal(0.3, 0.2))):
        ours = base * np.exp(rng.normal(0, 0.02, 20))
        theirs = ours * np.exp(mean + rng.normal(0, 0.03, 20))
        record = RaceRecord(
            name, ours.tolist(), theirs.tolist(), (10, 12), {"switches": 2}, 0, (5, 4), 2.4e-8
        )
        case.races.append(record)
    case.reproduce = f"kernelwright bench quick --problem {problem.name} --threads {threads}"
    return case


def make_comparison(run: Run) -> Comparison:
    """Four duels: same, slower, one where B is wrong, and one that was not timed."""
    problems = [case.problem for case in run.results if case.threads == 1][:4]
    same = Verdict(Kind.SAME, 1.004, 0.99, 1.02, 0.05, 0.99, 30, 0.9)
    slower = Verdict(Kind.SLOWER, 1.21, 1.15, 1.3, 0.05, 0.99, 30, 1e-6)
    rounds = [Round([(1e-3, 1.2e-3)] * 6, [(1e-3, 1e-3)] * 6)]
    duels = [
        Duel(problems[0], 1, rounds=rounds, verdict=same, control=same, reproduce="kernelwright compare a b"),
        Duel(problems[1], 1, rounds=rounds, verdict=slower, control=same),
        Duel(problems[2], 1, b=Side(status="wrong", message="off by 0.5 | <b>")),
        Duel(problems[3], 1),
    ]
    return Comparison(
        {"text": "HEAD~1"}, {"text": "HEAD"}, "2025-01-02T03:04:05+00:00", suite="quick", results=duels
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"
