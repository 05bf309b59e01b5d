"""The kernels of all pointwise ops on the CPU: programs of one instruction, and those that are handed in.

What they compute with, and how fast, is in `places.py` (and `rows.py` for programs with reductions).
"""

from __future__ import annotations

from functools import partial

from ..op import Attrs, Specs
from .instructions import DTYPES, POINTWISE, TABLE
from .kernel import one_op, program_kernel
from .op import FUSED, call_of
from .program import Call, Program


def _program_of(name: str, specs: Specs, attrs: Attrs) -> Program:
    count = len(TABLE[name].operands)
    return one_op(name, [spec.dtype for spec in specs[:count]], attrs.get("dtype"))


def _fused(specs: Specs, attrs: Attrs) -> Call:
    return call_of(specs, attrs)


for _name in POINTWISE:
    program_kernel(_name, partial(_program_of, _name), TABLE[_name].dtypes)
for _op in FUSED:
    program_kernel(_op.name, _fused, DTYPES)
