"""The functions of vector_math over whole arrays: for their tests, and run as a script for their speed.

python tests/kernels/cpu/vector_math_map.py      elements a nanosecond of 16,384, beside torch on one thread
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernelwright.kernels.cpu import vector_math
from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.cpu.vector_ir import Vectors, counted_loop, i64, offset, pointer

FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "erf")


@cache
def mapper(name: str, dtype: str, lanes: int) -> Callable[[int, int, int, int], None]:
    """`run(dst, src, count, times)`: addresses, and how many elements, a multiple of `lanes`, how often."""

    def emit(v: Vectors, x: ir.Value) -> ir.Value:
        if name in FUNCTIONS:
            return getattr(vector_math, name)(v, x)
        return vector_math.activation(v, name, x)

    @intrinsic
    def sweep(typingctx, dst, src, count):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            v = Vectors(builder, dtype, lanes)
            start = [pointer(builder, args[0]), pointer(builder, args[1])]

            def body(carried: Any) -> Any:
                d, s = carried
                v.store(emit(v, v.load(s)), d)
                return [offset(builder, d, v.nbytes), offset(builder, s, v.nbytes)]

            counted_loop(builder, builder.sdiv(args[2], i64(lanes)), start, body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    def run(dst, src, count, times):  # type: ignore[no-untyped-def]
        for _ in range(times):
            sweep(dst, src, count)

    key = ("vector math", name, dtype, lanes)
    return compiled(run, name="a test of vector functions", key=key).entry((np.int64,) * 4)


def mapped(name: str, x: Any, lanes: int) -> Any:
    """The function of every element of a 1-D array."""
    padded = np.concatenate([x, np.ones(-len(x) % lanes, x.dtype)])
    out = np.full_like(padded, 7)
    mapper(name, x.dtype.name, lanes)(out.ctypes.data, padded.ctypes.data, len(padded), 1)
    return out[: len(x)]


def _best(call: Callable[[], Any]) -> float:
    """Nanoseconds of the fastest of many calls."""
    loops = 10
    return min(timeit.repeat(call, repeat=20, number=loops)) / loops * 1e9


def main() -> None:
    """Prints the table."""
    import torch

    from kernelwright.kernels.machine import vector_bytes

    torch.set_num_threads(1)
    relatives = {"gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh")}
    relatives |= {"gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}
    names = [*FUNCTIONS, *(name for name in vector_math.ACTIVATIONS if name not in FUNCTIONS)]
    n = int(sys.argv[1]) if sys.argv[1:] else 16384
    for dtype in ("float32", "float64"):
        rng = np.random.default_rng(0)
        x = rng.uniform(-4, 4, n).astype(dtype)
        out = np.empty_like(x)
        print(f"{dtype}: elements/ns    ours   torch")
        for name in names:
            given = np.abs(x) if name == "log" else x
            run = mapper(name, dtype, vector_bytes() // x.itemsize)
            ours = _best(lambda a=out.ctypes.data, b=given.ctypes.data, run=run: run(a, b, n, 10)) / 10
            tensor = torch.from_numpy(given)
            function = relatives.get(name) or getattr(torch, name)
            theirs = _best(lambda function=function, tensor=tensor: function(tensor))
            print(f"  {name:16}  {n / ours:8.2f}{n / theirs:8.2f}")


if __name__ == "__main__":
    main()
