"""The norms on NVIDIA GPUs, in Triton.

    layer_norm, rms_norm     whole    lines in registers, one reading                `cuda/row_kernels.py`
                             apart    longer lines: statistics, then each element    `cuda/channel_kernels.py`
    group_norm, batch_norm   apart    statistics, then each element, of channels in any layout
    group_norm               together both by one program, the second from the cache `cuda/group_kernels.py`
    batch_norm_inference     one launch over each element
    their gradients          whole    dx, and on the same reading sums down the lines for weight and bias
                             apart    two sums for each line, then dx

Statistics of lines are a reduction's state (`reduce/cuda/`): nothing cancels, and few lines are read in parts
that are put together in a fixed order. No share of a roof has been measured yet: that takes a record of a
GPU.
"""

from __future__ import annotations

from ..cuda.launch import CudaLaunch, launcher
from ..kernel import Config
from ..op import Attrs, Specs
from ..reduce.cuda import plan
from ..registry import kernel
from .cuda import channel_plans, group_plans, row_plans
from .op import FLOATS

APART: list[Config] = [{"way": "apart", **config} for config in plan.CONFIGS]
"""For lines that are read twice: the cuts of a reduction."""


def _supports(op: str, specs: Specs, attrs: Attrs) -> str | None:
    if op.endswith("_grad"):
        call = channel_plans.backward_call(op, specs, attrs)
        loose = [name for name in ("dweight", "dbias") if call.there(name) and call.found[name][1].layout]
        if loose:
            return f"writes {' and '.join(loose)} without gaps"
        order = call.view.table()
        nests = [channel_plans.slopes_nest(call, order)[0]]
        if "axes" in attrs:
            nests.append(row_plans.backward_nest(op, specs, attrs)[0])
        return channel_plans.problem(nests)
    call = channel_plans.forward_call(op, specs, attrs)
    if op == "batch_norm_inference":
        return channel_plans.problem([channel_plans.applied_nest(call, "running_mean", "running_var")[0]])
    nests = [channel_plans.statistics_nest(call)[0], channel_plans.applied_nest(call, "mean", "rstd")[0]]
    return channel_plans.problem(nests)


def _configs(op: str, specs: Specs, attrs: Attrs) -> list[Config]:
    """Whole lines where registers hold them: `each` is how many elements a thread keeps of an array."""
    if "groups" in attrs:
        grad = op.endswith("_grad")
        call = (channel_plans.backward_call if grad else channel_plans.forward_call)(op, specs, attrs)
        together: list[Config] = [{"way": "together"}] if group_plans.fits(call) else []
        return [*together, *APART] if together and group_plans.pays(call) else [*APART, *together]
    if "axes" not in attrs:
        return APART if op != "batch_norm_inference" else [{"way": "apart", **plan.CONFIGS[0]}]
    double = specs[0].dtype == "float64"
    if op.endswith("_grad"):
        # Beside dy and x a thread keeps weight and two sums.
        each = 4 if double else 8
        tiles = [(e, row_plans.backward_tile(op, specs, attrs, e)) for e in (each, each // 2)]
        wholes: list[Config] = [
            {"way": "whole", "each": e, "stages": stages}
            for e, tile in tiles
            if tile is not None
            for stages in sorted({row_plans.backward_stages(specs, tile), 1}, reverse=True)
        ]
        return [*wholes, *APART[:1]]
    each = plan.WHOLE // 2 if double else plan.WHOLE
    eaches = [e for e in (each, each // 2) if row_plans.forward_tile(op, specs, attrs, e)]
    return [*({"way": "whole", "each": e} for e in eaches), *APART[:1]]


def _bind(op: str, specs: Specs, attrs: Attrs, config: Config) -> CudaLaunch:
    if config["way"] == "together":
        if op.endswith("_grad"):
            return launcher(specs, *group_plans.backward_steps(channel_plans.backward_call(op, specs, attrs)))
        return launcher(specs, *group_plans.forward_steps(channel_plans.forward_call(op, specs, attrs)))
    if op.endswith("_grad"):
        if config["way"] == "whole":
            steps = row_plans.backward_steps(op, specs, attrs, config["each"], config["stages"])
        else:
            steps = channel_plans.backward_steps(op, specs, attrs, config)
        return launcher(specs, *steps)
    if config["way"] == "whole":
        return launcher(specs, row_plans.forward_step(op, specs, attrs, config["each"]))
    return launcher(specs, *channel_plans.forward_steps(op, specs, attrs, config))


def _register(op: str) -> None:
    def lines(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
        return _bind(op, specs, attrs, config)

    declare = kernel(
        op,
        device="cuda",
        language="triton",
        name="lines",
        dtypes=FLOATS,
        supports=lambda specs, attrs: _supports(op, specs, attrs),
        configs=lambda specs, attrs, threads: _configs(op, specs, attrs),
        binds=True,
    )
    declare(lines)


for _norm in ("layer_norm", "rms_norm", "group_norm", "batch_norm"):
    _register(_norm)
    _register(f"{_norm}_grad")
_register("batch_norm_inference")
