"""Triton kernels for tests alone: one that computes the toy op, and some that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import triton
import triton.language as tl
from toy_op import toy_registered

from kernelwright.kernels import registry
from kernelwright.kernels.cuda.launch import CudaLaunch, launcher
from kernelwright.kernels.cuda.step import Arg, Descriptor, Step, Workspace
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.spec import TensorSpec


@triton.jit
def add(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    sum_ = tl.load(x + i, mask=inside).to(tl.float32) + scale * tl.load(y + i, mask=inside).to(tl.float32)
    tl.store(out + i, sum_.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_past_the_end(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sum_ = tl.load(x + i, mask=i < n + 1).to(tl.float32) + scale * tl.load(y + i, mask=i < n).to(tl.float32)
    tl.store(out + i, sum_.to(out.dtype.element_ty), mask=i < n)


@triton.jit
def add_into_x(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sum_ = tl.load(x + i, mask=i < n).to(tl.float32) + scale * tl.load(y + i, mask=i < n).to(tl.float32)
    tl.store(x + i, sum_.to(out.dtype.element_ty), mask=i < n)


@triton.jit
def add_in_turns(x, y, out, n, scale, BLOCK: tl.constexpr):
    """Each program computes one element more than its own: two write it, and nothing says which is last."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, 2 * BLOCK)
    inside = (i < n) & (tl.arange(0, 2 * BLOCK) <= BLOCK)
    sum_ = tl.load(x + i, mask=inside).to(tl.float32) + scale * tl.load(y + i, mask=inside).to(tl.float32)
    tl.store(out + i, sum_.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_without_the_last(x, y, out, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sum_ = tl.load(x + i, mask=i < n - 1).to(tl.float32) + scale * tl.load(y + i, mask=i < n - 1).to(
        tl.float32
    )
    tl.store(out + i, sum_.to(out.dtype.element_ty), mask=i < n - 1)


@triton.jit
def add_through_memory(x, y, out, middle, n, scale, BLOCK: tl.constexpr, FIRST: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if FIRST:
        tl.store(middle + i, scale * tl.load(y + i, mask=i < n).to(tl.float32), mask=i < n)
    else:
        sum_ = tl.load(x + i, mask=i < n).to(tl.float32) + tl.load(middle + i, mask=i < n)
        tl.store(out + i, sum_.to(out.dtype.element_ty), mask=i < n)


@triton.jit
def squared(x, out, K, BM: tl.constexpr, BK: tl.constexpr):
    """out = x x^T for x: [m, K] of one row of tiles, through descriptors: what a Hopper matmul looks like."""
    acc = tl.zeros((BM, BM), tl.float32)
    for k in range(0, K, BK):
        tile = x.load([tl.program_id(0) * BM, k])
        acc = tl.dot(tile, tile.T, acc)
    out.store([tl.program_id(0) * BM, 0], acc.to(out.dtype))


@triton.jit
def gathered(x, out, stride, BM: tl.constexpr):
    """Addresses from 32-bit offsets: right only where the array is small."""
    at = tl.arange(0, BM)[:, None] * stride + tl.arange(0, BM)[None, :]
    tl.store(out + at, tl.load(x + at))


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    """The spec of a row-major array on a GPU."""
    return TensorSpec(shape, dtype, "cuda")


def bind_add(fn: Any) -> Any:
    """A binding function for `toy` that launches one of the functions above."""

    def bind(specs: Any, attrs: Mapping[str, Any], config: Mapping[str, Any], threads: int) -> CudaLaunch:
        n, block = specs[0].size, config["block"]
        args = {
            "x": Arg(0),
            "y": Arg(1),
            "out": Arg(2),
            "n": n,
            "scale": float(attrs["scale"]),
            "BLOCK": block,
        }
        return launcher(specs, Step(fn, (triton.cdiv(n, block),), args, warps=config["warps"]))

    return bind


def bind_in_two_steps(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    n, block = specs[0].size, config["block"]
    middle = Workspace((n,))
    args = {"x": Arg(0), "y": Arg(1), "out": Arg(2), "middle": middle, "n": n, "scale": float(attrs["scale"])}
    grid = (triton.cdiv(n, block),)
    steps = [
        Step(add_through_memory, grid, {**args, "BLOCK": block, "FIRST": first}) for first in (True, False)
    ]
    return launcher(specs, *steps)


def bind_squared(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    """For specs of (x: [m, k], out: [m, bm])."""
    bm, bk = config["bm"], config["bk"]
    args = {"x": Descriptor(0, (bm, bk)), "out": Descriptor(1, (bm, bm)), "K": specs[0].shape[1]}
    grid = (specs[0].shape[0] // bm,)
    step = Step(squared, grid, {**args, "BM": bm, "BK": bk}, warps=config["warps"], stages=config["stages"])
    return launcher(specs, step)


def bind_plain_add(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return bind_add(add)(specs, attrs, config, threads)


def bind_gathered(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    """For specs of (x: [n, m], out: [n, m])."""
    args = {"x": Arg(0), "out": Arg(1), "stride": specs[0].shape[1], "BM": config["bm"]}
    return launcher(specs, Step(gathered, (1,), args))


def bind_broken(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    """Does not compile: `tl.arange` of a number that is no power of 2."""
    args = {"x": Arg(0), "out": Arg(1), "stride": specs[0].shape[1], "BM": 24}
    return launcher(specs, Step(gathered, (1,), args))


CONFIGS = ({"block": 64, "warps": 2}, {"block": 128, "warps": 4})


@contextmanager
def toy_on_cuda(bind: Any = None, name: str = "add") -> Iterator[Kernel]:
    """The op `toy` with one CUDA kernel: what `bind` makes, or `add`; no trace of it afterwards."""
    with toy_registered():
        declare = registry.kernel(
            "toy",
            device="cuda",
            language="triton",
            dtypes=("float32", "float16", "bfloat16"),
            name=name,
            configs=CONFIGS,
            binds=True,
        )
        declare(bind or bind_add(add))
        (made,) = registry.kernels_for("toy", "cuda")
        yield made
