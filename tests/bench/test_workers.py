"""Workers as processes: real kernels, wrong ones, ones that crash, hang, print or leave."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kernelwright.bench.compare.contestant import Contestant
from kernelwright.bench.compare.duel import Entrant, Rules
from kernelwright.bench.compare.remote import Launch, Limits, Remote, WorkerLostError
from kernelwright.bench.compare.result import Comparison, Duel
from kernelwright.bench.compare.session import exit_code
from kernelwright.bench.compare.suite import Contest
from kernelwright.bench.compare.trees import present_launch
from kernelwright.bench.compare.verdict import Kind
from kernelwright.bench.compare.worker import PROTOCOL
from kernelwright.bench.problems import select
from kernelwright.bench.report.duels import print_comparison

# Plain loops in Python, so that nothing compiles; the pause is what is timed.
KERNEL = """
import os, signal, sys, time
import kernelwright as kw

def compute(a, b, out, pause):
    start = time.perf_counter()
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            out[i, j] = sum(float(x) * float(y) for x, y in zip(a[i], b[:, j]))
    while time.perf_counter() < start + pause:
        pass

def few(specs, attrs):
    fits = specs[0].ndim == 2 and max(specs[0].size, specs[1].size) <= 64
    return None if fits else "is for small matrices"

calls = []

@kw.kernel("matmul", dtypes=("float32",), name="mine", rank=-7, supports=few, binds=True,
           configs=[{"pause": 1.0}])
def mine(specs, attrs, config, threads):
    pause = 3e-4 * config["pause"]
    def launch(a, b, out):
        compute(a, b, out, pause)
        calls.append(1)
        BODY
    return launch
