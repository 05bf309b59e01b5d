"""`kernelwright list | explain | doctor`: what is there, what would run, what would spoil a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Annotated, Any

import typer

from ...kernels import dispatch, registry
from ...kernels.errors import KernelwrightError, did_you_mean
from ...kernels.op import Op, get_op, ops
from ...kernels.settings import using
from ...kernels.spec import TensorSpec
from .. import doctor as doctors
from ..baselines import baselines
from ..ours import Ours
from ..problems import get_suite, select, suites
from ..report.terminal import console_for
from ..session import Exit, parse_threads
from .app import app, reporting
from .call_words import parse_attrs, parse_specs


@app.command()
@reporting
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
@reporting
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
@reporting
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
