"""Generated code: kept on disk, set aside when damaged, and safe among threads and forks."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import ir

from kernelwright.kernels.cpu import generate, kept
from kernelwright.kernels.cpu.vector_ir import I64, pointer
from kernelwright.kernels.errors import CacheWarning, ConfigError


def emit_number(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, number: int) -> None:
    """Writes index + number where block points."""
    builder.store(builder.add(index, ir.Constant(I64, number)), pointer(builder, block))


def result_of(address: int) -> int:
    word = np.zeros(1, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)(word.ctypes.data, 5)
    return int(word[0])


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own, and nothing known yet."""
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(generate, "_addresses", {})
    monkeypatch.setattr(generate, "counts", {"loaded": 0, "compiled": 0})
    return tmp_path / "cache" / "compiled"


def forget() -> None:
    generate._addresses.clear()


def test_code_is_compiled_once_and_loaded_after_that(fresh: Path) -> None:
    for _ in range(2):
        assert result_of(generate.address_of(emit_number, (1,), "numbers")) == 6
    assert generate.counts == {"loaded": 0, "compiled": 1}
    forget()
    assert result_of(generate.address_of(emit_number, (1,), "numbers")) == 6
    assert result_of(generate.address_of(emit_number, (2,), "numbers", light=True)) == 7
    assert generate.counts == {"loaded": 1, "compiled": 2}
    assert len(list(fresh.glob("numbers-*.o"))) == 2


@pytest.mark.parametrize("damage", [b"", b"nonsense", None], ids=["empty", "nonsense", "one bit"])
def test_a_damaged_file_is_set_aside_and_made_again(fresh: Path, damage: bytes | None) -> None:
    generate.address_of(emit_number, (3,), "numbers")
    (path,) = fresh.glob("*.o")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data) if damage is None else damage)
    forget()
    with pytest.warns(CacheWarning, match="set aside"):
        assert result_of(generate.address_of(emit_number, (3,), "numbers")) == 8
    assert len(list(fresh.glob("*.corrupt-*"))) == 1
    assert kept.read(path) is not None


def test_without_a_directory_to_write_to_there_is_a_warning_once(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    kept.warn_unwritable.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert result_of(generate.address_of(emit_number, (6,), "numbers")) == 11
        assert result_of(generate.address_of(emit_number, (7,), "numbers")) == 12
    assert [warning.category for warning in told] == [CacheWarning]


def test_a_key_of_this_process_alone_is_refused(fresh: Path) -> None:
    with pytest.raises(ConfigError, match="strings, numbers and tuples"):
        generate.address_of(emit_number, (object(),), "numbers")


def test_threads_that_ask_at_once_get_the_same_code(fresh: Path) -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(generate.address_of(emit_number, (8,), "numbers")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert generate.counts["compiled"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="waits for a system that forks")
def test_a_forked_child_runs_and_compiles(fresh: Path) -> None:
    address = generate.address_of(emit_number, (9,), "numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        right = result_of(address) == 14 and result_of(generate.address_of(emit_number, (10,), "n")) == 15
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
