"""Which GPU kernel a call gets: by the model; float32 on tensor cores only where somebody asks for it."""

from __future__ import annotations

import pytest
from gpu_extra import need

need("triton")

from kernelwright.kernels import dispatch  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.matmul.op import MATMUL  # noqa: E402
from kernelwright.kernels.settings import Settings  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402


def chosen(dtype: str, m: int, n: int, k: int, chip: int = 90, **settings: object) -> str:
    specs = (TensorSpec((m, k), dtype, "cuda"), TensorSpec((k, n), dtype, "cuda"))
    with device.assume(chip):
        choice = dispatch.choose(MATMUL, specs, {}, Settings(1, **settings))  # type: ignore[arg-type]
    assert choice.kernel is not None
    return choice.kernel.name


def test_tf32_runs_only_where_it_is_asked_for() -> None:
    tf32 = ("tf32", "tf32_pointers")
    assert chosen("float32", 4096, 4096, 4096) not in tf32
    assert chosen("float32", 4096, 4096, 4096, extra_error=False) not in tf32
    assert chosen("float32", 4096, 4096, 4096, extra_error=True) in tf32
    assert chosen("float32", 4096, 4096, 4096, backend="tf32") == "tf32"
    assert chosen("float32", 4096, 4096, 4096, backend="tf32", extra_error=False) not in tf32


def test_explain_says_how_to_ask_for_tf32() -> None:
    specs = (TensorSpec((64, 64), "float32", "cuda"),) * 2
    with device.assume(90):
        choice = dispatch.choose(MATMUL, specs, {}, Settings(1))
    (reason,) = [c.reason_not for c in choice.candidates if c.kernel.name == "tf32"]
    assert reason is not None
    assert "extra_error=True" in reason
    assert "backend=" in reason


@pytest.mark.parametrize(
    ("size", "chip", "expected"),
    [
        ((4096, 4096, 4096), 90, "descriptors"),
        ((4096, 4096, 4096), 80, "pointers"),
        ((1023, 1027, 1021), 90, "pointers"),
        ((1, 8191, 8191), 90, "rows"),
    ],
)
def test_triton_kernels_by_size_and_chip(size: tuple[int, int, int], chip: int, expected: str) -> None:
    assert chosen("bfloat16", *size, chip=chip, backend="triton") == expected
