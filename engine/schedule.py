"""Learning rates that change: functions of the number of updates made so far, with the values of
torch.optim.lr_scheduler.

    optimizer = kw.optim.adam(lr=kw.schedule.cosine(1e-3, steps=1000))
    kw.schedule.one_cycle(0.1, steps=100)(10)                  # also for a number: 0.0366...

A schedule takes a Python number, or the 0-d float64 Array that an optimizer's state has, and answers the
same. `plateau` looks at a measurement instead, and is asked between epochs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..kernels.errors import ConfigError
from . import functional

Schedule = Callable[[Any], Any]


def constant(lr: float) -> Schedule:
    """`lr`, always."""
    return lambda t: lr + 0.0 * t


def step(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """lr times gamma after every `step_size` updates (StepLR)."""
    _check_steps("step", step_size)
    return lambda t: lr * _power(gamma, _apply("floor", t / step_size))


def exponential(lr: float, gamma: float) -> Schedule:
    """lr gamma^t (ExponentialLR)."""
    return lambda t: lr * _power(gamma, t)


def cosine(lr: float, steps: int, lr_min: float = 0.0) -> Schedule:
    """Half a cosine from lr down to lr_min in `steps` updates, and up again (CosineAnnealingLR)."""
    _check_steps("cosine", steps)
    return lambda t: _swing(lr, lr_min, t / steps)


def warmup(then: Schedule | float, steps: int, start: float = 1 / 3) -> Schedule:
    """From `start` times the first rate of `then` up to it in a straight line of `steps` updates, and then
    `then` from its beginning (LinearLR, then another, by SequentialLR).
    """
    _check_steps("warmup", steps)
    after = then if callable(then) else constant(then)
    peak = float(after(0.0))
    return lambda t: _choose(
        t < steps, peak * (start + (1 - start) * t / steps), after(_choose(t < steps, 0.0 * t, t - steps))
    )


def one_cycle(
    lr_max: float, steps: int, pct_start: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> Schedule:
    """Up from lr_max / div_factor by half a cosine in a share `pct_start` of the updates, and down to the
    first rate / final_div_factor in the others (Smith, Topin 2017; OneCycleLR).
    """
    _check_steps("one_cycle", steps)
    first, turn = lr_max / div_factor, pct_start * steps - 1
    if not 0 < pct_start < 1 or turn <= 0:
        raise ConfigError(
            f"one_cycle: pct_start {pct_start} of {steps} updates leaves none on one side; take more updates."
        )
    last = first / final_div_factor

    def rate(t: Any) -> Any:
        up, down = _swing(first, lr_max, t / turn), _swing(lr_max, last, (t - turn) / (steps - 1 - turn))
        return _choose(t <= turn, up, down)

    return rate


@dataclass
class plateau:
    """`lr` times `factor` whenever `patience` measurements in a row were no better than the best one by
    `threshold` of it (ReduceLROnPlateau). `optim.adam(lr=plateau(...))` starts with lr; `train.fit` asks
    after each epoch, and a loop of one's own says `state = optimizer.with_lr(state, p.after(loss))`.
    """

    lr: float
    mode: str = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    lr_min: float = 0.0
    best: float | None = None
    bad: int = 0
    resting: int = field(default=0)

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max") or not 0 < self.factor < 1:
            raise ConfigError(
                f"plateau: mode is 'min' or 'max' and factor between 0 and 1, got {self.mode!r} and "
                f"{self.factor}."
            )

    def after(self, measured: float) -> float:
        """The rate after one more measurement."""
        low = self.mode == "min"
        if self.best is None:
            better = measured == measured  # not for NaN
        else:
            limit = self.best * (1 - self.threshold if low else 1 + self.threshold)
            better = measured < limit if low else measured > limit
        if better:
            self.best, self.bad = measured, 0
        else:
            self.bad += 1
        if self.resting:
            self.resting, self.bad = self.resting - 1, 0
        if self.bad > self.patience:
            smaller = max(self.lr * self.factor, self.lr_min)
            # PyTorch's eps: a change below it is none.
            self.lr = smaller if self.lr - smaller > 1e-8 else self.lr
            self.resting, self.bad = self.cooldown, 0
        return self.lr


def _check_steps(name: str, steps: int) -> None:
    if steps < 1:
        raise ConfigError(f"{name}: a number of updates is 1 or more, got {steps}.")


def _swing(start: float, end: float, part: Any) -> Any:
    """From start to end by half a cosine."""
    return end + (start - end) / 2.0 * (1.0 + _apply("cos", math.pi * part))


def _power(base: float, exponent: Any) -> Any:
    return math.pow(base, exponent) if isinstance(exponent, int | float) else base**exponent


def _apply(name: str, x: Any) -> Any:
    """A function of a number, or of an Array."""
    return getattr(math, name)(x) if isinstance(x, int | float) else functional.get(name)(x)


def _choose(condition: Any, yes: Any, no: Any) -> Any:
    if isinstance(condition, bool):
        return yes if condition else no
    return functional.get("where")(condition, yes, no)
