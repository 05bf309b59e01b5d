"""A model that computes in 16 bits, from parameters kept wider; and the scale that float16's gradients need.

bfloat16 has float32's exponents, and needs nothing more. float16 ends at 2^-24 below and 65504 above, where
gradients of a loss often lie: the loss is multiplied by a scale before it is differentiated, and the
gradients are divided by it (Micikevicius et al., "Mixed precision training", 2018). The scale is as large as
goes: an update whose gradients are not all finite is left out and halves it, and 2000 good ones in a row
double it, from 2^16 on; the numbers are those of torch.amp.GradScaler.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.errors import ConfigError
from .. import nn, tree
from ..array import Array, asarray
from ..functional.pointwise import isfinite, where
from ..functional.reduce import all as all_of

PRECISIONS = ("bfloat16", "float16")
FIRST, FACTOR, INTERVAL = 2.0**16, 2.0, 2000.0
Scale = dict[str, Any]


def checked(precision: str | None) -> str | None:
    """The name of a precision.

    Raises:
        ConfigError: when it is none of `PRECISIONS`.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}, or None, got {precision!r}.")
    return precision


def scale_for(precision: str | None) -> Scale:
    """The scale that training begins with, and how many updates it has stood; empty where none is needed."""
    if precision != "float16":
        return {}
    return {"scale": Array(np.asarray(FIRST, "float32")), "good": Array(np.asarray(0.0, "float32"))}


def scaled(loss: Any, scale: Scale) -> Any:
    """The loss that is differentiated."""
    return loss * scale["scale"].astype(loss.dtype) if scale else loss


def unscaled(grads: Any, scale: Scale) -> Any:
    """The gradients of the loss itself."""
    if not scale:
        return grads
    inverse = 1.0 / scale["scale"]
    return tree.map(lambda g: g * inverse.astype(g.dtype) if tree.is_float(g) else g, grads)


def kept_finite(grads: Any, scale: Scale, before: Any, after: Any) -> tuple[Any, Scale]:
    """What an update leaves: `after` where all gradients are finite, else `before`; and the next scale."""
    if not scale:
        return after, scale
    good: Any = None
    for leaf in tree.leaves(grads):
        if tree.is_float(leaf):
            one = all_of(isfinite(leaf))
            good = one if good is None else good & one
    if good is None:
        return after, scale
    count = scale["good"] + 1.0
    grown = where(count >= INTERVAL, scale["scale"] * FACTOR, scale["scale"])
    following = {
        "scale": where(good, grown, scale["scale"] * (1.0 / FACTOR)),
        "good": where(good, where(count >= INTERVAL, count * 0.0, count), count * 0.0),
    }
    return tree.map(lambda new, old: where(good, new, old), after, before), following


class Low:
    """A model in a lower precision, called with arrays of any, and giving float32."""

    def __init__(self, model: Any, precision: str) -> None:
        self._model, self._precision = model, precision

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _converted((args, kwargs), self._precision)
        return _converted(self._model(*args, **kwargs), "float32")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def lowered(model: Any, precision: str | None) -> tuple[Any, Any]:
    """The model whose Arrays are used, and what stands for it in a loss function."""
    if precision is None:
        return model, model
    used = nn.cast(model, precision)
    return used, Low(used, precision)


def _converted(values: Any, dtype: str) -> Any:
    """Floating-point arrays in another dtype, in whatever they are packed."""
    if isinstance(values, dict):
        return {key: _converted(value, dtype) for key, value in values.items()}
    if isinstance(values, list | tuple) and not hasattr(values, "_fields"):
        return type(values)(_converted(value, dtype) for value in values)
    is_one = isinstance(values, Array | np.ndarray) and tree.is_float(values)
    return asarray(values).astype(dtype) if is_one and str(values.dtype) != dtype else values
