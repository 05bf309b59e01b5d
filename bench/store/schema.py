"""The store's tables, and the steps from each version of them to the next.

`PRAGMA user_version` counts the steps that a file has been through. A step, once released, is never changed:
what has to be different is a further step.
"""

from __future__ import annotations

import sqlite3

from ...kernels.errors import KernelwrightError

# "KWRS" in the file's header: tells a store from an SQLite database that belongs to some other program.
APPLICATION = 0x4B575253

# Columns repeat what the JSON beside them says, as far as something is looked up or drawn by it.
FIRST = (
    # facts: {"machine": ..., "versions": ...} of the first result from there.
    "CREATE TABLE machines (key TEXT PRIMARY KEY, text TEXT NOT NULL, facts TEXT NOT NULL)",
    # request: digest of what was asked for, on which machine, of which sources; what a resumed run looks for.
    # owner: the process that writes it; NULL when none does. alive: its last sign of life.
    # head: the run's document without its cases. path: where that document goes.
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        uid TEXT NOT NULL UNIQUE,
        request TEXT NOT NULL,
        suite TEXT NOT NULL,
        status TEXT NOT NULL,
        started TEXT NOT NULL,
        machine TEXT NOT NULL REFERENCES machines(key),
        revision TEXT,
        dirty INTEGER,
        owner TEXT,
        alive TEXT,
        path TEXT,
        head TEXT NOT NULL)""",
    "CREATE INDEX runs_by_request ON runs(request, started)",
    # ours_s: our median; ratio: the fastest vendor's time divided by ours; both NULL when not timed.
    """CREATE TABLE cases (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs(id),
        problem TEXT NOT NULL,
        op TEXT NOT NULL,
        dtype TEXT NOT NULL,
        threads INTEGER NOT NULL,
        cache TEXT NOT NULL,
        asked TEXT NOT NULL,
        kernel TEXT NOT NULL,
        status TEXT NOT NULL,
        ours_s REAL,
        ratio REAL,
        baseline TEXT,
        machine TEXT NOT NULL REFERENCES machines(key),
        measured TEXT NOT NULL,
        record TEXT NOT NULL,
        UNIQUE (run, problem, threads, cache, asked))""",
    "CREATE INDEX cases_by_problem ON cases(problem, threads)",
    """CREATE TABLE races (
        of_case INTEGER NOT NULL REFERENCES cases(id),
        baseline TEXT NOT NULL,
        ours_s REAL NOT NULL,
        theirs_s REAL NOT NULL,
        ratio REAL NOT NULL,
        low REAL,
        high REAL,
        disturbed INTEGER NOT NULL)""",
    "CREATE INDEX races_by_case ON races(of_case)",
    """CREATE TABLE comparisons (
        id INTEGER PRIMARY KEY,
        uid TEXT NOT NULL UNIQUE,
        suite TEXT NOT NULL,
        started TEXT NOT NULL,
        status TEXT NOT NULL,
        void TEXT,
        machine TEXT NOT NULL REFERENCES machines(key),
        revision TEXT,
        record TEXT NOT NULL)""",
    """CREATE TABLE verdicts (
        comparison INTEGER NOT NULL REFERENCES comparisons(id),
        problem TEXT NOT NULL,
        op TEXT NOT NULL,
        dtype TEXT NOT NULL,
        threads INTEGER NOT NULL,
        cache TEXT NOT NULL,
        kind TEXT,
        ratio REAL,
        low REAL,
        high REAL,
        threshold REAL,
        p REAL)""",
    "CREATE INDEX verdicts_by_problem ON verdicts(problem, threads)",
)
MIGRATIONS: tuple[tuple[str, ...], ...] = (FIRST,)


class StoreError(KernelwrightError, ValueError):
    """The store can't be opened, read or written; the text says what to do."""


def migrate(db: sqlite3.Connection, path: object) -> None:
    """Takes a file to this version's tables, all steps or none.

    Raises:
        StoreError: a newer version wrote it, or another program.
    """
    check_version(db, path)
    if _version(db) == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been here while this one waited for its turn.
        for step in range(_version(db), len(MIGRATIONS)):
            for statement in MIGRATIONS[step]:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def check_version(db: sqlite3.Connection, path: object) -> None:
    """Refuses what is no store, or one of a later schema.

    Raises:
        StoreError: as said.
    """
    # Read in one transaction: another process may be making the tables at this moment.
    db.execute("BEGIN")
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        version = _version(db)
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        db.execute("COMMIT")
    if application != APPLICATION and (application or version or tables):
        raise StoreError(
            f"{path} is a database of some other program: write --store PATH with a file of its own."
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the store {path} has schema {version}, this version of kernelwright knows {len(MIGRATIONS)} at "
            "the most: update kernelwright, or write --store PATH with another file."
        )


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version
