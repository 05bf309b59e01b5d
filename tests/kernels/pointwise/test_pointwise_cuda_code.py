"""The machine code of generated kernels, for each chip: vectors where arrays lie side by side, no spills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from gpu_extra import need

need("triton")

from cuda_code import Case, Proof  # noqa: E402
from many_calls import adam_of_all  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Writer  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

VECTORS = ("LDG.E.128", "STG.E.128")
LARGE = (16384, 4096)


def on_gpu(*shape: int, dtype: str = "float32", turned: bool = False) -> TensorSpec:
    size = TensorSpec(shape, dtype).itemsize
    return TensorSpec(shape, dtype, "cuda", (size, shape[0] * size) if turned else None)


def case(op: str, inputs: Any, chip: int = 90, note: str = "", attrs: Any = None, **how: Any) -> Case:
    attrs = get_op(op).complete(attrs or {})
    inputs = tuple(inputs)
    specs = (*inputs, *get_op(op).infer(inputs, **attrs))
    return Case(f"{op}/register/program", specs, attrs, {}, chip, note=note, **how)


def chain(dtype: str) -> Program:
    """gelu(x + bias) * scale."""
    w = Writer()
    x, bias, scale = w.inputs(dtype, dtype, dtype)
    w.output(w.gelu(x + bias) * scale)
    return w.program()


def softmax(dtype: str) -> Program:
    w = Writer()
    x = w.input(dtype)
    e = w.exp(x - w.reduce_max(x))
    w.output(e * w.reciprocal(w.reduce_sum(e)))
    return w.program()


def column_means(dtype: str) -> Program:
    w = Writer()
    w.output(w.reduce_mean(w.input(dtype)))
    return w.program()


def fused(program: Program, inputs: Any, axes: Any = (), **how: Any) -> Case:
    shape = inputs[0].shape if program.by_rows else ()
    attrs = {"program": program, "shape": shape, "axes": axes}
    return case(f"fused{len(program.inputs)}", inputs, attrs=attrs, **how)


def streams() -> Iterator[Case]:
    """What lies densely: 16 bytes at a time, without shared memory."""
    alone = {"expect": VECTORS, "forbid": ("LDS", "STS", "BAR")}
    for dtype in ("float32", "bfloat16"):
        for chip in device.TARGETS if dtype == "bfloat16" else (90,):
            yield case("add", [on_gpu(*LARGE, dtype=dtype)] * 2, chip, **alone)
            yield fused(chain(dtype), [on_gpu(*LARGE, dtype=dtype)] * 3, chip=chip, **alone)
    for dtype in ("float64", "int8", "uint16"):
        yield case("maximum", [on_gpu(*LARGE, dtype=dtype)] * 2, **alone)
    yield case("exp", [on_gpu(1_000_003)], note="no multiple of 16", **alone)
    yield case("exp", [on_gpu(1 << 20)], note="unaligned", aligned=False, forbid=("LDG.E.128",))
    # What is read as 16 bytes is written as 32: Triton sorts it in shared memory.
    yield case("cast", [on_gpu(*LARGE, dtype="bfloat16")], attrs={"dtype": "float32"}, expect=VECTORS)
    yield case("cast", [on_gpu(*LARGE)], attrs={"dtype": "bfloat16"}, **alone)


def tiles() -> Iterator[Case]:
    """A bias, and operands that lie the other way: both sides by vectors, through shared memory."""
    for dtype in ("float32", "bfloat16"):
        bias, turned = on_gpu(LARGE[1], dtype=dtype), on_gpu(*LARGE, dtype=dtype, turned=True)
        for chip in device.TARGETS if dtype == "bfloat16" else (90,):
            yield case("add", [on_gpu(*LARGE, dtype=dtype), bias], chip, "bias", expect=VECTORS)
            yield case(
                "add", [on_gpu(*LARGE, dtype=dtype), turned], chip, "turned", expect=(*VECTORS, "STS", "BAR")
            )


def rows() -> Iterator[Case]:
    """Programs with reductions: rows in registers, rows too long for them, columns."""
    for dtype, chips in (("float32", (90,)), ("bfloat16", device.TARGETS)):
        for chip in chips:
            for name, shape, axis in (
                ("short rows", (1 << 20, 64), 1),
                ("rows", LARGE, 1),
                ("the longest", (4096, 1 << 15), 1),
                ("long rows", (1024, 1 << 17), 1),
                ("planes", (64, 21, 1 << 14), 1),
            ):
                if (chip != 90 or dtype == "float32") and name not in ("rows", "planes"):
                    continue
                spec = on_gpu(*shape, dtype=dtype)
                alone = ("STS", "LDS", "BAR") if name == "short rows" else ()
                yield fused(
                    softmax(dtype), [spec], (axis,), chip=chip, note=name, expect=VECTORS, forbid=alone
                )
    yield fused(column_means("float32"), [on_gpu(*LARGE)], (0,), note="columns", expect=VECTORS[:1])
    for chip in device.TARGETS:
        whole = [on_gpu(1 << 26)]
        yield fused(column_means("float32"), whole, (0,), chip=chip, note="everything", expect=VECTORS[:1])
    yield fused(softmax("bfloat16"), [on_gpu(4, 1 << 24, dtype="bfloat16")], (1,), note="few", expect=VECTORS)
    yield fused(softmax("float32"), [on_gpu(1024, 50257)], (1,), note="odd rows")
    yield fused(softmax("float64"), [on_gpu(4096, 8192, dtype="float64")], (1,), expect=VECTORS)


def updates() -> Iterator[Case]:
    """Adam over many parameters in one launch."""
    for dtype in ("float32", "bfloat16"):
        for chip in device.TARGETS if dtype == "float32" else (90,):
            specs = tuple(on_gpu(100_000 + i, dtype=dtype) for i in range(20))
            yield Case(adam_of_all, specs, {}, {}, chip, expect=VECTORS)
    yield Case(adam_of_all, specs, {}, {}, 90, forbid=("LDG.E.128",), aligned=False, note="unaligned")


def configured() -> Iterator[Case]:
    """What tuning may choose."""
    yield from with_every_configuration(fused(chain("bfloat16"), [on_gpu(*LARGE, dtype="bfloat16")] * 3))
    yield from with_every_configuration(fused(softmax("bfloat16"), [on_gpu(*LARGE, dtype="bfloat16")], (1,)))


def with_every_configuration(made: Case) -> Iterator[Case]:
    (kernel,) = kernels_for(str(made.kernel).partition("/")[0], "cuda")
    with device.assume(90):
        for config in kernel.configurations(made.specs, made.attrs, 1)[1:]:
            yield replace(made, config=config, expect=VECTORS)


def past_32_bits() -> Iterator[Case]:
    """Arrays of more than 2^31 elements: all offsets in 64 bits."""
    wide: dict[str, Any] = {"wide": True, "note": "wide"}
    yield case("add", [on_gpu(1 << 16, 1 << 16, dtype="bfloat16")] * 2, expect=VECTORS, **wide)
    yield case("add", [on_gpu(1 << 16, 1 << 16), on_gpu(1 << 16)], **wide)
    yield case("add", [on_gpu(1 << 31, 3), on_gpu(3)], **wide)
    yield case("add", [on_gpu(1 << 16, 1 << 16), on_gpu(1 << 16, 1 << 16, turned=True)], **wide)
    yield fused(softmax("float32"), [on_gpu(1 << 20, 1 << 12)], (1,), **wide)
    yield fused(softmax("float32"), [on_gpu(1 << 12, 1 << 20)], (1,), **wide)
    yield fused(column_means("float32"), [on_gpu(1 << 20, 1 << 12)], (0,), **wide)
    yield fused(column_means("float32"), [on_gpu(1 << 20, 3, 1 << 10)], (0, 2), **wide)
    yield fused(softmax("float32"), [on_gpu(1 << 32)], (0,), **wide)


CASES = [*streams(), *tiles(), *rows(), *updates(), *configured(), *past_32_bits()]
PROOF = Proof(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_machine_code_is_what_it_is_meant_to_be(case: Case) -> None:
    assert not PROOF.problems(case)


def test_several_loads_are_on_their_way() -> None:
    """What a thread reads before it waits: with 2048 threads on a multiprocessor, 64 KB."""
    for made in streams():
        if made.expect and "unaligned" not in made.note:
            (found,) = [case for case in CASES if str(case) == str(made)]
            (code,) = PROOF.codes(found)
            assert code.count("LDG.E.128") >= 2, str(made)


def test_lengths_are_not_compiled_in() -> None:
    digests = set()
    for n in (4096, 8192):
        made = fused(chain("float32"), [on_gpu(16384, n)] * 3)
        (kernel,) = kernels_for("fused3", "cuda")
        with device.assume(90):
            digests |= set(kernel.bind(made.specs, made.attrs, {}, 1).sources())
    assert len(digests) == 1
