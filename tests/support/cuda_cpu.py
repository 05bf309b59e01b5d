"""CUDA C++ kernels run on the CPU, and judged: see `cuda_on_cpu/device.cuh` for what stands in for a GPU.

    cases = [Case.of("matmul/cuda_cupy/simt", sample, config), ...]
    for case, verdict in zip(cases, judged(cases)):
        assert verdict.ok, f"{case}: {verdict.text}"

All kernels of the cases are compiled into one program, kept under the cache by its text; it runs every case
under every schedule. Arrays lie in memory of exactly their extent, so that with the address sanitizer every
access beside them is found; gaps inside an array are NaN, and so are outputs before the run.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.kernels.accuracy import Error, Truth, Verdict
from kernelwright.kernels.cuda.check import cuda_specs, moved
from kernelwright.kernels.cuda.code_launch import CodeStep
from kernelwright.kernels.cuda.source import COMMON, Code, joined
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Sample, get_op
from kernelwright.kernels.paths import cache_dir
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import TensorSpec, extent

HEADERS = Path(__file__).parent / "cuda_on_cpu"
FORWARD, REVERSE, SHUFFLED, LANES = range(4)  # enum Order in device.cuh
OPTIONS = ("-std=c++17", "-Og", "-g1", "-w", "-fno-omit-frame-pointer")
SECONDS = 120  # that a program may take: a kernel that never ends is a result too


@dataclass(frozen=True)
class Schedule:
    """In which order the threads of a block go on, and whether asynchronous copies come as late as they
    may."""

    order: int
    late: bool
    seed: int = 0


SCHEDULES = (
    Schedule(FORWARD, late=False),
    Schedule(REVERSE, late=True),
    Schedule(LANES, late=False),
    Schedule(SHUFFLED, late=True, seed=1),
)
HUGE = 2**28  # bytes from which on a buffer is only there where it has numbers


class RunError(AssertionError):
    """The program ended with an error: what the sanitizer or the stand-in for the GPU reported."""


def need_compiler() -> None:
    """Skip the tests of a file where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run CUDA C++ on the CPU: apt-get install g++", allow_module_level=True)


# --- programs -----------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """A buffer: how many bytes, and (offset, contents) of the pieces that are written before and read
    after."""

    nbytes: int
    pieces: list[tuple[int, np.ndarray]] = field(repr=False)

    @classmethod
    def of(cls, array: np.ndarray) -> Memory:
        """A contiguous array by itself."""
        return cls(array.nbytes, [(0, array.reshape(-1).view(np.uint8))])


@dataclass
class Job:
    """One launch: a kernel, its grid, its buffers, and the words of its argument.

    Attributes:
        words: numbers, or (place of a buffer, offset in bytes) for a pointer; None for a null pointer.
        shared: bytes of shared memory; what the kernel's code says unless given.
    """

    code: Code
    grid: int
    words: Sequence[int | tuple[int, int] | None]
    buffers: Sequence[Memory]
    shared: int | None = None


@cache
def sanitizer() -> tuple[str, ...]:
    """The options for the address sanitizer, where programs with it run; else none, which is told once."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "probe.cpp"), Path(folder, "probe")
        source.write_text('#include "device.cuh"\nint main() { return 0; }\n')
        command = ["g++", *OPTIONS, "-fsanitize=address", f"-I{HEADERS}", str(source), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, check=False)
        if (
            not built.returncode
            and not subprocess.run([program], capture_output=True, check=False).returncode
        ):
            return ("-fsanitize=address",)
    print("the address sanitizer does not work here: accesses beside arrays are not looked for")
    return ()


