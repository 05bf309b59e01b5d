"""Records of runs on a GPU: JSON files under `bench/records/`, and the tables made of them.

A record holds the device, driver, versions and commit, every job's result, and of each kernel that was timed
digests of its source and machine code. When a kernel's source changes, its records no longer speak of it:
`stale` says which.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from ...kernels.atomic import write_atomically
from ...kernels.cache import Entry
from ...kernels.cuda.tables import Table
from ...kernels.errors import KernelwrightError
from ..machine import git_state
from .cases.job import Job, specs_on
from .cases.jobs import jobs

KIND, SCHEMA = "kernelwright-gpu-record", 2
TIMES = ".times.json"  # how the table of a record ends, which lies beside it
FOLDER = Path(__file__).parent.parent / "records"
BEGIN, END = "<!-- made of bench/records: {} -->", "<!-- end of what is made of bench/records -->"
NONE_YET = "No record yet: nothing has been measured on a GPU, and nothing is estimated."
PACKAGES = ("numpy", "torch", "triton", "cupy-cuda13x", "ml_dtypes")


class RecordError(KernelwrightError, ValueError):
    """A file that is no record, or one of another schema."""


@dataclass
class Record:
    """One run.

    Attributes:
        head: device, driver, versions, commit, date, seed, suite, whether everything was proven.
        results: the result of each job by its name, in the order in which they were done.
        sanitizer: what compute-sanitizer said: its status ("clean", "errors", "not run" or "out of time"), a
            line, and how many calls it watched.
        status: "running", "complete", "out of time" or "interrupted".
    """

    head: dict[str, Any]
    results: dict[str, dict[str, Any]]
    sanitizer: dict[str, Any] = field(default_factory=lambda: {"status": "not run", "text": "", "calls": 0})
    status: str = "running"
    seconds: float = 0.0
    file: Path | None = None

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        document = {
            "kind": KIND,
            "schema": SCHEMA,
            "head": self.head,
            "status": self.status,
            "seconds": self.seconds,
            "sanitizer": self.sanitizer,
            "untuned_over_tuned": self.untuned_over_tuned,
            "results": self.results,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=1, default=str) + "\n")
        if (times := self.times) is not None:
            write_atomically(times_beside(path), times.text)

    @classmethod
    def load(cls, path: Path) -> Record:
        """The record in a file.

        Raises:
            RecordError: it is none, or of another schema.
        """
        try:
            document = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} is no record of a run on a GPU: {error}.") from None
        if not isinstance(document, dict) or document.get("kind") != KIND or document.get("schema") != SCHEMA:
            raise RecordError(f"{path} is no {KIND} of schema {SCHEMA}; run `make gpu` for a new one.")
        return cls(
            document["head"],
            document["results"],
            document["sanitizer"],
            document["status"],
            document["seconds"],
            path,
        )

    @property
    def untuned_over_tuned(self) -> dict[str, Any] | None:
        """How many times as long untuned calls took as tuned ones; None where none were tuned."""
        losses = {name: r["loss"] for name, r in self.results.items() if r.get("loss")}
        if not losses:
            return None
        worst = max(losses, key=lambda name: losses[name])
        mean = geometric_mean(losses.values())
        return {"problems": len(losses), "geometric_mean": mean, "worst": losses[worst], "worst_of": worst}

    @property
    def times(self) -> Table | None:
        """What the searches measured, as a table to ship; None where there were none."""
        entries = [Entry(**entry) for r in self.results.values() for entry in r.get("entries", ())]
        if not entries:
            return None
        head = {word: self.head.get(word) for word in ("driver", "versions", "commit", "started")}
        head["untuned_over_tuned"] = self.untuned_over_tuned
        return Table(self.head["device"], self.head["capability"], tuple(entries), head)

    @property
    def title(self) -> str:
        """Device, driver, versions, commit and date in a line."""
        head = self.head
        versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
        return (
            f"{head['device']}, driver {head['driver']}, {versions}; commit {str(head['commit'])[:12]}, "
            f"{head['started'][:10]}"
        )


def times_beside(path: Path) -> Path:
    """Where the table of a record's times is."""
    return path.with_name(path.stem + TIMES)


