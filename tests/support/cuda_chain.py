"""Chains of launches (`kernels/cuda/chain.py`) on the CPU: CUDA C++ as in `cuda_cpu.py`, products by NumPy.

    cases = [Chain.of("lstm/cuda_cupy/team", sample, config), ...]
    for case, verdict in zip(cases, judged(cases)):
        assert verdict.ok, f"{case}: {verdict.text}"

Each launch of CUDA C++ runs under every schedule, which must all leave the same bits; what the first one left
goes on to the next launch. A product, which has proofs of its own, is computed in float64 and rounded once.
Tensors lie in memory of exactly their extent; workspaces are NaN before the first launch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cuda_cpu import SCHEDULES, Job, Memory, Place, Schedule, kernel_by_id, run

from kernelwright.kernels.accuracy import Error, Truth, Verdict
from kernelwright.kernels.cuda.chain import ChainLaunch, Part
from kernelwright.kernels.cuda.check import cuda_specs
from kernelwright.kernels.cuda.code_launch import CodeLaunch, CodeStep
from kernelwright.kernels.cuda.source import Code
from kernelwright.kernels.cuda.step import Workspace
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Sample, get_op
from kernelwright.kernels.spec import TensorSpec, np_dtype


@dataclass
class Chain:
    """One call of a kernel that is a chain, with memory for its tensors: None for those left out."""

    kernel: Kernel
    sample: Sample
    specs: tuple[TensorSpec, ...]
    parts: tuple[Part, ...]
    places: list[Place | None] = field(repr=False)
    note: str = ""
    held: dict[int, np.ndarray] = field(default_factory=dict, repr=False)  # by the identity of a workspace

    def __str__(self) -> str:
        return f"{self.kernel.id} {self.sample!r} {self.note}"

    @classmethod
    def of(
        cls,
        kernel: Kernel | str,
        sample: Sample,
        config: Mapping[str, Any] | None = None,
        *,
        shifted: bool = False,
        files: Mapping[str, str] | None = None,
        launch: ChainLaunch | None = None,
    ) -> Chain:
        """The case of a sample; see `cuda_cpu.Case.of`. `launch`: instead of what the kernel binds."""
        made = kernel_by_id(kernel) if isinstance(kernel, str) else kernel
        op = get_op(made.op)
        attrs = op.complete(sample.attrs)
        specs = cuda_specs(made, sample)
        reason = made.why_not(specs, attrs)
        assert reason is None, f"{made.id} {reason}: {sample!r}"
        chosen = dict(config) if config is not None else made.configurations(specs, attrs, 1)[0]
        chain = launch or made.bind(specs, attrs, chosen, 1)
        assert isinstance(chain, ChainLaunch)
        arrays = (*sample.inputs, *(None for _ in specs[len(op.inputs) :]))
        places = [
            Place(spec, shifted, array) if spec.present else None
            for spec, array in zip(specs, arrays, strict=True)
        ]
        parts = chain.parts(not shifted)
        parts = tuple(_with_files(part, files or {}) for part in parts)
        case = cls(made, sample, specs, parts, places, f"{chosen}{' shifted' if shifted else ''}")
        for part in parts:
            for place in part.places:
                if isinstance(place, Workspace) and id(place) not in case.held:
                    nbytes = int(np.prod(place.shape, dtype=np.int64)) * np_dtype(place.dtype).itemsize
                    zero = np.zeros(nbytes, np.uint8)
                    case.held[id(place)] = zero if place.zero else np.full(nbytes, 0xFF, np.uint8)
        return case

    def codes(self) -> list[Code]:
        """Of its launches in CUDA C++."""
        return [step_of(part).code for part in self.parts if is_run(part)]

    # --- one launch after the other -------------------------------------------------------------------------

    def job(self, part: Part) -> Job:
        """What a launch in CUDA C++ runs."""
        step = step_of(part)
        memory, words = [], []
        for pointer in step.pointers:
            place = None if pointer is None else part.places[pointer]
            if place is None or not self._bytes(place).size:
                words.append(None)
                continue
            start = 0 if isinstance(place, Workspace) else self._tensor(place).start
            words.append((len(memory), start))
            held = self._bytes(place)
            memory.append(Memory(held.size, [(0, held)]))
        return Job(step.code, step.blocks, [*words, *step.values], memory)

    def take(self, part: Part, runs: Sequence[Sequence[np.ndarray]]) -> str | None:
        """Go on with what a launch left; what is wrong with it, or None."""
        step = step_of(part)
        pointed = [part.places[p] for p in step.pointers if p is not None]
        there = [place for place in pointed if place is not None and self._bytes(place).size]
        for place, *found in zip(there, *runs, strict=True):
            if any(other.tobytes() != found[0].tobytes() for other in found):
                return f"the result of {step.code.name} depends on the schedule"
            if isinstance(place, Workspace):
                self.held[id(place)] = found[0].copy()
            else:
                self._tensor(place).memory.pieces[0] = (0, found[0].copy())
        return None

    def compute(self, part: Part) -> None:
        """A call of another op, by its definition."""
        op, specs = get_op(part.op), part.launch.specs
        count = len(op.inputs)
        views = [
            self._view(place, spec) if place is not None and spec.present else None
            for place, spec in zip(part.places, specs, strict=True)
        ]
        wide = [None if view is None else view.astype(np.float64) for view in views[:count]]
        with np.errstate(all="ignore"):
            found = op.reference(*wide, **op.complete(dict(part.attrs)))
        results = found if isinstance(found, tuple) else (found,)
        for view, result in zip(views[count:], results, strict=True):
            assert view is not None
            view[...] = result.astype(view.dtype)

    def _tensor(self, place: int) -> Place:
        found = self.places[place]
        assert found is not None
        return found

    def _bytes(self, place: int | Workspace) -> np.ndarray:
        if isinstance(place, Workspace):
            return self.held[id(place)]
        tensor = self._tensor(place)
        return tensor.memory.pieces[0][1] if tensor.spec.size else np.zeros(0, np.uint8)

    def _view(self, place: int | Workspace, spec: TensorSpec) -> np.ndarray:
        """The memory as a spec describes it: numpy checks that it reaches no further."""
        memory = self._bytes(place)
        start = 0 if isinstance(place, Workspace) or not spec.size else self._tensor(place).start
        bits = np.dtype(f"u{spec.itemsize}")
        return np.ndarray(spec.shape, bits, memory.data, start, spec.strides).view(spec.np_dtype)

    def judged(self, truth: Truth) -> Verdict:
        """What the launches have made of the memory."""
        count = len(get_op(self.kernel.op).inputs)
        for place in self.places[:count]:
            if place is not None and place.memory.pieces[0][1].tobytes() != place.before.tobytes():
                return bad(f"the kernel wrote to an input, {place.spec}, or beside it")
        outputs = [place for place in self.places[count:] if place is not None]
        for place in outputs:
            if not place.gaps_untouched(place.memory.pieces[0][1]):
                return bad("the kernel wrote into the gaps of its output")
        results = [place.array(place.memory.pieces[0][1]) for place in outputs]
        return truth.judge(results, self.specs, None, self.kernel.error)


def is_run(part: Part) -> bool:
    """Whether a part is run here, not computed by its definition."""
    return isinstance(part.launch, CodeLaunch) and not part.op


def step_of(part: Part) -> CodeStep:
    """Its launch."""
    assert isinstance(part.launch, CodeLaunch)
    return part.launch.step(True)


def _with_files(part: Part, files: Mapping[str, str]) -> Part:
    """A part that compiles other files, by the names of those that they stand for."""
    if not is_run(part) or not files:
        return part
    step = step_of(part)
    code = replace(step.code, files=tuple(files.get(name, name) for name in step.code.files))
    changed = replace(step, code=code)
    return Part(CodeLaunch(part.launch.specs, lambda aligned: changed), part.places, part.op, part.attrs)


def judged(
    cases: Iterable[Chain], codes: Sequence[Code] = (), schedules: Sequence[Schedule] = SCHEDULES
) -> list[Verdict]:
    """The verdict on each case, after all launches of all of them ran under every schedule."""
    listed = list(cases)
    every = list(dict.fromkeys([*codes, *(code for case in listed for code in case.codes())]))
    wrong: dict[int, Verdict] = {}
    for stage in range(max(len(case.parts) for case in listed)):
        running = []
        for number, case in enumerate(listed):
            if stage >= len(case.parts) or number in wrong:
                continue
            if is_run(case.parts[stage]):
                running.append(number)
            else:
                case.compute(case.parts[stage])
        if not running:
            continue
        jobs = [listed[number].job(listed[number].parts[stage]) for number in running]
        for number, runs in zip(running, run(jobs, schedules, every), strict=True):
            problem = listed[number].take(listed[number].parts[stage], runs)
            if problem is not None:
                wrong[number] = bad(problem)
    known: dict[int, Truth] = {}
    verdicts = []
    for number, case in enumerate(listed):
        if number in wrong:
            verdicts.append(wrong[number])
            continue
        key = id(case.sample)
        if key not in known:
            known[key] = Truth.of(get_op(case.kernel.op), case.sample.inputs, case.sample.attrs)
        verdicts.append(case.judged(known[key]))
    return verdicts


def bad(text: str) -> Verdict:
    """What failed without numbers to judge."""
    return Verdict(False, Error(np.inf, np.inf, None, text), None, 0.0, f"wrong: {text}")
