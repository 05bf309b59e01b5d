"""How large the rounding errors of Winograd convolution may be, and what they are measured against.

The transforms add and subtract pixels that an output's definition does not have: all pixels of a tile reach
all its outputs, and cancel but for rounding. So an element's error can be large beside its own terms, where
its neighbours are large, and is measured against the terms that the algorithm adds up:

    |A^T| [ sum over channels of (|G| |g| |G^T|) * (|B^T| |d| |B|) ] |A|

The norm of all errors is measured against that of the ordinary terms, as for every kernel, and may be
`FACTORS[m]` times the standard budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernel import ExtraError
from ..op import AnyArray, Attrs
from . import reference as define
from .checks import unpacked
from .geometry import output_size, window
from .op import magnitude_of
from .tasks.winograd_transform import matrices, side

FACTORS = {2: 1.0, 4: 2.0}
"""Measured: over 168 kinds of problems in float32 (images and filters normal, positive, constant, with a
large mean, of alternating sign, spread over six powers of ten, or zero but for single pixels or taps; 1 to
200 channels), the norm was at most 0.39 of the standard budget for m = 2 and 1.3 for m = 4, both for a single
channel; an element was at most 0.15 of what it is allowed. On normal numbers with 32 channels or more the
error of m = 2 is 0.6 to 0.7 times that of the direct kernel, which adds up 2.25 times as many products, and
that of m = 4 1.7 to 1.9 times."""


def extra_error(m: int) -> ExtraError:
    """What the kernel of F(m x m, 3 x 3) declares."""
    return ExtraError(
        FACTORS[m],
        f"F({m}x{m}, 3x3): all {m + 2}x{m + 2} pixels of a tile reach all its outputs",
        magnitude(m),
    )


def magnitude(m: int) -> Callable[..., tuple[AnyArray]]:
    """The sums of absolute terms that F(m x m, 3 x 3) adds up for each output."""

    def of_terms(
        x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, **attrs: Any
    ) -> tuple[AnyArray]:
        def terms(x: AnyArray, w: AnyArray, b: AnyArray | None, r: AnyArray | None, own: Attrs) -> AnyArray:
            return _terms(m, x, w, b, r, own)

        return magnitude_of(terms, x, w, b, residual, attrs)

    return of_terms


def _terms(
    m: int, x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, attrs: Attrs
) -> AnyArray:
    """The algorithm with absolute values of its matrices, channels first."""
    at, g, bt = map(np.abs, matrices(m))
    x, w = define.first(x, attrs["layout"]), unpacked(w, attrs)
    stride, padding, dilation = window(attrs, 2, "conv")
    places = tuple(map(output_size, x.shape[2:], w.shape[2:], stride, padding, dilation))
    count = [-(-length // m) for length in places]
    images = np.zeros((*x.shape[:2], *(m * tiles + 2 for tiles in count)))
    (top, _), (left, _) = padding
    fits = images[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    fits[...] = x[:, :, : fits.shape[2], : fits.shape[3]]
    tiles = np.lib.stride_tricks.sliding_window_view(images, (side(m), side(m)), axis=(2, 3))
    v = np.einsum("pi,nchwij,qj->pqcnhw", bt, tiles[:, :, ::m, ::m], bt, optimize=True)
    u = np.einsum("pi,ocij,qj->pqoc", g, w, g, optimize=True)
    products = (u @ v.reshape(*v.shape[:3], -1)).reshape(*u.shape[:3], *v.shape[3:])
    y = np.einsum("ip,pqonhw,jq->nohiwj", at, products, at, optimize=True)
    z = y.reshape(*y.shape[:2], m * count[0], m * count[1])[:, :, : places[0], : places[1]]
    if b is not None:
        z = z + b.reshape(-1, 1, 1)
    return z if residual is None else z + define.first(residual, attrs["layout"])
