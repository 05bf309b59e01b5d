"""The operations as functions of Arrays.

A call of a few microseconds must not spend them on finding out what to run. `matmul` therefore keeps what was chosen, in
the memo of the settings in force, which is emptied whenever kernels or tuning results change: by shapes, strides and
dtypes, the launch; and by dtype, a *lane*: the compiled entry of a kernel that checks shapes and strides itself. A lane is
kept only while no other kernel could be the choice for a call that it takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import dispatch, registry, tuning
from ..kernels.kernel import Kernel
from ..kernels.matmul.op import MATMUL
from ..kernels.settings import current
from ..kernels.spec import TensorSpec
from .array import Array
from .eager import Operand, call

_ndarray = np.ndarray
_empty = np.empty
_may_share = np.may_share_memory


def matmul(a: Operand, b: Operand, *, out: Operand | None = None) -> Array:
    """Matrix product, with NumPy's rules for vectors and batches.

    Args:
        a: [..., m, k] or [k], float32 or float64; any strides.
        b: [..., k, n] or [k], of a's dtype; any strides.
        out: where the result goes: [..., m, n], of a's dtype, sharing no memory with a or b, with elements
            side by side along its last or last but one axis.

    Returns:
        [..., m, n]; without the axis of a 1-D operand. With `out` an Array, that very Array.

    Raises:
        ShapeError: for a 0-D operand, inner lengths that differ, batch axes that do not broadcast, or another
            shape of out.
        DTypeError: for other or mixed dtypes, or an operand that is no array.
        LayoutError: for an out that is read-only or laid out in a way that cannot be written.
        OverlapError: for an out that shares memory with a or b.
    """
    memo = current().memo
    x = a._data if type(a) is Array else a
    y = b._data if type(b) is Array else b
    z = out._data if type(out) is Array else out
    key = None
    if type(x) is _ndarray and type(y) is _ndarray and (z is None or _can_be_written(z)):
        dtype = x.dtype
        if x.ndim == 2 and y.ndim == 2 and y.dtype is dtype:
            lane = memo.get(dtype)
            if lane is not None:
                if z is None:
                    made = _empty((x.shape[0], y.shape[1]), dtype)
                    if lane(x, y, made):
                        return Array(made)
                elif z.ndim == 2 and z.dtype is dtype and lane(x, y, z):
                    return out if type(out) is Array else Array(z)
        if z is None:
            key = (x.shape, x.strides, dtype, y.shape, y.strides, y.dtype)
            known = memo.get(key)
            if known is not None:
                made = _empty(known[1], dtype)
                known[0](x, y, made)
                return Array(made)
        else:
            key = (x.shape, x.strides, dtype, y.shape, y.strides, y.dtype, z.shape, z.strides, z.dtype)
            known = memo.get(key)
            if known is not None and not (_may_share(x, z) or _may_share(y, z)):
                known[0](x, y, z)
                return out if type(out) is Array else Array(z)
    result = call(MATMUL, (a, b), out=out)
    if key is not None:
        _remember(key, x, y, result._data)
    return result


def _can_be_written(z: Any) -> bool:
    """Whether `z` is a NumPy array whose flags allow results to be written to it."""
    if type(z) is not _ndarray:
        return False
    flags = z.flags
    return flags.writeable and flags.aligned


def _remember(key: tuple[Any, ...], x: Any, y: Any, z: Any) -> None:
    """Keep what was chosen for a checked call, for the next one with arrays of the same shapes, strides and dtypes.

    Only whether `out` may be written and shares memory with an input can differ then, and is asked each time.
    """
    before = registry.generation(), tuning.generation()
    memo = current().memo
    specs = tuple(map(TensorSpec.of, (x, y, z)))
    choice = dispatch.choose(MATMUL, specs)
    if not z.size or not z.flags.aligned:
        return
    launch = dispatch.bind(MATMUL, specs)
    lane = getattr(launch, "lane", None)
    # Kernels or measurements that changed meanwhile have emptied the memo: do not fill in the old.
    if before != (registry.generation(), tuning.generation()):
        return
    if lane is not None and _is_sure(choice.kernel):
        memo[x.dtype] = lane
    else:
        memo[key] = (launch, z.shape)


def _is_sure(kernel: Kernel | None) -> bool:
    """Whether a kernel that has a lane is what `choose` takes for every call that the kernel supports."""
    if kernel is None or current().backend is not None:
        return False
    rivals = (k for k in registry.kernels_for("matmul") if k is not kernel and k.rank >= kernel.rank)
    # Where the kernel itself has been timed, others have been timed beside it and may be the choice there.
    timed = (entry for entry in tuning.default_cache() if entry.kernel == kernel.id)
    return not any(True for _ in rivals) and not any(True for _ in timed)
