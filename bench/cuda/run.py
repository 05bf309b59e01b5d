"""One run on a GPU from beginning to end: compile, prove, race, search, and keep a record.

    python -m kernelwright.bench.cuda --suite all --check

The same as `kernelwright bench --device cuda`. It needs torch with CUDA, triton, cupy, NumPy and ml_dtypes,
and nothing else of the package's dependencies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...kernels.cuda.device import Device, available, facts, missing_reason
from ...kernels.errors import ConfigError, DeviceError, KernelwrightError
from .cases import Job, jobs
from .record import FOLDER, Record, groups, head_of, records, stale, table, write_tables
from .worker import LOST

# With what the sanitizer may take, and the job that is at work when time is up, less than nine.
MINUTES = 7.0
SUITES = ("all", "quick")
_SANITIZED = ("proof matmul bfloat16", "proof conv bfloat16")
_SANITIZER_SECONDS = 75
_COMPILE_SECONDS = 120.0
_PARTS = 4  # into which the compilation of a proof is cut
Tell = Callable[[str], None]
Spawn = Callable[[dict[str, Any], Path, float], int]


@dataclass(frozen=True)
class Wanted:
    """What a run is asked for.

    Attributes:
        suite: "all" or "quick".
        check: prove every kernel too.
        minutes: after which no new job is begun.
        json: where the record goes; under `bench/records/` unless given.
        seed: of the random numbers; new ones in each run unless given.
    """

    suite: str = "all"
    check: bool = False
    minutes: float = MINUTES
    json: Path | None = None
    seed: int | None = None


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
    """
    if wanted.suite not in SUITES:
        raise ConfigError(f"on a GPU there are the suites {' and '.join(SUITES)}, not {wanted.suite!r}.")
    if spawn is None and not available():
        raise DeviceError(f"there is no GPU here: {missing_reason()}.")
    started = time.time()
    until = started + 60 * wanted.minutes
    seed = int(started) % 100_000 if wanted.seed is None else wanted.seed
    record = Record(head_of(wanted.suite, wanted.check, seed), {})
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    path = wanted.json or root / f"{stamp}-{record.head['device'].lower().replace(' ', '-')}.json"
    todo = jobs(wanted.suite, wanted.check)
    tell(f"{facts()}: {len(todo)} jobs, at most {wanted.minutes:g} minutes; seed {seed}")
    if spawn is None:
        compiled(todo, tell, until)
    _work(record, todo, until, path, tell, spawn or _process)
    if wanted.check and spawn is None:
        record.sanitizer = sanitized(record.head, tell, until + 60)
    left = [job.name for job in todo if job.name not in record.results]
    record.status = "out of time" if left else "complete"
    record.seconds = time.time() - started
    record.save(path)
    if left:
        tell(f"out of time: {len(left)} jobs were not begun, from {left[0]!r} on")
    for line in told(record):
        tell(line)
    tell(f"record: {path}")
    return record


def _work(record: Record, todo: Sequence[Job], until: float, path: Path, tell: Tell, spawn: Spawn) -> None:
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
            code = spawn({**orders, "names": left, "until": until}, lines, until + 30 - time.time())
            begun = _read(lines, record, tell)
            if begun is not None:
                how = "ran past the end of the run" if code == -1 else f"ended the worker (exit code {code})"
                record.results[begun] = {"status": "failed", "message": how}
                tell(f"  failed {begun}: {how}")
            record.save(path)
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


