"""Products on the tile registers of AMX: one schedule, written once for every machine that can carry it out.

A core has eight tiles of 16 rows of 64 bytes. One instruction, TDPBF16PS, adds to 16 x 16 float32 numbers the
products of 16 rows of 32 bfloat16 numbers of A and 16 rows of B, each of which holds 16 *pairs* of
neighbours along k: just what a packed panel of `pairs` consists of, and what a row of A is where it lies.

                     B of a panel, 16 pairs of k a step                 tiles
                     +------ 6 ------+------ 7 ------+                  0..3  sums
      +------ 4 -----+               |               |                  4, 5  A: 16 rows, 32 of k
   A  | 16 x 32      |  0: 16 x 16   |  1: 16 x 16   |                  6, 7  B: 16 pairs of k, 16 columns
      +------ 5 -----+               |               |
      | 16 x 32      |  2            |  3            |    a step: 4 loads of 1 KB, 4 products
      +--------------+---------------+---------------+

The last 16 rows alone go by 1 x 4 tiles of sums: 5 loads for 4 products.

All tiles have their full size, so that one configuration (LDTILECFG) serves a whole task: whoever calls pads
what is missing with zeros, in scratch. `product` is the schedule; it talks to a `Tiles`, of which there are
two: `Instructions` emits LLVM's intrinsics, and the tests have one that carries everything out in NumPy and
watches every access.

Sources: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18, and
volume 2, LDTILECFG, TILELOADD, TDPBF16PS, TILESTORED.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vector_ir import I8, I64, POINTER, counted_loop, i64, pointer

ROWS = 16
"""Rows of a tile: of A, of the sums, and pairs of k of B."""
LINE = 64
"""Bytes in a row of a tile."""
STEP = LINE // 2
"""How many of k one product takes."""
TILES = 8
SUMS = 4
"""Tiles that hold sums; the others hold operands."""
SHAPES = ((2, 2), (1, 4))
"""Tiles of sums down and across that the schedule knows."""


class Tiles(Protocol):
    """What a schedule is made of. Tiles are numbered; addresses, strides and counts are `Any` integers."""

    def constant(self, value: int) -> Any:
        """A number of the kind that addresses are."""

    def plus(self, a: Any, b: Any) -> Any:
        """a + b."""

    def times(self, a: Any, b: Any) -> Any:
        """a * b."""

    def zero(self, tile: int) -> None:
        """Makes a tile zeros."""

    def load(self, tile: int, address: Any, stride: Any) -> None:
        """Reads 16 rows of 64 bytes, `stride` bytes apart."""

    def dot(self, sums: int, a: int, b: int) -> None:
        """Adds the products of the pairs in tiles a and b to the sums."""

    def store(self, tile: int, address: Any, stride: Any) -> None:
        """Writes 16 rows of 64 bytes, `stride` bytes apart."""

    def repeat(self, count: Any, start: Sequence[Any], body: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
        """`for _ in range(count): state = body(state)` from `start` on; returns the last state."""

    def either(self, condition: Any, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """One or the other, by whether the condition is not 0."""


def configuration() -> bytes:
    """What LDTILECFG reads: palette 1, all eight tiles 16 rows of 64 bytes."""
    colsb = b"".join(LINE.to_bytes(2, "little") for _ in range(TILES))
    rows = bytes([ROWS] * TILES)
    return bytes([1, *[0] * 15]) + colsb.ljust(32, b"\0") + rows.ljust(16, b"\0")


def product(t: Tiles, shape: tuple[int, int], call: Sequence[Any]) -> None:
    """Emits one product of `shape` tiles of sums: C (+)= A B over `steps` of k, and a tail.

    `call` is (steps, a, a_rs, below, below_rs, a_tail, b, b_rs, b_tail, tail, c, c_rs, add): A's first 16
    rows at `a` and the next ones at `below`, rows `a_rs` and `below_rs` bytes apart; B's rows of pairs at
    `b`, `b_rs` apart. With `tail` not 0, one step more: 64 bytes for each row of A at `a_tail`, one after the
    other, and of B at `b_tail`, `b_rs` apart. Sums go to `c`, on top of what is there when `add` is not 0.
    """
    steps, a, a_rs, below, below_rs, a_tail, b, b_rs, b_tail, tail, c, c_rs, add = call
    down, across = shape
    line = t.constant(LINE)

    def place(i: int, j: int) -> Any:
        """Where a tile of sums is in memory."""
        return t.plus(t.plus(c, t.times(c_rs, t.constant(ROWS * i))), t.constant(LINE * j))

    def every_sum(do: Callable[[int, int], None]) -> None:
        for i in range(down):
            for j in range(across):
                do(i, j)

    def step(rows: Sequence[tuple[Any, Any]], b_now: Any) -> None:
        """One step of k: a tile is loaded just before its first product, so that the first starts early."""
        loaded: set[int] = set()
        # Down before across: with two columns, what the second needs has arrived by then.
        for j in range(across):
            b_tile = SUMS + down + j % (TILES - SUMS - down)
            t.load(b_tile, t.plus(b_now, t.constant(LINE * j)), b_rs)
            for i in range(down):
                if i not in loaded:
                    t.load(SUMS + i, *rows[i])
                    loaded.add(i)
                t.dot(i * across + j, SUMS + i, b_tile)

    t.either(
        add,
        lambda: every_sum(lambda i, j: t.load(i * across + j, place(i, j), c_rs)),
        lambda: every_sum(lambda i, j: t.zero(i * across + j)),
    )
    b_step = t.times(b_rs, t.constant(ROWS))
    sources = ((a, a_rs), (below, below_rs))[:down]

    def body(state: Sequence[Any]) -> Sequence[Any]:
        done, b_now = state
        step([(t.plus(at, done), stride) for at, stride in sources], b_now)
        return [t.plus(done, line), t.plus(b_now, b_step)]

    t.repeat(steps, [t.constant(0), b], body)
    tails = [(t.plus(a_tail, t.constant(ROWS * LINE * i)), line) for i in range(down)]
    t.either(tail, lambda: step(tails, b_tail), lambda: None)
    every_sum(lambda i, j: t.store(i * across + j, place(i, j), c_rs))


class Instructions:
    """Emits the instructions at the builder's place, by LLVM's intrinsics that name the tile.

    LLVM also has values of a type `x86_amx`; it allots those to tiles itself, and writes them to memory and
    back at every turn of a loop. With named tiles there is nothing to allot. The compiler has to be told that
    the CPU has AMX (`amx_machine.machine_problem`): without, it gives up and takes the process with it.
    """

    def __init__(self, builder: ir.IRBuilder):
        self.builder = builder

    def constant(self, value: int) -> ir.Value:
        return i64(value)

    def plus(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.add(a, b)

    def times(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.mul(a, b)

    def repeat(self, count: Any, start: Sequence[Any], body: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
        return counted_loop(self.builder, count, start, body)

    def either(self, condition: Any, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        with self.builder.if_else(self.builder.icmp_signed("!=", condition, i64(0))) as (first, second):
            with first:
                then()
            with second:
                otherwise()

    def _call(self, name: str, *args: ir.Value) -> None:
        fnty = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
        fn = cgutils.get_or_insert_function(self.builder.module, fnty, f"llvm.x86.{name}")
        self.builder.call(fn, list(args))

    def configure(self, configuration: ir.Value) -> None:
        """Reads the 64 bytes of a configuration behind a pointer."""
        self._call("ldtilecfg", self.builder.bitcast(configuration, POINTER))

    def release(self) -> None:
        """Gives the tiles back: their 8 KB need not be kept from one thread to the next any more."""
        self._call("tilerelease")

    def zero(self, tile: int) -> None:
        self._call("tilezero", ir.Constant(I8, tile))

    def load(self, tile: int, address: ir.Value, stride: ir.Value) -> None:
        self._call("tileloadd64", ir.Constant(I8, tile), pointer(self.builder, address), stride)

    def dot(self, sums: int, a: int, b: int) -> None:
        self._call("tdpbf16ps", *(ir.Constant(I8, tile) for tile in (sums, a, b)))

    def store(self, tile: int, address: ir.Value, stride: ir.Value) -> None:
        self._call("tilestored64", ir.Constant(I8, tile), pointer(self.builder, address), stride)


@intrinsic
def begin_tiles(typingctx):
    """Configures the tiles of the thread that runs it; they are zeros then."""

    def codegen(context, builder, sig, args):
        text = ir.Constant(ir.ArrayType(I8, LINE), bytearray(configuration()))
        held = cgutils.alloca_once(builder, text.type)
        held.align = LINE
        builder.store(text, held)
        Instructions(builder).configure(held)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def end_tiles(typingctx):
    """Gives the tiles of the thread that runs it back."""

    def codegen(context, builder, sig, args):
        Instructions(builder).release()
        return context.get_dummy_value()

    return types.void(), codegen


@cache
def tile_product(shape: tuple[int, int]) -> Any:
    """`product(steps, a, ...)` for Numba code, between `begin_tiles` and `end_tiles`: see `product`."""

    def emit(context, builder, sig, args):
        product(Instructions(builder), shape, args)
        return context.get_dummy_value()

    @intrinsic
    def tiles(typingctx, steps, a, a_rs, below, below_rs, a_tail, b, b_rs, b_tail, tail, c, c_rs, add):
        return types.void(*[types.int64] * 13), emit

    return tiles


def module_of(shape: tuple[int, int]) -> str:
    """LLVM IR of a C function `product(steps, a, ..., configuration)`: to look at the code of a product."""
    module = ir.Module("amx")
    module.triple = "x86_64-unknown-linux-gnu"
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 14), "product")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    tiles = Instructions(builder)
    tiles.configure(pointer(builder, function.args[13]))
    product(tiles, shape, function.args[:13])
    tiles.release()
    builder.ret_void()
    return str(module)
