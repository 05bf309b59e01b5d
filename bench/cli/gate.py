"""`kernelwright gate | baseline`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...kernels.atomic import write_atomically
from ...kernels.errors import ConfigError
from ..compare import session
from ..compare.files import UnlikeFilesError
from ..compare.result import Comparison
from ..compare.session import Options
from ..compare.sides import FILE, SideError, resolve
from ..compare.threshold import parse_thresholds
from ..gate.against import Measure, against_baseline
from ..gate.baseline import DEFAULT, BaselineError, Baselines
from ..gate.judgement import Judgement, Word, judge
from ..gate.texts import json_text, junit, markdown
from ..report.duels import print_comparison
from ..report.terminal import console_for
from ..session import Exit, parse_threads
from ..store import store_path
from ..store.keys import MachineKey
from ..sweep.keeping import keep_comparison
from .app import DType, ProblemName, StorePath, Threshold, app, reporting
from .compare import Watch, ended_gently

ALLOWED = (Word.INCONCLUSIVE, Word.MISSING)
STYLES = {Word.WRONG: "bold red", Word.REGRESSED: "bold red", Word.MISSING: "bold red", Word.FASTER: "green"}

Op = Annotated[str | None, typer.Option(help="Keep problems of this operation.")]
Threads = Annotated[str, typer.Option(help="Numbers of threads, such as 1,2.")]


@app.command()
@reporting
def gate(
    against: Annotated[
        str,
        typer.Option(help="What stands: a git revision; `baseline`, or the file of one."),
    ],
    suite: Annotated[str | None, typer.Argument(help="A suite. Default: quick.")] = None,
    candidate: Annotated[str, typer.Option(help="What is to land: `.`, or a git revision.")] = ".",
    problem: ProblemName = None,
    op: Op = None,
    dtype: DType = None,
    threads: Threads = "1",
    threshold: Threshold = None,
    processes: Annotated[int, typer.Option(help="Fresh processes of each side.")] = 5,
    pairs: Annotated[int, typer.Option(help="Pairs in each process.")] = 6,
    kernel: Annotated[
        str | None, typer.Option(help="What revisions compute with: a name, an id, or a .py file in them.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Findings that pass all the same: inconclusive, missing.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Three processes: sooner, and less sure.")] = False,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Where a comment for a pull request goes.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Where JUnit XML goes.")] = None,
    json: Annotated[Path | None, typer.Option(help="Where everything goes, all pairs too.")] = None,
    store: StorePath = None,
) -> None:
    """Say by the exit code whether the tree as it stands may land.

    Exit codes: 0 passed, 1 regressed, 2 wrong usage, 3 inconclusive, 4 wrong or failed, 5 missing,
        6 nothing was measured, 130 interrupted.
    """
    files = {"--markdown": markdown_file, "--junit": junit_file, "--json": json}
    allowed = parse_allowed(allow or ())
    for name, path in files.items():
        check_writable(name, path)
    console = console_for()
    options = Options(
        a=against,
        b=candidate,
        suite=suite,
        problem=problem,
        op=op,
        dtype=dtype,
        threads=parse_threads(threads),
        threshold=parse_thresholds(threshold or (), suite or (None if problem else "quick")),
        processes=processes,
        pairs=pairs,
        kernel=kernel,
        quick=quick,
    )
    try:
        if is_baseline(against):
            comparison = _with_baseline(options, console)
        else:
            comparison = _with_revision(options, console)
    except BaselineError as missing:
        console.print(f"missing: {missing}", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(Exit.MISSING) from None
    judgement = judge(comparison, allowed)
    print_comparison(comparison, console)
    print_judgement(judgement, console)
    for path, written in ((markdown_file, markdown), (junit_file, junit), (json, json_text)):
        if path is not None:
            write_atomically(path, written(judgement, comparison))
    keep_comparison(comparison, store_path(store), lambda words: console.print(words, markup=False))
    if comparison.status == "interrupted":
        raise typer.Exit(Exit.INTERRUPTED)
    raise typer.Exit(judgement.code)


@app.command()
@reporting
def baseline(
    suite: Annotated[str | None, typer.Argument(help="A suite. Default: quick.")] = None,
    out: Annotated[Path, typer.Option(help="The file; other machines' entries stay.")] = DEFAULT,
    problem: ProblemName = None,
    op: Op = None,
    dtype: DType = None,
    threads: Threads = "1",
) -> None:
    """Measure a suite, and accept the result as what later changes are held against on this machine.

    Exit codes: 0 accepted, 2 wrong usage, 4 a wrong result, 6 nothing was measured.
    """
    check_writable("--out", out)
    kept = Baselines.load(out) if out.exists() else Baselines()
    options = Options("", "", suite, problem, op, dtype, parse_threads(threads))
    console = console_for()
    console.print("(measuring)", style="dim")
    run = Measure(bench_words(options), Path.cwd())()
    key = MachineKey.of(run.machine, run.versions)
    if any(case.status in ("wrong", "suspect", "failed") for case in run.results):
        code = Exit.WRONG
    elif not any(case.status == "timed" for case in run.results):
        code = Exit.NOTHING
    else:
        code = Exit.OK
    try:
        replaced = kept.accept(key.digest, key.text, run)
    except BaselineError as refused:
        console.print(f"not accepted: {refused}", style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(code or Exit.PROBLEM) from None
    kept.save(out)
    since = "" if replaced is None else f", in place of that of {replaced.started}"
    console.print(f"{out}: {len(run.results)} cases of {key.text}{since}", markup=False, soft_wrap=True)


def _with_revision(options: Options, console: Console) -> Comparison:
    folder = Path.cwd()
    try:
        side = resolve(options.a, (), folder)
    except SideError as unknown:
        raise BaselineError(str(unknown)) from None
    if side.kind == FILE:
        raise ConfigError(
            f"{options.a} is a result, not a baseline: `kernelwright baseline` makes one; `kernelwright "
            "compare` takes two results."
        )
    with (
        ended_gently(),
        Watch(console) as watch,
        session.contest(options, folder, watch.tell, watch) as contest,
    ):
        return contest.run()


def _with_baseline(options: Options, console: Console) -> Comparison:
    if options.b not in (".", "worktree"):
        raise ConfigError(
            f"--candidate {options.b}: against a baseline the tree as it stands is measured; leave it out."
        )
    path = DEFAULT if options.a == "baseline" else Path(options.a)
    here = MachineKey.here()
    entry, own = Baselines.load(path).find(here.digest)
    if not own:
        console.print(
            f"{path} has no entry for this machine ({here.text}); the newest is of {entry.machine}. Only "
            "ratios to a vendor's library of the same version are compared.",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    measure = Measure(bench_words(options), Path.cwd())
    console.print("(measuring)", style="dim")
    try:
        comparison, notes = against_baseline(entry, own, measure, options.threshold)
    except UnlikeFilesError as unlike:
        raise BaselineError(str(unlike)) from None
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)
    return comparison


def bench_words(options: Options) -> list[str]:
    """The words after `kernelwright bench` that measure what the options choose."""
    words = [] if options.suite is None and options.problem is not None else [options.suite_name]
    for name in ("problem", "op", "dtype", "kernel"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", value]
    return [*words, "--threads", ",".join(map(str, options.threads))]


def is_baseline(against: str) -> bool:
    """Whether `--against` names a baseline: the word, or a file that is one."""
    return against == "baseline" or against.endswith(".json")


def parse_allowed(words: Sequence[str]) -> list[Word]:
    """The findings that `--allow` names.

    Raises:
        ConfigError: one that can't be allowed.
    """
    for word in words:
        if word not in ALLOWED:
            raise ConfigError(f"--allow {word}: write {' or '.join(ALLOWED)}; nothing else can be allowed.")
    return [Word(word) for word in words]


def check_writable(option: str, path: Path | None) -> None:
    """Finds out before a long measurement that a file can't be written.

    Raises:
        ConfigError: it can't.
    """
    if path is None:
        return
    parent = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if path.is_dir() or (parent != path.absolute() and not parent.is_dir()) or not os.access(parent, os.W_OK):
        raise ConfigError(f"{option} {path} can't be written: write the path of a file that can.")


def print_judgement(judgement: Judgement, console: Console) -> None:
    """What needs a look, a line each, and the answer."""
    for finding in judgement.findings:
        if finding.word in STYLES or finding.word is Word.INCONCLUSIVE:
            style = STYLES.get(finding.word, "yellow")
            reason = f": {finding.reason}" if finding.reason else ""
            console.print(
                f"{finding.word}: {finding.name}{reason}", style=style, markup=False, soft_wrap=True
            )
    style = "bold green" if judgement.code is Exit.OK else "bold red"
    console.print(f"Gate: {judgement.word}. {judgement.summary}.", style=style, markup=False, soft_wrap=True)
