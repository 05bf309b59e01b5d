"""The machine code of the random ops on the GPU: vectors to and from memory, no shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

KEY = TensorSpec((2,), "uint32", "cuda")
MANY = 1 << 26


def case(op: str, inputs: tuple[TensorSpec, ...], attrs: dict[str, Any], chip: int, **more: Any) -> Case:
    """A call of an op's one CUDA kernel."""
    found, (kernel,) = get_op(op), kernels_for(op, "cuda")
    complete = found.complete(attrs)
    specs = (*inputs, *found.infer(inputs, **complete))
    return Case(kernel.id, specs, complete, {}, chip, note=str(sorted(attrs.items())), **more)


def x(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(shape or (MANY,), dtype, "cuda")


def cases() -> Iterator[Case]:
    """Dropout on each chip, every kind of number on Hopper."""
    quick: dict[str, Any] = {"registers": 72, "forbid": ("BAR", "STS", "LDS", "LDG.E.U16")}
    for chip in device.TARGETS:
        for dtype in ("float32", "bfloat16"):
            yield case("dropout", (x(dtype), KEY), {}, chip, expect=("LDG.E.128", "STG.E.128"), **quick)
    drawn: tuple[tuple[str, dict[str, Any]], ...] = (
        ("random_bits", {}),
        ("random_uniform", {"dtype": "bfloat16"}),
        ("random_uniform", {"dtype": "float32", "low": -1.0}),
        ("random_normal", {"dtype": "float32", "std": 0.02}),
        ("random_normal", {"dtype": "float64"}),
        ("random_randint", {"dtype": "int64", "low": -5, "high": 1 << 40}),
        ("random_randint", {"dtype": "int32", "high": 50}),
    )
    for op, attrs in drawn:
        yield case(op, (KEY,), {"shape": (MANY,), **attrs}, 90, expect=("STG.E.128",), forbid=("BAR", "STS"))
    yield case("random_truncated_normal", (KEY,), {"shape": (MANY,)}, 90, forbid=("BAR", "STS"))
    yield case("random_bernoulli", (KEY,), {"shape": (MANY,)}, 90, expect=("STG.E.64",), forbid=("BAR",))
    turned = TensorSpec((4096, 4096), "float32", "cuda", (4, 4 * 4096))
    yield case("dropout", (turned, KEY), {}, 90, expect=("STG.E.128",), forbid=("BAR",))
    yield case("dropout", (x("bfloat16", 4097), KEY), {}, 90, aligned=False, forbid=("LDG.E.128",))
    yield case("random_permutation", (KEY,), {"n": MANY}, 90, expect=("ATOMG",))
    yield case("random_fold_in", (KEY, TensorSpec((), "int64", "cuda")), {}, 90)
    yield case("random_split", (KEY,), {"n": 300}, 90)


def enormous() -> Iterator[Case]:
    """More than 2^31 elements: no address may come from an offset of 32 bits."""
    yield case("dropout", (x("bfloat16", 3, 1 << 30), KEY), {}, 90, wide=True)
    turned = TensorSpec((1 << 16, 1 << 16), "bfloat16", "cuda", (2, 2 << 16))
    yield case("dropout", (turned, KEY), {}, 90, wide=True)
    yield case("random_bits", (KEY,), {"shape": (3 << 30,)}, 90, wide=True)
    yield case("random_permutation", (KEY,), {"n": 3 << 30}, 90, wide=True)


CASES, ENORMOUS = list(cases()), list(enormous())
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kind_of_number_is_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize("case", ENORMOUS, ids=str)
def test_addresses_are_computed_in_64_bits(case: Case) -> None:
    assert not PROOF.problems(case)


def test_lengths_and_probabilities_are_not_compiled_in() -> None:
    (kernel,) = kernels_for("dropout", "cuda")
    with device.assume(90):
        found = set()
        for n, p in ((64, 0.1), (1 << 20, 0.5), (3 << 20, 0.9)):
            spec = x("bfloat16", n)
            found.update(kernel.bind((spec, KEY, spec), {"p": p}, {}, 1).variants())
    assert len(found) == 1
