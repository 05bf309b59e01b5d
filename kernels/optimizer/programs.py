"""The programs of updates of parameters, on any device: each rule is one program over all its arrays.

Numbers of 16 bits are widened when they are read and rounded when they are written, and nowhere in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ..op import Attrs, Specs
from ..pointwise.program import Program, Writer
from ..pointwise.resolve import ProgramOf
from .op import DTYPES, OPTIMIZERS, RULES, wide_dtype


def program_of(name: str, specs: Specs, attrs: Attrs) -> Program:
    """The program of a call."""
    writer, wide = Writer(), wide_dtype(specs[0].dtype)
    count = len(OPTIMIZERS[name].inputs)
    given = [writer.input(spec.dtype) if spec.present else None for spec in specs[:count]]
    values: list[Any] = [None if value is None else writer.cast(value, wide) for value in given]
    for value in RULES[name].update(writer, *values, **attrs):
        writer.output(writer.cast(value, specs[0].dtype))
    return writer.program()


def every() -> Iterator[tuple[str, ProgramOf, tuple[str, ...]]]:
    """(op, what writes its program, dtypes) of each."""
    for name in RULES:
        yield name, partial(program_of, name), DTYPES
