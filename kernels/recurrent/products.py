"""Products of the rows of one step with packed panels of weights, where nothing else is done on the way."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..cpu.compile import part
from ..cpu.microkernel import microkernel
from ..cpu.vector_ir import FLOATS
from .tiles_shape import COLUMNS


@cache
def panel_product(dtype: str, lanes: int, mr: int) -> Any:
    """`panel(k, a, a_rs, w, c, c_rs, n, add)`: C[n, a panel] (+)= A[n, k] w, by tiles of up to `mr` rows."""
    size, nr = FLOATS[dtype][1], COLUMNS * lanes
    tall, four, two, one = (microkernel(dtype, lanes, m, COLUMNS) for m in (mr, 4, 2, 1))

    @part(dtype, lanes, mr)
    def panel(k, a, a_rs, w, c, c_rs, n, add):
        i = 0
        while i < n:
            left = n - i
            if left >= mr - 1 and left != 8:
                tall(k, a + i * a_rs, a_rs, w, nr * size, c + i * c_rs, c_rs, min(left, mr), nr, add)
                i += mr
            elif left > 2:
                four(k, a + i * a_rs, a_rs, w, nr * size, c + i * c_rs, c_rs, min(left, 4), nr, add)
                i += 4
            elif left == 2:
                two(k, a + i * a_rs, a_rs, w, nr * size, c + i * c_rs, c_rs, 2, nr, add)
                i += 2
            else:
                one(k, a + i * a_rs, a_rs, w, nr * size, c + i * c_rs, c_rs, 1, nr, add)
                i += 1

    return panel
