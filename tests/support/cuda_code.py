"""Machine code of CUDA kernels for several chips, made and read in child processes: the proof ahead of time.

    CASES = [Case("matmul/cuda_triton/persistent", specs, attrs, config, 90, expect=("HGMMA",)), ...]
    PROOF = Proof(CASES)

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_...(case): assert not PROOF.problems(case)

The first question makes all the code, two processes at a time; what was read is kept on disk (`cuda.aot`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from kernelwright.kernels.cuda import aot, device
from kernelwright.kernels.cuda.aot import Code
from kernelwright.kernels.spec import TensorSpec

PROCESSES = 2


@dataclass(frozen=True, eq=False)
class Case:
    """A call whose machine code is looked at.

    Attributes:
        kernel: the kernel's id, or a binding function at the top of a module that can be imported.
        specs: of inputs and outputs, on "cuda".
        attrs: complete.
        config: the configuration.
        capability: of the chip.
        expect, forbid, registers, wide: see `aot.problems`.
        aligned: whether the tensors are at addresses that are multiples of 16.
    """

    kernel: str | Callable[..., Any]
    specs: tuple[TensorSpec, ...]
    attrs: Mapping[str, Any]
    config: Mapping[str, Any]
    capability: int
    expect: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    registers: int | None = None
    wide: bool = False
    aligned: bool = True
    note: str = field(default="")

    def __str__(self) -> str:
        name = self.kernel if isinstance(self.kernel, str) else self.kernel.__name__
        specs = " ".join(str(spec).partition("@")[0] for spec in self.specs)
        config = ",".join(f"{key}={value}" for key, value in self.config.items())
        return f"{name} {specs} {config} sm_{self.capability}{' ' + self.note if self.note else ''}"


class Proof:
    """The machine code of some cases."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)
        self._found: dict[int, list[Code] | str] = {}

    def problems(self, case: Case) -> list[str]:
        """What is wrong with the code of a case; nothing when the list is empty."""
        found = self._all()[id(case)]
        if isinstance(found, str):
            return [found]
        chip = device.chip(case.capability)
        wrong = []
        for place, code in enumerate(found):
            # What is expected has to be in one of the steps; everything else holds for each.
            others = [other for other in found if other is not code]
            expect = [names for names in case.expect if not any(o.count(*names.split("|")) for o in others)]
            told = aot.problems(
                code,
                chip,
                expect=expect,
                forbid=case.forbid,
                registers=case.registers,
                wide=case.wide,
            )
            wrong += [f"step {place}, {code.kernel}: {problem}" for problem in told]
        return wrong

    def codes(self, case: Case) -> list[Code]:
        """The machine code of a case, step by step."""
        found = self._all()[id(case)]
        assert not isinstance(found, str), found
        return found

    def _all(self) -> dict[int, list[Code] | str]:
        if not self._found:
            # Spawned, so that a compiler that crashes takes no test with it; and without the interpreter.
            with ProcessPoolExecutor(PROCESSES, get_context("spawn"), _prepare, (sys.path,)) as pool:
                jobs = {id(case): pool.submit(made, case) for case in self.cases}
                for key, job in jobs.items():
                    try:
                        self._found[key] = job.result()
                    except BrokenProcessPool:
                        self._found[key] = "the compiler crashed, here or on another case"
                    except Exception as error:
                        self._found[key] = f"{type(error).__name__}: {error}"
        return self._found


def made(case: Case) -> list[Code]:
    """The machine code of each step of a case; in a child process."""
    with device.assume(case.capability):
        if isinstance(case.kernel, str):
            from kernelwright.kernels.registry import kernels_for

            (kernel,) = [k for k in kernels_for(case.kernel.partition("/")[0], "cuda") if k.id == case.kernel]
            reason = kernel.why_not(case.specs, case.attrs)
            if reason is not None:
                raise AssertionError(f"{case.kernel} {reason}")
            bind = kernel.bind
        else:
            bind = case.kernel
        launch = bind(case.specs, case.attrs, dict(case.config), 1)
        return [aot.read(variant, case.capability) for variant in launch.variants(case.aligned)]


def _prepare(path: list[str]) -> None:
    sys.path[:] = path
    os.environ.pop("TRITON_INTERPRET", None)
