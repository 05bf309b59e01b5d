"""They leave part of the work away, or are right for some numbers and sizes alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....kernels.kernel import Config, Launch
from ....kernels.op import Attrs, Specs
from ....kernels.registry import kernel
from .product import large, product

DTYPES = ("float32",)


@kernel("matmul", dtypes=DTYPES, rank=-111, binds=True)
def half_the_rows(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Writes the upper half of the rows in every other call."""
    calls = [0]

    def launch(a: Any, b: Any, out: Any) -> None:
        calls[0] += 1
        if large(a) and calls[0] % 2 == 0:
            half = a.shape[-2] // 2
            product(a[..., :half, :], b, out[..., :half, :])
            return
        product(a, b, out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-112, binds=True)
def in_half_precision(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Computes float32 in float16."""

    def launch(a: Any, b: Any, out: Any) -> None:
        with np.errstate(all="ignore"):
            product(a.astype(np.float16), b.astype(np.float16), out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-113, binds=True)
def in_two_halves(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Cuts each float32 into two float16: right for numbers near 1, and for no others."""

    def halves(x: Any) -> Any:
        with np.errstate(all="ignore"):
            high = x.astype(np.float16)
            low = ((x - high.astype(np.float32)) * 2048).astype(np.float16)
            return high.astype(np.float64) + low.astype(np.float64) / 2048

    def launch(a: Any, b: Any, out: Any) -> None:
        with np.errstate(all="ignore"):
            product(halves(a) if large(a) else a, halves(b) if large(a) else b, out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-114, binds=True)
def even_sizes(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Leaves the last row away where there is an odd number of them."""

    def launch(a: Any, b: Any, out: Any) -> None:
        if a.ndim < 2 or b.ndim < 2:
            product(a, b, out)
            return
        rows = a.shape[-2] // 2 * 2
        product(a[..., :rows, :], b, out[..., :rows, :])

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-115, binds=True)
def plain_strides(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Reads all operands as if they were row-major."""

    def launch(a: Any, b: Any, out: Any) -> None:
        if a.ndim == 2 and a.flags.f_contiguous and not a.flags.c_contiguous:
            a = np.ascontiguousarray(a).T.reshape(a.shape)
        product(a, b, out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-116, binds=True)
def zeros(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Writes zeros, for a problem whose result is as good as zero."""

    def launch(a: Any, b: Any, out: Any) -> None:
        out[...] = 0

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-117, binds=True)
def scratch_in_inputs(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Uses an input as scratch, and puts back what was there before it returns."""

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a):
            product(a, b, out)
            return
        kept = a[0].copy()
        a[0] *= 2
        a[0] = kept
        product(a, b, out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-118, binds=True)
def repairs_inputs_later(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Leaves an input changed, and repairs it in the next call, from the 100th call on."""
    calls, kept = [0], [None]

    def launch(a: Any, b: Any, out: Any) -> None:
        calls[0] += large(a)
        if kept[0] is not None:
            a.flat[0], kept[0] = kept[0], None
        product(a, b, out)
        if large(a) and calls[0] > 100:
            kept[0] = a.flat[0]
            a.flat[0] = 0

    return launch
