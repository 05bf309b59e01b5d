"""Parts of kernels: linked where they end up, and for compiled code alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelwright.kernels.cpu.compile import compiled, part


def made(step: int) -> Any:
    """A function over two parts, one of which calls the other and Numba's own `min`."""

    @part(step)
    def more(n):  # type: ignore[no-untyped-def]
        return min(n + step, 100)

    @part(step)
    def twice(n):  # type: ignore[no-untyped-def]
        return more(n) + more(n + 1)

    def whole(n):  # type: ignore[no-untyped-def]
        return twice(n) * more(n)

    return compiled(whole, name="a test of parts", key=(step,))


def test_a_part_is_right_inside_others_and_beside_its_brother() -> None:
    # The two have functions of the same names in one process.
    for step in (1, 7):
        whole = made(step)
        for n in (0, 5, 99):
            expected = (min(n + step, 100) + min(n + 1 + step, 100)) * min(n + step, 100)
            assert whole(n) == whole.entry((np.int64,))(n) == expected


def test_python_cannot_call_a_part() -> None:
    @part()
    def alone(n):  # type: ignore[no-untyped-def]
        return n

    def around(n):  # type: ignore[no-untyped-def]
        return alone(n)

    for _ in range(2):  # before compiled code has used it, and after
        with pytest.raises(TypeError, match="alone is a part of kernels: compiled code can call it"):
            alone(1)
        assert compiled(around, name="a test of parts", key=("around",))(3) == 3
