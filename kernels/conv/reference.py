"""Convolution and its gradients by their definition, tap by tap, in NumPy: the oracle.

Everything is computed channels first and split in groups; `first` and `back` turn arrays from and to a
layout. The functions work in the dtype that they are given, float64 or long double.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from ..op import AnyArray
from .geometry import Ints, Pairs, reached

# The largest slope of each activation, rounded up: how much it can enlarge an error.
SLOPES = {"relu": 1.0, "gelu": 1.13, "gelu_tanh": 1.13, "sigmoid": 0.25, "tanh": 1.0, "silu": 1.1}


def first(x: AnyArray, layout: str) -> AnyArray:
    """A view with the channels as axis 1."""
    return x if layout == "NCHW" else np.moveaxis(x, -1, 1)


def back(x: AnyArray, layout: str) -> AnyArray:
    """A channels-first array in `layout`."""
    return x if layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _taps(
    size: Ints, places: Ints, taps: Ints, stride: Ints, padding: Pairs, dilation: Ints
) -> Iterator[tuple[Ints, tuple[slice, ...], tuple[slice, ...]]]:
    """For each tap: its index, the slices of the input that it reads, the slices of the output it reaches."""
    for tap in product(*map(range, taps)):
        read, write = [], []
        for axis, k in enumerate(tap):
            low, end = reached(size[axis], places[axis], k, stride[axis], padding[axis][0], dilation[axis])
            start = low * stride[axis] + k * dilation[axis] - padding[axis][0]
            read.append(slice(start, start + (end - low) * stride[axis], stride[axis]))
            write.append(slice(low, end))
        if all(part.stop > part.start for part in write):
            yield tap, tuple(read), tuple(write)


def _at(filters: AnyArray, tap: Ints) -> AnyArray:
    """The view [groups, rows, columns] of one tap of [groups, rows, columns, *K]."""
    index: Any = (..., *tap)
    view: AnyArray = filters[index]
    return view


def _grouped(x: AnyArray, groups: int) -> AnyArray:
    """[N, C, *S] as [N, groups, C / groups, elements]; a copy."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, int(np.prod(x.shape[2:])))


def conv(
    x: AnyArray, w: AnyArray, places: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> AnyArray:
    """x: [N, C, *S], w: [O, C / groups, *K] -> [N, O, *places]."""
    out = w.shape[0]
    y = np.zeros((x.shape[0], out, *places), x.dtype)
    filters = w.reshape(groups, out // groups, *w.shape[1:])
    for tap, read, write in _taps(x.shape[2:], places, w.shape[2:], stride, padding, dilation):
        part = x[(slice(None), slice(None), *read)]
        terms = np.matmul(_at(filters, tap), _grouped(part, groups))
        y[(slice(None), slice(None), *write)] += terms.reshape(x.shape[0], out, *part.shape[2:])
    return y


def input_grad(
    grad: AnyArray, w: AnyArray, size: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> AnyArray:
    """grad: [N, O, *P], w: [O, C / groups, *K] -> [N, C, *size]: the transpose of `conv` in x."""
    channels = w.shape[1] * groups
    dx = np.zeros((grad.shape[0], channels, *size), grad.dtype)
    filters = np.swapaxes(w.reshape(groups, w.shape[0] // groups, *w.shape[1:]), 1, 2)
    for tap, read, write in _taps(size, grad.shape[2:], w.shape[2:], stride, padding, dilation):
        part = grad[(slice(None), slice(None), *write)]
        terms = np.matmul(_at(filters, tap), _grouped(part, groups))
        dx[(slice(None), slice(None), *read)] += terms.reshape(grad.shape[0], channels, *part.shape[2:])
    return dx


def weight_grad(
    x: AnyArray, grad: AnyArray, taps: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> AnyArray:
    """x: [N, C, *S], grad: [N, O, *P] -> [O, C / groups, *taps]: the transpose of `conv` in w."""
    out, channels = grad.shape[1], x.shape[1] // groups
    dw = np.zeros((groups, out // groups, channels, *taps), x.dtype)
    for tap, read, write in _taps(x.shape[2:], grad.shape[2:], taps, stride, padding, dilation):
        inputs = _grouped(x[(slice(None), slice(None), *read)], groups)
        outputs = _grouped(grad[(slice(None), slice(None), *write)], groups)
        _at(dw, tap)[...] = np.matmul(outputs, np.swapaxes(inputs, -1, -2)).sum(axis=0)
    return dw.reshape(out, channels, *taps)
