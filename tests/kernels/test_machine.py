"""What is read of the machine, from the text that systems give."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelwright.kernels import machine
from kernelwright.kernels.errors import ConfigError

X86 = """processor\t: 0
model name\t: Fast CPU @ 2.00GHz
flags\t\t: fpu sse2 avx avx2 fma avx512f

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = """processor\t: 0
Features\t: fp asimd sve
CPU part\t: 0xd40
"""


def test_the_first_cpu_is_read_from_cpuinfo() -> None:
    model, flags = machine._parse_cpuinfo(X86)
    assert model == "Fast CPU @ 2.00GHz"
    assert {"avx512f", "fma"} <= flags
    model, flags = machine._parse_cpuinfo(ARM)
    assert model == "0xd40"
    assert "neon" in flags, "ARM's asimd is what everybody else calls neon"


def test_a_cpuinfo_that_says_nothing_is_survived() -> None:
    model, flags = machine._parse_cpuinfo("")
    assert model
    assert isinstance(flags, frozenset)


@pytest.mark.parametrize(
    ("text", "size"), [("48K\n", 49152), ("2048K", 2 << 20), ("512", 512), ("480M", 480 << 20)]
)
def test_sizes_of_caches(text: str, size: int) -> None:
    assert machine._parse_size(text) == size


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-3\n", 4), ("0-1,8-9,12", 5), ("", 1)])
def test_lists_of_cpus(text: str, count: int) -> None:
    assert machine._count_cpus(text) == count


def test_caches_are_read_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [
        ("Data", 1, "48K", "0"),
        ("Instruction", 1, "64K", "0"),
        ("Unified", 2, "2048K", "0-1"),
        ("Unified", 3, "?", "0"),
    ]
    for number, values in enumerate(told):
        folder = tmp_path / "cpu0" / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        for name, value in zip(("type", "level", "size", "shared_cpu_list"), values, strict=True):
            (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(machine, "_SYS_CPU", tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    sizes, sharers = machine._caches()
    assert sizes == {"l1d": 48 << 10, "l2": 2 << 20, "l3": 0}
    assert sharers["l2"] == 2


def test_usual_caches_stand_in_where_none_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SYS_CPU", tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    sizes, _ = machine._caches()
    assert all(size > 0 for size in sizes.values())


def test_this_machine_makes_sense() -> None:
    here = machine.machine()
    assert here is machine.machine()
    assert here.cores >= 1
    assert here.l1d >= 8 << 10
    assert here.l2 > here.l1d
    assert here.simd


@pytest.mark.parametrize(
    ("flags", "width"),
    [({"avx512f", "avx2", "fma"}, 64), ({"avx2", "fma"}, 32), ({"avx2"}, 16), ({"neon"}, 16), (set(), 16)],
)
def test_the_vector_width_follows_the_flags(
    flags: set[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERNELWRIGHT_VECTOR_BYTES", raising=False)
    fake = machine.Machine("x", "x86_64", "Linux", frozenset(flags), 1, 1, 1, 1)
    monkeypatch.setattr(machine, "machine", lambda: fake)
    assert machine.vector_bytes() == width


def test_the_vector_width_can_be_narrowed_and_changes_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prints = set()
    for width in (16, 32, 64):
        monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", str(width))
        assert machine.vector_bytes() == width
        prints.add(machine.fingerprint())
    assert len(prints) == 3
    assert all(len(text) == 12 for text in prints)


@pytest.mark.parametrize("text", ["48", "wide", "0"])
def test_a_wrong_vector_width_names_the_variable(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", text)
    with pytest.raises(ConfigError, match=f"KERNELWRIGHT_VECTOR_BYTES is '{text}'; write 16, 32 or 64"):
        machine.vector_bytes()
