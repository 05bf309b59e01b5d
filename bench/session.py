"""One `kernelwright bench` from options to files: what to run, running it, keeping it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

from ..kernels.errors import ConfigError, DeviceError, NoKernelError
from ..kernels.machine import machine
from ..kernels.settings import check_threads
from ..kernels.spec import check_device, dtype_name
from . import first_call
from .baselines import Baseline, baselines, get_baselines
from .machine import Roof, environment, facts, git_state, measured_roof, versions
from .problems import Selection, select
from .runner import COLD, WARM, Request, Runner, Watcher, contenders_for, now
from .store import Run, store_path, timing_record
from .sweep.identity import request_key
from .sweep.keeping import Keeper
from .timing import Probe, Timing
from .whole import overhead

RESULTS = Path("kernelwright-results")
# Suites whose whole runs also measure first calls and call overhead: those that a person looks at.
WITH_EXTRAS = ("quick", "tiny", "all")

Tell = Callable[[str], None]


class Exit(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    PROBLEM = 1
    REGRESSED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    WRONG = 4
    MISSING = 5
    NOTHING = 6
    INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """What the command line asked for; the names are those of its options."""

    suite: str | None = None
    op: str | None = None
    device: str = "cpu"
    quick: bool = False
    threads: str | None = None
    dtype: str | None = None
    problem: str | None = None
    kernel: Sequence[str] = ()
    baseline: Sequence[str] = ()
    max_gflop: float | None = None
    json: Path | None = None
    html: Path | None = None
    cold: bool = False
    check: bool = False
    no_vendor: bool = False
    fresh_roof: bool = False
    extras: bool | None = None
    fresh: bool = False
    store: Path | None = None

    @property
    def suite_name(self) -> str:
        return self.suite or ("all" if self.problem else "quick")


@dataclass
class Session:
    """A run about to be made: checked options, and where its files go."""

    request: Request
    selection: Selection
    options: Options
    json: Path
    html: Path
    skipped_baselines: dict[str, str] = field(default_factory=dict)

    @property
    def with_extras(self) -> bool:
        options = self.options
        if options.extras is not None:
            return options.extras
        return options.suite_name in WITH_EXTRAS and options.problem is None and not options.check

    def run(self, probe: Probe, watcher: Watcher, tell: Tell) -> Run:
        """Measures everything, keeping each case when it is done. Ctrl-C ends it with status "interrupted".

        What the same request left unfinished within a day is taken over, unless `fresh` was asked for.

        Args:
            probe: clock and disturbance counters.
            watcher: told of each case.
            tell: told what goes on between the cases.

        Raises:
            ConfigError: the results can't be written; found out before anything is measured.
        """
        keeper = self._keeper(tell)
        run, status = keeper.run, "complete"
        if keeper.kept:
            watcher.resume(keeper.kept, keeper.resuming(self.request))
        try:
            roof = self._roof(run, tell)
            for case in Runner(self.request, probe, roof, keeper.done).cases(watcher):
                keeper.add(case)
            if self.with_extras:
                self._extras(keeper, probe, tell)
        except KeyboardInterrupt:
            status = "interrupted"
        keeper.close(status, self.request.order)
        return run

    def _keeper(self, tell: Tell) -> Keeper:
        options, run = self.options, self._empty_run()
        keeper = Keeper(
            run,
            request_key(self.request, run),
            self.json,
            chosen=options.json is not None,
            store=store_path(options.store),
            fresh=options.fresh,
            tell=tell,
        )
        self.json = keeper.json
        self.html = options.html or keeper.json.with_suffix(".html")
        return keeper

    def _empty_run(self) -> Run:
        options, request = self.options, self.request
        described = {b.name: b.describe() for b in request.baselines}
        return Run(
            suite=options.suite_name,
            started=now(),
            command=shlex.join(["kernelwright", *sys.argv[1:]]),
            machine=facts(),
            versions=versions(),
            environment=environment(),
            git=git_state(),
            settings={
                "threads": list(request.threads),
                "caches": list(request.caches),
                "kernels": [c.argument or "chosen" for c in request.contenders],
                "seed": request.seed,
                "timing": timing_record(request.timing),
            },
            baselines={**described, **self.skipped_baselines},
            left_out=dict(self.selection.left_out),
        )

    def _roof(self, run: Run, tell: Tell) -> Roof | None:
        if self.options.check:
            return None
        roof = measured_roof(self.request.threads, fresh=self.options.fresh_roof, progress=tell)
        run.roof = roof.to_json()
        return roof

    def _extras(self, keeper: Keeper, probe: Probe, tell: Tell) -> None:
        run = keeper.run
        tell("the cost of a call on 8x8 matrices")
        try:
            run.overhead = overhead.measure(probe, self.request.timing)
            keeper.save()
            ops = dict.fromkeys(problem.op for problem in self.selection.problems)
            run.first_call = first_call.measure(ops, progress=tell).to_json()
        except Exception as error:  # these are beside the point of a run, and must not cost it its results
            tell(f"not measured: {type(error).__name__}: {error}")


def prepare(options: Options) -> Session:
    """Checks all options before anything is measured.

    Raises:
        KernelwrightError: an unknown suite, problem, kernel, baseline, dtype or device, a number of threads
            that makes no sense; the text says what to write instead.
    """
    if check_device(options.device) != "cpu":
        raise DeviceError(f"this version has kernels for the device 'cpu' only, not {options.device!r}.")
    dtype = None if options.dtype is None else dtype_name(options.dtype)
    selection = select(
        options.suite, problem=options.problem, op=options.op, dtype=dtype, most_gflop=options.max_gflop
    )
    usable, skipped = ((), {}) if options.no_vendor else _baselines(options.baseline)
    timing = Timing().quick() if options.quick else Timing()
    ops = sorted({problem.op for problem in selection.problems})
    if options.kernel and len(ops) > 1:
        raise NoKernelError(
            f"--kernel needs one operation, the suite has {', '.join(ops)}: add --op {ops[0]}."
        )
    request = Request(
        suite=options.suite_name,
        problems=selection.problems,
        threads=parse_threads(options.threads),
        contenders=contenders_for(options.kernel, ops[0], options.device) if ops else (),
        baselines=usable,
        caches=(WARM, COLD) if options.cold and not options.check else (WARM,),
        timing=timing,
        time_them=not options.check,
    )
    json_path, html_path = _paths(options)
    return Session(request, selection, replace(options, dtype=dtype), json_path, html_path, skipped)


def parse_threads(words: str | None) -> tuple[int, ...]:
    """The numbers in `1,2`; without any, one thread and all cores.

    Raises:
        ConfigError: not a list of numbers of threads that this machine can run.
    """
    if words is None:
        return tuple(sorted({1, machine().cores}))
    counts = []
    for word in filter(None, re.split(r"[,\s]+", words)):
        number = int(word) if re.fullmatch(r"-?\d+", word) else word
        counts.append(check_threads(number, "--threads", "--threads 1,2"))
    if not counts:
        raise ConfigError("--threads is empty: write, for instance, --threads 1,2.")
    return tuple(dict.fromkeys(counts))


def _baselines(names: Sequence[str]) -> tuple[tuple[Baseline, ...], dict[str, str]]:
    """Those that can be used, and {name: what to install} for the others."""
    wanted = tuple(b for name in names for b in get_baselines(name)) if names else baselines()
    skipped = {b.name: why for b in wanted if (why := b.missing()) is not None}
    return tuple(b for b in wanted if b.name not in skipped), skipped


def _paths(options: Options) -> tuple[Path, Path]:
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    base = options.json or RESULTS / f"{stamp}-{options.suite_name}.json"
    return base, options.html or base.with_suffix(".html")


def exit_code(run: Run) -> Exit:
    """What a finished run means for a script."""
    if run.status == "interrupted":
        return Exit.INTERRUPTED
    if any(case.status in ("wrong", "suspect", "refused", "failed") for case in run.results):
        return Exit.WRONG
    if not any(case.status in ("timed", "checked") for case in run.results):
        return Exit.NOTHING
    return Exit.OK
