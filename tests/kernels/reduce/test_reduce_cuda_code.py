"""The machine code of the reductions and scans that ship for GPUs, without one."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_code import Case, Proof  # noqa: E402
from cuda_lines import case, same_code  # noqa: E402

LOADS, STAGED = ("LDG.E.128",), ("LDGSTS.E.BYPASS.128",)
SQUARE, TALL = (4096, 4096), (200704, 256)


def cases() -> list[Case]:
    """What each way of reading and each kind of state becomes, most of it for Hopper."""

    def one(op: str, shape: tuple[int, ...], dtype: str, capability: int = 90, **more: Any) -> Case:
        return case(op, [(shape, dtype)], capability, **more)

    found = [one("var", TALL, "bfloat16", capability, axis=0, expect=STAGED) for capability in (80, 90, 100)]
    found += [
        one("sum", SQUARE, "bfloat16", axis=1, expect=LOADS),
        one("var", SQUARE, "float32", axis=1, expect=LOADS),
        one("logsumexp", SQUARE, "bfloat16", 100, axis=1, expect=LOADS),
        one("argmax", SQUARE, "float32", axis=1, expect=LOADS),
        one("sum", (1 << 26,), "float32", axis=None, expect=(*LOADS, "ATOM")),
        one("amax", TALL, "float64", axis=0, expect=STAGED),
        one("sum", TALL, "int8", axis=0),
        one("prod", SQUARE, "float64", 80, axis=1, expect=LOADS),
        one("cumsum", SQUARE, "float32", axis=1, expect=("LDG.E.128", "STG.E.128", "SHFL")),
        one("cumprod", TALL, "bfloat16", axis=0, reverse=True, expect=("LDG.E.128", "STG.E.128")),
        # More elements than 32 bits count, in a line and between lines.
        one("sum", (2**31 + 32,), "bfloat16", axis=None, wide=True),
        one("argmin", (70000, 40000), "bfloat16", axis=0, wide=True),
        one("cumsum", (3, 2**30), "int8", axis=1, wide=True),
    ]
    return found


CASES = cases()
PROOF = Proof(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_code_fits_its_chip_and_reads_by_vectors(case: Case) -> None:
    assert not PROOF.problems(case)


def test_a_thread_has_all_its_vectors_on_the_way() -> None:
    """Sums and what is loaded are 64 bytes each, 16 registers: in 32 there is no room for addresses."""
    (one,) = [c for c in CASES if c.specs[0].shape == (1 << 26,)]
    (code,) = PROOF.codes(one)
    assert code.registers > 32


def test_lengths_are_not_compiled_in() -> None:
    tall = [[((rows, 256), "bfloat16")] for rows in (150000, 200704, 999999)]
    assert same_code("var", tall, axis=0)
    assert same_code("sum", [[((rows, 4096), "float32")] for rows in (3000, 4096, 100000)], axis=1)
    assert same_code("cumsum", [[((rows, 5000), "float32")] for rows in (5000, 9999)], axis=1)
