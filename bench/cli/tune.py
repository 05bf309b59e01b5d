"""`kernelwright tune`."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from ...kernels import tuning
from ...kernels.errors import KernelwrightError
from ...kernels.spec import check_device
from ..ours import Ours
from ..problems import select
from ..problems.problem import Problem
from ..problems.training import training_op
from ..report.terminal import console_for
from ..session import parse_threads
from .app import DType, MaxGflop, ProblemName, SuiteName, Threads, app, reporting
from .progress import Progress


@app.command()
@reporting
def tune(
    suite: SuiteName = None,
    problem: ProblemName = None,
    device: Annotated[
        str, typer.Option(help="cpu; or cuda, whose suites are tuned (what `make gpu` tunes), quick and all.")
    ] = "cpu",
    threads: Threads = None,
    dtype: DType = None,
    max_gflop: MaxGflop = None,
    budget: Annotated[float, typer.Option(help="Seconds for each problem and number of threads.")] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Measure again what is already known.")] = False,
) -> None:
    """Measure the kernels' configurations for a suite or a problem, and remember the fastest."""
    if suite is None and problem is None:
        raise KernelwrightError(
            "say what to tune: a suite, such as `kernelwright tune quick`, or --problem NAME."
        )
    check_device(device)
    counts: tuple[int, ...]
    if device != "cpu":
        cases, counts = _on_gpu(device, suite, problem, dtype, max_gflop), (1,)
    else:
        cases = list(select(suite, problem=problem, dtype=dtype, most_gflop=max_gflop).problems)
        counts = parse_threads(threads)
    console = console_for()
    with Progress(console, len(cases) * len(counts)) as progress:
        for case in cases:
            for count in counts:
                progress.begin(case, count, "")
                results = _tuned(case, device, count, budget, force)
                progress.line("\n".join(_tuned_line(case.name, result) for result in results))
    console.print(f"Kept in {tuning.default_cache().file}", markup=False, soft_wrap=True)


def _tuned(case: Problem, device: str, threads: int, budget: float, force: bool) -> list[tuning.TuningResult]:
    """What a search found, for each op that the problem calls: forward and backward are two."""
    calls = [(case.operation, case.specs, case.attrs)]
    if device != "cpu":
        from ..cuda.cases.job import specs_on

        calls = [(case.operation, specs_on(case, device), case.attrs)]
    elif training_op(case.op) is not None:
        calls = Ours(case).calls(case.draw())
    return [
        tuning.tune(op, specs, attrs, threads=threads, budget_s=budget / len(calls), force=force)
        for op, specs, attrs in calls
    ]


def _on_gpu(
    device: str, suite: str | None, problem: str | None, dtype: str | None, max_gflop: float | None
) -> list[Problem]:
    """The problems to tune on a GPU; what their configurations run is compiled first, on all cores."""
    from ...kernels.cuda.launch import runtime
    from ..cuda import ahead
    from ..cuda.cases.job import Job
    from ..cuda.cases.jobs import races, searches

    runtime().number(device)  # raises where there is no such GPU
    wanted: Iterable[tuple[Problem, bool | None]]
    if suite == "tuned":
        wanted = searches("all")
    elif suite in (None, "quick", "all"):
        wanted = races(suite or "all")
    else:
        wanted = ((case, None) for case in select(suite).problems)
    found = [
        (case, extra)
        for case, extra in wanted
        if (problem is None or fnmatchcase(case.name, problem))
        and dtype in (None, case.dtype)
        and (max_gflop is None or case.cost.flops <= max_gflop * 1e9)
    ]
    if not found:
        raise KernelwrightError(
            "nothing matches; `kernelwright tune tuned --device cuda` tunes what `make gpu` tunes."
        )
    jobs = [Job("search", f"search {case.name}", case, extra) for case, extra in found]
    ahead.compiled(jobs, typer.echo)
    return [case for case, _ in found]


def _tuned_line(name: str, result: tuning.TuningResult) -> str:
    from ...kernels.explain import config_text, duration_text

    place = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    head = f"{name} on {place if '@cuda' not in result.problem else result.problem.rpartition(' on ')[2]}"
    if result.best is None:
        why = result.rejected[0][2] if result.rejected else "no kernel supports it"
        return f"{head}: nothing ran right: {why}"
    best, known = result.best, sum(timing.from_cache for timing in result.timings)
    return (
        f"{head}: {duration_text(best.seconds)}, {best.kernel.id} {config_text(best.config)}; "
        f"{len(result.timings)} configurations timed, {known} of them known before, "
        f"{len(result.untried)} untried; took {result.seconds:.1f} s: {result.compiling}"
    )
