"""The products around a recurrence, by the kernels of `matmul`: steps for operands that a call or a workspace
holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...cuda.device import Device
from ...cuda.step import Arg, Descriptor, Step, Workspace
from ...matmul.cuda import choices, plans
from ...matmul.cuda.calls import Calls
from ...matmul.cuda.launch import _FUNCTIONS
from ...matmul.cuda.product import Operand, Product, of_linear
from ...spec import ABSENT, TensorSpec
from .problem import Call, on_cuda

Where = int | Workspace
_POINTERS = ("a", "b", "c", "bias", "residual", "a_scale", "b_scale")


@dataclass
class Steps:
    """Launches in order, and the same for tensors at addresses that are no multiples of 16 bytes."""

    aligned: list[Step] = field(default_factory=list)
    others: list[Step] = field(default_factory=list)

    def add(self, *steps: Step) -> None:
        """Steps that are the same for both."""
        self.aligned += steps
        self.others += steps


def multiply(steps: Steps, p: Product, where: Mapping[str, Where], device: Device) -> None:
    """Add the launches of a product.

    Args:
        where: the tensor of the call, or the workspace, behind a, b, c, bias.
    """
    if not (p.m and p.n and p.matrices):
        return
    unit, mover = p.dtype, "engine"
    if choices.tiles_problem(p, unit, mover, device) is not None or p.dtype == "float32" or not p.k:
        mover = "threads"
    config = choices.candidates(p, unit, mover, device)[0]
    if mover == "threads":
        steps.add(*_planned(p, config, unit, mover, where, device))
        return
    steps.aligned += _planned(p, config, unit, mover, where, device)
    steps.others += _planned(
        p, choices.unaligned_config(unit) | {"turned": False}, unit, "threads", where, device
    )


def _planned(
    p: Product, config: Mapping[str, Any], unit: str, mover: str, where: Mapping[str, Where], device: Device
) -> Sequence[Step]:
    q = p.turn() if config["turned"] else p
    names = Calls(lambda specs, attrs: p, {name: i for i, name in enumerate(where)}).placed(q)
    held = list(where.values())
    places = {name: held[place] for name, place in names.items()}
    full = choices.completed(q, config, unit, mover, device)
    count = device.multiprocessors
    made = (
        plans.pointer_plans(q, full, count) if mover == "threads" else [plans.descriptor_plan(q, full, count)]
    )
    sums, arrivals = max(plan.sums for plan in made), max(plan.arrivals for plan in made)
    scratch = {
        "sums": Workspace((sums,)) if sums else None,
        "arrivals": Workspace((arrivals,), "int32", zero=True) if arrivals else None,
    }
    found = []
    for plan in made:
        args: dict[str, Any] = {name: _pointer(places.get(name)) for name in _POINTERS}
        for name, box in plan.boxes.items():
            args[name] = Descriptor(places[name], box.block, box.shape, box.steps)
        args |= {**scratch, **plan.integers, **plan.constants}
        fn = _FUNCTIONS[plan.function]
        found.append(Step(fn, (plan.programs,), args, warps=plan.warps, stages=plan.stages, any_int=True))
    return found


def _pointer(place: Where | None) -> Any:
    return Arg(place) if isinstance(place, int) else place


def of_inputs(call: Call) -> Product:
    """x w_ih^T + b_ih in float32: [*outer, G H]. Operands a: x, b: w_ih, c, bias: b_ih."""
    width = call.gates * call.h
    result = on_cuda((*call.outer, width), "float32")
    return of_linear(
        (
            call.specs["x"],
            call.specs["w_ih"],
            call.specs["b_ih"] if call.has("b_ih") else ABSENT,
            ABSENT,
            result,
        ),
        None,
    )


def of_dx(call: Call) -> Product:
    """dg w_ih, dg: [*outer, G H]. Operands a: dg, b: w_ih, c: dx."""
    width, w = call.gates * call.h, call.specs["w_ih"]
    turned = TensorSpec(w.shape[::-1], w.dtype, w.device, w.strides[::-1])
    dg = on_cuda((*call.outer, width), call.dtype)
    return of_linear((dg, turned, ABSENT, ABSENT, call.specs["dx"]), None)


def of_weight(
    rows: int, width: int, columns: int, row: int, column: int, dtype: str, dw: TensorSpec
) -> Product:
    """dg^T z over rows of both, dg: [rows, width] without gaps, z: [rows, columns] by two steps."""
    dg = on_cuda((width, rows), dtype, (1, width))
    z = on_cuda((columns, rows), dtype, (column, row))
    return of_linear((dg, z, ABSENT, ABSENT, dw), None)


def of_heads(call: Call) -> Product:
    """dg^T h over rows of both for each head and gate: dw_hh: [heads, G D, D]. Both without gaps."""
    d, width = call.d, call.gates * call.h
    head, row, column = (stride // call.specs["dw_hh"].itemsize for stride in call.specs["dw_hh"].strides)
    return Product(
        d,
        d,
        call.t * call.b,
        Operand(1, width, (d, call.h)),
        Operand(call.h, 1, (d, 0)),
        Operand(row, column, (head, d * row)),
        call.dtype,
        call.dtype,
        (call.heads, call.gates),
    )


def row_step(spec: TensorSpec) -> int | None:
    """Elements from row to row of [n, m, k] taken as a matrix [n m, k]; None where steps differ."""
    (n, m, _), (outer, inner, _) = spec.shape, (stride // spec.itemsize for stride in spec.strides)
    if m == 1:
        return outer
    return inner if n == 1 or outer == m * inner else None
