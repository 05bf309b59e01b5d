"""One round of a comparison: three fresh processes - A, B, and A once more - and a list of problems.

    for each problem
        prepare     all three at the same time: operands, choice, first call
        size        one after the other: how many calls make a batch
        turns       a batch of each, in an order that changes from turn to turn; (A, B) is a pair, and
                    (A, A once more) one of the control
        verify      all at the same time: what was computed while it was timed, against the oracle

While one process is timed the others wait for a line on a pipe, and take no CPU. A turn that something
disturbed is taken again, after a pause that doubles: whoever disturbed it may be done by then.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...kernels.errors import ConfigError
from ..timing import Timing
from .contestant import Contestant
from .remote import Launch, Limits, WorkerLostError
from .result import FAILED, MISSING, OK, Duel, Round, Side
from .worker import PROTOCOL

A, B, CONTROL = 0, 1, 2
NAMES = ("A", "B", "A once more")
# How long a worker that is told to end may take for it.
ENDING_S = 2.0


@dataclass(frozen=True)
class Rules:
    """How a comparison is made.

    Attributes:
        processes: rounds, each of fresh processes: what they differ in (where memory lies) is sampled too.
        pairs: of each problem in a round.
        threshold: how much longer B may take.
        thresholds: of single problems, by name, where theirs differ.
        confidence: of each one-sided bound.
        false_discoveries: among a suite's verdicts of slower, the share that may be false.
        most_rejects: disturbed turns taken again in a round, for each pair. Beyond that, and beyond the
            patience, they are kept and counted as noisy.
        pause_s: the first pause after a disturbed turn; each further one is twice as long.
        patience_s: all pauses of a problem in a round together.
        timing: the rules of a batch.
        limits: how long workers may take for an answer.
    """

    processes: int = 5
    pairs: int = 6
    threshold: float = 0.05
    thresholds: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 0.99
    false_discoveries: float = 0.05
    most_rejects: float = 4.0
    pause_s: float = 0.02
    patience_s: float = 1.5
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("processes", "pairs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number over 0, such as 5; got {value!r}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Player(Protocol):
    """What a round asks of a worker: `Remote` for real, something simpler in tests."""

    def start(self) -> None:
        """Starts the process, without waiting for it."""

    def send(self, do: str, **more: Any) -> None:
        """Sends a request."""

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The answer to the last request."""

    def ask(self, do: str, seconds: float | None = None, **more: Any) -> dict[str, Any]:
        """Both."""

    def end(self, patience_s: float = 2.0) -> None:
        """Ends it, whatever it does."""


@dataclass(frozen=True)
class Entrant:
    """One side of a comparison.

    Attributes:
        contestant: what its processes compute with.
        launch: how they are started.
        described: what it is, for the result's file.
    """

    contestant: Contestant
    launch: Launch = field(default_factory=Launch)
    described: dict[str, Any] = field(default_factory=dict)


Hire = Callable[[Launch, Limits], Player]
Wait = Callable[[float], None]


@dataclass
class Known:
    """What one side's processes have found out about a duel, for those that follow.

    Attributes:
        digests: of outputs that were judged right.
        proven: whether the op's samples were tried.
    """

    digests: list[str] = field(default_factory=list)
    proven: bool = False


class OldWorkerError(WorkerLostError):
    """A revision without a worker, or with one that speaks otherwise."""


