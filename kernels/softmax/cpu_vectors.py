"""Softmax, log-softmax and their gradients on the CPU: rows that are swept while they are in the cache.

    x[.., n] along its last axis      vectors run along a row
    x[.., n, ..] along another        vectors run across neighbouring rows, up to 4 registers wide
    no axis side by side              one element at a time

`emit.py` says what happens in a row, `kernels/reduce/staged.py` writes the loops. Threads share the rows.
"""

from __future__ import annotations

from typing import Any

from ..cpu.generate import address_of
from ..cpu.launch import bind_phases
from ..kernel import Config, Launch
from ..op import Attrs, Specs
from ..reduce.axes import axis_of
from ..reduce.lanes import computed_dtype
from ..reduce.staged import MOST_AXES, Operand, Plan, block_of, plan
from ..registry import kernel
from . import emit
from .op import FLOATS, OPS

# Bytes written by a call for which another thread pays: about 5 us of exponentials.
WORTH_A_THREAD = 1 << 16


def loops(specs: Specs, attrs: Attrs, threads: int) -> Plan | None:
    """The loops of a call."""
    x = specs[-1]
    axis = axis_of("softmax", x.ndim, attrs["axis"])
    operands = [Operand(i, spec.dtype, spec.strides) for i, spec in enumerate(specs)]
    tasks = max(1, min(threads, x.nbytes // WORTH_A_THREAD))
    # An exponential needs many registers: of wider vectors than two, some would go through memory.
    widest = 4 if attrs["op"] == "softmax_grad" else 2
    return plan(x.shape, (axis,), operands, len(specs), first=len(specs) + 1, tasks=tasks, widest=widest)


def _register(name: str) -> None:
    def supports(specs: Specs, attrs: Attrs) -> str | None:
        found = loops(specs, {**attrs, "op": name}, 1)
        return f"takes at most {MOST_AXES} other axes, once joined" if found is None else None

    def vectors(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        found = loops(specs, {**attrs, "op": name}, threads)
        assert found is not None
        dtype = computed_dtype(specs[0].dtype)
        key: tuple[Any, ...] = (dtype, *found.key)
        address = address_of(getattr(emit, name), key, f"{name} {specs[0].dtype}")
        return bind_phases(block_of(len(specs), found.words), len(specs), [(address, found.words[0])])

    kernel(name, dtypes=FLOATS, supports=supports, binds=True, name="vectors", rank=1)(vectors)


for _name in OPS:
    _register(_name)
