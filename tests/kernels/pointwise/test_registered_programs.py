"""Ops of other families whose kernel is a program: it computes them, for every sample that they have."""

from __future__ import annotations

import numpy as np
import pytest

from kernelwright.kernels.accuracy import Truth
from kernelwright.kernels.dispatch import bind
from kernelwright.kernels.op import TensorSpec, get_op
from kernelwright.kernels.pointwise.kernel import call_for
from kernelwright.kernels.pointwise.op import fused_op
from kernelwright.kernels.spec import ABSENT

NAMES = ("sum", "amax", "var", "softmax", "log_softmax_grad", "layer_norm", "adam")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_the_fused_op_of_its_program_computes_an_op(name: str, dtype: str) -> None:
    op = get_op(name)
    compared = 0
    for sample in op.samples(np.random.default_rng(0), dtype):
        attrs = op.complete(sample.attrs)
        specs = tuple(ABSENT if x is None else TensorSpec.of(x) for x in sample.inputs)
        outputs = op.infer(specs, **attrs)
        call = call_for(op, (*specs, *outputs), attrs)
        inputs = [x for x in sample.inputs if x is not None]
        if call is None or call.strides is not None or not all(x.size for x in inputs):
            continue
        given = {"program": call.program, "shape": call.shape, "axes": call.axes}
        fused = fused_op(call.program)
        made = fused.infer([TensorSpec.of(x) for x in inputs], **given)
        results = [spec.empty() for spec in made]
        bind(fused, [TensorSpec.of(x) for x in inputs], given)(*inputs, *results)
        shaped = [result.reshape(spec.shape) for result, spec in zip(results, outputs, strict=True)]
        with np.errstate(all="ignore"):
            verdict = Truth.of(op, sample.inputs, attrs).judge(shaped, (*specs, *outputs))
        assert verdict.ok, (sample.name, verdict.text)
        compared += 1
    assert compared > 3
