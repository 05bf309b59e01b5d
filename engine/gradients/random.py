"""The gradient of dropout: dropout of the gradient, with the same key."""

from __future__ import annotations

from typing import Any

from ...kernels.random.op import DROPOUT
from ..eager import call
from . import gradient


@gradient("dropout")
def dropout(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy / (1 - p) where x was kept; the key has no gradient."""
    (dy,), (_, key) = grads, inputs
    return call(DROPOUT, (dy, key), attrs), None
