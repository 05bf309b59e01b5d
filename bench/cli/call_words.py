"""A call written on a command line: shapes, attributes, or the name of a problem."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from ...kernels.errors import ConfigError, ShapeError
from ...kernels.op import Op
from ...kernels.spec import ABSENT, TensorSpec, dtype_name
from ..problems import Operand

LEFT_OUT = "-"


def parse_shape(word: str, dtype: str) -> Operand | None:
    """The operand that `64x128`, `64x128T` (transposed in memory) or `64:int64` describes; None for `-`.

    Raises:
        ShapeError: it is no shape.
        DTypeError: it names no dtype.
    """
    if word == LEFT_OUT:
        return None
    shape, _, own = word.partition(":")
    transposed = shape.endswith("T")
    parts = shape.removesuffix("T").split("x")
    if not all(part.isdigit() for part in parts) or (transposed and len(parts) < 2):
        raise ShapeError(
            f"{word!r} is no shape: write 64x128, 8x64x128, 128, 64x128T for a transposed one, 64:int64 for "
            f"another dtype, or {LEFT_OUT} for an optional input that is left out."
        )
    return Operand(tuple(map(int, parts)), dtype_name(own or dtype), transposed)


def parse_specs(op: Op, words: Sequence[str], dtype: str) -> list[TensorSpec]:
    """The specs of an op's inputs; optional ones at the end need not be written.

    Raises:
        ShapeError, DTypeError: as `parse_shape`.
    """
    operands = [parse_shape(word, dtype) for word in words]
    while len(operands) < len(op.inputs) and op.inputs[len(operands)] in op.optional:
        operands.append(None)
    return [ABSENT if operand is None else operand.spec for operand in operands]


def parse_attrs(words: Sequence[str]) -> dict[str, Any]:
    """`stride=2,2` -> {"stride": (2, 2)}: values as Python writes them, or else plain words.

    Raises:
        ConfigError: a word without `=`.
    """
    attrs = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{word!r} is no attribute: write NAME=VALUE, such as stride=2,2.")
        try:
            attrs[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            attrs[name] = text
    return attrs
