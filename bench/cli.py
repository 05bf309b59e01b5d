"""The command line: `kernelwright bench | doctor | list | explain | tune`."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

# Before NumPy is loaded: its OpenBLAS lets idle workers spin for 2**28 cycles, 100 ms in which they take a
# core from whoever is timed next. A race would wait for that after every batch; with 2**20 it waits for 0.4
# ms. Calls in a batch follow each other at once, and calls before it wake the workers up, so that NumPy's own
# times are the same.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

from ..kernels import dispatch, registry, tuning
from ..kernels.errors import CacheWarning, ExtensionWarning, KernelwrightError, did_you_mean
from ..kernels.op import Op, get_op, ops
from ..kernels.settings import using
from ..kernels.spec import TensorSpec
from . import doctor as doctors
from .baselines import baselines
from .call_words import parse_attrs, parse_specs
from .ours import Ours
from .problems import get_suite, select, suites
from .progress import Progress
from .report import print_run, write_page
from .report.terminal import console_for
from .session import Exit, Options, exit_code, parse_threads, prepare

P = ParamSpec("P")

app = typer.Typer(
    name="kernelwright",
    help="Write a compute kernel by hand; have it proven, tuned and raced against the vendor's library.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Suites of whole networks; their modules load all of the engine.
WHOLE = ("steps", "inference", "overhead", "memory")

SuiteName = Annotated[str | None, typer.Argument(help="A suite; `kernelwright list suites` shows them.")]
Threads = Annotated[
    str | None, typer.Option(help="Numbers of threads, such as 1,2. Default: 1 and all cores.")
]
ProblemName = Annotated[str | None, typer.Option(help="One problem, or a pattern such as 'square-*'.")]
MaxGflop = Annotated[float | None, typer.Option(help="Leave out larger problems.")]
DType = Annotated[str | None, typer.Option(help="Keep problems of this dtype, such as float32.")]


def _fail(error: Exception) -> typer.Exit:
    """Says what is wrong, on stderr, and ends with the code for wrong usage."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
    return typer.Exit(Exit.USAGE)


def _reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Turns this package's errors into a line and an exit code; a bug stays a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            for category in (CacheWarning, ExtensionWarning):
                warnings.simplefilter("always", category)
            warnings.showwarning = _show_warning
            try:
                command(*args, **kwargs)
            except KernelwrightError as error:
                raise _fail(error) from None

    return wrapped


def _show_warning(message: Warning | str, category: type[Warning], *args: object, **kwargs: object) -> None:
    name = "warning" if issubclass(category, CacheWarning | ExtensionWarning) else category.__name__
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"{name}: {message}", markup=False)


@app.command()
@_reporting
def bench(
    suite: SuiteName = None,
    op: Annotated[str | None, typer.Option(help="Keep problems of this operation.")] = None,
    whole_suite: Annotated[str | None, typer.Option("--suite", help="The suite, as an option.")] = None,
    device: Annotated[
        str, typer.Option(help="cpu; or cuda: the suites all and quick, proven too with --check.")
    ] = "cpu",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer pairs: faster, wider intervals.")] = False,
    threads: Threads = None,
    dtype: DType = None,
    problem: ProblemName = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            help="Time this kernel instead of the one a call would choose: a name, an id, or a .py file."
        ),
    ] = None,
    baseline: Annotated[list[str] | None, typer.Option(help="Race against this baseline only.")] = None,
    max_gflop: MaxGflop = None,
    json: Annotated[Path | None, typer.Option(help="Where the results go.")] = None,
    html: Annotated[Path | None, typer.Option(help="Where the page goes.")] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Time with cold caches too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Prove results right, time nothing.")] = False,
    no_vendor: Annotated[bool, typer.Option("--no-vendor", help="Time our kernels alone.")] = False,
    fresh_roof: Annotated[
        bool, typer.Option("--fresh-roof", help="Measure the machine's roof again.")
    ] = False,
    extras: Annotated[
        bool | None,
        typer.Option(help="First call and call overhead. Default: with the suites quick, tiny and all."),
    ] = None,
) -> None:
    """Race the kernels against the vendors' libraries; or, as the suites steps, inference, overhead and
    memory, whole networks (--problem NAME for one).

    Exit codes: 0 done, 2 wrong usage, 4 a kernel was wrong or failed, 6 nothing was measured, 130
        interrupted.
    """
    if device.partition(":")[0] == "cuda":
        from .cuda import run as gpu

        wanted = gpu.Wanted(whole_suite or suite or "all", check, json=json)
        raise typer.Exit(gpu.exit_code(gpu.run(wanted)))
    options = Options(
        suite=whole_suite or suite,
        op=op,
        device=device,
        quick=quick,
        threads=threads,
        dtype=dtype,
        problem=problem,
        kernel=tuple(kernel or ()),
        baseline=tuple(baseline or ()),
        max_gflop=max_gflop,
        json=json,
        html=html,
        cold=cold,
        check=check,
        no_vendor=no_vendor,
        fresh_roof=fresh_roof,
        extras=extras,
    )
    if options.suite_name in WHOLE:
        from . import whole

        raise typer.Exit(whole.run(options, console_for()))
    from .probe import SystemProbe

    session = prepare(options)
    console = console_for()
    for name, why in session.skipped_baselines.items():
        console.print(f"baseline {name}: {why}", style="yellow", markup=False)
    with Progress(console, session.request.cases) as progress:
        run = session.run(SystemProbe(), progress, progress.tell)
    print_run(run, console)
    write_page(run, session.html)
    console.print(f"Results: {session.json}\nPage:    {session.html}", markup=False, soft_wrap=True)
    if run.status == "interrupted":
        console.print(
            f"Interrupted: {len(run.results)} of {session.request.cases} cases were measured and kept."
        )
    raise typer.Exit(exit_code(run))


