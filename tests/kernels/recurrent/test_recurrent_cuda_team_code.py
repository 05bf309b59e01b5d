"""Machine code of the recurrences in CUDA C++: in each chip's limits, nothing spilled, weights read once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from gpu_extra import need

need("cupy", "triton")

from kernelwright.kernels.cuda import aot, device, nvrtc  # noqa: E402
from kernelwright.kernels.cuda.code_launch import CodeLaunch, CodeStep, machine_code  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.recurrent.cuda.calls import MAKERS, Call  # noqa: E402
from kernelwright.kernels.recurrent.cuda.teams import Team, teams  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

if nvrtc.problem() is not None:
    pytest.skip(str(nvrtc.problem()), allow_module_level=True)

LOOK, SHOW = "LDG.E.128.STRONG.GPU", "STG.E.STRONG.GPU"


def call_of(op: str, dtype: str, t: int, b: int, units: int, heads: int = 1) -> Call:
    """A call with everything there is, kept for the gradient."""
    kind = op.partition("_")[0]
    g, h = {"lstm": 4, "gru": 3, "rnn": 1}[kind], units * heads
    shapes = {
        **dict.fromkeys(("b_ih", "b_hh"), (g * h,)),
        **dict.fromkeys(("y", "dy", "cells"), (t, b, h)),
        **dict.fromkeys(("h0", "c0", "dh_n", "dc_n"), (b, h)),
        "x": (t, b, h),
        "lengths": (b,),
        "w_ih": (g * h, h),
        "w_hh": (g * h, h) if heads == 1 else (heads, g * units, units),
        "gates": (t, b, 4 * h),
    }
    dtypes = {"lengths": "int64"}
    inputs = tuple(
        TensorSpec(shapes[name], dtypes.get(name, dtype), "cuda") if name in shapes else ABSENT
        for name in get_op(op).inputs
    )
    attrs = get_op(op).complete({} if kind == "rnn" or op.endswith("_grad") else {"train": True})
    return Call(op, (*inputs, *get_op(op).infer(inputs, **attrs)), attrs)


@dataclass(frozen=True)
class Case:
    """The steps of a call as they are compiled for a chip, by one of the best teams there."""

    call: Call
    team: Team
    capability: int

    def __str__(self) -> str:
        s = self.call.shape
        sizes = f"B {s.batch} H {s.heads} x {s.units} {s.dtype}"
        return f"{self.call.op} {sizes} ug {self.team.ug} nt {self.team.nt} sm_{self.capability}"

    @property
    def step(self) -> CodeStep:
        """The cooperative launch."""
        with device.assume(self.capability):
            parts = MAKERS[self.call.op.endswith("_grad")](self.call, self.team).parts()
        steps = [
            part.launch.step(True) for part in parts if isinstance(part.launch, CodeLaunch) and not part.op
        ]
        return next(step for step in steps if step.code.together)


def _best(op: str, capability: int, *sizes: Any) -> list[Case]:
    call = call_of(op, *sizes)
    return [Case(call, teams(call.shape, device.chip(capability))[0], capability)]


def _by_turns(op: str, *sizes: Any) -> list[Case]:
    """The best team whose blocks have several tiles of sequences."""
    call = call_of(op, *sizes)
    found = [team for team in teams(call.shape, device.chip(90)) if team.turns > 1]
    return [Case(call, found[0], 90)]


def cases() -> list[Case]:
    """What the aims name, on each chip, and all that a team may keep in registers on one of them."""
    found: list[Case] = []
    for capability in device.TARGETS:
        for op in ("lstm", "lstm_grad"):
            found += _best(op, capability, "bfloat16", 1024, 16, 768)
            found += _best(op, capability, "float32", 1024, 16, 768) if capability == 90 else ()
    for op in ("gru", "gru_grad"):
        found += _best(op, 90, "float16", 1500, 32, 2816)
        found += _best(op, 90, "bfloat16", 100, 1, 512)
        found += _best(op, 90, "float32", 375, 32, 2048)
    for op in ("lstm", "lstm_grad"):
        found += _best(op, 90, "bfloat16", 25, 128, 2048)
        found += _best(op, 90, "bfloat16", 256, 64, 64, 16)
        found += _best(op, 90, "float32", 100, 16, 60, 8)
    for op in ("rnn", "rnn_grad"):
        found += _best(op, 90, "bfloat16", 50, 64, 1760)
    for op in ("lstm", "gru_grad"):
        found += _by_turns(op, "bfloat16", 25, 128, 1024)
    return found


CASES = cases()


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    """Everything compiled and read, two at a time; the tests find it kept."""
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(machine_code, case.step.code, case.capability) for case in CASES]:
            job.exception()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shipped_code(case: Case) -> None:
    code, chip = machine_code(case.step.code, case.capability), device.chip(case.capability)
    product = "FFMA" if case.call.shape.size == 4 else "HMMA.16816.F32"
    assert not aot.problems(code, chip, expect=(product, LOOK, SHOW), registers=255)
    binary = nvrtc.compiled(case.step.code, nvrtc.arch_of(case.capability))
    assert (binary.registers, binary.stack, binary.spills) == (code.registers, 0, 0)
    assert case.step.blocks <= chip.multiprocessors, "blocks that wait for each other have to run at one time"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("op", ["lstm", "lstm_grad"])
def test_weights_in_registers_are_read_once(op: str, dtype: str) -> None:
    """As many vectors as they have are loaded, all of them before the first look at others' numbers."""
    (case,) = _best(op, 90, dtype, 1024, 16, 768)
    team = case.team
    assert team.kept == team.blocks, "all of them fit"
    vectors = team.kept * team.product_vectors
    sass = aot.disassembled(nvrtc.compiled(case.step.code, "sm_90a").cubin).splitlines()
    loads = [place for place, line in enumerate(sass) if "LDG.E.128 " in line]
    assert len(loads) == vectors
    assert loads[-1] < next(place for place, line in enumerate(sass) if LOOK in line)


def test_a_look_is_16_bytes_for_each_block_of_k_and_8_sequences() -> None:
    """Each vector that a step needs is asked for in one place, and once more in the loop that looks again."""
    (case,) = _best("lstm", 90, "bfloat16", 1024, 16, 768)
    code = machine_code(case.step.code, 90)
    assert code.count(LOOK) == 2 * case.team.kept * case.team.nt
    assert code.count("HMMA.16816.F32") == 2 * case.team.kept * case.team.nt * 4


# --- controls -----------------------------------------------------------------------------------------------


def test_more_weights_than_registers_are_found() -> None:
    (case,) = _best("lstm", 90, "bfloat16", 25, 128, 2048)
    greedy = replace(case, team=replace(case.team, kept=6, shared_blocks=0))
    problems = aot.problems(machine_code(greedy.step.code, 90), device.chip(90))
    assert any("spilled" in problem for problem in problems)


def test_weights_that_are_not_kept_are_found() -> None:
    (case,) = _best("lstm", 90, "bfloat16", 1024, 16, 768)
    less = replace(case, team=replace(case.team, kept=1))
    sass = aot.disassembled(nvrtc.compiled(less.step.code, "sm_90a").cubin).splitlines()
    loads = [place for place, line in enumerate(sass) if "LDG.E.128 " in line]
    assert loads[-1] > next(place for place, line in enumerate(sass) if LOOK in line)
