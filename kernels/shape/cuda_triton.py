"""The numbers of a view, copied on the GPU: for results that cannot share the input's memory.

One box, as on the CPU: the memory of the view (`Op.view`) into the output; where a reshape has no view, the
input is copied into the output's memory, looked at in the input's shape. The generated copy of
`pointwise/cuda/` does it: dense numbers are streamed, transposed ones turned by tiles in shared memory.
Numbers are moved as whole numbers of their size, so that no bit changes.

*Roof.* Memory: each element is read once and written once.
"""

from __future__ import annotations

from typing import Any

from ..cuda.launch import CudaLaunch
from ..op import Attrs, Specs, get_op
from ..pointwise.cuda.bind import bind_program
from ..pointwise.resolve import Resolved, one_op
from ..registry import kernel
from ..spec import SHORT_NAMES
from .op import reshaped_strides

DTYPES = tuple(SHORT_NAMES)
_BITS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


def _found(op: str, specs: Specs, attrs: Attrs) -> Resolved | None:
    x, out = specs
    view = get_op(op).view
    assert view is not None
    place = view(x, **attrs)
    program = one_op("copy", [_BITS[x.itemsize]])
    if place is not None:
        start, shape, strides = place
        return Resolved(program, shape, (), (strides, out.strides), (0, 1), (start, 0))
    back = reshaped_strides(out.shape, out.strides, x.shape)
    return None if back is None else Resolved(program, x.shape, (), (x.strides, back), (0, 1))


def _register(op: str) -> None:
    def supports(specs: Specs, attrs: Attrs) -> str | None:
        if _found(op, specs, attrs) is None:
            return "the output's memory cannot be looked at in the input's shape"
        return None

    @kernel(op, device="cuda", language="triton", dtypes=DTYPES, supports=supports, binds=True, name="copy")
    def copy(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
        found = _found(op, specs, attrs)
        assert found is not None
        return bind_program(found, specs)


for _op in ("reshape", "transpose", "broadcast_to", "slice"):
    _register(_op)
