"""Optimizers as pure functions over trees of Arrays, with the names, defaults and results of torch.optim.

    optimizer = kw.optim.adam(lr=1e-3)
    state = optimizer.init(model)
    model, state = optimizer.update(model, grads, state)        # inside a compiled step, or outside

Only floating-point leaves that are no buffers change. The learning rate is a number, kept in the state
(`state["lr"]`), or a schedule of `kw.schedule`, asked with the number of updates made (`state["step"]`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.errors import ConfigError, ShapeError
from . import tree
from .array import Array, asarray
from .functional import optimizer as steps
from .functional.pointwise import clip, minimum, sqrt
from .schedule import Schedule, plateau

State = dict[str, Any]
Rule = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class Optimizer:
    """`init` and `update` of one rule.

    Attributes:
        name: what it is called.
        lr: the learning rate, a number or a schedule.
        slots: what it keeps for each parameter, and the number that starts with.
        rule: `(p, g, *slots, lr, step) -> (p, *slots)` for one parameter; lr and step are 0-d float64.
    """

    name: str
    lr: float | Schedule | plateau
    slots: dict[str, float]
    rule: Rule

    def init(self, params: Any) -> State:
        """The state before the first update, a tree of Arrays on the device of the parameters."""
        chosen = [leaf for leaf, yes in _trainable(params) if yes]
        if not chosen:
            raise ConfigError(f"{self.name}: params hold no floating-point Array to train.")
        device = chosen[0].device if isinstance(chosen[0], Array) else "cpu"
        state: State = {"step": asarray(np.zeros((), "float64"), device=device)}
        if not callable(self.lr):
            lr = self.lr.lr if isinstance(self.lr, plateau) else self.lr
            state["lr"] = asarray(np.asarray(lr, "float64"), device=device)
        for name, start in self.slots.items():
            state[name] = tuple(asarray(np.full(p.shape, start, p.dtype), device=device) for p in chosen)
        return state

    def with_lr(self, state: State, lr: float) -> State:
        """The state with another learning rate.

        Raises:
            ConfigError: when a schedule gives it.
        """
        if "lr" not in state:
            raise ConfigError(
                f"{self.name}: a schedule gives the learning rate; make it with a number, lr={lr}."
            )
        return {**state, "lr": asarray(np.asarray(lr, "float64"), device=state["lr"].device)}

    def update(self, params: Any, grads: Any, state: State) -> tuple[Any, State]:
        """One step down the gradients.

        Args:
            params: the model, or any tree of Arrays.
            grads: of the same structure, as `kw.grad` gives them.
            state: what `init` or the last `update` gave.

        Returns:
            The new parameters and the new state.

        Raises:
            ShapeError: when the three do not belong together.
        """
        flags, structure = _trainable(params), tree.flatten(params)[1]
        slopes, other = tree.flatten(grads, "grads")
        if other != structure:
            raise ShapeError(
                f"{self.name}: params and grads differ: {structure.difference(other)}. Give what "
                "kw.grad(loss)(params) returned for these params."
            )
        count = sum(yes for _, yes in flags)
        if any(len(state.get(name, ())) != count for name in self.slots):
            raise ShapeError(
                f"{self.name}: the state is not that of these {count} parameters; write init(params)."
            )
        step = state["step"] + 1.0
        lr = self.lr(state["step"]) if callable(self.lr) else state["lr"]
        kept = zip(*(state[name] for name in self.slots), strict=True) if self.slots else iter([()] * count)
        made, slots = [], []
        for (leaf, yes), slope in zip(flags, slopes, strict=True):
            new, *rest = self.rule(leaf, slope, *next(kept), lr, step) if yes else (leaf,)
            made.append(new)
            if yes:
                slots.append(rest)
        columns = zip(*slots, strict=True)
        after = {**state, "step": step, **dict(zip(self.slots, map(tuple, columns), strict=False))}
        return structure.unflatten(made), after


def sgd(
    lr: float | Schedule | plateau = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """p - lr g, or with momentum b = momentum b + (1 - dampening) g in the place of g (Sutskever 2013).

    Raises:
        ConfigError: for Nesterov's momentum without momentum, or with dampening.
    """
    if nesterov and (momentum <= 0 or dampening):
        raise ConfigError(f"sgd: nesterov needs a momentum and no dampening, got {momentum} and {dampening}.")

    more: dict[str, Any] = {
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
    }

    def rule(p: Any, g: Any, *rest: Any) -> tuple[Any, ...]:
        *slot, lr, step = rest
        return steps.sgd_step(p, g, *slot, lr=lr, step=step, **more)

    return Optimizer("sgd", lr, {"momentum": 0.0} if momentum else {}, rule)


def adam(
    lr: float | Schedule | plateau = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """p - lr m' / (sqrt(v') + eps) with the bias-corrected means m', v' of g and g^2 (Kingma, Ba 2015)."""
    return _adam(steps.adam_step, lr, betas, eps, weight_decay, amsgrad)


def adamw(
    lr: float | Schedule | plateau = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
) -> Optimizer:
    """`adam` on p (1 - lr weight_decay): decay that the means do not see (Loshchilov, Hutter 2019)."""
    return _adam(steps.adamw_step, lr, betas, eps, weight_decay, amsgrad)


def _adam(
    update: Rule, rate: Any, betas: tuple[float, float], eps: float, decay: float, amsgrad: bool
) -> Optimizer:
    name = update.__name__.removesuffix("_step")
    if not all(0 <= beta < 1 for beta in betas):
        raise ConfigError(f"{name}: betas are in 0..1, without 1, got {betas}.")

    def rule(p: Any, g: Any, *rest: Any) -> tuple[Any, ...]:
        *slots, lr, step = rest
        return update(p, g, *slots, lr=lr, step=step, betas=betas, eps=eps, weight_decay=decay)

    slots = {"exp_avg": 0.0, "exp_avg_sq": 0.0, **({"max_exp_avg_sq": 0.0} if amsgrad else {})}
    return Optimizer(name, rate, slots, rule)


def rmsprop(
    lr: float | Schedule | plateau = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> Optimizer:
    """p - lr g / (sqrt(v) + eps) with v the running mean of g^2, or centered, the variance (Hinton 2012)."""
    slots = {"square_avg": 0.0}
    slots |= {"grad_avg": 0.0} if centered else {}
    slots |= {"momentum_buffer": 0.0} if momentum else {}

    more: dict[str, Any] = {"alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}

    def rule(p: Any, g: Any, *rest: Any) -> tuple[Any, ...]:
        *kept, lr, _ = rest
        return steps.rmsprop_step(p, g, lr=lr, **dict(zip(slots, kept, strict=True)), **more)

    return Optimizer("rmsprop", lr, slots, rule)


def adagrad(
    lr: float | Schedule | plateau = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> Optimizer:
    """p - lr g / (sqrt(s) + eps) with s the sum of all g^2 so far (Duchi, Hazan, Singer 2011)."""

    more: dict[str, Any] = {"lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay}

    def rule(p: Any, g: Any, sums: Any, lr: Any, step: Any) -> tuple[Any, ...]:
        return steps.adagrad_step(p, g, sums, lr=lr, step=step, **more)

    return Optimizer("adagrad", lr, {"sum": initial_accumulator_value}, rule)


def global_norm(grads: Any) -> Array:
    """The square root of the sum of all leaves' squares, 0-d float32 (float64 when a leaf is)."""
    leaves = [leaf for leaf, yes in _trainable(grads) if yes]
    wide = "float64" if any(leaf.dtype == np.float64 for leaf in leaves) else "float32"
    squares = [(x * x).sum() for x in (leaf.astype(wide) for leaf in leaves)]
    return sqrt(sum(squares[1:], squares[0]))


def clip_by_global_norm(grads: Any, max_norm: float) -> tuple[Any, Array]:
    """Gradients scaled down to a global norm of at most `max_norm`, and the norm that they had.

    As torch.nn.utils.clip_grad_norm_: the factor is max_norm / (norm + 1e-6), if that is below 1.
    """
    norm = global_norm(grads)
    factor = minimum(max_norm / (norm + 1e-6), 1.0)
    return tree.map(lambda g: g * _as(factor, g) if tree.is_float(g) else g, grads), norm


def clip_by_value(grads: Any, limit: float) -> Any:
    """Gradients with every element within -limit..limit."""
    return tree.map(lambda g: clip(g, -limit, limit) if tree.is_float(g) else g, grads)


def _trainable(params: Any) -> list[tuple[Any, bool]]:
    """Each leaf, and whether an optimizer changes it."""
    leaves, structure = tree.flatten(params, "params")
    flags = zip(leaves, structure.trainable(), strict=True)
    return [(leaf, yes and tree.is_float(leaf)) for leaf, yes in flags]


def _as(scalar: Any, like: Any) -> Any:
    """A 0-d Array in the dtype of another, for arithmetic with it."""
    return scalar.astype(like.dtype)
