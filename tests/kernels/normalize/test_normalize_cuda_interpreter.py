"""The norms and their gradients for a GPU compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_lines import bits, broken, prove, prove_one, samples  # noqa: E402
from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.cuda.check import cuda_specs  # noqa: E402
from kernelwright.kernels.normalize.op import OPS  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402

pytestmark = interpreted

# Tiles so small that the samples are cut into many, with lines in parts.
APART = {"way": "apart", "tile": 0, "parts": True}
TWICE = [op for op in OPS if op != "batch_norm_inference"]


@pytest.mark.parametrize("op", OPS)
def test_every_sample(op: str) -> None:
    for dtype in ("float32", "bfloat16", "float64"):
        prove(op, dtype, every=2 if dtype == "float64" else 1)


@pytest.mark.parametrize("op", TWICE)
def test_statistics_first_and_then_each_element(op: str) -> None:
    """For the norms over rows too, where their lines do not fit registers."""
    prove(op, "float32", APART, 3, ordered=True, backwards=True)
    prove(op, "float16", APART, 3, ordered=True)


@pytest.mark.parametrize("op", ["group_norm", "group_norm_grad"])
def test_a_group_to_a_program(op: str) -> None:
    """In every layout that lets a group's channels be numbered, and in no other."""
    (kernel,) = kernels_for(op, "cuda")
    together, others = {"way": "together"}, 0
    for dtype in ("float32", "bfloat16"):
        for sample in samples(op, dtype)[:: 3 if dtype == "bfloat16" else 1]:
            specs, attrs = cuda_specs(kernel, sample), get_op(op).complete(sample.attrs)
            if together in kernel.configurations(specs, attrs, 1):
                prove_one(kernel, sample, together, backwards=True)
            else:
                others += 1
    assert 0 < others < 10


def test_a_program_takes_one_group_after_the_other() -> None:
    draw = np.random.default_rng(5)
    kernel = broken("group_norm/cuda_triton/lines", grid=(2,), programs=lambda programs: 2)
    for shape, order in (((2, 15, 3, 5), (0, 1, 2, 3)), ((2, 5, 3, 15), (0, 3, 1, 2))):
        x = draw.standard_normal(shape).astype(np.float32).transpose(order)
        w, b = (draw.standard_normal(15).astype(np.float32) for _ in range(2))
        prove_one(kernel, Sample("groups", (x, w, b), {"groups": 3, "eps": 1e-5}), {"way": "together"})


def test_parts_in_any_order_give_the_same_bits() -> None:
    draw = np.random.default_rng(3)
    x = draw.standard_normal((10, 20, 3)).astype(np.float32)
    for axis in (1, 2):
        attrs = {"channel_axis": axis, "eps": 1e-5, "momentum": 0.1, "activation": None}
        sample = Sample("channels", (x, None, None, None, None, None), attrs)
        name = "batch_norm/cuda_triton/lines"
        assert bits(name, sample, APART, False) == bits(name, sample, APART, True)
    w = draw.standard_normal(3).astype(np.float32)
    mean, rstd = x.mean(2), 1 / x.std(2)
    sample = Sample("lines", (x, x, w, mean, rstd), {"axes": 1})
    whole = {"way": "whole", "each": 1, "stages": 1}
    name = "layer_norm_grad/cuda_triton/lines"
    assert bits(name, sample, whole, False) == bits(name, sample, whole, True)


def test_sums_for_a_weight_come_from_many_lines() -> None:
    """More lines than there are programs: each takes one block after the other."""
    draw = np.random.default_rng(4)
    x, dy = (draw.standard_normal((45, 30)).astype(np.float32) for _ in range(2))
    w = draw.standard_normal(30).astype(np.float32)
    sample = Sample("45 lines", (dy, x, w, x.mean(1), 1 / x.std(1)), {"axes": 1})
    name = "layer_norm_grad/cuda_triton/lines"
    kernel = broken(name, grid=(3,), programs=lambda programs: 3, parts=lambda parts: 3)
    for stages in (1, 2):
        prove_one(kernel, sample, {"way": "whole", "each": 1, "stages": stages})


def test_broken_kernels_are_caught() -> None:
    (sample,) = [s for s in samples("layer_norm", "float32") if s.name.startswith("(2, 300)")]
    name = "layer_norm/cuda_triton/lines"
    assert not check(broken(name, eps=lambda bits: 0x3FF0000000000000), sample).ok
    with pytest.raises(Exception, match="OutOfBoundsError"):
        check(broken(name, length=lambda length: length + 4), sample)
    other = next(s for s in samples("batch_norm", "float32") if s.name.startswith("(33, 17)"))
    assert not check(
        broken("batch_norm/cuda_triton/lines", share=lambda n: n - 1), other, APART, ordered=True
    ).ok
