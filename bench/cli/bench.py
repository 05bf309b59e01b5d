"""`kernelwright bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...kernels.errors import ConfigError
from ..report import print_run, write_page
from ..report.terminal import console_for
from ..session import Exit, Options, exit_code, prepare
from ..timing import SystemProbe
from .app import DType, MaxGflop, ProblemName, StorePath, SuiteName, Threads, app, reporting
from .progress import Progress

# Suites of whole networks; their modules load all of the engine.
WHOLE = ("steps", "inference", "overhead", "memory")


@app.command()
@reporting
def bench(
    suite: SuiteName = None,
    op: Annotated[str | None, typer.Option(help="Keep problems of this operation.")] = None,
    whole_suite: Annotated[str | None, typer.Option("--suite", help="The suite, as an option.")] = None,
    device: Annotated[
        str, typer.Option(help="cpu; or cuda: the suites all, quick (proven too with --check) and steps.")
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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Don't go on with an interrupted run: measure everything anew.")
    ] = False,
    store: StorePath = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Spread the problems over the machines of a Ray cluster.")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Of that cluster. Default: $RAY_ADDRESS, or one on this machine.")
    ] = None,
    ray_per_machine: Annotated[
        int, typer.Option(help="How many problems a machine may measure at once.")
    ] = 1,
) -> None:
    """Race the kernels against the vendors' libraries; or, as the suites steps, inference, overhead and
    memory, whole networks (--problem NAME for one).

    The same command again, after an interruption and within a day, goes on where it stopped.

    Exit codes: 0 done, 2 wrong usage, 4 a kernel was wrong or failed, 6 nothing was measured, 130
        interrupted.
    """
    if device.partition(":")[0] == "cuda":
        from ..cuda import run as gpu

        if ray:
            raise ConfigError("--ray spreads problems of the CPU: leave out --ray or --device cuda.")

        wanted = gpu.Wanted(whole_suite or suite or "all", check, json=json)
        try:
            raise typer.Exit(gpu.exit_code(gpu.run(wanted)))
        except KeyboardInterrupt:  # the run has said what it keeps
            raise typer.Exit(Exit.INTERRUPTED) from None
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
        fresh=fresh,
        store=store,
        ray=ray or ray_address is not None,
        ray_address=ray_address,
        ray_per_machine=ray_per_machine,
    )
    if options.suite_name in WHOLE:
        from ..whole import command as whole

        raise typer.Exit(whole.run(options, console_for()))
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
            f"Interrupted: {len(run.results)} of {session.request.cases} cases were measured and kept; the "
            "same command goes on from there."
        )
    raise typer.Exit(exit_code(run))
