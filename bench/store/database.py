"""The store: every case, run and comparison of this machine and others, in one SQLite file.

A run's cases are kept as they are finished, each in a transaction of its own that is on the disk when
`add_case` returns. The JSON of a case is the document's, whole; a few of its figures are columns too, by
which it is found. Several processes may write at once: SQLite gives them turns.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..problems import Problem
from .document import Case, Run, compact
from .keys import MachineKey, digest_of
from .opening import open_file, open_to_read
from .owner import alive, this_process
from .schema import StoreError

if TYPE_CHECKING:  # it writes its documents with ours
    from ..compare.result import Comparison

VARIABLE = "KERNELWRIGHT_STORE"
USUAL = Path("kernelwright-results") / "results.sqlite"
RESUMED_FOR = timedelta(days=1)
RUNNING, INTERRUPTED, ABANDONED = "running", "interrupted", "abandoned"

# A kernel raced against its own copy has no vendor beside it; what such races are called in a case.
ITSELF, DISTURBED = "itself", "disturbed"

_POINTS = """
SELECT cases.problem, op, dtype, threads, cache, kernel, asked, cases.machine, machines.text AS machine_text,
    runs.revision, runs.dirty, measured, COALESCE(races.ours_s, cases.ours_s) AS ours_s, races.baseline,
    theirs_s, races.ratio, low, high, COALESCE(disturbed, 0) AS disturbed, runs.uid AS run
FROM cases
JOIN runs ON runs.id = cases.run
JOIN machines ON machines.key = cases.machine
LEFT JOIN races ON races.of_case = cases.id AND races.baseline = COALESCE(:baseline, cases.baseline)
WHERE cases.problem GLOB :problem AND cases.status = 'timed' AND cases.ours_s > 0
    AND (:threads IS NULL OR threads = :threads)
    AND (:cache IS NULL OR cache = :cache)
    AND (:baseline IS NULL OR races.baseline IS NOT NULL)
    AND (:kernel IS NULL OR kernel = :kernel OR kernel GLOB '*/' || :kernel)
    AND (:machine IS NULL OR cases.machine GLOB :machine || '*'
         OR instr(lower(machines.text), lower(:machine)))
