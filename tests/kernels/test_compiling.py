"""What is compiled and loaded is counted, once, and in its own time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from kernelwright.kernels import compiling
from kernelwright.kernels.compiling import Spent, spent

PROGRAM = """
import numpy as np
from kernelwright.kernels.compiling import spent
from kernelwright.kernels.cpu.roof import loop

loop("chain")(10, 0, 0, 0)
once = spent()
assert (once.compile_s > 0) == (once.compiled > 0) and (once.load_s > 0) == (once.loaded > 0)
for _ in range(100):
    loop("chain")(10, 0, 0, 0)
assert spent() is once, "a call of what is ready costs nothing and counts nothing"
print(once.compiled, once.loaded)
"""


def test_one_process_compiles_and_the_next_one_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    outputs = [
        subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    (compiled, loaded), again = (list(map(int, words)) for words in outputs)
    assert compiled >= 1
    assert loaded == 0
    assert again == [0, 1]


def test_compilation_within_compilation_counts_its_seconds_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 5.0])
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: next(clock))
    before = spent()
    with compiling.compiling(), compiling.compiling(), compiling.loading():
        pass
    assert spent() - before == Spent(compiled=2, loaded=1, compile_s=4.0)


def test_threads_add_up_and_a_failure_is_no_function() -> None:
    before = spent()

    def work() -> None:
        with compiling.compiling():
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match="no code"), compiling.compiling():
        raise ValueError("no code")
    assert (spent() - before).compiled == 8
    assert str(Spent(2, 1, 1.5, 0.01)) == "compiling 1.50 s (2 functions), loading 0.010 s (1 functions)"
