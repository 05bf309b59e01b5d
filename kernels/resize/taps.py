"""Which elements along an axis an interpolated one is made of, and with which weights.

The definitions are PyTorch's (aten/src/ATen/native/UpSample.h): an output element at place i lies at
scale * (i + 0.5) - 0.5 in the input, or at i (n - 1) / (m - 1) when corners are aligned. Nearest places are
worked out in float32 there, which decides ties; so they are here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

AXES = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "trilinear": (3,)}
AXES["bicubic"] = (2,)
_CUBIC = -0.75  # the parameter of Keys' kernel that PyTorch and others use (Keys 1981, in which it is -0.5)

Taps = tuple[NDArray[np.int64], NDArray[np.float64]]


@lru_cache(maxsize=256)
def taps(n: int, m: int, mode: str, align_corners: bool, scale: float) -> Taps:
    """(places, weights), each [taps, m]: output i is the sum of weights[k][i] * x[places[k][i]].

    Args:
        n, m: lengths of the axis before and after.
        mode, align_corners: as in `interpolate`.
        scale: by which the axis was said to grow; 0 where only the lengths say it.
    """
    i = np.arange(m)
    if mode.startswith("nearest"):
        return _nearest(n, m, mode == "nearest-exact", scale)[None], np.ones((1, m))
    if align_corners:
        at = i * ((n - 1) / (m - 1) if m > 1 else 0.0)
    else:
        at = (1 / scale if scale > 0 else n / m) * (i + 0.5) - 0.5
    if mode != "bicubic":
        at = np.maximum(at, 0.0)
        low = np.minimum(at.astype(np.int64), n - 1)
        part = np.clip(at - low, 0.0, 1.0)
        return np.stack([low, np.minimum(low + 1, n - 1)]), np.stack([1 - part, part])
    low = np.floor(at).astype(np.int64)
    part = at - low
    near, far = _cubic_near(np.stack([part, 1 - part])), _cubic_far(np.stack([part + 1, 2 - part]))
    places = np.clip(np.stack([low - 1, low, low + 1, low + 2]), 0, n - 1)
    return places, np.stack([far[0], near[0], near[1], far[1]])


def _nearest(n: int, m: int, exact: bool, scale: float) -> NDArray[np.int64]:
    i = np.arange(m)
    if n == m:
        return i
    if m == 2 * n and not exact:
        return i // 2
    step = np.float32(1 / scale) if scale > 0 else np.float32(n) / np.float32(m)
    at = np.floor((i + (0.5 if exact else 0.0)).astype(np.float32) * step)
    return np.minimum(at.astype(np.int64), n - 1)


def _cubic_near(x: Any) -> Any:
    """Keys' kernel where |x| is at most 1."""
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _cubic_far(x: Any) -> Any:
    """Keys' kernel where |x| is between 1 and 2."""
    return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC


def turned(found: Taps, n: int) -> tuple[Taps, NDArray[np.int64]]:
    """The taps of the gradient: for each of the n inputs the outputs that it is in; and how many these are.

    Rows past an input's number are its last place with weight 0, and not to be used.
    """
    places, weights = found
    count = np.zeros(n, np.int64)
    np.add.at(count, places.ravel(), 1)
    most = max(int(count.max(initial=0)), 1)
    back, by = np.zeros((most, n), np.int64), np.zeros((most, n))
    # Outputs in ascending order, so that sums come out the same wherever they are computed.
    source = np.broadcast_to(np.arange(places.shape[1]), places.shape).T.ravel()
    order = np.argsort(places.T.ravel(), kind="stable")
    target = places.T.ravel()[order]
    nth = np.arange(len(target)) - np.searchsorted(target, target)
    back[nth, target], by[nth, target] = source[order], weights.T.ravel()[order]
    return (back, by), count
