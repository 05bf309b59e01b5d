"""1 x 1 convolutions and their gradients on NVIDIA GPUs, by the kernels of `matmul`.

    1x1_descriptors      operands by the bulk copy engine (Hopper and later)
    1x1_pointers         for any chip, and float32 without tensor cores
    1x1_tf32, 1x1_tf32_pointers     float32 by tensor cores: only where it is asked for

See `matmul/cuda_triton.py` and, for which calls are matrix products, `cuda/as_product.py`.
"""

from __future__ import annotations

from typing import Any

from ..kernel import ExtraError, Launch
from ..matmul.cuda.calls import Calls
from ..matmul.cuda.launch import Tiles
from ..matmul.cuda_triton import FLOATS, HALF, TF32_ERROR
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import as_product
from .cuda.problem import forward, input_grad, packed_refusal, weight_grad


def _forward(specs: Specs, attrs: Attrs) -> str | None:
    return packed_refusal(attrs) or as_product.refusal(forward(specs, attrs))


def _input(specs: Specs, attrs: Attrs) -> str | None:
    return as_product.refusal(input_grad(specs, attrs))


def _weight(specs: Specs, attrs: Attrs) -> str | None:
    return as_product.refusal(weight_grad(specs, attrs))


CALLS = {
    "conv": Calls(as_product.forward_product, {"a": 0, "b": 1, "bias": 2, "residual": 3, "c": 4}, _forward),
    "conv_input_grad": Calls(as_product.input_product, {"a": 0, "b": 1, "bias": 2, "c": 3}, _input),
    "conv_weight_grad": Calls(as_product.weight_product, {"a": 1, "b": 0, "c": 2}, _weight),
}


def _register(op: str, name: str, way: Tiles, dtypes: tuple[str, ...], error: ExtraError | None) -> None:
    def bind(specs: Specs, attrs: Attrs, config: dict[str, Any], threads: int) -> Launch:
        return way.bind(specs, attrs, config)

    kernel(
        op, device="cuda", language="triton", name=name, dtypes=dtypes, supports=way.supports,
        configs=way.configs, model=way.model, error=error, binds=True,
    )(bind)  # fmt: skip


for _op, _calls in CALLS.items():
    _register(_op, "1x1_descriptors", Tiles(_calls, "engine"), HALF, None)
    _register(_op, "1x1_pointers", Tiles(_calls, "threads"), FLOATS, None)
    _register(_op, "1x1_tf32", Tiles(_calls, "engine", "tf32"), ("float32",), TF32_ERROR)
    _register(_op, "1x1_tf32_pointers", Tiles(_calls, "threads", "tf32"), ("float32",), TF32_ERROR)
