"""The ops `sgd`, `adam`, `rmsprop` and `adagrad`: one update of a parameter and of what is kept for it.

    param, grad, states, scalars -> new param, new states        all but the scalars of one shape and dtype

The scalars, such as the learning rate, are 0-d inputs: another one is no other program. They are of the dtype
that is computed with: float32 for 16-bit parameters, whose states are of 16 bits too, as in PyTorch.
`rules.py` has the formulas. `adam` with `shrink` is AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec, np_dtype
from . import rules

DTYPES = ("float32", "float64", "bfloat16", "float16")


class Rule(NamedTuple):
    """An update rule as an op.

    Attributes:
        update: of `rules`.
        states: names of what is kept, in the order of inputs and outputs.
        optional: of them and of the scalars, those that may be left out.
        scalars: names of the 0-d inputs.
        attrs: with defaults, PyTorch's.
        positive: the states that are sums of squares.
        flops: for each element.
        doc: one line.
    """

    update: Callable[..., tuple[Any, ...]]
    states: tuple[str, ...]
    optional: tuple[str, ...]
    scalars: tuple[str, ...]
    attrs: Mapping[str, Any]
    positive: tuple[str, ...]
    flops: int
    doc: str


RULES = {
    "sgd": Rule(
        rules.sgd,
        ("momentum_buffer",),
        ("momentum_buffer",),
        ("lr", "share"),
        {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False},
        (),
        6,
        "One step of stochastic gradient descent, with momentum where there is a buffer.",
    ),
    "adam": Rule(
        rules.adam,
        ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        ("max_exp_avg_sq", "shrink"),
        ("size", "root", "shrink"),
        {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0},
        ("exp_avg_sq", "max_exp_avg_sq"),
        13,
        "One step of Adam, with `shrink` of AdamW, with `max_exp_avg_sq` of AMSGrad.",
    ),
    "rmsprop": Rule(
        rules.rmsprop,
        ("square_avg", "grad_avg", "momentum_buffer"),
        ("grad_avg", "momentum_buffer"),
        ("lr",),
        {"alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0},
        ("square_avg",),
        9,
        "One step of RMSprop, centered where there is a grad_avg.",
    ),
    "adagrad": Rule(
        rules.adagrad,
        ("sum",),
        (),
        ("lr",),
        {"eps": 1e-10, "weight_decay": 0.0},
        ("sum",),
        7,
        "One step of Adagrad.",
    ),
}


def wide_dtype(dtype: str) -> str:
    """What is computed with for parameters of a dtype."""
    return "float64" if dtype == "float64" else "float32"


def _inputs(rule: Rule) -> tuple[str, ...]:
    return ("param", "grad", *rule.states, *rule.scalars)


def _declared(name: str, rule: Rule) -> Op:
    states = slice(2, 2 + len(rule.states))

    def infer(specs: Specs, **attrs: Any) -> Specs:
        dtype = op.check_inputs(specs)
        param = specs[0]
        for label, spec in zip(op.inputs[1 : states.stop], specs[1:], strict=False):
            if spec.present and spec.shape != param.shape:
                raise ShapeError(f"{name}: {label} is {spec}, but param is {param}; they have one shape.")
        for label, spec in zip(rule.scalars, specs[states.stop :], strict=True):
            if spec.present and (spec.shape or spec.dtype != wide_dtype(dtype)):
                raise DTypeError(
                    f"{name}: {label} is {spec}; it is one number, 0-d, of {wide_dtype(dtype)}: write "
                    f"np.asarray({label}, {wide_dtype(dtype)!r})."
                )
        _check(name, attrs, specs)
        kept = TensorSpec(param.shape, dtype, param.device)
        return (kept, *(kept for spec in specs[states] if spec.present))

    def reference(*arrays: Any, **attrs: Any) -> tuple[AnyArray, ...]:
        with np.errstate(all="ignore"):
            return tuple(map(np.asarray, rule.update(np, *arrays, **attrs)))

    def magnitude(*arrays: Any, **attrs: Any) -> tuple[AnyArray, ...]:
        with np.errstate(all="ignore"):
            return _magnitude(name, rule, arrays, attrs)

    def cost(specs: Specs, **attrs: Any) -> Cost:
        inputs = specs[: len(op.inputs)]
        outputs = infer(inputs, **attrs)
        moved = sum(spec.nbytes for spec in (*inputs, *outputs) if spec.present)
        return Cost(rule.flops * specs[0].size, moved)

    def draw(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
        return tuple(
            _drawn(rng, rule, label, spec) if spec.present else None
            for label, spec in zip(op.inputs, specs, strict=True)
        )

    def samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
        yield from _samples(rng, name, rule, dtype)

    op = Op(
        name=name,
        infer=infer,
        reference=reference,
        magnitude=magnitude,
        cost=cost,
        samples=samples,
        reduction_length=lambda specs, **attrs: 8,
        inputs=_inputs(rule),
        attrs=rule.attrs,
        dtypes=DTYPES,
        doc=rule.doc,
        family="optimizer",
        optional=rule.optional,
        own_dtype=rule.scalars,
        draw=draw,
        in_place=True,
    )
    return op


def _check(name: str, attrs: Mapping[str, Any], specs: Specs) -> None:
    for label in ("beta1", "beta2"):
        if label in attrs and not 0.0 <= attrs[label] < 1.0:
            raise ConfigError(f"{name}: {label} is {attrs[label]}; it is in 0..1, without 1.")
    if attrs.get("nesterov") and not (attrs["momentum"] > 0 and specs[2].present):
        raise ConfigError(
            f"{name}: nesterov=True takes a momentum above 0 and a momentum_buffer; momentum is "
            f"{attrs['momentum']}."
        )


def _magnitude(name: str, rule: Rule, arrays: tuple[Any, ...], attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The sizes of the terms of each output: of a difference, of both; of a quotient, by its divisor."""
    given = dict(zip(_inputs(rule), arrays, strict=True))
    p, lr = np.abs(given["param"]), given.get("lr")
    g = np.abs(given["grad"]) + attrs["weight_decay"] * p
    states = [given[label] for label in rule.states]
    after = rule.update(np, *arrays, **attrs)
    if name == "sgd":
        if states[0] is None:
            return (p + lr * g,)
        b = attrs["momentum"] * np.abs(states[0]) + given["share"] * g
        return p + lr * ((g + attrs["momentum"] * b) if attrs["nesterov"] else b), b
    if name == "adagrad":
        s = states[0] + g * g
        return p + lr * g / (np.sqrt(after[1]) + attrs["eps"]) * (1 + s / np.maximum(after[1], 1e-300)), s
    decay = attrs["beta2" if name == "adam" else "alpha"]
    square = decay * states[0 if name == "rmsprop" else 1] + (1 - decay) * g * g
    if name == "adam":
        mean = np.abs(states[0]) + (1 - attrs["beta1"]) * (g + np.abs(states[0]))
        spread = after[3] if states[2] is not None else after[2]
        step = given["size"] * mean / (np.sqrt(spread) * given["root"] + attrs["eps"])
        tops = () if states[2] is None else (np.maximum(states[2], square),)
        return p + step * (1 + square / np.maximum(spread, 1e-300)), mean, square, *tops
    made, spread, loose = [square], after[1], square
    if states[1] is not None:
        mean = np.abs(states[1]) + (1 - decay) * (g + np.abs(states[1]))
        made.append(mean)
        spread, loose = after[1] - after[2] ** 2, square + mean * mean
    step = g / (np.sqrt(spread) + attrs["eps"]) * (1 + loose / np.maximum(np.abs(spread), 1e-300))
    if states[2] is not None:
        step = attrs["momentum"] * np.abs(states[2]) + step
        made.append(step)
    return p + lr * step, *made


