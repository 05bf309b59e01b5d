"""The machine code of the Triton pooling kernels, for each chip, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_cases import code, spec  # noqa: E402
from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402

STEM: dict[str, Any] = {"kernel_size": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
HALVES: dict[str, Any] = {"kernel_size": (2, 2)}
VECTORS = ("LDG.E.128", "STG.E.128")


def shipped() -> Iterator[Case]:
    """ResNet's first pooling and its last, LeNet's, and their gradients."""
    last = {"layout": "NHWC"}
    x, y = spec((64, 112, 112, 64), "bfloat16"), spec((64, 56, 56, 64), "bfloat16")
    taps = spec(y.shape, "uint8")
    yield from code("max_pool", [x], STEM | last, *VECTORS, chips=device.TARGETS)
    back = STEM | last | {"input_size": (112, 112)}
    yield from code("max_pool_grad", [y, taps], back, *VECTORS, "LDG.E.64", chips=device.TARGETS)
    yield from code("avg_pool", [x], HALVES | last, *VECTORS)
    yield from code("max_pool_take", [x, taps], STEM | last)
    planes = spec((64, 64, 112, 112), "float32")
    yield from code("max_pool", [planes], STEM)
    yield from code(
        "max_pool_grad",
        [spec((64, 64, 56, 56), "float32"), spec((64, 64, 56, 56), "uint8")],
        STEM | {"input_size": (112, 112)},
    )
    whole: dict[str, Any] = {"output_size": (1, 1)}
    yield from code("avg_pool", [spec((64, 7, 7, 2048), "bfloat16")], whole | last, "LDG.E.128")
    yield from code("avg_pool", [spec((64, 2048, 7, 7), "float32")], whole)
    mean = spec((64, 1, 1, 2048), "bfloat16")
    yield from code("avg_pool_grad", [mean], whole | last | {"input_size": (7, 7)}, *VECTORS)


def enormous() -> Iterator[Case]:
    """Images of more than 2^31 elements: no address may come from an offset of 32 bits."""
    x, y = (48, 1024, 1024, 64), (48, 512, 512, 64)
    last = {"layout": "NHWC"}
    yield from code("max_pool", [spec(x, "bfloat16")], HALVES | last, wide=True)
    dy, taps = spec(y, "bfloat16"), spec(y, "uint8")
    yield from code("max_pool_grad", [dy, taps], HALVES | last | {"input_size": (1024, 1024)}, wide=True)
    yield from code("avg_pool", [spec(x, "bfloat16")], last | {"output_size": (1, 1)}, wide=True)


CASES, ENORMOUS = list(shipped()), list(enormous())
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_windows_are_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize("case", ENORMOUS, ids=str)
def test_addresses_of_windows_are_computed_in_64_bits(case: Case) -> None:
    assert not PROOF.problems(case)


def test_all_loads_under_a_window_are_in_flight() -> None:
    """3 x 3 taps of channels: nine loads of 16 bytes a thread, and of a gradient four windows of two each."""
    loads = [code.instructions for case in CASES[:6] for code in PROOF.codes(case)]
    assert [found["LDG.E.128"] for found in loads] == [9, 9, 9, 4, 4, 4]


def test_sizes_of_images_are_not_compiled_in() -> None:
    (kernel,) = kernels_for("max_pool", "cuda")
    op, found = get_op("max_pool"), set()
    with device.assume(90):
        for n, size in ((1, 14), (3, 56), (32, 112), (256, 34)):
            x, attrs = spec((n, size, size, 64), "bfloat16"), op.complete(STEM | {"layout": "NHWC"})
            found.add(kernel.bind((x, *op.infer((x,), **attrs)), attrs, {}, 1).variants()[0])
    assert len(found) == 1