class Team:
    """The three processes of a round.

    Args:
        sides: A and B.
        rules: of the comparison.
        hire: makes a worker.
    """

    def __init__(self, sides: tuple[Entrant, Entrant], rules: Rules, hire: Hire):
        self._rules, self._hire = rules, hire
        self.entrants = (sides[A], sides[B], sides[A])
        self._players: list[Player | None] = [None, None, None]

    def __enter__(self) -> Team:
        # All are started before the first is waited for: they import on all cores at once.
        for place in (A, B, CONTROL):
            self._start(place)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for player in self._players:
            if player is not None:
                # After an error or Ctrl-C one of them may be busy for long.
                player.end(ENDING_S if kind is None else 0.0)

    def _start(self, place: int) -> None:
        player = self._hire(self.entrants[place].launch, self._rules.limits)
        self._players[place] = player
        player.start()
        player.send("hello", timing=asdict(self._rules.timing))

    def greet(self) -> None:
        """Waits until all have started.

        Raises:
            OldWorkerError: one has no worker, or one of another protocol.
        """
        for place in (A, B, CONTROL):
            self._greet(place)

    def _greet(self, place: int) -> None:
        player = self[place]
        try:
            reply = player.receive()
        except WorkerLostError as lost:
            raise OldWorkerError(f"{NAMES[place]} has no worker that starts: it {lost}") from None
        if reply.get("protocol") != PROTOCOL:
            raise OldWorkerError(
                f"{NAMES[place]} speaks protocol {reply.get('protocol')}, this version {PROTOCOL}"
            )
        expected = self.entrants[place].launch.tree
        if expected and Path(reply["package"]) != expected:
            raise OldWorkerError(f"{NAMES[place]} runs the package in {reply['package']}, not in {expected}")

    def __getitem__(self, place: int) -> Player:
        player = self._players[place]
        assert player is not None, "the team was not started"
        return player

    def replace(self, place: int) -> None:
        """A new process for one that was lost."""
        self[place].end()
        self._start(place)
        self._greet(place)


@dataclass(frozen=True)
class Failure:
    """Why a problem can't be timed in a process: the status and message of its side; whether it was lost."""

    place: int
    status: str
    message: str
    lost: bool = False


class Failed(Exception):
    """A problem can't be timed."""

    def __init__(self, *failures: Failure):
        super().__init__("; ".join(failure.message for failure in failures))
        self.failures = failures


def play(
    team: Team,
    duel: Duel,
    known: tuple[Known, Known],
    rules: Rules,
    rng: np.random.Generator,
    wait: Wait,
    together: bool = True,
) -> Round | None:
    """One problem in one round; None, and the reason in `duel.a` or `duel.b`, when a side fails.

    Args:
        team: the processes.
        duel: the problem; its sides are filled in.
        known: of A and of B.
        rules: of the comparison.
        rng: the order of turns.
        wait: sleeps.
        together: False has the control compute its first call after A's, for the first round: what A has
            compiled is then there.

    Raises:
        OldWorkerError: a process that was lost can't be replaced.
    """
    try:
        _prepare(team, duel, together)
        for place in (A, B, CONTROL):
            _asked(team, place, "size")
        played = _turns(team, rules, rng, wait)
        _verify(team, duel, known, played)
    except Failed as failed:
        played = None
        for failure in failed.failures:
            side = duel.b if failure.place == B else duel.a
            side.status, side.message = failure.status, failure.message
            if failure.lost:
                team.replace(failure.place)
    _drop(team)
    return played


def _asked(team: Team, place: int, do: str, **more: Any) -> dict[str, Any]:
    """An answer; Failed when it is an error, or does not come."""
    _send(team, place, do, **more)
    return _received(team, place)


def _send(team: Team, place: int, do: str, **more: Any) -> None:
    try:
        team[place].send(do, **more)
    except WorkerLostError as lost:
        raise Failed(Failure(place, FAILED, str(lost), lost=True)) from None


def _received(team: Team, place: int) -> dict[str, Any]:
    try:
        reply = team[place].receive()
    except WorkerLostError as lost:
        raise Failed(Failure(place, FAILED, str(lost), lost=True)) from None
    if "error" in reply and "status" in reply:
        raise Failed(Failure(place, reply["status"], reply["error"]))
    return reply


def _all_asked(team: Team, requests: dict[int, tuple[str, dict[str, Any]]]) -> dict[int, dict[str, Any]]:
    """Asks several at once. All are heard before what failed is told: no answer is left in a pipe."""
    replies: dict[int, dict[str, Any]] = {}
    failures: list[Failure] = []
    asked = []
    for place, (do, more) in requests.items():
        try:
            _send(team, place, do, **more)
            asked.append(place)
        except Failed as failed:
            failures += failed.failures
    for place in asked:
        try:
            replies[place] = _received(team, place)
        except Failed as failed:
            failures += failed.failures
    if failures:
        raise Failed(*failures)
    return replies


