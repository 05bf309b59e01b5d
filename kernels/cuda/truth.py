"""Whether a result on a GPU is right: float64 on the same device, and the project's own budget.

The same measure as `kernels.accuracy` (the errors against the sums of absolute terms), computed there, since
what is timed on a GPU may be too large for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import accuracy
from ..attention.cuda import truth as attention_truth
from ..conv.reference import SLOPES
from ..kernel import ExtraError
from ..op import Attrs, Op, Specs

MOST_IMAGES = 16
"""Images of a batch whose results are looked at: first, last, and some in between, different in each run."""


@dataclass(frozen=True)
class Judged:
    """The verdict on one result: its errors, and what is allowed."""

    ok: bool
    norm: float
    element: float
    allowed: float

    def to_json(self) -> dict[str, Any]:
        """The same as a dict."""
        return {"ok": self.ok, "norm": self.norm, "element": self.element, "allowed": self.allowed}

    def __str__(self) -> str:
        word = "right" if self.ok else "wrong"
        return f"{word}: error {self.norm:.3g}, of an element {self.element:.3g}; {self.allowed:.3g} allowed"


@dataclass(frozen=True)
class DeviceTruth:
    """What one call should give, worked out once on the device to judge any number of results.

    Attributes:
        exact: float64.
        scale: the sums of absolute terms, which errors are measured against.
        looked_at: the part of a result that is judged.
        allowed: the standard budget.
    """

    exact: Any
    scale: Any
    looked_at: Callable[[Any], Any]
    allowed: float

    @classmethod
    def of(cls, op: Op, specs: Specs, attrs: Attrs, tensors: Sequence[Any], seed: int = 0) -> DeviceTruth:
        """The truth about a call of one output that `known` knows; see `truths_of`.

        Args:
            op, attrs: the call, its attributes complete.
            specs: of its inputs, then its output.
            tensors: its inputs on the device, None for one that is left out.
            seed: chooses the images that are looked at.
        """
        import torch

        terms = op.reduction_length(specs[: len(op.inputs)], **attrs)
        with torch.inference_mode():
            exact, scale, looked_at = _TRUTHS[op.name](attrs, tensors, seed)
        return cls(exact, scale, looked_at, accuracy.budget(specs[-1].dtype, terms))

    def judge(self, result: Any, extra: ExtraError | None = None) -> Judged:
        """Judge one result; `extra` is what the kernel declared."""
        import torch

        allowed = self.allowed * (1.0 if extra is None else extra.factor)
        with torch.inference_mode():
            got = self.looked_at(result).double()
            if tuple(got.shape) != tuple(self.exact.shape) or not bool(torch.isfinite(got).all()):
                return Judged(False, float("inf"), float("inf"), allowed)
            off = (got - self.exact).abs_()
            norm = float(off.norm() / self.scale.norm().clamp_min(1e-300))
            element = float((off / self.scale.clamp_min(1e-300)).max())
        ok = norm <= allowed and element <= accuracy.ELEMENT_FACTOR * allowed
        return Judged(ok, norm, element, allowed)


def truths_of(op: Op, specs: Specs, attrs: Attrs, tensors: Sequence[Any], seed: int = 0) -> list[DeviceTruth]:
    """The truth about each output of a call that `known` knows; arguments as for `DeviceTruth.of`."""
    import torch

    if op.name not in _TRUTHS_OF_MANY:
        return [DeviceTruth.of(op, specs, attrs, tensors, seed)]
    count = len(op.inputs)
    terms = op.reduction_length(specs[:count], **attrs)
    with torch.inference_mode():
        found = _TRUTHS_OF_MANY[op.name](attrs, tensors, seed)
    return [
        DeviceTruth(*one, accuracy.budget(spec.dtype, terms))
        for one, spec in zip(found, specs[count:], strict=True)
    ]


def worst_of(verdicts: Sequence[Judged]) -> Judged:
    """The verdict on a call, by that on each of its outputs."""
    return max(verdicts, key=lambda v: (not v.ok, v.norm / v.allowed if v.allowed else v.norm))


def known(op: Op, attrs: Attrs) -> bool:
    """Whether `truths_of` can be had of a call; else the op's own reference has to serve, on the CPU."""
    evenly = all(low == high for low, high in attrs.get("padding") or ())
    sized = all(attrs.get(name, True) for name in ("input_size", "kernel_size"))
    return op.name in {*_TRUTHS, *_TRUTHS_OF_MANY} and evenly and sized and not attrs.get("w_format")


Truth = tuple[Any, Any, Callable[[Any], Any]]


def _all_of(result: Any) -> Any:
    return result


def _wide(x: Any) -> Any:
    return None if x is None else x.double()


def _matmul(attrs: Mapping[str, Any], tensors: Sequence[Any], seed: int) -> Truth:
    a, b = map(_wide, tensors)
    return a @ b, a.abs() @ b.abs(), _all_of


def _linear(attrs: Mapping[str, Any], tensors: Sequence[Any], seed: int) -> Truth:
    x, w, b, residual = map(_wide, tensors)
    z, total = x @ w.T, x.abs() @ w.abs().T
    for more in (b, residual):
        if more is not None:
            z, total = z + more, total + more.abs()
    return *_activated(attrs["activation"], z, total), _all_of


