"""What results on a GPU are judged by is the op's definition, over tensors of torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'kernelwright[gpu]'")

from kernelwright.kernels import accuracy  # noqa: E402
from kernelwright.kernels.attention.cuda import truth as attention_truth  # noqa: E402
from kernelwright.kernels.cuda import truth  # noqa: E402
from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402


def samples(op: str) -> list[Sample]:
    found = get_op(op).samples(np.random.default_rng(0), "float32")
    wanted = [s for s in found if not untakeable(s) and all(x is None or x.size for x in s.inputs)]
    return [s for s in wanted if not s.name.startswith("infinity")]


@pytest.mark.parametrize("op", ["attention", "attention_grad"])
def test_the_truth_on_a_device_is_that_of_the_op(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_truth, "MOST_HEADS", 100)
    monkeypatch.setattr(attention_truth, "CHUNK", 7)
    declared = get_op(op)
    checked = 0
    for sample in samples(op):
        attrs = declared.complete(sample.attrs)
        tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in sample.inputs]
        exact = accuracy.oracle(declared, sample.inputs, attrs)
        scales = accuracy.scales(declared, sample.inputs, attrs)
        inputs = tuple(TensorSpec.of(x) for x in sample.inputs)
        specs = (*inputs, *declared.infer(inputs, **attrs))
        found = truth.truths_of(declared, specs, attrs, tensors)
        assert len(found) == len(exact)
        for one, wanted, scale in zip(found, exact, scales or (), strict=True):
            shown = one.looked_at(torch.from_numpy(np.array(wanted)))
            torch.testing.assert_close(one.exact, shown, rtol=1e-10, atol=1e-10)
            seen = one.looked_at(torch.from_numpy(np.array(scale))).clamp_max(1e30)
            torch.testing.assert_close(one.scale, seen, rtol=1e-10, atol=1e-10)
        checked += 1
    assert checked > 25


def test_a_wrong_gradient_of_the_values_is_seen() -> None:
    """All outputs are judged, not the first alone."""
    op = get_op("attention_grad")
    (sample,) = (s for s in samples("attention_grad") if s.name == "scale")
    attrs: dict[str, Any] = op.complete(sample.attrs)
    tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in sample.inputs]
    inputs = tuple(TensorSpec.of(x) for x in sample.inputs)
    found = truth.truths_of(op, (*inputs, *op.infer(inputs, **attrs)), attrs, tensors)
    right = [torch.from_numpy(x) for x in accuracy.oracle(op, sample.inputs, attrs)]
    assert truth.worst_of([one.judge(x) for one, x in zip(found, right, strict=True)]).ok
    right[2] = right[2] * 1.001
    assert not truth.worst_of([one.judge(x) for one, x in zip(found, right, strict=True)]).ok
