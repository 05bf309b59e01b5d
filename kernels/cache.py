"""TuningCache: measured times, kept on disk from one process to the next and shared by several.

One JSON file holds the times of one machine under one set of library versions; both are in its name, so that
nothing measured elsewhere is ever read here. Each single configuration has an entry of its own, keyed by the
digest of the kernel's source too: editing a list of configurations keeps what is known of the others, editing
the kernel does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from threading import RLock
from typing import IO, Any

from . import machine
from .atomic import write_atomically
from .errors import CacheWarning, ConfigError
from .kernel import Config
from .paths import CACHE_VARIABLE, cache_dir
from .settings import clear_memos

try:
    import fcntl
except (
    ImportError
):  # pragma: no cover - Windows: writes are still atomic, but two at once may lose one's news
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
_LIBRARIES = ("numba", "llvmlite", "triton", "cupy-cuda13x")

_generation = 0
_generation_lock = RLock()


@dataclass(frozen=True)
class Entry:
    """One measured time.

    Attributes:
        kernel: the kernel's id.
        source: the digest of its source.
        problem: `op.problem_key` of the call, inputs and outputs.
        threads: how many threads it ran on.
        config: its configuration.
        seconds: for one call; the median of the samples.
        samples: how many times it was measured.
        date: when, in UTC: `2025-01-31T12:00:00Z`.
    """

    kernel: str
    source: str
    problem: str
    threads: int
    config: Config
    seconds: float
    samples: int = 1
    date: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What makes it this entry and no other."""
        return self.kernel, self.source, self.problem, self.threads, config_key(self.config)

    def check(self) -> Entry:
        """The entry itself, when it means something.

        Raises:
            ConfigError: for a time that is not a positive finite number of seconds, or fields of the wrong
                type.
        """
        words = all(isinstance(word, str) for word in (self.kernel, self.source, self.problem, self.date))
        counts = all(type(n) is int and n >= 1 for n in (self.threads, self.samples))
        if not words or not counts or not isinstance(self.config, dict):
            raise ConfigError(f"a tuning entry has a field of the wrong type: {self}.")
        if not isinstance(self.seconds, int | float) or not isfinite(self.seconds) or self.seconds <= 0:
            raise ConfigError(
                f"a measured time is a positive number of seconds, got {self.seconds!r} for {self.kernel} "
                f"{config_key(self.config)} on {self.problem}; repeat the measurement."
            )
        return self


def config_key(config: Config) -> str:
    """A configuration as text, the same for the same values in any order."""
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def generation() -> int:
    """A number that grows whenever a cache of this process learns something."""
    return _generation


def _learned() -> None:
    global _generation
    with _generation_lock:
        _generation += 1
    clear_memos()


