"""The AMX kernels: the machine code that an AMX machine would run, here, with its tile instructions emulated.

One child process compiles the kernels for this CPU with AMX, and a signal handler does what the CPU can't
(tests/support/amx_traps.py). What this can't show is time, and whether a real CPU does what the manual says:
there a proof of the same kind runs before the first call, and its tests are below.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kernelwright as kw
from kernelwright.kernels import machine as hardware
from kernelwright.kernels.machine import machine
from kernelwright.kernels.matmul import amx_proof, cpu_numba_amx
from kernelwright.kernels.matmul.registers import pairs_problem
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.spec import ABSENT

CHILD = Path(__file__).parents[2] / "support" / "amx_child.py"
ASKED = ("matmul", "linear", "random", "fenced", "bits", "choice", "proof", "roof", "blind")
EMULATES = platform.machine() == "x86_64" and sys.platform == "linux" and pairs_problem(machine()) is None
emulated = pytest.mark.skipif(
    not EMULATES or "amx_tile" in machine().flags,
    reason="waits for a Linux machine with AVX-512 BF16 and without AMX, whose signals it handles",
)
USUAL_RUN = subprocess.run
CALL = (TensorSpec((64, 64), "bfloat16"), TensorSpec((64, 64), "bfloat16"))


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the child found, by what was asked."""
    done = subprocess.run(
        [sys.executable, str(CHILD), *ASKED],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    found = {what: json.loads(text) for what, _, text in lines}
    assert done.returncode == 0, f"after {list(found)}: exit status {done.returncode}\n{done.stderr[-3000:]}"
    return found


@emulated
@pytest.mark.parametrize("op", ["matmul", "linear"])
def test_every_sample_is_right_in_every_configuration(op: str, told: dict[str, Any]) -> None:
    assert told[op]["faults"] == []
    assert told[op]["runs"] > 100


@emulated
def test_the_tiles_did_the_work(told: dict[str, Any]) -> None:
    """Each task configures its tiles and gives them back; the counts are those of the schedule."""
    counts = told["matmul"]["counts"]
    assert counts["configured"] == counts["released"] > told["matmul"]["runs"] / 2
    assert counts["multiplied"] > 0
    assert counts["multiplied"] <= counts["loaded"]
    assert counts["stored"] % 4 == 0


@emulated
def test_random_problems_are_right(told: dict[str, Any]) -> None:
    assert told["random"]["matmul"] >= 250
    assert told["random"]["linear"] >= 250
    assert told["random"]["products"] > 1000


@emulated
def test_nothing_is_touched_beside_operands(told: dict[str, Any]) -> None:
    assert told["fenced"]["runs"] >= 200


@emulated
def test_bits_are_those_of_the_manual_on_any_number_of_threads(told: dict[str, Any]) -> None:
    assert told["bits"] == {"same": True, "as_the_manual": True}


@emulated
def test_tiles_are_chosen_where_there_is_something_to_multiply(told: dict[str, Any]) -> None:
    assert told["choice"]["1024x1024x1024"] == "linear/cpu_numba_amx/tiles"
    assert told["choice"]["1x4096x4096"] == "linear/cpu_numba_linear/dots"


@emulated
def test_the_peak_of_the_tiles_can_be_measured(told: dict[str, Any]) -> None:
    assert told["roof"]["computes_in"] == "tiles"
    assert told["roof"]["products"] == told["roof"]["counted"]


@emulated
def test_the_proof_passes_right_kernels_and_no_wrong_ones(told: dict[str, Any]) -> None:
    assert told["proof"] == {"problem": None}
    assert "wrong" in told["blind"]["problem"]


# --- the proof before the first call ------------------------------------------------------------------------


@pytest.fixture
def has_amx(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """A machine on which all is there that AMX kernels need, but for a verdict."""
    monkeypatch.setattr(amx_proof, "_machine_problem", lambda: None)
    amx_proof._verdict.cache_clear()


@pytest.fixture(autouse=True)
def _no_verdict_stays() -> Any:
    yield
    amx_proof._verdict.cache_clear()


def ending_with(code: str) -> Callable[..., Any]:
    """A `subprocess.run` whose child runs this code instead of the proof."""

    def run(command: list[str], **options: Any) -> Any:
        return USUAL_RUN([command[0], "-c", code], **options)

    return run


def kernels_reasons() -> str:
    return str(kw.explain(kw.matmul, *CALL))


def test_a_machine_without_amx_says_so() -> None:
    if "amx_tile" in machine().flags:
        pytest.skip("waits for a machine without AMX")
    assert "needs the tile registers of AMX, which this CPU has not" in kernels_reasons()
    specs = (*CALL, ABSENT, ABSENT, TensorSpec((64, 64), "bfloat16"))
    attrs: dict[str, Any] = {"activation": None, "w_format": "", "w_shape": ()}
    assert "tile registers" in str(cpu_numba_amx.tiles_supports(specs, attrs))
    assert cpu_numba_amx.prepacked_supports(specs, attrs) == "takes a packed weight"


def test_a_refusal_of_the_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """This kernel of Linux, asked on a CPU without AMX, refuses as one that does not know the question."""
    if not sys.platform.startswith("linux") or "amx_tile" in machine().flags:
        pytest.skip("waits for a Linux machine without AMX, whose system refuses")
    here = machine()
    with_amx = type(here)(**{**vars(here), "flags": here.flags | {"amx_tile", "amx_bf16"}})
    monkeypatch.setattr(hardware, "machine", lambda: with_amx)
    hardware._ask_for_tiles.cache_clear()
    assert "which Linux refused (" in str(hardware.tiles_problem())
    hardware._ask_for_tiles.cache_clear()


def test_the_variable_switches_tiles_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx_proof, "tiles_problem", lambda: None)
    monkeypatch.setenv("KERNELWRIGHT_AMX", "0")
    assert amx_proof.problem() == "is switched off by KERNELWRIGHT_AMX"


def test_a_compiler_without_the_instructions_is_never_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM would end this process."""
    if "amx_tile" in machine().flags:
        pytest.skip("waits for a machine without AMX")
    monkeypatch.setattr(amx_proof, "tiles_problem", lambda: None)
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", "64")
    assert "needs a compiler that may use amx-tile" in str(amx_proof.problem())
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", "32")
    assert amx_proof.problem() == "finishes its tiles by vectors of 64 bytes, not 32"


@pytest.mark.usefixtures("has_amx")
@pytest.mark.parametrize(
    ("code", "reason", "final"),
    [
        ("print('{\"problem\": null}')", None, True),
        ('print(\'{"problem": "1 is 2"}\')', "failed its proof on this machine: 1 is 2", True),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "SIGILL ended it", True),
        (
            "raise MemoryError('all gone')",
            "could not be proven on this machine: MemoryError: all gone",
            False,
        ),
        ("print('no verdict')", "could not be proven on this machine: exit status 0", False),
    ],
)
def test_the_verdict_of_the_child_is_kept_and_obeyed(
    code: str, reason: str | None, final: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amx_proof.subprocess, "run", ending_with(code))
    told = amx_proof.problem()
    assert told is None if reason is None else reason in str(told)
    # Another process asks the file, and starts no child; after a day it does, where nothing was proven.
    monkeypatch.setattr(amx_proof.subprocess, "run", ending_with('print(\'{"problem": "asked again"}\')'))
    amx_proof._verdict.cache_clear()
    assert amx_proof.problem() == told
    now = time.time()
    monkeypatch.setattr(amx_proof.time, "time", lambda: now + 2 * amx_proof.PATIENCE_S)
    amx_proof._verdict.cache_clear()
    again = amx_proof.problem()
    assert again == told if final else "asked again" in str(again)


@pytest.mark.usefixtures("has_amx")
def test_a_child_that_can_not_start_is_a_reason_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx_proof.sys, "executable", "/nowhere/python")
    assert "could not be proven on this machine: FileNotFoundError" in str(amx_proof.problem())


@pytest.mark.usefixtures("has_amx")
def test_a_damaged_verdict_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    path = amx_proof.verdict_file()
    path.parent.mkdir(parents=True)
    path.write_text("{")
    monkeypatch.setattr(amx_proof.subprocess, "run", ending_with('print(\'{"problem": "asked"}\')'))
    assert "asked" in str(amx_proof.problem())


@pytest.mark.usefixtures("has_amx")
def test_explain_shows_what_the_proof_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx_proof.subprocess, "run", ending_with('print(\'{"problem": "wrong sums"}\')'))
    assert "failed its proof on this machine: wrong sums" in kernels_reasons()


def test_the_real_child_finds_this_package_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it ends with a refusal by a kernel, for want of AMX; but it has come so far."""
    if "amx_tile" in machine().flags:
        pytest.skip("waits for a machine without AMX")
    monkeypatch.chdir(tmp_path)
    final, reason = amx_proof.prove()
    assert not final
    assert "NoKernelError" in str(reason)
    assert "which this CPU has not" in str(reason)


@pytest.mark.parametrize(
    ("flags", "reason", "level", "text"),
    [
        ((), "needs AMX", "ok", "no AMX: its kernels don't run here, and its peak is not measured"),
        (("amx_bf16",), None, "ok", "proven on this machine"),
        (("amx_bf16",), "failed its proof", "note", "the kernel failed its proof; its peak is not measured"),
    ],
)
def test_doctor_tells_whether_tiles_are_used(
    flags: tuple[str, ...], reason: str | None, level: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernelwright.bench import doctor

    here = machine()
    told = type(here)(**{**vars(here), "flags": here.flags - {"amx_bf16"} | set(flags)})
    monkeypatch.setattr(hardware, "machine", lambda: told)
    monkeypatch.setattr(amx_proof, "problem", lambda: reason)
    (finding,) = doctor._tiles()
    assert finding.level == level
    assert text in finding.text
