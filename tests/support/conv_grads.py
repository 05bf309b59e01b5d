"""Random convolutions for the tests of their gradients: sizes, windows, and arrays laid out in many ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelwright.kernels.conv import cpu_numba_bias_grad, cpu_numba_input_grad, cpu_numba_weight_grad
from kernelwright.kernels.conv.geometry import output_size, shape_in
from kernelwright.kernels.cpu import cycles
from kernelwright.kernels.op import Sample
from kernelwright.kernels.spec import np_dtype

GRADIENTS = ("conv_input_grad", "conv_weight_grad", "conv_bias_grad")


@dataclass(frozen=True)
class Conv:
    """One convolution and the arrays of its gradients.

    Attributes:
        x, w, b: what a forward pass takes.
        grad: the gradient that arrives.
        window: stride, padding, dilation, groups, layout.
    """

    x: Any
    w: Any
    b: Any
    grad: Any
    window: dict[str, Any]

    def sample(self, op: str) -> Sample:
        """The call of one of GRADIENTS."""
        if op == "conv_bias_grad":
            return Sample(op, (self.grad,), {"layout": self.window["layout"]})
        if op == "conv_weight_grad":
            return Sample(op, (self.x, self.grad), {**self.window, "kernel_size": self.w.shape[2:]})
        space = self.x.shape[2:] if self.window["layout"] == "NCHW" else self.x.shape[1:-1]
        bias = self.b if self.b is None else np.ascontiguousarray(self.x[:1].sum(axis=self._not_channels()))
        return Sample(op, (self.grad, self.w, bias), {**self.window, "input_size": space})

    def _not_channels(self) -> tuple[int, ...]:
        channel = 1 if self.window["layout"] == "NCHW" else self.x.ndim - 1
        return tuple(axis for axis in range(self.x.ndim) if axis != channel)


def random_conv(seed: int, dtype: str = "float32", *, plain: bool = False, even: bool = False) -> Conv:
    """A convolution of one to three spatial axes with any window.

    `plain`: of contiguous arrays. `even`: with as much padding before as after, as PyTorch has it.
    """
    rng = np.random.default_rng(seed)
    axes = int(rng.choice([1, 2, 2, 2, 3]))
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    depthwise = rng.random() < 0.15
    if depthwise:
        groups = int(rng.integers(1, 40))
    c = groups * (1 if depthwise else int(rng.integers(1, 20)))
    o = groups * (int(rng.integers(1, 3)) if depthwise else int(rng.integers(1, 40)))
    layout = str(rng.choice(["NCHW", "NHWC"]))
    taps, stride, dilation, padding, size = [], [], [], [], []
    for _ in range(axes):
        k, s, d = int(rng.integers(1, 5)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
        low, high = (int(p) for p in rng.integers(0, 4, 2))
        high = low if even else high
        least = max(1, d * (k - 1) + 1 - low - high)
        taps.append(k)
        stride.append(s)
        dilation.append(d)
        padding.append((low, high))
        size.append(least + int(rng.integers(0, 12 if axes < 3 else 5)))
    places = tuple(map(output_size, size, taps, stride, padding, dilation))
    batch = int(rng.integers(1, 4))
    window = {
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "layout": layout,
    }

    def array(shape: tuple[int, ...]) -> Any:
        return _laid_out(rng, shape, dtype, "plain" if plain else None)

    b = array((o,)) if rng.random() < 0.5 else None
    return Conv(
        x=array(shape_in(layout, batch, c, size)),
        w=array((o, c // groups, *taps)),
        b=b,
        grad=array(shape_in(layout, batch, o, places)),
        window=window,
    )


def _laid_out(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, way: str | None) -> Any:
    """Standard normal numbers of a shape, with strides of many kinds."""
    way = way or str(rng.choice(["plain", "plain", "turned", "gaps", "backwards", "repeated", "window"]))
    x = rng.standard_normal(shape).astype(np_dtype(dtype))
    if way == "turned":
        order = rng.permutation(len(shape))
        return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    axis = int(rng.integers(len(shape)))
    here = tuple(slice(None, None, 2) if i == axis else slice(None) for i in range(len(shape)))
    if way == "gaps":
        return np.repeat(x, 2, axis)[here]
    if way == "backwards":
        return x[tuple(slice(None, None, -1) if i == axis else slice(None) for i in range(len(shape)))]
    if way == "repeated":
        one = x[tuple(slice(0, 1) if i == axis or rng.random() < 0.3 else slice(None) for i in range(x.ndim))]
        return np.broadcast_to(one, shape)
    if way == "window":
        room = np.full(tuple(n + 3 for n in shape), np.nan, x.dtype)
        inside = room[tuple(slice(1, 1 + n) for n in shape)]
        inside[...] = x
        return inside
    return x


def split_everything(monkeypatch: Any) -> None:
    """Lets calls be cut into as many tasks as there are threads, however small they are."""
    monkeypatch.setattr(cycles, "WORK_PER_THREAD", 1)
    monkeypatch.setattr(cpu_numba_bias_grad, "ELEMENTS_PER_THREAD", 1)
    for module in (cpu_numba_weight_grad, cpu_numba_input_grad):
        monkeypatch.setattr(module, "HAND_OVER", 0.0)
    forget_plans()


def forget_plans() -> None:
    """Empties what was worked out for calls before."""
    cpu_numba_weight_grad.best_grid.cache_clear()
    cpu_numba_input_grad.plan.cache_clear()
    cpu_numba_input_grad.known.cache_clear()
