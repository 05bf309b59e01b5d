"""Between 16-bit numbers laid out in any way and float32 side by side: what a kernel that widens starts with.

    widen     dst[i] = src[...]     float32, dense  <-  bfloat16 or float16, any strides
    narrow    dst[...] = src[i]     bfloat16 or float16, any strides  <-  float32, dense

The dense side keeps the order in which the axes of the 16-bit side lie in memory, so that most arrays are one
long line; an axis of stride 0 is not repeated.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..spec import TensorSpec
from .compile import part
from .cycles import ceil_div
from .memory import load_word
from .narrow import read, write
from .vector_ir import Vectors, counted_loop, i64, offset, pointer

MOST_AXES = 6
PIECE = 8192  # elements of a line that a task takes at a time
WIDE, NARROW, SCRATCH, INNER, STEP, PIECES, UNITS, TASKS = range(8)
LENGTHS, STRIDES = 8, 8 + MOST_AXES
WORDS = 8 + 2 * MOST_AXES


def dense(spec: TensorSpec) -> TensorSpec:
    """The float32 side of an array: its axes in the order in which they lie in memory, without gaps."""
    strides, reach = [0] * spec.ndim, 4
    for axis in _inside_out(spec):
        strides[axis] = reach
        reach *= spec.shape[axis]
    return TensorSpec(spec.shape, "float32", spec.device, tuple(strides))


def empty(spec: TensorSpec) -> NDArray[np.float32]:
    """New memory for `dense(...)`."""
    count = 1
    for length, stride in zip(spec.shape, spec.strides, strict=True):
        count *= length if stride else 1
    return np.ndarray(spec.shape, np.float32, np.empty(count, np.float32), strides=spec.strides)


def _inside_out(spec: TensorSpec) -> list[int]:
    """The axes that move through memory, the nearest first."""
    moving = [i for i in range(spec.ndim) if spec.shape[i] > 1 and spec.strides[i]]
    return sorted(moving, key=lambda i: (abs(spec.strides[i]), -i))


def lines(spec: TensorSpec, threads: int) -> tuple[NDArray[np.int64], int]:
    """(the argument block, the number of tasks) for an array of 16-bit numbers."""
    axes = [(spec.shape[i], spec.strides[i]) for i in _inside_out(spec)] or [(1, spec.itemsize)]
    joined = axes[:1]
    for length, stride in axes[1:]:
        if stride == joined[-1][0] * joined[-1][1]:
            joined[-1] = (joined[-1][0] * length, joined[-1][1])
        else:
            joined.append((length, stride))
    (inner, step), outer = joined[0], joined[1:]
    pieces = ceil_div(inner, PIECE)
    units = pieces
    for length, _ in outer:
        units *= length
    block = np.zeros(WORDS, np.int64)
    block[[INNER, STEP, PIECES, UNITS]] = inner, step, pieces, units
    block[LENGTHS : LENGTHS + MOST_AXES] = 1
    for i, (length, stride) in enumerate(outer):
        block[LENGTHS + i], block[STRIDES + i] = length, stride
    tasks = max(1, min(threads, units * min(inner, PIECE) // (4 * PIECE)))
    block[TASKS] = tasks
    return block, tasks


@cache
def _line(lanes: int, stored: str, widens: bool) -> Any:
    """`move(wide, narrow, step, n)`: n numbers, float32 side by side and 16 bits `step` bytes apart."""

    @intrinsic
    def move(typingctx, wide, narrow, step, n):
        def codegen(context, builder, sig, args):
            wide, narrow, step, n = args

            def body(v: Vectors, stride: Any) -> Any:
                def one(carried):
                    near, far = carried
                    if widens:
                        v.store(read(v, far, stored), near)
                    else:
                        write(v, v.load(near), far, stored)
                    return [offset(builder, near, v.nbytes), offset(builder, far, stride)]

                return one

            many, single = Vectors(builder, "float32", lanes), Vectors(builder, "float32", 1)
            side_by_side = builder.icmp_signed("==", step, i64(2))
            whole = builder.select(side_by_side, builder.sdiv(n, i64(lanes)), i64(0))
            state = [pointer(builder, wide), pointer(builder, narrow)]
            state = counted_loop(builder, whole, state, body(many, 2 * lanes))
            counted_loop(builder, builder.sub(n, builder.mul(whole, i64(lanes))), state, body(single, step))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return move


@cache
def convert_task(lanes: int, stored: str, widens: bool) -> Any:
    """`task(block, index)`; TASKS of them, each with some pieces of lines."""
    move = _line(lanes, stored, widens)

    @part(lanes, stored, widens)
    def task(block, index):
        inner, step = load_word(block, INNER), load_word(block, STEP)
        pieces, units, tasks = load_word(block, PIECES), load_word(block, UNITS), load_word(block, TASKS)
        wide, narrow = load_word(block, WIDE), load_word(block, NARROW)
        for unit in range(index * units // tasks, (index + 1) * units // tasks):
            line, start = unit // pieces, unit % pieces * PIECE
            at, left = narrow + start * step, line
            for axis in range(MOST_AXES):
                length = load_word(block, LENGTHS + axis)
                at += left % length * load_word(block, STRIDES + axis)
                left //= length
            move(wide + 4 * (line * inner + start), at, step, min(PIECE, inner - start))

    return task


def bind_convert(spec: TensorSpec, threads: int, *, widens: bool) -> Any:
    """`launch(wide, narrow)`: an array of `dense(spec)` from one of `spec`, or the other way round."""
    from ..machine import vector_bytes
    from .launch import address_of_task, bind_phases

    key = (vector_bytes() // 4, spec.dtype, widens)
    block, tasks = lines(spec, threads)
    name = f"widening of {spec.dtype}" if widens else f"rounding to {spec.dtype}"
    return bind_phases(block, 2, [(address_of_task(convert_task(*key), key, name), tasks)])
