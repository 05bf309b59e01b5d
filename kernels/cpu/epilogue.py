"""What is done to sums before they are stored: bias and residual added, an activation, rounding to 16 bits.

    tile of sums, in the nearest cache          C
      [rows x cols] float32 or float64    ->    activation(sums + bias + residual), in the dtype of C

A register tile is finished by a call through an address, while its sums are still in the nearest cache: one
compiled matrix product then serves every activation, and an activation every product. The call costs a few
dozen cycles a tile, against some thousand for the tile itself.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from .compile import part
from .memory import load_word, stack_words, store_word
from .narrow import element_move, read, stored_bytes, write
from .vector_ir import Vectors, counted_loop, i64, offset, pointer
from .vector_math import activation as emit_activation

# The words of a call: what to finish, and where it goes. Strides are in bytes.
(CALL, SRC, SRC_RS, DST, DST_RS, DST_CS, BIAS, BIAS_CS, RESIDUAL, RESIDUAL_RS, RESIDUAL_CS) = range(11)
(ROWS, COLS) = range(11, 13)
WORDS = 16
LINE = 128  # columns at a time
_FOUR_LINES = 4 * LINE


def _finish_line(dtype: str, lanes: int, stored: str, activation: str, terms: bool) -> Any:
    @intrinsic
    def finish(typingctx, dst, src, bias, residual, n):
        """dst[j] = activation(src[j] + bias[j] + residual[j]), all contiguous. Without `terms`, no sum."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, src, bias, residual, n = args
            step = lanes * stored_bytes(stored)

            def columns(d, s, added, mask):
                value = v.load(s) if mask is None else v.load_masked(s, mask)
                for at in added:
                    value = v.add(value, read(v, at, stored, mask))
                if activation:
                    value = emit_activation(v, activation, value)
                write(v, value, d, stored, mask)

            def body(carried):
                d, s, *added = carried
                columns(d, s, added, None)
                later = [offset(builder, at, step) for at in added]
                return [offset(builder, d, step), offset(builder, s, v.nbytes), *later]

            starts = [pointer(builder, at) for at in (dst, src, *([bias, residual] if terms else []))]
            d, s, *added = counted_loop(builder, builder.sdiv(n, i64(lanes)), starts, body)
            left = builder.srem(n, i64(lanes))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                columns(d, s, added, v.tail_mask(left))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return finish


@cache
def finish_task(dtype: str, lanes: int, stored: str, activation: str, terms: bool) -> Any:
    """`finish(call, row)`: finishes the tile that the words at `call` describe; it starts at that row of C.

    Args:
        dtype: of the sums.
        lanes: elements of it in a vector.
        stored: the dtype of C, bias and residual.
        activation: one of `kernels.activations`, or "" for none.
        terms: whether there may be a bias or a residual. Each may have any strides, and stays out at
            address 0.
    """
    size, from_size = stored_bytes(stored), 8 if dtype == "float64" else 4
    line = _finish_line(dtype, lanes, stored, activation, terms)
    move = element_move(size)

    @part(dtype, lanes, stored, activation, terms)
    def gathered(to, at, stride, n):
        """The address of n elements side by side: where they are, or collected at `to`."""
        if stride == size:
            return at
        for j in range(n):
            move(to + j * size, at + j * stride)
        return to

    @part(dtype, lanes, stored, activation, terms)
    def finish(call, row):
        lines = stack_words(_FOUR_LINES)
        bias_line, residual_line, dst_line, zeros = (
            lines, lines + 8 * LINE, lines + 16 * LINE, lines + 24 * LINE
        )  # fmt: skip
        src, src_rs = load_word(call, SRC), load_word(call, SRC_RS)
        dst_rs, dst_cs = load_word(call, DST_RS), load_word(call, DST_CS)
        dst = load_word(call, DST) + row * dst_rs
        bias, bias_cs = load_word(call, BIAS), load_word(call, BIAS_CS)
        residual, residual_cs = load_word(call, RESIDUAL), load_word(call, RESIDUAL_CS)
        residual_rs = load_word(call, RESIDUAL_RS)
        rows, cols = load_word(call, ROWS), load_word(call, COLS)
        if bias == 0 or residual == 0:
            for t in range(min(cols, LINE)):
                store_word(zeros, t, 0)
        for j in range(0, cols, LINE):
            n = min(LINE, cols - j)
            bias_at = zeros if bias == 0 else gathered(bias_line, bias + j * bias_cs, bias_cs, n)
            for i in range(rows):
                residual_at = zeros
                if residual != 0:
                    at = residual + (row + i) * residual_rs + j * residual_cs
                    residual_at = gathered(residual_line, at, residual_cs, n)
                from_at, to = src + i * src_rs + j * from_size, dst + i * dst_rs + j * dst_cs
                if dst_cs == size:
                    line(to, from_at, bias_at, residual_at, n)
                else:
                    line(dst_line, from_at, bias_at, residual_at, n)
                    for t in range(n):
                        move(to + t * dst_cs, dst_line + t * size)

    return finish
