"""Division by a number that is known before the launch: a multiplication and a shift."""

from __future__ import annotations


def magic(divisor: int) -> tuple[int, int]:
    """The two numbers by which `triton_division.divided` divides numbers below 2^31 by one from 1 to 2^31.

    Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1. The
    first is that of the figure less 2^32, and as a signed number.
    """
    shift = max(divisor - 1, 0).bit_length()
    factor = (2**32 * (2**shift - divisor)) // divisor + 1
    return factor - 2**32 if factor >= 2**31 else factor, shift
