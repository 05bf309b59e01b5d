"""What a network file declares, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ....engine import optim
from ....kernels.errors import KernelwrightError, did_you_mean

NAMES = ("mlp", "lenet", "resnet18", "lstm", "transformer")
GPU_NAMES = ("mlp_gpu", "lstm_gpu", "transformer_gpu", "resnet50")

Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class UnknownNetworkError(KernelwrightError, LookupError):
    """No network has that name; the text says which there are."""


@dataclass(frozen=True)
class Network:
    """A network as both libraries have it, and how it is trained.

    Attributes:
        name: what the command line calls it.
        told: what it is, in words.
        ours: the model as a kernelwright Module, drawn from a seed.
        theirs: the model as a torch.nn.Module, with attributes of the same names.
        draw: (generator, batch size) -> (inputs, labels), as NumPy arrays.
        batch: examples in a training step.
        optimizer: a name that both `kw.optim` and `torch.optim` have, in the latter's capitals.
        settings: its arguments besides the learning rate, which both take.
        lr: the learning rate of the steps that are compared.
        goal: what issue of the race is wanted: torch's time of a training step over ours.
        precision: what both compute in, from parameters kept in float32; None for float32 throughout.
    """

    name: str
    told: str
    ours: Callable[[int], Any]
    theirs: Callable[[], Any]
    draw: Callable[[np.random.Generator, int], Batch]
    batch: int
    optimizer: str
    settings: dict[str, Any]
    lr: float
    goal: float
    precision: str | None = None

    def our_optimizer(self, lr: float) -> optim.Optimizer:
        """The optimizer of a kernelwright model."""
        made: optim.Optimizer = getattr(optim, self.optimizer.lower())(lr, **self.settings)
        return made

    def their_optimizer(self, params: Any, lr: float, **how: Any) -> Any:
        """The optimizer of a torch model; `how` is one of fused, foreach and capturable."""
        import torch

        return getattr(torch.optim, self.optimizer)(params, lr=lr, **self.settings, **how)


def networks() -> tuple[Network, ...]:
    """All of them, the small ones first."""
    return tuple(get_network(name) for name in NAMES)


def get_network(name: str) -> Network:
    """The network of that name.

    Raises:
        UnknownNetworkError: there is none.
    """
    known = (*NAMES, *GPU_NAMES)
    if name not in known:
        raise UnknownNetworkError(
            f"no network is called {name!r}.{did_you_mean(name, known)} Networks: {', '.join(known)}."
        )
    network: Network = import_module(f".{name}", __package__).NETWORK
    return network
