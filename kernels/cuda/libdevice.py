"""The functions of NVIDIA's libdevice that kernels call, for Triton's compiler and for its interpreter alike.

libdevice is a library of LLVM code that is linked into a kernel while it is compiled; it comes with Triton,
which takes `tl.erf` from it too. The interpreter cannot run it: there, NumPy's function stands for it, so
that all that is around it is proven. Their largest errors, in units in the last place, are those of the CUDA
C++ Programming Guide ("Mathematical Functions", table "Single-Precision" and "Double-Precision"):

               exp   exp2  expm1  log   log2  log1p  sin   cos   tan   tanh  erf   pow   fmod  rint  trunc
    float32    1     2     1      1     1     1      2     2     4     2     2     4     0     0     0
    float64    1     1     1      1     1     1      2     2     2     1     2     2     0     0     0

`near_quotient` is x / y of float32 to 2 units in the last place, for |y| from 2^-126 to 2^126, 0 above.
Every argument is a tensor (or scalar) of float32 or float64, all of one dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.language.extra.cuda import libdevice


@triton.jit
def _probe() -> None:
    pass


def _by_numpy(function: Any) -> Any:
    from triton.runtime.interpreter import TensorHandle

    def call(*args: Any) -> Any:
        found = np.asarray(function(*(arg.handle.data for arg in args)))
        dtype = args[0].dtype
        blocks = [arg for arg in args if arg.type.is_block()]
        kind = tl.block_type(dtype, list(found.shape)) if blocks else dtype
        return tl.tensor(TensorHandle(found.astype(args[0].handle.data.dtype), dtype), kind)

    return call


_erf = np.frompyfunc(math.erf, 1, 1)

if type(_probe).__name__ == "InterpretedFunction":
    exp, exp2, expm1 = _by_numpy(np.exp), _by_numpy(np.exp2), _by_numpy(np.expm1)
    log, log2, log1p = _by_numpy(np.log), _by_numpy(np.log2), _by_numpy(np.log1p)
    sin, cos, tan, tanh = _by_numpy(np.sin), _by_numpy(np.cos), _by_numpy(np.tan), _by_numpy(np.tanh)
    erf, pow, fmod = _by_numpy(_erf), _by_numpy(np.power), _by_numpy(np.fmod)
    rint, trunc, near_quotient = _by_numpy(np.rint), _by_numpy(np.trunc), _by_numpy(np.divide)
else:
    exp, exp2, expm1 = libdevice.exp, libdevice.exp2, libdevice.expm1
    log, log2, log1p = libdevice.log, libdevice.log2, libdevice.log1p
    sin, cos, tan, tanh = libdevice.sin, libdevice.cos, libdevice.tan, libdevice.tanh
    erf, pow, fmod = libdevice.erf, libdevice.pow, libdevice.fmod
    rint, trunc, near_quotient = libdevice.rint, libdevice.trunc, libdevice.fast_dividef
