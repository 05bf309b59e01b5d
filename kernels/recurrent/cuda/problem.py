"""A recurrent call reduced to what GPU kernels need: sizes, steps in elements, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...cuda.step import element_strides
from ...op import Attrs, Specs, get_op
from ...spec import ABSENT, TensorSpec
from ..op import GATES, SAVED, STATES, head_count, sizes

LONGEST = 2**31 - 2**12
"""Of an axis, and of G H: what is counted within one step is counted in 32 bits."""
PACKED = ("w_ih", "w_hh")


@dataclass(frozen=True)
class Call:
    """Sizes of a call and its tensors by name.

    Attributes:
        kind: "lstm", "gru", "rnn_tanh", "rnn_relu": as the kernels know it.
        op: "lstm", "gru", "rnn".
        t, b, i, h: steps, sequences, inputs, hidden units of all heads.
        heads, d: recurrences of their own, and the hidden units of each.
        gates: how many rows of w_hh each hidden unit has.
        dtype: of the tensors.
        places: which tensor of the call each name is; those that are there.
        specs: by name.
    """

    kind: str
    op: str
    t: int
    b: int
    i: int
    h: int
    heads: int
    d: int
    gates: int
    dtype: str
    batch_first: bool
    reverse: bool
    train: bool
    places: Mapping[str, int]
    specs: Mapping[str, TensorSpec]

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return 4 if self.dtype == "float32" else 2

    def has(self, name: str) -> bool:
        """Whether a tensor is there."""
        return name in self.places

    def steps(self, name: str, axes: int) -> tuple[int, ...]:
        """The strides of a tensor in elements, time first where it has steps; zeros of one that is not."""
        if not self.has(name):
            return (0,) * axes
        found = element_strides(self.specs[name])
        if self.batch_first and name in ("x", "y", "dy", "dx", "gates", "cells", "resets"):
            found = (found[1], found[0], *found[2:])
        return found

    @property
    def outer(self) -> tuple[int, int]:
        """The first two axes of x."""
        return (self.b, self.t) if self.batch_first else (self.t, self.b)

    @property
    def row_steps(self) -> tuple[int, int]:
        """In a matrix [T B, ...] whose rows are in the order of x: rows from step to step, and sequence."""
        return (1, self.t) if self.batch_first else (self.b, 1)


def call_of(name: str, specs: Specs, attrs: Attrs) -> Call:
    """The call of an op of that name: `lstm`, `gru_grad`, `rnn_cell`."""
    op = get_op(name)
    kind, _, what = name.partition("_")
    t, b, i, h, _ = sizes(op, specs[: len(op.inputs)], attrs)
    heads = head_count(op, specs)
    outputs = ["y", *(f"{state[0]}_n" for state in STATES[kind])]
    outputs += SAVED[kind] if attrs.get("train") else ()
    if what == "grad":
        outputs = ["dx", *(f"d{state}" for state in STATES[kind]), "dw_ih", "dw_hh", "db_ih", "db_hh"]
    if what == "cell":
        outputs = [f"{state[0]}_out" for state in STATES[kind]]
    names = (*op.inputs, *outputs)
    given = dict(zip(names, specs, strict=True))
    return Call(
        f"rnn_{attrs['nonlinearity']}" if kind == "rnn" else kind,
        kind,
        t,
        b,
        i,
        h,
        heads,
        h // heads,
        GATES[kind],
        specs[0].dtype,
        bool(attrs.get("batch_first")),
        bool(attrs.get("reverse")),
        bool(attrs.get("train")),
        {n: place for place, n in enumerate(names) if given[n].present},
        given,
    )


def refusal(name: str, specs: Specs, attrs: Attrs) -> str | None:
    """Why no kernel here takes a call; None when they can."""
    op = get_op(name)
    given = dict(zip(op.inputs, specs, strict=False))
    if any(attrs.get(f"{weight}_format") for weight in PACKED):
        return "reads weights that are not packed"
    if given["w_ih"].dtype != specs[0].dtype:
        return f"reads weights of the dtype of x, {specs[0].dtype}, and not {given['w_ih'].dtype}"
    if not attrs.get("reset_after", True):
        return "resets after the product (reset_after=True): a step is one product"
    if not given["w_hh"].size:
        return "takes one hidden unit or more"
    call = call_of(name, specs, attrs)
    if max(call.t, call.b, call.i, 4 * call.h) > LONGEST:
        return f"counts steps, sequences, inputs and gates in 32 bits, up to {LONGEST:,}"
    for output, spec in call.specs.items():
        if output in op.inputs or not spec.size:
            continue
        if element_strides(spec)[-1] != 1 and spec.shape[-1] > 1:
            return "writes results whose last axis is contiguous"
    for kept in ("y", "gates", "cells") if name.endswith("_grad") else ():
        if call.has(kept) and call.steps(kept, 3)[-1] != 1 and call.specs[kept].shape[-1] > 1:
            return f"reads {kept} as the forward op writes it, its last axis contiguous"
    return None


def on_cuda(shape: tuple[int, ...], dtype: str, steps: tuple[int, ...] | None = None) -> TensorSpec:
    """The spec of something on the device, by steps in elements."""
    spec = TensorSpec(shape, dtype, "cuda")
    if steps is None:
        return spec
    return TensorSpec(shape, dtype, "cuda", tuple(step * spec.itemsize for step in steps))


def absent() -> Any:
    """The spec of an operand that is left out."""
    return ABSENT