ORDER BY measured, cases.id
"""


@dataclass(frozen=True)
class Unfinished:
    """A run that can be taken up where it stopped.

    Attributes:
        id: in the store.
        run: as far as it came.
        path: of its document; None when it has none.
    """

    id: int
    run: Run
    path: Path | None


@dataclass(frozen=True)
class Point:
    """One timed case, as the history of a problem shows it.

    Attributes:
        problem, op, dtype, threads, cache: what was computed and how.
        kernel, asked: the kernel that ran, and its id if it was asked for by name ("" when chosen).
        machine, machine_text: the digest of the machine's key, and what it stands for.
        revision, dirty: the commit that ran, and whether files differed from it; None when unknown.
        measured: when, UTC, ISO.
        ours_s: our median, seconds a call.
        baseline: the vendor beside it; None when ours ran alone, and then what follows is None too.
        theirs_s: its median.
        ratio, low, high: the vendor's time divided by ours, with its 95% interval.
        disturbed: other load spoiled the race.
        run: the run's uid.
    """

    problem: str
    op: str
    dtype: str
    threads: int
    cache: str
    kernel: str
    asked: str
    machine: str
    machine_text: str
    revision: str | None
    dirty: bool | None
    measured: str
    ours_s: float
    baseline: str | None
    theirs_s: float | None
    ratio: float | None
    low: float | None
    high: float | None
    disturbed: bool
    run: str


def store_path(path: Path | None = None) -> Path:
    """Where the store lies: what was asked for, else $KERNELWRIGHT_STORE, else beside the documents."""
    return path or Path(os.environ.get(VARIABLE) or USUAL)


class Store:
    """An open store. Use it in one thread; close it, or use it as a context.

    Attributes:
        path: of the file.
        notes: sentences that the user should read: a damaged file set aside, a slow file system.
    """

    def __init__(self, path: Path, db: sqlite3.Connection, notes: list[str]):
        self.path = path
        self.notes = notes
        self._db = db
        self._machines: dict[int, str] = {}

    @classmethod
    def open(cls, path: Path | None = None, *, read_only: bool = False) -> Store:
        """Opens a store, made when it is not there.

        Args:
            path: default as `store_path`.
            read_only: don't make one, change nothing.

        Raises:
            StoreError: it can't be opened, is another program's, or a newer kernelwright wrote it.
        """
        path = store_path(path)
        if read_only:
            return cls(path, open_to_read(path), [])
        db, notes = open_file(path)
        return cls(path, db, notes)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Runs and their cases ---------------------------------------------------------------------------------

    def begin(self, run: Run, key: str, document: Path | None = None) -> int:
        """Enters a run that this process is about to make; gives its id.

        Unfinished ones of the same request that no process works at are given up: they are not resumed.

        Args:
            run: without results yet.
            key: the digest of what was asked for; what `unfinished` looks for.
            document: where its JSON goes.
        """
        run.id = run.id or uuid4().hex
        with self._writing():
            for id_, _ in self._idle(key):
                self._db.execute("UPDATE runs SET status = ? WHERE id = ?", (ABANDONED, id_))
            return self._enter(run, key, RUNNING, this_process(), document)

    def add_case(self, run: int, case: Case, measured: str | None = None) -> bool:
        """Keeps a finished case; it is on the disk when this returns. False when it was there already.

        Args:
            run: the id that `begin` gave.
            case: the first one kept stays, if a case comes twice.
            measured: when, UTC, ISO; default now.
        """
        with self._writing():
            return self._add_case(run, case.to_json(), measured or now())

    def save_head(self, run_id: int, run: Run) -> None:
        """Keeps what is known of a run beside its cases: the roof, first calls, how long it took."""
        with self._writing():
            self._machines_of(run)
            self._db.execute("UPDATE runs SET head = ? WHERE id = ?", (compact(run.head_json()), run_id))

    def finish(self, run_id: int, run: Run) -> None:
        """Closes a run with the status that it has; cases of it that are not kept yet are kept now."""
        with self._writing():
            self._machines_of(run)
            for case in run.results:
                self._add_case(run_id, case.to_json(), now())
            self._db.execute(
                "UPDATE runs SET status = ?, owner = NULL, head = ? WHERE id = ?",
                (run.status, compact(run.head_json()), run_id),
            )

    def unfinished(self, key: str) -> Unfinished | None:
        """The latest run of a request that stopped before its end, less than a day old; None without one."""
        with self._reading():
            oldest = (datetime.now(UTC) - RESUMED_FOR).isoformat(timespec="seconds")
            found = [id_ for id_, started in self._idle(key) if started >= oldest]
            if not found:
                return None
            (path,) = self._db.execute("SELECT path FROM runs WHERE id = ?", (found[0],)).fetchone()
            return Unfinished(found[0], self.run(found[0]), path and Path(path))

    def take_up(self, found: Unfinished) -> bool:
        """Makes this process the writer of an unfinished run; False when another one was quicker."""
        with self._writing():
            row = self._db.execute(
                "SELECT owner, alive FROM runs WHERE id = ? AND status IN (?, ?)",
                (found.id, RUNNING, INTERRUPTED),
            ).fetchone()
            if row is None or alive(*row):
                return False
            self._db.execute(
                "UPDATE runs SET owner = ?, alive = ?, status = ? WHERE id = ?",
                (this_process(), now(), RUNNING, found.id),
            )
            return True

    def run(self, run_id: int) -> Run:
        """A run with the cases that are kept of it, as its document has them."""
        with self._reading():
            (head,) = self._db.execute("SELECT head FROM runs WHERE id = ?", (run_id,)).fetchone()
            rows = self._db.execute("SELECT record FROM cases WHERE run = ? ORDER BY id", (run_id,))
            results = [json.loads(record) for (record,) in rows]
        return Run.from_json({**json.loads(head), "results": results})

    def latest(self) -> int | None:
        """The id of the run that was begun last; None in an empty store."""
        with self._reading():
            id_: int | None = self._db.execute("SELECT max(id) FROM runs").fetchone()[0]
        return id_

    def run_id(self, uid: str) -> int | None:
        """The id of the run whose document carries `uid`; None when it is not here."""
        with self._reading():
            row = self._db.execute("SELECT id FROM runs WHERE uid = ?", (uid,)).fetchone()
        return row and int(row[0])

    def add_run(self, run: Run) -> tuple[int, int]:
        """Takes in a run from its document: how many of its cases are new, and how many were here."""
        uid = run.id or derived_uid(run)
        with self._writing():
            row = self._db.execute("SELECT id FROM runs WHERE uid = ?", (uid,)).fetchone()
            run_id = row[0] if row else self._enter(run, "", run.status, None, None, uid)
            measured = run.finished or run.started
            new = sum(self._add_case(run_id, case.to_json(), measured) for case in run.results)
        return new, len(run.results) - new

    # Comparisons ------------------------------------------------------------------------------------------

    def add_comparison(self, comparison: Comparison) -> bool:
        """Keeps a comparison with its verdicts; False when this one is here already."""
        record = comparison.to_json()
        with self._writing():
            return self._add_comparison(record)

    def comparisons(self) -> list[Comparison]:
        """All that are kept, in the order in which they came."""
        from ..compare.result import Comparison

        with self._reading():
            rows = self._db.execute("SELECT record FROM comparisons ORDER BY id").fetchall()
        return [Comparison.from_json(json.loads(record)) for (record,) in rows]

    # History ----------------------------------------------------------------------------------------------

    def points(
        self,
        problem: str,
        *,
        threads: int | None = None,
        kernel: str | None = None,
        machine: str | None = None,
        baseline: str | None = None,
        cache: str | None = None,
    ) -> list[Point]:
        """Every timed case of a problem, oldest first.

        Args:
            problem: its name, or a pattern such as `square-*`.
            threads, cache: keep these only.
            kernel: keep what this kernel ran: its id, or the end of it after a slash.
            machine: keep machines whose digest begins with this, or whose text has it in it.
            baseline: the ratio to this vendor; default the one that was fastest.
        """
        wanted = {"problem": problem, "threads": threads, "cache": cache, "baseline": baseline}
        with self._reading():
            cursor = self._db.execute(_POINTS, {**wanted, "kernel": kernel, "machine": machine})
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
        for row in rows:
            row["disturbed"] = bool(row["disturbed"])
            row["dirty"] = None if row["dirty"] is None else bool(row["dirty"])
        return [Point(**row) for row in rows]

    def problems(self) -> list[str]:
        """The names of all problems that were timed."""
        with self._reading():
            rows = self._db.execute("SELECT DISTINCT problem FROM cases WHERE ours_s > 0 ORDER BY problem")
            return [name for (name,) in rows]

    # Lines of an export (`transfer.py`) -------------------------------------------------------------------

    def rows(self) -> Iterator[dict[str, Any]]:
        """All that is kept, as records: each run before its cases."""
        with self._reading():
            runs = "SELECT id, uid, request, status, alive, path, head FROM runs ORDER BY id"
            for run_id, *rest in self._db.execute(runs).fetchall():
                names = ("uid", "request", "status", "alive", "path", "head")
                yield {"row": "run", **dict(zip(names, rest, strict=True)), "head": json.loads(rest[-1])}
                cases = "SELECT measured, record FROM cases WHERE run = ? ORDER BY id"
                for measured, record in self._db.execute(cases, (run_id,)):
                    yield {"row": "case", "uid": rest[0], "measured": measured, "record": json.loads(record)}
            for (record,) in self._db.execute("SELECT record FROM comparisons ORDER BY id"):
                yield {"row": "comparison", "record": json.loads(record)}

    def add_row(self, row: Mapping[str, Any]) -> bool:
        """Takes in one of `rows`; False when it is here already.

        Raises:
            StoreError: a case whose run is not here.
            KeyError, TypeError, ValueError: it is no such record.
        """
        with self._writing():
            if row["row"] == "comparison":
                return self._add_comparison(row["record"])
            found = self._db.execute("SELECT id FROM runs WHERE uid = ?", (row["uid"],)).fetchone()
            if row["row"] == "case":
                if found is None:
                    raise StoreError(f"a case of the run {row['uid']} comes before that run.")
                return self._add_case(found[0], row["record"], row["measured"], at_work=False)
            if row["row"] != "run":
                raise ValueError(f"rows are runs, cases or comparisons, not {row['row']!r}")
            if found is None:
                run = Run.from_json({**row["head"], "results": []})
                path = row["path"] and Path(row["path"])
                id_ = self._enter(run, row["request"], row["status"], None, path, row["uid"])
                self._db.execute("UPDATE runs SET alive = ? WHERE id = ?", (row["alive"], id_))
            return found is None

    # ------------------------------------------------------------------------------------------------------

    def _idle(self, key: str) -> list[tuple[int, str]]:
        """Unfinished runs of a request at which no process works: (id, started), the latest first."""
        rows = self._db.execute(
            "SELECT id, started, owner, alive FROM runs WHERE request = ? AND status IN (?, ?)"
            " ORDER BY id DESC",
            (key, RUNNING, INTERRUPTED),
        ).fetchall()
        return [(id_, started) for id_, started, owner, sign in rows if not alive(owner, sign)]

    def _enter(
        self,
        run: Run,
        key: str,
        status: str,
        owner: str | None,
        document: Path | None,
        uid: str | None = None,
    ) -> int:
        machine = self._machine(run.machine, run.versions)
        self._machines_of(run)
        dirty = run.git.get("dirty")
        values = (uid or run.id, key, run.suite, status, run.started, machine, run.git.get("commit"), dirty)
        path = None if document is None else str(document)
        done = self._db.execute(
            "INSERT INTO runs (uid, request, suite, status, started, machine, revision, dirty, owner, alive,"
            " path, head) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, owner, now(), path, compact(run.head_json())),
        )
        assert done.lastrowid is not None
        return done.lastrowid

    def _machines_of(self, run: Run) -> None:
        for each in run.machines.values():
            self._machine(**each)

    def _machine(self, machine: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
        key = MachineKey.of(machine, versions)
        facts = compact({"machine": machine, "versions": versions})
        self._db.execute("INSERT OR IGNORE INTO machines VALUES (?, ?, ?)", (key.digest, key.text, facts))
        return key.digest

    def _add_case(self, run: int, case: Mapping[str, Any], measured: str, at_work: bool = True) -> bool:
        """`at_work`: whether it is a sign that somebody measures just now."""
        if run not in self._machines:
            row = self._db.execute("SELECT machine FROM runs WHERE id = ?", (run,)).fetchone()
            if row is None:
                raise StoreError(f"the store {self.path} has no run {run}.")
            self._machines[run] = row[0]
        machine = case.get("machine") or self._machines[run]
        problem = Problem.from_json(case["problem"])
        races = [race for race in case["races"] if race["baseline"] != ITSELF]
        first = min(races, key=lambda race: (race["verdict"] == DISTURBED, race["theirs_s"]), default=None)
        names = ("threads", "cache", "asked", "kernel", "status")
        done = self._db.execute(
            "INSERT OR IGNORE INTO cases (run, problem, op, dtype, threads, cache, asked, kernel, status,"
            " ours_s, ratio, baseline, machine, measured, record)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(run, problem.name, problem.op, problem.dtype),
                *(case[name] for name in names),
                case.get("seconds"),
                *((first["ratio"], first["baseline"]) if first else (None, None)),
                *(machine, measured, compact(case)),
            ),
        )
        if not done.rowcount:
            return False
        for race in races:
            figures = ("baseline", "ours_s", "theirs_s", "ratio", "low", "high")
            values = (done.lastrowid, *(race[name] for name in figures), race["verdict"] == DISTURBED)
            self._db.execute("INSERT INTO races VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        if at_work:
            self._db.execute("UPDATE runs SET alive = ? WHERE id = ?", (now(), run))
        return True

    def _add_comparison(self, record: Mapping[str, Any]) -> bool:
        machine = self._machine(record["machine"], record["versions"])
        text = compact(record)
        names = ("suite", "started", "status", "void")
        done = self._db.execute(
            "INSERT OR IGNORE INTO comparisons (uid, suite, started, status, void, machine, revision, record)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (digest_of(text), *(record[n] for n in names), machine, record["git"].get("commit"), text),
        )
        if not done.rowcount:
            return False
        for duel in record["results"]:
            problem, verdict = Problem.from_json(duel["problem"]), duel["verdict"] or {}
            figures = (verdict.get(name) for name in ("kind", "ratio", "low", "high", "threshold", "p"))
            values = (problem.name, problem.op, problem.dtype, duel["threads"], duel["cache"])
            self._db.execute(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (done.lastrowid, *values, *figures),
            )
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction: all of it or nothing."""
        with self._reading():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} can't be used: {error}.") from None


def derived_uid(run: Run) -> str:
    """A name for a run whose document, an older one, carries none: the same whenever it is read."""
    return "document-" + digest_of(
        [run.suite, run.started, run.command, run.machine.get("host"), run.settings]
    )


def now() -> str:
    """This moment, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
