"""Updates of parameters on the CPU: each rule is one pointwise program, so one loop over all its arrays.

Numbers of 16 bits are widened when they are read and rounded when they are written, and nowhere in between.
"""

from __future__ import annotations

from typing import Any

from ..op import Attrs, Specs
from ..pointwise.kernel import program_kernel
from ..pointwise.program import Program, Writer
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


def _register(name: str) -> None:
    program_kernel(name, lambda specs, attrs: program_of(name, specs, attrs), DTYPES)


for _name in RULES:
    _register(_name)
