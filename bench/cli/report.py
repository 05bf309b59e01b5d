"""`kernelwright report`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ...kernels.atomic import write_atomically
from ...kernels.errors import ConfigError, did_you_mean
from ..report import formats, html
from ..report.browser import BrowserError, missing
from ..report.png import png
from ..report.sources import load
from ..report.view import View, view_of
from .app import app, reporting


class Format(StrEnum):
    """What a report may be written as."""

    HTML = "html"
    MD = "md"
    CSV = "csv"
    JSON = "json"
    PNG = "png"


SUFFIXES = {f".{kind}": kind for kind in Format}
STDOUT = Path("-")


@app.command()
@reporting
def report(
    results: Annotated[
        list[Path], typer.Argument(help="Files that `kernelwright bench` and `kernelwright compare` wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where the report goes; - for standard output. Default: beside the first file."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="html, md, csv, json or png. Default: what --out ends in, or html."),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="A PNG in dark colours.")] = False,
) -> None:
    """Make one report of results: a page, Markdown for a pull request, CSV, JSON, or a picture.

    Exit codes: 0 done, 2 wrong usage, or a file that is no result.
    """
    kind = _format(format, out)
    path = out or _beside(results, kind)
    _check(path, results, kind)
    view = view_of([load(file) for file in results])
    content = _content(view, kind, dark)
    if path == STDOUT:
        typer.echo(content, nl=False)
        return
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ConfigError(f"the report can't be written to {path}: {error.strerror}.") from None
    typer.echo(f"Report: {path}")


def _format(asked: str | None, out: Path | None) -> Format:
    if asked is not None:
        if asked not in list(Format):
            near = did_you_mean(asked, [str(kind) for kind in Format])
            raise ConfigError(f"there is no format {asked!r}.{near} Formats: {', '.join(Format)}.")
        return Format(asked)
    if out is None or out == STDOUT:
        return Format.HTML
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{out} says no format: end it in one of {', '.join(SUFFIXES)}, or add --format.")
    return SUFFIXES[out.suffix.lower()]


def _beside(results: list[Path], kind: Format) -> Path:
    """`run.json` gives `run.html`; several files give `report.html` beside the first."""
    suffix = ".summary.json" if kind is Format.JSON else f".{kind}"
    return results[0].with_suffix(suffix) if len(results) == 1 else results[0].with_name(f"report{suffix}")


def _check(path: Path, results: list[Path], kind: Format) -> None:
    """Refuses what can't end well before anything is read or written."""
    if len({file.resolve() for file in results}) < len(results):
        raise ConfigError("a file of results is named twice: its cases would count twice.")
    if path == STDOUT:
        if kind is Format.PNG:
            raise ConfigError("a PNG doesn't go to standard output: write --out report.png.")
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: write --out {path / f'report.{kind}'}.")
    if path.resolve() in [file.resolve() for file in results]:
        raise ConfigError(f"the report would replace the results in {path}: write another --out.")
    if kind is Format.PNG and (why := missing()) is not None:
        raise BrowserError(f"a PNG is made by a browser, and {why}. The other formats need none.")


def _content(view: View, kind: Format, dark: bool) -> str | bytes:
    if kind is Format.PNG:
        return png(html.page(view.documents, view), dark)
    makers = {
        Format.HTML: lambda: html.page(view.documents, view),
        Format.MD: lambda: formats.markdown(view),
        Format.CSV: lambda: formats.csv_text(view),
        Format.JSON: lambda: formats.json_text(view),
    }
    return makers[kind]()
