"""Each op's gradient rule beside finite differences in float64, first and second order, over the op's
samples.

What is tested is the rule, so the ops are computed by their references; the kernels of all ops, those of
gradients included, are held against the references elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.eager import call_all
from kernelwright.engine.gradients import rule_of
from kernelwright.kernels.op import Op, Sample, ops
from kernelwright.kernels.spec import ABSENT, TensorSpec

FLOATS = ("float32", "float64", "bfloat16", "float16")
MOST_SAMPLES = 6
MOST_ELEMENTS = {"recurrent": 1500}

# Ops whose results say nothing of small changes: steps, comparisons, positions, random numbers.
NO_GRADIENT = {
    *("isnan", "isinf", "isfinite", "argmax", "argmin", "argsort", "searchsorted", "one_hot"),
    *("max_pool_indices", "count_nonzero", "any", "all"),
}
# Gradients with kernels of their own, and ops of training that nobody differentiates: once only, as
# the error says.
ONCE = {"lstm", "lstmp", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell"}


def _differentiable(op: Op) -> bool:
    return "float64" in op.dtypes and op.family not in ("optimizer", "random", "toy")


def _usable(op: Op, sample: Sample) -> bool:
    """Whether finite differences mean something: finite numbers, not many, floating-point results."""
    arrays = [x for x in sample.inputs if x is not None]
    if (
        not arrays
        or sum(x.size for x in arrays) > MOST_ELEMENTS.get(op.family, 400)
        or any(x.size == 0 for x in arrays)
    ):
        return False
    if not any(x.dtype == np.float64 for x in arrays):
        return False
    if any(x.dtype.kind == "f" and not np.isfinite(x).all() for x in arrays):
        return False
    if any(x.dtype.name in ("float32", "bfloat16", "float16") for x in arrays):
        return False
    specs = tuple(ABSENT if x is None else TensorSpec.of(x) for x in sample.inputs)
    attrs = op.complete(sample.attrs)
    if any(attrs.get(f"{name}_format") for name in ("w", *op.inputs)):
        return False
    if attrs.get("train") or attrs.get("padding_idx") is not None:
        # What `train` keeps for the backward pass is no result; a padding row is held still on purpose.
        return False
    outputs = op.infer(specs, **attrs)
    if not any(spec.dtype in FLOATS and spec.size for spec in outputs):
        return False
    with np.errstate(all="ignore"):
        results = op.reference(*sample.inputs, **attrs)
    return all(np.isfinite(r).all() for r in results if np.asarray(r).dtype.kind == "f")


def _samples(op: Op) -> Iterator[Sample]:
    found = [s for s in op.samples(np.random.default_rng(5), "float64") if _usable(op, s)]
    # Those with different attributes first: each of them is another way through the rule.
    found.sort(key=lambda s: sum(x.size for x in s.inputs if x is not None))
    seen: dict[Any, int] = {}
    for sample in found:
        key = tuple(sorted((k, repr(v)) for k, v in sample.attrs.items()))
        seen[key] = seen.get(key, 0) + 1
    found.sort(key=lambda s: seen[tuple(sorted((k, repr(v)) for k, v in s.attrs.items()))])
    yield from found[:MOST_SAMPLES]


def _cases() -> list[str]:
    return [op.name for op in ops() if _differentiable(op) and not op.name.startswith("fused")]


@pytest.mark.parametrize("name", _cases())
def test_the_rule_agrees_with_finite_differences(name: str) -> None:
    op = next(op for op in ops() if op.name == name)
    samples = list(_samples(op))
    if rule_of(op) is None:
        once_only = name.endswith(("_grad", "_back", "_take")) or name in NO_GRADIENT
        integral = not samples or all(
            spec.dtype not in FLOATS
            for spec in op.infer(
                tuple(ABSENT if x is None else TensorSpec.of(x) for x in samples[0].inputs),
                **op.complete(samples[0].attrs),
            )
        )
        assert once_only or integral, f"{name} has no gradient rule"
        return
    assert samples or name in NO_GRADIENT, f"{name} has no sample that finite differences could judge"
    for sample in samples:
        _check(op, sample)


def _check(op: Op, sample: Sample) -> None:
    moving = [i for i, x in enumerate(sample.inputs) if x is not None and x.dtype == np.float64]

    def function(*arrays: Any) -> Any:
        whole: list[Any] = list(sample.inputs)
        for i, x in zip(moving, arrays, strict=True):
            whole[i] = x
        given = [x if x is None or isinstance(x, kw.Array) else kw.array(x) for x in whole]
        return list(call_all(op, given, sample.attrs))

    args = [kw.array(sample.inputs[i]) for i in moving]
    second = 1 if op.name in ONCE or _stops(op) else 2
    try:
        with kw.using(backend="reference"):
            kw.check_grads(function, *args, order=second, directions=2)
    except Exception as error:
        raise AssertionError(f"{op.name}, {sample!r}: {type(error).__name__}: {error}") from error


def _stops(op: Op) -> bool:
    """Whether the op's gradient is an op of its own, which has no rule."""
    from kernelwright.kernels.op import ops

    return any(
        other.name in (f"{op.name}_grad", f"{op.name}_back") and rule_of(other) is None for other in ops()
    )
