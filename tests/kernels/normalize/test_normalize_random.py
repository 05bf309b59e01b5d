"""Softmax and norms on random calls: shapes, layouts, dtypes, what is left out, threads, pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.normalize import cpu_vectors
from kernelwright.kernels.normalize.op import OPS, form_of, wide_dtype
from kernelwright.kernels.op import AnyArray, Sample, TensorSpec, get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.softmax import cpu_vectors as softmax_vectors
from kernelwright.kernels.softmax.op import OPS as SOFTMAX_OPS
from kernelwright.kernels.spec import ABSENT, np_dtype

Rng = np.random.Generator
CALLS = 12  # of each op


def laid_out(rng: Rng, x: AnyArray) -> AnyArray:
    """The same numbers in another order of memory, backwards or with gaps."""
    if not x.ndim:
        return x
    order = rng.permutation(x.ndim)
    x = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    for axis in range(x.ndim):
        way = rng.integers(6)
        if way == 0:
            x = np.flip(np.flip(x, axis).copy(), axis)
        if way == 1:
            x = np.repeat(x, 2, axis)[(slice(None),) * axis + (slice(None, None, 2),)]
    return x


def shape_of(rng: Rng) -> tuple[int, ...]:
    shape = [int(n) for n in rng.choice([1, 2, 3, 4, 7, 16, 33, 70, 130], rng.integers(2, 5))]
    while np.prod(shape) > 20_000:
        shape[int(np.argmax(shape))] //= 2
    return tuple(shape)


def attributes(rng: Rng, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    axis = int(rng.integers(-len(shape), len(shape)))
    if name in SOFTMAX_OPS:
        return {"axis": axis}
    attrs: dict[str, Any] = {} if name.endswith("_grad") else {"eps": 0.1}
    if name.startswith("batch"):
        if name == "batch_norm_grad":
            return {"channel_axis": axis, "residual": bool(rng.integers(2))}
        return {**attrs, "channel_axis": axis, "activation": (None, "relu")[rng.integers(2)]}
    if name.startswith("group"):
        divisors = [n for n in range(1, shape[1] + 1) if shape[1] % n == 0]
        return {**attrs, "groups": int(rng.choice(divisors))}
    return {**attrs, "axes": int(rng.integers(1, len(shape) + 1))}


def random_call(rng: Rng, name: str) -> Sample | None:
    """Any call of the op; None where the shape drawn has none."""
    op, shape = get_op(name), shape_of(rng)
    dtype = str(rng.choice(op.dtypes))
    attrs = attributes(rng, name, shape)
    own = (dtype, wide_dtype(dtype))[rng.integers(2)]

    def normal(of: tuple[int, ...], kind: str = dtype) -> AnyArray:
        return laid_out(rng, np.asarray(rng.standard_normal(of)).astype(np_dtype(kind)))

    if name in SOFTMAX_OPS:
        if not name.endswith("_grad"):
            return Sample("random", (normal(shape),), attrs)
        e = np.exp(rng.standard_normal(shape))
        y = e / e.sum(attrs["axis"], keepdims=True)
        y = np.log(y) if name.startswith("log") else y
        return Sample("random", (normal(shape), laid_out(rng, y.astype(np_dtype(dtype)))), attrs)
    form = form_of(name, shape, attrs)
    if name == "batch_norm" and form.count < 2:
        return None
    left_out = {"running_mean", "running_var"} if name == "batch_norm" and rng.integers(2) else set()
    inputs: list[AnyArray | None] = []
    for role in op.inputs:
        if role in left_out or (role in op.optional and "running" not in role and not rng.integers(3)):
            inputs.append(None)
        elif role in ("weight", "bias"):
            inputs.append(normal(form.parameters, own))
        elif role in ("mean", "running_mean"):
            inputs.append(normal(form.statistics, wide_dtype(dtype)))
        elif role in ("rstd", "running_var"):
            inputs.append(np.asarray(np.abs(normal(form.statistics, wide_dtype(dtype))) + 0.5))
        else:
            inputs.append(normal(shape))
    return Sample("random", tuple(inputs), attrs)


@pytest.mark.parametrize("name", [*OPS, *SOFTMAX_OPS])
def test_random_calls_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_vectors, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(softmax_vectors, "WORTH_A_THREAD", 1)
    rng = np.random.default_rng(sum(map(ord, name)))
    kernel = next(k for k in kernels_for(name) if k.name == "vectors")
    op, ran = get_op(name), 0
    for place in range(2 * CALLS):
        monkeypatch.setattr(cpu_vectors, "WORTH_PIECES", (1, 1 << 18)[place % 2])
        sample = random_call(rng, name)
        if sample is None or ran == CALLS:
            continue
        specs = tuple(ABSENT if x is None else TensorSpec.of(x) for x in sample.inputs)
        attrs = op.complete(sample.attrs)
        assert kernel.why_not((*specs, *op.infer(specs, **attrs)), attrs) is None, sample
        verdict = check_kernel(kernel, sample, threads=1 + place % 3)
        assert verdict.ok, f"{sample}: {verdict.text}"
        ran += 1
    assert ran == CALLS
