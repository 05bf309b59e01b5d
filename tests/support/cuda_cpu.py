"""CUDA C++ kernels run on the CPU, and judged: see `cuda_on_cpu/device.cuh` for what stands in for a GPU.

    cases = [Case.of("matmul/cuda_cupy/simt", sample, config), ...]
    for case, verdict in zip(cases, judged(cases)):
        assert verdict.ok, f"{case}: {verdict.text}"

All kernels of the cases are compiled into one program, kept under the cache by its text; it runs every case under
every schedule. Arrays lie in memory of exactly their extent, so that with the address sanitizer every access beside
them is found; gaps inside an array are NaN, and so are outputs before the run.
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
OPTIONS = ("-std=c++17", "-O1", "-g1", "-w", "-fno-omit-frame-pointer")
SECONDS = 120  # that a program may take: a kernel that never ends is a result too


@dataclass(frozen=True)
class Schedule:
    """In which order the threads of a block go on, and whether asynchronous copies come as late as they may."""

    order: int
    late: bool
    seed: int = 0


SCHEDULES = (
    Schedule(FORWARD, late=False),
    Schedule(REVERSE, late=True),
    Schedule(SHUFFLED, late=False, seed=1),
    Schedule(LANES, late=True),
    Schedule(SHUFFLED, late=True, seed=2),
)


class RunError(AssertionError):
    """The program ended with an error: what the sanitizer or the stand-in for the GPU reported."""


def need_compiler() -> None:
    """Skip the tests of a file where there is no g++."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to run CUDA C++ on the CPU: apt-get install g++", allow_module_level=True)


# --- programs -----------------------------------------------------------------------------------------------


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
    buffers: Sequence[np.ndarray]
    shared: int | None = None


