"""interpolate, and interpolate_grad: the last one to three axes of [N, C, ...] resampled."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec, np_dtype
from .taps import AXES, Taps, taps, turned

DTYPES = ("float32", "float64", "bfloat16", "float16")


def all_taps(before: tuple[int, ...], attrs: dict[str, Any]) -> list[Taps]:
    """The taps along each axis that is resampled, whose lengths were `before`."""
    how = attrs["mode"], attrs["align_corners"]
    sizes = zip(before, attrs["size"], attrs["scales"], strict=True)
    return [taps(n, m, *how, scale) for n, m, scale in sizes]


def _check(op: str, ndim: int, size: Any, mode: str, align_corners: bool, scales: Any) -> None:
    if mode not in AXES:
        raise ConfigError(f"{op}: mode is one of {', '.join(AXES)}, got {mode!r}.")
    if align_corners and mode.startswith("nearest"):
        raise ConfigError(f"{op}: align_corners means nothing in mode {mode!r}; leave it out.")
    if ndim - 2 not in AXES[mode]:
        axes = " or ".join(str(n + 2) for n in AXES[mode])
        raise ShapeError(f"{op}: mode {mode!r} takes arrays of {axes} axes, [N, C, ...], got one of {ndim}.")
    if len(size) != ndim - 2 or len(scales) != ndim - 2 or min(size) < 1:
        raise ShapeError(
            f"{op}: size {size} and scales {scales} need one number, 1 or more, for each of {ndim - 2} axes."
        )


def _infer(specs: Specs, *, size: Any, mode: str, align_corners: bool, scales: Any) -> Specs:
    dtype = INTERPOLATE.check_inputs(specs)
    (x,) = specs
    _check("interpolate", x.ndim, size, mode, align_corners, scales)
    if 0 in x.shape[2:]:
        raise ShapeError(f"interpolate: x {x.shape} has nothing to interpolate between.")
    return (TensorSpec((*x.shape[:2], *size), dtype, x.device),)


def _reference(x: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    for axis, (places, weights) in enumerate(all_taps(x.shape[2:], attrs), 2):
        along = (-1,) + (1,) * (x.ndim - 1 - axis)
        x = sum(w.reshape(along) * np.take(x, at, axis) for at, w in zip(places, weights, strict=True))
    return (x,)


def _magnitude(x: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    x = np.abs(x)
    for axis, (places, weights) in enumerate(all_taps(x.shape[2:], attrs), 2):
        along = (-1,) + (1,) * (x.ndim - 1 - axis)
        x = sum(
            np.abs(w).reshape(along) * np.take(x, at, axis) for at, w in zip(places, weights, strict=True)
        )
    return (x,)


def _reduction_length(specs: Specs, **attrs: Any) -> int:
    return prod(len(places) for places, _ in all_taps(specs[0].shape[2:], attrs))


CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[float, ...]]] = [
    ("linear", (2, 3, 9), (14,), (0.0,)),
    ("bilinear", (2, 3, 5, 7), (10, 14), (0.0, 0.0)),
    ("bilinear", (1, 2, 9, 6), (4, 5), (0.0, 0.0)),
    ("bilinear", (1, 2, 5, 4), (12, 9), (2.5, 2.3)),
    ("bilinear", (1, 1, 3, 40), (1, 70), (0.0, 0.0)),
    ("bilinear", (1, 2, 4, 4), (2, 2), (0.6, 0.6)),
    ("bicubic", (1, 2, 6, 5), (9, 11), (0.0, 0.0)),
    ("bicubic", (1, 2, 7, 9), (3, 4), (0.5, 0.5)),
    ("trilinear", (1, 2, 3, 4, 5), (5, 7, 6), (0.0, 0.0, 0.0)),
    ("nearest", (2, 2, 9), (21,), (0.0,)),
    ("nearest", (2, 3, 4, 5), (8, 10), (2.0, 2.0)),
    ("nearest", (1, 2, 9, 7), (4, 3), (0.0, 0.0)),
    ("nearest", (1, 2, 2, 3, 4), (3, 5, 8), (0.0, 0.0, 0.0)),
    ("nearest-exact", (1, 2, 5, 6), (9, 4), (0.0, 0.0)),
    ("bilinear", (0, 2, 3, 4), (2, 2), (0.0, 0.0)),
]


def _variants() -> Iterator[tuple[str, tuple[int, ...], dict[str, Any]]]:
    for mode, shape, size, scales in CASES:
        for aligned in (False,) if mode.startswith("nearest") else (False, True):
            attrs = {"size": size, "mode": mode, "align_corners": aligned, "scales": scales}
            yield f"{mode} {list(shape[2:])} to {list(size)}", shape, attrs


def _samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, attrs in _variants():
        yield Sample(name, (rng.standard_normal(shape).astype(np_dtype(dtype)),), attrs)
    x = rng.standard_normal((2, 8, 5, 3)).astype(np_dtype(dtype)).transpose(0, 3, 1, 2)[:, :, ::-2]
    attrs = {"size": (7, 9), "mode": "bilinear", "align_corners": False, "scales": (0.0, 0.0)}
    yield Sample("channels last, strided", (x,), attrs)


INTERPOLATE = register_op(
    Op(
        name="interpolate",
        infer=_infer,
        reference=_reference,
        cost=lambda specs, *, size, **how: Cost(
            4 * prod(size) * prod(specs[0].shape[:2]),
            specs[0].nbytes + prod(size) * prod(specs[0].shape[:2]) * specs[0].itemsize,
        ),
        samples=_samples,
        reduction_length=_reduction_length,
        inputs=("x",),
        attrs={"size": (), "mode": "nearest", "align_corners": False, "scales": ()},
        dtypes=DTYPES,
        doc="x: [N, C, ...] resampled to [N, C, *size], as torch.nn.functional.interpolate.",
        family="resize",
        magnitude=_magnitude,
    )
)


def _infer_grad(
    specs: Specs, *, before: Any, size: Any, mode: str, align_corners: bool, scales: Any
) -> Specs:
    dtype = INTERPOLATE_GRAD.check_inputs(specs)
    (dy,) = specs
    _check("interpolate_grad", dy.ndim, size, mode, align_corners, scales)
    if dy.shape[2:] != tuple(size) or len(before) != len(size) or min(before) < 1:
        raise ShapeError(f"interpolate_grad: dy {dy.shape} must end in {size}, and {before} fit it.")
    return (TensorSpec((*dy.shape[:2], *before), dtype, dy.device),)


def _added_back(dy: AnyArray, before: Any, attrs: dict[str, Any], sign: bool) -> AnyArray:
    for axis, (n, (places, weights)) in enumerate(zip(before, all_taps(before, attrs), strict=True), 2):
        moved = np.moveaxis(dy, axis, 0)
        dx = np.zeros((n, *moved.shape[1:]), dy.dtype)
        along = (-1,) + (1,) * (dy.ndim - 1)
        for at, w in zip(places, np.abs(weights) if sign else weights, strict=True):
            np.add.at(dx, at, w.reshape(along) * moved)
        dy = np.moveaxis(dx, 0, axis)
    return dy


def _grad_length(specs: Specs, *, before: Any, **attrs: Any) -> int:
    found = all_taps(before, attrs)
    return prod(len(turned(one, n)[0][0]) for one, n in zip(found, before, strict=True))


def _grad_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, attrs in _variants():
        dy = rng.standard_normal((*shape[:2], *attrs["size"])).astype(np_dtype(dtype))
        yield Sample(name, (dy,), {"before": shape[2:], **attrs})
    dy = rng.standard_normal((2, 9, 5, 3)).astype(np_dtype(dtype)).transpose(0, 3, 1, 2)[:, :, ::-2]
    attrs = {"size": (5, 5), "mode": "bilinear", "align_corners": False, "scales": (0.0, 0.0)}
    yield Sample("channels last, strided", (dy,), {"before": (3, 4), **attrs})


INTERPOLATE_GRAD = register_op(
    Op(
        name="interpolate_grad",
        infer=_infer_grad,
        reference=lambda dy, *, before, **attrs: (_added_back(dy, before, attrs, False),),
        cost=lambda specs, *, before, **how: Cost(
            4 * specs[0].size, specs[0].nbytes + prod(before) * prod(specs[0].shape[:2]) * specs[0].itemsize
        ),
        samples=_grad_samples,
        reduction_length=_grad_length,
        inputs=("dy",),
        attrs={"before": (), "size": (), "mode": "nearest", "align_corners": False, "scales": ()},
        dtypes=DTYPES,
        doc="The gradient of interpolate: dy: [N, C, *size] added up where its parts came from.",
        family="resize",
        magnitude=lambda dy, *, before, **attrs: (_added_back(np.abs(dy), before, attrs, True),),
    )
)
