"""How fast this machine can go: vector code that does nothing but multiply-add, or nothing but move memory.

    fma_rate    independent accumulators in registers, x = x * a + b: the most FLOP/s the vector units give;
                for bfloat16 x = x + a . b, the products of pairs, where the machine has that instruction, or
                of tiles, where AMX has proven itself (kernels/matmul/amx_proof.py)
    read_rate   sums over a buffer; its size picks the cache level that answers
    triad_rate  a = b + s * c over three buffers (McCalpin's STREAM), 3 words moved an element
    last_level  loads that each wait for the one before, over ever larger buffers: how much the last-level
                cache really holds

Threads are Python threads inside compiled code that holds no interpreter lock, started together by a barrier;
the rate is all work over the time from the first start to the last end. Each figure is the best of several
repetitions: a roof is what the machine can do when left alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..machine import machine, vector_bytes

ITEMSIZE = {"float32": 4, "float64": 8, "pairs": 4}
# Two multiply-adds start each cycle on current cores and take 4 cycles, so 8 chains would do; 12 leave some
# slack and still fit the 16 registers of AVX2 with the two constants. Products of pairs take 6 or more, and
# need AVX-512, which has 32 registers.
CHAINS = {"float32": 12, "float64": 12, "pairs": 24}
# A product of tiles starts every 16 cycles and takes 52 (Intel's optimization manual): four are under way.
TILE_CHAINS = 4
TILE_FLOP = 2.0 * 16 * 16 * 32
STREAMS = 8
REPEATS = 5
LEG_SECONDS = 0.02

Kernel = Callable[..., Any]


def _vector_intrinsic(name: str, dtype: str, nbytes: int) -> Any:
    """The inner loop `name` as a Numba intrinsic for vectors of `nbytes` bytes; all arguments are int64."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    from .vector_ir import Vectors, counted_loop, i64, offset, pointer

    lanes = nbytes // ITEMSIZE[dtype]
    scalar = types.float64 if dtype == "float64" else types.float32

    def fma(builder: Any, args: Any) -> Any:
        v = Vectors(builder, dtype, lanes)
        half, one = (v.splat(ir.Constant(v.element, x)) for x in (0.5, 1.0))
        starts = [v.splat(ir.Constant(v.element, 1.0 + i)) for i in range(CHAINS[dtype])]

        def step(xs: Any) -> Any:
            return [v.fma(half, one, x) if dtype == "pairs" else v.fma(x, half, one) for x in xs]

        ends = counted_loop(builder, args[0], starts, step)
        total = ends[0]
        for end in ends[1:]:
            total = v.add(total, end)
        return v.sum(total)

    def chain(builder: Any, args: Any) -> Any:
        v = Vectors(builder, dtype, lanes)
        half, one = (v.splat(ir.Constant(v.element, x)) for x in (0.5, 1.0))
        return v.sum(counted_loop(builder, args[0], [one], lambda xs: [v.fma(xs[0], half, one)])[0])

    def read(builder: Any, args: Any) -> Any:
        v = Vectors(builder, dtype, lanes)
        start = pointer(builder, args[1])

        def step(state: Any) -> Any:
            at, *sums = state
            loads = [v.load(offset(builder, at, i * v.nbytes)) for i in range(STREAMS)]
            following = offset(builder, at, STREAMS * v.nbytes)
            return [following, *(v.add(s, x) for s, x in zip(sums, loads, strict=True))]

        _, *sums = counted_loop(builder, args[0], [start, *[v.zero] * STREAMS], step)
        total = sums[0]
        for part in sums[1:]:
            total = v.add(total, part)
        return v.sum(total)

    def triad(builder: Any, args: Any) -> Any:
        v = Vectors(builder, dtype, lanes)
        factor = v.splat(ir.Constant(v.element, 3.0))
        out, left, right = (pointer(builder, address) for address in args[1:4])

        def step(state: Any) -> Any:
            (at,) = state
            for i in range(STREAMS):
                here = builder.add(at, i64(i * v.nbytes))
                x, y = v.load(offset(builder, left, here)), v.load(offset(builder, right, here))
                v.store(v.fma(y, factor, x), offset(builder, out, here))
            return [builder.add(at, i64(STREAMS * v.nbytes))]

        counted_loop(builder, args[0], [i64(0)], step)
        return ir.Constant(v.element, 0.0)

    emit = {"fma": fma, "chain": chain, "read": read, "triad": triad}[name]

    @intrinsic
    def inner(typingctx, count, a, b, c):
        def codegen(context, builder, sig, args):
            return emit(builder, args)

        return scalar(types.int64, types.int64, types.int64, types.int64), codegen

    return inner


