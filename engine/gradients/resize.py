"""Gradients of interpolation, which is linear: the turned sums, and back."""

from __future__ import annotations

from typing import Any

from ...kernels.resize.op import INTERPOLATE, INTERPOLATE_GRAD
from ..eager import call
from . import gradient


@gradient("interpolate")
def interpolate_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx: what each element of x was weighted with, times dy."""
    return (call(INTERPOLATE_GRAD, (grads[0],), {"before": inputs[0].shape[2:], **attrs}),)


@gradient("interpolate_grad")
def interpolate_grad_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """The gradient of a linear map's gradient is the map."""
    how = {name: value for name, value in attrs.items() if name != "before"}
    return (call(INTERPOLATE, (grads[0],), how),)
