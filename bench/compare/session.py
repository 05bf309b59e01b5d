"""One `kernelwright compare` from options to a comparison: which sides, which problems, by which rules."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...kernels.errors import ConfigError, KernelwrightError
from ...kernels.settings import check_threads
from ...kernels.spec import dtype_name
from ..machine import environment, facts, git_state, versions
from ..problems import Problem, Selection, select
from ..store import timing_record
from ..timing import Timing
from .duel import A, B, Entrant, Hire, OldWorkerError, Rules, missing
from .remote import Remote, WorkerLostError
from .result import MISSING, OK, Comparison, Duel
from .sides import FILE, Side, SideError, opened, resolve, takes
from .suite import OLD_WORKER, Contest, Watcher
from .trees import Tell
from .verdict import Kind
from .worker import PROTOCOL

RESULTS = Path("kernelwright-results")


@dataclass(frozen=True)
class Options:
    """What is to be compared; the names are those of the command line's options.

    `threads` are the numbers of threads, `threshold` a share: 0.05 is 5%.
    """

    a: str
    b: str
    suite: str | None = None
    problem: str | None = None
    op: str | None = None
    dtype: str | None = None
    threads: tuple[int, ...] = (1,)
    threshold: float = 0.05
    processes: int = 5
    pairs: int = 6
    kernel: str | None = None
    quick: bool = False
    json: Path | None = None

    @property
    def suite_name(self) -> str:
        return self.suite or ("all" if self.problem else "quick")

    @property
    def path(self) -> Path:
        """Where the result goes."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        return self.json or RESULTS / f"{stamp}-compare-{self.suite_name}.json"

    def rules(self, timing: Timing | None = None) -> Rules:
        """As `Rules`."""
        processes = min(3, self.processes) if self.quick else self.processes
        return Rules(processes, self.pairs, self.threshold, timing=timing or Timing())

    def command(self, duel: Duel) -> str:
        """The shell command that compares one problem again."""
        words = ["kernelwright", "compare", self.a, self.b]
        if self.suite is not None:
            words.append(self.suite)
        words += ["--problem", duel.problem.name, "--threads", str(duel.threads)]
        words += ["--threshold", f"{100 * self.threshold:g}%"]
        if self.kernel is not None:
            words += ["--kernel", self.kernel]
        return shlex.join(words)


def found(options: Options, folder: Path) -> tuple[Side, Side, Selection]:
    """What the sides are, and the problems that both may have something for.

    Raises:
        KernelwrightError: a word that means nothing, or sides that can't be compared.
    """
    dtype = None if options.dtype is None else dtype_name(options.dtype)
    chosen = select(options.suite, problem=options.problem, op=options.op, dtype=dtype)
    a, b = (resolve(text, chosen.problems, folder) for text in (options.a, options.b))
    if FILE in (a.kind, b.kind):
        if a.kind != b.kind:
            file, other = (a, b) if a.kind == FILE else (b, a)
            raise SideError(
                f"{file.words.text!r} was measured before and can only be compared with another file: "
                f"measure {other.words.text!r} with `kernelwright bench --json FILE.json`, and write that."
            )
        return a, b, chosen
    kept = tuple(p for p in chosen.problems if takes(a, p.op) and takes(b, p.op))
    if not kept:
        ops = ", ".join(sorted({p.op for p in chosen.problems}))
        raise SideError(
            f"{options.a!r} and {options.b!r} have nothing in common among the problems of {ops}: write "
            "--op, a suite or --problem for which both have a kernel."
        )
    return a, b, replace(chosen, problems=kept)


@contextlib.contextmanager
def contest(
    options: Options,
    folder: Path,
    tell: Tell,
    watcher: Watcher | None = None,
    rules: Rules | None = None,
    hire: Hire = Remote,
) -> Iterator[Contest]:
    """A comparison, ready to run; its work trees are there until the block ends.

    Args:
        options: what to compare; no files of results.
        folder: the working directory.
        tell: told what takes a while before anything is timed.
        watcher: told how far it is.
        rules: other than the options' own.
        hire: makes a worker.

    Raises:
        KernelwrightError: the text says what to write instead.
    """
    a, b, selection = found(options, folder)
    rules = rules or options.rules()
    for number in options.threads:
        check_threads(number, "--threads", "--threads 1")
    with opened(a, b, options.kernel, folder, tell) as sides:
        duels = list(_duels(options, sides, selection, rules, hire, tell))
        for duel in duels:
            duel.reproduce = options.command(duel)
        comparison = Comparison(
            sides[A].described,
            sides[B].described,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            command=shlex.join(["kernelwright", *sys.argv[1:]]),
            suite=options.suite_name,
            machine=facts(),
            versions=versions(),
            environment=environment(),
            git=git_state(),
            settings={"timing": timing_record(rules.timing)},
            results=duels,
        )
        yield Contest(comparison, sides, rules, save=options.path, watcher=watcher, hire=hire)


