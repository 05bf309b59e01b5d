"""Gradients of bfloat16 convolutions: the float32 kernels between a widening and a rounding.

    x, grad, w (bfloat16)  ->  float32, dense  ->  the kernel of float32  ->  the gradient, rounded

Sums are float32 over everything and are rounded once. The wide copies are whole arrays, made anew in each
call: twice the bytes of the operands. So bfloat16 saves memory between calls here, not time.
"""

from __future__ import annotations

from ..dispatch import Choice, choose
from ..kernel import Config, Launch
from ..op import Attrs, Op, Specs, get_op
from ..registry import kernel
from ..settings import Settings
from ..spec import ABSENT

BYTES_A_SECOND = 25e9  # of 16-bit numbers converted, about


def _wide(op: Op, specs: Specs, attrs: Attrs, threads: int) -> Choice:
    """What would run the call in float32 within the standard budget: this kernel declares no error."""
    from ..cpu.convert import dense

    wide = tuple(spec if spec is ABSENT else dense(spec) for spec in specs)
    return choose(op, wide, attrs, Settings(threads, extra_error=False))


def _predicted(op: Op, specs: Specs, attrs: Attrs, threads: int) -> float | None:
    choice = _wide(op, specs, attrs, threads)
    if choice.kernel is None:
        return None
    seconds = choice.kernel.predict(choice.specs, choice.attrs, choice.config, threads)
    nbytes = sum(spec.size * spec.itemsize for spec in specs if spec.present)
    return None if seconds is None else seconds + nbytes / BYTES_A_SECOND


def _bind(op: Op, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    from ..cpu.convert import bind_convert, empty

    choice = _wide(op, specs, attrs, threads)
    inner = choice.bind()
    count = len(op.inputs)
    widen = [bind_convert(s, threads, widens=True) if s.present and s.size else None for s in specs[:count]]
    rounded = bind_convert(specs[count], threads, widens=False)

    def launch(*arrays: object) -> None:
        wide = [empty(spec) if spec.present else None for spec in choice.specs]
        for convert, near, array in zip(widen, wide, arrays, strict=False):
            if convert is not None:
                convert(near, array)
        inner(*wide)
        rounded(wide[-1], arrays[-1])

    return launch


def input_grad_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """Predicted seconds."""
    return _predicted(get_op("conv_input_grad"), specs, attrs, threads)


@kernel("conv_input_grad", dtypes="bfloat16", name="widened", model=input_grad_model, binds=True)
def input_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """dx."""
    return _bind(get_op("conv_input_grad"), specs, attrs, threads)


def weight_grad_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """Predicted seconds."""
    return _predicted(get_op("conv_weight_grad"), specs, attrs, threads)


@kernel("conv_weight_grad", dtypes="bfloat16", name="widened", model=weight_grad_model, binds=True)
def weight_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """dw."""
    return _bind(get_op("conv_weight_grad"), specs, attrs, threads)


@kernel("conv_bias_grad", dtypes="bfloat16", name="widened", binds=True)
def bias_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """db."""
    return _bind(get_op("conv_bias_grad"), specs, attrs, threads)
