"""Layer, RMS, group and batch normalisation, each with its gradient as an op of its own.

    layer_norm(x, weight, bias)    -> y, mean, rstd           over the last `axes` axes
    rms_norm(x, weight)            -> y, rstd                 over the last `axes` axes, about 0
    group_norm(x, weight, bias)    -> y, mean, rstd           x: [N, C, ...], over the C / groups channels
    <norm>_grad(dy, x, weight, mean, rstd)  -> dx, dweight, dbias

with rstd = 1 / sqrt(var + eps), var the mean of the squares about the mean. Statistics are float32 for 16-bit
numbers; weight and bias are of x's dtype or that of the statistics. Where weight is left out, the gradients
of both have size 0. Batch normalisation is in `batch.py`.

Sources: Ba, Kiros and Hinton, "Layer normalization", 2016; Zhang and Sennrich, "Root mean square layer
normalization", 2019; Wu and He, "Group normalization", 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..reduce.samples import thinned
from ..spec import TensorSpec, np_dtype
from . import form as forms
from . import reference as math
from .form import Form

FLOATS = ("float32", "float64", "bfloat16", "float16")
MakeForm = Callable[[str, Any, Any], Form]


def wide_dtype(dtype: str) -> str:
    """What statistics are computed and kept in."""
    return dtype if dtype in ("float32", "float64") else "float32"


def form_of(name: str, shape: tuple[int, ...], attrs: Any) -> Form:
    """The form of a call of the family's op `name`; errors as in `form.py`."""
    if "axes" in attrs:
        return forms.layer(name, shape, attrs["axes"])
    if "groups" in attrs:
        return forms.group(name, shape, attrs["groups"])
    return forms.batch(name, shape, attrs["channel_axis"])