"""


def kernel_file(folder: Path, name: str, body: str = "pass") -> str:
    path = folder / f"{name}.py"
    path.write_text(KERNEL.replace("BODY", body))
    return str(path)


def compared(a: Contestant, b: Contestant, limits: Limits | None = None, **rules: Any) -> Comparison:
    problems = select(problem="tiny-8").problems
    comparison = Comparison({}, {}, results=[Duel(problem, 1) for problem in problems])
    launch = present_launch()
    sides = (Entrant(a, launch, {"text": "A"}), Entrant(b, launch, {"text": "B"}))
    # Pauses for a quiet moment are of no use beside other tests.
    given = {"processes": 2, "pairs": 6, "patience_s": 0.05} | rules
    return Contest(comparison, sides, Rules(limits=limits or Limits(), **given), seed=0).run()


def test_a_planted_slowdown_is_found_and_told(tmp_path: Path) -> None:
    path = kernel_file(tmp_path, "mine")
    found = compared(Contestant(path), Contestant(path, {"pause": 1.3}))
    (duel,) = found.results
    assert duel.verdict is not None, (duel.a, duel.b)
    assert duel.verdict.kind is Kind.SLOWER
    assert duel.verdict.ratio == pytest.approx(1.3, rel=0.1)
    assert (len(duel.rounds), len(duel.again)) == (2, 2)
    assert duel.b.config == {"pause": 1.3}
    assert duel.b.error is not None
    assert all(min(each.verified) >= 1 for each in duel.rounds)
    assert duel.b.first_call_s is not None
    console = Console(file=io.StringIO(), width=160)
    print_comparison(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "slower" in text
    assert "pause=1.3" in text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("out[0, 0] += len(calls) > 40", "wrong", "relative error"),
        ("out[0, 0] += a.shape[0] != 8", "wrong", "on the sample"),
        ("b[0, 0] = 0 * b[0, 0]", "wrong", "wrote"),
        ("raise ValueError('no luck')", "failed", "no luck"),
        ("sys.exit(3)", "failed", "SystemExit"),
        ("os._exit(3)", "failed", "ended with code 3"),
        (
            "print('about to die', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)",
            "failed",
            "was killed by SIGSEGV while it was to make its first call: about to die",
        ),
        (
            "print('stuck', file=sys.stderr, flush=True); time.sleep(60)",
            "failed",
            "did not answer in 4 s",
        ),
    ],
    ids=["later", "samples", "inputs", "raises", "exits", "leaves", "crashes", "hangs"],
)
def test_a_kernel_that_goes_wrong_is_told_and_not_timed(
    tmp_path: Path, body: str, status: str, words: str
) -> None:
    right, bad = kernel_file(tmp_path, "right"), kernel_file(tmp_path, "bad", body)
    found = compared(Contestant(right), Contestant(bad), Limits(prepare=4.0), pairs=2, processes=1)
    (duel,) = found.results
    assert (duel.b.status, duel.verdict) == (status, None), (duel.a, duel.b)
    assert words in duel.b.message
    assert duel.a.status == "ok"
    assert exit_code(found) == 4


@pytest.fixture
def worker() -> Any:
    remote = Remote(present_launch(), Limits(start=30, prepare=30))
    remote.start()
    yield remote
    remote.end()


def test_what_a_kernel_prints_is_no_answer(worker: Remote, tmp_path: Path) -> None:
    path = kernel_file(tmp_path, "prints", "print('{}'); os.write(1, b'{}\\n'); sys.stdin.read()")
    assert worker.ask("hello", timing={"min_batch_s": 1e-4, "unheard_of": 1})["protocol"] == PROTOCOL
    (problem,) = select(problem="tiny-8").problems
    prepare = {"problem": problem.to_json(), "threads": 1, "kernel": path, "config": {}, "inspect": False}
    reply = worker.ask("prepare", **prepare)
    assert (reply["status"], reply["kernel"]) == ("ok", "matmul/prints/mine")
    assert "{}" in worker.last_error_lines()


@pytest.mark.parametrize(
    ("kernel", "config", "words"),
    [
        ("matmul/cpu_numba/packed", {"unheard_of": 1}, "no configuration called 'unheard_of'"),
        ("no_such_kernel", {}, "no kernel of matmul"),
        ("/no/such/file.py", {}, "no Python file"),
        ("matmul/cpu_numba_16bit/pairs", {}, "takes"),
    ],
)
def test_a_contestant_that_cannot_play_says_why(
    worker: Remote, kernel: str, config: dict[str, Any], words: str
) -> None:
    worker.ask("hello")
    (problem,) = select(problem="tiny-8").problems
    prepare = {"problem": problem.to_json(), "threads": 1, "inspect": False}
    reply = worker.ask("prepare", **prepare, kernel=kernel, config=config)
    assert reply["status"] in ("failed", "unsupported")
    assert words in reply["error"]
    # It goes on working.
    assert "package" in worker.ask("hello")


def test_a_worker_lists_its_problems_and_refuses_what_it_does_not_know(worker: Remote) -> None:
    worker.ask("hello")
    names = [p["name"] for p in worker.ask("list", suite="quick", op="matmul")["problems"]]
    assert names == [p.name for p in select("quick", op="matmul").problems]
    assert "no suite" in worker.ask("list", suite="no-such-suite")["error"]
    assert "no request" in worker.ask("sing")["error"]
    assert "no problem is prepared" in worker.ask("time")["error"]


def test_a_module_that_is_no_worker_is_lost_with_its_last_words() -> None:
    remote = Remote(Launch(module="kernelwright.no_such_worker"))
    remote.start()
    remote.send("hello")
    with pytest.raises(WorkerLostError, match=r"ended with code 1 .* No module named"):
        remote.receive()
    remote.end()


def test_a_worker_ends_when_its_requests_do(worker: Remote) -> None:
    worker.ask("hello")
    process = worker._running
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(5) == 0


def test_an_answer_that_is_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "babbler.py").write_text("print('hello there')\nimport time; time.sleep(9)\n")
    remote = Remote(Launch(package=str(tmp_path), module="babbler"))
    remote.start()
    with pytest.raises(WorkerLostError, match="no JSON"):
        remote.receive(5)


def test_digests_tell_outputs_apart() -> None:
    import numpy as np

    from kernelwright.bench.compare.worker import digest

    a = np.arange(6, dtype=np.float32)
    assert digest((a,)) == digest((a.copy(),))
    assert len({digest((a,)), digest((a.reshape(2, 3),)), digest((a.view(np.int32),)), digest((a[:5],))}) == 4
    assert digest((a[::2],)) == digest((a[::2].copy(),))


def test_a_comparison_with_a_failed_side_survives_its_file(tmp_path: Path) -> None:
    bad = kernel_file(tmp_path, "bad", "raise ValueError('no luck')")
    found = compared(Contestant(bad), Contestant(bad), pairs=1, processes=1)
    found.save(tmp_path / "c.json")
    kept = Comparison.load(tmp_path / "c.json")
    assert kept.results == found.results
    assert json.loads((tmp_path / "c.json").read_text())["settings"]["processes"] == 1