@cache
def tile_loop() -> Kernel:
    """The compiled loop `tiles(count)`: one count is a product into each of TILE_CHAINS tiles of sums."""
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    from . import amx
    from .compile import compiled
    from .vector_ir import I8

    @intrinsic
    def inner(typingctx, count):
        def codegen(context, builder, sig, args):
            text = ir.Constant(ir.ArrayType(I8, amx.LINE), bytearray(amx.configuration()))
            held = cgutils.alloca_once_value(builder, text)
            tiles = amx.Instructions(builder)
            tiles.configure(held)

            def step(state: Any) -> Any:
                for chain in range(TILE_CHAINS):
                    tiles.dot(chain, amx.SUMS, amx.SUMS + 1)
                return state

            tiles.repeat(args[0], [], step)
            tiles.release()
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    def body(count):
        inner(count)

    return compiled(body, name="roof tiles", key=("tiles",)).entry((np.int64,))


@cache
def loop(name: str, dtype: str = "float32", nbytes: int | None = None) -> Kernel:
    """The compiled loop `name(count, address_a, address_b, address_c)`: "fma", "chain", "read" or "triad".

    One count of fma is CHAINS multiply-adds of a vector, of chain one, of read and triad STREAMS vectors.
    """
    from .compile import compiled

    width = nbytes or vector_bytes()
    inner = _vector_intrinsic(name, dtype, width)

    def body(count, a, b, c):
        return inner(count, a, b, c)

    made = compiled(body, name=f"roof {name}", key=(name, dtype, width))
    return made.entry((np.int64,) * 4)


def run_together(work: Callable[[int], None], threads: int) -> float:
    """Seconds from the first start to the last end of work(0), ..., work(threads - 1), run side by side."""
    spans: list[tuple[float, float]] = [(0.0, 0.0)] * threads
    barrier = threading.Barrier(threads)

    def run(i: int) -> None:
        barrier.wait()
        start = time.perf_counter()
        work(i)
        spans[i] = (start, time.perf_counter())

    others = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(1, threads)]
    for thread in others:
        thread.start()
    run(0)
    for thread in others:
        thread.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _best_rate(work: Callable[[int, int], None], amount: float, threads: int) -> float:
    """Units a second; work(i, n) does n rounds of `amount` units on thread i."""

    def leg(rounds: int) -> float:
        return run_together(lambda i: work(i, rounds), threads)

    rounds = 1
    while (took := leg(rounds)) < LEG_SECONDS:
        rounds = max(2 * rounds, int(rounds * LEG_SECONDS / max(took, 1e-6)))
    return rounds * amount * threads / min(took, *(leg(rounds) for _ in range(REPEATS)))


def bfloat16_computes_in() -> str | None:
    """What bfloat16 is multiplied in: tiles, pairs, or widened; None with tiles that may not be used."""
    from ..matmul import amx_proof

    flags = machine().flags
    if "amx_bf16" in flags:
        return "tiles" if amx_proof.problem() is None else None
    return "pairs" if "avx512_bf16" in flags and vector_bytes() == 64 else "float32"


def fma_rate(dtype: str, threads: int) -> float | None:
    """FLOP/s of `threads` threads in multiply-adds of full vectors, 2 FLOP a lane and 4 a lane of pairs.

    None for bfloat16 on a machine with matrix tiles, faster than its vector units, that may not be used.
    """
    element = bfloat16_computes_in() if dtype == "bfloat16" else dtype
    if element is None:
        return None
    inner = 1000
    if element == "tiles":
        tiles = tile_loop()
        return _best_rate(lambda i, rounds: tiles(rounds * inner), inner * TILE_CHAINS * TILE_FLOP, threads)
    kernel, width = loop("fma", element), vector_bytes()
    flop = (4.0 if element == "pairs" else 2.0) * inner * CHAINS[element] * width // ITEMSIZE[element]

    def work(i: int, rounds: int) -> None:
        kernel(rounds * inner, 0, 0, 0)

    return _best_rate(work, flop, threads)


def _buffers(nbytes: int, threads: int) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """For each thread the aligned address of `nbytes` bytes that it touched first, and their owner."""
    held: list[tuple[int, np.ndarray[Any, Any]]] = [(0, np.empty(0))] * threads

    def touch(i: int) -> None:
        raw = np.zeros(nbytes + 4096, np.uint8)
        raw.fill(0)
        held[i] = (raw.ctypes.data + -raw.ctypes.data % 4096, raw)

    run_together(touch, threads)
    return held


