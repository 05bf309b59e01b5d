"""A run spread over workers: a problem, ours and the vendors together, stays on one of them.

The engine that reaches the workers is behind `Crew`; here is only who gets what. A problem whose worker is
lost is handed to another one, for the cases that are not done; after some tries they count as failed. On one
computer so many problems are measured at once as were asked for, which is one: two would share its caches and
memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...kernels.errors import KernelwrightError
from ..problems import Problem
from ..runner import Request, Watcher, case_key
from ..store import Case, CaseKey, MachineKey
from .worker import describe

# A worker that is lost three times over one problem is lost because of it.
MOST_TRIES = 3
# So long a run waits for a first worker, or for another one when the last is lost.
PATIENCE_S = 120.0
LISTEN_S = 1.0

Tell = Callable[[str], None]


class SweepError(KernelwrightError, RuntimeError):
    """No worker can go on with the run; what was measured is kept."""


@dataclass(frozen=True)
class Event:
    """What a worker says: a line of `worker.py`, or "lost" with the reason.

    Attributes:
        worker: its name.
        word, value: the line's key and what it says.
    """

    worker: str
    word: str
    value: Any


class Crew(Protocol):
    """Workers, however they are reached."""

    def grow(self) -> None:
        """Starts a worker wherever there is room for one; each says "hello" in its time."""

    @property
    def starting(self) -> int:
        """How many workers have not said hello yet."""

    def give(self, worker: str, order: dict[str, Any]) -> None:
        """Hands a line to a worker that has said "hello" or "end"."""

    def events(self, seconds: float) -> list[Event]:
        """What was said meanwhile, waiting for so long at most."""

    def dismiss(self, worker: str) -> None:
        """Ends a worker, and starts none in its place."""

    def close(self) -> None:
        """Ends them all."""


@dataclass
class Task:
    """A problem to be measured.

    Attributes:
        done: its cases that are there.
        lost: the names of workers that were lost over it.
    """

    problem: Problem
    done: set[CaseKey]
    lost: list[str] = field(default_factory=list)


@dataclass
class Member:
    """A worker that has said hello.

    Attributes:
        machine: the digest of its machine's key.
        computer: on which it runs; several may run on one.
        task: at which it works; None when it waits.
        ready: whether it has taken the request.
    """

    machine: str
    computer: str
    host: str
    task: Task | None = None
    ready: bool = False


class Spread:
    """Measures a request on the workers of a crew.

    Args:
        request: what to run.
        crew: the workers.
        sources: the digest of the code that is to be measured; a worker with another one is sent away.
        done: cases that are there already.
        per_computer: how many problems are measured at once on one computer.
        tell: told of workers that come and go.
        met: told of each machine: its digest, and {"machine": ..., "versions": ...}.
    """

    def __init__(
        self,
        request: Request,
        crew: Crew,
        *,
        sources: str,
        done: Collection[CaseKey] = frozenset(),
        per_computer: int = 1,
        tell: Tell,
        met: Callable[[str, dict[str, Any]], None],
    ):
        self._request, self._crew, self._sources = request, crew, sources
        self._per_computer, self._tell, self._met = per_computer, tell, met
        self._members: dict[str, Member] = {}
        self._tasks: deque[Task] = deque()
        self._unfit = ""
        for problem in request.problems:
            there = {key for each in request.plan(problem) if (key := case_key(problem, *each)) in done}
            if len(there) < len(request.plan(problem)):
                self._tasks.append(Task(problem, there))

    def cases(self, watcher: Watcher) -> Iterator[Case]:
        """Yields each case as it comes in, in no certain order.

        Raises:
            SweepError: no worker came, or none is left.
        """
        heard = time.monotonic()
        try:
            while self._tasks or any(member.task for member in self._members.values()):
                self._crew.grow()
                self._hand_out()
                for event in self._crew.events(LISTEN_S):
                    heard = time.monotonic()
                    for case in self._hear(event, watcher):
                        yield case
                        watcher.end(case)
                if not self._members:
                    self._check_patience(time.monotonic() - heard)
        finally:
            self._crew.close()

    def _check_patience(self, waited: float) -> None:
        left = f"{len(self._tasks)} problems are left; the same command again goes on from here"
        if self._unfit and not self._crew.starting:
            raise SweepError(f"no worker can serve this run: {self._unfit}. {left}.")
        if waited > PATIENCE_S:
            raise SweepError(f"no worker has been there for {PATIENCE_S:.0f} seconds: {left}.")

    def _hand_out(self) -> None:
        for name, member in self._members.items():
            at_work = sum(m.task is not None for m in self._members.values() if m.computer == member.computer)
            if member.ready and member.task is None and at_work < self._per_computer and self._tasks:
                member.task = self._task_for(name)
                order = {"problem": member.task.problem.to_json(), "done": sorted(member.task.done)}
                self._crew.give(name, order)

    def _task_for(self, name: str) -> Task:
        """The next problem, one that this worker was not lost over if there is one."""
        task = next((task for task in self._tasks if name not in task.lost), self._tasks[0])
        self._tasks.remove(task)
        return task

    def _hear(self, event: Event, watcher: Watcher) -> Iterator[Case]:
        """Takes in what a worker said; yields the cases that are finished by it."""
        member = self._members.get(event.worker)
        if event.word == "hello":
            self._welcome(event.worker, event.value)
        elif event.word == "lost":
            yield from self._lost(event.worker, event.value)
        elif event.word == "refused":
            yield from self._lost(event.worker, event.value, counts=False)
            self._send_away(event.worker, event.value)
        elif member is None:
            return
        elif event.word == "begin" and member.task is not None:
            watcher.begin(member.task.problem, *event.value)
        elif event.word == "case" and member.task is not None:
            case = Case.from_json(event.value)
            case.machine = member.machine
            if case.key not in member.task.done:
                member.task.done.add(case.key)
                yield case
        elif event.word == "end":
            member.ready, member.task = True, None

    def _welcome(self, name: str, hello: dict[str, Any]) -> None:
        if hello["sources"] != self._sources:
            why = f"its kernelwright has sources {hello['sources']}, here they are {self._sources}"
            self._send_away(name, f"{why}: install the same version there")
            return
        key = MachineKey.of(hello["machine"], hello["versions"])
        self._met(key.digest, {"machine": hello["machine"], "versions": hello["versions"]})
        self._members[name] = Member(key.digest, hello["computer"], hello["machine"].get("host", "?"))
        self._tell(f"worker {name} on {hello['machine'].get('host')}: {key.text}")
        self._crew.give(name, {"request": describe(self._request)})

    def _send_away(self, name: str, why: str) -> None:
        self._unfit = why
        self._tell(f"worker {name} is not used: {why}")
        self._crew.dismiss(name)

    def _lost(self, name: str, why: str, counts: bool = True) -> Iterator[Case]:
        member = self._members.pop(name, None)
        if counts:
            self._tell(f"worker {name} is lost: {why}")
        if member is None or member.task is None:
            return
        task = member.task
        task.lost += [name] if counts else []
        if len(task.lost) < MOST_TRIES:
            self._tasks.appendleft(task)
            return
        for each in self._request.plan(task.problem):
            key = case_key(task.problem, *each)
            if key in task.done:
                continue
            threads, contender, cache = each
            case = Case(task.problem, threads, cache, asked=contender.kernel or "", machine=member.machine)
            case.reproduce = self._request.command(case, contender)
            case.status = "failed"
            case.message = f"{MOST_TRIES} workers were lost over it, the last on {member.host}: {why}"
            yield case
