"""The gradients of convolution on NVIDIA GPUs, in Triton.

    conv_input_grad    implicit (and implicit_tf32), depthwise: for x; with a bias, a transposed convolution
    conv_weight_grad   products, folded (and *_tf32), depthwise: for w, a sum over pixels in parts
    conv_bias_grad     pixel_sums: for b

See `cuda_triton.py`; the kernels are in `cuda/implicit.py`, `weights.py`, `depthwise.py` and `sums.py`. Equal
calls give equal bits: nothing is added up by atomic operations.
"""

from __future__ import annotations

from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..kernel import Config
from ..matmul.cuda_triton import FLOATS, TF32_ERROR
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import choices
from .cuda.others import (
    bias_steps,
    depthwise_input_steps,
    depthwise_weight_steps,
    folded_weight_steps,
    weight_steps,
)
from .cuda.problem import MOST_ROWS, images_of, input_grad, weight_grad
from .cuda.products import Held, folded, product_steps
from .cuda_triton import folded_refusal, refusal

MOST_TAPS = 49  # a loop over them is written out: more would take long to compile
MOST_COLUMNS = 7  # 16 sums of each thread for each of them

# --- For the input ------------------------------------------------------------------------------------------


def _implicit(specs: Specs, attrs: Attrs) -> str | None:
    p = input_grad(specs, attrs)
    if p.y.c_step != 1 and p.y.n * p.y.pixels > MOST_ROWS:
        return f"counts the pixels of images that it lays out in 32 bits, up to {MOST_ROWS:,}"
    return refusal(p, attrs)


def _depthwise(specs: Specs, attrs: Attrs) -> str | None:
    p = input_grad(specs, attrs)
    if p.conv.c != 1 or p.conv.o != 1:
        return f"is for one channel in and out in each group, not {p.conv.c} and {p.conv.o}"
    if p.conv.stride != (1, 1, 1) and p.conv.taps > MOST_TAPS:
        return f"writes out its taps one by one, up to {MOST_TAPS}, not {p.conv.taps}"
    if p.conv.stride != (1, 1, 1) and p.x.n * p.x.pixels > MOST_ROWS:
        return f"counts the pixels of all images in 32 bits, up to {MOST_ROWS:,}"
    return refusal(p, attrs)


