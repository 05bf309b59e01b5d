"""What a baseline is, and the registry that finds them."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ...kernels.errors import KernelwrightError, RegistrationError, did_you_mean
from ...kernels.op import AnyArray
from ..problems import Problem
from ..timing import Lane

Inputs = tuple[AnyArray, ...]


class UnknownBaselineError(KernelwrightError, LookupError):
    """No baseline has that name; the text says which there are."""


class Baseline(ABC):
    """One library that computes some operations.

    Attributes:
        name: what `--baseline` takes and results are keyed by.
        module: the Python module that must be installed.
        install: what to write to get it.
        devices: where it computes.
        order: the lower, the earlier in tables; the first that is right is what our error is judged beside.
    """

    name: str
    module: str
    install: str
    devices: tuple[str, ...] = ("cpu",)
    order: int = 10

    def missing(self) -> str | None:
        """None when it can be used, else what to install."""
        if find_spec(self.module) is not None:
            return None
        return f"{self.module} is not installed: {self.install}"

    def describe(self) -> str:
        """Name, version, and the library underneath."""
        return f"{self.module} {metadata.version(self.module)}"

    @abstractmethod
    def unsupported(self, problem: Problem) -> str | None:
        """None when it computes this problem, else why not."""

    @abstractmethod
    def session(self, threads: int) -> AbstractContextManager[None]:
        """Sets the library up for `threads` threads, and puts everything back afterwards.

        Raises:
            DeviceError: the number of threads can't be set.
        """

    @abstractmethod
    def lane(self, problem: Problem, inputs: Sequence[Inputs]) -> Lane:
        """The contestant: calls of the library's own public function on these inputs, with outputs of its
        own.

        Args:
            problem: what is computed.
            inputs: operand sets, one for a warm cache or many for a cold one. The lane reads the same memory
                as the other contestant does, so that alignment and page size are equal.
        """


_BASELINES: dict[str, Baseline] = {}


def register(baseline: Baseline) -> None:
    """Makes a baseline known.

    Raises:
        RegistrationError: another class already has that name.
    """
    known = _BASELINES.get(baseline.name)
    if known is not None and type(known) is not type(baseline):
        raise RegistrationError(
            f"two baselines are called {baseline.name!r}: {type(known).__module__} and "
            f"{type(baseline).__module__}. Rename one."
        )
    _BASELINES[baseline.name] = baseline


@cache
def _discover() -> None:
    folder = Path(__file__).parent
    for module in pkgutil.iter_modules([str(folder)]):
        if module.name != "base":
            importlib.import_module(f"{__package__}.{module.name}")


def baselines() -> tuple[Baseline, ...]:
    """Every baseline, installed or not."""
    _discover()
    return tuple(sorted(_BASELINES.values(), key=lambda baseline: (baseline.order, baseline.name)))


def get_baseline(name: str) -> Baseline:
    """The baseline of that name.

    Raises:
        UnknownBaselineError: there is none.
    """
    _discover()
    if name not in _BASELINES:
        raise UnknownBaselineError(
            f"no baseline is called {name!r}.{did_you_mean(name, _BASELINES)} "
            f"Baselines: {', '.join(_BASELINES)}."
        )
    return _BASELINES[name]


def usable(problem: Problem, candidates: Sequence[Baseline]) -> Iterator[Baseline]:
    """Those of the candidates that are installed and compute this problem."""
    for baseline in candidates:
        if baseline.missing() is None and baseline.unsupported(problem) is None:
            yield baseline
