"""Whether what a pass would make can be computed where the graph's values are.

On the CPU an op without a kernel is computed by its reference, slowly; on a GPU it would stop the plan.
There a pass leaves two ops that have kernels as they are, rather than make one of them that has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...kernels import dispatch
from ...kernels.errors import NoKernelError
from ...kernels.op import Op
from ...kernels.spec import ABSENT
from ..graph import Value


def is_supported(op: Op, inputs: Sequence[Value | None], attrs: Mapping[str, Any]) -> bool:
    """Whether a call of an op may be made: always on the CPU, on a GPU where a kernel takes it."""
    specs = [ABSENT if value is None else value.spec for value in inputs]
    if not dispatch.on_cuda(tuple(specs)):
        return True
    try:
        return dispatch.choose(op, specs, attrs).kernel is not None
    except NoKernelError:
        return False
