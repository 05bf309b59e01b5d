"""The store: what was announced stays, several writers get on, and no file is ever destroyed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kernelwright.bench.compare.result import Comparison, Duel, Side
from kernelwright.bench.compare.verdict import Kind, Verdict
from kernelwright.bench.problems import select
from kernelwright.bench.store import MachineKey, Run, Store, StoreError, opening, owner, schema
from kernelwright.bench.store import database as databases


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "deep" / "results.sqlite")


@pytest.fixture
def run(made_up_run: Run) -> Run:
    """Started a moment ago."""
    made_up_run.started = databases.now()
    return made_up_run


def empty(run: Run, **more: object) -> Run:
    return Run.from_json({**run.to_json(), "results": [], "id": "", "status": "running", **more})


def leave(store: Store, run: Run, cases: int, key: str = "key") -> int:
    """A run that its process left after some cases, by dying."""
    id_ = store.begin(empty(run), key)
    for case in run.results[:cases]:
        assert store.add_case(id_, case)
    store._db.execute("UPDATE runs SET owner = ? WHERE id = ?", (f"{owner.computer()} 4194999 1", id_))
    return id_


def test_a_run_comes_back_as_it_went_in(store: Store, run: Run) -> None:
    begun = empty(run)
    id_ = store.begin(begun, "key", Path("x.json"))
    for case in run.results:
        assert store.add_case(id_, case)
    begun.results, begun.status = list(run.results), "complete"
    store.finish(id_, begun)
    with Store.open(store.path) as again:
        assert again.run(id_) == begun
        assert again.run_id(begun.id) == id_


def test_a_case_is_kept_once_and_the_first_stays(store: Store, run: Run) -> None:
    id_ = store.begin(empty(run), "key")
    assert store.add_case(id_, run.results[0])
    changed = run.results[0]
    changed.message = "another"
    assert not store.add_case(id_, changed)
    assert [case.message for case in store.run(id_).results] == [""]


def test_what_add_case_wrote_another_connection_reads_at_once(store: Store, run: Run) -> None:
    id_ = store.begin(empty(run), "key")
    with Store.open(store.path, read_only=True) as reader:
        for count, case in enumerate(run.results[:5], start=1):
            store.add_case(id_, case)
            assert len(reader.run(id_).results) == count


def test_columns_say_what_the_document_says(store: Store, run: Run) -> None:
    store.add_run(run)
    rows = store._db.execute(
        "SELECT problem, op, dtype, threads, cache, kernel, status, ours_s, ratio, baseline FROM cases"
        " ORDER BY id"
    ).fetchall()
    assert len(rows) == len(run.results)
    for row, case in zip(rows, run.results, strict=True):
        race = case.headline
        assert row == (
            *(case.problem.name, case.problem.op, case.problem.dtype, case.threads, case.cache, case.kernel),
            *(case.status, case.seconds, race and race.ratio.value, race and race.baseline),
        )


def test_an_unfinished_run_is_found_by_what_was_asked_for(store: Store, run: Run) -> None:
    id_ = leave(store, run, 3)
    found = store.unfinished("key")
    assert found is not None
    assert found.id == id_
    assert [case.key for case in found.run.results] == [case.key for case in run.results[:3]]
    assert store.unfinished("another key") is None
    assert store.take_up(found)
    assert not store.take_up(found), "it is being written now"
    assert store.unfinished("key") is None


def test_a_run_whose_process_lives_is_left_alone(store: Store, run: Run) -> None:
    store.begin(empty(run), "key")
    assert store.unfinished("key") is None
    store.begin(empty(run), "key")
    statuses = {status for (status,) in store._db.execute("SELECT status FROM runs")}
    assert statuses == {"running"}


def test_a_run_is_no_longer_taken_up_after_a_day(store: Store, run: Run) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1, minutes=1)).isoformat(timespec="seconds")
    run.started = yesterday
    leave(store, run, 3)
    assert store.unfinished("key") is None


def test_beginning_anew_gives_up_what_was_left(store: Store, run: Run) -> None:
    leave(store, run, 3)
    id_ = store.begin(empty(run), "key")
    store.finish(id_, run)
    assert store.unfinished("key") is None


def test_finished_and_interrupted_runs(store: Store, run: Run) -> None:
    first = store.begin(empty(run), "key")
    run.status = "complete"
    store.finish(first, run)
    assert store.unfinished("key") is None
    second = store.begin(empty(run), "key")
    run.status = "interrupted"
    store.finish(second, run)
    found = store.unfinished("key")
    assert found is not None
    assert found.id == second
    assert len(found.run.results) == len(run.results), "finish keeps what add_case did not"


def test_a_process_of_another_computer_is_believed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = owner.this_process()
    assert owner.alive(mine, None)
    assert not owner.alive(mine + "9", None), "the number went to a later process"
    monkeypatch.setattr(owner, "computer", lambda: "elsewhere")
    assert owner.alive(mine, databases.now())
    assert not owner.alive(mine, (datetime.now(UTC) - timedelta(hours=1)).isoformat())


WRITER = """
import sys
from pathlib import Path
from kernelwright.bench.store import Run, Store
path, document, name = sys.argv[1:]
run = Run.load(Path(document))
cases, run.results, run.id, run.status = run.results, [], name, "running"
print("ready", flush=True)
sys.stdin.read(1)
with Store.open(Path(path)) as store:
    id_ = store.begin(run, name)
    for _ in range(4):
        for case in cases:
            case.asked += "x"
            assert store.add_case(id_, case)
    run.status = "complete"
    store.finish(id_, run)
