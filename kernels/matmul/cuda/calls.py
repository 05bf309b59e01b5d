"""The calls of an op as products: which tensor is which operand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...op import Attrs, Specs
from .product import Product, of_linear, of_matmul

ProductOf = Callable[[Specs, Attrs], Product]
Refusal = Callable[[Specs, Attrs], str | None]

_TURNED = {"a": "b", "b": "a", "a_scale": "b_scale", "b_scale": "a_scale"}


@dataclass(frozen=True)
class Calls:
    """The calls of one op.

    Attributes:
        product: the product behind a call.
        places: which tensor of a call is a, b, c, bias, residual, a_scale, b_scale; those that there are.
        refuse: why no kernel for products can take a call, beside what its sizes say.
    """

    product: ProductOf
    places: Mapping[str, int]
    refuse: Refusal = lambda specs, attrs: None

    def placed(self, p: Product) -> Mapping[str, int]:
        """Which tensor is which operand of `p`, the product of a call as it stands or turned."""
        if not p.turned:
            return self.places
        return {_TURNED.get(name, name): place for name, place in self.places.items()}


def _packed(specs: Specs, attrs: Attrs) -> str | None:
    return "takes a weight that is not packed" if attrs["w_format"] else None


MATMUL = Calls(lambda specs, attrs: of_matmul(specs), {"a": 0, "b": 1, "c": 2})
LINEAR = Calls(
    lambda specs, attrs: of_linear(specs, attrs["activation"]),
    {"a": 0, "b": 1, "bias": 2, "residual": 3, "c": 4},
    _packed,
)
