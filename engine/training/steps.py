"""The compiled functions of a training loop: a step, or a gathering of gradients and an update; a judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import nn, optim, tree
from ..autograd import value_and_grad
from ..compile import compile as compiled
from .precision import kept_finite, lowered, scaled, unscaled


class Steps:
    """What moves a model and its optimizer's state; each writes over the model and state that it is given.

    Attributes:
        step: `(model, state, scale, key, *batch) -> (model, state, scale, numbers)`.
        gather: `(model, total, scale, key, *batch) -> (model, total, numbers)`: gradients of one more batch.
        average: `(model, state, scale, total, count) -> (model, state, scale)`: an update by their mean.
    """

    def __init__(
        self,
        loss_fn: Callable[..., Any],
        optimizer: optim.Optimizer,
        clip_norm: float | None,
        precision: str | None,
    ) -> None:
        slopes = _slopes(loss_fn, precision)

        def update(model: Any, state: Any, scale: Any, grads: Any) -> tuple[Any, Any, Any]:
            given = grads
            if clip_norm is not None:
                grads, _ = optim.clip_by_global_norm(grads, clip_norm)
            params, rest = nn.partition(model)
            after = optimizer.update(params, grads, state)
            (params, state), scale = kept_finite(given, scale, (params, state), after)
            return nn.combine(params, rest), state, scale

        def step(model: Any, state: Any, scale: Any, key: Any, *batch: Any) -> tuple[Any, ...]:
            model, grads, numbers = slopes(model, scale, key, *batch)
            return (*update(model, state, scale, grads), numbers)

        def gather(model: Any, total: Any, scale: Any, key: Any, *batch: Any) -> tuple[Any, ...]:
            model, grads, numbers = slopes(model, scale, key, *batch)
            return model, tree.map(lambda one, more: one + more, total, grads), numbers

        def average(model: Any, state: Any, scale: Any, total: Any, count: Any) -> tuple[Any, Any, Any]:
            return update(model, state, scale, tree.map(lambda one: one / count.astype(one.dtype), total))

        self.step = compiled(step, donate=(0, 1, 2))
        self.gather = compiled(gather, donate=(0, 1))
        self.average = compiled(average, donate=(0, 1, 2, 3))


def _slopes(loss_fn: Callable[..., Any], precision: str | None) -> Callable[..., Any]:
    """`(model, scale, key, *batch) -> (model with new buffers, its parameters' gradients, numbers)`."""

    def loss(params: Any, rest: Any, scale: Any, key: Any, *batch: Any) -> tuple[Any, Any]:
        used, stands = lowered(nn.combine(params, rest), precision)
        with nn.training(key) as run:
            numbers = named(loss_fn(stands, *batch))
        return scaled(numbers["loss"], scale), (nn.partition(run.updated(used))[1], numbers)

    differentiated = value_and_grad(loss, has_aux=True)

    def slopes(model: Any, scale: Any, key: Any, *batch: Any) -> tuple[Any, Any, Any]:
        params, rest = nn.partition(model)
        (_, (rest, numbers)), grads = differentiated(params, rest, scale, key, *batch)
        return nn.combine(params, rest), unscaled(grads, scale), numbers

    return slopes


def judge_of(loss_fn: Callable[..., Any], precision: str | None) -> Callable[..., Any]:
    """`(model, *batch) -> numbers`, outside of training."""

    def judge(model: Any, *batch: Any) -> Any:
        return named(loss_fn(lowered(model, precision)[1], *batch))

    made: Callable[..., Any] = compiled(judge)
    return made


def named(result: Any) -> dict[str, Any]:
    """What a loss function gave, by name."""
    loss, more = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    return {"loss": loss, **more}
