"""What a run loses that is killed: a bench of small problems, ended by SIGKILL at random moments.

After each kill the store must open, every case that the child had announced on its output must be in it, and
the next child must go on from there. The last child is left to its end, and its document must be whole.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from random import Random

from ..problems import select
from ..store import Run, Store, StoreError

# Cases of a third of a second, whose kernel needs no compiler.
PROBLEMS = "tiny-*"
WORDS = ("--problem", PROBLEMS, "--threads", "1", "--quick", "--no-vendor", "--kernel", "reference")
ANNOUNCED = re.compile(r"^(\S+) (\d+) threads?( cold)?: ")
RESUMING = re.compile(r"^resuming: (\d+) of (\d+) cases kept")
# Half of the kills come within this time of an announcement, when the next case begins and files are written;
# the others at any moment of a child's life, of which the first two seconds are Python's imports.
SHORTLY_S, LIFE_S = 0.05, 5.0
MOST_S = 300.0
MOST_LIVES = 3

Key = tuple[str, int, str]


@dataclass
class Kill:
    """One child and its end.

    Attributes:
        seconds: how long it lived.
        said_kept: how many cases it said that it took over; None when it was killed before, or had none.
        announced: the cases that it said it had finished.
        stored: how many cases of the run the store has after its end.
        faults: what was not as it should be; empty when all was.
        completed: it came to its end before it was killed.
    """

    seconds: float = 0.0
    said_kept: int | None = None
    announced: list[Key] = field(default_factory=list)
    stored: int = 0
    faults: list[str] = field(default_factory=list)
    completed: bool = False


class Experiment:
    """The kills, one after the other, in a folder of their own.

    Args:
        folder: where store and documents go; empty at the start.
        seed: of the moments.
        words: what is benched, if not the usual small problems.
    """

    def __init__(self, folder: Path, seed: int = 0, words: tuple[str, ...] = WORDS):
        self._folder, self._words = folder, words
        self._rng = Random(seed)
        self._cases = len(select(problem=words[1]).problems)
        # Of the run that the next child should go on with.
        self._announced: set[Key] = set()
        self._stored = 0

    @property
    def store(self) -> Path:
        return self._folder / "results.sqlite"

    def kill_once(self) -> Kill:
        """Starts a child, kills it, looks at what it left."""
        if self._rng.random() < 0.5:
            count, seconds = self._rng.randint(1, 4), self._rng.uniform(0, SHORTLY_S)
        else:
            count, seconds = 0, self._rng.uniform(0, LIFE_S)
        return self._judged(self._life(count, seconds))

    def finish(self) -> Kill:
        """Lets the last child come to its end, and looks at its document."""
        life = self._judged(self._life(self._cases + 1, MOST_S))
        if not life.completed:
            life.faults.append("the last run did not come to its end")
            return life
        latest = max(self._folder.glob("kernelwright-results/*.json"), key=lambda path: path.stat().st_mtime)
        run = Run.load(latest)
        names = sorted(case.problem.name for case in run.results)
        wanted = sorted(problem.name for problem in select(problem=self._words[1]).problems)
        if run.status != "complete" or names != wanted:
            life.faults.append(f"{latest.name} is {run.status} with {len(names)} of {self._cases} cases")
        return life

    def _life(self, count: int, seconds: float) -> Kill:
        """A child that is killed so many seconds after its `count`-th announcement (0: after its start)."""
        life, started = Kill(), time.monotonic()
        command = [sys.executable, "-m", "kernelwright.bench.cli", "bench", *self._words]
        child = subprocess.Popen(
            [*command, "--store", str(self.store)],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        lines: Queue[str | None] = Queue()
        reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
        reader.start()
        said: list[str] = []
        line: str | None = ""
        end = started + (seconds if count == 0 else MOST_S)
        while time.monotonic() < end:
            try:
                line = lines.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                break
            if line is None:
                break
            self._heard(line, life, said)
            if count and len(life.announced) == count:
                end, count = min(end, time.monotonic() + seconds), 0
        if line is not None:
            child.kill()
            while (line := lines.get()) is not None:  # what was on its way when the child died
                self._heard(line, life, said)
        reader.join()
        life.seconds = time.monotonic() - started
        life.completed = child.wait() == 0
        if child.returncode not in (0, -signal.SIGKILL):
            life.faults.append(f"exit code {child.returncode}: {' '.join(said[-3:])}")
        return life

    @staticmethod
    def _heard(line: str, life: Kill, said: list[str]) -> None:
        said.append(line.strip())
        if found := RESUMING.match(line):
            life.said_kept = int(found[1])
        elif found := ANNOUNCED.match(line):
            life.announced.append((found[1], int(found[2]), "cold" if found[3] else "warm"))

    def _judged(self, life: Kill) -> Kill:
        """Compares what the child said with what the store has."""
        if life.said_kept not in (None, self._stored):
            life.faults.append(f"it said that {life.said_kept} cases were kept, the store had {self._stored}")
        if life.said_kept is None and self._stored and life.announced:
            life.faults.append(f"it began anew beside {self._stored} kept cases")
        self._announced.update(life.announced)
        there: set[Key] = set()
        closed = False
        if self.store.exists():
            try:
                with Store.open(self.store) as store:
                    life.faults += store.notes
                    latest = store.latest()
                    run = Run("", "") if latest is None else store.run(latest)
                    there = {(case.problem.name, case.threads, case.cache) for case in run.results}
                    closed = run.status == "complete"
            except StoreError as error:
                life.faults.append(str(error))
        lost = sorted(self._announced - there)
        life.faults += [f"lost: {name} on {threads}, {cache}" for name, threads, cache in lost]
        life.stored = self._stored = len(there)
        if life.completed and not closed:
            life.faults.append("it came to its end, but its run did not")
        if closed:  # killed or not, what was left was at most the page
            self._announced, self._stored = set(), 0
        return life


def run(
    times: int, folder: Path, seed: int = 0, told: Callable[[Kill], None] = lambda kill: None
) -> list[Kill]:
    """Kills so many children, lets a last one finish, and gives what was seen of each.

    Args:
        times: how many kills; a child that came to its end before its moment is not one.
        folder: an empty one.
        seed: of the moments.
        told: of each child as its end is judged.
    """
    experiment = Experiment(folder, seed)
    lives: list[Kill] = []
    while sum(not life.completed for life in lives) < times and len(lives) < MOST_LIVES * times:
        lives.append(experiment.kill_once())
        told(lives[-1])
    lives.append(experiment.finish())
    told(lives[-1])
    return lives


def _read(child: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put(None)
