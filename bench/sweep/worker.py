"""The process that measures on a machine of a sweep: JSON lines in on stdin, JSON lines out on stdout.

    out   {"hello": {...}}                             which machine, which versions, which sources
    in    {"request": {...}}                           once: kernels, vendors, threads, rules of timing
    in    {"problem": {...}, "done": [...]}            measure it, but for the cases done
    out   {"begin": [threads, cache]}, {"case": {...}} for each case
    out   {"end": name}                                ready for the next problem
    out   {"refused": why}                             it can't serve this request

It is a process of its own, started by whatever runs on the machine (`ray_crew.py`), so that nothing of that
engine shares the interpreter that is timed, and so that a kernel that crashes takes nothing else with it. It
ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

from ...kernels.errors import KernelwrightError
from ...kernels.machine import machine
from ..baselines import get_baselines
from ..machine import facts, measured_roof, versions
from ..problems import Problem
from ..runner import Contender, Request, Runner, contenders_for
from ..store import Case
from ..store.document import compact
from ..store.owner import computer
from ..timing import SystemProbe, Timing
from .identity import sources_digest


def describe(request: Request) -> dict[str, Any]:
    """A request without its problems, as the worker reads it; files with kernels go along."""
    arguments = [c.argument for c in request.contenders if c.argument is not None]
    return {
        "suite": request.suite,
        "threads": list(request.threads),
        "kernels": list(dict.fromkeys(arguments)),
        "files": {name: Path(name).read_text() for name in arguments if name.endswith(".py")},
        "baselines": [baseline.name for baseline in request.baselines],
        "caches": list(request.caches),
        "timing": asdict(request.timing),
        "timed": request.time_them,
        "seed": request.seed,
    }


class Voice:
    """Says JSON lines; a watcher of the runner that passes on what begins."""

    def __init__(self, out: TextIO):
        self._out = out

    def say(self, word: str, value: Any) -> None:
        self._out.write(compact({word: value}) + "\n")
        self._out.flush()

    def begin(self, problem: Problem, threads: int, cache: str) -> None:
        self.say("begin", [threads, cache])

    def end(self, case: Case) -> None:
        """The case itself was said before."""


class Bench:
    """What stays between problems: the kernels' files, the vendors, the roof."""

    def __init__(self, record: Mapping[str, Any], voice: Voice):
        self._record, self._voice = record, voice
        self._folder = tempfile.TemporaryDirectory(prefix="kernelwright-sweep-")
        self._contenders: dict[str, tuple[Contender, ...]] = {}
        self._baselines = tuple(b for name in record["baselines"] for b in get_baselines(name))
        for baseline in self._baselines:
            lacking = baseline.missing()
            if lacking is not None:
                raise KernelwrightError(f"the vendor {baseline.name} is not there: {lacking}")
        if max(record["threads"]) > machine().cores:
            raise KernelwrightError(f"it has {machine().cores} cores, not {max(record['threads'])}")
        self._roof = measured_roof(record["threads"]) if record["timed"] else None

    def measure(self, problem: Problem, done: frozenset[tuple[Any, ...]]) -> None:
        record = self._record
        request = Request(
            suite=record["suite"],
            problems=(problem,),
            threads=tuple(record["threads"]),
            contenders=self._contenders_for(problem.op),
            baselines=self._baselines,
            caches=tuple(record["caches"]),
            timing=Timing(**record["timing"]),
            time_them=record["timed"],
            seed=record["seed"],
        )
        for case in Runner(request, SystemProbe(), self._roof, done).cases(self._voice):
            self._voice.say("case", case.to_json())

    def _contenders_for(self, op: str) -> tuple[Contender, ...]:
        if op not in self._contenders:
            found: list[Contender] = []
            for argument in self._record["kernels"]:
                path = argument
                if argument in self._record["files"]:
                    path = str(Path(self._folder.name) / Path(argument).name)
                    Path(path).write_text(self._record["files"][argument])
                found += [replace(c, argument=argument) for c in contenders_for([path], op)]
            self._contenders[op] = tuple(found) or (Contender(),)
        return self._contenders[op]


def main() -> None:
    """Serves until stdin ends."""
    # What a kernel prints must not get between the lines.
    voice = Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    hello = {"machine": facts(), "versions": versions(), "computer": computer(), "sources": sources_digest()}
    voice.say("hello", {**hello, "python": sys.version.split()[0], "pid": os.getpid()})
    bench: Bench | None = None
    for order in _orders():
        try:
            if "request" in order:
                bench = Bench(order["request"], voice)
                voice.say("end", "")
            elif bench is not None:
                problem = Problem.from_json(order["problem"])
                bench.measure(problem, frozenset(map(tuple, order["done"])))
                voice.say("end", problem.name)
        except KernelwrightError as error:
            voice.say("refused", str(error))


def _orders() -> Iterator[dict[str, Any]]:
    """The lines of stdin. When it ends, whoever wanted the results is gone: so is the process, at once."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


if __name__ == "__main__":
    main()
