"""The runs on the CPU find what is wrong: kernels with one fault each, and ours with a line taken out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cuda_cpu import SCHEDULES, Case, Job, Memory, RunError, judged, need_compiler, run, sanitizer
from gpu_extra import need

need("cupy")
need_compiler()

from kernelwright.kernels.cuda.source import KERNELS, Code  # noqa: E402
from kernelwright.kernels.op import Sample  # noqa: E402
from kernelwright.kernels.paths import cache_dir  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

THREADS = 64
BROKEN = str(Path(__file__).parent / "broken.cu")
WRONG = "the result"
# Each with what is reported: a wrong result under one schedule at least, or a word of the message.
FAULTS = {
    "missing_barrier": WRONG,
    "missing_barrier_inside_a_warp": WRONG,
    "missing_barrier_before_the_next_round": WRONG,
    "uninitialised_shared_memory": WRONG,
    "some_threads_at_a_barrier": "will never reach",
    "threads_at_two_barriers": "another thread waits at that in line",
    "copy_used_before_it_is_waited_for": WRONG,
    "copy_waited_for_one_group_too_late": WRONG,
    "copy_never_waited_for": "nobody waited for",
    "copy_into_a_buffer_that_is_still_read": WRONG,
    "misaligned_vector": "misaligned",
    "half_a_warp_on_the_tensor_cores": "operation of the whole warp",
    "blocks_that_write_the_same": WRONG,
}
OUT_OF_BOUNDS = (
    "read_past_the_end",
    "read_before_the_start",
    "write_past_the_end",
    "shared_memory_past_the_end",
)
# One program for all: each takes the same text to compile.
CODES = {
    name: Code(name, (BROKEN,), name, "Numbers", THREADS, 4 * THREADS)
    for name in ("reversed", *FAULTS, *OUT_OF_BOUNDS)
}


def results(name: str) -> list[np.ndarray]:
    """What one of the kernels makes of 1, 2, 3, ... under each schedule."""
    jobs = [_job(code) for code in CODES.values()]
    job = jobs[list(CODES).index(name)]
    found = run([job], codes=list(CODES.values()))[0]
    return [memory[1].view(np.float32) for memory in found]


def _job(code: Code) -> Job:
    x = np.arange(1, THREADS + 1, dtype=np.float32)
    y = np.full(THREADS, np.nan, np.float32)
    grid = 2 if code.name == "blocks_that_write_the_same" else 1
    return Job(code, grid, [(0, 0), (1, 0), THREADS], [Memory.of(x), Memory.of(y)])


def _right(found: list[np.ndarray]) -> bool:
    assert len(found) == len(SCHEDULES)
    return all(np.array_equal(y, np.arange(THREADS, 0, -1)) for y in found)


def test_a_kernel_without_a_fault_is_right() -> None:
    assert _right(results("reversed"))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str) -> None:
    if FAULTS[name] == WRONG:
        assert not _right(results(name))
    else:
        with pytest.raises(RunError, match=FAULTS[name]):
            results(name)


@pytest.mark.skipif(
    not sanitizer(), reason="needs a g++ whose address sanitizer works: apt-get install libasan8"
)
@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_an_access_out_of_bounds_is_found(name: str) -> None:
    with pytest.raises(RunError, match="heap-buffer-overflow"):
        results(name)


# --- ours, with a line taken out ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """One of our files with a text replaced, the nth time that it stands there."""

    kernel: str
    file: str
    old: str
    nth: int
    new: str = ";"

    def __str__(self) -> str:
        return f"{self.kernel}-{self.old.strip('; ()')}-{self.nth}"

    def path(self) -> Path:
        """The changed file, kept where its name does not change from run to run."""
        pieces = (KERNELS / self.file).read_text().split(self.old)
        assert len(pieces) > self.nth + 1, f"{self.file} has {self.old!r} only {len(pieces) - 1} times"
        text = self.old.join(pieces[: self.nth + 1]) + self.new + self.old.join(pieces[self.nth + 1 :])
        made = cache_dir() / "cuda-mutants" / f"{str(self).replace('/', '-')}.cu"
        made.parent.mkdir(parents=True, exist_ok=True)
        if not made.exists() or made.read_text() != text:
            made.write_text(text)
        return made

    def case(self) -> Case:
        """A call with several steps of k, several tiles a block, and ragged edges."""
        files = {self.file: str(self.path())}
        if self.kernel.startswith("matmul"):
            dtype = "float32" if self.kernel.endswith("simt") else "bfloat16"
            tile = {"bm": 32, "bn": 64} if dtype == "float32" else {"bm": 64, "bn": 64}
            k = 100 if dtype == "float32" else 300
            sample = Sample("mutant", (_normal(dtype, 70, k), _normal(dtype, k, 72)))
            return Case.of(self.kernel, sample, tile, grid=2, files=files)
        few = self.kernel.endswith("direct")
        channels, out = (3, 8) if few else (6, 6)
        x, w = _normal("float32", 1, 33, 35, channels), _normal("float32", out, 3 if few else 1, 3, 3)
        attrs = {"padding": ((1, 1), (1, 1)), "groups": 1 if few else 6, "layout": "NHWC"}
        return Case.of(self.kernel, Sample("mutant", (x, w, None, None), attrs), grid=1, files=files)


def _normal(dtype: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np_dtype(dtype))


def mutants() -> Iterator[Mutant]:
    """Every barrier taken out, copies waited for too late, edges not looked at."""
    barrier = "__syncthreads();"
    for kernel, file, barriers in (
        ("matmul/cuda_cupy/simt", "matmul/cuda/product.cuh", 4),
        ("matmul/cuda_cupy/tensor_cores", "matmul/cuda/product.cuh", 4),
        ("conv/cuda_cupy/direct", "conv/cuda/few_channels.cu", 2),
    ):
        yield from (Mutant(kernel, file, barrier, nth) for nth in range(barriers))
    yield Mutant("conv/cuda_cupy/depthwise_channels", "conv/cuda/depthwise.cu", barrier, 0)
    yield from (
        Mutant("conv/cuda_cupy/depthwise_planes", "conv/cuda/depthwise.cu", barrier, nth) for nth in (1, 2)
    )
    for kernel in ("simt", "tensor_cores"):
        yield Mutant(f"matmul/cuda_cupy/{kernel}", "matmul/cuda/product.cuh", "STAGES - 2>", 0, "STAGES - 1>")
    yield Mutant("matmul/cuda_cupy/simt", "matmul/cuda/simt.cu", "k < depth && row < rows", 0, "k < depth")
    yield Mutant("matmul/cuda_cupy/simt", "matmul/cuda/simt.cu", "k < depth && row < rows", 0, "row < rows")
    yield Mutant(
        "matmul/cuda_cupy/tensor_cores",
        "matmul/cuda/tensor_cores.cu",
        "(a_chunk ^ k / 8)",
        0,
        "(a_chunk + k / 8)",
    )
    yield Mutant("conv/cuda_cupy/depthwise_planes", "conv/cuda/depthwise.cu", "&& w < g.wide", 0, "")
    yield Mutant(
        "conv/cuda_cupy/depthwise_channels", "conv/cuda/depthwise.cu", "left + column >= 0 &&", 0, ""
    )


@pytest.mark.parametrize("mutant", list(mutants()), ids=str)
def test_what_is_taken_out_of_a_kernel_is_missed(mutant: Mutant) -> None:
    try:
        (verdict,) = judged([mutant.case()], codes=[other.case().step.code for other in mutants()])
    except RunError:
        return
    assert not verdict.ok, f"{mutant} changes nothing that is looked at"
