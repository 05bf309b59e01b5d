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
from ..problems import Inputs, Problem
from ..timing import Lane


class UnknownBaselineError(KernelwrightError, LookupError):
    """No baseline has that name; the text says which there are."""


class Baseline(ABC):
    """One way in which a library computes some operations.

    Attributes:
        name: what `--baseline` takes and results are keyed by. Several may share a name when they compute
            different operations.
        ops: the names of these operations.
        module: the Python module that must be installed.
        install: what to write to get it.
        devices: where it computes.
        order: the lower, the earlier in tables; the first that is right is what our error is judged beside.
    """

    name: str
    ops: tuple[str, ...]
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

    def unsupported(self, problem: Problem) -> str | None:
        """None when it computes this problem, else why not."""
        if problem.op not in self.ops:
            return f"this baseline computes {', '.join(self.ops)}, not {problem.op}"
        return self.why_not(problem)

    def why_not(self, problem: Problem) -> str | None:
        """None when it computes this problem of one of its operations, else why not."""
        return None

    @abstractmethod
    def session(self, threads: int) -> AbstractContextManager[None]:
        """Sets the library up for `threads` threads, and puts everything back afterwards.

        Raises:
            DeviceError: the number of threads can't be set.
        """

    @abstractmethod
    def lane(self, problem: Problem, sets: Sequence[Inputs]) -> Lane:
        """The contestant: calls of the library's own public function on these inputs. It writes into outputs
        of its own, or allocates new ones in each call; the other side does the same.

        Args:
            problem: what is computed. A weight that is marked as packed may be reordered here.
            sets: operand sets, one for a warm cache or many for a cold one. The lane reads the same memory
                as the other contestant does, so that alignment and page size are equal.
        """


_BASELINES: dict[tuple[str, str], Baseline] = {}


def register(baseline: Baseline) -> None:
    """Makes a baseline known.

    Raises:
        RegistrationError: another class already has that name for one of its operations.
    """
    for op in baseline.ops:
        known = _BASELINES.get((baseline.name, op))
        if known is not None and type(known) is not type(baseline):
            raise RegistrationError(
                f"two baselines are called {baseline.name!r}: {type(known).__module__} and "
                f"{type(baseline).__module__} both compute {op}. Rename one."
            )
    for op in baseline.ops:
        _BASELINES[baseline.name, op] = baseline


@cache
def _discover() -> None:
    folder = Path(__file__).parent
    for module in pkgutil.iter_modules([str(folder)]):
        if module.name != "base":
            importlib.import_module(f"{__package__}.{module.name}")


def baselines() -> tuple[Baseline, ...]:
    """Every baseline, installed or not."""
    _discover()
    return tuple(sorted(dict.fromkeys(_BASELINES.values()), key=lambda b: (b.order, b.name, b.ops)))


def get_baselines(name: str) -> tuple[Baseline, ...]:
    """The baselines of that name, one for each operation or group of operations.

    Raises:
        UnknownBaselineError: there is none.
    """
    found = tuple(baseline for baseline in baselines() if baseline.name == name)
    if not found:
        names = list(dict.fromkeys(baseline.name for baseline in baselines()))
        raise UnknownBaselineError(
            f"no baseline is called {name!r}.{did_you_mean(name, names)} Baselines: {', '.join(names)}."
        )
    return found


def get_baseline(name: str, op: str = "matmul") -> Baseline:
    """The baseline of that name for an operation.

    Raises:
        UnknownBaselineError: there is none.
    """
    for baseline in get_baselines(name):
        if op in baseline.ops:
            return baseline
    raise UnknownBaselineError(f"the baseline {name!r} does not compute {op}.")


def usable(problem: Problem, candidates: Sequence[Baseline]) -> Iterator[Baseline]:
    """Those of the candidates that are installed and compute this problem."""
    for baseline in candidates:
        if baseline.missing() is None and baseline.unsupported(problem) is None:
            yield baseline
