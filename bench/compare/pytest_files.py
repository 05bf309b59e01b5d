"""Two files of pytest-benchmark beside each other, by their raw rounds.

pytest-benchmark keeps a summary of each benchmark, and its raw rounds only when told to: always with
`--benchmark-json FILE`, and with `--benchmark-save-data` beside `--benchmark-save` or `--benchmark-autosave`.
A summary (minimum, mean, deviation) can't carry a bound that holds for any noise, so the rounds are needed.

Rounds of one run follow each other within microseconds and share what the machine was doing, so that a
hundred thousand of them are not a hundred thousand independent times. More than GATHERED are gathered into
so many stretches of consecutive rounds, each standing for its median. The two benchmarks that a race of the
pytest plugin left are compared as one, by the ratios of their pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from ..store.reading import read_json
from .files import VENDOR, FileComparison, Row, UnlikeFilesError, corrected, matched
from .statistics import CONFIDENCE, two_samples

# 50 beside 50 is also the most for which Mann and Whitney's distribution is counted out.
GATHERED = 50
STORAGE = Path(".benchmarks")
SAVE_RAW = (
    "write `pytest --benchmark-autosave --benchmark-save-data`, or `pytest --benchmark-json FILE`, which "
    "keeps them always"
)


def compare_pytest_benchmark(
    a: str, b: str, threshold: float, confidence: float = CONFIDENCE, storage: Path = STORAGE
) -> FileComparison:
    """Compares two saved runs of pytest-benchmark, benchmark by benchmark.

    Args:
        a, b: a file, or a run's name in the storage folder: `0001`, or `*/0001` for any machine's.
        threshold: how much longer B may take.
        confidence: of each bound.
        storage: pytest-benchmark's own folder.

    Raises:
        UnlikeFilesError: a file is not there or not pytest-benchmark's; it has no raw rounds; the two come
            from different CPUs; they have no benchmark in common.
    """
    path_a, path_b = resolve(a, storage), resolve(b, storage)
    one, other = _load(path_a), _load(path_b)
    if _cpu(one) != _cpu(other):
        raise UnlikeFilesError(
            f"{path_a} was measured on {_cpu(one)}, {path_b} on {_cpu(other)}: times of two kinds of machine "
            "say nothing about the code. Run both on one machine."
        )
    found = FileComparison(
        "pytest-benchmark",
        _side(path_a, one),
        _side(path_b, other),
        threshold,
        confidence,
        _notes(one, other),
    )

    def row(name: str, before: Rounds, after: Rounds) -> Row:
        times = two_samples(gathered(before.times), gathered(after.times), threshold, confidence)
        result = Row(name, verdict=times, a=median(before.times), b=median(after.times))
        if before.ratios and after.ratios:
            result.basis, result.vendor, result.times = VENDOR, "its baseline", times
            result.verdict = two_samples(before.ratios, after.ratios, threshold, confidence)
        return result

    found.results = matched(_rounds(path_a, one), _rounds(path_b, other), row)
    return corrected(found)


def resolve(name: str, storage: Path = STORAGE) -> Path:
    """The file that a name means, as pytest-benchmark looks names up.

    Raises:
        UnlikeFilesError: none or several; the text lists what is there.
    """
    if Path(name).is_file():
        return Path(name)
    parts = Path(name).parts
    if len(parts) == 2:
        patterns = [f"{parts[0]}/{parts[1].removesuffix('.json').rstrip('*')}*.json"]
    elif len(parts) == 1:
        stem = name.removesuffix(".json").rstrip("*")
        patterns = [f"*/{stem}*.json", f"{stem}*.json"]
    else:
        raise UnlikeFilesError(f"there is no file {name}.")
    found = sorted(path for pattern in patterns for path in storage.glob(pattern))
    if len(found) == 1:
        return found[0]
    if found:
        raise UnlikeFilesError(
            f"{name!r} means several runs in {storage}: {', '.join(map(str, found[:6]))}. Write one of them."
        )
    there = sorted(storage.glob("*/*.json"))
    listed = f"it has {', '.join(map(str, there[:6]))}" if there else "which has none or is not there"
    raise UnlikeFilesError(f"there is no file {name!r} and no run of that name in {storage}: {listed}.")


def gathered(times: Sequence[float], most: int = GATHERED) -> list[float]:
    """At most so many times: medians of stretches of consecutive rounds, as even in length as may be."""
    if len(times) <= most:
        return list(times)
    edges = [len(times) * i // most for i in range(most + 1)]
    return [median(times[low:high]) for low, high in pairwise(edges)]


def _load(path: Path) -> Mapping[str, Any]:
    record = read_json(path, UnlikeFilesError)
    if not isinstance(record, Mapping) or not isinstance(record.get("benchmarks"), list):
        raise UnlikeFilesError(f"{path} is no file of pytest-benchmark: it has no list of benchmarks.")
    return record


@dataclass(frozen=True)
class Rounds:
    """A benchmark's seconds of each round; for a race of ours also those divided by its baseline's."""

    times: list[float]
    ratios: list[float] = field(default_factory=list)


def _rounds(path: Path, record: Mapping[str, Any]) -> dict[str, Rounds]:
    """{full name: rounds}; the group stands before the name where one name is in several.

    The two benchmarks of a race are one: it carries what the machine was doing in both of its times.
    """
    try:
        benchmarks = record["benchmarks"]
        names = [bench["fullname"] for bench in benchmarks]
        times = {}
        for bench in benchmarks:
            name = bench["fullname"]
            unique = name if names.count(name) == 1 else f"{bench.get('group')}: {name}"
            times[unique] = bench, _times(path, bench)
        found: dict[str, Rounds] = {}
        for name, (bench, rounds) in times.items():
            extra = bench.get("extra_info") or {}
            side = extra.get("side") if "race" in extra else None
            race = name.removesuffix(" candidate").removesuffix(" baseline")
            _, baseline = times.get(f"{race} baseline", (None, []))
            if side is None or len(baseline) != len(rounds):
                found[name] = Rounds(rounds)
            elif side == "candidate":
                found[race] = Rounds(rounds, [c / b for c, b in zip(rounds, baseline, strict=True)])
    except (KeyError, TypeError, AttributeError) as problem:
        raise UnlikeFilesError(f"{path} is damaged: {problem!r} in a benchmark.") from None
    return found


def _times(path: Path, bench: Mapping[str, Any]) -> list[float]:
    name, data = bench["fullname"], bench["stats"].get("data")
    if not data:
        raise UnlikeFilesError(f"{path} holds no raw rounds of {name}, only their summary: {SAVE_RAW}.")
    # A coarse clock may give rounds of no time at all; they say nothing.
    times = [float(each) for each in data if each > 0]
    if not times:
        raise UnlikeFilesError(f"{path}: all rounds of {name} took 0 seconds; time more in a round.")
    return times


def _cpu(record: Mapping[str, Any]) -> str:
    info = record.get("machine_info") or {}
    cpu = info.get("cpu") or {}
    name = cpu.get("brand_raw") or cpu.get("brand") or info.get("machine") or "an unknown CPU"
    return f"{name} with {cpu['count']} cores" if cpu.get("count") else str(name)


def _side(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    commit = record.get("commit_info") or {}
    return {
        "path": str(path),
        "started": record.get("datetime", ""),
        "cpu": _cpu(record),
        "commit": str(commit.get("id") or "")[:12] + ("+" if commit.get("dirty") else ""),
    }


def _notes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    notes = []
    for name, what in (
        ("node", "Hosts"),
        ("python_version", "Versions of Python"),
        ("release", "Systems"),
    ):
        one, other = ((each.get("machine_info") or {}).get(name) for each in (a, b))
        if one != other:
            notes.append(f"{what} differ: {one} -> {other}.")
    return notes
