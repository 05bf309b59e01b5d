"""Compiling what a run on a GPU launches, on all cores, so that no time on the device is spent on it.

What is compiled here is found again by the compilers' own caches on disk, and what is read of the machine
code by ours. The processes that do it leave the GPU alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from ...kernels.cuda.device import Device, facts
from .cases.job import Job, specs_on

COMPILE_SECONDS = 120.0
_PARTS = 4  # into which the compilation of a proof is cut
Tell = Callable[[str], None]


def compiled(todo: Sequence[Job], tell: Tell, seconds: float = inf) -> int:
    """Compile what jobs launch: what is timed before what is only proven, of which there is most.

    Args:
        todo: the jobs.
        tell: told how long it took, and what did not compile.
        seconds: after which nothing more is begun.

    Returns:
        How many jobs were looked at.
    """
    from concurrent.futures import ProcessPoolExecutor, wait
    from multiprocessing import get_context

    started = time.time()
    ordered = sorted(todo, key=lambda job: job.kind == "proof")
    parts = [(job, part) for job in ordered for part in range(_PARTS if job.kind in _CUT else 1)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ProcessPoolExecutor(max(1, cores - 1), get_context("spawn")) as pool:
        done = [pool.submit(compile_job, job, part, facts()) for job, part in parts]
        wait(done, timeout=None if seconds == inf else seconds)
        left = sum(job.cancel() for job in done)
    failed = [job.exception() for job in done if job.done() and not job.cancelled() and job.exception()]
    tell(f"compiled ahead in {time.time() - started:.0f} s on {cores} cores; {left} of {len(done)} left out")
    for error in failed[:5]:
        tell(f"  not compiled: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return len(todo)


def compile_job(job: Job, part: int, chip: Device) -> None:
    """Compile what a job will launch into the caches on disk; in a process that leaves the GPU alone.

    What is chosen here has to be what is chosen there, so the facts are those of the very device.
    """
    from ...kernels.cuda import device
    from ...kernels.settings import using
    from .work import launch_of

    with using(extra_error=job.extra_error), device.taken_for(chip):
        if job.kind == "proof":
            _compile_proof(job, part, chip)
        if job.kind == "race" and job.problem is not None:
            launch = launch_of(job.problem, _chosen(job))
            codes = getattr(launch, "codes", None)
            if codes is not None:
                codes(chip.capability)
            _compile(launch, chip)
        if job.kind == "search" and job.problem is not None:
            _compile_search(job, part, chip)


def _chosen(job: Job) -> Any:
    from ...kernels import dispatch

    assert job.problem is not None
    return dispatch.choose(job.problem.operation, specs_on(job.problem, "cuda:0"), job.problem.attrs)


def _compile_search(job: Job, part: int, chip: Device) -> None:
    """One of `_PARTS` parts of the configurations that a search tries."""
    choice = _chosen(job)
    place = 0
    for candidate in choice.candidates:
        kernel = candidate.kernel
        if candidate.reason_not is None:
            for config in kernel.configurations(choice.specs, choice.attrs, 1):
                if place % _PARTS == part:
                    _compile(kernel.bind(choice.specs, choice.attrs, config, 1), chip)
                place += 1


def _compile_proof(job: Job, part: int, chip: Device) -> None:
    """One of `_PARTS` parts of what a proof launches."""
    import numpy as np

    from ...kernels.cuda.chain import ChainLaunch
    from ...kernels.cuda.check import cuda_specs
    from ...kernels.cuda.launch import CudaLaunch
    from ...kernels.cuda.step import ALIGNMENT
    from ...kernels.op import get_op
    from ...kernels.registry import kernels_for
    from .work import config_for

    op = get_op(job.op)
    if job.dtype not in op.dtypes:
        return
    for turn, sample in enumerate(op.samples(np.random.default_rng(0), job.dtype)):
        for kernel in kernels_for(job.op, "cuda") if turn % _PARTS == part else ():
            config = config_for(kernel, sample, turn)
            if config is None:
                continue
            specs = cuda_specs(kernel, sample)
            launch = kernel.bind(specs, op.complete(sample.attrs), config, 1)
            at = [0 if array is None else array.ctypes.data % ALIGNMENT for array in sample.inputs]
            aligned = tuple(not place for place in at) + (True,) * (len(specs) - len(at))
            if isinstance(launch, CudaLaunch | ChainLaunch):  # CUDA C compiles a few variants for all shapes
                _compile(launch, chip, aligned)


def _compile(launch: Any, chip: Device, aligned: Iterable[bool] | None = None) -> None:
    """Compile what a launch runs, for tensors at addresses that are, or are not, multiples of 16."""
    from ...kernels.cuda import nvrtc
    from ...kernels.cuda.build import build_launcher, compile_variant
    from ...kernels.cuda.chain import ChainLaunch
    from ...kernels.cuda.code_launch import CodeLaunch
    from ...kernels.cuda.launch import CudaLaunch
    from ...kernels.cuda.step import variant

    places = tuple(aligned) if aligned is not None else (True,) * len(getattr(launch, "specs", ()))
    if isinstance(launch, CudaLaunch):
        for step in launch.chosen(places):
            build_launcher(compile_variant(variant(step, launch.specs, places), chip.capability))
    elif isinstance(launch, ChainLaunch):
        for part in launch.parts(all(places)):
            own = [places[place] if isinstance(place, int) else True for place in part.places]
            _compile(part.launch, chip, own)
    elif isinstance(launch, CodeLaunch):
        nvrtc.compiled(launch.step(all(places)).code, nvrtc.arch_of(chip.capability))


_CUT = ("proof", "search")
