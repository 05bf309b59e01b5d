"""The machine code of the norms and their gradients for GPUs, without one."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_code import Case, Proof  # noqa: E402
from cuda_lines import case, same_code  # noqa: E402

STREAM = ("LDG.E.128", "STG.E.128")
IMAGES = {"NHWC": ((64, 56, 56, 256), -1), "NCHW": ((64, 256, 56, 56), 1)}
Input = tuple[tuple[int, ...], str] | None


def rows(lines: int, length: int, dtype: str, grad: bool, centred: bool = True) -> list[Input]:
    """The inputs of layer or RMS norm."""
    x, w, kept = ((lines, length), dtype), ((length,), dtype), ((lines,), "float32")
    if grad:
        return [x, x, w, *[kept] * (2 if centred else 1)]
    return [x, w, w] if centred else [x, w]


def channels(layout: str, dtype: str, grad: bool) -> tuple[list[Input], dict[str, Any]]:
    """The inputs and attributes of batch norm, with all that may come with it."""
    shape, axis = IMAGES[layout]
    x, c = (shape, dtype), ((shape[axis],), "float32")
    if grad:
        return [x, x, c, c, c, x], {"channel_axis": axis, "residual": True}
    return [x, c, c, c, c, x], {"channel_axis": axis, "activation": "relu"}


def cases() -> list[Case]:
    """Rows in registers, forward and backward; channels of either layout; groups."""
    found = [case("layer_norm", rows(8192, 4096, "bfloat16", False), c, expect=STREAM) for c in (80, 90, 100)]
    found += [
        case("rms_norm", rows(8192, 8192, "float32", False, False), 90, expect=STREAM),
        case("layer_norm_grad", rows(16384, 1024, "bfloat16", True), 90, expect=STREAM),
        # Where few programs fit a multiprocessor, the next rows are on the way meanwhile.
        case("layer_norm_grad", rows(8192, 4096, "float32", True), 90, expect=("LDGSTS", "STG.E.128")),
        case("rms_norm_grad", rows(8192, 8192, "bfloat16", True, False), 100, expect=("LDGSTS", "STG.E.128")),
        case("layer_norm", rows(64, 100000, "bfloat16", False), 90, expect=STREAM),
    ]
    for layout in IMAGES:
        for grad in (False, True):
            inputs, attrs = channels(layout, "bfloat16", grad)
            op = "batch_norm_grad" if grad else "batch_norm"
            found.append(case(op, inputs, 90, expect=STREAM, **attrs))
    inputs, attrs = channels("NHWC", "float32", False)
    found.append(case("batch_norm_inference", inputs, 80, expect=STREAM, **attrs))
    inputs, attrs = channels("NHWC", "float32", True)
    found.append(case("batch_norm_grad", inputs, 80, expect=STREAM, **attrs))
    x, c, kept = ((32, 320, 64, 64), "bfloat16"), ((320,), "float32"), ((32, 32), "float32")
    found.append(case("group_norm", [x, c, c], 90, expect=STREAM, groups=32))
    found.append(case("group_norm_grad", [x, x, c, kept, kept], 90, expect=STREAM, groups=32))
    found.append(case("group_norm_grad", [x, x, c, kept, kept], 80, choose=1, expect=STREAM, groups=32))
    inputs = [((70000, 40000), "bfloat16"), None, None, None, None, None]
    found.append(case("batch_norm", inputs, 90, wide=True, channel_axis=1))
    return found


CASES = cases()
PROOF = Proof(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_code_fits_its_chip_and_moves_vectors(case: Case) -> None:
    assert not PROOF.problems(case)


def test_each_element_is_loaded_once() -> None:
    """Layer norm: 16 elements a thread of x, weight and bias, and as many stored; mean and rstd beside."""
    (code,) = PROOF.codes(CASES[1])
    assert code.count("LDG.E.128") == 6
    assert code.count("STG.E.128") == 2
    assert code.count("LDG") == 6


def test_lengths_are_not_compiled_in() -> None:
    assert same_code(
        "layer_norm", [rows(n, length, "bfloat16", False) for n, length in ((99, 768), (5000, 1024))]
    )
