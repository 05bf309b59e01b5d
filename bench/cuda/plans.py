"""What the networks of the race launch on a GPU, told without one:
`python -m kernelwright.bench.cuda --plans`.

A training step is traced and lowered for specs on a GPU, and each of its launches is bound; nothing is
allocated there, compiled or run. Of each network it tells how many kernels a step launches, how many bytes
they move, where each launch reads or writes a tensor of its own once, against the least, which is every call
of the plan reading and writing its operands once; and the calls that are slower than they need be:

    laid out     weights that a convolution copies into another order of axes at each call
    copies       tensors that are copied into another order, because nobody takes them as they lie
    casts        conversions that are a launch of their own
    unaligned    products whose rows are no multiples of 16 bytes, so that they go without bulk copies
    unfused      masks of a relu's gradient that are a pass of their own

With `--compile` each distinct kernel is compiled for the chip and its machine code looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...engine import passes, tree
from ...engine.compile import trace_tree
from ...engine.gpu.many import units
from ...engine.lower import Call, Lowered, lowered
from ...kernels.cuda import aot, device
from ...kernels.cuda.chain import ChainLaunch
from ...kernels.cuda.code_launch import CodeLaunch
from ...kernels.cuda.launch import CudaLaunch
from ...kernels.cuda.step import Arg, Descriptor, Table, Workspace
from ...kernels.op import Specs
from ...kernels.spec import TensorSpec
from ..whole.networks.network import GPU_NAMES, Network, get_network
from ..whole.steps import training_step

Tell = Callable[[str], None]
_COPIES = ("reshape", "transpose", "slice", "copy", "broadcast_to", "concat")
_PRODUCTS = ("matmul", "linear")
_ROWS = 16  # bytes that each row of a product is to be a multiple of, for bulk copies


@dataclass
class Unit:
    """Calls of a plan that are bound together.

    Attributes:
        calls: one, or several that are one launch.
        launch: what was bound.
        kernels: the name of each kernel that is launched, and the bytes of the tensors that it is given.
        least: bytes of the calls' operands, each once.
    """

    calls: Sequence[Call]
    launch: Any
    kernels: list[tuple[str, int]]
    least: int

    @property
    def moved(self) -> int:
        """The bytes of all its kernels' tensors."""
        return sum(nbytes for _, nbytes in self.kernels)


@dataclass
class Planned:
    """A network's training step as launches.

    Attributes:
        name: the network's.
        low: the graph with places and kernels.
        units: its launches.
    """

    name: str
    low: Lowered
    units: list[Unit] = field(default_factory=list)

    @property
    def launches(self) -> int:
        """How many kernels a step launches."""
        return sum(len(unit.kernels) for unit in self.units)

    @property
    def moved(self) -> int:
        """Bytes of the launches."""
        return sum(unit.moved for unit in self.units)

    @property
    def least(self) -> int:
        """Bytes of the calls."""
        return sum(unit.least for unit in self.units)


def planned(network: Network) -> Planned:
    """The launches of a training step, for the GPU that is there or assumed.

    Raises:
        NoKernelError: when a call has no kernel.
    """
    step, model, state = training_step(network, network.lr, like_torch=False)
    batch = network.draw(np.random.default_rng(0), network.batch)
    leaves, structure = tree.flatten(((model, state, *batch), {}), "the arguments")
    specs = [_there(np.asarray(leaf)) for leaf in leaves]
    graph, _, _ = trace_tree(step.function, structure, specs, network.name)
    donated = range(len(tree.leaves((model, state))))
    low = lowered(passes.run(graph, passes.Switches()), specs, donated)
    return Planned(network.name, low, [_unit(*unit) for unit in units(low.calls)])


def _there(array: np.ndarray[Any, Any]) -> TensorSpec:
    spec = TensorSpec.of(array)
    return TensorSpec(spec.shape, spec.dtype, "cuda:0")


def _unit(calls: Sequence[Call], bind: Callable[[], Any], places: Sequence[Any]) -> Unit:
    launch = bind()
    least = sum(_nbytes(place.spec) for place in places if place is not None)
    return Unit(calls, launch, list(_kernels(launch)), least)


def _nbytes(spec: TensorSpec) -> int:
    """The bytes of the elements that are there: what is repeated by a stride of 0 is read from caches."""
    count = 1
    for length, stride in zip(spec.shape, spec.strides, strict=True):
        count *= length if stride else min(length, 1)
    return count * spec.itemsize


def _kernels(launch: Any) -> Iterator[tuple[str, int]]:
    """Each kernel of a launch, by its name, and the bytes of its tensors, each of them once."""
    if isinstance(launch, ChainLaunch):
        for part in launch.parts():
            yield from _kernels(part.launch)
    elif isinstance(launch, CodeLaunch):
        for one in launch.steps:
            given = {place for place in one.pointers if place is not None}
            yield one.code.name, sum(_nbytes(launch.specs[place]) for place in given)
    elif isinstance(launch, CudaLaunch):
        for step in launch.steps:
            yield step.name, _moved(step.args.values(), launch.specs)


