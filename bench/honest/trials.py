"""The fooling suite: every trick of `tricks/` through the ordinary path of `kernelwright bench`, and honest
kernels beside them, which must come through.

Each trial runs in a forked process: a trick may replace clocks and judges, leave threads behind, or crash.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ...kernels.machine import machine
from ...kernels.registry import kernels_for
from ..machine import Roof
from ..problems import Problem
from ..problems import select as problems_named
from ..problems.problem import matmul
from ..store import Case
from ..timing import SystemProbe, Timing
from . import least
from .fences import available

NOTHING = "nothing-64x64x0"
CAUGHT = ("wrong", "suspect", "refused")
TIMING = Timing(min_pairs=6, max_pairs=6, budget_s=0.02, most_rejects=0.0, rival_margin=1e9)
LONGEST_S = 60.0
# The machine's FLOP/s are looked for once, for all trials; a byte of the fastest level is one of L2.
_LEVEL = 1 << 20


@dataclass(frozen=True)
class Trial:
    """A kernel to run, and on what.

    Attributes:
        name: of the trick; for an honest kernel the problem with its threads.
        module: of `tricks/`; "" for an honest kernel, the one that a call would choose.
        problem: its name.
        threads: how many it may use.
    """

    name: str
    module: str = ""
    problem: str = "square-64"
    threads: int = 1

    @property
    def honest(self) -> bool:
        return not self.module

    def missing(self) -> str | None:
        """Why it can't be tried here; None when it can."""
        if self.name == "torchs_operator" and importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        if self.name == "hinders_the_rival" and machine().cores < 2:
            return "there is one CPU"
        if self.module == "helpers" and not available():
            return "this system has no fences or no /proc"
        return None


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        name: of the trial.
        tries: what the trick does, in its own words.
        status: as of a case; "skipped", or "died" when the process did.
        caught_by: the checks that found something, or "proof", "verified call", "problem"; "" for none.
        message: what a user reads.
        honest: whether it was to come through.
        seconds: what it took.
    """

    name: str
    tries: str
    status: str
    caught_by: str
    message: str
    honest: bool
    seconds: float = 0.0

    @property
    def as_it_should(self) -> bool:
        """Tricks are caught, honest kernels are not; what can't be tried here counts as neither."""
        if self.status == "skipped":
            return True
        return self.status == "timed" if self.honest else self.status in CAUGHT


def _of(module: str, *names: str, **more: Any) -> tuple[Trial, ...]:
    return tuple(Trial(name, module, **more) for name in names)


TRICKS = (
    *_of("memory", "by_address", "by_sample", "by_contents", "by_identity", "first_calls", "proof_only"),
    *_of("memory", "sees_poison", "stale_output"),
    *_of("shortcuts", "half_the_rows", "in_half_precision", "in_two_halves", "even_sizes", "plain_strides"),
    *_of("shortcuts", "zeros", problem=NOTHING),
    *_of("shortcuts", "scratch_in_inputs", "repairs_inputs_later"),
    *_of("helpers", "numpys_matmul", "sgemm_by_address", "torchs_operator", "returns_early"),
    *_of("helpers", "more_threads", problem="square-128"),
    *_of("helpers", "another_process", problem="square-128"),
    *_of("tampering", "slow_clock", "slow_probe", "bribed_checker", "patched_numpy", "stolen_oracle"),
    *_of("tampering", "looks_at_callers", "other_code", "another_kernel", "hinders_the_rival"),
)
# The first of them are those that the tests try.
FEW = 5
_HONEST = (
    "square-64",
    "skinny-packed-4x1024x1024",
    "mobilenet-dw3x3s1-144-56-b1-nhwc",
    "lstm-t50-b1-h128",
    "lstm-cell-b1-h256",
    "tiny-8",
    "odd-127x129x131",
    "transposed-ta-128",
    "batched-64x32x32x32",
    "square-128-bf16",
    "resnet50-conv3-3x3s1-128-128-28-b1-nhwc",
    "resnet50-conv5-3x3s1-512-512-7-b1-nchw",
    "lstm-training-t50-b1-h128",
    "gru-lengths-t50-b16-h256",
)
HONEST = tuple(
    Trial(f"{problem}, {threads} thread{'s' if threads > 1 else ''}", problem=problem, threads=threads)
    for problem in _HONEST
    for threads in (1, 2)
)