class TuningCache:
    """Measured times of this machine, in memory and in a file under `directory`.

    Args:
        directory: where the file is; `paths.cache_dir()` unless given. It is made when something is first
            written.

    No method raises for trouble with files: that is a CacheWarning, and the cache goes on in memory.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.directory = Path(directory) if directory is not None else cache_dir()
        self._entries: dict[tuple[str, int], dict[tuple[str, str, str, int, str], Entry]] = {}
        self._loaded = False
        self._warned = False
        self._lock = RLock()

    @property
    def file(self) -> Path:
        """The file, named after the format, the machine's fingerprint and the library versions."""
        return self.directory / f"tuning-{FORMAT}-{machine.fingerprint()}-{_versions_digest()}.json"

    def __len__(self) -> int:
        self._load()
        return sum(len(entries) for entries in self._entries.values())

    def __iter__(self) -> Iterator[Entry]:
        self._load()
        with self._lock:
            return iter([entry for entries in self._entries.values() for entry in entries.values()])

    def find(self, problem: str, threads: int) -> list[Entry]:
        """All entries of a problem on that many threads, whichever the kernel."""
        self._load()
        with self._lock:
            return list(self._entries.get((problem, threads), {}).values())

    def put(self, entries: Iterable[Entry]) -> None:
        """Keep entries, in place of older ones with the same key, in memory and on disk.

        What other processes have written meanwhile is kept, and becomes known here.

        Raises:
            ConfigError: for a time that is NaN, infinite, zero or negative; then nothing is kept.
        """
        news = [entry.check() for entry in entries]
        if not news:
            return
        self._load()
        with self._lock:
            self._remember(news)
            try:
                self._write(news)
            except OSError as error:
                self._warn(
                    f"tuning results cannot be written to {self.file}: {error}; they are kept in memory only"
                )
        _learned()

    def refresh(self) -> None:
        """Read the file again: other processes may have learned something."""
        with self._lock:
            self._loaded = False
        self._load()
        _learned()

    def _remember(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries.setdefault((entry.problem, entry.threads), {})[entry.key] = entry

    def _load(self) -> None:
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            try:
                self._remember(_parse(self.file.read_text(encoding="utf-8")))
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                self._warn(f"tuning results in {self.file} cannot be read: {error}")
            except ValueError:
                self._set_aside_if_corrupt()

    def _set_aside_if_corrupt(self) -> None:
        try:
            with _locked(self.file):
                self._remember(self._read_or_set_aside())
        except OSError as error:
            self._warn(f"the corrupt file {self.file} cannot be set aside: {error}")

    def _read_or_set_aside(self) -> list[Entry]:
        """What the file holds. Called with the file locked, so that nobody mends it at the same time."""
        try:
            return _parse(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except ValueError as error:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            aside = self.file.with_name(f"{self.file.name}.corrupt-{stamp}-{os.getpid()}")
            os.replace(self.file, aside)
            warnings.warn(
                f"the tuning results in {self.file} are corrupt ({error}); the file is now {aside.name}, and "
                "what is measured from now on goes into a new one.",
                CacheWarning,
                stacklevel=2,
            )
            return []

    def _write(self, news: list[Entry]) -> None:
        """Merge `news` into the file: read, merge, replace, all under a lock that other processes respect."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with _locked(self.file):
            merged = {entry.key: entry for entry in self._read_or_set_aside()}
            merged.update((entry.key, entry) for entry in news)
            write_atomically(self.file, _render(merged.values()))
        self._remember(entry for key, entry in merged.items() if key not in {new.key for new in news})

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{text}. Set {CACHE_VARIABLE} to a directory that can be written.",
                CacheWarning,
                stacklevel=4,
            )


def _parse(text: str) -> list[Entry]:
    """The entries in the text of a cache file; ValueError with the reason when it is no such file."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it has no format {FORMAT}")
    try:
        return [Entry(**record).check() for record in document["entries"]]
    except (TypeError, KeyError) as error:
        raise ValueError(f"an entry is malformed: {error}") from None


def _render(entries: Iterable[Entry]) -> str:
    """One entry a line, so that people can read the file and compare two."""
    here = machine.machine()
    head = {
        "format": FORMAT,
        "machine": {"cpu": here.cpu, "cores": here.cores, "fingerprint": machine.fingerprint()},
        "versions": dict(library_versions()),
    }
    lines = [json.dumps(asdict(entry), allow_nan=False) for entry in sorted(entries, key=lambda e: e.key)]
    return json.dumps(head, indent=1)[:-2] + ',\n "entries": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock beside `file`, waiting for it. The system lets go of it when a process dies."""
    with open(file.with_name(f"{file.name}.lock"), "a", encoding="utf-8") as stream:
        _lock_stream(stream)
        yield


def _lock_stream(stream: IO[Any]) -> None:
    if fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_EX)


@cache
def library_versions() -> tuple[tuple[str, str], ...]:
    """Name and version of each installed library whose code a kernel is compiled by; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


@cache
def _versions_digest() -> str:
    from hashlib import sha256

    return sha256(repr(library_versions()).encode()).hexdigest()[:12]
