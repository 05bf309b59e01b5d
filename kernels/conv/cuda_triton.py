"""Convolution on NVIDIA GPUs, in Triton: y = act(x * w + b + residual), for 1 to 3 spatial axes.

    implicit       a matrix product whose rows are gathered pixels, 16 bytes of channels at a time
    folded         for 2 to 8 channels: padded images, in which a row of a filter reads one run of elements
    gathered       for up to 16 channels: taps and channels as one inner axis, elements one by one
    depthwise      one channel in for each channel out: no product, bound by memory
    *_tf32         float32 by tensor cores, which cut operands to 11 bits: only where it is asked for

1 x 1 filters are matrix products: `cuda_triton_1x1.py`. The kernels are in `cuda/implicit.py`, `gather.py`
and `depthwise.py`, the launches in `cuda/products.py` and `others.py`, the configurations in
`cuda/choices.py`. Images in NCHW are read by their strides where channels are few or apart from each other
anyway; for a product with more channels they are laid out as NHWC first, in a workspace. No share of a roof
has been measured yet: that takes a record of a GPU.
"""

from __future__ import annotations

from math import prod

from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..kernel import Config
from ..matmul.cuda_triton import FLOATS, TF32_ERROR
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import choices
from .cuda.others import depthwise_steps
from .cuda.problem import MOST_ROWS, Problem, forward, packed_refusal
from .cuda.products import Held, folded_size, folded_steps, gather_steps, product_steps

MOST_FOLDED = 8
MOST_GATHERED = 16
"""Channels up to which `gathered` takes a call: from there on, a step of 16 of them has no gaps."""


def refusal(p: Problem, attrs: Attrs) -> str | None:
    """What no kernel here takes."""
    pixels = max(p.x.pixels, p.y.pixels)
    if pixels > MOST_ROWS:
        return f"counts the pixels of an image in 32 bits, up to {MOST_ROWS:,}, not {pixels:,}"
    return packed_refusal(attrs)


def _few(specs: Specs, attrs: Attrs) -> str | None:
    p = forward(specs, attrs)
    if p.conv.c > MOST_GATHERED:
        return f"is for up to {MOST_GATHERED} channels in a group, not {p.conv.c}"
    return refusal(p, attrs)


def folded_refusal(p: Problem, attrs: Attrs) -> str | None:
    """Why the columns of a call's filter cannot be folded into its channels."""
    if p.conv.groups != 1 or not 2 <= p.conv.c <= MOST_FOLDED:
        return f"is for one group of 2 to {MOST_FOLDED} channels, not {p.conv.groups} of {p.conv.c}"
    if p.conv.kernel[2] == 1 or p.conv.dilation[2] != 1:
        return "is for filters whose columns lie side by side, and more than one"
    if p.x.n * prod(folded_size(p)) > MOST_ROWS:
        return f"counts the pixels of all padded images in 32 bits, up to {MOST_ROWS:,}"
    return refusal(p, attrs)


def _folded(specs: Specs, attrs: Attrs) -> str | None:
    return folded_refusal(forward(specs, attrs), attrs)


def _product(specs: Specs, attrs: Attrs) -> str | None:
    p = forward(specs, attrs)
    if p.x.c_step != 1 and p.x.n * p.x.pixels > MOST_ROWS:
        return f"counts the pixels of images that it lays out in 32 bits, up to {MOST_ROWS:,}"
    return refusal(p, attrs)


def _depthwise(specs: Specs, attrs: Attrs) -> str | None:
    p = forward(specs, attrs)
    if p.conv.c != 1:
        return f"is for one channel in each group, not {p.conv.c}"
    return refusal(p, attrs)


def _bind_product(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    p, held = forward(specs, attrs), Held()
    steps = product_steps(p, config, boxes=facts(specs[0].device).has_tma, held=held)
    return launcher(specs, *steps, otherwise=lambda: product_steps(p, config, held=held))


def _bind_folded(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    return launcher(specs, *folded_steps(forward(specs, attrs), config))


def _bind_gather(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    return launcher(specs, *gather_steps(forward(specs, attrs), config))


def _register_products(suffix: str, dtypes: tuple[str, ...], tf32: bool) -> None:
    """Declare the two kernels that multiply matrices."""

    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.product_configs(forward(specs, attrs), False, tf32, facts(specs[0].device))

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        return choices.product_seconds(forward(specs, attrs), config, False, facts(specs[0].device))

    def folded_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.folded_configs(forward(specs, attrs), tf32, facts(specs[0].device))

    def folded_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        return choices.folded_seconds(forward(specs, attrs), config, facts(specs[0].device))

    def few_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.gather_configs(forward(specs, attrs), tf32, facts(specs[0].device))

    def few_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        return choices.gather_seconds(forward(specs, attrs), config, facts(specs[0].device))

    error = TF32_ERROR if tf32 else None
    kernel(
        "conv", device="cuda", language="triton", name="implicit" + suffix, dtypes=dtypes, supports=_product,
        configs=configs, model=model, error=error, binds=True,
    )(_bind_product)  # fmt: skip
    kernel(
        "conv", device="cuda", language="triton", name="folded" + suffix, dtypes=dtypes, supports=_folded,
        configs=folded_configs, model=folded_model, error=error, binds=True,
    )(_bind_folded)  # fmt: skip
    kernel(
        "conv", device="cuda", language="triton", name="gathered" + suffix, dtypes=dtypes, supports=_few,
        configs=few_configs, model=few_model, error=error, binds=True,
    )(_bind_gather)  # fmt: skip


_register_products("", FLOATS, False)
_register_products("_tf32", ("float32",), True)


def _depthwise_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    p = forward(specs, attrs)
    return choices.depthwise_configs(p, p.x.c_step != 1)


def _depthwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    return choices.depthwise_seconds(forward(specs, attrs), config, False, facts(specs[0].device))


@kernel(
    "conv", device="cuda", language="triton", dtypes=FLOATS, supports=_depthwise, configs=_depthwise_configs,
    model=_depthwise_model, binds=True,
)  # fmt: skip
def depthwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """Each channel by a filter of its own."""
    return launcher(specs, *depthwise_steps(forward(specs, attrs), config))
