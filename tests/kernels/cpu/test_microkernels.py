"""The micro-kernels and the packing, alone: right to the bit on whole numbers, and nothing past any end.

Every buffer lies between guard zones of NaN, rows included. A NaN that is read shows in the result; a zone
that is written shows by its bits. What is read and then masked away shows at the end of the file, where
operands end at memory that may not be read.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.cpu.copies import copies
from kernelwright.kernels.cpu.microkernel import microkernel
from kernelwright.kernels.cpu.streams import dots, row_update

MR, COLUMNS, DEPTH, NR = 3, 2, 3, 3
KINDS = [(dtype, nbytes) for nbytes in (64, 32, 16) for dtype in ("float32", "float64")]
every_kind = pytest.mark.parametrize(("dtype", "nbytes"), KINDS)


def lanes_of(dtype: str, nbytes: int) -> int:
    return nbytes // np.dtype(dtype).itemsize


# --- the kernels, callable with ten numbers and the like ----------------------------------------------------


@cache
def tile_kernel(dtype: str, lanes: int, masked_b: bool) -> Callable[..., None]:
    tile = microkernel(dtype, lanes, MR, COLUMNS, masked_b=masked_b)

    def run(k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add):  # type: ignore[no-untyped-def]
        tile(k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add)

    return compiled(run, name="a test of the tile").entry((np.int64,) * 10)


@cache
def update_kernel(dtype: str, lanes: int) -> Callable[..., None]:
    update = row_update(dtype, lanes, MR, DEPTH)

    def run(n, a, a_rs, a_cs, b, b_rs, c, c_rs, rows, add):  # type: ignore[no-untyped-def]
        update(n, a, a_rs, a_cs, b, b_rs, c, c_rs, rows, add)

    return compiled(run, name="a test of row updates").entry((np.int64,) * 10)


@cache
def dot_kernel(dtype: str, lanes: int) -> Callable[..., None]:
    dot = dots(dtype, lanes, MR, NR)

    def run(k, a, a_rs, b, b_cs, c, c_rs, c_cs, rows, cols, add):  # type: ignore[no-untyped-def]
        dot(k, a, a_rs, b, b_cs, c, c_rs, c_cs, rows, cols, add)

    return compiled(run, name="a test of inner products").entry((np.int64,) * 11)


@cache
def copy_kernel(dtype: str, lanes: int) -> Callable[..., None]:
    rows, panels = copies(dtype, lanes, COLUMNS)

    def run(by_panels, dst, dst_rs, src, src_rs, src_cs, m, n):  # type: ignore[no-untyped-def]
        if by_panels:
            panels(dst, src, src_rs, src_cs, m, n)
        else:
            rows(dst, dst_rs, src, src_rs, src_cs, m, n)

    return compiled(run, name="a test of packing").entry((np.int64,) * 8)


# --- buffers ------------------------------------------------------------------------------------------------

ZONE = 40  # elements; a tile is at most 32 columns wide


class Guarded:
    """A [rows, columns] matrix with NaN around it, and between its rows.

    Args:
        shape: rows and columns.
        dtype: of its elements.
        values: what it holds; None for an output, full of NaN.
        order: "C" or "F" with gaps between the lines, "gaps": neither axis contiguous, "dense": "C" without.
        flips: which axes run backwards (negative strides).
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: str,
        values: Any = None,
        order: str = "C",
        flips: tuple[bool, bool] = (False, False),
    ):
        m, n = shape
        rs, cs = {"C": (n + 5, 1), "F": (1, m + 5), "gaps": (2 * n + 5, 2), "dense": (n, 1)}[order]
        self.flat = np.full(2 * ZONE + m * rs + n * cs, np.nan, dtype)
        # Where each element lies in `flat`.
        self.places = ZONE + rs * np.arange(m)[:, None] + cs * np.arange(n)[None, :]
        self.places = self.places[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1]
        size = self.flat.itemsize
        self.rs, self.cs = (-rs if flips[0] else rs) * size, (-cs if flips[1] else cs) * size
        first = int(self.places[0, 0]) if m and n else ZONE
        self.address = self.flat.ctypes.data + first * size
        if values is not None:
            self.flat[self.places] = values
        self.before = self.flat.copy()

    def check(self, expected: Any) -> None:
        """The upper left corner is `expected`, and every other byte is as it was."""
        m, n = expected.shape
        corner = self.places[:m, :n]
        np.testing.assert_array_equal(self.flat[corner], expected)
        rest = self.flat.copy()
        rest[corner] = self.before[corner]
        assert rest.tobytes() == self.before.tobytes(), "written outside the result"


def whole_numbers(rng: np.random.Generator, *shape: int) -> Any:
    """Small enough for every sum and product here to be exact."""
    return rng.integers(-4, 5, shape).astype(np.float64)


def near(lanes: int, *more: int) -> list[int]:
    """Lengths around one vector."""
    return sorted({1, lanes - 1, lanes, lanes + 1, *more})


