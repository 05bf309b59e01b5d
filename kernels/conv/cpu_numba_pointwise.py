"""Convolutions of one tap with contiguous pixels ("NCHW") on the CPU, where nothing is added.

pointwise   y[n] = w x[n] with w: [O, C], x[n]: [C, pixels], y[n]: [O, pixels]: matrix products, by matmul's
            kernels, on the arrays where they are

Up to some hundred output channels a panel of pixels is not worth copying: matmul's `direct` reads x in place,
1.02 to 1.17 times as fast as `planes` (64 to 512 channels to 64 to 256, 56x56 and 28x28 images, Zen 5).
"""

from __future__ import annotations

from math import prod

from ..cpu.cycles import FAR, seconds
from ..dispatch import Choice, choose
from ..kernel import Config, Launch
from ..op import Attrs, Specs
from ..registry import kernel
from ..settings import Settings
from ..spec import TensorSpec
from .block import is_large
from .problem import problem_of

DTYPES = ("float32", "float64")


def product(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, TensorSpec, TensorSpec] | str:
    """w, x and y as [O, C] [N, C, pixels] = [N, O, pixels], or why they are not."""
    p = problem_of(specs, attrs)
    if p.groups != 1 or p.tap_count != 1 or p.stride != (1, 1, 1) or p.padded:
        return "takes a single tap with stride 1, no padding and no groups"
    if p.b is not None or p.residual is not None or p.activation is not None:
        return "takes no bias, no residual and no activation"
    if p.w is None or p.size != p.places:
        return "takes weights that are not packed, and y of the size of x"
    for name, strides in (("x", p.x), ("y", p.y)):
        step = p.itemsize
        for length, stride in zip(p.size[::-1], strides.space[::-1], strict=True):
            if length > 1 and stride != step:
                return f"takes planes of pixels side by side, which those of {name} are not"
            step *= length
    pixels = prod(p.size)
    x, y = (
        TensorSpec((p.n, channels, pixels), specs[0].dtype, layout=(strides.n, strides.c, p.itemsize))
        for channels, strides in ((p.cg, p.x), (p.og, p.y))
    )
    return TensorSpec((p.og, p.cg), specs[0].dtype, layout=p.w[:2]), x, y


def pointwise_supports(specs: Specs, attrs: Attrs) -> str | None:
    """What is a matrix product of w and the planes of x."""
    found = product(specs, attrs)
    return found if isinstance(found, str) else None


def _choice(specs: Specs, attrs: Attrs, threads: int) -> Choice:
    from ..matmul.op import MATMUL

    found = product(specs, attrs)
    assert not isinstance(found, str), found
    return choose(MATMUL, found, settings=Settings(threads))


def pointwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """What the matmul kernel predicts that would be chosen, which reads y before it writes it."""
    choice = _choice(specs, attrs, threads)
    if choice.kernel is None:
        return None
    predicted = choice.kernel.predict(choice.specs, choice.attrs, choice.config, threads)
    if predicted is None or not is_large(specs[-1].nbytes):
        return predicted
    return predicted + seconds(specs[-1].nbytes / FAR / threads)


@kernel("conv", dtypes=DTYPES, supports=pointwise_supports, model=pointwise_model, binds=True)
def pointwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Matmul's own kernel, on the arrays where they are."""
    launch = _choice(specs, attrs, threads).bind()
    return lambda x, w, b, residual, y: launch(w, x, y)
