"""The machine code of every configuration that the Triton convolutions ship, for each chip, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import Specs, get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

FORWARD, GRADS = "conv/cuda_triton", "conv_{}_grad/cuda_triton_grads"
# Tensor cores are Hopper's and Blackwell's own, not the older instruction that they have as well.
TENSOR_CORES = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA|UTCQMMA|UTCOMMA|UTCMMA"}
Call = tuple[Specs, dict[str, Any]]


def image(layout: str, n: int, size: int, channels: int, dtype: str) -> TensorSpec:
    """Square images."""
    shape = (n, size, size, channels) if layout == "NHWC" else (n, channels, size, size)
    return TensorSpec(shape, dtype, "cuda")


def call(
    op: str,
    dtype: str,
    n: int,
    channels: int,
    out: int,
    size: int,
    taps: int = 3,
    stride: int = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> Call:
    """Specs and attributes of a convolution, forward with all that may follow it."""
    pad = taps // 2
    x = image(layout, n, size, channels, dtype)
    y = image(layout, n, (size + 2 * pad - taps) // stride + 1, out, dtype)
    w, b = TensorSpec((out, channels // groups, taps, taps), dtype, "cuda"), TensorSpec((out,), dtype, "cuda")
    window = {"stride": (stride,) * 2, "padding": ((pad, pad),) * 2, "groups": groups, "layout": layout}
    found = get_op(op)
    calls: dict[str, tuple[Specs, dict[str, Any]]] = {
        "conv": ((x, w, b, y), {**window, "activation": "relu"}),
        "conv_input_grad": ((y, w, ABSENT), {**window, "input_size": (size, size)}),
        "conv_weight_grad": ((x, y), {**window, "kernel_size": (taps, taps)}),
        "conv_bias_grad": ((y,), {"layout": layout}),
    }
    inputs, some = calls[op]
    attrs = found.complete(some)
    return (*inputs, *found.infer(inputs, **attrs)), attrs


def cases(
    kernel: str, made: Call, *expect: str, chips: tuple[int, ...] = device.TARGETS, **more: Any
) -> Iterator[Case]:
    """All configurations of a call, for each chip; "cores" among the expected are its tensor cores."""
    (found,) = [k for k in kernels_for(kernel.partition("/")[0], "cuda") if k.id == kernel]
    for chip in chips:
        with device.assume(chip):
            reason = found.why_not(*made)
            assert reason is None, f"{kernel}: {reason}"
            configs = found.configurations(*made, 1)
        wanted = tuple(TENSOR_CORES[chip] if name == "cores" else name for name in expect)
        wanted = tuple(name for name in wanted if name != "UTMALDG" or chip >= 90)
        for config in configs:
            note = f"{made[1]['layout']} stride {made[1].get('stride', ())}"
            yield Case(kernel, *made, config, chip, expect=wanted, note=note, **more)


def shipped() -> Iterator[Case]:
    """What runs, in the shapes that lead to it. Async copies are LDGSTS, boxes of the copy engine UTMALDG."""
    forward, back, weight = f"{FORWARD}/implicit", GRADS.format("input"), GRADS.format("weight")
    half = ("cores", "LDGSTS", "UTMALDG", "LDG.E.128", "STG.E.128")
    yield from cases(forward, call("conv", "bfloat16", 32, 256, 256, 14), *half)
    turned = call("conv", "float16", 32, 128, 256, 28, layout="NCHW")
    yield from cases(forward, turned, "cores", "LDGSTS", "UTMALDG", chips=(90,))
    strided = call("conv_input_grad", "bfloat16", 32, 128, 128, 56, stride=2)
    yield from cases(f"{back}/implicit", strided, "cores", "LDGSTS", "UTMALDG", "STG.E.128")
    yield from cases(
        forward, call("conv", "float32", 8, 64, 64, 28), "FFMA", "LDGSTS", forbid=("HGMMA", "UTC")
    )
    tf32 = call("conv", "float32", 8, 128, 128, 28)
    yield from cases(f"{forward}_tf32", tf32, "cores", "LDGSTS", "UTMALDG", forbid=("FFMA",))
    stem = call("conv", "bfloat16", 32, 3, 64, 224, taps=7, stride=2)
    yield from cases(f"{FORWARD}/gathered", stem, "cores", "STG.E.128")
    yield from cases(f"{FORWARD}/folded", stem, "cores", "LDGSTS", "STG.E.128")
    stem = call("conv", "float32", 8, 3, 64, 224, taps=7, stride=2, layout="NCHW")
    yield from cases(f"{FORWARD}/gathered", stem, "FFMA")
    yield from cases(f"{FORWARD}/gathered_tf32", stem, "cores")
    for op, kernel in (("conv", FORWARD), ("conv_input_grad", back)):
        made = call(op, "bfloat16", 32, 96, 96, 56, groups=96, stride=1 if op == "conv" else 2)
        yield from cases(f"{kernel}/depthwise", made, "LDG.E.128", "STG.E.128", "FFMA")
    planes = call("conv", "float32", 8, 96, 96, 56, groups=96, layout="NCHW")
    yield from cases(f"{FORWARD}/depthwise", planes, "FFMA")
    grouped = call("conv_weight_grad", "bfloat16", 32, 96, 96, 56, groups=96)
    yield from cases(f"{weight}/depthwise", grouped, "LDG.E.128", "FFMA")
    for channels in (64, 256):  # several taps in a tile, or one
        made = call("conv_weight_grad", "bfloat16", 32, channels, channels, 56)
        yield from cases(f"{weight}/products", made, "cores", "LDGSTS")
    stem = call("conv_weight_grad", "bfloat16", 32, 3, 64, 224, taps=7, stride=2)
    yield from cases(f"{weight}/folded", stem, "cores", "LDGSTS")
    exact = call("conv_weight_grad", "float32", 8, 64, 64, 28)
    yield from cases(f"{weight}/products", exact, "FFMA", "LDGSTS")
    yield from cases(f"{weight}/products_tf32", exact, "LDGSTS")
    for dtype, layout in (("bfloat16", "NHWC"), ("float32", "NCHW")):
        made = call("conv_bias_grad", dtype, 32, 64, 96, 56, layout=layout)
        yield from cases(f"{GRADS.format('bias')}/pixel_sums", made)


def enormous() -> Iterator[Case]:
    """Images of more than 2^31 elements: no address may come from an offset of 32 bits."""
    wide: dict[str, Any] = {"chips": (90,), "wide": True}
    for op, kernel in (
        ("conv", f"{FORWARD}/implicit"),
        ("conv_input_grad", f"{GRADS.format('input')}/implicit"),
        ("conv_weight_grad", f"{GRADS.format('weight')}/products"),
        ("conv_bias_grad", f"{GRADS.format('bias')}/pixel_sums"),
    ):
        yield next(cases(kernel, call(op, "bfloat16", 48, 64, 64, 1024), **wide))
    yield next(
        cases(f"{FORWARD}/implicit", call("conv", "bfloat16", 48, 64, 64, 1024, layout="NCHW"), **wide)
    )
    yield next(cases(f"{FORWARD}/gathered", call("conv", "bfloat16", 48, 3, 64, 1024), **wide))
    depthwise = call("conv", "bfloat16", 48, 64, 64, 1024, groups=64)
    yield next(cases(f"{FORWARD}/depthwise", depthwise, **wide))


CASES = list(shipped())
ENORMOUS = list(enormous())
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_shipped_configuration_is_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize("case", ENORMOUS, ids=str)
def test_addresses_are_computed_in_64_bits(case: Case) -> None:
    assert not PROOF.problems(case)


def test_lengths_are_not_compiled_in() -> None:
    """Two networks' layers with the same channels, at other sizes and batches, share their code."""
    (kernel,) = [k for k in kernels_for("conv", "cuda") if k.id == f"{FORWARD}/implicit"]
    with device.assume(90):
        config = {"bm": 128, "bn": 64, "bk": 64, "warps": 8, "stages": 4, "splits": 1, "tf32": False}
        found = set()
        for n, size in ((1, 7), (3, 56), (32, 224), (256, 33)):
            specs, attrs = call("conv", "bfloat16", n, 64, 64, size)
            found.add(kernel.bind(specs, attrs, config, 1).variants()[-1])
    assert len(found) == 1