def _bind_implicit(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    p, held = input_grad(specs, attrs), Held()
    steps = product_steps(p, config, back=True, boxes=facts(specs[0].device).has_tma, held=held)
    return launcher(specs, *steps, otherwise=lambda: product_steps(p, config, back=True, held=held))


def _register_implicit(suffix: str, dtypes: tuple[str, ...], tf32: bool) -> None:
    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.product_configs(input_grad(specs, attrs), True, tf32, facts(specs[0].device))

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        return choices.product_seconds(input_grad(specs, attrs), config, True, facts(specs[0].device))

    kernel(
        "conv_input_grad", device="cuda", language="triton", name="implicit" + suffix, dtypes=dtypes,
        supports=_implicit, configs=configs, model=model, error=TF32_ERROR if tf32 else None, binds=True,
    )(_bind_implicit)  # fmt: skip


def _depthwise_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    p = input_grad(specs, attrs)
    return choices.depthwise_configs(p, p.y.c_step != 1)


def _depthwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    return choices.depthwise_seconds(input_grad(specs, attrs), config, True, facts(specs[0].device))


_register_implicit("", FLOATS, False)
_register_implicit("_tf32", ("float32",), True)


@kernel(
    "conv_input_grad", device="cuda", language="triton", dtypes=FLOATS, supports=_depthwise,
    configs=_depthwise_configs, model=_depthwise_model, binds=True,
)  # fmt: skip
def depthwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """Each channel by its own filter, turned round; with a stride, class by class."""
    return launcher(specs, *depthwise_input_steps(input_grad(specs, attrs), config))


# --- For the weight -----------------------------------------------------------------------------------------


def _products(specs: Specs, attrs: Attrs) -> str | None:
    p = weight_grad(specs, attrs)
    if p.x.n * max(p.x.pixels, p.y.pixels) > MOST_ROWS:
        return f"counts the pixels of all images in 32 bits, up to {MOST_ROWS:,}"
    return None


def _folded(specs: Specs, attrs: Attrs) -> str | None:
    return folded_refusal(weight_grad(specs, attrs), attrs) or _products(specs, attrs)


def _depthwise_weight(specs: Specs, attrs: Attrs) -> str | None:
    p = weight_grad(specs, attrs)
    if p.conv.c != 1 or p.conv.groups == 1:
        return f"is for groups of one channel, not {p.conv.groups} of {p.conv.c}"
    if p.conv.kernel[2] > MOST_COLUMNS:
        return f"keeps sums for a row of taps, up to {MOST_COLUMNS}, not {p.conv.kernel[2]}"
    return _products(specs, attrs)


def _register_products(suffix: str, dtypes: tuple[str, ...], tf32: bool) -> None:
    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.weight_configs(weight_grad(specs, attrs), tf32, facts(specs[0].device))

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        return choices.weight_seconds(weight_grad(specs, attrs), config, facts(specs[0].device))

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return launcher(specs, *weight_steps(weight_grad(specs, attrs), config))

    def folded_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.weight_configs(folded(weight_grad(specs, attrs)), tf32, facts(specs[0].device))

    def folded_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        return choices.folded_weight_seconds(weight_grad(specs, attrs), config, facts(specs[0].device))

    def bind_folded(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return launcher(specs, *folded_weight_steps(weight_grad(specs, attrs), config))

    error = TF32_ERROR if tf32 else None
    kernel(
        "conv_weight_grad", device="cuda", language="triton", name="products" + suffix, dtypes=dtypes,
        supports=_products, configs=configs, model=model, error=error, binds=True,
    )(bind)  # fmt: skip
    kernel(
        "conv_weight_grad", device="cuda", language="triton", name="folded" + suffix, dtypes=dtypes,
        supports=_folded, configs=folded_configs, model=folded_model, error=error, binds=True,
    )(bind_folded)  # fmt: skip


_register_products("", FLOATS, False)
_register_products("_tf32", ("float32",), True)


def _depthwise_weight_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    return [choices.depthwise_weight_config(weight_grad(specs, attrs), facts(specs[0].device))]


# The rank puts it before `products`, which would multiply by a matrix of one column.
@kernel(
    "conv_weight_grad", device="cuda", language="triton", dtypes=FLOATS, supports=_depthwise_weight, rank=1,
    name="depthwise", configs=_depthwise_weight_configs, binds=True,
)  # fmt: skip
def depthwise_weight(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """Sums over pixels of a channel and its own gradient."""
    return launcher(specs, *depthwise_weight_steps(weight_grad(specs, attrs), config))


# --- For the bias -------------------------------------------------------------------------------------------


def _sums(specs: Specs, attrs: Attrs) -> str | None:
    grad = images_of(0, specs[0], str(attrs["layout"]))
    if grad.n * grad.pixels > MOST_ROWS:
        return f"counts the pixels of all images in 32 bits, up to {MOST_ROWS:,}"
    return None


def _sums_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    grad = images_of(0, specs[0], str(attrs["layout"]))
    dense = grad.c_step == 1
    device = facts(specs[0].device)
    return [choices.bias_config(grad.n * grad.pixels, grad.channels, dense, specs[0].itemsize, device)]


@kernel(
    "conv_bias_grad", device="cuda", language="triton", dtypes=FLOATS, supports=_sums, configs=_sums_configs,
    binds=True,
)  # fmt: skip
def pixel_sums(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """db[o] = the sum of grad over all pixels, in two steps."""
    grad, db = specs
    images = images_of(0, grad, str(attrs["layout"]))
    return launcher(specs, *bias_steps(images, db.strides[0] // db.itemsize, grad.itemsize, config))