def check_beside(op: Op, specs: Specs, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuses parameters and statistics of other shapes than `shapes` or of a dtype that does not go with x.

    Raises:
        ShapeError, DTypeError: naming the operand and what it should be.
    """
    given = dict(zip(op.inputs, specs, strict=True))
    x = given["x"]
    wide = wide_dtype(x.dtype)
    for name, spec in given.items():
        if not spec.present or name not in shapes:
            continue
        if spec.shape != shapes[name]:
            raise ShapeError(
                f"{op.name}: {name} is {spec}, but x is {x}: {name} has the shape {shapes[name]}."
            )
        if name in op.own_dtype and spec.dtype not in (x.dtype, wide):
            takes = x.dtype if wide == x.dtype else f"{x.dtype} or {wide}"
            raise DTypeError(
                f"{op.name}: x is {x.dtype} but {name} is {spec.dtype}; beside that x it is {takes}. "
                f"Convert it yourself: kw.array({name}, dtype={wide!r})."
            )


def empty_or(spec: TensorSpec, shape: tuple[int, ...], dtype: str, device: str) -> TensorSpec:
    """A result that is only there beside the operand `spec`: of this shape, else of size 0."""
    return TensorSpec(shape if spec.present else (0,), dtype, device)


def _infer(name: str, specs: Specs, eps: float, **attrs: Any) -> Specs:
    """The specs of y and of the statistics.

    Raises:
        DTypeError, ShapeError: where dtypes or shapes do not fit.
    """
    op = OPS[name]
    op.check_inputs(specs)
    x, _weight = specs[:2]
    form = form_of(name, x.shape, attrs)
    check_beside(op, specs, {"weight": form.parameters, "bias": form.parameters})
    kept = TensorSpec(form.statistics, wide_dtype(x.dtype), x.device)
    return (TensorSpec(x.shape, x.dtype, x.device), *(kept,) * (1 if name == "rms_norm" else 2))


def _infer_grad(name: str, specs: Specs, **attrs: Any) -> Specs:
    """The specs of the gradients of x, weight and bias.

    Raises:
        DTypeError, ShapeError: where dtypes or shapes do not fit.
    """
    op = OPS[name]
    op.check_inputs(specs)
    x, weight = specs[1], specs[2]
    form = form_of(name, x.shape, attrs)
    at = form.statistics
    check_beside(op, specs, {"dy": x.shape, "weight": form.parameters, "mean": at, "rstd": at})
    dtype = weight.dtype if weight.present else x.dtype
    parameters = empty_or(weight, form.parameters, dtype, x.device)
    count = 1 if name == "rms_norm_grad" else 2
    return (TensorSpec(x.shape, x.dtype, x.device), *(parameters,) * count)


def _forward(name: str, *arrays: AnyArray | None, eps: float, **attrs: Any) -> tuple[AnyArray, ...]:
    x, weight, bias = (*arrays, None)[:3]
    assert x is not None
    form = form_of(name, x.shape, attrs)
    mean, rstd = math.statistics(x, form, eps, centred=name != "rms_norm")
    y = math.applied(x, weight, bias, mean, rstd, form)
    kept = [s.reshape(form.statistics) for s in (mean, rstd)]
    return (y, *kept[1 if name == "rms_norm" else 0 :])


def _forward_size(name: str, *arrays: AnyArray | None, eps: float, **attrs: Any) -> tuple[AnyArray, ...]:
    x, weight, bias = (*arrays, None)[:3]
    assert x is not None
    form = form_of(name, x.shape, attrs)
    _, rstd = math.statistics(x, form, eps, centred=name != "rms_norm")
    # The mean comes with the rounding of a sum, whose terms may be larger than it is.
    absolute = math.mean_of(np.abs(x).reshape(form.view), form) * (name != "rms_norm")
    size = math.applied_size(x, weight, bias, absolute, rstd, form)
    absolute = absolute.reshape(form.statistics)
    rstd = rstd.reshape(form.statistics)
    return (size, rstd) if name == "rms_norm" else (size, absolute, rstd)


def _backward(
    compute: Callable[..., tuple[AnyArray, ...]], name: str, *arrays: AnyArray | None, **attrs: Any
) -> tuple[AnyArray, ...]:
    dy, x, weight = arrays[:3]
    mean, rstd = (None, arrays[3]) if name == "rms_norm_grad" else arrays[3:]
    assert x is not None
    form = form_of(name, x.shape, attrs)
    dx, dweight, dbias = compute(dy, x, weight, mean, rstd, form)
    if weight is None:
        dweight = dbias = np.zeros(0)
    return (dx, dweight) if name == "rms_norm_grad" else (dx, dweight, dbias)


def _reduction_length(name: str, specs: Specs, **attrs: Any) -> int:
    """The longer of the two sums: over what shares a mean, and over what shares a weight."""
    x = specs[OPS[name].inputs.index("x")]
    form = form_of(name, x.shape, attrs)
    shared = x.size // max(1, int(np.prod(form.parameters, dtype=np.int64)))
    return max(form.count, shared) if name.endswith("_grad") else form.count


def _cost(name: str, specs: Specs, **attrs: Any) -> Cost:
    """8 operations an element, 12 in the gradient."""
    x = specs[OPS[name].inputs.index("x")]
    grad = name.endswith("_grad")
    moved = sum(spec.nbytes for spec in specs if spec.present) + x.nbytes
    return Cost(flops=(12 if grad else 8) * x.size, bytes=moved)


# --- samples ------------------------------------------------------------------------------------------------


def _calls(name: str) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """Shapes of x and attributes."""
    if name == "group_norm":
        for shape, groups in _GROUPS:
            yield shape, {"groups": groups, "eps": 1e-5}
        return
    for shape, axes in _ROWS:
        # A row of one number has no variance: rstd is large, and its slope enormous.
        yield shape, {"axes": axes, "eps": 0.1 if shape[-1] == 1 else 1e-5}


_GROUPS: tuple[tuple[tuple[int, ...], int], ...] = (
    *(((2, 6, 5), 3), ((3, 4, 4, 5), 2), ((2, 35), 5), ((1, 1, 33), 1), ((2, 5, 3, 3), 5)),
    *(((0, 4, 3), 2), ((2, 4, 0), 2), ((2, 8, 2, 3, 2), 1), ((2, 2, 70), 1)),
)
_ROWS: tuple[tuple[tuple[int, ...], int], ...] = (
    *(((7,), 1), ((5, 1), 1), ((3, 65), 1), ((70, 3), 1), ((4, 5, 6), 1), ((4, 5, 6), 2)),
    *(((2, 3, 40), 3), ((0, 5), 1), ((5, 0), 1), ((2, 300), 1), ((17, 16), 1)),
)


def _samples(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    grad = name.endswith("_grad")
    forward = name.removesuffix("_grad")

    def normal(shape: tuple[int, ...], kind: str = dtype) -> AnyArray:
        return rng.standard_normal(shape).astype(np_dtype(kind))

    def made(x: AnyArray, attrs: dict[str, Any], weight: str | None, bias: bool = True) -> Sample:
        form = form_of(forward, x.shape, attrs)
        w = None if weight is None else normal(form.parameters, weight)
        text = f"{x.shape} {attrs}, weight {weight}"
        if not grad:
            b = normal(form.parameters, weight or dtype) if bias else None
            return Sample(text, (x, w) if name == "rms_norm" else (x, w, b), attrs)
        found = math.statistics(x.astype(np.float64), form, attrs["eps"], centred=forward != "rms_norm")
        kept = [s.reshape(form.statistics).astype(wide_dtype(dtype)) for s in found]
        attrs = {key: value for key, value in attrs.items() if key != "eps"}
        back = 1 if forward == "rms_norm" else 0
        return Sample(text, (normal(x.shape), x, w, *kept[back:]), attrs)

    for place, (shape, attrs) in enumerate(_calls(forward)):
        weight = (dtype, wide_dtype(dtype), None)[place % 3]
        yield made(normal(shape), attrs, weight, bias=place % 4 != 3)
    last = {"groups": 3, "eps": 1e-3} if forward == "group_norm" else {"axes": 1, "eps": 1e-3}
    yield made(normal((8, 18, 40))[::2, ::3, 1::3], last, dtype)
    yield made(normal((21, 6, 4)).transpose(2, 1, 0), last, dtype)
    yield made(normal((3, 6, 20))[::-1, ::-1, ::-1], last, dtype)
    yield made(np.broadcast_to(normal((6, 20)), (3, 6, 20)), last, dtype)
    yield made(normal((3, 6, 20)) + np.asarray(10, np_dtype(dtype)), last, wide_dtype(dtype))
    if not grad:
        x = normal((3, 6, 20))
        x[0, 0, 3], x[1, 3, 0] = np.nan, np.inf
        yield made(x, last, dtype)


# --- the ops ------------------------------------------------------------------------------------------------

OPS: dict[str, Op] = {}
"""The family's ops, by name."""


def _declare(name: str, attrs: dict[str, Any], doc: str) -> None:
    centred = name != "rms_norm"
    inputs = ("x", "weight", "bias") if centred else ("x", "weight")
    OPS[name] = register_op(
        Op(
            name=name,
            infer=partial(_infer, name),
            reference=partial(_forward, name),
            cost=partial(_cost, name),
            samples=lambda rng, dtype: thinned(dtype, _samples(name, rng, dtype)),
            reduction_length=partial(_reduction_length, name),
            inputs=inputs,
            attrs={**attrs, "eps": 1e-5},
            dtypes=FLOATS,
            doc=doc,
            magnitude=partial(_forward_size, name),
            family="normalize",
            optional=inputs[1:],
            own_dtype=inputs[1:],
        )
    )
    grad = f"{name}_grad"
    kept = ("mean", "rstd") if centred else ("rstd",)
    OPS[grad] = register_op(
        Op(
            name=grad,
            infer=partial(_infer_grad, grad),
            reference=partial(_backward, math.gradients, grad),
            cost=partial(_cost, grad),
            samples=lambda rng, dtype: thinned(dtype, _samples(grad, rng, dtype)),
            reduction_length=partial(_reduction_length, grad),
            inputs=("dy", "x", "weight", *kept),
            attrs=attrs,
            dtypes=FLOATS,
            doc=f"The gradients of {name}, from what it was given and its statistics.",
            magnitude=partial(_backward, math.gradients_size, grad),
            family="normalize",
            optional=("weight",),
            own_dtype=("weight", *kept),
        )
    )


_declare("layer_norm", {"axes": 1}, "Each row (x - mean) / sqrt(var + eps), times weight, plus bias.")
_declare("rms_norm", {"axes": 1}, "Each row x / sqrt(mean(x^2) + eps), times weight.")
_declare("group_norm", {"groups": 1}, "Each group of channels (x - mean) / sqrt(var + eps), weight, bias.")

from . import batch as batch  # noqa: E402  batch normalisation, which belongs to the same family
