"""Convolutions whose weights are infinite or NaN in taps that fall on padding.

By the definition such a tap adds nothing. A kernel may multiply it by the zeros that it has for the padding,
and gets NaN, as PyTorch's own kernels do (its float64 convolution, where oneDNN's leaves padding out).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, nan

import numpy as np

from kernelwright.kernels.accuracy import Truth, oracle
from kernelwright.kernels.op import AnyArray, Sample, get_op
from kernelwright.kernels.spec import np_dtype

CONV = get_op("conv")
PADDING = ((1, 1), (1, 1))


def odd_weights(layout: str, dtype: str, channels: int, out: int, groups: int = 1) -> Iterator[Sample]:
    """3 x 3 filters of which the first has no numbers in its upper row, or in its right column."""
    rng = np.random.default_rng(channels + out)
    attrs = {"padding": PADDING, "groups": groups, "layout": layout}
    shape = (1, 6, 7, channels) if layout == "NHWC" else (1, channels, 6, 7)
    for value in (inf, nan):
        for name, place in (("upper row", np.s_[0, :, 0, :]), ("right column", np.s_[0, :, :, 2])):
            x = rng.standard_normal(shape).astype(np_dtype(dtype))
            w = rng.standard_normal((out, channels // groups, 3, 3)).astype(np_dtype(dtype))
            w[place] = value
            yield Sample(f"{value} in the {name}, {layout}", (x, w, None, None), attrs)


def truth_for(sample: Sample, result: AnyArray) -> Truth:
    """What `result` is judged by: padding left out, or where it is NaN, padding multiplied as zeros."""
    left_out = Truth.of(CONV, sample.inputs, sample.attrs)
    spatial = sample.attrs["padding"]
    ends = ((0, 0), *spatial, (0, 0)) if sample.attrs["layout"] == "NHWC" else ((0, 0), (0, 0), *spatial)
    x, *others = sample.inputs
    assert x is not None
    attrs = CONV.complete({**sample.attrs, "padding": ((0, 0), (0, 0))})
    (multiplied,) = oracle(CONV, (np.pad(x, ends), *others), attrs)
    found = np.isnan(result.astype(np.float64))
    return replace(left_out, outputs=(np.where(found, multiplied, left_out.outputs[0]),))
