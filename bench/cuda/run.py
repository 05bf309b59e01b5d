"""One run on a GPU from beginning to end: compile, prove, race, search, and keep a record.

    python -m kernelwright.bench.cuda --suite all --check

The same as `kernelwright bench --device cuda`. It needs torch with CUDA, triton, cupy, NumPy and ml_dtypes,
and nothing else of the package's dependencies.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ...kernels.cuda import tables
from ...kernels.cuda.device import available, facts, missing_reason
from ...kernels.errors import ConfigError, DeviceError, KernelwrightError
from ...kernels.registry import kernels_for
from .ahead import COMPILE_SECONDS, Tell, compiled
from .cases.job import Job
from .cases.jobs import cuda_ops, jobs
from .record import (
    FOLDER,
    Record,
    RecordError,
    groups,
    head_of,
    records,
    stale,
    table,
    times_beside,
    write_tables,
)
from .sanitizer import sanitized
from .worker import LOST

# With what the sanitizer may take, and the job that is at work when time is up, less than nine.
MINUTES = 7.0
SUITES = ("all", "quick", "steps")
Spawn = Callable[[dict[str, Any], Path, float], int]


@dataclass(frozen=True)
class Wanted:
    """What a run is asked for.

    Attributes:
        suite: "all", "quick" or "steps", which are whole training steps.
        check: prove every kernel too.
        minutes: after which no new job is begun.
        json: where the record goes; under `bench/records/` unless given.
        out: a folder into which the record and the table of its times are copied too.
        resume: a record to go on with: its suite, and the jobs that it has not; a new one unless given.
        seed: of the random numbers; new ones in each run unless given.
        only: patterns of names of jobs, such as "race attention-*" and "proof lstm*": no others are done.
    """

    suite: str = "all"
    check: bool = False
    minutes: float = MINUTES
    json: Path | None = None
    seed: int | None = None
    out: Path | None = None
    resume: Path | None = None
    only: tuple[str, ...] = ()


def run(wanted: Wanted, tell: Tell = print, spawn: Spawn | None = None, root: Path = FOLDER) -> Record:
    """Make a run, saving its record after each worker.

    Args:
        wanted: what to do.
        tell: told how it goes.
        spawn: starts a worker: `spawn(orders, results, seconds) -> exit code`; a process unless given.
        root: where records are kept.

    Raises:
        ConfigError: for a suite that is none.
        DeviceError: when there is no GPU.
        RecordError: when the record to go on with is of another device, commit or version of a library.
    """
    if wanted.suite not in SUITES:
        raise ConfigError(f"on a GPU there are the suites {', '.join(SUITES)}, not {wanted.suite!r}.")
    if spawn is None and not available():
        raise DeviceError(f"there is no GPU here: {missing_reason()}.")
    started = time.time()
    until = started + 60 * wanted.minutes
    record, path = _begun(wanted, root, int(started) % 100_000)
    suite, check = record.head["suite"], record.head["check"]
    asked = [job for job in jobs(suite, check) if not wanted.only or _matches(job.name, wanted.only)]
    if not asked:
        raise ConfigError(f"no job of the suite {suite} is called {' or '.join(wanted.only)}.")
    todo = [job for job in asked if job.name not in record.results]
    tell(f"{facts()}: {len(todo)} jobs, at most {wanted.minutes:g} minutes; seed {record.head['seed']}")
    if spawn is None:
        compiled(todo, tell, min(COMPILE_SECONDS, 30 * wanted.minutes))
    paths = [path, *([] if wanted.out is None else [wanted.out / path.name])]
    _work(record, todo, until, paths, tell, spawn or _process)
    if check and record.sanitizer["status"] not in ("clean", "errors"):
        record.sanitizer = sanitized(suite, tell, until + 60)
    left = [job.name for job in todo if job.name not in record.results]
    record.status = "out of time" if left else "complete"
    record.seconds += time.time() - started
    _save(record, paths)
    if left:
        tell(f"out of time: {len(left)} jobs were not begun, from {left[0]!r} on; --resume {path} does them")
    for line in told(record):
        tell(line)
    tell(f"record: {path}")
    if record.times is not None:
        tell(f"times: {times_beside(path)}; python -m kernelwright.bench.cuda --ship {path} puts them to use")
    return record


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _begun(wanted: Wanted, root: Path, seed: int) -> tuple[Record, Path]:
    """The record of a run, and its file: a new one, or the one to go on with."""
    head = head_of(wanted.suite, wanted.check, seed if wanted.seed is None else wanted.seed)
    if wanted.resume is None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
        path = wanted.json or root / f"{stamp}-{head['device'].lower().replace(' ', '-')}.json"
        return Record(head, {}), path
    record = Record.load(wanted.resume)
    for word in ("device", "commit", "versions"):
        if record.head[word] != head[word]:
            raise RecordError(
                f"{wanted.resume} has the {word} {record.head[word]!r}, and here it is {head[word]!r}: a "
                "record is of one of each. Leave --resume out for a new one."
            )
    return record, wanted.resume


def _save(record: Record, paths: Sequence[Path]) -> None:
    for path in paths:
        record.save(path)


def _work(
    record: Record, todo: Sequence[Job], until: float, paths: Sequence[Path], tell: Tell, spawn: Spawn
) -> None:
    """Let workers do the jobs; one that dies costs the job it was at."""
    left = [job.name for job in todo]
    head = record.head
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(len(left)):
            if not left or time.time() > until:
                break
            lines = Path(folder) / f"results-{turn}"
            lines.touch()
            orders = {"suite": head["suite"], "check": head["check"], "seed": head["seed"]}
            try:
                code = spawn({**orders, "names": left, "until": until}, lines, until + 30 - time.time())
            except KeyboardInterrupt:
                _read(lines, record, tell)
                record.status = "interrupted"
                _save(record, paths)
                tell(f"interrupted: {len(record.results)} jobs were done and are kept in {paths[0]}")
                raise
            begun = _read(lines, record, tell)
            if begun is not None:
                how = "ran past the end of the run" if code == -1 else f"ended the worker (exit code {code})"
                record.results[begun] = {"status": "failed", "message": how}
                tell(f"  failed {begun}: {how}")
            _save(record, paths)
            if code == 0:
                break
            left = [name for name in left if name not in record.results]
            if code != LOST and begun is None:
                raise KernelwrightError(f"a worker ended with {code} before it began a job.")


def _read(lines: Path, record: Record, tell: Tell) -> str | None:
    """Take over what a worker has written; the job it was at when it ended, or None."""
    begun = None
    for text in lines.read_text("utf-8").splitlines():
        line = json.loads(text)
        if "begin" in line:
            begun = line["begin"]
            continue
        name, result = line["name"], line["result"]
        record.results[name], begun = result, None
        if result["status"] != "right":
            why = result.get("message") or result.get("wrong") or result.get("judged")
            tell(f"  {result['status']} {name}: {why}")
    return begun


def _process(orders: dict[str, Any], results: Path, seconds: float) -> int:
    """A worker as a process; -1 when it was stopped for taking longer than it had."""
    file = results.with_suffix(".orders")
    file.write_text(json.dumps(orders), "utf-8")
    command = [sys.executable, "-m", "kernelwright.bench.cuda.worker", str(file), str(results)]
    try:
        return subprocess.run(command, timeout=max(seconds, 1), check=False).returncode
    except subprocess.TimeoutExpired:
        return -1


def told(record: Record) -> list[str]:
    """The run in lines: what failed, what is wrong, and the ratios of each group last."""
    proofs = {n: r for n, r in record.results.items() if n.startswith(("proof", "wide"))}
    lines = [f"proven: {sum(r.get('checked', 0) for r in proofs.values())} calls in {len(proofs)} jobs"]
    lines.append(f"compute-sanitizer: {record.sanitizer['status']}: {record.sanitizer['text']}")
    bad = {n: r for n, r in record.results.items() if r["status"] != "right"}
    lines.append(
        f"{len(record.results) - len(bad)} of {len(record.results)} jobs right" + (":" if bad else "")
    )
    lines += [f"  {r['status']:7} {name}" for name, r in bad.items()]
    rows = [(name, [row["ratio"] for row in found]) for name, found in groups(record)]
    if rows:
        lines.append(table([record]))
    return lines


def exit_code(record: Record) -> int:
    """0 when everything was right, 4 when something was wrong or failed, 6 when nothing was done.

    What compute-sanitizer finds counts as wrong; that it is not there does not.
    """
    if record.sanitizer["status"] == "errors":
        return 4
    if any(result["status"] != "right" for result in record.results.values()):
        return 4
    return 0 if record.results else 6


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m kernelwright.bench.cuda`."""
    parser = argparse.ArgumentParser(prog="python -m kernelwright.bench.cuda", description=__doc__)
    parser.add_argument("--suite", default="all", choices=SUITES)
    parser.add_argument("--check", action="store_true", help="prove every kernel over its op's samples too")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--json", type=Path, help="where the record goes (default: bench/records/)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--tables", action="store_true", help="only bring the documents' tables up to date")
    parser.add_argument("--stale", action="store_true", help="only tell which records speak of older kernels")
    parser.add_argument(
        "--plans", action="store_true", help="only tell what the whole networks launch; needs no GPU"
    )
    parser.add_argument(
        "--compile", action="store_true", help="with --plans, compile all of it and look at the machine code"
    )
    parser.add_argument("--resume", type=Path, help="go on with a record that ran out of time")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="jobs of such names, 'race lstm-*'; may repeat",
    )
    parser.add_argument("--out", type=Path, help="a folder for copies of the record and its times")
    parser.add_argument(
        "--ship",
        nargs="?",
        const="",
        metavar="RECORD",
        help="only put the times of a record (the newest unless named) into kernels/cuda/tables/",
    )
    given = parser.parse_args(arguments)
    try:
        if given.tables:
            print("changed:", ", ".join(write_tables(FOLDER.parent.parent)) or "nothing")
            return 0
        if given.stale:
            return _tell_stale()
        if given.plans:
            from . import plans

            return plans.main(given.compile)
        if given.ship is not None:
            return ship(Path(given.ship) if given.ship else None)
        wanted = Wanted(
            given.suite,
            given.check,
            given.minutes,
            given.json,
            given.seed,
            given.out,
            given.resume,
            tuple(given.only),
        )
        return exit_code(run(wanted))
    except KernelwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _tell_stale() -> int:
    for record in records():
        old = stale(record)
        print(f"{record.file}: {sum(map(len, old.values()))} races are stale")
        for kernel, names in old.items():
            print(f"  {kernel}: {', '.join(names)}")
    print(table(records()))
    return 0


def ship(path: Path | None = None, tell: Tell = print) -> int:
    """Put the times of a record (the newest unless given) to use: write them into `kernels/cuda/tables/`.

    Times of kernels that have changed since are left out.

    Returns:
        0; 1 when there is nothing to ship.

    Raises:
        RecordError: when the file is no record.
        ConfigError: when its times are no table.
    """
    record = next(iter(records()[::-1]), None) if path is None else Record.load(path)
    times = None if record is None else record.times
    if times is None:
        tell("no record has times to ship" if path is None else f"{path} has no times to ship")
        return 1
    sources = {k.id: k.source_digest() for op in cuda_ops() for k in kernels_for(op, "cuda")}
    current = tuple(entry for entry in times.entries if sources.get(entry.kernel) == entry.source)
    old = len(times.entries) - len(current)
    if old:
        tell(f"{old} of {len(times.entries)} times are left out: their kernels have changed since")
    if not current:
        return 1
    checked = tables.Table.parsed(replace(times, entries=current).text)
    tell(f"{tables.write(checked)}: {len(current)} times")
    return 0
