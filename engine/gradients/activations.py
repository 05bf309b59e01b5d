"""The gradient through an activation that a kernel applies at its end."""

from __future__ import annotations

from collections.abc import Callable

from ...kernels.op import get_op
from ..array import Array
from ..functional.pointwise import where
from . import rule_of


def through_activation(name: str | None, g: Array, y: Array, before: Callable[[], Array]) -> Array:
    """The gradient of z, where y = name(z).

    Args:
        name: the activation, or None.
        g: the gradient of y.
        y: the result.
        before: makes z again, where y does not say enough. The pass `shared` sees to it that it is not
            computed twice.
    """
    if name is None:
        return g
    if name == "relu":
        return where(y > 0, g, 0)
    if name == "sigmoid":
        return g * (y * (1 - y))
    if name == "tanh":
        return g * (1 - y * y)
    rule = rule_of(get_op(name))
    assert rule is not None, name
    (dz,) = rule((g,), (before(),), (y,), {})
    assert dz is not None
    return dz
