"""Which process writes a run, and whether it still lives."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path

# A process of another computer is taken for dead when it gave no sign for this long: the longest cases of the
# suites take some minutes.
SILENT = timedelta(minutes=20)


def this_process() -> str:
    """`computer pid start`, so that a number given to a later process is no longer this one."""
    return f"{computer()} {os.getpid()} {_started(os.getpid())}"


def alive(owner: str | None, sign: str | None) -> bool:
    """Whether the process lives that `owner` names; `sign` is when it last wrote, as ISO time."""
    if owner is None:
        return False
    where, pid, started = owner.split(" ")
    if where != computer():
        return sign is not None and datetime.now(UTC) - datetime.fromisoformat(sign) < SILENT
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        pass
    return _started(int(pid)) == started


def computer() -> str:
    """A name for this computer since it was started, alike in all containers on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "-"
    return f"{platform.node().replace(' ', '-')}/{boot}"


def _started(pid: int) -> str:
    """The clock tick at which a process started; "-" where that is not told."""
    try:
        # The name in brackets may hold spaces and brackets of its own.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"