"""


def test_several_processes_write_at_once(run: Run, tmp_path: Path) -> None:
    """They also all find no file at first, and make the tables together."""
    document = tmp_path / "run.json"
    run.save(document)
    words = [sys.executable, "-c", WRITER, str(tmp_path / "results.sqlite"), str(document)]
    writers = [
        subprocess.Popen([*words, f"writer-{i}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("x")
    assert [writer.returncode for writer in writers] == [0] * 4
    with Store.open(tmp_path / "results.sqlite") as store:
        for i in range(4):
            id_ = store.run_id(f"writer-{i}")
            assert id_ is not None
            assert len(store.run(id_).results) == 4 * len(run.results)


@pytest.mark.parametrize("how", ["text", "middle", "cut"])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(store: Store, run: Run, how: str) -> None:
    store.add_run(run)
    store.close()
    path = store.path
    whole = path.read_bytes()
    damaged = {
        "text": b"these are no results, but they are somebody's. " * 50,
        "middle": whole[:5000] + b"\x5a" * 3000 + whole[8000:],
        "cut": whole[: len(whole) // 2],
    }[how]
    path.write_bytes(damaged)
    with Store.open(path) as again:
        (note,) = again.notes
        assert again.problems() == []
        assert again.add_run(run) == (len(run.results), 0)
    (aside,) = path.parent.glob("results.sqlite.damaged-*")
    assert str(aside) in note
    assert aside.read_bytes() == damaged
    with Store.open(path) as fine:
        assert fine.notes == []


def test_a_newer_schema_is_refused_and_left_as_it_is(store: Store) -> None:
    store.close()
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"has schema 99, this version of kernelwright knows 1.*update"):
            Store.open(store.path, read_only=read_only)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE photos (name TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="of some other program"):
        Store.open(path)
    assert path.read_bytes() == before


def test_an_older_store_is_taken_through_the_steps_it_lacks(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_run(run)
    store.close()
    step = ("ALTER TABLE runs ADD COLUMN remark TEXT", "UPDATE runs SET remark = 'old'")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    with Store.open(store.path) as newer:
        assert newer._db.execute("SELECT remark FROM runs").fetchall() == [("old",)]
        assert newer._db.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)


def test_a_step_that_fails_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    step = ("ALTER TABLE runs ADD COLUMN remark TEXT", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
        with pytest.raises(StoreError, match="nowhere"):
            Store.open(store.path)
    with Store.open(store.path) as as_before:
        columns = [row[1] for row in as_before._db.execute("PRAGMA table_info(runs)")]
        assert "remark" not in columns


def test_on_a_network_file_system_there_is_no_write_ahead_log(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "file_system", lambda folder: "nfs4")
    with Store.open(tmp_path / "r.sqlite") as store:
        (note,) = store.notes
        assert "network file system (nfs4)" in note
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert store.add_run(run) == (len(run.results), 0)


def test_a_place_that_can_not_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"can't be used \(File exists\): write --store PATH"):
        Store.open(tmp_path / "file" / "r.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"can't be used .*--store PATH"):
        Store.open(tmp_path / "folder")
    with pytest.raises(StoreError, match="there is no store"):
        Store.open(tmp_path / "none.sqlite", read_only=True)


def test_a_busy_store_ends_in_a_sentence(store: Store, run: Run) -> None:
    store._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked"):
        store.add_run(run)
    other.execute("ROLLBACK")
    assert store.add_run(run)[0] == len(run.results)


def test_the_variable_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(databases.VARIABLE, str(tmp_path / "mine.sqlite"))
    with Store.open() as store:
        assert store.path == tmp_path / "mine.sqlite"
    assert databases.store_path(Path("told")) == Path("told")


def test_machines_are_told_apart_by_what_moves_a_time() -> None:
    machine = {"cpu": "X", "cores": 2, "simd": "AVX2", "vector_bytes": 32, "host": "a", "load_average": 1.0}
    versions = {"python": "3.11.4", "kernelwright": "0.1", "numpy": "2.1", "torch": None}
    key = MachineKey.of(machine, versions)
    assert key.text == "X, 2 cores, AVX2 in 32 bytes, python 3.11, numpy 2.1"
    alike = ({**machine, "host": "b", "load_average": 0.0}, {**versions, "kernelwright": "0.2"})
    assert MachineKey.of(*alike) == key
    others = [
        ({**machine, "cores": 4}, versions),
        ({**machine, "cpu": "Y"}, versions),
        ({**machine, "vector_bytes": 16}, versions),
        ({**machine, "gpu": "H100", "driver": "560"}, versions),
        (machine, {**versions, "numpy": "2.2"}),
        (machine, {**versions, "torch": "2.6"}),
    ]
    digests = {MachineKey.of(*other).digest for other in others}
    assert len(digests) == len(others)
    assert key.digest not in digests
    assert len(MachineKey.here().digest) == 12


def test_comparisons_come_back_with_their_verdicts(store: Store) -> None:
    (problem,) = select(problem="square-64").problems
    verdict = Verdict(Kind.SLOWER, 1.2, 1.1, 1.3, 0.05, 0.99, 30, 1e-6)
    duel = Duel(problem, 1, a=Side(kernel="a"), b=Side(kernel="b"), verdict=verdict)
    comparison = Comparison({"what": "a"}, {"what": "b"}, databases.now(), suite="quick", results=[duel])
    assert store.add_comparison(comparison)
    assert not store.add_comparison(comparison), "the same one"
    assert store.comparisons() == [comparison]
    rows = store._db.execute("SELECT problem, threads, kind, ratio FROM verdicts").fetchall()
    assert rows == [("square-64", 1, "slower", 1.2)]


def test_points_are_found_by_what_is_asked(store: Store, run: Run) -> None:
    store.add_run(run)
    fresh = {**run.versions, "numpy": "9.9"}
    later = empty(run, started="2035-01-02T03:04:05+00:00", finished=None, versions=fresh, results=[])
    later.results = run.results
    store.add_run(later)
    name = "square-64"
    points = store.points(name)
    assert [point.threads for point in points] == [1, 2, 1, 2]
    assert len({point.machine for point in points}) == 2
    case = next(c for c in run.results if c.problem.name == name)
    race = case.headline
    assert race is not None
    assert (points[0].ours_s, points[0].baseline) == (case.seconds, race.baseline)
    assert (points[0].ratio, points[0].theirs_s) == (race.ratio.value, race.theirs_s)
    assert (points[0].revision, points[0].dirty) == (run.git["commit"], True)
    other = next(r for r in case.races if r is not race)
    (point,) = store.points(name, threads=1, baseline=other.baseline, machine="numpy 9.9")
    assert (point.ours_s, point.theirs_s) == (other.ours_s, other.theirs_s)
    assert store.points(name, machine=point.machine[:6], kernel="packed", cache="warm")
    assert store.points(name, kernel="pack") == []
    assert store.points(name, cache="cold") == []
    assert store.points(name, baseline="nobody") == []
    assert len(store.points("square-*")) > len(points)
    assert name in store.problems()


def test_kernels_timed_alone_have_points_without_a_vendor(store: Store, run: Run) -> None:
    case = run.results[0]
    case.races = case.races[:1]
    case.races[0].baseline = "itself"
    run.results = [case]
    store.add_run(run)
    (point,) = store.points(case.problem.name)
    assert point.ours_s == case.seconds
    assert (point.baseline, point.ratio, point.disturbed) == (None, None, False)
