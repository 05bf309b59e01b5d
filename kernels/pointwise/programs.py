"""The programs of all pointwise ops, on any device: of one instruction each, or handed in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..op import Attrs, Specs
from .instructions import DTYPES, POINTWISE, TABLE
from .op import FUSED, call_of
from .program import Call, Program
from .resolve import ProgramOf, one_op


def _program_of(name: str, specs: Specs, attrs: Attrs) -> Program:
    count = len(TABLE[name].operands)
    return one_op(name, [spec.dtype for spec in specs[:count]], attrs.get("dtype"))


def _fused(specs: Specs, attrs: Attrs) -> Call:
    return call_of(specs, attrs)


def every() -> Iterator[tuple[str, ProgramOf, tuple[str, ...]]]:
    """(op, what writes its program, dtypes) of each."""
    for name in POINTWISE:
        yield name, partial(_program_of, name), TABLE[name].dtypes
    for op in FUSED:
        yield op.name, _fused, DTYPES
