"""1 x 1 convolutions as the matrix products that they are: then the kernels of `matmul` compute them.

    y = x w^T        pixels [m, C] by the weight [O, C]
    dx = dy w        pixels [m, O] by the weight
    dw = dy^T x      a sum over pixels

It takes images whose pixels are rows at equal steps: NHWC without gaps, and one group.
"""

from __future__ import annotations

from math import prod

from ...matmul.cuda.product import Product, of_linear
from ...op import Attrs, Specs
from ...spec import ABSENT, TensorSpec
from .problem import Images, Problem, forward, input_grad, weight_grad


def refusal(p: Problem) -> str | None:
    """Why a convolution is no matrix product; None when it is."""
    c = p.conv
    if c.taps != 1 or c.stride != (1, 1, 1) or c.pad != (0, 0, 0) or p.x.size != p.y.size:
        return "is for 1 x 1 filters that look at each pixel once"
    if c.groups != 1:
        return f"is for one group, not {c.groups}"
    for images in (p.x, p.y, *([p.residual] if p.residual else [])):
        if _row(images) is None or images.c_step != 1:
            return "is for pixels at equal steps with their channels side by side (NHWC)"
    return None


def _row(images: Images) -> int | None:
    """Elements from pixel to pixel, all images in one; None where steps differ."""
    row, expected = None, 0
    lengths = (images.n, *images.size)
    for length, step in reversed(list(zip(lengths, images.steps, strict=True))):
        if length == 1:
            continue
        if row is None:
            row = step
        elif step != expected:
            return None
        expected = step * length
    return images.channels if row is None else row


def _matrix(p: Problem, images: Images, dtype: str, turned: bool = False) -> TensorSpec:
    """Images as [pixels, channels], or turned."""
    rows, itemsize = images.n * prod(images.size), p.itemsize
    shape, steps = (rows, images.channels), ((_row(images) or 0) * itemsize, itemsize)
    if turned:
        return TensorSpec(shape[::-1], dtype, "cuda", steps[::-1])
    return TensorSpec(shape, dtype, "cuda", steps)


def _weight(p: Problem, turned: bool = False) -> TensorSpec:
    shape, steps = (p.outs, p.channels), (p.w.o * p.itemsize, p.w.c * p.itemsize)
    if turned:
        shape, steps = (shape[1], shape[0]), (steps[1], steps[0])
    return TensorSpec(shape, p.dtype, "cuda", steps)


def forward_product(specs: Specs, attrs: Attrs) -> Product:
    """Of a call of `conv`; places: x 0, w 1, b 2, residual 3, y 4."""
    p = forward(specs, attrs)
    residual = _matrix(p, p.residual, p.dtype) if p.residual else ABSENT
    found = (_matrix(p, p.x, p.dtype), _weight(p), specs[2], residual, _matrix(p, p.y, p.dtype))
    return of_linear(found, p.activation or None)


def input_product(specs: Specs, attrs: Attrs) -> Product:
    """Of a call of `conv_input_grad`; places: grad 0, w 1, b 2, dx 3."""
    p = input_grad(specs, attrs)
    found = (_matrix(p, p.y, p.dtype), _weight(p, True), specs[2], ABSENT, _matrix(p, p.x, p.dtype))
    return of_linear(found, None)


def weight_product(specs: Specs, attrs: Attrs) -> Product:
    """Of a call of `conv_weight_grad`; places: x 0, grad 1, dw 2."""
    p = weight_grad(specs, attrs)
    grad, x = _matrix(p, p.y, p.dtype, True), _matrix(p, p.x, p.dtype, True)
    return of_linear((grad, x, ABSENT, ABSENT, _weight(p)), None)
