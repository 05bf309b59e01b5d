"""Weights packed once, ahead of the calls that read them.

A kernel reads a weight panel by panel; in an ordinary call it packs the weight first. Where the weight stays,
`prepack` does that once, and the op's packed form reads the result:

    packed = prepack("linear", w)
    kw.linear(x, packed, b)

Inside, an op that takes packed weights has the attributes `w_format` (`""`: an ordinary array) and `w_shape`,
and gets `packed.data`, a 1-D array, as its input `w`. A family says how in its `prepack.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .errors import DTypeError
from .op import AnyArray, get_op


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight in the order in which kernels read it; made by `prepack`.

    Attributes:
        op: the op that takes it.
        data: the numbers, 1-D, on a 64-byte line; its dtype is the weight's.
        format: names the order exactly; part of the op's attributes.
        shape: of the weight that was packed.
    """

    op: str
    data: AnyArray
    format: str
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Packed({self.op} weight {self.data.dtype}{list(self.shape)}, {self.format})"


def prepack(op: str, weight: AnyArray, **attrs: Any) -> Packed:
    """Pack `weight` for calls of `op` with these attributes.

    Raises:
        RegistrationError: for an unknown op.
        DTypeError: for an op that takes no packed weights, or a weight that it does not take.
    """
    family = get_op(op).family
    try:
        module = import_module(f".{family}.prepack", __package__)
    except ModuleNotFoundError as error:
        if error.name != f"{__package__}.{family}.prepack":
            raise
        raise DTypeError(f"{op} takes no packed weights; pass the weight itself.") from None
    packed: Packed = module.prepack(op, weight, **attrs)
    return packed
