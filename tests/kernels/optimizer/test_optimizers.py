"""Updates of parameters: twenty steps beside torch.optim; numbers that change compile nothing; bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelwright.engine.functional import optimizer
from kernelwright.kernels.cpu import generate
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.optimizer.op import OPTIMIZERS
from kernelwright.kernels.registry import kernels_for

STATES = {
    "SGD": ("momentum_buffer",),
    "Adam": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "AdamW": ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    "RMSprop": ("square_avg", "grad_avg", "momentum_buffer"),
    "Adagrad": ("sum",),
}
STEPS: dict[str, Any] = {
    "SGD": optimizer.sgd_step,
    "Adam": optimizer.adam_step,
    "AdamW": optimizer.adamw_step,
    "RMSprop": optimizer.rmsprop_step,
    "Adagrad": optimizer.adagrad_step,
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"momentum": 0.8, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.01, "amsgrad": True, "betas": (0.8, 0.95)}),
    ("AdamW", {"eps": 1e-4}),
    ("AdamW", {"weight_decay": 0.1, "amsgrad": True}),
    ("RMSprop", {}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "weight_decay": 0.01}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.01}),
]


def kept(name: str, attrs: dict[str, Any]) -> list[bool]:
    """Which states an optimizer keeps."""
    if name == "SGD":
        return [bool(attrs.get("momentum"))]
    if name in ("Adam", "AdamW"):
        return [True, True, attrs.get("amsgrad", False)]
    return [True, attrs.get("centered", False), bool(attrs.get("momentum"))] if name == "RMSprop" else [True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "attrs"), CASES, ids=lambda x: x if type(x) is str else "-".join(x) or "plain"
)
def test_twenty_steps_are_those_of_torch(name: str, attrs: dict[str, Any], dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.optim")
    rng = np.random.default_rng(0)
    param = rng.standard_normal((3, 7)).astype(dtype)
    tensor = torch.from_numpy(param.copy()).requires_grad_()
    theirs = getattr(torch.optim, name)([tensor], lr=0.05, **attrs)
    states: list[Any] = [np.zeros_like(param) if yes else None for yes in kept(name, attrs)]
    options = {k: v for k, v in attrs.items() if k not in ("amsgrad", "centered")}
    if name != "RMSprop":
        options["step"] = 0
    for number in range(1, 21):
        grad = rng.standard_normal((3, 7)).astype(dtype)
        tensor.grad = torch.from_numpy(grad)
        theirs.step()
        if "step" in options:
            options["step"] = number
        param, *after = STEPS[name](param, grad, *states, lr=0.05, **options)
        found = iter(after)
        states = [None if state is None else next(found) for state in states]
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(np.asarray(param), tensor.detach().numpy(), rtol=tolerance, atol=tolerance)
    for label, state in zip(STATES[name], states, strict=True):
        if state is not None:
            other = theirs.state[tensor]["max_exp_avg_sqs" if label == "max_exp_avg_sqs" else label]
            np.testing.assert_allclose(np.asarray(state), other.numpy(), rtol=tolerance, atol=tolerance)


def test_another_learning_rate_compiles_nothing() -> None:
    p, g, m, v = (np.ones(50, "float32") for _ in range(4))
    optimizer.adam_step(p, g, m, v, step=1, lr=0.1)
    before = generate.counts.copy()
    first = optimizer.adam_step(p, g, m, v, step=2, lr=0.2)[0]
    second = optimizer.adam_step(p, g, m, v, step=3, lr=np.asarray(0.3))[0]
    assert generate.counts == before
    assert float(first[0]) != float(second[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_results_may_be_written_where_their_inputs_are(name: str) -> None:
    op, (kernel,) = OPTIMIZERS[name], kernels_for(name)
    sample = next(
        s
        for s in op.samples(np.random.default_rng(0), "float32")
        if "nothing" not in s.name and s.inputs[0].shape == (2, 33, 65)
    )
    specs = tuple(map(TensorSpec.of, sample.inputs))
    attrs = op.complete(sample.attrs)
    outputs = op.infer(specs, **attrs)
    launch = kernel.bind((*specs, *outputs), attrs, {}, 2)
    apart = [spec.empty() for spec in outputs]
    launch(*sample.inputs, *apart)
    given = [None if x is None else x.copy() for x in sample.inputs]
    states = [
        x for label, x in zip(op.inputs, given, strict=True) if x is not None and x.ndim and label != "grad"
    ]
    launch(*given, *states)
    for mine, other in zip(states, apart, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_inputs_that_do_not_fit_are_refused() -> None:
    p, g = np.ones(5, "float32"), np.ones(4, "float32")
    with pytest.raises(ShapeError, match="one shape"):
        optimizer.sgd_step(p, g)
    with pytest.raises(DTypeError, match="float64"):
        optimizer.sgd_step(p, np.ones(5))
    with pytest.raises(ConfigError, match="momentum_buffer"):
        optimizer.sgd_step(p, p, momentum=0.9)
    with pytest.raises(ConfigError, match="no dampening"):
        optimizer.sgd_step(p, p, p, momentum=0.9, dampening=0.1, nesterov=True)
    with pytest.raises(ConfigError, match="beta1"):
        optimizer.adam_step(p, p, p, p, step=1, betas=(1.0, 0.9))
