"""The kernels of all pointwise ops on the GPU: Triton generated from their programs (`cuda/`).

One launch for a program of any length: what lies densely in one order is streamed (`cuda/flat.py`), what
broadcasts, has gaps or is transposed goes by tiles (`cuda/tiles.py`), and programs with reductions by rows
(`cuda/rows.py`).
"""

from __future__ import annotations

from .cuda.register import program_kernel_cuda
from .programs import every

for _name, _program_of, _dtypes in every():
    program_kernel_cuda(_name, _program_of, _dtypes)
