"""CudaPlan: a lowered graph on a GPU: launches over fixed memory, and the CUDA graph that they become.

    memory     one tensor of bytes is the arena, one holds the constants, one the scratch that launches share
               (they run in turn), one the zeros that some kernels want and leave; all of them once, for good
    launches   each call is bound when the plan is made; what a call runs over never moves but for arguments
               and results, which are new tensors of torch's at each call of the plan
    run        launch after launch on torch's current stream, or the replay of the graph that was captured of
               them (`replay.py`). Nothing waits for the GPU.

A plan's memory is used by one run after the other. Where a run comes on another stream than the last one,
that stream waits for the last one first, so that the two do not meet in the arena.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from ...kernels.cuda.launch import runtime, torch_dtype
from ...kernels.cuda.step import Workspace
from ...kernels.kernel import nothing_to_do
from ...kernels.settings import current
from ...kernels.spec import TensorSpec
from .. import profile
from ..lower import Call, Lowered
from ..memory import Buffer, Place, lower_bound, place_buffers
from ..show import plan_text
from .failures import binding, launching
from .many import units
from .memory import LINE, Block, Constants, lasting, lines, strided
from .replay import Replays

Tensors = Sequence[Any]


class CudaPlan:
    """What runs a graph on a GPU for arguments of certain specs; made by `plan.make_plan`.

    Attributes:
        graph: what it computes.
        calls: its kernel calls, in order.
        device: where.
        arena_bytes, arena_lower_bound, scratch_bytes: as of `plan.Plan`.
        constant_bytes: of its constants on the device.
        launches: how many kernels it launches, as far as launches say so.
        replays: what captures and replays it.
        seconds: measured for each call, when profiling is on; else empty.
    """

    def __init__(self, low: Lowered, specs: Sequence[TensorSpec]):
        self.graph, self.calls, self.low = low.graph, low.calls, low
        self.specs = tuple(specs)
        self.device = low.graph.device
        self.index = runtime().number(self.device)
        self.seconds: list[float] = []
        self.under = current()
        self._lock = threading.Lock()
        self._prepared = self._dirty = False
        with self.on_device(), lasting():
            self._take_memory()
            self.steps = [self._bound(*unit) for unit in units(self.calls)]
            self._take_scratch()
            # What was queued for its memory until now is waited for by the first run, if that is elsewhere.
            self._stream = runtime().stream(self.index), runtime().current_stream(self.index)
        self.launches = sum(step.launches for step in self.steps)
        self.results = [_slot(place, len(self.specs)) for place in low.outputs]
        self.new_specs = [_spec_of(low, buffer) for buffer in low.new]
        # Results in donated memory may have another shape than the argument had.
        slots = [*self.specs, *self.new_specs]
        self._as_they_are = all(
            slots[number] is place.spec for number, place in zip(self.results, low.outputs, strict=True)
        )
        self.replays = Replays(self)
        self._timed = profile.wanted()

    # --- memory ---------------------------------------------------------------------------------------------

    def _take_memory(self) -> None:
        low = self.low
        self.arena_bytes = place_buffers(low.buffers, LINE)
        self.arena_lower_bound = lower_bound(low.buffers, LINE)
        self._arena = Block(self.arena_bytes, self.device)
        self._constants = Constants(low.constants, self.device)  # type: ignore[arg-type]
        self.constant_bytes = self._constants.nbytes

    def _take_scratch(self) -> None:
        """One piece of memory for the workspaces of all launches, and one for those that are to be zeros."""
        layouts = [_laid_out(step.workspaces) for step in self.steps]
        self.scratch_bytes = max([scratch for _, scratch, _ in layouts], default=0)
        zero_bytes = max([zeros for _, _, zeros in layouts], default=0)
        self._scratch = Block(self.scratch_bytes, self.device) if self.scratch_bytes else None
        self._zeros = Block(zero_bytes, self.device) if zero_bytes else None
        if self._zeros is not None:
            self._zeros.tensor.zero_()
        for step, (places, _, _) in zip(self.steps, layouts, strict=True):
            for piece, offset in zip(step.workspaces, places, strict=True):
                block = self._zeros if piece.zero else self._scratch
                assert block is not None
                step.held.append(block.view(offset, TensorSpec(piece.shape, piece.dtype, self.device)))

    def _bound(self, calls: Sequence[Call], bind: Callable[[], Any], places: Sequence[Place | None]) -> _Step:
        with binding(calls):
            launch = bind()
        return _Step(calls, launch, [None if p is None else self._fixed(p) for p in places], len(self.specs))

    def _fixed(self, place: Place) -> Any:
        """The tensor at a place that never moves; the place itself of an argument or result."""
        if place.buffer.kind == "arena":
            return self._arena.view(place.buffer.offset + place.offset, place.spec)
        if place.buffer.kind == "constant":
            return strided(
                self._constants.views[place.buffer.number], place.offset // place.spec.itemsize, place.spec
            )
        return place

    def on_device(self) -> Any:
        """A context in which the plan's device is the current one."""
        run = runtime()
        return nullcontext() if run.current() == self.index else run.on(self.index)

    # --- running --------------------------------------------------------------------------------------------

    def run(self, given: Tensors, addresses: Sequence[int] | None = None) -> list[Any]:
        """The results for tensors of exactly the plan's specs, which nobody checks here.

        Args:
            given: the tensors.
            addresses: theirs, where they are known already.
        """
        if self._timed:
            return profile.timed(self, given)
        if addresses is None:
            addresses = [tensor.data_ptr() for tensor in given]
        if runtime().current() != self.index:
            with self.on_device():
                return self._run(given, addresses)
        return self._run(given, addresses)

    def _run(self, given: Tensors, addresses: Sequence[int]) -> list[Any]:
        with self._lock:
            self._on_stream()
            return self.replays.run(given, addresses)

    def run_each(self, given: Tensors, after: Callable[[int, list[Any]], None]) -> list[Any]:
        """As `run`, waiting after each call; `after(number of the call, its outputs)` follows."""
        with self._lock, self.on_device():
            self._on_stream()
            slots = [*given, *self.new_results()]
            numbers = {id(call): number for number, call in enumerate(self.calls)}
            for step in self.steps:
                self._launch(step, slots, waits=True)
                for call in step.calls:
                    after(numbers[id(call)], [self._at(place, slots) for place in call.outputs])
            return self.made(slots)

    def _at(self, place: Place, slots: Tensors) -> Any:
        """The tensor at a place, with these arguments and new results."""
        fixed = self._fixed(place)
        return _viewed(slots[_slot(place, len(self.specs))], place) if fixed is place else fixed

    def new_results(self) -> list[Any]:
        """New tensors for the results that get memory of their own."""
        empty = runtime().empty
        return [empty(spec.shape, torch_dtype(spec.dtype), self.device) for spec in self.new_specs]

    def launch_all(self, slots: Tensors) -> list[Any]:
        """Launch every step over these arguments and new results, one after the other.

        Returns:
            What a captured graph of them must hold on to.

        Raises:
            LaunchError: naming the call. When it comes while steps are launched, donated arguments may hold
                new numbers or old ones; a kernel that cannot be compiled fails before.
        """
        if not self._prepared:
            self.prepare(slots)
            self._prepared = True
        waits = self.under.cuda_sync and not runtime().capturing()
        return [self._launch(step, slots, waits) for step in self.steps]

    def prepare(self, slots: Tensors) -> None:
        """Compile, load and look up all that launches over these arguments and new results need."""
        for step in self.steps:
            step.prepare(slots)

    def _launch(self, step: _Step, slots: Tensors, waits: bool) -> Any:
        if self._dirty and self._zeros is not None:
            self._zeros.tensor.zero_()
        self._dirty = True
        with launching(step.calls, waits):
            kept = step.run(slots)
            if waits:
                runtime().synchronize(self.index)
        self._dirty = False
        return kept

    def made(self, slots: Tensors) -> list[Any]:
        """The results, of a call with these arguments and new tensors."""
        if self._as_they_are:
            return [slots[number] for number in self.results]
        return [
            _seen(slots[number], place.spec)
            for number, place in zip(self.results, self.low.outputs, strict=True)
        ]

    def _on_stream(self) -> None:
        """Wait for the run before, where that was on another stream.

        Not while somebody captures: a graph cannot wait for what is queued outside of it, and who replays it
        sees to its turn.
        """
        run = runtime()
        if run.capturing():
            return
        stream = run.stream(self.index)
        if self._stream[0] == stream:
            return
        run.wait(self.index, self._stream[1], *self._memory())
        self._stream = stream, run.current_stream(self.index)

    def _memory(self) -> list[Any]:
        """All tensors that stay with the plan."""
        blocks = (self._arena, self._scratch, self._zeros, getattr(self._constants, "block", None))
        return [block.tensor for block in blocks if block is not None] + self.replays.memory()

    # --- for people -----------------------------------------------------------------------------------------

    def how(self) -> str:
        """The last line of the printed plan: where it runs, in how much memory, and whether as a graph."""
        return (
            f"{len(self.calls)} steps, {self.launches} kernels on {self.device}; arena {self.arena_bytes:,} "
            f"bytes (at least {self.arena_lower_bound:,} live at once), scratch {self.scratch_bytes:,}, "
            f"constants {self.constant_bytes:,} bytes; {self.replays}"
        )

    def __str__(self) -> str:
        return plan_text(self)


