"""What a terminal is told while something compiles: one line after a second, and nothing otherwise."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelwright.kernels.cpu import compile as compile_module
from kernelwright.kernels.cpu.compile import compiled

SLOW = """
import sys, time
from numba import types
from numba.extending import intrinsic
from kernelwright.kernels.cpu import compile as compile_module
from kernelwright.kernels.cpu.compile import compiled

compile_module._PATIENCE_S = float(sys.argv[1])

@intrinsic
def slow(typingctx, x):
    def codegen(context, builder, sig, args):
        time.sleep(float(sys.argv[2]))
        return args[0]
    return types.int64(types.int64), codegen

def kernel(x):
    return slow(x)

assert compiled(kernel, name="a slow kernel")(3) == 3
"""


@pytest.fixture(scope="module")
def slow_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slow") / "slow.py"
    path.write_text(SLOW)
    return path


def on_terminal(script: Path, patience: float, compiling: float) -> str:
    """What the script says on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "KERNELWRIGHT_CACHE_DIR": str(script.parent / f"{patience}-{compiling}")}
    with subprocess.Popen(
        [sys.executable, str(script), str(patience), str(compiling)], stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        said = b"".join(iter(lambda: read_some(ours), b""))
        os.close(ours)
        assert process.wait(120) == 0, said.decode()
    return said.decode()


def read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1000)
    except OSError:  # what Linux says at the end of a terminal
        return b""


def test_a_terminal_is_told_of_a_compilation_that_takes_a_while(slow_script: Path) -> None:
    assert compile_module._PATIENCE_S == 1.0
    said = on_terminal(slow_script, 0.2, 0.6)
    assert said.strip() == "kernelwright: compiling a slow kernel (once for this machine) ..."
    # It is on disk now.
    assert on_terminal(slow_script, 0.2, 0.6) == ""


def test_a_terminal_is_not_told_of_a_quick_compilation(slow_script: Path) -> None:
    assert on_terminal(slow_script, 60, 0) == ""


def test_only_a_terminal_is_told(slow_script: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(slow_script), "0.1", "0.4"],
        env={**os.environ, "KERNELWRIGHT_CACHE_DIR": str(slow_script.parent / "piped")},
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == b""


class Terminal:
    """Standard error that says it is a terminal, and keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)

    def flush(self) -> None: ...


def waiting_notices() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_compilation_that_fails_leaves_no_notice_behind(
    entries: Callable[[], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from numba.core.errors import TypingError

    terminal, during = Terminal(), []
    start = compile_module.Notice.start

    def noted(notice: Any) -> None:
        start(notice)
        during.extend(waiting_notices())

    monkeypatch.setattr(compile_module, "_PATIENCE_S", 60)
    monkeypatch.setattr(compile_module.Notice, "start", noted)
    monkeypatch.setattr(sys, "stderr", terminal)

    def wrong(x: Any) -> Any:
        return x.no_such_attribute

    for use in (lambda function: function.entry(("int64",)), lambda function: function(1)):
        with pytest.raises(TypingError):
            use(compiled(wrong))
        assert during.pop()
        assert not waiting_notices()
    assert not terminal.written
