"""The frame of `kernelwright lab`."""

from __future__ import annotations

import typer

from ..app import app

lab = typer.Typer(
    help="Experiments on the laboratory itself: how quiet the machine is, how often verdicts are wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(lab, name="lab")
