"""A worker seen from outside: started, asked, and ended, whatever becomes of it.

A worker may die of what it runs, or never answer. Both are a `WorkerLostError` that tells what happened and
the last words of its standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...kernels.errors import KernelwrightError

MODULE = "kernelwright.bench.compare.worker"
# How long idle threads of NumPy's OpenBLAS spin; see bench/cli/__init__.py.
QUIET_THREADS = {"OPENBLAS_THREAD_TIMEOUT": "20"}
LAST_BYTES = 4096


class WorkerLostError(KernelwrightError, RuntimeError):
    """A worker ended, or did not answer in time; the text says how, and its last words."""


@dataclass(frozen=True)
class Limits:
    """How long a worker may take for an answer, in seconds.

    Attributes:
        start: for the interpreter, and the imports.
        prepare: for the first call: with nothing in the cache it compiles for tens of seconds.
        size: for three or four batches, of calls that are slow perhaps.
        time: for one batch, beyond a hundred times what it should take.
        verify: for the oracle in float64, and the op's samples.
    """

    start: float = 60.0
    prepare: float = 240.0
    size: float = 60.0
    time: float = 20.0
    verify: float = 240.0


@dataclass(frozen=True)
class Launch:
    """How a side's processes are started.

    Attributes:
        python: the interpreter.
        package: the folder that the package `kernelwright` lies in.
        environment: variables that differ from this process's own; None takes one away.
        module: what is run.
    """

    python: str = sys.executable
    package: str = ""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    module: str = MODULE

    @property
    def tree(self) -> Path | None:
        """The folder of the package itself, links followed; None for whatever the interpreter finds."""
        return (Path(self.package) / "kernelwright").resolve() if self.package else None

    def variables(self) -> dict[str, str]:
        """The environment of the process."""
        found = {**QUIET_THREADS, **os.environ}
        if self.package:
            # The tree goes first; what the user had on the path stays, for a kernel file's own imports.
            found["PYTHONPATH"] = os.pathsep.join(filter(None, (self.package, os.environ.get("PYTHONPATH"))))
        for name, value in self.environment.items():
            if value is None:
                found.pop(name, None)
            else:
                found[name] = value
        return found


class Remote:
    """One worker.

    Args:
        launch: how it is started.
        limits: how long it may take.

    `start` returns at once; the first `receive` waits for it.
    """

    def __init__(self, launch: Launch, limits: Limits | None = None):
        self._launch, self._limits = launch, limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._buffer = b""
        self._asked = ""

    def start(self) -> None:
        """Starts the process."""
        self._errors = tempfile.TemporaryFile("a+b", prefix="kernelwright-worker-")  # noqa: SIM115
        # -P keeps the working directory off the path: a folder called kernelwright there is not meant. In a
        # session of its own, so that Ctrl-C reaches the controller alone, and children that a kernel leaves
        # behind can be ended with it.
        self._process = subprocess.Popen(
            [self._launch.python, "-P", "-m", self._launch.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._launch.variables(),
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._running.pid

    def send(self, do: str, **more: Any) -> None:
        """Sends a request; each is to be followed by a `receive`.

        Raises:
            WorkerLostError: the process is gone.
        """
        process, self._asked = self._running, do
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            process.stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._lost() from None

    def receive(self, seconds: float | None = None) -> dict[str, Any]:
        """The answer to the last request.

        Args:
            seconds: how long it may take; by what was asked unless given.

        Raises:
            WorkerLostError: the process ended, or did not answer in time; it is then ended.
        """
        if seconds is None:
            limits, asked = self._limits, self._asked
            seconds = getattr(limits, asked, limits.start)
        line = self._line(time.monotonic() + seconds)
        if line is None:
            self.kill()
            raise WorkerLostError(
                f"did not answer within {seconds:g} s while it was to {_WORDS.get(self._asked, self._asked)}"
                f"{self._last_words()}"
            )
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            self.kill()
            raise WorkerLostError(f"answered {line[:200]!r}, which is no JSON") from None
        return reply

    def ask(self, do: str, seconds: float | None = None, **more: Any) -> dict[str, Any]:
        """`send` and `receive`."""
        self.send(do, **more)
        return self.receive(seconds)

    def end(self, patience_s: float = 2.0) -> None:
        """Lets the process end, or ends it. It may have ended before."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(WorkerLostError):
            self.send("end")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        self.kill()

    def kill(self) -> None:
        """Ends the process and what it started, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise WorkerLostError("was ended before")
        return self._process

    def _line(self, deadline: float) -> bytes | None:
        """The next line that the process writes; None when it takes too long."""
        process = self._running
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return None
            read = os.read(descriptor, 1 << 16)
            if not read:
                raise self._lost()
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _lost(self) -> WorkerLostError:
        process = self._running
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        code = process.returncode
        self.kill()
        if code is None:
            how = "closed its output"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
        else:
            how = f"ended with code {code}"
        during = f" while it was to {_WORDS[self._asked]}" if self._asked in _WORDS else ""
        return WorkerLostError(f"{how}{during}{self._last_words()}")

    def _last_words(self) -> str:
        """The last line on the process's standard error, as an addition to a sentence."""
        words = self.last_error_lines()
        return f": {words[-1].strip()[:300]}" if words else ""

    def last_error_lines(self) -> list[str]:
        """The lines at the end of the process's standard error."""
        if self._errors is None:
            return []
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - LAST_BYTES))
        return [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]


_WORDS = {
    "hello": "start",
    "list": "list its problems",
    "prepare": "make its first call",
    "size": "find the size of a batch",
    "time": "time a batch",
    "verify": "verify its results",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def package_of_this_process() -> Path:
    """The folder of the package that runs here."""
    return Path(__file__).resolve().parents[2]
