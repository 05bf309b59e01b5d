"""How often comparisons are wrong: the same code against itself, and with a slowdown planted in it.

For each slowdown so many comparisons by the full procedure, in fresh processes, on one problem; half of the
time a neighbour loads every core if that is asked for. What is counted are the verdicts at a threshold of 5%:

    0%     the same code: faster and slower are false; at most 1 in 40
    3%     below the threshold: slower at most in 20% of the runs
    10%    slower at least in 38 of 40

The document is written after every comparison, and the next call goes on from there.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels.atomic import write_atomically
from ...kernels.errors import ConfigError
from ..compare.contestant import Contestant, find
from ..compare.duel import Entrant, Rules
from ..compare.result import Comparison, Duel
from ..compare.suite import Contest
from ..compare.trees import present_launch
from ..compare.verdict import Kind
from ..machine import facts, versions
from ..problems import Problem, select
from ..store import dumps
from ..timing import Call, Lane, SystemProbe, Timing, closure_loop
from ..timing.race import timed
from . import planted
from .load import burning_share, neighbour

KIND, SCHEMA = "kernelwright-lab-errors", 1
PROBLEM = "square-256"
# Of the delay loop while it is calibrated: about as long as the product itself.
TRIED_DELAY = 50_000
CALIBRATIONS = 60
# What may be false among the runs: of the same code, of a slowdown below the threshold, and of one above.
MOST_FALSE, MOST_BELOW, LEAST_FOUND = 1 / 40, 0.20, 38 / 40


@dataclass
class Trial:
    """One comparison.

    Attributes:
        slowdown: what was planted, 0.1 for 10%.
        kind: the verdict; "void" when the control failed; else why there is none.
        ratio, low, high: as the verdict's.
        control: the ratio of A beside itself.
        pairs, noisy: measured; kept although disturbed.
        rejected: turns taken again, by reason.
        note: the duel's.
        seconds: what it took.
    """

    slowdown: float
    kind: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    control: float | None = None
    pairs: int = 0
    noisy: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    note: str = ""
    seconds: float = 0.0


@dataclass
class Experiment:
    """All comparisons, as they are kept.

    Attributes:
        runs: of each slowdown.
        slowdowns: those planted.
        load: whether a neighbour loads the machine for a random half of the time.
        seed: of the neighbour.
        delays: {slowdown: multiplications in the delay loop}.
        call_s: seconds of a call without delay.
        burning: the share of the time in which the neighbour worked.
        machine, versions, started: where and when.
        trials: done so far.
    """

    runs: int
    slowdowns: tuple[float, ...]
    load: bool
    seed: int = 0
    delays: dict[str, int] = field(default_factory=dict)
    call_s: float = 0.0
    burning: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    trials: list[Trial] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "trials"}
        return {"kind": KIND, "schema": SCHEMA, **rest, "results": [asdict(trial) for trial in self.trials]}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Experiment:
        names = [f.name for f in fields(cls) if f.name != "trials"]
        found = cls(**{name: record[name] for name in names})
        found.slowdowns = tuple(found.slowdowns)
        found.trials = [Trial(**trial) for trial in record["results"]]
        return found

    @property
    def left(self) -> list[float]:
        """The slowdowns of the comparisons that are still to be made, taking turns."""
        done = Counter(trial.slowdown for trial in self.trials)
        return [s for run in range(self.runs) for s in self.slowdowns if run >= done[s]]

    def counts(self, slowdown: float) -> Counter[str]:
        """How often each verdict came for a slowdown."""
        return Counter(trial.kind for trial in self.trials if trial.slowdown == slowdown)

    def holds(self, slowdown: float) -> bool | None:
        """Whether what is demanded for a slowdown holds so far; None for one without a demand."""
        counts = self.counts(slowdown)
        total = counts.total()
        if slowdown == 0:
            return counts[Kind.SLOWER] + counts[Kind.FASTER] <= max(1, MOST_FALSE * total)
        if slowdown <= 0.03:
            return counts[Kind.SLOWER] <= MOST_BELOW * total
        if slowdown >= 0.10:
            return counts[Kind.SLOWER] >= LEAST_FOUND * total
        return None


def open_experiment(wanted: Experiment, path: Path) -> Experiment:
    """What a file has of an experiment already, or the new one.

    Raises:
        ConfigError: the file holds another experiment, or something else.
    """
    if not path.exists():
        return wanted
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = Experiment.from_json(record) if record.get("kind") == KIND else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = None
    if found is None or record.get("schema") != SCHEMA:
        raise ConfigError(f"{path} holds something else: write --json with another path.")
    same = ("slowdowns", "load", "seed")
    if any(getattr(found, name) != getattr(wanted, name) for name in same):
        raise ConfigError(
            f"{path} holds an experiment with slowdowns {found.slowdowns}, load {found.load} and seed "
            f"{found.seed}: write --json with another path, or take the file away."
        )
    found.runs = wanted.runs
    return found


def run(
    experiment: Experiment, path: Path, tell: Callable[[Trial], None], rules: Rules | None = None
) -> Experiment:
    """Makes the comparisons that are left, saving after each.

    Args:
        experiment: what is done so far.
        path: where it is kept.
        tell: told of each comparison.
        rules: of the comparisons.
    """
    (problem,) = select("squares", problem=PROBLEM).problems
    if not experiment.delays:
        experiment.started = datetime.now(UTC).isoformat(timespec="seconds")
        experiment.machine, experiment.versions = facts(), versions()
        experiment.call_s, per_step = calibrated(problem)
        for slowdown in experiment.slowdowns:
            experiment.delays[str(slowdown)] = round(slowdown * experiment.call_s / per_step)
    for slowdown in experiment.left:
        number = len(experiment.trials)
        started = time.monotonic()
        if experiment.load:
            seed = 1000 * experiment.seed + number
            with neighbour(seed):
                trial = compared(problem, slowdown, experiment.delays[str(slowdown)], rules or Rules())
            share = burning_share(seed, time.monotonic() - started)
            before = experiment.burning or 0.0
            experiment.burning = before + (share - before) / (number + 1)
        else:
            trial = compared(problem, slowdown, experiment.delays[str(slowdown)], rules or Rules())
        trial.seconds = time.monotonic() - started
        experiment.trials.append(trial)
        write_atomically(path, dumps(experiment.to_json()))
        tell(trial)
    return experiment


def compared(problem: Problem, slowdown: float, delay: int, rules: Rules) -> Trial:
    """One comparison of the planted kernel without and with a delay.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    launch, kernel = present_launch(), str(planted.written())
    sides = (
        Entrant(Contestant(kernel), launch, {"text": "planted.py"}),
        Entrant(Contestant(kernel, {"delay": delay}), launch, {"text": f"planted.py:delay={delay}"}),
    )
    comparison = Comparison({}, {}, results=[Duel(problem, 1)])
    Contest(comparison, sides, rules, inspect=False).run()
    if comparison.status == "interrupted":
        raise KeyboardInterrupt
    (duel,) = comparison.results
    if duel.verdict is None:
        return Trial(slowdown, f"{duel.a.status}/{duel.b.status}", note=duel.a.message or duel.b.message)
    rounds = [*duel.rounds, *duel.again]
    rejected: Counter[str] = Counter()
    for each in rounds:
        rejected.update(each.rejected)
    return Trial(
        slowdown,
        "void" if comparison.void is not None else str(duel.verdict.kind),
        duel.verdict.ratio,
        duel.verdict.low,
        duel.verdict.high,
        None if duel.control is None else duel.control.ratio,
        duel.verdict.pairs,
        sum(each.noisy for each in rounds),
        dict(rejected),
        duel.note,
    )


def calibrated(problem: Problem) -> tuple[float, float]:
    """Seconds of a call without delay, and of one step of the delay loop: the least of many batches."""
    probe, timing, rng = SystemProbe(), Timing(), np.random.default_rng(0)
    kernel = find(str(planted.written()), problem.op)
    (output,) = problem.empty_outputs()
    arrays = (*problem.draw(), output)
    specs, lanes = (*problem.specs, *problem.outputs), []
    for delay in (0, TRIED_DELAY):
        launch = kernel.bind(specs, problem.complete, {"delay": delay}, 1)
        lanes.append(Lane(f"delay {delay}", closure_loop, [Call((partial(launch, *arrays),))]))
        lanes[-1].run(lanes[-1].some(1))
        lanes[-1].measure_batch(probe, timing)
    # By turns, so that both see the machine at its best.
    turns = [[timed(lane, probe, timing, rng, None)[0] for lane in lanes] for _ in range(CALIBRATIONS)]
    plain, delayed = (min(times) for times in zip(*turns, strict=True))
    return plain, (delayed - plain) / TRIED_DELAY


def median_seconds(trials: Sequence[Trial]) -> float:
    """The median time that one comparison took."""
    return statistics.median(trial.seconds for trial in trials) if trials else 0.0
