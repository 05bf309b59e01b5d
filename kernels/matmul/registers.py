"""What the register tiles of matrix products depend on: the number and kind of the vector registers."""

from __future__ import annotations

from ..machine import Machine

PANEL_VECTORS = {True: 4, False: 2}
"""How many vectors wide a packed panel is, with 32 registers and with 16."""


def pairs_problem(machine: Machine) -> str | None:
    """Why pairs of bfloat16 cannot be multiplied on a machine; None when they can."""
    if machine.flags >= {"avx512_bf16", "avx512vl", "avx512bw"}:
        return None
    return "needs the instructions of AVX-512 BF16, which this CPU has not"


def widening_problem(machine: Machine, dtype: str) -> str | None:
    """Why numbers of a 16-bit dtype cannot be made 32-bit ones on a machine; None when they can."""
    if dtype != "float16" or machine.flags & {"f16c", "neon"}:
        return None
    return "needs the conversion instructions F16C, which this CPU has not"