def _steps(nbytes: int) -> int:
    """How many steps of STREAMS vectors fill `nbytes`."""
    return max(1, nbytes // (STREAMS * vector_bytes()))


def read_rate(nbytes: int, threads: int) -> float:
    """Bytes/s of `threads` threads that each read a buffer of `nbytes` bytes of their own over and over."""
    kernel, buffers, steps = loop("read"), _buffers(nbytes, threads), _steps(nbytes)

    def work(i: int, rounds: int) -> None:
        for _ in range(rounds):
            kernel(steps, buffers[i][0], 0, 0)

    return _best_rate(work, steps * STREAMS * vector_bytes(), threads)


def triad_rate(nbytes: int, threads: int) -> float:
    """Bytes/s of a = b + s * c over three buffers of `nbytes` bytes in each thread, 3 words an element."""
    kernel, steps = loop("triad"), _steps(nbytes)
    buffers = [_buffers(nbytes, threads) for _ in range(3)]

    def work(i: int, rounds: int) -> None:
        for _ in range(rounds):
            kernel(steps, *(buffer[i][0] for buffer in buffers))

    return _best_rate(work, 3 * steps * STREAMS * vector_bytes(), threads)


LINE_BYTES = 64
# Of the chase: loads before the time is taken, and loads that are timed. Two million lines are 128 MB: enough
# to fill what there is of a cache with the end of a larger buffer.
CHASE_WARM, CHASE_TIMED = 2_000_000, 50_000
# Memory answers at least this many times as slowly as the last level of cache.
CHASE_RISE = 1.5


@cache
def chase_loop() -> Kernel:
    """The compiled loop `chase(following, start, count)`: count times at = following[at]; the last place."""
    from numba import types

    from .compile import compiled

    def chase(following, start, count):
        at = start
        for _ in range(count):
            at = following[at]
        return at

    made = compiled(chase, name="roof chase", key=("chase",))
    return made.entry((types.int64[::1], types.int64, types.int64))


def load_seconds(nbytes: int, rng: np.random.Generator) -> float:
    """Seconds of a load that waits for the one before, on lines of `nbytes` bytes in a random order.

    The order is one cycle through all lines, so that no prefetcher can guess the next. NumPy asks Linux for
    huge pages for arrays this large; where it gets none, part of the time is that of the page tables.
    """
    words = LINE_BYTES // 8
    order = rng.permutation(nbytes // LINE_BYTES) * words
    following = np.zeros(nbytes // 8, np.int64)
    following[order] = np.roll(order, -1)
    chase = chase_loop()
    at = chase(following, 0, min(len(order), CHASE_WARM))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        at = chase(following, at, CHASE_TIMED)
        times.append(time.perf_counter() - start)
    return sorted(times)[1] / CHASE_TIMED


def last_level(
    nearer: int, claimed: int, most: int, seconds: Callable[[int], float] | None = None
) -> int | None:
    """Bytes that the last-level cache really holds for us: the buffer of which half the loads miss it.

    A virtual machine may claim its host's whole cache, of which neighbours hold a part. Sizes grow by the
    root of 2; where loads take the mean (of their logarithms) of the cache's time and the memory's, the
    buffer is as large as the cache if that forgets strictly by age, and 1.4 times as large if at random.

    Args:
        nearer: bytes of the level before it.
        claimed: what the system says that it holds.
        most: the largest buffer to try.
        seconds: of a load, by the buffer's size; `load_seconds` unless given.

    Returns:
        None where no size up to `most` shows a step: there is no such cache, or it holds all of them.
    """
    rng = np.random.default_rng(0)
    take = seconds or (lambda nbytes: load_seconds(nbytes, rng))
    first, last = 4 * nearer, min(max(8 * claimed, 16 * nearer), most)
    count = max(2, round(2 * np.log2(last / first)) + 1) if last > first else 0
    sizes = [int(first * 2 ** (i / 2)) // 4096 * 4096 for i in range(count)]
    times = [take(size) for size in sizes]
    if not times or times[-1] < CHASE_RISE * times[0]:
        return None
    middle = np.sqrt(times[0] * times[-1])
    return next(size for size, taken in zip(sizes, times, strict=True) if taken > middle)


def calibration_chain() -> Callable[[], None]:
    """About 25 us of multiply-adds that wait for each other: its time follows the core's clock alone."""
    kernel = loop("chain")

    def run() -> None:
        kernel(20_000, 0, 0, 0)

    run()
    return run


def calibration_ports() -> Callable[[], None]:
    """About 15 us of multiply-adds that fill the vector units: slower also beside a neighbour on the core.

    A chain that waits for its own results leaves the units mostly idle, and another thread of the same core
    (simultaneous multithreading) would find room beside it.
    """
    kernel = loop("fma")

    def run() -> None:
        kernel(10_000, 0, 0, 0)

    run()
    return run