# --- samples ------------------------------------------------------------------------------------------------

# Attributes to try beside the defaults.
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "sgd": (
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        {"weight_decay": 0.1},
    ),
    "adam": ({}, {"weight_decay": 0.01, "beta1": 0.8}, {"eps": 1e-3, "beta2": 0.5}),
    "rmsprop": ({}, {"momentum": 0.9, "weight_decay": 0.01}, {"alpha": 0.9, "eps": 1e-3}),
    "adagrad": ({}, {"weight_decay": 0.01}, {"eps": 1e-3}),
}
_SCALARS = {"lr": 0.01, "share": 0.9, "size": 0.002, "root": 1.7, "shrink": 0.99}


def _drawn(rng: np.random.Generator, rule: Rule, label: str, spec: TensorSpec) -> AnyArray:
    if label in _SCALARS:
        return np.asarray(_SCALARS[label], spec.np_dtype)
    return np.asarray(_contents(rng, rule, label, spec.shape), spec.np_dtype)


def _contents(rng: np.random.Generator, rule: Rule, label: str, shape: tuple[int, ...]) -> AnyArray:
    """Normal numbers; for states that are sums of squares, larger than the square of any mean of theirs."""
    if label in rule.positive:
        return np.asarray(rng.uniform(1.0, 3.0, shape))
    return np.asarray(rng.standard_normal(shape) * (0.5 if label == "grad_avg" else 1.0))


def _samples(rng: np.random.Generator, name: str, rule: Rule, dtype: str) -> Iterator[Sample]:
    kind, wide = np_dtype(dtype), np_dtype(wide_dtype(dtype))

    def inputs(shape: tuple[int, ...], without: tuple[str, ...] = ()) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for label in _inputs(rule):
            scalar = label in rule.scalars
            value = np.asarray(_SCALARS[label]) if scalar else _contents(rng, rule, label, shape)
            made[label] = None if label in without else np.asarray(value, wide if scalar else kind)
        return made

    for shape in ((), (1,), (17,), (3, 5), (2, 33, 65), (0, 3)):
        for place, attrs in enumerate(_VARIANTS[name]):
            without = () if attrs.get("nesterov") or place == 0 else rule.optional[: 1 + place % 2]
            given = inputs(shape, without)
            yield Sample(f"{list(shape)}, {attrs}", tuple(given.values()), attrs)
    if rule.optional:
        yield Sample("nothing optional", tuple(inputs((40,), rule.optional).values()))
    given = inputs((6, 10))
    turned = {k: x.T if x is not None and x.ndim == 2 else x for k, x in given.items()}
    yield Sample("turned", tuple(turned.values()))
    spread = {k: x[::2, ::-1] if x is not None and x.ndim == 2 else x for k, x in given.items()}
    spread["grad"] = np.broadcast_to(spread["grad"][:1, :1], (3, 10))
    yield Sample("steps, one gradient for all", tuple(spread.values()))


OPTIMIZERS = {name: register_op(_declared(name, rule)) for name, rule in RULES.items()}
