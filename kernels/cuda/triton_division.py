"""Division by multiplication, in Triton; `division.magic` has the numbers. Needs triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def divided(n, magic, shift):
    """n // d for 0 <= n < 2^31, by the numbers of `magic(d)`: two instructions instead of some twenty.

    Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1. A sum of
    two numbers below 2^31 does not wrap.
    """
    n = n.to(tl.uint32)
    high = tl.umulhi(n, magic.to(tl.uint32, bitcast=True))
    return ((high + n) >> shift.to(tl.uint32)).to(tl.int32)
