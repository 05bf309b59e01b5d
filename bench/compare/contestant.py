"""What a side's processes compute a problem with: a kernel by name, id or file, in a configuration.

This is the part of a side that a worker gets to know; how its process is started (which tree, which
interpreter, which environment) is `sides.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...kernels import dispatch, registry
from ...kernels.errors import (
    ConfigError,
    KernelwrightError,
    NoKernelError,
    RegistrationError,
    did_you_mean,
)
from ...kernels.kernel import Config, Kernel
from ...kernels.op import Attrs, Specs

FILE_AND_NAME = "::"


@dataclass(frozen=True)
class Contestant:
    """Which kernel runs.

    Attributes:
        kernel: its name or id; `my_kernel.py` or `my_kernel.py::name`; None for whatever a call would choose.
        config: what its configuration is to hold, beside what it would have chosen itself.
    """

    kernel: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "config": dict(self.config)}

    def enter(self, op: str, device: str = "cpu") -> str | None:
        """Loads and registers what is needed for an op; the kernel's id, or None when calls choose.

        Raises:
            NoKernelError: there is no such kernel, or several that the name fits.
            RegistrationError: the file can't be loaded.
        """
        if self.kernel is None:
            return None
        if self.kernel == dispatch.REFERENCE:
            return dispatch.REFERENCE
        kernel = find(self.kernel, op, device)
        if self.config:
            registry.put_in_place(kernel, configs=_holding(kernel, self.config))
        return kernel.id


def find(argument: str, op: str, device: str = "cpu") -> Kernel:
    """The one kernel of an op that an argument means.

    Raises:
        NoKernelError, RegistrationError: as `Contestant.enter`.
    """
    path, _, name = argument.partition(FILE_AND_NAME)
    if path.endswith(".py"):
        match = [k for k in load_file(path) if k.op == op and k.device == device]
        names = [k.name for k in match]
        match = [k for k in match if name in ("", k.name)]
        if len(match) == 1:
            return match[0]
        if not names:
            raise NoKernelError(
                f"{path} registers no kernel for {op} on {device}; write @kw.kernel({op!r}) above the "
                "function."
            )
        wanted = f"none called {name!r}" if name else f"{len(names)} of them"
        raise NoKernelError(
            f"{path} has the kernels {', '.join(names)} for {op} on {device}, {wanted}: write "
            f"{path}{FILE_AND_NAME}{names[0]}."
        )
    known = registry.kernels_for(op, device)
    match = [k for k in known if argument in (k.id, k.name)]
    if not match:
        ids = [k.id for k in known]
        raise NoKernelError(
            f"no kernel of {op} on {device} is called {argument!r}."
            f"{did_you_mean(argument, [*ids, *(k.name for k in known)])} Kernels: {', '.join(ids)}."
        )
    return match[0]


def load_file(path: str) -> tuple[Kernel, ...]:
    """The kernels of an extender's file.

    Raises:
        RegistrationError: it can't be loaded, whatever the reason.
    """
    try:
        return registry.load_file(path)
    except KernelwrightError:
        raise
    except Exception as error:
        raise RegistrationError(f"{path} can't be loaded: {type(error).__name__}: {error}") from error


def _holding(kernel: Kernel, given: Mapping[str, Any]) -> Any:
    """The kernel's own configurations with these values in each."""

    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        own = kernel.configurations(specs, attrs, threads)
        names = {name for config in own for name in config}
        for name in given:
            if name not in names:
                there = f"it has {', '.join(sorted(names))}" if names else "it has none"
                raise ConfigError(f"{kernel.id} has no configuration called {name!r}; {there}.")
        found: list[Config] = []
        for config in own:
            changed = {**config, **given}
            if changed not in found:
                found.append(changed)
        return found

    return configs
