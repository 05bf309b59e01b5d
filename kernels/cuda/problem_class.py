"""The key under which times of a call on a GPU are kept: all calls that share it run the same code as fast.

    matmul(bf16[4096/16,4096/16]@cuda, bf16[4096/16,4096/16; 1,s/16]@cuda, ...) on NVIDIA H200 (sm_90)

Lengths that vary are in it by their class alone: up to 16 a length stands for itself; above, for the next of
16 x 2^i x {1.25, 1.5, 1.75, 2} that it does not exceed, with the largest power of two up to 16 that divides
it. That is what a launch depends on (whether elements can be moved 16 bytes at a time) and how much there is
to do, to within a quarter; nothing is measured, or compiled, for each length. Strides are in it by their
order and by what divides them, and a GPU by its model, whichever of several it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import gcd
from typing import Any

from ..kernel import Config
from ..op import Attrs, Op
from ..spec import TensorSpec
from .device import facts

EXACT = 16
"""Lengths up to here are told apart: rows of a product of a few rows, taps of a filter."""

FOLLOW_LENGTHS = ("splits", "parts")
"""What of a configuration follows from the very lengths: no part of what a time is found by."""


def problem_class(op: Op, specs: Sequence[TensorSpec], attrs: Attrs) -> str:
    """The key of a call on a GPU."""
    words = [_spec(spec) for spec in specs]
    words += [
        f"{name}={json.dumps(_classed(attrs[name]), sort_keys=True, default=repr)}" for name in sorted(attrs)
    ]
    return f"{op.name}({', '.join(words)}){on_device(next(s.device for s in specs if s.present))}"


def on_device(device: str) -> str:
    """How the key of a call on a device ends."""
    found = facts(device)
    return f" on {found.name} (sm_{found.capability})"


def length_class(length: int) -> str:
    """`"7"` of 7, `"4096/16"` of all multiples of 16 from 3600 to 4096."""
    if length <= EXACT:
        return str(length)
    step = 1 << max(0, (length - 1).bit_length() - 3)  # a quarter of the power of two below
    return f"{-(-length // step) * step}/{gcd(length, 16)}"


def config_class(config: Config) -> Config:
    """A configuration without what follows from the lengths of a call."""
    return {name: value for name, value in config.items() if name not in FOLLOW_LENGTHS}


def _spec(spec: TensorSpec) -> str:
    if not spec.present:
        return str(spec)
    short = str(spec).partition("[")[0]
    lengths = ",".join(map(length_class, spec.shape))
    return f"{short}[{lengths}{_strides(spec)}]@cuda"


def _strides(spec: TensorSpec) -> str:
    """Of each axis: 0, 1, or its place in the order of strides and what divides the stride; "" if dense."""
    if spec.layout is None:
        return ""
    steps = [stride // spec.itemsize for stride in spec.strides]
    order = sorted({abs(step) for step in steps})
    words = [
        str(step) if step in (0, 1) else f"s{order.index(abs(step))}/{gcd(step, 16)}{'-' * (step < 0)}"
        for step in steps
    ]
    return "; " + ",".join(words)


def _classed(value: Any) -> Any:
    """An attribute with its lengths by their classes."""
    if isinstance(value, tuple | list):
        return [_classed(one) for one in value]
    return length_class(value) if type(value) is int and value > EXACT else value
