"""Small matrix products with as little around them as possible: one compiled call checks and computes.

For matrices of a few dozen rows the work takes less time than finding out what the work is. This function
takes any three 2-D arrays of its dtype and looks at their shapes and strides itself; nothing is prepared for
one problem.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types

from .compile import compiled, part
from .memory import data_address
from .microkernel import microkernel
from .vector_ir import FLOATS

# Bytes that all multiply-adds together take in: 84 x 84 x 84 of float32. Above, choosing tile and threads for
# the problem pays (measured).
MOST_WORK = 2_400_000
# Terms added one after the other before they join a sum: a longer chain loses more to rounding than the
# vendor's does, which shows when all terms have one sign.
CHAIN = 64


def small_enough(m: int, n: int, k: int, size: int, least: int) -> bool:
    """Whether there is little enough to do, for elements of `size` bytes and a lowest tile of `least` rows.

    Fewer rows than that leave most of a tile idle, which another kernel would not: the limit falls with them.
    One, two or three columns leave most of a vector idle: they are inner products, and none of this.
    """
    return n > 3 and 0 < -(-m // least) * least * n * k * size <= MOST_WORK * min(m, least) // least


@cache
def small_matmul(dtype: str, lanes: int, rows: tuple[int, int, int, int]) -> Any:
    """The compiled `small(a, b, out) -> bool` for 2-D arrays of `dtype`: True when the product was computed.

    False, and nothing written, when the shapes do not fit each other, the work is not `small_enough`, k is
    not contiguous in a, the columns of b and out are not, rows overlap, anything is unaligned, or out may
    share memory with an input. The caller answers for the types and ranks of the arrays and for a writeable
    out.

    Args:
        dtype, lanes: the element type, and elements a vector.
        rows: the height of the register tile that is 1, 2, 3 and 4 vectors wide.
    """
    size = FLOATS[dtype][1]
    # A tile of one to four vectors of columns, whichever wastes the fewest, each as high as the registers
    # allow.
    one, two, three, four = (microkernel(dtype, lanes, mr, c, masked_b=True) for c, mr in enumerate(rows, 1))
    r1, r2, r3, r4 = rows
    least, fits = min(rows), part(dtype, lanes, *rows)(small_enough)

    @part(dtype, lanes, *rows)
    def apart(x, x_bytes, y, y_bytes):
        return x + x_bytes <= y or y + y_bytes <= x

    @part(dtype, lanes, *rows)
    def product(m, n, k, a, a_rs, b, b_rs, c, c_rs, add):
        j = 0
        while j < n:
            left = n - j
            b_at, to = b + j * size, c + j * size
            if left > 3 * lanes:
                for i in range(0, m, r4):
                    four(k, a + i * a_rs, a_rs, b_at, b_rs, to + i * c_rs, c_rs, min(r4, m - i), left, add)
            elif left > 2 * lanes:
                for i in range(0, m, r3):
                    three(k, a + i * a_rs, a_rs, b_at, b_rs, to + i * c_rs, c_rs, min(r3, m - i), left, add)
            elif left > lanes:
                for i in range(0, m, r2):
                    two(k, a + i * a_rs, a_rs, b_at, b_rs, to + i * c_rs, c_rs, min(r2, m - i), left, add)
            else:
                for i in range(0, m, r1):
                    one(k, a + i * a_rs, a_rs, b_at, b_rs, to + i * c_rs, c_rs, min(r1, m - i), left, add)
            j += 4 * lanes

    def small(a, b, out):
        m, k = a.shape
        n = b.shape[1]
        if b.shape[0] != k or out.shape[0] != m or out.shape[1] != n:
            return False
        if not fits(m, n, k, size, least):
            return False
        a_rs, b_rs, c_rs = a.strides[0], b.strides[0], out.strides[0]
        if a.strides[1] != size or b.strides[1] != size or out.strides[1] != size:
            return False
        if a_rs < k * size or b_rs < n * size or c_rs < n * size:
            return False
        x, y, z = data_address(a), data_address(b), data_address(out)
        if (x | y | z | a_rs | b_rs | c_rs) % size != 0:
            return False
        z_bytes = (m - 1) * c_rs + n * size
        if not (
            apart(x, (m - 1) * a_rs + k * size, z, z_bytes)
            and apart(y, (k - 1) * b_rs + n * size, z, z_bytes)
        ):
            return False
        for k0 in range(0, k, CHAIN):
            product(m, n, min(CHAIN, k - k0), x + k0 * size, a_rs, y + k0 * b_rs, b_rs, z, c_rs, k0)
        return True

    array = types.Array(getattr(types, dtype), 2, "A")
    name = f"small matmul for {dtype}"
    return compiled(small, name=name, key=(dtype, lanes, rows), owner=small_matmul.__wrapped__).entry(
        (array,) * 3
    )