# --- results ------------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("masked_b", [False, True])
def test_a_tile_is_right_and_stays_inside(dtype: str, nbytes: int, masked_b: bool) -> None:
    lanes = lanes_of(dtype, nbytes)
    width = COLUMNS * lanes
    run, rng = tile_kernel(dtype, lanes, masked_b), np.random.default_rng(0)
    for k, rows, cols, add in product(
        [0, 1, 3, 4, 5, 9], range(1, MR + 1), near(lanes, width - 1, width, width + 3), [0, 1]
    ):
        a, b = whole_numbers(rng, rows, k), whole_numbers(rng, k, cols if masked_b else max(cols, width))
        old = whole_numbers(rng, rows, cols)
        left = Guarded(a.shape, dtype, a, flips=(rows == 2, False))
        right, out = Guarded(b.shape, dtype, b), Guarded(old.shape, dtype, old if add else None)
        run(k, left.address, left.rs, right.address, right.rs, out.address, out.rs, rows, cols, add)
        out.check((a @ b)[:, : min(cols, width)] + add * old[:, :width])


@every_kind
def test_a_row_update_is_right_and_stays_inside(dtype: str, nbytes: int) -> None:
    lanes = lanes_of(dtype, nbytes)
    run, rng = update_kernel(dtype, lanes), np.random.default_rng(1)
    for n, rows, order, add in product(
        [0, *near(lanes, 3 * lanes + 2)], range(1, MR + 1), ["C", "F", "gaps"], [0, 1]
    ):
        a, b, old = whole_numbers(rng, rows, DEPTH), whole_numbers(rng, DEPTH, n), whole_numbers(rng, rows, n)
        left = Guarded(a.shape, dtype, a, order, flips=(rows == 2, order == "gaps"))
        right = Guarded(b.shape, dtype, b, flips=(n == lanes, False))
        out = Guarded(old.shape, dtype, old if add else None)
        addresses = (left.address, left.rs, left.cs, right.address, right.rs, out.address, out.rs)
        run(n, *addresses, rows, add)
        out.check(a @ b + add * old)


@every_kind
def test_inner_products_are_right_and_stay_inside(dtype: str, nbytes: int) -> None:
    lanes = lanes_of(dtype, nbytes)
    run, rng = dot_kernel(dtype, lanes), np.random.default_rng(2)
    for k, rows, cols, order, add in product(
        [0, *near(lanes, 2 * lanes + 3)], range(1, MR + 1), range(1, NR + 1), ["C", "F", "gaps"], [0, 1]
    ):
        a, b, old = whole_numbers(rng, rows, k), whole_numbers(rng, k, cols), whole_numbers(rng, rows, cols)
        left = Guarded(a.shape, dtype, a, flips=(rows == 2, False))
        right = Guarded(b.shape, dtype, b, "F", flips=(False, cols == 2))
        out = Guarded(old.shape, dtype, old if add else None, order, flips=(False, order == "gaps"))
        addresses = (left.address, left.rs, right.address, right.cs, out.address, out.rs, out.cs)
        run(k, *addresses, rows, cols, add)
        out.check(a @ b + add * old)


# Where the source is contiguous, and which way it runs.
SOURCES = [("C", (False, False)), ("C", (True, False)), ("F", (False, False)), ("F", (False, True))]
SOURCES += [("gaps", (False, False)), ("gaps", (True, True)), ("C", (False, True))]


@every_kind
def test_packed_rows_are_right_and_stay_inside(dtype: str, nbytes: int) -> None:
    lanes = lanes_of(dtype, nbytes)
    run, rng = copy_kernel(dtype, lanes), np.random.default_rng(3)
    lengths = [0, *near(lanes, 2 * lanes + 3)]
    for m, n, (order, flips) in product(lengths, lengths, SOURCES):
        values = whole_numbers(rng, m, n)
        source, out = Guarded((m, n), dtype, values, order, flips), Guarded((m, n), dtype)
        run(0, out.address, out.rs, source.address, source.rs, source.cs, m, n)
        out.check(values)


@every_kind
def test_packed_panels_are_right_and_stay_inside(dtype: str, nbytes: int) -> None:
    lanes = lanes_of(dtype, nbytes)
    width = COLUMNS * lanes
    run, rng = copy_kernel(dtype, lanes), np.random.default_rng(4)
    for m, n, (order, flips) in product(
        [0, *near(lanes)], [0, *near(lanes, width, width + 1, 2 * width + 3)], SOURCES
    ):
        values, panels = whole_numbers(rng, m, n), -(-n // width)
        padded = np.zeros((m, panels * width))
        padded[:, :n] = values
        source, out = (
            Guarded((m, n), dtype, values, order, flips),
            Guarded((panels * m, width), dtype, None, "dense"),
        )
        run(1, out.address, 0, source.address, source.rs, source.cs, m, n)
        out.check(padded.reshape(m, panels, width).transpose(1, 0, 2).reshape(panels * m, width))


# --- the end of readable memory -----------------------------------------------------------------------------


class Fence:
    """Memory between two pages that can be neither read nor written."""

    def __init__(self) -> None:
        page = mmap.PAGESIZE
        self.nbytes = 2 * page
        self.map = mmap.mmap(-1, self.nbytes + 2 * page)
        self.start = np.frombuffer(self.map, np.uint8).ctypes.data + page
        for address in (self.start - page, self.start + self.nbytes):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0) == 0

    def put(self, values: Any, dtype: str, at_end: bool) -> Any:
        """A copy of an array that ends, or starts, exactly at the fence."""
        size = np.dtype(dtype).itemsize * values.size
        assert size <= self.nbytes
        offset = mmap.PAGESIZE + (self.nbytes - size if at_end else 0)
        placed = np.frombuffer(self.map, dtype, values.size, offset).reshape(values.shape)
        placed[...] = values
        return placed


