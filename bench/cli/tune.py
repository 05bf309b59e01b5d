"""`kernelwright tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from ...kernels import tuning
from ...kernels.errors import KernelwrightError
from ..problems import select
from ..report.terminal import console_for
from ..session import parse_threads
from .app import DType, MaxGflop, ProblemName, SuiteName, Threads, app, reporting
from .progress import Progress


@app.command()
@reporting
def tune(
    suite: SuiteName = None,
    problem: ProblemName = None,
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
    chosen = select(suite, problem=problem, dtype=dtype, most_gflop=max_gflop)
    counts = parse_threads(threads)
    console = console_for()
    with Progress(console, len(chosen.problems) * len(counts)) as progress:
        for case in chosen.problems:
            for count in counts:
                progress.begin(case, count, "")
                result = tuning.tune(
                    case.operation, case.specs, case.attrs, threads=count, budget_s=budget, force=force
                )
                progress.line(_tuned_line(case.name, result))
    console.print(f"Kept in {tuning.default_cache().file}", markup=False, soft_wrap=True)


def _tuned_line(name: str, result: tuning.TuningResult) -> str:
    from ...kernels.explain import config_text, duration_text

    head = f"{name} on {result.threads} thread{'s' if result.threads > 1 else ''}"
    if result.best is None:
        why = result.rejected[0][2] if result.rejected else "no kernel supports it"
        return f"{head}: nothing ran right: {why}"
    best, known = result.best, sum(timing.from_cache for timing in result.timings)
    return (
        f"{head}: {duration_text(best.seconds)}, {best.kernel.id} {config_text(best.config)}; "
        f"{len(result.timings)} configurations timed, {known} of them known before, "
        f"{len(result.untried)} untried; took {result.seconds:.1f} s: {result.compiling}"
    )
