"""`kernelwright bench steps | inference | overhead | memory`: what no suite of single kernels can show.

steps        training steps of whole networks against torch
inference    whole networks at batch 1 and 8 against torch and ONNX Runtime
overhead     what a plan's steps, its calls and its making cost
memory       arena and peak memory of a training step
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from ...kernels.atomic import write_atomically
from ...kernels.errors import ConfigError
from ..machine import environment, facts, git_state, versions
from ..report import text
from ..runner import now
from ..session import RESULTS, Exit, Options, parse_threads
from ..store import dumps, timing_record
from ..timing import SystemProbe, Timing
from . import memory_use, overhead, rivals, steps
from .networks import Network, get_network, networks
from .steps import Contest

INFERENCE_GOAL = 1.2


def run(options: Options, console: Console) -> int:
    """Measure one of the four, print it and keep it as a file; the exit code.

    Raises:
        ConfigError: without the libraries that it is measured beside.
        UnknownNetworkError: for a network that is none.
    """
    lacking = rivals.missing()
    if lacking is not None:
        raise ConfigError(f"nothing to measure beside: install {lacking}.")
    name = options.suite_name
    chosen = networks() if options.problem is None else tuple(map(get_network, options.problem.split(",")))
    counts = parse_threads(options.threads)
    timing = Timing().quick() if options.quick else Timing()
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    path = options.json or RESULTS / f"{stamp}-{name}.json"
    document: dict[str, Any] = {
        "kind": f"kernelwright-{name}",
        "started": now(),
        "command": shlex.join(["kernelwright", *sys.argv[1:]]),
        "machine": facts(),
        "versions": versions(),
        "environment": environment(),
        "git": git_state(),
        "settings": {"threads": list(counts), "timing": timing_record(timing)},
        "results": [],
    }

    def tell(words: str) -> None:
        console.print(f"({words})", style="dim", markup=False, soft_wrap=True)

    def keep(record: dict[str, Any]) -> None:
        document["results"].append(record)
        write_atomically(path, dumps(document))

    measures = {"steps": _contests, "inference": _contests, "overhead": _overhead, "memory": _memory}
    code = measures[name](chosen, counts, timing, console, tell, keep, name)
    console.print(f"Results: {path}", markup=False, soft_wrap=True)
    return code


Tell = Callable[[str], None]
Keep = Callable[[dict[str, Any]], None]


def _contests(
    chosen: Sequence[Network],
    counts: Sequence[int],
    timing: Timing,
    console: Console,
    tell: Tell,
    keep: Keep,
    name: str,
) -> int:
    what = "step" if name == "steps" else "inference"
    found: list[Contest] = []
    for contest in steps.contests(chosen, counts, what, SystemProbe(), timing, tell):
        found.append(contest)
        keep(contest.to_json())
    console.print(_table(found))
    raced = [contest for contest in found if contest.ratio]
    if raced:
        worst = min(raced, key=lambda contest: contest.ratio)
        goal = f" (wanted {INFERENCE_GOAL})" if what == "inference" else ""
        console.print(
            f"geometric mean {steps.mean_ratio(raced):.2f}{goal}, worst {worst.ratio:.2f}: "
            f"{worst.network}, batch {worst.batch}, {text.threads(worst.threads)}",
            markup=False,
            style="bold",
        )
    return Exit.OK if all(contest.right for contest in found) else Exit.WRONG


def _table(found: Sequence[Contest]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("network", "thr", "batch", "time", "rival", "its time", "ratio", "95% interval", "wanted"):
        table.add_column(column, justify="left" if column in ("network", "rival") else "right", no_wrap=True)
    table.add_column("error / torch's", justify="right", no_wrap=True)
    for c in found:
        style = "" if c.ratio >= c.goal else "bold red"
        times = (text.seconds(c.ours_s), c.rival, text.seconds(c.theirs_s))
        ratio = (f"[{style}]{c.ratio:.2f}[/]" if style else f"{c.ratio:.2f}", text.interval(c.low, c.high))
        errors = f"{c.error:.0e} / {c.their_error:.0e}"
        cells = (*times, *ratio) if c.right else ("wrong", "", "", "", "")
        table.add_row(c.network, str(c.threads), str(c.batch), *cells, f"{c.goal:g}", errors)
    return table


def _overhead(
    chosen: Sequence[Network],
    counts: Sequence[int],
    timing: Timing,
    console: Console,
    tell: Tell,
    keep: Keep,
    name: str,
) -> int:
    probe = SystemProbe()
    for row in overhead.plans(probe, timing, tell):
        keep(row)
        console.print(overhead.line(row), markup=False, soft_wrap=True)
    for row in overhead.compile_times(tell):
        keep(row)
        console.print(overhead.compile_line(row), markup=False, soft_wrap=True)
    return Exit.OK


def _memory(
    chosen: Sequence[Network],
    counts: Sequence[int],
    timing: Timing,
    console: Console,
    tell: Tell,
    keep: Keep,
    name: str,
) -> int:
    for network in chosen:
        found = memory_use.measure(network, min(counts, default=1), tell)
        keep(found)
        for words in memory_use.lines(found):
            console.print(words, markup=False, soft_wrap=True)
    return Exit.OK
