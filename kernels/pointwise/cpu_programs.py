"""The kernels of all pointwise ops on the CPU: programs of one instruction, and those that are handed in.

What they compute with, and how fast, is in `places.py` (and `rows.py` for programs with reductions).
"""

from __future__ import annotations

from .kernel import program_kernel
from .programs import every

for _name, _program_of, _dtypes in every():
    program_kernel(_name, _program_of, _dtypes)
