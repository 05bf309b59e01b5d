"""Updates of parameters on the CPU: each rule is one pointwise program, so one loop over all its arrays."""

from __future__ import annotations

from ..pointwise.kernel import program_kernel
from .programs import every

for _name, _program_of, _dtypes in every():
    program_kernel(_name, _program_of, _dtypes)
