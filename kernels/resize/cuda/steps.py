"""An interpolation as one launch: how places are found, and how many outputs reach an input."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ...conv.cuda.problem import by_axis
from ...cuda.step import Step
from ...op import Attrs, Specs
from ...pool.cuda.steps import Walk, images_of
from .tap_kernels import gathered_back, resized

AXES = 3
MOST_UNROLLED, MOST_LINE = 8, 4  # outputs whose loads are all in flight: of all axes, or along w
TAPS = {"linear": 2, "cubic": 4}
_REACH = {"linear": 1, "cubic": 2}
_NEAR_INTEGER = 1e-9
"""How close to a whole number the kernel, which may round otherwise, could find another one beneath it."""


def how(n: int, m: int, attrs: Attrs) -> str:
    """How places along an axis are found: see `tap_kernels.tap_of`."""
    mode = str(attrs["mode"])
    if not mode.startswith("nearest"):
        return "cubic" if mode == "bicubic" else "linear"
    if n == m:
        return "same"
    if mode == "nearest-exact":
        return "exact"
    return "doubled" if m == 2 * n else "nearest"


def step_along(n: int, m: int, scale: float, aligned: bool) -> float:
    """Inputs from one output to the next."""
    if aligned:
        return (n - 1) / (m - 1) if m > 1 else 0.0
    return 1 / scale if scale > 0 else n / m


def bits(value: float) -> int:
    """A float64's bits as a signed number."""
    return int(np.float64(value).view(np.int64))


@lru_cache(maxsize=256)
def most_outputs(n: int, m: int, kind: str, step: float, nearest: float, aligned: bool) -> int:
    """How many outputs in a row may have one input among their places."""
    if kind in ("same", "doubled"):
        return 1 if kind == "same" else 2
    i = np.arange(m)
    if kind in ("nearest", "exact"):
        at = (i + (0.5 if kind == "exact" else 0.0)).astype(np.float32) * np.float32(nearest)
        low = high = np.minimum(np.floor(at).astype(np.int64), n - 1)
    else:
        where, reach = i * step if aligned else (i + 0.5) * step - 0.5, _REACH[kind]
        low = np.clip(np.floor(where - _NEAR_INTEGER).astype(np.int64) - (reach - 1), 0, n - 1)
        high = np.clip(np.floor(where + _NEAR_INTEGER).astype(np.int64) + reach, 0, n - 1)
    j = np.arange(n)
    first, last = np.searchsorted(high, j, "left"), np.searchsorted(low, j, "right") - 1
    return max(int((last - first + 1).max(initial=1)), 1)


def _axis_values(before: tuple[int, ...], after: tuple[int, ...], attrs: Attrs, back: bool) -> dict[str, Any]:
    """What kernels are told of the axes, those that are not there in front."""
    aligned, scales = bool(attrs["align_corners"]), tuple(attrs["scales"])
    missing = AXES - len(before)
    kinds, steps, inverses = ["same"] * missing, [0.0] * missing, [0.0] * missing
    nearests, most = [1.0] * missing, [1] * missing
    for n, m, scale in zip(before, after, scales, strict=True):
        kind, step = how(n, m, attrs), step_along(n, m, scale, aligned)
        nearest = float(np.float32(1 / scale) if scale > 0 else np.float32(n) / np.float32(m))
        kinds.append(kind)
        steps.append(step)
        inverses.append(1 / nearest if kind in ("nearest", "exact") else 1 / step if step else 0.0)
        nearests.append(nearest)
        most.append(most_outputs(n, m, kind, step, nearest, aligned) if back else 1)
    taps, small = [TAPS.get(kind, 1) for kind in kinds], prod(most) <= MOST_UNROLLED

    def each(name: str, values: Any, upper: bool = False) -> dict[str, Any]:
        return by_axis(name, tuple(values), upper)

    return {
        **each("size", (*(1,) * missing, *before)),
        **each("outs", (*(1,) * missing, *after)),
        **each("step", map(bits, steps)),
        **each("inverse", map(bits, inverses)),
        **each("nearest", nearests),
        **each("most", most),
        **each("M", kinds, True),
        **each("T", taps, True),
        **each("N", most if small else (0, 0, most[-1] if most[-1] <= MOST_LINE else 0), True),
        "ALIGNED": aligned,
    }


def forward_walk(specs: Specs) -> Walk:
    """y's elements: x and y are tensors 0 and 1, in the order of NCHW."""
    x, y = specs
    return Walk(("y", images_of(1, y, "NCHW")), {"x": images_of(0, x, "NCHW")}, x.itemsize)


def forward_step(specs: Specs, attrs: Attrs) -> Step:
    """The launch of interpolate."""
    x, y = specs
    return forward_walk(specs).launch(resized, _axis_values(x.shape[2:], y.shape[2:], attrs, False))


def back_walk(specs: Specs) -> Walk:
    """dx's elements: dy and dx are tensors 0 and 1."""
    dy, dx = specs
    return Walk(("dx", images_of(1, dx, "NCHW")), {"dy": images_of(0, dy, "NCHW")}, dy.itemsize)


def back_step(specs: Specs, attrs: Attrs) -> Step:
    """The launch of interpolate_grad."""
    dy, dx = specs
    return back_walk(specs).launch(gathered_back, _axis_values(dx.shape[2:], dy.shape[2:], attrs, True))