@cache
def sanitizer() -> tuple[str, ...]:
    """The options for the address sanitizer, where programs with it run; else none, which is told once."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "probe.cpp"), Path(folder, "probe")
        source.write_text('#include "device.cuh"\nint main() { return 0; }\n')
        command = ["g++", *OPTIONS, "-fsanitize=address", f"-I{HEADERS}", str(source), "-o", str(program)]
        built = subprocess.run(command, capture_output=True, check=False)
        if not built.returncode and not subprocess.run([program], capture_output=True, check=False).returncode:
            return ("-fsanitize=address",)
    print("the address sanitizer does not work here: accesses beside arrays are not looked for")
    return ()


def program(codes: Sequence[Code]) -> Path:
    """The program that runs these kernels, by their place; compiled unless it is kept."""
    files = tuple(dict.fromkeys(name for code in codes for name in code.files))
    named = [replace(code, name=f"kw_{place}") for place, code in enumerate(codes)]
    entries = ",\n".join(
        f"  {{[](const void* p) {{ {code.name}(*static_cast<const {code.argument}*>(p)); }}, sizeof({code.argument})}}"
        for code in named
    )
    text = (
        '#include "device.cuh"\n'
        + joined((*COMMON, *files))
        + "".join(code.entry for code in named)
        + '#include "main.hpp"\n'
        + f"int main(int argc, char** argv) {{\n  static const Entry entries[] = {{\n{entries}}};\n"
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


def run(jobs: Sequence[Job], schedules: Sequence[Schedule] = SCHEDULES) -> list[list[list[np.ndarray]]]:
    """Run every job under every schedule: [job][schedule] -> its buffers afterwards.

    Raises:
        RunError: when a kernel does what a GPU would not forgive.
    """
    codes = list({job.code: None for job in jobs})
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
                found[-1][-1].append(memory[at : at + buffer.nbytes])
                at += buffer.nbytes
    assert at == memory.size
    return found


def _encoded(job: Job, entry: int, schedule: Schedule) -> bytes:
    addresses = [(8 * place, *word) for place, word in enumerate(job.words) if isinstance(word, tuple)]
    words = [word if isinstance(word, int) else 0 for word in job.words]
    shared = job.code.shared if job.shared is None else job.shared
    head = (entry, job.grid, 1, 1, job.code.threads, 1, 1, shared)
    head += (schedule.order, schedule.seed, schedule.late, 8 * len(words), len(job.buffers), len(addresses))
    parts = [struct.pack(f"<14q{len(words)}q", *head, *words)]
    for buffer in job.buffers:
        parts += [struct.pack("<q", buffer.nbytes), buffer.tobytes()]
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


@dataclass
class Case:
    """One call of a registered kernel, with memory for its arrays.

    Attributes:
        shifted: whether all arrays begin one element beside a multiple of 16 bytes.
        places: for each tensor of the call its buffer, or None.
    """

    kernel: Kernel
    sample: Sample
    specs: tuple[TensorSpec, ...]
    step: CodeStep
    shifted: bool
    buffers: list[np.ndarray] = field(repr=False)
    places: list[int | None] = field(repr=False)
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kernel.id} {self.sample!r}{' shifted' if self.shifted else ''} {self.note}"

    @classmethod
    def of(
        cls,
        kernel: Kernel | str,
        sample: Sample,
        config: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[TensorSpec] | None = None,
        shifted: bool = False,
    ) -> Case:
        """The case of a sample; outputs may be given other layouts."""
        made = kernel_by_id(kernel) if isinstance(kernel, str) else kernel
        op = get_op(made.op)
        attrs = op.complete(sample.attrs)
        specs = cuda_specs(made, sample)
        if outputs is not None:
            specs = (*specs[: len(op.inputs)], *(moved(spec) for spec in outputs))
        reason = made.why_not(specs, attrs)
        assert reason is None, f"{made.id} {reason}: {sample!r}"
        chosen = dict(config) if config is not None else made.configurations(specs, attrs, 1)[0]
        launch: Any = made.bind(specs, attrs, chosen, 1)
        buffers: list[np.ndarray] = []
        places: list[int | None] = []
        arrays = (*sample.inputs, *(None for _ in specs[len(op.inputs) :]))
        for spec, array in zip(specs, arrays, strict=True):
            places.append(len(buffers) if spec.present else None)
            if spec.present:
                buffers.append(np.full(_offset(spec, shifted) + _length(spec), 0xFF, np.uint8))
                if array is not None:
                    _view(buffers[-1], spec, shifted)[...] = array
        return cls(made, sample, specs, launch.step(not shifted), shifted, buffers, places, str(chosen))

    def job(self) -> Job:
        """What is run."""
        words: list[int | tuple[int, int] | None] = []
        for tensor in self.step.pointers:
            place = None if tensor is None else self.places[tensor]
            if tensor is None or place is None or not self.specs[tensor].size:
                words.append(None)
            else:
                spec = self.specs[tensor]
                words.append((place, _offset(spec, self.shifted) - extent(spec.shape, spec.strides, spec.itemsize)[0]))
        return Job(self.step.code, self.step.grid, [*words, *self.step.values], self.buffers)

    def judged(self, runs: Sequence[Sequence[np.ndarray]], truth: Truth) -> Verdict:
        """What the runs, one for each schedule, have made of the buffers."""
        count = len(get_op(self.kernel.op).inputs)
        for memory in runs:
            for index, (spec, place) in enumerate(zip(self.specs, self.places, strict=True)):
                if place is None:
                    continue
                if index < count and memory[place].tobytes() != self.buffers[place].tobytes():
                    return _bad(f"the kernel wrote to its input {index}")
                if index >= count and not _gaps_untouched(memory[place], spec, self.shifted):
                    return _bad("the kernel wrote into the gaps of its output")
        if any(a.tobytes() != b.tobytes() for memory in runs for a, b in zip(runs[0], memory, strict=True)):
            return _bad("the result depends on the schedule")
        results = [
            _view(runs[0][place], spec, self.shifted)
            for spec, place in list(zip(self.specs, self.places, strict=True))[count:]
            if place is not None
        ]
        return truth.judge(results, self.specs, None, self.kernel.error)


def judged(cases: Iterable[Case], schedules: Sequence[Schedule] = SCHEDULES) -> list[Verdict]:
    """The verdict on each case, after all of them ran."""
    known: dict[int, Truth] = {}
    listed = list(cases)
    verdicts = []
    for case, runs in zip(listed, run([case.job() for case in listed], schedules), strict=True):
        key = id(case.sample)
        if key not in known:
            known[key] = Truth.of(get_op(case.kernel.op), case.sample.inputs, case.sample.attrs)
        verdicts.append(case.judged(runs, known[key]))
    return verdicts


def _offset(spec: TensorSpec, shifted: bool) -> int:
    return spec.itemsize if shifted else 0


def _length(spec: TensorSpec) -> int:
    low, high = extent(spec.shape, spec.strides, spec.itemsize)
    return high - low


def _view(memory: np.ndarray, spec: TensorSpec, shifted: bool) -> np.ndarray:
    """The array of a spec in a buffer; inputs repeated along an axis are written again and again."""
    low, _ = extent(spec.shape, spec.strides, spec.itemsize)
    offset = _offset(spec, shifted) - low if spec.size else 0
    return np.ndarray(spec.shape, spec.np_dtype, memory.data, offset, spec.strides)


def _gaps_untouched(memory: np.ndarray, spec: TensorSpec, shifted: bool) -> bool:
    covered = np.zeros(memory.size, np.uint8)
    bits = TensorSpec(spec.shape, f"uint{8 * spec.itemsize}", "cpu", spec.strides)
    _view(covered, bits, shifted)[...] = np.iinfo(bits.np_dtype).max
    return bool((memory[covered == 0] == 0xFF).all())


def _bad(text: str) -> Verdict:
    return Verdict(False, Error(inf, inf, None, text), None, 0.0, f"wrong: {text}")
