"""Products as kernels: what `@kernel` wants to know of them, and their plans as launches. Needs triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cuda.device import facts
from ...cuda.launch import CudaLaunch, launcher
from ...cuda.step import Arg, Descriptor, Step, Workspace
from ...kernel import Config
from ...op import Attrs, Specs
from . import choices, plans, row_kernels, tile_kernels
from .calls import Calls
from .plans import Plan
from .product import Product

_FUNCTIONS = {
    "by_pointers": tile_kernels.by_pointers,
    "by_descriptors": tile_kernels.by_descriptors,
    "few_rows": row_kernels.few_rows,
}
_POINTERS = ("a", "b", "c", "bias", "residual", "a_scale", "b_scale")


def _problem(calls: Calls, specs: Specs, attrs: Attrs) -> str | None:
    """Why no kernel here can take a call; None when they can."""
    return calls.refuse(specs, attrs) or plans.size_problem(calls.product(specs, attrs))


@dataclass(frozen=True)
class Tiles:
    """Calls that are computed by tiles (`tile_kernels.py`).

    Attributes:
        calls: of an op.
        mover: `"engine"` or `"threads"`: what moves operands to shared memory.
        unit: what multiplies; the dtype's own unit unless given.
    """

    calls: Calls
    mover: str
    unit: str = ""

    def supports(self, specs: Specs, attrs: Attrs) -> str | None:
        """For `@kernel`."""
        reason = _problem(self.calls, specs, attrs)
        if reason is not None:
            return reason
        p, device = self.calls.product(specs, attrs), facts(specs[0].device)
        return choices.tiles_problem(p, self._unit(p), self.mover, device)

    def configs(self, specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        """For `@kernel`."""
        p = self.calls.product(specs, attrs)
        return choices.candidates(p, self._unit(p), self.mover, facts(specs[0].device))

    def model(self, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        """For `@kernel`."""
        p = self.calls.product(specs, attrs)
        return choices.predicted(p, config, self._unit(p), self.mover, facts(specs[0].device))

    def bind(self, specs: Specs, attrs: Attrs, config: Config) -> CudaLaunch:
        """The launch of a call."""
        p, device = self.calls.product(specs, attrs), facts(specs[0].device)
        q = p.turn() if config["turned"] else p
        unit, places = self._unit(p), self.calls.placed(q)
        full = choices.completed(q, config, unit, self.mover, device)
        if self.mover == "threads":
            return launcher(specs, *_steps(places, plans.pointer_plans(q, full, device.multiprocessors)))

        def unaligned() -> Sequence[Step]:
            other = choices.completed(q, choices.unaligned_config(unit), unit, "threads", device)
            return _steps(places, plans.pointer_plans(q, other, device.multiprocessors))

        plan = plans.descriptor_plan(q, full, device.multiprocessors)
        return launcher(specs, *_steps(places, [plan]), otherwise=unaligned)

    def _unit(self, p: Product) -> str:
        return self.unit or p.dtype


@dataclass(frozen=True)
class Rows:
    """Calls with few rows or columns (`row_kernels.py`)."""

    calls: Calls

    def supports(self, specs: Specs, attrs: Attrs) -> str | None:
        """For `@kernel`."""
        reason = _problem(self.calls, specs, attrs)
        if reason is not None:
            return reason
        return choices.few_rows_problem(self.calls.product(specs, attrs), facts(specs[0].device))

    def configs(self, specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        """For `@kernel`."""
        return choices.rows_candidates(self.calls.product(specs, attrs), facts(specs[0].device))

    def model(self, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        """For `@kernel`."""
        return choices.rows_predicted(self.calls.product(specs, attrs), config, facts(specs[0].device))

    def bind(self, specs: Specs, attrs: Attrs, config: Config) -> CudaLaunch:
        """The launch of a call."""
        q = choices.with_few_rows(self.calls.product(specs, attrs))
        return launcher(specs, *_steps(self.calls.placed(q), plans.rows_plans(q, config)))


def _steps(places: Mapping[str, int], plans: Sequence[Plan]) -> list[Step]:
    """The steps of some plans. Scratch is shared: launches on one stream follow each other."""
    sums = max(plan.sums for plan in plans)
    arrivals = max(plan.arrivals for plan in plans)
    scratch = {
        "sums": Workspace((sums,)) if sums else None,
        # Each launch leaves its counters at zero: for the next step of the call, and for the next call.
        "arrivals": Workspace((arrivals,), "int32", zero=True) if arrivals else None,
    }
    steps = []
    for plan in plans:
        args: dict[str, Any] = {name: Arg(places[name]) if name in places else None for name in _POINTERS}
        for name, box in plan.boxes.items():
            args[name] = Descriptor(places[name], box.block, box.shape, box.steps)
        args |= {**scratch, **plan.integers, **plan.constants}
        fn = _FUNCTIONS[plan.function]
        step = Step(fn, (plan.programs,), args, warps=plan.warps, stages=plan.stages, any_int=True)
        steps.append(step)
    return steps
