"""LSTM, GRU and RNN on NVIDIA GPUs in Triton: whole sequences, their gradients, and single cells.

    together    the whole recurrence in one cooperative launch. Weights stay on the multiprocessors where they
                fit, and programs hand each other the state in words that validate themselves; large hidden
                sizes read their weights from the caches in each step, and count arrivals
    fused       a cell: both products, the gates and the new state in one launch

The product of the inputs of all steps comes before, by the kernels of matmul; the gradients of the weights
and of x are one product each over all steps, after the launch. The kernels are in `cuda/forward.py`,
`cuda/backward.py` and `cuda/cells.py`, how they wait for each other in `cuda/exchange.py`, the configurations
in `cuda/choices.py`. No share of a roof has been measured yet: that takes a record of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

from ..cuda import ranking
from ..cuda.device import facts
from ..cuda.launch import CudaLaunch
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import choices
from .cuda.launch import bind_backward, bind_cell, bind_forward
from .cuda.problem import call_of, refusal

DTYPES = ("bfloat16", "float16", "float32")


def _supports(name: str, back: bool) -> Callable[[Specs, Attrs], str | None]:
    def supports(specs: Specs, attrs: Attrs) -> str | None:
        reason = refusal(name, specs, attrs)
        if reason is None and not choices.candidates(
            call_of(name, specs, attrs), back, facts(specs[0].device)
        ):
            return (
                "runs all programs of a head at one time, each of up to 64 hidden units (float32: 32), one "
                "on a multiprocessor"
            )
        return reason

    return supports


def _register(name: str, back: bool) -> None:
    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        return choices.candidates(call_of(name, specs, attrs), back, facts(specs[0].device))

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        call, device = call_of(name, specs, attrs), facts(specs[0].device)
        return choices.seconds(call, config, back, device)

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return (bind_backward if back else bind_forward)(name, specs, attrs, config)

    bind.__doc__ = "All steps in one cooperative launch; " + (
        "then a product for each weight." if back else "the product of the inputs before."
    )
    kernel(
        name, device="cuda", language="triton", name="together", dtypes=DTYPES,
        supports=_supports(name, back), configs=configs, model=model, binds=True,
    )(bind)  # fmt: skip


def _cell_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Few units a program, so that there are enough of them to read the weights by all multiprocessors."""
    rows = 16 if specs[0].shape[0] <= 16 else 32
    return [
        {"units": units, "rows": rows, "warps": 4, "kc": kc} for units, kc in ((16, 64), (32, 64), (16, 32))
    ]


def _register_cell(name: str) -> None:
    def supports(specs: Specs, attrs: Attrs) -> str | None:
        return refusal(name, specs, attrs)

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        """The weights once through memory, by as many multiprocessors as have a program."""
        call, device = call_of(name, specs, attrs), facts(specs[0].device)
        weights = call.gates * call.h * (call.i + call.d) * call.item
        programs = -(-call.d // config["units"]) * call.heads * -(-max(call.b, 1) // config["rows"])
        share = min(1.0, programs / device.multiprocessors)
        loops = (call.i + call.d) / config["kc"] * ranking.LATENCY / 3
        return ranking.LAUNCH + max(weights / (device.bandwidth * ranking.MEMORY_SHARE * share), loops)

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        """Both products, the gates and the new state in one launch."""
        return bind_cell(name, specs, attrs, config)

    kernel(
        name, device="cuda", language="triton", name="fused", dtypes=DTYPES, supports=supports,
        configs=_cell_configs, model=model, binds=True,
    )(bind)  # fmt: skip


for _op in ("lstm", "gru", "rnn"):
    _register(_op, False)
    _register(f"{_op}_grad", True)
    _register_cell(f"{_op}_cell")
