"""Narrow vectors: on a CPU of any width, matmul is also right with the code for AVX2 and for 16 bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

# Which kernels, by width in bytes and dtype: each once, as compiling them takes long. The
# micro-kernels that they are made of have tests of their own, for every width and dtype.
KERNELS = {
    32: {"float32": ("tiny", "packed"), "float64": ("direct", "stream", "dots")},
    16: {"float32": ("direct", "stream", "dots"), "float64": ("tiny", "packed")},
}

PROGRAM = """
import json, sys
import numpy as np
import kernelwright as kw
from kernelwright.kernels import machine, registry
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.spec import TensorSpec

plan, width = json.loads(sys.argv[1]), machine.vector_bytes()
# One configuration of each kernel is enough, and compiles sooner than all.
every_one = Kernel.configurations
Kernel.configurations = lambda *call: every_one(*call)[:1]
rng = np.random.default_rng(width)

def laid_out(x, layout):
    big = np.full((2 * x.shape[0] + 1, 2 * x.shape[1] + 3), np.nan, x.dtype)
    place = {
        "rows": big[: x.shape[0], : x.shape[1]],
        "columns": np.full((x.shape[1], x.shape[0] + 3), np.nan, x.dtype)[:, : x.shape[0]].T,
        "gaps": big[: 2 * x.shape[0] : 2, 1 : 2 * x.shape[1] + 1 : 2],
        "backwards": big[: x.shape[0], : x.shape[1]][::-1],
    }[layout]
    place[...] = x
    return place

def check(kernel, dtype, m, n, k, layouts):
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n)))
    x, y = laid_out(a, layouts[0]), laid_out(b, layouts[1])
    around = np.full((m + 2, n + 7), np.nan, dtype)
    out = around[1 : m + 1, 3 : n + 3]
    if kernel.why_not(tuple(map(TensorSpec.of, (x, y, out))), {}) is not None:
        return 0
    with kw.using(backend=kernel.id, strict=True):
        kw.matmul(x, y, out=out)
    assert np.isnan(around).sum() == around.size - out.size, "written outside the result, or not all of it"
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = (k + 1) * np.finfo(dtype).eps * (np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64))
    assert (np.abs(out - exact) <= bound).all(), np.abs(out - exact).max()
    return 1

sizes = [(1, 1, 1), (1, 33, 17), (2, 65, 7), (3, 5, 8), (4, 16, 64), (5, 7, 3), (6, 31, 32), (7, 64, 129)]
sizes += [(12, 15, 40), (13, 70, 5), (33, 1, 65), (48, 48, 48), (64, 3, 100), (67, 130, 9)]
sizes += [(1, 4, 1), (9, 6, 2), (33, 4, 65)]
layouts = [("rows", "rows"), ("columns", "rows"), ("rows", "columns"), ("gaps", "gaps")]
layouts += [("backwards", "rows"), ("rows", "backwards")]
done = {}
for dtype, names in plan.items():
    for kernel in registry.kernels_for("matmul", "cpu"):
        if kernel.name in names:
            calls = [(*size, layout) for size in sizes for layout in layouts]
            done[f"{kernel.name} {dtype}"] = sum(check(kernel, dtype, *call) for call in calls)
print(json.dumps([width, done]))
"""


@pytest.fixture(scope="module")
def running() -> dict[int, subprocess.Popen[str]]:
    """A process for each width, at the same time: nearly all that they do is compile."""
    started = {}
    for width, plan in KERNELS.items():
        environment = {**os.environ, "KERNELWRIGHT_VECTOR_BYTES": str(width), "KERNELWRIGHT_NUM_THREADS": "2"}
        command = [sys.executable, "-c", PROGRAM, json.dumps(plan)]
        started[width] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    return started


@pytest.mark.parametrize("width", KERNELS)
def test_matmul_is_right_with_narrow_vectors(running: dict[int, Any], width: int) -> None:
    out, problem = running[width].communicate(timeout=300)
    assert running[width].returncode == 0, problem
    found_width, calls = json.loads(out)
    assert found_width == width
    assert calls.keys() == {f"{name} {dtype}" for dtype, names in KERNELS[width].items() for name in names}
    # Every one of the sizes at least; more where other layouts can be read in place.
    assert all(count >= 14 for count in calls.values()), calls