def exit_of(work: Callable[[], None]) -> int:
    """What becomes of a child process that does the work: 0, or minus the signal that ended it."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="waits for a way to survive a bad address here"
)


@needs_fork
@every_kind
def test_no_operand_is_read_past_its_ends(dtype: str, nbytes: int) -> None:
    lanes = lanes_of(dtype, nbytes)
    tile, panel_tile = tile_kernel(dtype, lanes, True), tile_kernel(dtype, lanes, False)
    update, dot, copy = update_kernel(dtype, lanes), dot_kernel(dtype, lanes), copy_kernel(dtype, lanes)
    size, width = np.dtype(dtype).itemsize, COLUMNS * lanes
    rng = np.random.default_rng(5)

    def cases() -> Iterator[tuple[Any, ...]]:
        """Shapes of a and b (or of a source alone), the axis order of b, and the call on the addresses."""
        for k, rows, cols in product([1, 4, 7], [1, MR], near(lanes, width)):
            a, b = (rows, k), (k, cols)

            def by_tile(x: int, y: int, z: int, k: int = k, rows: int = rows, cols: int = cols) -> None:
                kernel = tile if cols < width else panel_tile
                kernel(k, x, k * size, y, cols * size, z, cols * size, rows, cols, 0)

            yield a, b, "C", by_tile
        for n, rows in product(near(lanes, 2 * lanes + 3), [1, MR]):

            def by_update(x: int, y: int, z: int, n: int = n, rows: int = rows) -> None:
                update(n, x, DEPTH * size, size, y, n * size, z, n * size, rows, 0)

            yield (rows, DEPTH), (DEPTH, n), "C", by_update
        for k, rows, cols in product(near(lanes, 2 * lanes + 3), [1, MR], [1, NR]):

            def by_dots(x: int, y: int, z: int, k: int = k, rows: int = rows, cols: int = cols) -> None:
                dot(k, x, k * size, y, k * size, z, cols * size, size, rows, cols, 0)

            yield (rows, k), (k, cols), "F", by_dots

    def work() -> None:
        fences = [Fence() for _ in range(3)]
        for (a_shape, b_shape, order, call), at_end in product(list(cases()), [True, False]):
            a, b = whole_numbers(rng, *a_shape), whole_numbers(rng, *b_shape)
            x = fences[0].put(a, dtype, at_end)
            y = fences[1].put(b if order == "C" else b.T.copy(), dtype, at_end)
            z = fences[2].put(np.full((len(a), b.shape[1]), np.nan), dtype, at_end)
            call(x.ctypes.data, y.ctypes.data, z.ctypes.data)
            assert np.array_equal(z, a @ b), (call.__name__, a_shape, b_shape)
        for m, n, by_columns, at_end in product(near(lanes), near(lanes), [False, True], [True, False]):
            values = whole_numbers(rng, m, n)
            source = fences[0].put(values.T.copy() if by_columns else values, dtype, at_end)
            steps = (size, m * size) if by_columns else (n * size, size)
            rows = fences[1].put(np.full((m, n), np.nan), dtype, at_end)
            copy(0, rows.ctypes.data, n * size, source.ctypes.data, *steps, m, n)
            assert np.array_equal(rows, values)
            panels = fences[2].put(np.full((-(-n // width), m, width), np.nan), dtype, at_end)
            copy(1, panels.ctypes.data, 0, source.ctypes.data, *steps, m, n)
            assert np.array_equal(panels.transpose(1, 0, 2).reshape(m, -1)[:, :n], values)

    assert exit_of(work) == 0


@needs_fork
def test_control_the_fence_ends_a_process_that_reads_past_it() -> None:
    """A tile that loads whole vectors of B, on a B of fewer columns."""
    lanes = lanes_of("float32", 16)
    run = tile_kernel("float32", lanes, False)

    def work() -> None:
        import faulthandler
        import resource

        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        a, b, out = (Fence().put(np.ones((1, 3)), "float32", True) for _ in range(3))
        run(1, a.ctypes.data, 4, b.ctypes.data, 12, out.ctypes.data, 12, 1, 3, 0)

    assert exit_of(work) == -signal.SIGSEGV
