"""The machine code of the Triton interpolation kernels, for each chip, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_cases import code, spec  # noqa: E402
from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402


def how(mode: str, aligned: bool = False) -> dict[str, Any]:
    """Attributes of an interpolation to images of 112 x 112."""
    return {"size": (112, 112), "mode": mode, "align_corners": aligned, "scales": (0.0, 0.0)}


def shipped() -> Iterator[Case]:
    """To twice the size, in the modes that networks use, and back."""
    x, dy = spec((16, 64, 56, 56), "bfloat16"), spec((16, 64, 112, 112), "float32")
    yield from code("interpolate", [x], how("bilinear"), chips=device.TARGETS)
    steps = (56 * 56 * 64, 1, 56 * 64, 64)
    last = spec((16, 64, 112, 112), "bfloat16", (112 * 112 * 64, 1, 112 * 64, 64))
    channels = spec((16, 64, 56, 56), "bfloat16", steps)
    yield from code("interpolate", [channels], how("bilinear"), "LDG.E.128", "STG.E.128", outputs=[last])
    yield from code("interpolate", [x], how("nearest"))
    yield from code("interpolate", [x], how("bicubic", True))
    for mode in ("bilinear", "nearest", "bicubic"):
        yield from code("interpolate_grad", [dy], {**how(mode), "before": (56, 56)})


def enormous() -> Iterator[Case]:
    """Images of more than 2^31 elements: no address may come from an offset of 32 bits."""
    yield from code("interpolate", [spec((3000, 64, 56, 56), "bfloat16")], how("bilinear"), wide=True)
    dy = spec((3000, 64, 112, 112), "bfloat16")
    yield from code("interpolate_grad", [dy], {**how("nearest"), "before": (56, 56)}, wide=True)


CASES, ENORMOUS = list(shipped()), list(enormous())
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_interpolations_are_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize("case", ENORMOUS, ids=str)
def test_addresses_of_resized_images_are_computed_in_64_bits(case: Case) -> None:
    assert not PROOF.problems(case)