def _prepare(team: Team, duel: Duel, together: bool) -> None:
    problem = duel.problem.to_json()
    requests = {
        place: (
            "prepare",
            {"problem": problem, "threads": duel.threads, **team.entrants[place].contestant.to_json()},
        )
        for place in (A, B, CONTROL)
    }
    parts = [(A, B, CONTROL)] if together else [(A, B), (CONTROL,)]
    for part in parts:
        replies = _all_asked(team, {place: requests[place] for place in part})
        for place, side in ((A, duel.a), (B, duel.b)):
            if place in replies:
                _tell(side, replies[place])


def _tell(side: Side, reply: dict[str, Any]) -> None:
    side.kernel, side.config, side.fallback = reply["kernel"], reply["config"], reply["fallback"]
    # The least of all processes: the first of them may have compiled what the others loaded.
    before = math.inf if side.first_call_s is None else side.first_call_s
    side.first_call_s = min(before, reply["first_call_s"])


def orders(pairs: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """The order of each turn: A and B as ABBA with a random lead; the control in every place as often.

    Six turns use each of the six orders once.
    """
    lead = int(rng.integers(2))
    every = list(itertools.permutations((A, B, CONTROL)))
    halves = [[o for o in every if (o.index(A) < o.index(B)) == (first == A)] for first in (A, B)]
    for turn in range(pairs):
        if turn % len(every) == 0:
            left = [[half[i] for i in rng.permutation(len(half))] for half in halves]
        yield left[(lead + turn) % 2].pop()


def _turns(team: Team, rules: Rules, rng: np.random.Generator, wait: Wait) -> Round:
    played = Round()
    repeats, patience, pause = int(rules.most_rejects * rules.pairs), rules.patience_s, rules.pause_s
    for order in orders(rules.pairs, rng):
        times, reason = _turn(team, order, rules.timing)
        while reason is not None and repeats > 0 and patience > 0:
            repeats -= 1
            played.rejected[reason] = played.rejected.get(reason, 0) + 1
            wait(min(pause, patience))
            patience, pause = patience - pause, 2 * pause
            times, reason = _turn(team, order, rules.timing)
        played.noisy += reason is not None
        if reason is None:
            pause = rules.pause_s
        played.pairs.append((times[A], times[B]))
        played.control.append((times[A], times[CONTROL]))
    return played


def _turn(team: Team, order: Sequence[int], timing: Timing) -> tuple[list[float], str | None]:
    """A batch of each: seconds a call, and what disturbed them."""
    times, clock, reason = [0.0, 0.0, 0.0], [], None
    for place in order:
        reply = _asked(team, place, "time")
        times[place] = reply["seconds"]
        clock += reply["clock"]
        reason = reason or reply["disturbed"]
    if math.log(max(clock) / min(clock)) > timing.drift:
        reason = reason or "drift"
    return times, reason


def _verify(team: Team, duel: Duel, known: tuple[Known, Known], played: Round) -> None:
    replies = _all_asked(
        team,
        {
            place: ("verify", {"approved": known[place].digests, "prove": not known[place].proven})
            for place in (A, B)
        },
    )
    for place, side in ((A, duel.a), (B, duel.b)):
        reply = replies[place]
        known[place].digests, known[place].proven = reply["digests"], True
        side.error = side.error if reply["error_norm"] is None else reply["error_norm"]
        side.status = OK
    played.verified = (replies[A]["verified"], replies[B]["verified"])


def _drop(team: Team) -> None:
    for place in (A, B, CONTROL):
        try:
            team[place].ask("drop")
        except WorkerLostError:
            team.replace(place)


def missing(side: Side, message: str) -> None:
    """Notes that a side has no such problem, or no worker to ask."""
    side.status, side.message = MISSING, message
