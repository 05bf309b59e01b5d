"""A program: the AMX kernels, compiled for AMX, on a CPU whose tile instructions are done by `amx_traps`.

    python amx_child.py WHAT ...

prints a line for each WHAT, one of the functions below: its name and what came out, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amx_traps

amx_traps.pretend()
os.environ["KERNELWRIGHT_VECTOR_BYTES"] = "64"

import numpy as np  # noqa: E402

from kernelwright.kernels import machine as hardware  # noqa: E402

COUNTS = amx_traps.install()
_model, _flags = hardware._cpu()
hardware._cpu = lambda: (_model, _flags | {"amx_tile", "amx_bf16"})
hardware._ask_for_tiles = lambda: None  # type: ignore[assignment]

import kernelwright as kw  # noqa: E402
from kernelwright.kernels.accuracy import check_kernel  # noqa: E402
from kernelwright.kernels.cpu import cycles, memory  # noqa: E402
from kernelwright.kernels.kernel import Config, Kernel  # noqa: E402
from kernelwright.kernels.matmul import amx_proof, cpu_numba_amx  # noqa: E402
from kernelwright.kernels.matmul.op import LINEAR, MATMUL  # noqa: E402
from kernelwright.kernels.op import Op, Sample, TensorSpec  # noqa: E402
from kernelwright.kernels.prepack import prepack  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import ABSENT, np_dtype  # noqa: E402

amx_proof._proving = True
_USUAL_WORK = cycles.WORK_PER_THREAD
RANDOM = 250  # problems of each op
BF16 = np_dtype("bfloat16")
# Small blocks, so that small problems cross all of their borders.
BLOCKS: tuple[Config, ...] = (
    *cpu_numba_amx.CONFIGS[:2],
    {"kc": 32, "nc": 64, "mc": 32},
    {"kc": 96, "nc": 128, "mc": 64},
)


def poison_scratch() -> None:
    """Scratch starts as NaN: what a kernel reads there without having written it shows in its result."""
    usual = memory._new_room

    def poisoned(nbytes: int) -> Any:
        room = usual(nbytes)
        room.fill(0xFF)
        return room

    memory._new_room = poisoned


def ours(op: Op) -> list[Kernel]:
    """The kernels under test for an op."""
    return [kernel for kernel in kernels_for(op.name) if kernel.source_file == cpu_numba_amx.__file__]


def faults_of(op: Op, samples: Iterator[Sample]) -> dict[str, Any]:
    """Runs every kernel over every sample that it supports, in every configuration."""
    faults, runs = [], 0
    for place, sample in enumerate(samples):
        ran = False
        for kernel in ours(op):
            for number, config in enumerate(BLOCKS):
                inputs = tuple(map(TensorSpec.of, sample.inputs))
                specs = (*inputs, *op.infer(inputs, **op.complete(sample.attrs)))
                if kernel.why_not(specs, op.complete(sample.attrs)) is not None:
                    continue
                ran = True
                runs += 1
                verdict = check_kernel(kernel, sample, dict(config), threads=1 + (place + number) % 3)
                if not verdict.ok:
                    faults.append(f"{kernel.id} {config} {sample!r}: {verdict.text}")
        if not ran:
            faults.append(f"no kernel takes {sample!r}")
    return {
        "runs": runs,
        "faults": faults,
        "counts": dict(zip(amx_traps.COUNTS, COUNTS.tolist(), strict=True)),
    }


def matmul() -> dict[str, Any]:
    """All samples of matmul."""
    return faults_of(MATMUL, MATMUL.samples(np.random.default_rng(1), "bfloat16"))


def linear() -> dict[str, Any]:
    """All samples of linear, with weights as they are and packed."""
    return faults_of(LINEAR, LINEAR.samples(np.random.default_rng(2), "bfloat16"))


def random() -> dict[str, Any]:
    """Random problems of matmul and linear: any strides, batches, infinities, activations, terms, outputs."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernels" / "matmul"))
    import linear_calls
    import matmul_calls
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    runs = {"matmul": 0, "linear": 0}
    (product,) = ours(MATMUL)
    alike = settings(
        max_examples=RANDOM,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @alike
    @given(matmul_calls.problems(dtypes=("bfloat16", "bfloat16"), most_work=60**3), st.sampled_from(BLOCKS))
    def products(problem: Any, config: Config) -> None:
        fault = matmul_calls.what_is_wrong(problem, matmul_calls.bound(product, config))
        assert fault is None, f"{fault}: {problem} {config}"
        runs["matmul"] += 1

    @alike
    @given(linear_calls.problems("bfloat16"))
    def layers(problem: Any) -> None:
        name = "prepacked_tiles" if problem.packed else "tiles"
        with kw.using(backend=f"linear/cpu_numba_amx/{name}", threads=problem.threads, strict=True):
            fault = linear_calls.what_is_wrong(problem)
        assert fault is None, f"{fault}: {problem}"
        runs["linear"] += 1

    before = int(COUNTS[amx_traps.MULTIPLIED])
    products()
    layers()
    return {**runs, "products": int(COUNTS[amx_traps.MULTIPLIED]) - before}


def fenced() -> dict[str, Any]:
    """Operands and results between pages that can't be touched: touching them ends the process."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "kernels" / "matmul"))
    from fenced_run import fenced as fence

    rng, runs = np.random.default_rng(3), 0
    for m, k, n in ((1, 1, 1), (16, 32, 64), (17, 33, 65), (40, 95, 31), (33, 64, 129)):
        x, w = (rng.standard_normal(shape).astype(BF16) for shape in ((m, k), (n, k)))
        right = x.astype(np.float64) @ w.astype(np.float64).T
        packed = prepack("linear", w)
        for at_end in (False, True):
            for turned in (False, True):
                a, b = fence(x, 0, at_end, turned), fence(w, 1, at_end, turned)
                y = fence(np.zeros((m, n), x.dtype), 0, at_end, turned)
                panels = fence(packed.data.reshape(1, -1), 0, at_end, False)[0]
                for config in BLOCKS:
                    for kernel in (*ours(MATMUL), *ours(LINEAR)):
                        if kernel.op == "matmul":
                            given, attrs = (a, b.T), {}
                        elif kernel.name == "prepacked_tiles":
                            attrs = {"w_format": packed.format, "w_shape": packed.shape}
                            given = (a, panels, None, None)
                        else:
                            given, attrs = (a, b, None, None), {}
                        op = MATMUL if kernel.op == "matmul" else LINEAR
                        specs = tuple(map(TensorSpec.of, (*given, y)))
                        y[...] = np.nan
                        kernel.bind(specs, op.complete(attrs), dict(config), 2)(*given, y)
                        np.testing.assert_allclose(y.astype(np.float64), right, rtol=0.02, atol=0.05 * k**0.5)
                        runs += 1
    return {"runs": runs}


def bits() -> dict[str, Any]:
    """Results on one, two and three threads, and what the instruction as the manual has it makes of them."""
    from amx_machine import tile_sums

    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype(BF16) for shape in ((75, 200), (200, 150)))
    (kernel,) = ours(MATMUL)
    specs = tuple(map(TensorSpec.of, (a, b, np.zeros((75, 150), a.dtype))))
    results = []
    for threads in (1, 2, 3, 2):
        out = np.zeros((75, 150), a.dtype)
        kernel.bind(specs, {}, dict(BLOCKS[0]), threads)(a, b, out)
        results.append(out)
    exact = tile_sums(a, b).astype(a.dtype)
    return {
        "same": all(np.array_equal(results[0], other) for other in results[1:]),
        "as_the_manual": bool(np.array_equal(results[0], exact)),
    }


def choice() -> dict[str, Any]:
    """What runs calls of various sizes."""
    chosen = {}
    for m, k, n in ((1, 4096, 4096), (16, 64, 64), (256, 256, 256), (1024, 1024, 1024)):
        x, w = TensorSpec((m, k), "bfloat16"), TensorSpec((n, k), "bfloat16")
        kernel = kw.explain(kw.linear, x, w, ABSENT, ABSENT).choice.kernel
        chosen[f"{m}x{k}x{n}"] = kernel.id if kernel else None
    return chosen


def proof() -> dict[str, Any]:
    """The proof that runs where a machine has AMX."""
    return {"problem": amx_proof.what_is_wrong()}


def roof() -> dict[str, Any]:
    """The loop that measures the peak of the tiles: what it counts as work is done."""
    from kernelwright.kernels.cpu import roof as measure

    before = int(COUNTS[amx_traps.MULTIPLIED])
    measure.tile_loop()(25)
    done = int(COUNTS[amx_traps.MULTIPLIED]) - before
    return {
        "computes_in": measure.bfloat16_computes_in(),
        "products": done,
        "counted": 25 * measure.TILE_CHAINS,
    }


def blind() -> dict[str, Any]:
    """The same over kernels that leave out what is left of k: the proof has to notice."""
    from kernelwright.kernels.matmul import ending

    usual = ending._bind

    def shortened(e: Any, split: Any, code: Any, name: str, nbytes: int, values: dict[str, int]) -> Any:
        from dataclasses import replace

        whole = replace(e, g=replace(e.g, k=max(e.g.k // 32 * 32, 1)))
        return usual(whole, split, code, name, nbytes, values)

    ending._bind = shortened
    return {"problem": amx_proof.what_is_wrong()}


if __name__ == "__main__":
    poison_scratch()
    for what in sys.argv[1:]:
        cycles.WORK_PER_THREAD = _USUAL_WORK if what == "choice" else 1
        print(what, json.dumps(globals()[what]()), flush=True)
