"""Optimizers against torch.optim, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine import nn
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam_decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    "amsgrad": ("Adam", {"lr": 0.01, "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.2}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "rmsprop_all": (
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.8, "centered": True, "weight_decay": 0.01},
    ),
    "adagrad": ("Adagrad", {"lr": 0.05}),
    "adagrad_all": (
        "Adagrad",
        {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.3, "eps": 1e-6},
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_updates_are_those_of_pytorch(name: str, dtype: str) -> None:
    theirs, options = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(dtype) for shape in ((3, 5), (4,))]
    tensors = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    other = getattr(torch.optim, theirs)(tensors, **options)
    optimizer = getattr(kw.optim, theirs.lower())(**options)
    params: Any = {"w": kw.array(start[0]), "b": [kw.array(start[1]), None]}
    state = optimizer.init(params)
    for _ in range(12):
        slopes = [rng.standard_normal(p.shape).astype(dtype) for p in start]
        for tensor, slope in zip(tensors, slopes, strict=True):
            tensor.grad = torch.tensor(slope)
        other.step()
        params, state = optimizer.update(
            params, {"w": kw.array(slopes[0]), "b": [kw.array(slopes[1]), None]}, state
        )
    bound = 1e-5 if dtype == "float32" else 1e-13
    for mine, tensor in zip((params["w"], params["b"][0]), tensors, strict=True):
        assert mine.dtype == dtype
        np.testing.assert_allclose(np.asarray(mine), tensor.detach().numpy(), rtol=bound, atol=bound)


def test_a_schedule_gives_each_updates_rate() -> None:
    rates = kw.schedule.warmup(kw.schedule.one_cycle(0.5, 20), 4)
    optimizer = kw.optim.sgd(lr=rates)
    params, state = kw.array(np.zeros(1)), None
    state = optimizer.init(params)
    assert "lr" not in state
    for count in range(30):
        before = float(params[0])
        params, state = optimizer.update(params, kw.array(-np.ones(1)), state)
        assert float(params[0]) - before == pytest.approx(rates(count), rel=1e-9, abs=1e-12)


def test_the_rate_in_the_state_can_be_changed() -> None:
    optimizer = kw.optim.sgd(lr=kw.schedule.plateau(0.5))
    params = kw.array(np.zeros(1))
    state = optimizer.init(params)
    params, state = optimizer.update(params, kw.array(np.ones(1)), state)
    params, _ = optimizer.update(params, kw.array(np.ones(1)), optimizer.with_lr(state, 0.25))
    assert params.tolist() == [-0.75]
    with pytest.raises(ConfigError, match="a schedule gives the learning rate"):
        kw.optim.sgd(lr=rates_of_one).with_lr({}, 1.0)


def rates_of_one(t: Any) -> Any:
    return 1.0


def test_buffers_and_whole_numbers_stay() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            self.norm = nn.BatchNorm1d(2)
            self.count = kw.array([1, 2])

    model = Odd()
    optimizer = kw.optim.adamw(0.1)
    state = optimizer.init(model)
    assert len(state["exp_avg"]) == 2
    after, _ = optimizer.update(model, model, state)
    for name, array in nn.state_dict(after).items():
        same = array is nn.state_dict(model)[name]
        assert same == (name not in ("norm.weight", "norm.bias"))


@pytest.mark.parametrize("norm", [0.5, 1e3])
def test_clipping_is_that_of_pytorch(norm: float) -> None:
    rng = np.random.default_rng(0)
    slopes = [rng.standard_normal(shape).astype("f4") for shape in ((3, 5), (4,))]
    tensors = [torch.nn.Parameter(torch.zeros(g.shape)) for g in slopes]
    for tensor, slope in zip(tensors, slopes, strict=True):
        tensor.grad = torch.tensor(slope)
    theirs = torch.nn.utils.clip_grad_norm_(tensors, norm)
    mine, before = kw.optim.clip_by_global_norm([kw.array(g) for g in slopes], norm)
    assert float(before) == pytest.approx(float(theirs), rel=1e-6)
    for one, tensor in zip(mine, tensors, strict=True):
        np.testing.assert_allclose(np.asarray(one), tensor.grad.numpy(), rtol=1e-6)
    (clipped,) = kw.optim.clip_by_value([kw.array(slopes[0])], 0.3)
    np.testing.assert_array_equal(np.asarray(clipped), slopes[0].clip(np.float32(-0.3), np.float32(0.3)))


def test_what_does_not_belong_together_is_refused() -> None:
    optimizer = kw.optim.adam()
    params = {"w": kw.array([1.0]), "b": kw.array([1.0])}
    state = optimizer.init(params)
    with pytest.raises(ShapeError, match=r"params and grads differ: the tree has \['b', 'w'\]"):
        optimizer.update(params, {"w": kw.array([1.0])}, state)
    with pytest.raises(ShapeError, match="the state is not that of these 1 parameters"):
        optimizer.update({"w": kw.array([1.0])}, {"w": kw.array([1.0])}, state)
    with pytest.raises(DTypeError, match=r"params\['lr'\] is a float"):
        optimizer.init({"lr": 0.1})
    with pytest.raises(ConfigError, match="no floating-point Array to train"):
        optimizer.init([kw.array([1])])


@pytest.mark.parametrize(
    "make",
    [
        lambda: kw.optim.sgd(nesterov=True),
        lambda: kw.optim.sgd(momentum=0.9, dampening=0.1, nesterov=True),
        lambda: kw.optim.adam(betas=(0.9, 1.0)),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()
