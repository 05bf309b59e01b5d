"""What a model needs in training and not otherwise: keys for dropout, and a place for new running statistics.

    def loss(model, x, labels, key):
        with nn.training(key) as run:
            logits = model(x)
        return kw.cross_entropy(logits, labels), run.updated(model)

    (value, model), grads = kw.value_and_grad(loss, has_aux=True)(model, x, labels, key)

Outside of `nn.training` a model infers: dropout lets everything through, batch norms use their running
statistics. So no switch is stored in the model, which would be another structure to compile and to keep
optimizer state for, and none can be forgotten. `y, model = nn.stateful(model, x, key=key)` is the same for a
single call.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from ...kernels.errors import ConfigError
from ..array import Array
from ..functional.random import fold_in
from .module import Module

_RUN: ContextVar[training | None] = ContextVar("training", default=None)


class training:
    """Within it, models are trained: `with nn.training(key) as run: y = model(x)`.

    Args:
        key: from `kw.random.key(seed)` or `kw.random.split`, one for each step; needed when there is dropout.
            Each use in turn draws from a key of its own.
    """

    def __init__(self, key: Any = None) -> None:
        self._key, self._drawn = key, 0
        self._new: dict[int, tuple[Module, Module]] = {}
        self._token: Token[training | None] | None = None

    def __enter__(self) -> Self:
        self._token = _RUN.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _RUN.reset(self._token)
            self._token = None

    def next_key(self, who: str) -> Array:
        """A key that no other use in this run has; `who` asks, for the error.

        Raises:
            ConfigError: when the run has no key.
        """
        if self._key is None:
            raise ConfigError(
                f"{who} needs a key in training; write nn.training(key), with kw.random.key(0)."
            )
        self._drawn += 1
        return fold_in(self._key, self._drawn - 1)

    def latest(self, module: Module) -> Any:
        """The Module as this run has left it."""
        return self._new.get(id(module), (module, module))[1]

    def record(self, module: Module, **changes: Any) -> None:
        """Note other values for a Module's attributes, which `updated` puts into the model."""
        self._new[id(module)] = (module, self.latest(module).replace(**changes))

    def updated(self, model: Any) -> Any:
        """The model, or any tree that holds it, with what was recorded."""
        if not self._new:
            return model
        if isinstance(model, Module):
            if id(model) in self._new:
                return self._new[id(model)][1]
            changes = {name: self.updated(value) for name, value in vars(model).items()}
            changes = {name: value for name, value in changes.items() if value is not vars(model)[name]}
            return model.replace(**changes) if changes else model
        if isinstance(model, dict) or hasattr(model, "keys"):
            made = {key: self.updated(value) for key, value in model.items()}
            return made if any(made[key] is not model[key] for key in made) else model
        if type(model) in (list, tuple):
            parts = [self.updated(part) for part in model]
            same = all(new is old for new, old in zip(parts, model, strict=True))
            return model if same else type(model)(parts)
        return model


def current() -> training | None:
    """The run of `nn.training` that we are in; None for inference."""
    return _RUN.get()


def stateful(model: Any, *args: Any, key: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    """One call in training: `y, model = nn.stateful(model, x, key=key)`, with the new running statistics."""
    with training(key) as run:
        y = model(*args, **kwargs)
    return y, run.updated(model)
