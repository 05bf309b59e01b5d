"""Comparisons by fresh processes, played with made-up workers: what is measured again, and what follows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.compare.contestant import Contestant
from kernelwright.bench.compare.duel import CONTROL, A, B, Entrant, Rules, orders
from kernelwright.bench.compare.remote import Launch, Limits, WorkerLostError
from kernelwright.bench.compare.result import Comparison, Duel
from kernelwright.bench.compare.session import exit_code
from kernelwright.bench.compare.suite import NOT_REPEATED, ONE_OF_MANY, UNCONFIRMED, Contest, correct
from kernelwright.bench.compare.verdict import Kind, Verdict
from kernelwright.bench.compare.worker import PROTOCOL
from kernelwright.bench.problems import select
from kernelwright.kernels.errors import ConfigError


class World:
    """What all made-up workers share: how long things take, and who was hired.

    Attributes:
        ratio: B's time over A's, given the number of the set of five rounds, from 0.
        control: the third process's time over A's.
        scatter: of every time.
        answers: {(side's kernel, request, problem): the answer instead, or an error to raise}.
        disturbed: how many samples to come are disturbed.
    """

    def __init__(
        self, ratio: Callable[[int], float] = lambda part: 1.0, control: float = 1.0, scatter: float = 0.01
    ):
        self.ratio, self.control, self.scatter = ratio, control, scatter
        self.answers: dict[tuple[str, str, str], Any] = {}
        self.disturbed = 0
        self.hired: list[Fake] = []
        self.rng = np.random.default_rng(3)
        self.waits: list[float] = []
        self.problem = ""

    def hire(self, launch: Launch, limits: Limits) -> Fake:
        self.hired.append(Fake(self, launch.module))
        return self.hired[-1]

    @property
    def round(self) -> int:
        return (len([f for f in self.hired if not f.extra]) - 1) // 3


class Fake:
    """A worker that computes nothing. `launch.module` says which side it is."""

    def __init__(self, world: World, side: str):
        self.world, self.side = world, side
        # The third of a round is A once more.
        ordinary = [f for f in world.hired if not f.extra]
        self.extra = bool(world.hired) and not world.hired[-1].ended and len(ordinary) % 3 == 0
        self.place = len(ordinary) % 3
        self.ended = False
        self.asked: list[str] = []

    def start(self) -> None:
        pass

    def send(self, do: str, **more: Any) -> None:
        self.asked.append(do)
        if do == "prepare":
            self.world.problem = more["problem"]["name"]

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        world, do = self.world, self.asked[-1]
        answer = world.answers.get((self.side, do, world.problem), {})
        if isinstance(answer, BaseException):
            raise answer
        if do == "hello":
            return {"protocol": PROTOCOL} | answer
        if do == "prepare":
            return {"kernel": f"k/{self.side}", "config": {}, "fallback": None, "first_call_s": 0.1} | answer
        if do == "verify":
            return {"verified": 1, "digests": ["d"], "error_norm": 1e-8} | answer
        if do == "time":
            return self._time() | answer
        return answer

    def _time(self) -> dict[str, Any]:
        world = self.world
        factor = {"A": 1.0, "B": world.ratio(world.round // 5)}[self.side]
        if self.place == CONTROL:
            factor = world.control
        disturbed = None
        if world.disturbed > 0:
            world.disturbed, disturbed = world.disturbed - 1, "switches"
        seconds = 1e-3 * factor * float(np.exp(world.rng.normal(0, world.scatter)))
        return {"seconds": seconds, "disturbed": disturbed, "clock": [25e-6, 25e-6]}

    def ask(self, do: str, seconds: float | None = None, **more: Any) -> dict[str, Any]:
        self.send(do, **more)
        return self.receive(seconds)

    def end(self, patience_s: float = 2.0) -> None:
        self.ended = True


SIDES = (
    Entrant(Contestant("one"), Launch(module="A"), {"text": "one"}),
    Entrant(Contestant("other"), Launch(module="B"), {"text": "other"}),
)


def contest(world: World, count: int = 1, save: Path | None = None, **rules: Any) -> Contest:
    problems = select("squares").problems[:count]
    comparison = Comparison({}, {}, results=[Duel(problem, 1) for problem in problems])
    return Contest(
        comparison, SIDES, Rules(**rules), save=save, hire=world.hire, wait=world.waits.append, seed=1
    )


def played(world: World, count: int = 1, **more: Any) -> Comparison:
    found = contest(world, count, **more).run()
    assert all(fake.ended for fake in world.hired), "a worker was left behind"
    return found


def test_the_order_of_turns_is_abba_with_a_random_lead_and_a_control_in_every_place() -> None:
    leads = set()
    for seed in range(20):
        found = list(orders(6, np.random.default_rng(seed)))
        assert sorted(found) == sorted(itertools.permutations((A, B, CONTROL)))
        first = [order.index(A) < order.index(B) for order in found]
        assert first in ([True, False] * 3, [False, True] * 3)
        leads.add(first[0])
    assert leads == {True, False}


def test_what_is_the_same_takes_five_rounds_of_fresh_processes() -> None:
    world = World()
    (duel,) = played(world).results
    assert duel.verdict is not None
    assert (duel.verdict.kind, len(duel.rounds), duel.again) == (Kind.SAME, 5, [])
    assert len(world.hired) == 15
    assert [len(each.pairs) for each in duel.rounds] == [len(each.control) for each in duel.rounds] == [6] * 5
    assert duel.control is not None
    assert duel.control.kind is Kind.SAME
    # The oracle, and all that is computed beside the timing, comes when everything has been timed.
    assert world.hired[A].asked == ["hello", "prepare", "size", *["time"] * 6, "verify", "drop"]


def test_slower_is_measured_again_afresh_and_then_stands() -> None:
    world = World(lambda part: 1.15)
    found = played(world)
    (duel,) = found.results
    assert duel.verdict is not None
    assert (duel.verdict.kind, len(duel.rounds), len(duel.again)) == (Kind.SLOWER, 5, 5)
    assert duel.verdict.ratio == pytest.approx(1.15, rel=0.02)
    assert exit_code(found) == 1


def test_slower_that_does_not_repeat_does_not_stand() -> None:
    found = played(World(lambda part: 1.15 if part == 0 else 1.0))
    (duel,) = found.results
    assert duel.verdict is not None
    assert (duel.verdict.kind, duel.note) == (Kind.INCONCLUSIVE, NOT_REPEATED)
    assert exit_code(found) == 3


def test_pairs_are_doubled_once_when_they_say_too_little() -> None:
    (duel,) = played(World(scatter=0.4)).results
    assert duel.verdict is not None
    assert (duel.verdict.kind, len(duel.rounds), duel.again) == (Kind.INCONCLUSIVE, 10, [])


def test_faster_needs_no_repetition() -> None:
    found = played(World(lambda part: 0.8))
    (duel,) = found.results
    assert duel.verdict is not None
    assert (duel.verdict.kind, len(duel.rounds), duel.again) == (Kind.FASTER, 5, [])
    assert exit_code(found) == 0


def test_only_what_needs_more_is_measured_on() -> None:
    world = World(lambda part: 1.15 if world.problem.startswith("square-64") else 1.0)
    found = played(world, count=3)
    assert [len(duel.again) for duel in found.results].count(5) == 1
    assert {len(duel.rounds) for duel in found.results} == {5}
    kinds = [duel.verdict.kind for duel in found.results if duel.verdict is not None]
    assert Counter(kinds) == {Kind.SLOWER: 1, Kind.SAME: 2}


def test_a_control_that_is_not_the_same_voids_the_run() -> None:
    found = played(World(control=1.2), count=2)
    assert found.void is not None
    assert "A beside itself was 1." in found.void
    assert exit_code(found) == 3


def test_disturbed_turns_are_taken_again_after_ever_longer_pauses() -> None:
    world = World()
    world.disturbed = 3
    (duel,) = played(world).results
    assert duel.rounds[0].rejected == {"switches": 1}
    assert len(duel.rounds[0].pairs) == 6
    assert duel.rounds[0].noisy == 0
    assert world.waits == [0.02]


def test_turns_that_stay_disturbed_are_kept_and_counted() -> None:
    world = World()
    world.disturbed = 10**6
    (duel,) = played(world, patience_s=0.3).results
    assert [each.noisy for each in duel.rounds] == [6] * 5
    assert [len(each.pairs) for each in duel.rounds] == [6] * 5
    assert sum(world.waits) == pytest.approx(5 * 0.3)
    assert world.waits[:3] == [0.02, 0.04, 0.08]


@pytest.mark.parametrize("status", ["wrong", "failed", "refused"])
@pytest.mark.parametrize("request_", ["prepare", "size", "time", "verify"])
def test_a_side_that_is_not_right_is_timed_no_further(status: str, request_: str) -> None:
    world = World()
    names = [p.name for p in select("squares").problems[:2]]
    world.answers["B", request_, names[0]] = {"error": "no good", "status": status}
    found = played(world, count=2)
    bad, good = found.results
    assert (bad.b.status, bad.b.message, bad.verdict, bad.rounds) == (status, "no good", None, [])
    assert good.verdict is not None
    assert good.verdict.kind is Kind.SAME
    assert exit_code(found) == 4
    prepared = [fake.asked.count("prepare") for fake in world.hired]
    assert prepared[:2] + prepared[3:] == [2] * 2 + [1] * 12


def test_what_is_suspicious_counts_when_the_next_process_finds_it_too() -> None:
    world = World()
    (name,) = [p.name for p in select("squares").problems[:1]]
    world.answers["B", "verify", name] = {"error": "it remembers", "status": "suspect"}
    found = played(world)
    (duel,) = found.results
    assert (duel.b.status, duel.b.message, duel.verdict) == ("suspect", "it remembers", None)
    assert len(world.hired) == 6
    assert exit_code(found) == 4


@pytest.mark.parametrize(("processes", "status"), [(1, "suspect"), (5, "ok")])
def test_a_suspicion_that_is_not_found_again_is_dropped(processes: int, status: str) -> None:
    world = World()
    (name,) = [p.name for p in select("squares").problems[:1]]

    class Once(dict[str, Any]):
        """An answer that is given once."""

        def __ror__(self, other: Any) -> Any:
            answer = dict(self)
            self.clear()
            return other | answer

    world.answers["B", "verify", name] = Once(error="it remembers", status="suspect")
    (duel,) = played(world, processes=processes).results
    assert duel.b.status == status


def test_both_sides_failures_are_told() -> None:
    world = World()
    name = select("squares").problems[0].name
    for side in "AB":
        world.answers[side, "prepare", name] = {"error": f"no {side}", "status": "unsupported"}
    found = played(world)
    (duel,) = found.results
    assert (duel.a.message, duel.b.message) == ("no A", "no B")
    assert exit_code(found) == 6


def test_a_lost_worker_is_replaced_for_the_problems_that_follow() -> None:
    world = World()
    names = [p.name for p in select("squares").problems[:2]]
    world.answers["B", "time", names[0]] = WorkerLostError("was killed by SIGSEGV")
    found = played(world, count=2)
    bad, good = found.results
    assert (bad.b.status, bad.b.message) == ("failed", "was killed by SIGSEGV")
    assert good.verdict is not None
    assert good.verdict.kind is Kind.SAME
    assert len(world.hired) == 16


@pytest.mark.parametrize("answer", [{"protocol": PROTOCOL + 1}, WorkerLostError("ended with code 1")])
def test_a_revision_with_an_older_worker_is_missing_and_told_what_to_do(answer: Any) -> None:
    world = World()
    world.answers["A", "hello", ""] = answer
    found = played(world)
    (duel,) = found.results
    assert duel.a.status == "missing"
    assert "kernelwright bench --json" in duel.a.message
    assert exit_code(found) == 5


def test_ctrl_c_keeps_what_was_measured_and_confirms_nothing(tmp_path: Path) -> None:
    class Impatient:
        rounds = 0

        def round(self, number: int, planned: int, duels: int) -> None:
            Impatient.rounds = number

        def begin(self, duel: Duel) -> None:
            if Impatient.rounds == 7:
                raise KeyboardInterrupt

        def decided(self, duel: Duel) -> None:
            pass

    world = World(lambda part: 1.2)
    made = contest(world, save=tmp_path / "c.json")
    made._watcher = Impatient()
    found = made.run()
    assert all(fake.ended for fake in world.hired)
    (duel,) = found.results
    assert (found.status, len(duel.rounds), len(duel.again)) == ("interrupted", 5, 1)
    assert duel.verdict is not None
    assert duel.verdict.kind is Kind.INCONCLUSIVE
    assert exit_code(found) == 130
    kept = Comparison.load(tmp_path / "c.json")
    assert kept.status == "interrupted"
    assert [each.pairs for each in kept.results[0].rounds] == [each.pairs for each in duel.rounds]


def test_slower_without_its_repetition_is_inconclusive() -> None:
    world = World(lambda part: 1.2)
    made = contest(world)
    made.comparison.results[0].rounds = played(World(lambda part: 1.2)).results[0].rounds
    made._conclude()
    (duel,) = made.comparison.results
    assert duel.verdict is not None
    assert (duel.verdict.kind, duel.note) == (Kind.INCONCLUSIVE, UNCONFIRMED)


def test_the_document_is_saved_after_each_round(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    seen = []

    class Reader:
        def round(self, number: int, planned: int, duels: int) -> None:
            seen.append((Comparison.load(path).status, len(Comparison.load(path).results[0].rounds)))

        def begin(self, duel: Duel) -> None:
            pass

        def decided(self, duel: Duel) -> None:
            pass

    made = contest(World(), save=path)
    made._watcher = Reader()
    made.run()
    assert seen == [("running", n) for n in range(5)]
    assert Comparison.load(path).status == "complete"


def test_a_place_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    world = World()
    with pytest.raises(ConfigError, match="--json"):
        contest(world, save=tmp_path / "file" / "c.json").run()
    assert not world.hired


def test_among_many_problems_a_lucky_slower_does_not_stand() -> None:
    (problem,) = select(problem="square-64").problems[:1]
    duels = [Duel(problem, 1) for _ in range(20)]
    for i, duel in enumerate(duels):
        duel.verdict = Verdict(Kind.SAME, 1.0, 0.99, 1.01, 0.05, 0.99, 30, 0.5 + i / 100)
    duels[3].verdict = Verdict(Kind.SLOWER, 1.08, 1.051, 1.1, 0.05, 0.99, 30, 0.008)
    correct(duels, 0.05)
    assert duels[3].verdict.kind is Kind.INCONCLUSIVE
    assert duels[3].note == ONE_OF_MANY
    duels[3].verdict = Verdict(Kind.SLOWER, 1.08, 1.051, 1.1, 0.05, 0.99, 30, 0.0001)
    correct(duels, 0.05)
    assert duels[3].verdict.kind is Kind.SLOWER


@pytest.mark.parametrize("bad", [{"processes": 0}, {"pairs": -1}, {"pairs": 2.5}])
def test_rules_that_make_no_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        Rules(**bad)