class _Step:
    """A call, or several that are one launch, bound to their tensors.

    Attributes:
        calls: which.
        held: the memory of its launch's workspaces.
        workspaces: of its launch.
        launches: how many kernels it is.
    """

    def __init__(self, calls: Sequence[Call], launch: Any, fixed: list[Any], arguments: int):
        self.calls, self.launch = calls, launch
        self.workspaces: tuple[Workspace, ...] = tuple(getattr(launch, "workspaces", ()))
        self.held: list[Any] = []
        self.within = getattr(launch, "within", None)
        self.launches = 0 if launch is nothing_to_do else _count(launch)
        self._fixed = fixed
        self._moving = [
            (i, _slot(place, arguments), place) for i, place in enumerate(fixed) if isinstance(place, Place)
        ]

    def tensors(self, slots: Tensors) -> list[Any]:
        """The launch's tensors, with these arguments and new results."""
        if not self._moving:
            return self._fixed
        tensors = self._fixed.copy()
        for i, slot, place in self._moving:
            tensors[i] = _viewed(slots[slot], place)
        return tensors

    def prepare(self, slots: Tensors) -> None:
        """Compile and load whatever is missing."""
        prepare = getattr(self.launch, "prepare", None)
        if prepare is not None:
            with binding(self.calls):
                prepare(self.tensors(slots), self.held)

    def run(self, slots: Tensors) -> Any:
        """Queue it on the current stream; what a captured graph of it must hold on to."""
        within = self.within
        return self.launch(*self.tensors(slots)) if within is None else within(self.tensors(slots), self.held)


