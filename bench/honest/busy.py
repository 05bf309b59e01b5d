"""Who worked while the kernel was timed: threads, and processes that it started.

Times come from the scheduler: /proc/<pid>/task/<tid>/schedstat has nanoseconds on a CPU and nanoseconds of
waiting for one. A thread that neither runs nor waits sleeps. On a machine that others load too, ours only get
less.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

# More than this share of the time more than allowed: a tick of the scheduler's bookkeeping is 4 ms, the
# longest on common systems 10, and threads that are told to stop spin for a moment.
SLACK = 0.3
WORKING = 0.25  # a thread that had the CPU for this share of the time took part
AWAKE = 0.5  # of the time some thread of a process that computes runs, or waits for a CPU
CHILDREN = 0.1


@dataclass(frozen=True)
class Snapshot:
    """Seconds so far.

    Attributes:
        at: on the wall.
        cpu: of all threads of this process, those that ended too.
        tasks: {thread: (on a CPU, waiting for one)}.
        children: on a CPU, of the processes that this one and its children started, ended or not.
    """

    at: float
    cpu: float
    tasks: dict[int, tuple[float, float]] = field(default_factory=dict)
    children: float = 0.0


def snapshot() -> Snapshot:
    """Where this process stands now."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = ended.ru_utime + ended.ru_stime + _descendants()
    return Snapshot(time.monotonic(), time.process_time(), _tasks(), children)


def complaints(before: Snapshot, after: Snapshot, threads: int) -> list[str]:
    """What is wrong with the work done between two snapshots by a kernel that may use so many threads."""
    seconds = after.at - before.at
    found = []
    used = (after.cpu - before.cpu) / seconds
    spent = [
        (ran - before.tasks.get(tid, (0.0, 0.0))[0], waited - before.tasks.get(tid, (0.0, 0.0))[1])
        for tid, (ran, waited) in after.tasks.items()
    ]
    working = sum(ran > WORKING * seconds for ran, _ in spent)
    if used > threads + SLACK or working > threads:
        found.append(
            f"its threads had {used:.1f} CPUs ({working} of them worked), and {threads} "
            f"{'was' if threads == 1 else 'were'} allowed"
        )
    children = (after.children - before.children) / seconds
    if children > CHILDREN:
        found.append(f"processes that it started had {children:.1f} CPUs meanwhile")
    awake = sum(ran + waited for ran, waited in spent) / seconds
    if spent and max(awake, used) < AWAKE:
        found.append(
            f"this process slept for {1 - max(awake, used):.0%} of the time: somebody else worked, or nobody"
        )
    return found


def _tasks() -> dict[int, tuple[float, float]]:
    found = {}
    try:
        for task in os.scandir("/proc/self/task"):
            ran, waited, _ = Path(task.path, "schedstat").read_text().split()
            found[int(task.name)] = (int(ran) * 1e-9, int(waited) * 1e-9)
    except (OSError, ValueError):  # another system, or a thread that ended meanwhile
        return found
    return found


def _descendants() -> float:
    """CPU seconds of the processes below this one that still run."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        entries = [entry.name for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return 0.0
    for name in entries:
        try:
            # The name, in parentheses, may hold anything.
            fields = Path("/proc", name, "stat").read_bytes().rpartition(b") ")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(name)] = int(fields[1])
        used[int(name)] = (int(fields[11]) + int(fields[12])) / ticks
    total, mine = 0.0, os.getpid()
    for pid in parents:
        above = parents.get(pid)
        while above is not None and above != mine:
            above = parents.get(above)
        total += used[pid] if above == mine else 0.0
    return total
