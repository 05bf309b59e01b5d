"""The machine code of the CUDA C++ kernels for each chip: within its limits, nothing spilled, the right
instructions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from cuda_cpu import kernel_by_id
from gpu_extra import need

need("cupy", "triton")

from kernelwright.kernels.cuda import aot, device, nvrtc  # noqa: E402
from kernelwright.kernels.cuda.code_launch import machine_code  # noqa: E402
from kernelwright.kernels.cuda.source import Code  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

if nvrtc.problem() is not None:
    pytest.skip(str(nvrtc.problem()), allow_module_level=True)


SIMT = ("FFMA", "LDS.128", "LDGSTS")
MMA = ("HMMA.16816.F32", "LDSM", "LDGSTS.E.BYPASS.128")


@dataclass(frozen=True)
class Case:
    """A kernel as it is compiled for a chip, and instructions that must be in it."""

    code: Code
    capability: int
    expect: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code.call} sm_{self.capability}"


def _code(
    name: str, specs: tuple[TensorSpec, ...], attrs: Mapping[str, Any], config: Any, aligned: bool = True
) -> Code:
    kernel = kernel_by_id(name)
    complete = get_op(kernel.op).complete(attrs)
    reason = kernel.why_not(specs, complete)
    assert reason is None, reason
    launch: Any = kernel.bind(specs, complete, config, 1)
    step = launch.step(aligned)
    code: Code = step.code
    return code


def _array(dtype: str, shape: tuple[int, ...], turned: bool = False) -> TensorSpec:
    size = np_dtype(dtype).itemsize
    return TensorSpec(shape, dtype, "cuda", (size, size * shape[0]) if turned else None)


def _linear(
    kernel: str, dtype: str, config: Any, x_turned: bool, w_turned: bool, aligned: bool = True
) -> Code:
    """A linear layer with everything that may end it, and the dearest activation."""
    x, w = _array(dtype, (512, 1024), x_turned), _array(dtype, (768, 1024), w_turned)
    y = _array(dtype, (512, 768))
    specs = (x, w, _array(dtype, (768,)), y, y)
    return _code(f"linear/cuda_cupy/{kernel}", specs, {"activation": "gelu"}, config, aligned)


def _matmul(kernel: str, dtype: str, config: Any) -> Code:
    a = _array(dtype, (1024, 1024))
    return _code(f"matmul/cuda_cupy/{kernel}", (a, a, a), {}, config)


def _conv(kernel: str, dtype: str, layout: str, channels: int, out: int, taps: int, stride: int = 1) -> Code:
    groups = channels if kernel.startswith("depthwise") else 1
    places = (56 - 1) // stride + 1

    def images(count: int, size: int) -> TensorSpec:
        return _array(dtype, (8, count, size, size) if layout == "NCHW" else (8, size, size, count))

    x, y = images(channels, 56), images(out, places)
    w = _array(dtype, (out, channels // groups, taps, taps))
    pad = taps // 2
    attrs = {
        "stride": (stride, stride),
        "padding": ((pad, pad), (pad, pad)),
        "groups": groups,
        "layout": layout,
        "activation": "silu",
    }
    found = kernel_by_id(f"conv/cuda_cupy/{kernel}")
    specs = (x, w, _array(dtype, (out,)), y, y)
    config = found.configurations(specs, get_op("conv").complete(attrs), 1)[0]
    return _code(found.id, specs, attrs, config)


def shipped() -> Iterator[tuple[Code, tuple[str, ...]]]:
    """Every tile of every kernel, with all that can end it."""
    from kernelwright.kernels.matmul.cuda_cupy import MMA_TILES, SIMT_TILES

    for place, tile in enumerate(SIMT_TILES[4]):
        yield _linear("simt", "float32", {"bm": tile.bm, "bn": tile.bn}, place % 2 == 1, place < 2), SIMT
    for tile in SIMT_TILES[8]:
        yield _matmul("simt", "float64", {"bm": tile.bm, "bn": tile.bn}), ("DFMA", "LDS.128", "LDGSTS")
    for place, shape in enumerate(MMA_TILES):
        dtype = ("bfloat16", "float16")[place % 2]
        config = {"bm": shape.bm, "bn": shape.bn}
        yield _linear("tensor_cores", dtype, config, place == 1, place in (1, 3)), MMA
    yield _conv("depthwise_channels", "float32", "NHWC", 64, 64, 3), ("FFMA", "LDG.E.128", "STG.E.128")
    yield _conv("depthwise_planes", "float32", "NCHW", 64, 64, 3), ("FFMA", "LDS")
    yield _conv("direct", "float32", "NHWC", 3, 64, 7, 2), ("FFMA", "LDS.128", "STG.E.128")


def others() -> Iterator[tuple[Code, tuple[str, ...]]]:
    """Other ways in which operands come, other dtypes, filters and widths."""
    yield _linear("simt", "float32", {"bm": 128, "bn": 128}, True, False, aligned=False), SIMT
    yield _linear("tensor_cores", "bfloat16", {"bm": 128, "bn": 128}, False, True, aligned=False), MMA[:2]
    yield _linear("tensor_cores", "float16", {"bm": 128, "bn": 256}, True, False), MMA
    yield _matmul("tensor_cores", "bfloat16", {"bm": 128, "bn": 256}), MMA
    yield _conv("depthwise_channels", "bfloat16", "NHWC", 64, 64, 3, 2), ("FFMA", "LDG.E.64", "STG.E.64")
    yield _conv("depthwise_channels", "bfloat16", "NHWC", 64, 64, 7), ("FFMA", "LDG.E.64")
    yield _conv("depthwise_channels", "float32", "NHWC", 35, 35, 5), ("FFMA",)
    yield _conv("depthwise_planes", "bfloat16", "NCHW", 64, 64, 7, 2), ("FFMA", "LDS")
    yield _conv("direct", "bfloat16", "NCHW", 3, 64, 7, 2), ("FFMA", "LDS.128", "STG.E.64")
    yield _conv("direct", "float16", "NHWC", 4, 32, 3), ("FFMA", "LDS.128", "STG.E.128")


def cases() -> list[Case]:
    """What is shipped for all chips (tiles that a chip has not enough shared memory for left out), more for
    one."""
    found = []
    for capability in device.TARGETS:
        with device.assume(capability):
            codes = [*shipped(), *(others() if capability == 90 else ())]
        most = device.chip(capability).shared_bytes
        found += [Case(code, capability, expect) for code, expect in codes if code.shared <= most]
    return found


CASES = cases()


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    """Everything compiled and read, two at a time; the tests find it kept."""
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(machine_code, case.code, case.capability) for case in CASES]:
            job.exception()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shipped_code(case: Case) -> None:
    code = machine_code(case.code, case.capability)
    chip = device.chip(case.capability)
    # What leaves room for as many blocks as the launch bounds promise.
    ceiling = min(255, 65536 // (case.code.threads * case.code.blocks))
    assert not aot.problems(code, chip, expect=case.expect, registers=ceiling)
    binary = nvrtc.compiled(case.code, nvrtc.arch_of(case.capability))
    assert (binary.registers, binary.stack, binary.spills) == (code.registers, 0, 0)


def test_the_inner_loop_of_simt_is_nothing_but_multiply_adds_and_wide_loads() -> None:
    """For 16 of k a thread with 8 x 8 sums needs 1024 multiply-adds and 64 loads of 16 bytes: no more are
    there."""
    code = machine_code(_matmul("simt", "float32", {"bm": 128, "bn": 128}), 90)
    assert code.count("FFMA") == 1024
    assert code.count("LDS.128") <= 64 + 4


# --- controls -----------------------------------------------------------------------------------------------


def test_spilled_registers_are_found() -> None:
    from dataclasses import replace

    code = replace(_matmul("simt", "float32", {"bm": 128, "bn": 128}), blocks=4)
    problems = aot.problems(machine_code(code, 90), device.chip(90))
    assert any("stack" in problem for problem in problems)
    assert any("spilled" in problem for problem in problems)
    assert nvrtc.compiled(code, "sm_90a").spills > 0


def test_too_much_shared_memory_is_found() -> None:
    from dataclasses import replace

    code = replace(_matmul("tensor_cores", "bfloat16", {"bm": 128, "bn": 128}), shared=240_000)
    assert any(
        "shared memory" in problem for problem in aot.problems(machine_code(code, 90), device.chip(90))
    )


def test_a_missing_instruction_is_found() -> None:
    code = machine_code(_matmul("simt", "float32", {"bm": 64, "bn": 64}), 90)
    assert aot.problems(code, device.chip(90), expect=("HMMA",)) == ["no HMMA"]


def test_machine_code_that_cannot_be_read_is_no_proof() -> None:
    binary = nvrtc.compiled(_matmul("simt", "float32", {"bm": 64, "bn": 64}), "sm_90a")
    with pytest.raises(aot.CodeError):
        aot.disassembled(binary.cubin[: len(binary.cubin) // 2])
    with pytest.raises(aot.CodeError):
        aot.disassembled(b"")


def test_the_same_source_gives_the_same_machine_code() -> None:
    code = _matmul("simt", "float32", {"bm": 32, "bn": 64})
    first, second = (nvrtc.compile_now(code, "sm_90a") for _ in range(2))
    assert aot.digest_of(aot.disassembled(first.cubin)) == aot.digest_of(aot.disassembled(second.cubin))