def _count(launch: Any) -> int:
    """The kernels of a launch; 1 where it does not say."""
    steps = getattr(launch, "steps", None)
    return 1 if steps is None else len(steps)


def _slot(place: Place, arguments: int) -> int:
    """Which of a run's arguments and new results lies at a place."""
    return place.buffer.number + (arguments if place.buffer.kind == "output" else 0)


def _viewed(tensor: Any, place: Place) -> Any:
    """What lies at a place in an argument or new result."""
    if not place.offset:
        return _seen(tensor, place.spec)
    return strided(tensor, place.offset // place.spec.itemsize, place.spec)


def _seen(tensor: Any, spec: TensorSpec) -> Any:
    """A tensor in the shape of `spec`, which has its elements at the same addresses."""
    if spec.layout is None and tensor.shape == spec.shape and tensor.is_contiguous():
        return tensor
    return strided(tensor, 0, spec)


def _spec_of(low: Lowered, buffer: Buffer) -> TensorSpec:
    return next(p for p in low.outputs if p.buffer is buffer).spec


def _laid_out(pieces: Sequence[Workspace]) -> tuple[list[int], int, int]:
    """Where workspaces lie one behind the other, and the bytes of those that hold anything and of zeros."""
    places, ends = [], {False: 0, True: 0}
    for piece in pieces:
        spec = TensorSpec(piece.shape, piece.dtype)
        places.append(ends[piece.zero])
        ends[piece.zero] += lines(spec.nbytes)
    return places, ends[False], ends[True]
