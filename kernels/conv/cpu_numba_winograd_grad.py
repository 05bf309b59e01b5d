"""Input gradients of 3 x 3 convolutions by Winograd's algorithm, where channels are contiguous ("NHWC").

    dx = grad * w',     w'[c, o, i, j] = w[o, c, 2 - i, 2 - j],     padding 2 - lo before and 2 - hi behind

With stride 1 the gradient is a convolution of grad with the filters turned round and their channels swapped,
so the forward kernels of `cpu_numba_winograd.py` compute it, on a view of w.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..kernel import Config, ExtraError, Launch
from ..op import AnyArray, Attrs, Specs
from ..registry import kernel
from ..spec import ABSENT, TensorSpec
from . import cpu_numba_winograd as forward
from .geometry import window
from .tasks.winograd_transform import TAPS
from .winograd_error import extra_error


def turned(w: AnyArray) -> AnyArray:
    """The filters of the convolution that the gradient is: a view."""
    return w.swapaxes(0, 1)[:, :, ::-1, ::-1]


def _forward_attrs(attrs: Attrs) -> dict[str, Any]:
    _, padding, _ = window(attrs, 2, "conv_input_grad")
    return {
        "stride": (1, 1),
        "padding": tuple((TAPS - 1 - low, TAPS - 1 - high) for low, high in padding),
        "dilation": (1, 1),
        "groups": 1,
        "layout": attrs["layout"],
        "activation": None,
        "w_format": "",
        "w_shape": (),
    }


def _forward_specs(specs: Specs) -> Specs:
    grad, w, b, dx = specs
    out, channels, high, wide = w.strides
    filters = TensorSpec(
        (w.shape[1], w.shape[0], *w.shape[2:]), w.dtype, w.device, (channels, out, -high, -wide)
    )
    return (grad, filters, b, ABSENT, dx)


def _supports(m: int, specs: Specs, attrs: Attrs) -> str | None:
    """Stride 1, 3 x 3, and no more padding than the filter reaches."""
    if specs[0].ndim != 4:
        return "computes images with two spatial axes"
    stride, padding, dilation = window(attrs, 2, "conv_input_grad")
    if specs[1].shape[2:] != (TAPS, TAPS) or stride != (1, 1) or dilation != (1, 1) or attrs["groups"] != 1:
        return "computes 3 x 3 filters of one group with stride and dilation 1"
    if any(side >= TAPS for pair in padding for side in pair):
        return "computes convolutions whose every place has a pixel of the image: padding of at most 2"
    return forward.supports(m, _forward_specs(specs), _forward_attrs(attrs))


def _configs(m: int, specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    return forward.configs(m, _forward_specs(specs), _forward_attrs(attrs), threads)


def _model(m: int, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    return forward.model(m, _forward_specs(specs), _forward_attrs(attrs), config, threads)


def _magnitude(m: int) -> Callable[..., tuple[AnyArray, ...]]:
    of_forward = extra_error(m).magnitude
    assert of_forward is not None

    def of_gradient(grad: AnyArray, w: AnyArray, b: AnyArray | None, **attrs: Any) -> tuple[AnyArray, ...]:
        return of_forward(grad, turned(w), b, None, **_forward_attrs(attrs))

    return of_gradient


def _declared(m: int) -> dict[str, Any]:
    """The arguments of @kernel for F(m x m, 3 x 3)."""
    ahead = extra_error(m)
    return {
        "dtypes": forward.DTYPES,
        "supports": partial(_supports, m),
        "configs": partial(_configs, m),
        "model": partial(_model, m),
        "binds": True,
        "error": ExtraError(ahead.factor, ahead.why, _magnitude(m)),
    }


@kernel("conv_input_grad", **_declared(2))
def winograd2(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """F(2 x 2, 3 x 3): 4 products an element of dx."""
    return _bind(2, specs, attrs, config, threads)


@kernel("conv_input_grad", **_declared(4))
def winograd4(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """F(4 x 4, 3 x 3): 2.25 products an element of dx."""
    return _bind(4, specs, attrs, config, threads)


def _bind(m: int, specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    run = forward.bind(m, _forward_specs(specs), _forward_attrs(attrs), config, threads)

    def launch(grad: AnyArray, w: AnyArray, b: AnyArray | None, dx: AnyArray) -> None:
        run(grad, turned(w), b, None, dx)

    return launch