def _moved(values: Any, specs: Specs) -> int:
    found: dict[Any, int] = {}
    for value in values:
        at = value.index if isinstance(value, Arg | Descriptor) else value
        if isinstance(at, Workspace):
            piece = TensorSpec(at.shape, at.dtype)
            found[id(at)] = piece.nbytes
        elif isinstance(value, Arg | Descriptor) and specs[at].present:
            found[at] = _nbytes(specs[at])
        elif isinstance(value, Table):
            found |= {n.index: _nbytes(specs[n.index]) for n in value.numbers if isinstance(n, Arg)}
    return sum(found.values())


# --- what is slower than it need be -------------------------------------------------------------------------


def slow(plan: Planned) -> dict[str, list[tuple[str, int]]]:
    """The launches of each kind that the opening of this file lists: what, and bytes."""
    found: dict[str, list[tuple[str, int]]] = {}
    for unit in plan.units:
        for kind, nbytes in _slow(unit):
            call = unit.calls[0]
            shapes = ", ".join(str(place.spec).partition("@")[0] for place in call.outputs[:1])
            found.setdefault(kind, []).append((f"{call.node.op.name} -> {shapes}", nbytes))
    return found


def _slow(unit: Unit) -> Iterator[tuple[str, int]]:
    call = unit.calls[0]
    name = call.node.op.name
    for kernel, nbytes in unit.kernels:
        if kernel == "laid_out":
            yield "laid out", nbytes
    if name in _COPIES and unit.kernels:
        yield "copies", unit.moved
    if name == "cast" and unit.least > 1 << 16:
        yield "casts", unit.moved
    if name in _PRODUCTS and any(_is_odd(place.spec) for place in call.inputs[:2] if place is not None):
        yield "unaligned", unit.moved
    program = call.node.attrs.get("program")
    if program is not None and {"greater", "where"} <= {one[0] for one in program.instructions}:
        yield "unfused", unit.moved


def _is_odd(spec: TensorSpec) -> bool:
    """Whether a 16-bit matrix has rows that bulk copies cannot take."""
    rows = [stride for stride, length in zip(spec.strides, spec.shape, strict=True) if length > 1]
    return spec.itemsize == 2 and any(s != spec.itemsize and s % _ROWS for s in rows)


# --- machine code -------------------------------------------------------------------------------------------


def compiled(plans: Sequence[Planned], capability: int, tell: Tell) -> int:
    """Compile each distinct kernel for a chip and tell what is wrong with its machine code.

    Returns:
        How many have something wrong.
    """
    chip, known, wrong = device.chip(capability), set[Any](), 0
    for plan in plans:
        for unit in plan.units:
            try:
                codes = unit.launch.codes(capability)
            except Exception as error:
                codes, said = [], f"{type(error).__name__}: {str(error).splitlines()[0]}"
                if said not in known:
                    known.add(said)
                    wrong += 1
                    tell(f"{plan.name}: {unit.calls[0].kernel_id}: {said}")
            for code in codes:
                key = code.source, code.digest
                found = [] if key in known else aot.problems(code, chip)
                known.add(key)
                if found:
                    wrong += 1
                    tell(f"{plan.name}: {unit.calls[0].kernel_id}: {code}: {'; '.join(found)}")
    tell(f"{len(known)} kernels for sm_{capability}, {wrong} with something wrong")
    return wrong


# --- telling ------------------------------------------------------------------------------------------------


def told(plan: Planned, chip: device.Device) -> str:
    """The plan's figures, as text."""
    seconds = plan.moved / chip.bandwidth
    lines = [
        f"{plan.name}: {len(plan.low.calls)} calls, {plan.launches} launches, {plan.moved / 1e6:,.0f} MB "
        f"moved, at least {plan.least / 1e6:,.0f} MB: {1e3 * seconds:.2f} ms at "
        f"{chip.bandwidth / 1e12:.2f} TB/s"
    ]
    counts: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for unit in plan.units:
        for name, size in unit.kernels:
            key = f"{unit.calls[0].kernel_id} {name}"
            counts[key] += 1
            nbytes[key] += size
    lines += [f"  {counts[key]:5} {size / 1e6:10,.1f} MB  {key}" for key, size in nbytes.most_common()]
    for kind, calls in slow(plan).items():
        lines.append(f"  {kind}: {len(calls)}, {sum(size for _, size in calls) / 1e6:,.1f} MB")
        same: Counter[tuple[str, int]] = Counter(calls)
        most = sorted(same.items(), key=lambda item: -item[1] * item[0][1])[:4]
        lines += [f"    {count} x {size / 1e6:,.2f} MB  {what}" for (what, size), count in most]
    return "\n".join(lines)


def main(compile_them: bool, tell: Tell = print, names: Sequence[str] = GPU_NAMES) -> int:
    """What `--plans` does, for the GPU that is there or an assumed one. Returns the exit code."""
    chip = device.facts()
    with device.taken_for(chip):
        plans = []
        for name in names:
            plans.append(planned(get_network(name)))
            tell(told(plans[-1], chip))
        return 1 if compile_them and compiled(plans, chip.capability, tell) else 0