@app.command()
@_reporting
def doctor() -> None:
    """Say what is there, what is missing, and what would spoil a measurement.

    Exit codes: 0 all well, 1 something is wrong.
    """
    console = console_for()
    styles = {doctors.OK: "green", doctors.NOTE: "yellow", doctors.PROBLEM: "bold red"}
    findings = doctors.examine()
    for finding in findings:
        console.print(f"{finding.level:8}", style=styles[finding.level], end="")
        console.print(f"{finding.subject:12} {finding.text}", markup=False, soft_wrap=True)
        if finding.hint:
            console.print(f"{'':21}-> {finding.hint}", markup=False, soft_wrap=True)
    if any(finding.level == doctors.PROBLEM for finding in findings):
        raise typer.Exit(Exit.PROBLEM)


@app.command("list")
@_reporting
def list_(
    what: Annotated[
        str | None, typer.Argument(help="ops, kernels, suites, baselines, or a suite's name.")
    ] = None,
) -> None:
    """List operations, kernels, suites and baselines, or the problems of a suite."""
    lists = {"ops": _ops, "kernels": _kernels, "suites": _suites, "baselines": _baselines}
    if what is None:
        for name, lines in lists.items():
            typer.echo(f"{name}:")
            for line in lines():
                typer.echo(f"  {line}")
        return
    if what in lists:
        for line in lists[what]():
            typer.echo(line)
        return
    names = [*lists, *(suite.name for suite in suites())]
    if what not in names:
        raise KernelwrightError(
            f"there is no list {what!r}.{did_you_mean(what, names)} Lists: {', '.join(names)}."
        )
    selection = get_suite(what).select()
    for problem in selection.problems:
        note = f"  ({problem.note})" if problem.note else ""
        typer.echo(f"{problem}{note}")
    for name, why in selection.left_out.items():
        typer.echo(f"left out: {name}: {why}")


def _ops() -> list[str]:
    return [f"{op.signature()}  {', '.join(op.dtypes)}  {op.doc}" for op in ops()]


def _kernels() -> list[str]:
    return [
        f"{kernel.id}  {kernel.device}  {', '.join(kernel.dtypes)}  {kernel.where}"
        for op in ops()
        for kernel in registry.kernels_for(op.name)
    ]


def _suites() -> list[str]:
    return [f"{suite.name:21} {suite.doc}" for suite in suites()]


def _baselines() -> list[str]:
    return [f"{b.name}  {', '.join(b.ops)}: {b.missing() or b.describe()}" for b in baselines()]


@app.command()
@_reporting
def explain(
    op: Annotated[str | None, typer.Argument(help="The operation, such as matmul.")] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Each input's shape: 64x128; 64x128T lies transposed in memory; 64:int64 has its own dtype; "
            "- for an optional input that is left out."
        ),
    ] = None,
    attr: Annotated[
        list[str] | None, typer.Option(help="An attribute of the operation, such as stride=2,2.")
    ] = None,
    problem: Annotated[str | None, typer.Option(help="A problem of the suites instead.")] = None,
    dtype: Annotated[str, typer.Option(help="The inputs' dtype.")] = "float32",
    threads: Annotated[str | None, typer.Option(help="How many threads. Default: those in force.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Restrict the choice, as kw.using(backend=...) does.")
    ] = None,
) -> None:
    """Show which kernel would run a call or a problem, and why not the others."""
    if (op is None) == (problem is None):
        raise KernelwrightError(
            "say what to explain: a call, such as `kernelwright explain matmul 64x128 128x32`, or --problem "
            "NAME."
        )
    calls: list[tuple[Op, Sequence[TensorSpec], Mapping[str, Any]]] = []
    if op is not None:
        operation = get_op(op)
        calls.append((operation, parse_specs(operation, shapes or [], dtype), parse_attrs(attr or [])))
    else:
        for each in select(problem=problem, most_gflop=inf).problems:
            calls += Ours(each).calls(each.draw())
    count = None if threads is None else parse_threads(threads)[0]
    with using(threads=count, backend=backend):
        for place, (operation, specs, attrs) in enumerate(calls):
            typer.echo(("\n" if place else "") + str(dispatch.explain(operation, specs, attrs)))


@app.command()
@_reporting
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
    from ..kernels.explain import config_text, duration_text

    head = f"{name} on {result.threads} thread{'s' if result.threads > 1 else ''}"
    if result.best is None:
        why = result.rejected[0][2] if result.rejected else "no kernel supports it"
        return f"{head}: nothing ran right: {why}"
    best, known = result.best, sum(timing.from_cache for timing in result.timings)
    return (
        f"{head}: {duration_text(best.seconds)}, {best.kernel.id} {config_text(best.config)}; "
        f"{len(result.timings)} configurations timed, {known} of them known before, "
        f"{len(result.untried)} untried"
    )


def main() -> None:
    """The `kernelwright` command."""
    try:
        app()
    except BrokenPipeError:  # `kernelwright list | head`
        sys.stderr.close()
        raise SystemExit(Exit.PROBLEM) from None


if __name__ == "__main__":
    main()
