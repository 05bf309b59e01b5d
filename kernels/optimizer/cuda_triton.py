"""Updates of parameters on the GPU: each rule is one pointwise program, so one launch over all its arrays.

The update of many parameters in one launch is `pointwise/cuda/many.py`'s.
"""

from __future__ import annotations

from ..pointwise.cuda.register import program_kernel_cuda
from .programs import every

for _name, _program_of, _dtypes in every():
    program_kernel_cuda(_name, _program_of, _dtypes)
