"""The machine code of softmax and its gradients for GPUs, without one."""

from __future__ import annotations

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_code import Case, Proof  # noqa: E402
from cuda_lines import case, same_code  # noqa: E402

STREAM = ("LDG.E.128", "STG.E.128")


def cases() -> list[Case]:
    """Short lines, lines that fill a multiprocessor, lines read twice, parts, and another axis."""
    found = [case("softmax", [((8192, 4096), "bfloat16")], c, expect=STREAM) for c in (80, 90, 100)]
    found += [
        case("softmax", [((65536, 768), "float32")], 90, expect=STREAM),
        case("log_softmax", [((2048, 32000), "float32")], 90, expect=STREAM),
        case("softmax", [((2048, 128256), "bfloat16")], 90, expect=STREAM),
        case("log_softmax", [((8, 1 << 20), "float32")], 90, expect=(*STREAM, "ATOM")),
        case("softmax", [((64, 64, 128, 128), "bfloat16")], 90, expect=STREAM, axis=1),
        case("softmax_grad", [((4096, 16384), "bfloat16")] * 2, 90, expect=STREAM),
        case("log_softmax_grad", [((4096, 50257), "bfloat16")] * 2, 90),
        case("log_softmax_grad", [((4096, 2048), "float64")] * 2, 90, expect=STREAM),
        case("softmax", [((40000, 70000), "bfloat16")], 90, wide=True),
    ]
    return found


CASES = cases()
PROOF = Proof(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_code_fits_its_chip_and_moves_vectors(case: Case) -> None:
    assert not PROOF.problems(case)


def test_each_element_is_loaded_once() -> None:
    """A whole line: as many loads as stores, of 16 bytes, and nothing else of the array."""
    (code,) = PROOF.codes(CASES[1])
    assert code.count("LDG") == code.count("STG.E.128") == 2


def test_lengths_are_not_compiled_in() -> None:
    assert same_code("softmax", [[((rows, length), "float32")] for rows, length in ((5000, 3000), (9, 4096))])
