"""Replays: a plan's launches captured as CUDA graphs, and which of them serves a call.

A captured graph is launches over addresses. The plan's own memory never moves; arguments and results do,
and each of them is in one of two ways in a graph:

    in place   the graph was captured at the tensor's own address and serves calls with that address. So are
               parameters and states that a step updates in place: they stay where they are, and nothing of
               them is ever copied.
    copied     the graph has a tensor of its own, into which an argument is copied before the replay, or
               from which a result is copied behind it. So are, from the beginning, results of at most
               `SMALL` bytes: a loss is a new Array at each call, wherever that lies, for one launch more.

A graph only ever touches memory that was given to it in this very call, or that is the plan's: no result that
somebody still holds is written again, and whoever frees an argument need not tell anybody.

A set of addresses is launched directly when it comes first, which compiles what is missing, and captured
when it comes again. Torch's allocator gives the same addresses in turn, so that a few graphs
(`MOST_GRAPHS`) serve a loop that makes its batches and results anew. Where after `PATIENCE` calls in a row
none was known, what kept moving is copied from then on, if that pays: a copy moves each byte twice through
the memory and is one launch more, and a replay saves the launches of all kernels but one. A plan that is
little else than one pass over large arrays is so launched directly for good. All of it follows from counts
and sizes; nothing is measured.

While somebody else captures (torch.cuda.graph around the call), a plan's launches become part of that graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...kernels import dispatch
from ...kernels.cuda import device
from ...kernels.cuda.launch import runtime, torch_dtype
from ...kernels.errors import LaunchError
from ...kernels.spec import TensorSpec, extent
from .failures import late
from .memory import Block, lasting, lines

if TYPE_CHECKING:
    from .plan import CudaPlan

SMALL = 1 << 16
"""Bytes of results that are copied out: less time at a GPU's bandwidth than a launch takes."""
MOST_GRAPHS = 4
PATIENCE = 4
LAUNCH_S = 4e-6
"""Seconds of the host for one launch: a look-up in Python and the driver's call."""
_MOST_SEEN = 64


