"""A run that was cut short goes on where it stopped; nothing of another request gets into its document."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kernelwright.bench import session as sessions
from kernelwright.bench.cli import app
from kernelwright.bench.machine import Roof
from kernelwright.bench.session import Options, prepare
from kernelwright.bench.store import Run, Store, StoreError, owner
from kernelwright.bench.sweep import identity, keeping
from kernelwright.bench.timing import SystemProbe

ROOF = Roof({1: {"float32": 1e11, "float64": 5e10}}, {1: {1 << 20: 1e11, 1 << 27: 2e10}}, {1: 2e10}, "now")
CHECK = Options(problem="tiny-*", threads="1", check=True, kernel=["reference"], dtype="float32")


class Watcher:
    """Counts, and dies as a process would after so many cases: without a word to anybody."""

    def __init__(self, dies_after: int | None = None, error: type[BaseException] = SystemExit):
        self.ended, self.kept, self.words = 0, 0, ""
        self._dies_after, self._error = dies_after, error

    def begin(self, problem: Any, threads: int, cache: str) -> None:
        if self.ended == self._dies_after:
            raise self._error

    def end(self, case: Any) -> None:
        self.ended += 1

    def resume(self, kept: int, words: str) -> None:
        self.kept, self.words = kept, words


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sessions, "measured_roof", lambda *args, **more: ROOF)


def run(options: Options, watcher: Watcher) -> Run:
    return prepare(options).run(SystemProbe(), watcher, lambda text: None)


def die(options: Options, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose process is gone after some cases."""
    gone = f"{owner.computer()} 4194999 1"
    with monkeypatch.context() as patch:
        patch.setattr("kernelwright.bench.store.database.this_process", lambda: gone)
        with pytest.raises(SystemExit):
            run(options, Watcher(after))


def test_a_killed_run_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    die(CHECK, 2, monkeypatch)
    (document,) = Path("kernelwright-results").glob("*.json")
    watcher = Watcher()
    whole = run(CHECK, watcher)
    assert (watcher.kept, watcher.ended) == (2, 4)
    assert watcher.words.startswith("resuming: 2 of 6 cases kept from 20")
    assert whole.status == "complete"
    assert len(whole.resumed) == 1
    assert [case.problem.name for case in whole.results] == [
        p.name for p in prepare(CHECK).selection.problems
    ]
    assert Run.load(document) == whole, "the interrupted run's own document is finished"
    assert list(Path("kernelwright-results").glob("*.json")) == [document]


def test_a_run_killed_again_and_again_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for after in (1, 0, 2):
        die(CHECK, after, monkeypatch)
    watcher = Watcher()
    whole = run(CHECK, watcher)
    assert (watcher.kept, watcher.ended) == (3, 3)
    assert len(whole.resumed) == 3
    assert len({case.key for case in whole.results}) == 6


def test_after_ctrl_c_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(CHECK, Watcher(3, KeyboardInterrupt)).status == "interrupted"
    watcher = Watcher()
    assert run(CHECK, watcher).status == "complete"
    assert watcher.kept == 3


def test_a_complete_run_is_measured_again() -> None:
    run(CHECK, Watcher())
    watcher = Watcher()
    run(CHECK, watcher)
    assert (watcher.kept, watcher.ended) == (0, 6)


