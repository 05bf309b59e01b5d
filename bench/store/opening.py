"""Opening the store's file, whatever state it and its file system are in.

A damaged file is renamed, never deleted, and a new one begun. Where write-ahead logging can't work the store
uses SQLite's rollback journal, and where nothing can be locked it is not opened at all: two writers would
destroy it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from .schema import StoreError, check_version, migrate

T = TypeVar("T")

# How long a writer waits for its turn. A case is written in milliseconds; a slow disk may take seconds.
WAIT_S = 30.0
# Write-ahead logging shares memory between the processes, which no two computers do (https://sqlite.org/wal.html).
NETWORK = ("9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "smb")
_CORRUPT, _NO_DATABASE = 11, 26


def open_file(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    """A connection to write through, and what the user should know about the file.

    Raises:
        StoreError: it can't be made, is of a newer schema, or belongs to another program.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _can_not_be_opened(path, problem.strerror) from None
    try:
        try:
            return _opened(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        notes = _set_aside(path)
        db, more = _opened(path)
        return db, [*notes, *more]
    except sqlite3.Error as error:
        raise _can_not_be_opened(path, str(error)) from None


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that can't write, to a file on a disk that may be read-only.

    Raises:
        StoreError: there is none, or it is no store.
    """
    if not path.exists():
        raise StoreError(
            f"there is no store at {path}: `kernelwright bench` makes one, --store PATH names another."
        )
    # In a read-only folder SQLite can't make the files by which it shares; but then nobody writes either.
    alone = "" if os.access(path.parent, os.W_OK) else "&immutable=1"
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro{alone}"
        db = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
        check_version(db, path)
    except sqlite3.Error as error:
        raise _can_not_be_opened(path, str(error)) from None
    return db


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite found the file's contents destroyed, as opposed to busy, full or forbidden."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (_CORRUPT, _NO_DATABASE)


def _opened(path: Path) -> tuple[sqlite3.Connection, list[str]]:
    db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    try:
        _check_whole(db)
        check_version(db, path)
        notes = _choose_journal(db, path)
        # A case took seconds to measure; one that was announced must survive a power cut too.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db, notes


def _check_whole(db: sqlite3.Connection) -> None:
    """Raises a DatabaseError with SQLite's code for damage when the file is damaged anywhere."""
    found = waiting(lambda: db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = _CORRUPT
        raise error


def _choose_journal(db: sqlite3.Connection, path: Path) -> list[str]:
    kind = file_system(path.parent)
    if any(kind == name or kind.startswith(name) for name in NETWORK):
        waiting(lambda: db.execute("PRAGMA journal_mode = DELETE").fetchone())
        return [
            f"the store {path} lies on a network file system ({kind}): it is kept without write-ahead "
            "logging, which is slower with several writers; a local disk is better (--store PATH)"
        ]
    mode = waiting(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone()[0])
    if mode == "wal":
        return []
    return [
        f"the file system of {path} can't do write-ahead logging: the store is kept with a rollback journal "
        f"({mode}), which is slower with several writers"
    ]


def waiting(act: Callable[[], T]) -> T:
    """Does `act`, again while another process holds the file: some pragmas don't wait by themselves."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _set_aside(path: Path) -> list[str]:
    """Renames a damaged store and its journals; other processes that found the damage wait."""
    with _only_one(path):
        try:
            db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
            with contextlib.closing(db):
                _check_whole(db)
            return []  # another process was here first
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            what = str(error).strip().splitlines()[0]
        stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        aside = path.with_name(f"{path.name}.damaged-{stamp}")
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        return [
            f"the store {path} was damaged ({what}): it now lies at {aside}, and a new one is begun; "
            f"`kernelwright import {path.parent}/*.json` brings back what the documents hold"
        ]


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not on this system: the second to rename finds nothing to rename
        yield
        return
    with open(path.with_name(path.name + ".lock"), "w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_system(folder: Path) -> str:
    """The kind of file system that holds a folder, as Linux names it; "" where that is not told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        folder = folder.resolve()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if len(point.parts) >= best and folder.is_relative_to(point):
            best, kind = len(point.parts), right.split()[0]
    return kind


def _can_not_be_opened(path: Path, why: str | None) -> StoreError:
    return StoreError(
        f"the store {path} can't be used ({why}): write --store PATH with a file on a disk that can be "
        "written and locked."
    )