class Replays:
    """The graphs of one plan.

    Attributes:
        captures: how many were captured so far.
        replayed, launched: how many calls were replays, and how many launched kernel by kernel.
        why_not: why nothing is captured; "" where it is, or will be.
        copied: the numbers of the arguments and new results (behind the arguments) that are copied.
    """

    def __init__(self, plan: CudaPlan):
        self.plan = plan
        self.captures = self.replayed = self.launched = 0
        self.why_not = ""
        under = plan.under
        if not under.cuda_graphs:
            self.why_not = "graphs are turned off"
        elif under.cuda_sync:
            self.why_not = "it waits after each call"
        elif plan.launches < 2:
            self.why_not = "one launch is no slower than a replay"
        count = len(plan.specs)
        self.copied = {
            count + i
            for i, spec in enumerate(plan.new_specs)
            if 0 < spec.nbytes <= SMALL and not self.why_not
        }
        outputs = [place.buffer for call in plan.calls for place in call.outputs]
        self._written = {buffer.number for buffer in outputs if buffer.kind == "input"}
        self._graphs: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._seen: dict[tuple[int, ...], None] = {}
        self._missed: list[tuple[int, ...]] = []
        self._set_copied()

    def _set_copied(self) -> None:
        """Take memory for what is copied, and forget the graphs of before."""
        plan, count = self.plan, len(self.plan.specs)
        self._graphs.clear()
        self._seen.clear()
        self._missed.clear()
        self._in = sorted(slot for slot in self.copied if slot < count)
        self._out = sorted(slot - count for slot in self.copied if slot >= count)
        with lasting():
            self._static: dict[int, Any] = {slot: _like(plan.specs[slot]) for slot in self._in}
            self._outs = _Outs([plan.new_specs[i] for i in self._out], plan.device)
        for i, view in zip(self._out, self._outs.views, strict=True):
            self._static[count + i] = view
        # Of each new result, its tensor and address, or what makes one.
        self._results: list[tuple[Any, int, tuple[Any, ...]]] = []
        for i, spec in enumerate(plan.new_specs):
            static = self._static.get(count + i)
            new = spec.shape, torch_dtype(spec.dtype), plan.device
            self._results.append((static, 0 if static is None else static.data_ptr(), new))

    def memory(self) -> list[Any]:
        """The tensors that are copied into or from."""
        return list(self._static.values())

    def run(self, given: Sequence[Any], addresses: Sequence[int]) -> list[Any]:
        """The results of a call with tensors at these addresses; the plan's device is current."""
        plan, run = self.plan, runtime()
        if self.why_not or run.capturing():
            self.launched += 1
            slots = [*given, *plan.new_results()]
            plan.launch_all(slots)
            return plan.made(slots)
        slots, places = self._slots(run, given, addresses)
        at = tuple(places)
        graph, _ = self._graphs.get(at) or (None, None)
        if graph is None and at in self._seen:
            graph = self._captured(at, slots)
        if graph is None:
            self.launched += 1
            plan.launch_all(slots)
            made = self._handed_out(run, given, slots)
            if not self.why_not:
                self._miss(at)
            return made
        self._missed.clear()
        self._graphs.move_to_end(at)
        self.replayed += 1
        try:
            graph.replay()
        except RuntimeError as error:
            raise late(error, "replaying a compiled function's graph") from error
        return self._handed_out(run, given, slots)

    def _slots(self, run: Any, given: Sequence[Any], addresses: Sequence[int]) -> tuple[list[Any], list[int]]:
        """The tensors that the steps run over, arguments and then new results, and their addresses."""
        slots, places = list(given), list(addresses)
        try:
            for slot in self._in:
                run.copy(self._static[slot], given[slot])
                slots[slot] = self._static[slot]
                places[slot] = slots[slot].data_ptr()
        except RuntimeError as error:
            raise late(error, "copying arguments of a compiled function") from error
        for made, address, new in self._results:
            if made is None:
                made = run.empty(*new)
                address = made.data_ptr()
            slots.append(made)
            places.append(address)
        return slots, places

    def _captured(self, at: tuple[int, ...], slots: list[Any]) -> Any:
        """A graph of the steps over these tensors; None when they cannot be captured."""
        plan = self.plan
        kept: list[Any] = []
        try:
            plan.prepare(slots)  # what has been forgotten since they came first
            graph = runtime().captured(plan.index, lambda: kept.extend(plan.launch_all(slots)))
        except (LaunchError, RuntimeError) as error:
            self.why_not = f"it could not be captured: {str(error).splitlines()[0]}"
            dispatch.count_fallback(f"plan of {plan.graph.name}: graph -> launches")
            self._graphs.clear()
            return None
        self.captures += 1
        while len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        self._graphs[at] = graph, kept
        return graph

    def _miss(self, at: tuple[int, ...]) -> None:
        """Remember addresses that no graph knows; after too many in a row, copy what moves."""
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[at] = None
        self._missed.append(at)
        if len(self._missed) < PATIENCE:
            return
        moved = {slot for slot, places in enumerate(zip(*self._missed, strict=True)) if len(set(places)) > 1}
        self._missed.clear()
        specs = [*self.plan.specs, *self.plan.new_specs]
        if moved and not any(_repeats(specs[slot]) for slot in moved) and self._pays(self.copied | moved):
            self.copied |= moved
            self._set_copied()

    def _pays(self, copied: set[int]) -> bool:
        """Whether a replay with these copies takes less than launching each kernel."""
        plan, count = self.plan, len(self.plan.specs)
        ins = [slot for slot in copied if slot < count]
        back = [slot for slot in ins if slot in self._written]
        outs = [plan.new_specs[slot - count] for slot in copied if slot >= count]
        nbytes = sum(plan.specs[slot].nbytes for slot in (*ins, *back)) + sum(spec.nbytes for spec in outs)
        launches = 1 + len(ins) + len(back) + bool(outs)
        seconds = launches * LAUNCH_S + 2 * nbytes / device.facts(plan.device).bandwidth
        return seconds < plan.launches * LAUNCH_S

    def _handed_out(self, run: Any, given: Sequence[Any], slots: list[Any]) -> list[Any]:
        """The results for the caller: none of them in memory that the next call writes."""
        count = len(given)
        if self._out:
            for i, made in zip(self._out, self._outs.copies(), strict=True):
                slots[count + i] = made
        for slot in self._in:
            if slot in self._written:  # a donated argument that keeps moving: its results go where it is
                run.copy(given[slot], slots[slot])
            slots[slot] = given[slot]
        return self.plan.made(slots)

    def __str__(self) -> str:
        if self.why_not:
            return f"no graph: {self.why_not}"
        if not self.captures:
            return "no graph yet"
        copies = f", {len(self._in)} arguments and {len(self._out)} results copied" if self.copied else ""
        return (
            f"{len(self._graphs)} of {self.captures} captured graphs kept{copies}; {self.replayed} replays, "
            f"{self.launched} runs launch by launch"
        )


class _Outs:
    """Memory of the results that are copied out: one piece, so that one copy hands out all of them."""

    def __init__(self, specs: Sequence[TensorSpec], device: str):
        self.specs, self.views = list(specs), []
        self.starts: list[int] = []
        at = 0
        for spec in specs:
            self.starts.append(at)
            at += lines(spec.nbytes)
        if not specs:
            return
        self.block = Block(at, device)
        self.views = self._seen(self.block)

    def _seen(self, block: Block) -> list[Any]:
        return [block.view(start, spec) for start, spec in zip(self.starts, self.specs, strict=True)]

    def copies(self) -> list[Any]:
        """New tensors with what the views hold."""
        if len(self.views) == 1:
            return [self.views[0].clone()]
        return self._seen(Block(self.block.nbytes, "", self.block.tensor.clone()))


def _like(spec: TensorSpec) -> Any:
    """A tensor of a spec."""
    low, high = extent(spec.shape, spec.strides, spec.itemsize)
    return Block(high - low, spec.device).view(-low, spec)


def _repeats(spec: TensorSpec) -> bool:
    """Whether elements of a spec lie at the same place, so that it cannot be copied into."""
    return any(stride == 0 and length > 1 for stride, length in zip(spec.strides, spec.shape, strict=True))
