"""Rounding float32 to bfloat16 by the CPU's instruction: the bits of ml_dtypes, subnormal numbers and all."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numba import types
from numba.extending import intrinsic

from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.cpu.narrow import store_bfloats
from kernelwright.kernels.cpu.vector_ir import Vectors, offset, pointer
from kernelwright.kernels.machine import machine
from kernelwright.kernels.matmul.registers import pairs_problem

LANES, VECTORS = 16, 2
needs_pairs = pytest.mark.skipif(pairs_problem(machine()) is not None, reason="needs AVX-512 BF16")


def rounding() -> Any:
    @intrinsic
    def store(typingctx, to, at):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            v = Vectors(builder, "float32", LANES)
            source = pointer(builder, args[1])
            values = [v.load(offset(builder, source, j * v.nbytes)) for j in range(VECTORS)]
            store_bfloats(v, values, pointer(builder, args[0]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    def run(to, at):  # type: ignore[no-untyped-def]
        store(to, at)

    return compiled(run, name="a test of rounding").entry((np.int64, np.int64))


@needs_pairs
@pytest.mark.parametrize("kind", ["normal", "ties", "specials", "subnormal", "one subnormal"])
def test_the_instruction_rounds_as_ml_dtypes_does(kind: str) -> None:
    rng, run = np.random.default_rng(0), rounding()
    count = LANES * VECTORS
    for _ in range(50):
        x = rng.standard_normal(count).astype(np.float32) * np.float32(2.0 ** int(rng.integers(-120, 120)))
        if kind == "ties":
            x = ((x.view(np.uint32) & 0xFFFF0000) | 0x8000).view(np.float32)
        elif kind == "specials":
            x[rng.integers(0, count, 6)] = [np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(np.float32).max]
        elif kind == "subnormal":
            x = rng.integers(0, 1 << 23, count, dtype=np.uint32).view(np.float32)
        elif kind == "one subnormal":
            x[rng.integers(0, count)] = 2.0**-130
        out = np.zeros(count, ml_dtypes.bfloat16)
        run(out.ctypes.data, x.ctypes.data)
        wanted = x.astype(ml_dtypes.bfloat16)
        numbers = ~np.isnan(x)
        np.testing.assert_array_equal(out[numbers].view(np.uint16), wanted[numbers].view(np.uint16))
        assert np.isnan(out[~numbers].astype(np.float32)).all()
