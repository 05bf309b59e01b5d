"""What holds of every call on a GPU: nothing waits for the device, and lengths are not compiled in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_extra import need

need("triton")

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.cuda.launch import CudaLaunch  # noqa: E402
from kernelwright.kernels.cuda.step import Variant  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
# What a call goes through; clocks, checks and reports wait, and are no part of one.
ON_THE_WAY = ("launch", "driver", "step", "build", "code_launch", "nvrtc", "source")
WAITING = {"synchronize", "deviceSynchronize", "streamSynchronize", "item", "cpu", "tolist", "numpy"}
# The numbers of an Array, which have to be on the CPU to be seen; and where somebody asked to wait
# (`cuda_sync`, a look at each step).
ASKED_FOR = {"item", "tolist", "to_numpy", "__array__", "synchronize", "_launch", "watched"}


def _files() -> Iterator[Path]:
    yield from (ROOT / "kernels" / "cuda" / f"{name}.py" for name in ON_THE_WAY)
    yield from (ROOT / "kernels").glob("*/cuda_*.py")
    for family in (ROOT / "kernels").glob("*/cuda"):
        yield from (path for path in family.glob("*.py") if path.name != "truth.py")
    yield from (ROOT / "engine" / "gpu").glob("*.py")
    yield ROOT / "engine" / "cuda.py"


def _waits(text: str) -> list[str]:
    """Calls in a file that would wait for the device, outside of functions that are asked for numbers."""
    tree = ast.parse(text)
    asked = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in ASKED_FOR]
    there = {id(node) for function in asked for node in ast.walk(function)}
    return [
        f"line {node.lineno}: {node.func.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in WAITING
        and id(node) not in there
    ]


def test_nothing_on_the_way_of_a_call_waits_for_the_device() -> None:
    files = list(_files())
    assert len(files) > 20
    assert {path.name: found for path in files if (found := _waits(path.read_text("utf-8")))} == {}


@pytest.mark.parametrize("line", ["torch.cuda.synchronize()", "x = sums.item()", "stream.synchronize()"])
def test_a_call_that_waits_is_found(line: str) -> None:
    assert _waits(f"def launch(sums, stream):\n    {line}\n")


def _variants(op: str, *inputs: TensorSpec) -> dict[str, list[Variant]]:
    """What each Triton kernel compiles for a call, in a configuration of its own choice."""
    attrs = get_op(op).complete({})
    specs = (*inputs, *get_op(op).infer(inputs, **attrs))
    found = {}
    for kernel in kernels_for(op, "cuda"):
        if kernel.language == "triton" and kernel.why_not(specs, attrs) is None:
            launch = kernel.bind(specs, attrs, kernel.configurations(specs, attrs, 1)[0], 1)
            assert isinstance(launch, CudaLaunch)
            found[kernel.name] = launch.variants()
    return found


@pytest.mark.parametrize("op", ["matmul", "linear"])
def test_calls_of_other_lengths_compile_nothing_anew(op: str) -> None:
    def call(m: int, n: int, k: int) -> dict[str, list[Variant]]:
        shapes = ((m, k), (k, n) if op == "matmul" else (n, k))
        a, b = (TensorSpec(shape, "bfloat16", "cuda") for shape in shapes)
        return _variants(op, a, b, *([ABSENT] * (len(get_op(op).inputs) - 2)))

    with device.assume(90):
        first, other = call(4096, 4096, 4096), call(3984, 4064, 3968)
    assert first == other
    assert {"descriptors", "pointers"} <= set(first)