def test_fresh_starts_anew_and_the_old_one_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    die(CHECK, 2, monkeypatch)
    watcher = Watcher()
    run(replace(CHECK, fresh=True), watcher)
    assert (watcher.kept, watcher.ended) == (0, 6)
    run(CHECK, watcher := Watcher())
    assert watcher.kept == 0


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float64"},
        {"problem": "tiny-8*"},
        {"kernel": ()},
        {"check": False, "no_vendor": True, "problem": "tiny-8", "quick": True},
    ],
)
def test_another_request_is_no_continuation(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    die(CHECK, 2, monkeypatch)
    watcher = Watcher(0, KeyboardInterrupt)
    run(replace(CHECK, **change), watcher)
    assert watcher.kept == 0
    run(CHECK, watcher := Watcher(0, KeyboardInterrupt))
    assert watcher.kept == 2, "the first request's is still there"


def test_changed_sources_or_machines_are_no_continuation(monkeypatch: pytest.MonkeyPatch) -> None:
    die(CHECK, 2, monkeypatch)
    for name, other in (
        ("kernelwright.bench.sweep.identity.sources_digest", lambda: "other"),
        ("kernelwright.bench.session.git_state", lambda: {"commit": "f" * 40, "dirty": False}),
        ("kernelwright.bench.session.versions", lambda: {"numpy": "0.1"}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(name, other)
            watcher = Watcher(0, KeyboardInterrupt)
            run(CHECK, watcher)
            assert watcher.kept == 0, name


def test_a_changed_kernel_file_is_no_continuation(tmp_path: Path) -> None:
    request, empty = prepare(CHECK).request, Run("all", "now")
    path = tmp_path / "mine.py"
    path.write_text("x = 1\n")
    (contender,) = request.contenders
    mine = replace(request, contenders=(replace(contender, argument=str(path)),))
    before = identity.request_key(mine, empty)
    assert identity.request_key(mine, empty) == before
    path.write_text("x = 2\n")
    assert identity.request_key(mine, empty) != before


def test_the_document_is_written_seldom_but_the_store_always(
    made_up_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n cases written after each other cost about 9 n, not n^2 / 2."""
    written: list[int] = []
    monkeypatch.setattr(Run, "save", lambda self, path: written.append(len(self.results)))
    empty = Run("all", "now")
    keeper = keeping.Keeper(
        empty, "key", Path("r.json"), chosen=True, store=Path("s.sqlite"), fresh=False, tell=print
    )
    case = made_up_run.results[0]
    for i in range(400):
        keeper.add(replace(case, threads=i))
        assert len(written) <= i + 2
    assert sum(written) < 9 * 400
    with Store.open(Path("s.sqlite"), read_only=True) as store:
        id_ = store.run_id(empty.id)
        assert id_ is not None
        assert len(store.run(id_).results) == 400


def test_without_a_store_the_run_goes_on_and_the_document_has_every_case() -> None:
    Path("file").write_text("")
    told: list[str] = []
    options = replace(CHECK, store=Path("file/store.sqlite"), json=Path("r.json"))
    seen: list[int] = []

    class Reader(Watcher):
        def end(self, case: Any) -> None:
            seen.append(len(Run.load(Path("r.json")).results))

    whole = prepare(options).run(SystemProbe(), Reader(), told.append)
    assert whole.status == "complete"
    assert seen == [1, 2, 3, 4, 5, 6]
    assert "can't be used" in told[0]
    assert "can't be resumed" in told[0]


def test_a_store_that_fails_on_the_way_costs_no_case(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def full(*args: object) -> bool:
        raise StoreError("the disk is full.")

    monkeypatch.setattr(Store, "add_case", full)
    options = replace(CHECK, json=Path("r.json"))
    whole = prepare(options).run(SystemProbe(), Watcher(), told.append)
    assert len(Run.load(Path("r.json")).results) == len(whole.results) == 6
    assert told == ["the disk is full. The run goes on; its cases are kept in r.json alone."]


def test_the_command_line_says_that_it_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["bench", "--problem", "tiny-*", "--dtype", "float32", "--threads", "1", "--check"]
    words += ["--kernel", "reference"]
    die(CHECK, 2, monkeypatch)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "resuming: 2 of 6 cases kept from 20" in result.output
    again = CliRunner().invoke(app, [*words, "--fresh"])
    assert "resuming" not in again.output
    document = json.loads(next(iter(sorted(Path("kernelwright-results").glob("*.json")))).read_text())
    assert len(document["results"]) == 6
