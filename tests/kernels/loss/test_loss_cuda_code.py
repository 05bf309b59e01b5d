"""The machine code of the losses on the GPU: scores come and go 16 bytes at a time, whatever their number."""

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


def specs_of(op: str, dtype: str, shape: tuple[int, ...], weights: bool, attrs: dict[str, Any]) -> Specs:
    """Those of inputs and outputs."""
    rows = (shape[0], *shape[2:])
    x, target = TensorSpec(shape, dtype, "cuda"), TensorSpec(rows, "int64", "cuda")
    each, sums = TensorSpec(rows, dtype, "cuda"), TensorSpec(rows, "float32", "cuda")
    weight = TensorSpec((shape[1],), dtype, "cuda") if weights else ABSENT
    inputs: dict[str, Specs] = {
        "cross_entropy_grad": (each, x, target, weight, sums),
        "nll_loss_grad": (each, target, weight),
        "multi_margin_loss_grad": (each, x, target, weight),
    }
    given = inputs.get(op, (x, target, weight))
    return (*given, *get_op(op).infer(given, **attrs))


def cases(
    op: str,
    name: str,
    dtype: str,
    *shape: int,
    chips: tuple[int, ...] = (90,),
    weights: bool = False,
    most: int = 9,
    attrs: dict[str, Any] | None = None,
    **more: Any,
) -> Iterator[Case]:
    """The first configurations of a call, for each chip."""
    (kernel,) = [k for k in kernels_for(op, "cuda") if k.name == name]
    complete = get_op(op).complete(attrs or {})
    specs = specs_of(op, dtype, shape, weights, complete)
    for chip in chips:
        with device.assume(chip):
            assert kernel.why_not(specs, complete) is None
            for config in kernel.configurations(specs, complete, 1)[:most]:
                yield Case(kernel.id, specs, complete, config, chip, note=str(attrs or ""), **more)


def shipped() -> Iterator[Case]:
    """Large vocabularies on all chips, of a number of classes that is even and one that is not."""
    read: dict[str, Any] = {"expect": ("LDG.E.128",), "registers": 64}
    both: dict[str, Any] = {"expect": ("LDG.E.128", "STG.E.128"), "registers": 96}
    forward, back = (
        ("cross_entropy", "long_rows", "bfloat16"),
        ("cross_entropy_grad", "long_rows", "bfloat16"),
    )
    yield from cases(*forward, 8192, 128256, chips=device.TARGETS, most=1, **read)
    yield from cases(*forward, 8192, 50257, most=2, **read)
    yield from cases(*forward, 16, 50257, most=1, **read)
    yield from cases(*back, 8192, 128256, chips=device.TARGETS, most=1, **both)
    yield from cases(*back, 8192, 50257, most=2, **both)
    yield from cases(*back, 512, 50257, most=1, aligned=False, forbid=("LDG.E.128", "STG.E.128"))
    smooth = {"label_smoothing": 0.1}
    yield from cases(*forward, 512, 32000, weights=True, attrs=smooth, most=1)
    yield from cases(*back, 512, 32000, weights=True, attrs=smooth, most=1)
    # Whole rows in a tile, none of which needs another warp; and the pixels of images.
    alone: dict[str, Any] = {"forbid": ("BAR",), "expect": ("LDG.E.128",)}
    yield from cases("cross_entropy", "tiles", "bfloat16", 65536, 1000, most=1, **alone)
    yield from cases("cross_entropy_grad", "tiles", "float32", 65536, 1000, most=1, **both)
    yield from cases(
        "cross_entropy", "tiles", "bfloat16", 16, 64, 256, 256, most=1, **read | {"registers": 128}
    )
    yield from cases("cross_entropy_grad", "tiles", "bfloat16", 16, 64, 256, 256, most=1, **both)
    yield from cases("nll_loss", "tiles", "float32", 4096, 100)
    written: dict[str, Any] = {"attrs": {"classes": 1000}, "expect": ("STG.E.128",)}
    yield from cases("nll_loss_grad", "tiles", "bfloat16", 4096, 1000, most=1, **written)
    yield from cases("multi_margin_loss", "tiles", "bfloat16", 4096, 1000, most=1, **alone)
    yield from cases("multi_margin_loss_grad", "tiles", "float32", 4096, 1000, most=1, **both)


def enormous() -> Iterator[Case]:
    """More than 2^31 scores: no address may come from an offset of 32 bits."""
    for op in ("cross_entropy", "cross_entropy_grad"):
        yield from cases(op, "long_rows", "bfloat16", 32768, 128256, most=1, wide=True)
        yield from cases(op, "tiles", "bfloat16", 4, 600, 1024, 1024, most=1, wide=True)
    yield from cases(
        "nll_loss_grad", "tiles", "bfloat16", 32768, 128256, most=1, attrs={"classes": 128256}, wide=True
    )
    yield from cases("multi_margin_loss_grad", "tiles", "bfloat16", 32768, 128256, most=1, wide=True)


CASES, ENORMOUS = list(shipped()), list(enormous())
PROOF = Proof([*CASES, *ENORMOUS])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_losses_are_good_code(case: Case) -> None:
    assert not PROOF.problems(case)


@pytest.mark.parametrize("case", ENORMOUS, ids=str)
def test_addresses_are_computed_in_64_bits(case: Case) -> None:
    assert not PROOF.problems(case)


def test_lengths_are_not_compiled_in() -> None:
    """Other vocabularies share their code: one where rows start at multiples of 16 bytes, one where not."""
    (kernel,) = [k for k in kernels_for("cross_entropy", "cuda") if k.name == "long_rows"]
    attrs = get_op("cross_entropy").complete({})
    found = set()
    with device.assume(90):
        for rows, classes in ((8192, 128256), (20000, 32000), (9999, 50304), (5000, 50257), (6000, 30001)):
            specs = specs_of("cross_entropy", "bfloat16", (rows, classes), False, attrs)
            found.update(kernel.bind(specs, attrs, {"sets": 4, "warps": 8}, 1).variants())
    assert len(found) == 2