def program(codes: Sequence[Code]) -> Path:
    """The program that runs these kernels, by their place; compiled unless it is kept."""
    named = [replace(code, name=f"kw_{place}") for place, code in enumerate(codes)]
    groups = {code.files: f"files_{place}" for place, code in enumerate(named)}
    # A namespace for each set of files: what one of them defines does not meet the same of another.
    parts, entries = [], [""] * len(named)
    for files, space in groups.items():
        inside = [(place, code) for place, code in enumerate(named) if code.files == files]
        parts.append(f"namespace {space} {{\n{joined(files)}{''.join(code.entry for _, code in inside)}}}\n")
        for place, code in inside:
            argument = f"{space}::{code.argument}"
            call = f"{space}::{code.name}(*static_cast<const {argument}*>(p));"
            entries[place] = f"  {{[](const void* p) {{ {call} }}, sizeof({argument})}},\n"
    text = (
        '#include "device.cuh"\n'
        + joined(COMMON)
        + "".join(parts)
        + '#include "main.hpp"\n'
        + f"int main(int argc, char** argv) {{\n  static const Entry entries[] = {{\n{''.join(entries)}}};\n"
        + "  return main_of(entries, argc, argv);\n}\n"
    )
    headers = "".join(path.read_text() for path in sorted(HEADERS.iterdir()))
    key = sha256((text + headers + repr((OPTIONS, sanitizer()))).encode()).hexdigest()[:24]
    kept = cache_dir() / "cuda-on-cpu" / key
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            source, made = Path(folder, "program.cpp"), Path(folder, "program")
            source.write_text(text)
            command = ["g++", *OPTIONS, *sanitizer(), f"-I{HEADERS}", str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"g++ refuses the kernels:\n{done.stderr[:4000]}"
            made.replace(kept)
    return kept


def run(
    jobs: Sequence[Job], schedules: Sequence[Schedule] = SCHEDULES, codes: Sequence[Code] = ()
) -> list[list[list[np.ndarray]]]:
    """Run every job under every schedule: [job][schedule] -> the pieces of its buffers, one after the other.

    Args:
        jobs: the launches.
        schedules: how their threads take turns.
        codes: what the program is to hold beside what the jobs need, so that other calls find it compiled.

    Raises:
        RunError: when a kernel does what a GPU would not forgive.
    """
    codes = list(dict.fromkeys([*codes, *(job.code for job in jobs)]))
    head = struct.pack("<q", len(jobs) * len(schedules))
    body = [_encoded(job, codes.index(job.code), schedule) for job in jobs for schedule in schedules]
    with tempfile.TemporaryDirectory() as folder:
        given, results = Path(folder, "in"), Path(folder, "out")
        given.write_bytes(head + b"".join(body))
        done = subprocess.run(
            [program(codes), given, results],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            env={"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0"},
            check=False,
        )
        if done.returncode:
            raise RunError(_told(done, jobs, schedules))
        memory = np.fromfile(results, np.uint8)
    found, at = [], 0
    for job in jobs:
        found.append([])
        for _ in schedules:
            found[-1].append([])
            for buffer in job.buffers:
                length = sum(piece.size for _, piece in buffer.pieces)
                found[-1][-1].append(memory[at : at + length])
                at += length
    assert at == memory.size
    return found


def _encoded(job: Job, entry: int, schedule: Schedule) -> bytes:
    addresses = [(8 * place, *word) for place, word in enumerate(job.words) if isinstance(word, tuple)]
    words = [word if isinstance(word, int) else 0 for word in job.words]
    shared = job.code.shared if job.shared is None else job.shared
    head = (entry, job.grid, 1, 1, job.code.threads, 1, 1, shared)
    head += (schedule.order, schedule.seed, schedule.late, job.code.together)
    head += (8 * len(words), len(job.buffers), len(addresses))
    parts = [struct.pack(f"<15q{len(words)}q", *head, *words)]
    for buffer in job.buffers:
        parts.append(struct.pack("<2q", buffer.nbytes, len(buffer.pieces)))
        for offset, piece in buffer.pieces:
            parts += [struct.pack("<2q", offset, piece.size), piece.tobytes()]
    parts += [struct.pack("<3q", *address) for address in addresses]
    return b"".join(parts)


def _told(done: subprocess.CompletedProcess[str], jobs: Sequence[Job], schedules: Sequence[Schedule]) -> str:
    """Which launch failed, and the first lines of what was said about it."""
    lines = done.stderr.splitlines()
    launches = [line for line in lines if line.startswith("launch ")]
    said = [line for line in lines if not line.startswith("launch ")]
    where = "before the first launch"
    if launches:
        job, schedule = divmod(int(launches[-1].split()[1]), len(schedules))
        where = f"job {job}, {jobs[job].code.call}, {schedules[schedule]}"
    return f"exit status {done.returncode} in {where}:\n" + "\n".join(said[:25])


# --- kernels of ops -----------------------------------------------------------------------------------------


def kernel_by_id(name: str) -> Kernel:
    """The registered CUDA kernel."""
    (found,) = [kernel for kernel in kernels_for(name.partition("/")[0], "cuda") if kernel.id == name]
    return found


class Place:
    """Memory for one array of a call: of its exact extent, NaN wherever it has no element.

    Args:
        spec: of the array.
        shifted: whether it begins one element beside a multiple of 16 bytes.
        array: what it holds; NaN unless given.
    """

    def __init__(self, spec: TensorSpec, shifted: bool, array: np.ndarray | None) -> None:
        self.spec = spec
        low, high = extent(spec.shape, spec.strides, spec.itemsize)
        self.start = (spec.itemsize if shifted else 0) - low
        self.huge = high - low >= HUGE
        if self.huge:  # a piece for each element
            values = (
                np.full(spec.shape, np.iinfo(_bits(spec)).max, _bits(spec))
                if array is None
                else array.view(_bits(spec))
            )
            pieces = [
                (self.start + int(np.dot(index, spec.strides)), np.array([values[index]]).view(np.uint8))
                for index in np.ndindex(spec.shape)
            ]
        else:
            pieces = [(0, np.full(self.start + high, 0xFF, np.uint8))]
            if array is not None:
                self._view(pieces[0][1])[...] = array.view(_bits(spec))
        self.memory = Memory(self.start + high, pieces)
        self.before = np.concatenate([piece for _, piece in pieces]) if pieces else np.zeros(0, np.uint8)

    def _view(self, memory: np.ndarray) -> np.ndarray:
        start = self.start if self.spec.size else 0
        return np.ndarray(self.spec.shape, _bits(self.spec), memory.data, start, self.spec.strides)

    def array(self, memory: np.ndarray) -> np.ndarray:
        """The array in what a run has left of the memory."""
        if self.huge:
            return memory.view(self.spec.np_dtype).reshape(self.spec.shape)
        return self._view(memory).view(self.spec.np_dtype)

    def gaps_untouched(self, memory: np.ndarray) -> bool:
        """Whether nothing was written beside the elements."""
        if self.huge:
            return True
        covered = np.zeros(memory.size, np.uint8)
        self._view(covered)[...] = np.iinfo(_bits(self.spec)).max
        return bool((memory[covered == 0] == 0xFF).all())


@dataclass
class Case:
    """One call of a registered kernel, with memory for its arrays: of each tensor of the call, or None."""

    kernel: Kernel
    sample: Sample
    specs: tuple[TensorSpec, ...]
    step: CodeStep
    places: list[Place | None] = field(repr=False)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kernel.id} {self.sample!r} {self.note}"

    @classmethod
    def of(
        cls,
        kernel: Kernel | str,
        sample: Sample,
        config: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[TensorSpec] | None = None,
        layouts: Mapping[int, tuple[int, ...]] | None = None,
        shifted: bool = False,
        grid: int | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Case:
        """The case of a sample.

        Args:
            kernel: the kernel, or its id.
            sample: the call.
            config: the kernel's default unless given.
            outputs: other specs of the outputs.
            layouts: other byte strides of any tensor.
            shifted: whether the arrays begin beside a multiple of 16 bytes.
            grid: another number of blocks.
            files: other files to compile, by the names of those that they stand for.
        """
        made = kernel_by_id(kernel) if isinstance(kernel, str) else kernel
        op = get_op(made.op)
        attrs = op.complete(sample.attrs)
        specs = list(cuda_specs(made, sample))
        if outputs is not None:
            specs[len(op.inputs) :] = [moved(spec) for spec in outputs]
        for tensor, strides in (layouts or {}).items():
            specs[tensor] = TensorSpec(specs[tensor].shape, specs[tensor].dtype, "cuda", strides)
        fixed = tuple(specs)
        reason = made.why_not(fixed, attrs)
        assert reason is None, f"{made.id} {reason}: {sample!r}"
        chosen = dict(config) if config is not None else made.configurations(fixed, attrs, 1)[0]
        launch: Any = made.bind(fixed, attrs, chosen, 1)
        arrays = (*sample.inputs, *(None for _ in fixed[len(op.inputs) :]))
        places = [
            Place(spec, shifted, array) if spec.present else None
            for spec, array in zip(fixed, arrays, strict=True)
        ]
        note = f"{chosen}{' shifted' if shifted else ''}"
        step = launch.step(not shifted)
        code = replace(step.code, files=tuple((files or {}).get(name, name) for name in step.code.files))
        return cls(made, sample, fixed, replace(step, code=code, blocks=grid or step.blocks), places, note)

    def job(self) -> Job:
        """What is run."""
        present = [place for place in self.places if place is not None]
        words: list[int | tuple[int, int] | None] = []
        for tensor in self.step.pointers:
            place = None if tensor is None else self.places[tensor]
            empty = place is None or not place.spec.size
            words.append(None if place is None or empty else (present.index(place), place.start))
        memory = [place.memory for place in present]
        return Job(self.step.code, self.step.blocks, [*words, *self.step.values], memory)

    def judged(self, runs: Sequence[Sequence[np.ndarray]], truth: Truth) -> Verdict:
        """What the runs, one for each schedule, have made of the memory."""
        count = len(get_op(self.kernel.op).inputs)
        inputs = [place for place in self.places[:count] if place is not None]
        outputs = [place for place in self.places[count:] if place is not None]
        for memory in runs:
            for index, (place, found) in enumerate(zip((*inputs, *outputs), memory, strict=True)):
                if index < len(inputs) and found.tobytes() != place.before.tobytes():
                    return _bad(f"the kernel wrote to an input, {place.spec}, or beside it")
                if index >= len(inputs) and not place.gaps_untouched(found):
                    return _bad("the kernel wrote into the gaps of its output")
        if any(a.tobytes() != b.tobytes() for memory in runs for a, b in zip(runs[0], memory, strict=True)):
            return _bad("the result depends on the schedule")
        results = [place.array(found) for place, found in zip(outputs, runs[0][len(inputs) :], strict=True)]
        return truth.judge(results, self.specs, None, self.kernel.error)


def judged(cases: Iterable[Case], codes: Sequence[Code] = ()) -> list[Verdict]:
    """The verdict on each case, after all of them ran under every schedule; codes as for `run`."""
    known: dict[int, Truth] = {}
    listed = list(cases)
    verdicts = []
    for case, runs in zip(listed, run([case.job() for case in listed], codes=codes), strict=True):
        key = id(case.sample)
        if key not in known:
            known[key] = Truth.of(get_op(case.kernel.op), case.sample.inputs, case.sample.attrs)
        verdicts.append(case.judged(runs, known[key]))
    return verdicts


def _bits(spec: TensorSpec) -> np.dtype[Any]:
    """Whole numbers as wide as the elements: NaN goes through them unchanged."""
    return np.dtype(f"uint{8 * spec.itemsize}")


def _bad(text: str) -> Verdict:
    return Verdict(False, Error(inf, inf, None, text), None, 0.0, f"wrong: {text}")