def compiled(todo: Sequence[Job], tell: Tell, until: float) -> int:
    """Compile what the jobs launch, on all cores, so that no time on the device is spent on it.

    Returns:
        How many jobs were looked at.
    """
    from concurrent.futures import ProcessPoolExecutor, wait
    from multiprocessing import get_context

    started = time.time()
    parts = [(job, part) for job in todo for part in range(_PARTS if job.kind == "proof" else 1)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProcessPoolExecutor(max(1, cores - 1), get_context("spawn")) as pool:
        done = [pool.submit(compile_job, job, part, facts()) for job, part in parts]
        wait(done, timeout=max(1.0, min(_COMPILE_SECONDS, until - time.time())))
        left = sum(job.cancel() for job in done)
    failed = [job.exception() for job in done if job.done() and not job.cancelled() and job.exception()]
    tell(f"compiled ahead in {time.time() - started:.0f} s on {cores} cores; {left} of {len(done)} left out")
    for error in failed[:5]:
        tell(f"  not compiled: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return len(todo)


def compile_job(job: Job, part: int, chip: Device) -> None:
    """Compile what a job will launch into the caches on disk; in a process that leaves the GPU alone.

    What is chosen here has to be what is chosen there, so the facts are those of the very device.
    """
    from ...kernels import dispatch
    from ...kernels.cuda import device
    from ...kernels.cuda.check import moved
    from ...kernels.settings import using

    with using(extra_error=job.extra_error), device.taken_for(chip):
        if job.kind == "proof":
            _compile_proof(job, part, chip)
        if job.kind == "race" and job.problem is not None:
            specs = [moved(spec, "cuda:0") for spec in job.problem.specs]
            choice = dispatch.choose(job.problem.operation, specs, job.problem.attrs)
            codes = None if choice.kernel is None else getattr(choice.bind(), "codes", None)
            if codes is not None:
                codes(chip.capability)


def _compile_proof(job: Job, part: int, chip: Device) -> None:
    """One of `_PARTS` parts of what a proof launches."""
    import numpy as np

    from ...kernels.cuda.build import compile_variant
    from ...kernels.cuda.check import cuda_specs
    from ...kernels.cuda.launch import CudaLaunch
    from ...kernels.cuda.step import ALIGNMENT, variant
    from ...kernels.op import get_op
    from ...kernels.registry import kernels_for
    from .work import config_for

    op = get_op(job.op)
    if job.dtype not in op.dtypes:
        return
    for turn, sample in enumerate(op.samples(np.random.default_rng(0), job.dtype)):
        for kernel in kernels_for(job.op, "cuda") if turn % _PARTS == part else ():
            config = config_for(kernel, sample, turn)
            if config is None:
                continue
            specs = cuda_specs(kernel, sample)
            launch = kernel.bind(specs, op.complete(sample.attrs), config, 1)
            if not isinstance(launch, CudaLaunch):
                continue  # CUDA C compiles a few variants for all shapes
            at = [0 if array is None else array.ctypes.data % ALIGNMENT for array in sample.inputs]
            aligned = tuple(not place for place in at) + (True,) * (len(specs) - len(at))
            for step in launch.chosen(aligned):
                compile_variant(variant(step, specs, aligned), chip.capability)


def sanitized(head: dict[str, Any], tell: Tell, until: float) -> str:
    """What compute-sanitizer says of the kernels over their op's samples; why it did not run, otherwise."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return "not run: compute-sanitizer is not installed"
    with tempfile.TemporaryDirectory() as folder:
        orders, lines = Path(folder) / "orders", Path(folder) / "results"
        orders.write_text(
            json.dumps(
                {
                    "suite": head["suite"],
                    "check": True,
                    "seed": 1,
                    "names": _SANITIZED,
                    "until": time.time() + 45,
                }
            ),
            "utf-8",
        )
        command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable]
        command += ["-m", "kernelwright.bench.cuda.worker", str(orders), str(lines)]
        environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=max(5.0, min(_SANITIZER_SECONDS, until - time.time())),
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"out of time after {_SANITIZER_SECONDS} s: it says nothing"
        found = [line for line in done.stdout.splitlines() if "ERROR SUMMARY" in line or "Invalid" in line]
        text = "; ".join(line.strip("= ") for line in found[-4:]) or f"exit code {done.returncode}"
    tell(f"compute-sanitizer: {text}")
    return text


def told(record: Record) -> list[str]:
    """The run in lines: what failed, what is wrong, and the ratios of each group last."""
    proofs = {n: r for n, r in record.results.items() if n.startswith(("proof", "wide"))}
    lines = [f"proven: {sum(r.get('checked', 0) for r in proofs.values())} calls in {len(proofs)} jobs"]
    lines.append(f"compute-sanitizer: {record.sanitizer}")
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
    """0 when everything was right, 4 when something was wrong or failed, 6 when nothing was done."""
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
        "--ship", action="store_true", help="only ship the times that the newest record found"
    )
    given = parser.parse_args(arguments)
    try:
        if given.tables:
            print("changed:", ", ".join(write_tables(FOLDER.parent.parent)) or "nothing")
            return 0
        if given.stale:
            return _tell_stale()
        if given.ship:
            return _ship()
        wanted = Wanted(given.suite, given.check, given.minutes, given.json, given.seed)
        return exit_code(run(wanted))
    except KernelwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _tell_stale() -> int:
    for record in records():
        old = stale(record)
        print(f"{record.file}: {sum(map(len, old.values()))} races are stale")
        for kernel, names in old.items():
            print(f"  {kernel}: {', '.join(names)}")
    print(table(records()))
    return 0


def _ship() -> int:
    from ...kernels.cache import Entry
    from ...kernels.cuda import tables

    newest = next(iter(records()[::-1]), None)
    entries = [] if newest is None else [e for r in newest.results.values() for e in r.get("entries", ())]
    if newest is None or not entries:
        print("no record has times to ship")
        return 1
    print(tables.write(newest.head["device"], [Entry(**entry) for entry in entries]))
    return 0