def run(trials: Iterable[Trial]) -> Iterator[Outcome]:
    """Yields the outcome of each trial, in order. Call it in a process that has started no threads."""
    roof = _best_roof()
    for trial in trials:
        why = trial.missing()
        if why is not None:
            yield Outcome(trial.name, "", "skipped", "", why, trial.honest)
        else:
            yield _forked(trial, roof)


def _best_roof() -> Roof | None:
    roof = Roof()
    for threads in (1, 2):
        rates = least.bursts("float32", threads)
        if rates is None:
            return None
        roof.fma[threads], roof.read[threads] = {"float32": rates.flops}, {_LEVEL: rates.bytes}
        roof.triad[threads] = rates.bytes
    return roof


def _forked(trial: Trial, roof: Roof | None) -> Outcome:
    started = time.monotonic()
    _problem(trial.problem)  # found here, so that suites are built once
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setpgid(0, 0)
        try:
            outcome = attempt(trial, roof)
        except BaseException as error:  # whatever a trick raises, the parent must hear of it
            outcome = Outcome(trial.name, "", "died", "", f"{type(error).__name__}: {error}", trial.honest)
        os.write(writer, json.dumps(asdict(outcome)).encode())
        # Without the interpreter's clearing up: threads of the trick may still run.
        os._exit(0)
    os.close(writer)
    said = _read(reader, started + LONGEST_S)
    os.close(reader)
    _kill_group(pid)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - started
    if not said:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "no answer"
        return Outcome(trial.name, "", "died", "", how, trial.honest, seconds)
    return Outcome(**{**json.loads(said), "seconds": seconds})


def _read(reader: int, deadline: float) -> bytes:
    """What the process wrote until it ended, or the deadline came."""
    said = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        more = os.read(reader, 1 << 16)
        if not more:
            break
        said += more
        if said.endswith(b"}"):  # a process that a trick started may keep the pipe open
            break
    return said


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def attempt(trial: Trial, roof: Roof | None) -> Outcome:
    """Runs a trial in this process, by the runner that `kernelwright bench` uses."""
    from ..runner import Contender, Request, Runner
    from .seal import Seal

    seal, contender, tries = Seal.now(), Contender(), ""
    if trial.module:
        importlib.import_module(f".tricks.{trial.module}", __package__)
        (chosen,) = [
            k
            for k in kernels_for("matmul")
            if k.name == trial.name and f".{trial.module}" in k.function.__module__
        ]
        contender, tries = Contender(chosen.id, trial.name, seal), (chosen.function.__doc__ or "").strip()
    request = Request(
        suite="fooling",
        problems=(_problem(trial.problem),),
        threads=(trial.threads,),
        contenders=(contender,),
        timing=TIMING,
    )
    runner = Runner(request, SystemProbe(), roof)
    (case,) = runner.cases(_Nobody())
    checks = dict.fromkeys(finding.check for finding in runner.findings)
    return Outcome(
        trial.name,
        tries,
        case.status,
        ", ".join(checks) or _stage(case),
        case.message,
        trial.honest,
    )


def _stage(case: Case) -> str:
    """What stopped a case that the inspection did not get to see the end of."""
    if case.status == "refused":
        return "problem"
    if case.status != "wrong":
        return ""
    return "verified call" if case.message.startswith("a timed call") else "proof"


def _problem(name: str) -> Problem:
    if name == NOTHING:
        return matmul(NOTHING, (64, 0), (0, 64), group="fooling", source="a sum of no terms")
    return problems_named(problem=name).problems[0]


class _Nobody:
    """A watcher who is not interested."""

    def begin(self, problem: Problem, threads: int, cache: str) -> None:
        """A case starts."""

    def resume(self, kept: int, words: str) -> None:
        """Cases are there already."""

    def end(self, case: Case) -> None:
        """A case is finished."""
