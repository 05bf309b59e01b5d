"""Each kernel of each op of the small families over the op's samples, in every dtype: right, within the
budget.

Matmul, convolution and the recurrent layers have files of their own for this.
"""

from __future__ import annotations

import numpy as np
import pytest

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.op import get_op, ops
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import ABSENT, TensorSpec

LARGE_FAMILIES = ("matmul", "conv", "recurrent")
NAMES = [
    op.name
    for op in ops()
    if op.family not in LARGE_FAMILIES
    and (not op.name.startswith("fused") or op.name in ("fused1", "fused3"))
]


@pytest.mark.parametrize("name", NAMES)
def test_kernels_survive_the_samples_of_their_op(name: str) -> None:
    op = get_op(name)
    kernels = kernels_for(name, "cpu")
    assert kernels, f"{name} has no kernel on the CPU"
    judged: dict[str, int] = {}
    for dtype in op.dtypes:
        for sample in op.samples(np.random.default_rng(1), dtype):
            specs = tuple(ABSENT if x is None else TensorSpec.of(x) for x in sample.inputs)
            attrs = op.complete(sample.attrs)
            outputs = op.infer(specs, **attrs)
            if not any(spec.size for spec in outputs):
                continue
            able = [k for k in kernels if k.why_not((*specs, *outputs), attrs) is None]
            reasons = [f"{k.id}: {k.why_not((*specs, *outputs), attrs)}" for k in kernels]
            assert able, f"no kernel takes {sample!r}: {'; '.join(reasons)}"
            for kernel in able:
                verdict = check_kernel(kernel, sample, threads=2 if judged.get(dtype, 0) % 2 else 1)
                assert verdict.ok, f"{kernel.id} on {sample!r}: {verdict.text}"
                judged[dtype] = judged.get(dtype, 0) + 1
    # Programs have dtypes of their own: those of single instructions are covered by their ops.
    missing = set(op.dtypes) - set(judged) if op.family != "pointwise" or op.inputs[0] != "x0" else set()
    assert not missing, f"{name} has no sample with elements in {', '.join(sorted(missing))}"
