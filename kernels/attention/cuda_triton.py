"""Attention on NVIDIA GPUs, in Triton: forward, and the gradients of query, key and value.

    descriptors    16-bit numbers, k and v (backward: q and dout too) by the bulk copy engine (Hopper and
    later) pointers       any strides and chip; float32 without tensor cores, exact to rounding tf32x3
    float32 by tensor cores, each number as the sum of two of 11 bits tf32           float32 by tensor cores,
    which round operands to 11 bits: only where it is asked for

The kernels are in `cuda/forward_kernels.py` and `cuda/backward_kernels.py`, the configurations and the model
that chooses among them in `cuda/choices.py`. No share of a roof has been measured yet: that takes a record of
a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..cuda.device import facts
from ..cuda.launch import launcher
from ..kernel import Config, ExtraError, Launch
from ..matmul.cuda_triton import FLOATS, HALF, TF32_ERROR
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import choices
from .cuda.launch import Held, backward_steps, forward_steps
from .cuda.problem import Problem, box_problem, problem_of

# A number as the sum of two of 11 bits lacks 2^-22 of itself, the product of the two lower parts is left out,
# 2^-22 again: 3 2^-22 a product, over the 2 2^-24 that the standard budget has for an element.
TF32X3_ERROR = ExtraError(8, "products of numbers of 22 bits of 24")
# What goes by descriptor.
_BOXES = {"attention": ("k", "v", "out"), "attention_grad": ("q", "k", "v", "g", "dk", "dv")}
_STEPS = {"attention": forward_steps, "attention_grad": backward_steps}


def _problem(specs: Specs, attrs: Attrs) -> Problem:
    found = problem_of(specs, attrs)
    assert isinstance(found, Problem), found  # what `supports` has let through
    return found


def _register(
    op: str, name: str, dtypes: Sequence[str], unit: str, boxes: bool, error: ExtraError | None = None
) -> None:
    """Declare a kernel of an op; `unit` is what multiplies, that of the dtype where it is ""."""
    grad = op == "attention_grad"

    def supports(specs: Specs, attrs: Attrs) -> str | None:
        p, device = problem_of(specs, attrs), facts(specs[0].device)
        if isinstance(p, str):
            return p
        reason = choices.width_problem(p, grad, unit or p.dtype)
        if reason is not None or not boxes:
            return reason
        if not device.has_tma:
            return f"needs the bulk copy engine, which sm_{device.capability} has not"
        return box_problem(p, _BOXES[op])

    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        p = _problem(specs, attrs)
        return choices.candidates(p, grad, unit or p.dtype, boxes, facts(specs[0].device))

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        p = _problem(specs, attrs)
        return choices.predicted(p, grad, config, unit or p.dtype, boxes, facts(specs[0].device))

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        p, held, device = _problem(specs, attrs), Held(), facts(specs[0].device)
        multiplies = unit or p.dtype
        precision = choices.PRECISIONS[multiplies]
        steps = _STEPS[op](p, config, precision, boxes, held, device.l2_bytes)

        def unaligned() -> Sequence[Any]:
            other = choices.unaligned(p, grad, config, multiplies)
            return _STEPS[op](p, other, precision, False, held, device.l2_bytes)

        return launcher(specs, *steps, otherwise=unaligned if boxes else None)

    declare = kernel(
        op,
        device="cuda",
        language="triton",
        name=name,
        dtypes=tuple(dtypes),
        supports=supports,
        configs=configs,
        model=model,
        error=error,
        binds=True,
    )
    declare(bind)


for _op in ("attention", "attention_grad"):
    _register(_op, "descriptors", HALF, "", boxes=True)
    _register(_op, "pointers", FLOATS, "", boxes=False)
    _register(_op, "tf32x3", ("float32",), "tf32x3", boxes=False, error=TF32X3_ERROR)
    _register(_op, "tf32", ("float32",), "tf32", boxes=False, error=TF32_ERROR)
