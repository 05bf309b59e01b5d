"""Sweeps over several machines: who measures what, what a lost worker costs, and that Ray does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kernelwright.bench.cli import app
from kernelwright.bench.problems import Problem
from kernelwright.bench.session import Options, prepare
from kernelwright.bench.store import Case, Store
from kernelwright.bench.sweep import ray_crew, spread
from kernelwright.bench.sweep.identity import sources_digest
from kernelwright.bench.sweep.spread import Event, Spread, SweepError
from kernelwright.bench.sweep.worker import describe
from kernelwright.kernels.errors import ConfigError

CHECK = Options(
    problem="tiny-?", threads="1", check=True, kernel=["reference"], dtype="float32", no_vendor=True
)


class Watcher:
    def begin(self, problem: Any, threads: int, cache: str) -> None:
        pass

    def end(self, case: Any) -> None:
        pass

    def resume(self, kept: int, words: str) -> None:
        pass


class Crew:
    """Workers that measure nothing. {name: (computer, how many problems it lives for, sources)}."""

    def __init__(self, workers: dict[str, tuple[str, int, str]]):
        self.workers, self.said = dict(workers), deque[Event]()
        self.given: list[tuple[str, str]] = []
        self.at_work: dict[str, str] = {}
        self.most_at_once: dict[str, int] = {}
        self.closed = False
        self._started = False

    @property
    def starting(self) -> int:
        return sum(event.word == "hello" for event in self.said)

    def grow(self) -> None:
        if self._started:
            return
        self._started = True
        for name, (computer, _, sources) in self.workers.items():
            hello = {"machine": {"cpu": computer, "host": computer}, "versions": {}, "computer": computer}
            self.said.append(Event(name, "hello", {**hello, "sources": sources}))

    def give(self, worker: str, order: dict[str, Any]) -> None:
        if "request" in order:
            self.said.append(Event(worker, "end", ""))
            return
        problem = Problem.from_json(order["problem"])
        self.given.append((worker, problem.name))
        computer, lives, sources = self.workers[worker]
        self.workers[worker] = (computer, lives - 1, sources)
        self.at_work[worker] = computer
        at_once = list(self.at_work.values()).count(computer)
        self.most_at_once[computer] = max(at_once, self.most_at_once.get(computer, 0))
        if lives == 0:
            self.said.append(Event(worker, "lost", "pulled the plug"))
            return
        case = Case(problem, 1, "warm", status="checked", asked="reference")
        self.said += [
            Event(worker, "begin", [1, "warm"]),
            Event(worker, "case", json.loads(json.dumps(case.to_json()))),
            Event(worker, "end", problem.name),
        ]

    def events(self, seconds: float) -> list[Event]:
        if not self.said:
            return []
        event = self.said.popleft()
        if event.word in ("end", "lost"):
            self.at_work.pop(event.worker, None)
        return [event]

    def dismiss(self, worker: str) -> None:
        del self.workers[worker]

    def close(self) -> None:
        self.closed = True


def sweep(crew: Crew, **more: Any) -> tuple[list[Case], list[str]]:
    told: list[str] = []
    met: dict[str, Any] = {}
    request = prepare(CHECK).request
    made = Spread(request, crew, sources="s", tell=told.append, met=met.__setitem__, **more)
    cases = list(made.cases(Watcher()))
    assert crew.closed
    assert {case.machine for case in cases} <= set(met)
    return cases, told


def test_every_problem_is_measured_once_wherever_there_is_room() -> None:
    crew = Crew({"a": ("one", 99, "s"), "b": ("two", 99, "s")})
    cases, _ = sweep(crew)
    assert sorted(case.problem.name for case in cases) == ["tiny-1", "tiny-2", "tiny-4", "tiny-8"]
    assert {worker for worker, _ in crew.given} == {"a", "b"}
    assert len({case.machine for case in cases}) == 2


def test_one_computer_measures_one_problem_at_a_time_unless_asked() -> None:
    workers = {"a": ("one", 99, "s"), "b": ("one", 99, "s")}
    crew = Crew(workers)
    sweep(crew)
    assert crew.most_at_once == {"one": 1}
    crew = Crew(workers)
    sweep(crew, per_computer=2)
    assert crew.most_at_once == {"one": 2}


def test_the_problem_of_a_lost_worker_goes_to_another() -> None:
    crew = Crew({"a": ("one", 1, "s"), "b": ("two", 99, "s")})
    cases, told = sweep(crew)
    assert sorted(case.problem.name for case in cases) == ["tiny-1", "tiny-2", "tiny-4", "tiny-8"]
    assert all(case.status == "checked" for case in cases)
    assert "worker a is lost: pulled the plug" in told
    lost = [name for worker, name in crew.given if worker == "a"][-1]
    assert ("b", lost) in crew.given


def test_a_problem_over_which_every_worker_is_lost_fails_at_last() -> None:
    crew = Crew({name: (name, 0, "s") for name in "abc"} | {"d": ("d", 99, "s")})
    crew.workers["d"] = ("d", 99, "other")
    with pytest.raises(SweepError, match="no worker can serve this run: its kernelwright has sources other"):
        sweep(crew)
    killers = Crew({name: (name, 0, "s") for name in "abc"})
    request = prepare(Options(**{**CHECK.__dict__, "problem": "tiny-8"})).request
    made = Spread(request, killers, sources="s", tell=print, met=lambda *args: None)
    (case,) = made.cases(Watcher())
    assert case.status == "failed"
    assert "3 workers were lost over it, the last on c: pulled the plug" in case.message
    assert [worker for worker, _ in killers.given] == ["a", "b", "c"]


def test_a_worker_with_other_sources_is_sent_away() -> None:
    crew = Crew({"a": ("one", 99, "other"), "b": ("two", 99, "s")})
    _, told = sweep(crew)
    assert {worker for worker, _ in crew.given} == {"b"}
    assert any("a is not used: its kernelwright has sources other, here they are s" in line for line in told)


def test_what_is_done_is_not_handed_out() -> None:
    done = frozenset(prepare(CHECK).request.order[:3])
    crew = Crew({"a": ("one", 99, "s")})
    cases, _ = sweep(crew, done=done)
    assert [case.problem.name for case in cases] == ["tiny-8"]


def test_without_any_worker_it_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "PATIENCE_S", 0.0)
    crew = Crew({})
    with pytest.raises(SweepError, match="4 problems are left; the same command again goes on"):
        sweep(crew)


def test_the_worker_measures_what_it_is_given_and_ends_with_its_stdin(tmp_path: Path) -> None:
    """It answers in lines even if a kernel prints."""
    kernel = tmp_path / "loud.py"
    kernel.write_text(
        "import kernelwright as kw, numpy as np\n"
        "@kw.kernel('matmul', rank=-9, binds=True, language='numpy')\n"
        "def loud(specs, attrs, config, threads):\n"
        "    def launch(a, b, out):\n"
        "        print('I am loud', flush=True)\n"
        "        np.matmul(a, b, out=out)\n"
        "    return launch\n"
    )
    request = prepare(
        Options(problem="tiny-8", threads="1", check=True, kernel=[str(kernel)], dtype="float32")
    ).request
    orders = [{"request": describe(request)}, {"problem": request.problems[0].to_json(), "done": []}]
    worker = subprocess.Popen(
        [sys.executable, "-m", "kernelwright.bench.sweep.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    kernel.unlink()  # the worker may be on another machine
    assert worker.stdin is not None
    assert worker.stdout is not None
    said = []
    for order in [None, *orders]:
        if order is not None:
            worker.stdin.write(json.dumps(order) + "\n")
            worker.stdin.flush()
        while True:
            ((word, value),) = json.loads(worker.stdout.readline()).items()
            said.append(word)
            if word == "hello":
                assert value["sources"] == sources_digest()
            if word == "case":
                case = Case.from_json(value)
                assert (case.status, case.kernel) == ("checked", "matmul/loud/loud"), case.message
                assert str(kernel) in case.reproduce
            if word in ("hello", "end", "refused"):
                break
    assert said == ["hello", "end", "begin", "case", "end"]
    worker.stdin.close()
    assert worker.wait(timeout=10) == 0


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "pip install 'kernelwright[ray]'"
    monkeypatch.setattr(ray_crew, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="which is not installed: pip install"):
        ray_crew.RayCrew()
    result = CliRunner().invoke(app, ["bench", "tiny", "--ray"])
    assert result.exit_code == 2
    assert f"--ray needs Ray, which is not installed: {why}." in result.output


def test_gpus_and_impossible_numbers_are_refused() -> None:
    for words, said in (
        (["--ray", "--device", "cuda"], "leave out --ray or --device cuda"),
        (["--ray-per-machine", "0"], "1 or more, not 0"),
    ):
        result = CliRunner().invoke(app, ["bench", "tiny", *words])
        assert result.exit_code == 2
        assert said in result.output


def test_a_cluster_goes_on_when_a_node_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of a cluster on this machine; one is killed when a first case has come in."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = pytest.importorskip("ray", reason="waits for the extra `ray`: pip install 'kernelwright[ray]'")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **small})
    try:
        second = [cluster.add_node(**small)]
        told: list[str] = []
        options = Options(**{**CHECK.__dict__, "ray": True, "ray_address": cluster.address})
        options = Options(**{**options.__dict__, "ray_per_machine": 2, "json": tmp_path / "r.json"})

        options = Options(**{**options.__dict__, "check": False, "quick": True, "problem": "tiny-*"})

        class Killer(Watcher):
            ended = begun = 0

            def begin(self, problem: Any, threads: int, cache: str) -> None:
                self.begun += 1
                # Both are at work: what the second has begun must be done again.
                if self.begun - self.ended == 2 and second:
                    cluster.remove_node(second.pop(), allow_graceful=False)

            def end(self, case: Any) -> None:
                self.ended += 1

        session = prepare(options)
        run = session.run(None, Killer(), told.append)  # type: ignore[arg-type]
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert run.status == "complete", told
    assert [case.problem.name for case in run.results] == [p.name for p in session.selection.problems]
    assert [case.status for case in run.results] == ["timed"] * 6
    assert {case.machine for case in run.results} == set(run.machines)
    assert any("is lost" in line for line in told), told
    with Store.open() as store:
        id_ = store.run_id(run.id)
        assert id_ is not None
        assert {case.key for case in store.run(id_).results} == {case.key for case in run.results}