def head_of(suite: str, check: bool, seed: int) -> dict[str, Any]:
    """What a record of a run begun now says of itself."""
    import torch

    from ...kernels.cuda.device import facts

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = str(metadata.version(name))
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["CUDA"] = str(torch.version.cuda)
    versions["cuDNN"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    device = facts()
    git = git_state()
    return {
        "device": device.name,
        "capability": device.capability,
        "multiprocessors": device.multiprocessors,
        "driver": _driver(),
        "versions": versions,
        "commit": git.get("commit", "unknown"),
        "changed": git.get("dirty", git.get("changed")),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": suite,
        "check": check,
        "seed": seed,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.splitlines() or ["unknown"])[0].strip() or "unknown"


def records(folder: Path = FOLDER) -> list[Record]:
    """All records, the newest last.

    Raises:
        RecordError: for a file that is none.
    """
    paths = [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(TIMES)]
    found = [Record.load(path) for path in paths]
    return sorted(found, key=lambda record: str(record.head["started"]))


def sources_now(record: Record) -> dict[str, list[str] | None]:
    """For each race of a record, the digests of the sources that the same kernel would run today.

    None where the kernel is gone or refuses the call. The code is that for the record's chip; nothing is
    compiled.
    """
    from ...kernels.cuda import device as devices

    named = {job.name: job for job in jobs(record.head["suite"], record.head["check"])}
    found: dict[str, list[str] | None] = {}
    capability = record.head["capability"]
    with devices.assume(capability if capability in devices.TARGETS else devices.TARGETS[1]):
        for name, result in record.results.items():
            if "codes" in result:
                found[name] = _sources(named.get(name), result)
    return found


def _sources(job: Job | None, result: Mapping[str, Any]) -> list[str] | None:
    from ...kernels import dispatch
    from ...kernels.registry import kernels_for

    if job is None or job.problem is None:
        return None
    problem = job.problem
    kernel = next((k for k in kernels_for(problem.op, "cuda") if k.id == result["kernel"]), None)
    specs = dispatch.complete_specs(problem.operation, specs_on(problem), problem.complete)
    if kernel is None or kernel.why_not(specs, problem.complete) is not None:
        return None
    try:
        launch = kernel.bind(specs, problem.complete, result["config"], 1)
    except Exception:  # a configuration that the kernel no longer has
        return None
    sources = getattr(launch, "sources", None)
    return None if sources is None else list(sources())


def stale(record: Record) -> dict[str, list[str]]:
    """The races of a record whose kernel has changed since, by kernel: {kernel id: names of races}."""
    found: dict[str, list[str]] = {}
    for name, sources in sources_now(record).items():
        result = record.results[name]
        if sources != [code["source"] for code in result["codes"]]:
            found.setdefault(result["kernel"], []).append(name)
    return found


def groups(record: Record, names: Iterable[str] | None = None) -> list[tuple[str, list[dict[str, Any]]]]:
    """The races with a time, by group."""
    named = {job.name: job for job in jobs(record.head["suite"], record.head["check"])}
    found: dict[str, list[dict[str, Any]]] = {}
    for name in record.results if names is None else names:
        job, result = named.get(name), record.results[name]
        if job is not None and job.kind == "race" and job.problem is not None and "ratio" in result:
            found.setdefault(job.problem.group, []).append({"problem": job.problem, **result})
    return list(found.items())


def table(found: Sequence[Record]) -> str:
    """The newest record of races, and the newest of whole steps, as tables in Markdown.

    Without any, a line that says so.
    """
    parts = []
    for made, suites in ((_race_table, ("all", "quick")), (_step_table, ("steps",))):
        done = [record for record in found if record.head["suite"] in suites and _has_times(record)]
        parts += [made(done[-1])] if done else []
    return "\n\n".join(parts) or NONE_YET


def _has_times(record: Record) -> bool:
    return any("ratio" in result for result in record.results.values())


def _step_table(record: Record) -> str:
    """Whole training steps."""
    lines = [
        f"{record.title} ({record.status}). Ratio: the time of a training step in torch divided by ours.",
        "",
        "| network | ratio | wanted | ours, ms | baseline |",
        "|---|---|---|---|---|",
    ]
    for result in record.results.values():
        if "told" in result and "ratio" in result:
            cells = (
                result["told"],
                f"{result['ratio']:.2f}",
                result["goal"],
                f"{result['ours_s'] * 1e3:.3f}",
            )
            lines.append(f"| {' | '.join(map(str, cells))} | {result['baseline']} |")
    return "\n".join(lines)


def _race_table(record: Record) -> str:
    """Races by group."""
    old = {name for names in stale(record).values() for name in names}
    lines = [
        f"{record.title} ({record.status}). Ratio: torch's time divided by ours, in the geometric mean.",
        "",
        "| group | races | ratio | worst | best TFLOP/s | best GB/s | of a copy |",
        "|---|---|---|---|---|---|---|",
    ]
    copied = record.results.get("copy", {}).get("bytes_s")
    for group, rows in groups(record):
        ratios = [row["ratio"] for row in rows]
        tflops = max(row["flops"] / row["ours_s"] for row in rows) / 1e12
        rate = max(row["bytes"] / row["ours_s"] for row in rows) / 1e9
        cells = (group, len(rows), f"{geometric_mean(ratios):.2f}", f"{min(ratios):.2f}")
        share = f"{rate * 1e9 / copied:.0%}" if copied else ""
        lines.append(f"| {' | '.join(map(str, cells))} | {tflops:.0f} | {rate:.0f} | {share} |")
    tuned = sum(bool(row.get("tuned")) for _, rows in groups(record) for row in rows)
    lines += ["", f"{tuned or 'None'} of these races ran a configuration that had been tuned before the run."]
    launch = record.results.get("launch", {})
    if "launch_s" in launch:
        lines += [
            "",
            f"A warm launch takes {launch['launch_s'] * 1e6:.1f} µs of the host, a whole call "
            f"{launch['call_s'] * 1e6:.1f} µs, torch.mm {launch['torch_s'] * 1e6:.1f} µs.",
        ]
    if (ratio := record.untuned_over_tuned) is not None:
        lines += [
            "",
            f"An untuned call takes {ratio['geometric_mean']:.3f} times as long as a tuned one, in the "
            f"geometric mean over {ratio['problems']} problems; at worst {ratio['worst']:.2f} times.",
        ]
    if old:
        lines += ["", f"Stale, the kernel has changed since: {len(old)} of its races."]
    return "\n".join(lines)


def with_table(text: str, made: str, name: str) -> str:
    """A document with what stands between its marks replaced.

    Raises:
        RecordError: when the marks are not there.
    """
    begin = BEGIN.format(name)
    head, found, rest = text.partition(begin)
    _, ended, tail = rest.partition(END)
    if not found or not ended:
        raise RecordError(f"the document has no line {begin!r} followed by {END!r}.")
    return f"{head}{begin}\n\n{made}\n\n{END}{tail}"


DOCUMENTS = ("README.md", "docs/kernels-gpu.md")


def write_tables(root: Path, folder: Path = FOLDER) -> list[str]:
    """Bring the tables of the documents up to date; the names of those that changed."""
    made, changed = table(records(folder)), []
    for name in DOCUMENTS:
        path = root / name
        before = path.read_text("utf-8")
        after = with_table(before, made, "table")
        if after != before:
            write_atomically(path, after)
            changed.append(name)
    return changed