def _activated(name: str | None, z: Any, total: Any) -> tuple[Any, Any]:
    if name is None:
        return z, total
    y = _activation(name)(z)
    return y, SLOPES[name] * total + y.abs()


def _activation(name: str) -> Callable[[Any], Any]:
    import torch
    from torch.nn import functional

    table: dict[str, Callable[[Any], Any]] = {
        "relu": torch.relu,
        "gelu": functional.gelu,
        "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": functional.silu,
    }
    return table[name]


def _scaled(attrs: Mapping[str, Any], tensors: Sequence[Any], seed: int) -> Truth:
    a, b, a_scale, b_scale, bias = map(_wide, tensors)
    factor = a_scale.reshape(-1, 1) * b_scale.reshape(1, -1)
    z, total = (a @ b) * factor, (a.abs() @ b.abs()) * factor.abs()
    return (z, total, _all_of) if bias is None else (z + bias, total + bias.abs(), _all_of)


def _some_images(count: int, seed: int) -> list[int]:
    import torch

    if count <= MOST_IMAGES:
        return list(range(count))
    inner = torch.randperm(count - 2, generator=torch.Generator().manual_seed(seed))[: MOST_IMAGES - 2] + 1
    return sorted({0, count - 1, *inner.tolist()})


def _conv(attrs: Mapping[str, Any], tensors: Sequence[Any], seed: int) -> Truth:
    from torch.nn import functional

    x, w, b, residual = tensors
    at = _some_images(x.shape[0], seed)
    x = _first(x[at].double(), attrs)
    padding = [low for low, _ in attrs["padding"] or ((0, 0),) * (x.ndim - 2)]
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[x.ndim - 3]
    rest = (attrs["stride"] or 1, padding, attrs["dilation"] or 1, attrs["groups"])
    z, total = function(x, w.double(), None, *rest), function(x.abs(), w.double().abs(), None, *rest)
    if b is not None:
        z, total = z + _column(b, z), total + _column(b, z).abs()
    if residual is not None:
        more = _first(residual[at].double(), attrs)
        z, total = z + more, total + more.abs()
    exact, scale = _activated(attrs["activation"], z, total)
    return _last(exact, attrs), _last(scale, attrs), lambda result: result[at]


def _column(b: Any, z: Any) -> Any:
    return b.double().reshape(-1, *(1,) * (z.ndim - 2))


def _backward(attrs: Mapping[str, Any], grad: Any, x: Any, w: Any, which: int) -> Any:
    import torch

    axes = grad.ndim - 2
    pads = attrs["padding"] or ((0, 0),) * axes
    mask = [place == which for place in range(3)]
    return torch.ops.aten.convolution_backward(
        grad,
        x,
        w,
        None,
        list(attrs["stride"] or (1,) * axes),
        [low for low, _ in pads],
        list(attrs["dilation"] or (1,) * axes),
        False,
        [0] * axes,
        attrs["groups"],
        mask,
    )[which]


def _input_grad(attrs: Mapping[str, Any], tensors: Sequence[Any], seed: int) -> Truth:
    grad, w = tensors[0], tensors[1].double()
    at = _some_images(grad.shape[0], seed)
    grad = _first(grad[at].double(), attrs)
    x = grad.new_empty((len(at), w.shape[1] * attrs["groups"], *attrs["input_size"]))
    exact, scale = (_backward(attrs, g, x, v, 0) for g, v in ((grad, w), (grad.abs(), w.abs())))
    if tensors[2] is not None:  # of a transposed convolution
        exact, scale = exact + _column(tensors[2], exact), scale + _column(tensors[2], exact).abs()
    return _last(exact, attrs), _last(scale, attrs), lambda result: result[at]


def _weight_grad(attrs: Mapping[str, Any], tensors: Sequence[Any], seed: int) -> Truth:
    exact: Any = 0.0
    scale: Any = 0.0
    channels = [t.shape[1 if attrs["layout"] == "NCHW" else -1] for t in tensors[:2]]
    shape = (channels[1], channels[0] // attrs["groups"], *attrs["kernel_size"])
    for at in range(0, tensors[0].shape[0], MOST_IMAGES):
        x, grad = (_first(t[at : at + MOST_IMAGES].double(), attrs) for t in tensors[:2])
        w = x.new_empty(shape)
        exact = exact + _backward(attrs, grad, x, w, 1)
        scale = scale + _backward(attrs, grad.abs(), x.abs(), w, 1)
    return exact, scale, _all_of


def _first(x: Any, attrs: Mapping[str, Any]) -> Any:
    """Images with the channels first."""
    return x if attrs["layout"] == "NCHW" else x.movedim(-1, 1)


def _last(x: Any, attrs: Mapping[str, Any]) -> Any:
    """And back."""
    return x if attrs["layout"] == "NCHW" else x.movedim(1, -1)


_TRUTHS: dict[str, Callable[..., Truth]] = {
    "matmul": _matmul,
    "linear": _linear,
    "scaled_matmul": _scaled,
    "conv": _conv,
    "conv_input_grad": _input_grad,
    "conv_weight_grad": _weight_grad,
}
_TRUTHS_OF_MANY: dict[str, Callable[..., list[Truth]]] = {
    "attention": attention_truth.forward,
    "attention_grad": attention_truth.backward,
}
