"""`matmul` as a function of Arrays.

A call of a few microseconds must not spend them on finding out what to run. `matmul` therefore keeps what was
chosen, in the memo of the settings in force, which is emptied whenever kernels or tuning results change: by
shapes, strides and dtypes, the launch; and by dtype, a *lane*: the compiled entry of a kernel that checks
dtypes, ranks, shapes, strides and flags itself. A lane is kept only while no other kernel could be the choice
for a call that it takes. It is (entry, the most multiply-adds that it takes, the address of its plan, what to
call when the entry asks for a team); see `small_matmul`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels import dispatch, registry, tuning
from ...kernels.allocate import allocator
from ...kernels.kernel import Kernel
from ...kernels.matmul.op import MATMUL
from ...kernels.settings import current
from ...kernels.spec import TensorSpec
from ..array import Array
from ..eager import Operand, call

_ndarray = np.ndarray
_empty = np.empty
_may_share = np.may_share_memory


def matmul(a: Operand, b: Operand, *, out: Operand | None = None) -> Array:
    """Matrix product, with NumPy's rules for vectors and batches.

    Args:
        a: [..., m, k] or [k], float32, float64, bfloat16 or float16; any strides.
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
    x: Any = a._data if type(a) is Array else a
    y: Any = b._data if type(b) is Array else b
    z: Any = out._data if type(out) is Array else out
    if type(x) is not _ndarray or type(y) is not _ndarray:
        return call(MATMUL, (a, b), out=out)
    memo = current().memo
    dtype = x.dtype
    lane = memo.get(dtype)
    if z is None:
        if lane is not None and x.ndim == 2 and y.ndim == 2:
            (m, k), (j, n) = x.shape, y.shape
            # Nothing is allocated for a call that the lane would not take.
            if k == j and m * n * k <= lane[1]:
                z = _empty((m, n), dtype)
                done = lane[0](id(x), id(y), id(z), lane[2], 0)
                if done == 1 or (done and lane[3](x, y, z)):
                    return Array(z)
        key: tuple[Any, ...] = (x.shape, x.strides, dtype, y.shape, y.strides, y.dtype)
        known = memo.get(key)
        if known is not None and _are_aligned(x, y):
            z = known[1](known[2], dtype)
            known[0](x, y, z)
            return Array(z)
    elif type(z) is _ndarray:
        if lane is not None:
            done = lane[0](id(x), id(y), id(z), lane[2], 0)
            if done == 1 or (done and lane[3](x, y, z)):
                return out if type(out) is Array else Array(z)
        if not _can_be_written(z):
            return call(MATMUL, (a, b), out=out)
        key = (x.shape, x.strides, dtype, y.shape, y.strides, y.dtype, z.shape, z.strides, z.dtype)
        known = memo.get(key)
        if known is not None and _are_aligned(x, y) and not _share(z, x, y):
            known[0](x, y, z)
            return out if type(out) is Array else Array(z)
    else:
        return call(MATMUL, (a, b), out=out)
    result = call(MATMUL, (a, b), out=out)
    _remember(key, x, y, result._data)
    return result


def _can_be_written(z: Any) -> bool:
    """Whether the flags of a NumPy array allow results to be written to it."""
    flags = z.flags
    return bool(flags.writeable and flags.aligned)


def _are_aligned(x: Any, y: Any) -> bool:
    """Whether the elements are at addresses that fit them; an array with memory of its own always is."""
    return (x.base is None and y.base is None) or (x.flags.aligned and y.flags.aligned)


def _share(z: Any, x: Any, y: Any) -> bool:
    """Whether the ends of `z` and of an input overlap: then the exact question is asked."""
    if z.base is None and x.base is None and y.base is None:
        return z is x or z is y
    return _may_share(x, z) or _may_share(y, z)


def _remember(key: tuple[Any, ...], x: Any, y: Any, z: Any) -> None:
    """Keep what was chosen for a checked call, for the next one with the same shapes, strides and dtypes.

    Only what depends on where they are can differ then, and is asked each time: whether they are aligned, and
    whether `out` may be written and shares memory with an input.
    """
    if not z.size:
        return
    before = registry.generation(), tuning.generation()
    memo = current().memo
    specs = tuple(map(TensorSpec.of, (x, y, z)))
    launch = dispatch.bind(MATMUL, specs)
    lane = getattr(launch, "lane", None)
    sure = lane is not None and _is_sure(dispatch.choose(MATMUL, specs).kernel)
    # Kernels or measurements that changed meanwhile have emptied the memo: do not fill in the old.
    if before != (registry.generation(), tuning.generation()):
        return
    if sure:
        memo[x.dtype] = lane
    else:
        memo[key] = (launch, allocator(z.shape, z.dtype), z.shape)


def _is_sure(kernel: Kernel | None) -> bool:
    """Whether a kernel that has a lane is what `choose` takes for every call that the kernel supports."""
    if kernel is None or current().backend is not None:
        return False
    if any(k is not kernel and k.rank >= kernel.rank for k in registry.kernels_for("matmul")):
        return False
    # Where the kernel itself has been timed, others have been timed beside it and may be the choice there.
    return all(entry.kernel != kernel.id for entry in tuning.default_cache())
