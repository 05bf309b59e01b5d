"""The command line's frame: the app, the options that several commands share, and how errors are told."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

from ...kernels.errors import CacheWarning, ExtensionWarning, KernelwrightError
from ..session import Exit

P = ParamSpec("P")

app = typer.Typer(
    name="kernelwright",
    help="Write a compute kernel by hand; have it proven, tuned and raced against the vendor's library.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SuiteName = Annotated[str | None, typer.Argument(help="A suite; `kernelwright list suites` shows them.")]
Threads = Annotated[
    str | None, typer.Option(help="Numbers of threads, such as 1,2. Default: 1 and all cores.")
]
ProblemName = Annotated[str | None, typer.Option(help="One problem, or a pattern such as 'square-*'.")]
MaxGflop = Annotated[float | None, typer.Option(help="Leave out larger problems.")]
StorePath = Annotated[
    Path | None,
    typer.Option(help="The store. Default: $KERNELWRIGHT_STORE, or kernelwright-results/results.sqlite."),
]
DType = Annotated[str | None, typer.Option(help="Keep problems of this dtype, such as float32.")]


def fail(error: Exception) -> typer.Exit:
    """Says what is wrong, on stderr, and ends with the code for wrong usage."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False)
    return typer.Exit(Exit.USAGE)


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Turns this package's errors into a line and an exit code; a bug stays a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        with warnings.catch_warnings():
            for category in (CacheWarning, ExtensionWarning):
                warnings.simplefilter("always", category)
            warnings.showwarning = _show_warning
            try:
                command(*args, **kwargs)
            except KernelwrightError as error:
                raise fail(error) from None

    return wrapped


def _show_warning(message: Warning | str, category: type[Warning], *args: object, **kwargs: object) -> None:
    name = "warning" if issubclass(category, CacheWarning | ExtensionWarning) else category.__name__
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"{name}: {message}", markup=False)