def _duels(
    options: Options,
    sides: tuple[Entrant, Entrant],
    selection: Selection,
    rules: Rules,
    hire: Hire,
    tell: Tell,
) -> Iterator[Duel]:
    """The problems of both sides: what only one has is missing on the other."""
    if sides[A].launch == sides[B].launch or sides[A].launch.tree == sides[B].launch.tree:
        for threads in options.threads:
            for problem in selection.problems:
                yield Duel(problem, threads)
        return
    tell("asking both revisions for their problems")
    lists = listed(options, sides, rules, hire)
    names = dict.fromkeys(name for each in lists for name in each.problems)
    for threads in options.threads:
        for name in names:
            yield _matched(name, threads, lists)


@dataclass(frozen=True)
class Listed:
    """A side's problems by name; `why_not` when it could not be asked."""

    problems: dict[str, Problem]
    why_not: str | None = None


def listed(
    options: Options, sides: tuple[Entrant, Entrant], rules: Rules, hire: Hire = Remote
) -> tuple[Listed, Listed]:
    """What each side's own suites hold, by a worker of each."""
    words = {name: getattr(options, name) for name in ("suite", "problem", "op", "dtype")}
    players = [hire(side.launch, rules.limits) for side in sides]
    results = []
    try:
        for player in players:
            player.start()
            player.send("hello")
        for name, player in zip("AB", players, strict=True):
            try:
                hello = player.receive()
                if hello.get("protocol") != PROTOCOL:
                    raise OldWorkerError(f"it speaks protocol {hello.get('protocol')}, not {PROTOCOL}")
                reply = player.ask("list", **words)
            except WorkerLostError as lost:
                why = OLD_WORKER.format(why=f"{name} has no worker that this version can ask: {lost}")
                results.append(Listed({}, why))
                continue
            problems = map(_problem, reply.get("problems", ()))
            results.append(Listed({p.name: p for p in problems if p is not None}, reply.get("error")))
    finally:
        for player in players:
            player.end()
    first, second = results
    if not first.problems and not second.problems:
        raise ConfigError(f"there is nothing to compare: {second.why_not or first.why_not}")
    return first, second


def _problem(record: dict[str, Any]) -> Problem | None:
    """A problem as a side describes it; None when it can't be read here."""
    try:
        return Problem.from_json(record)
    except (KeyError, TypeError, ValueError, KernelwrightError):
        return None


def _matched(name: str, threads: int, lists: Sequence[Listed]) -> Duel:
    a, b = (each.problems.get(name) for each in lists)
    problem = b or a
    assert problem is not None
    duel = Duel(problem, threads)
    for each, here, side in zip(lists, (a, b), (duel.a, duel.b), strict=True):
        if here is None:
            missing(side, each.why_not or "it has no problem of that name")
    if a is not None and b is not None and _meaning(a) != _meaning(b):
        missing(duel.a, f"its problem of that name is another: {a.described}, not {b.described}")
    return duel


def _meaning(problem: Problem) -> tuple[Any, ...]:
    return problem.op, problem.inputs, dict(problem.attrs)


def exit_code(comparison: Comparison) -> int:
    """What a comparison means for a script: 0 nothing slower, 1 slower, 3 inconclusive or void, 4 wrong or
    failed, 5 missing, 6 nothing measured, 130 interrupted.
    """
    duels = comparison.results
    statuses = {side.status for duel in duels for side in (duel.a, duel.b)}
    kinds = {duel.verdict.kind for duel in duels if duel.verdict is not None}
    if comparison.status == "interrupted":
        return 130
    if statuses & {"wrong", "failed"}:
        return 4
    # What only B has is new; what only A has was lost.
    if any(duel.b.status == MISSING for duel in duels) or (MISSING in statuses and not kinds):
        return 5
    if not kinds:
        return 6
    if comparison.void is not None:
        return 3
    if Kind.SLOWER in kinds:
        return 1
    return 3 if Kind.INCONCLUSIVE in kinds else 0


def counts(comparison: Comparison) -> dict[str, int]:
    """How often each verdict or status occurs."""
    found: dict[str, int] = {}
    for duel in comparison.results:
        if duel.verdict is not None:
            word = str(duel.verdict.kind)
        else:
            word = next((s.status for s in (duel.b, duel.a) if s.status != OK), "not measured")
        found[word] = found.get(word, 0) + 1
    return found
