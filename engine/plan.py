"""Plan: a lowered graph, ready to run: a table of steps, argument blocks, and one arena.

Everything that depends on shapes was settled when the plan was made. A call allocates its results, and makes
one compiled call: write the addresses of arguments and results where they belong, then run step after step.
Python comes in between only for an op without a kernel.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.allocate import allocator, empty_aligned
from ..kernels.kernel import nothing_to_do
from ..kernels.settings import current
from ..kernels.spec import TensorSpec, extent
from . import profile
from .graph import Graph
from .lower import Call, Lowered, lowered
from .memory import Buffer, Place, lower_bound, place_buffers
from .show import plan_text
from .views import view_at

Arrays = list[NDArray[Any]]
_GUARD = 128  # bytes around a stand-in, so that no address belongs to two of them


class Plan:
    """What runs a graph for arguments of certain specs. Made by `make_plan`.

    Attributes:
        graph: what it computes.
        calls: its kernel calls, in order.
        arena_bytes: of memory for what lives only inside.
        arena_lower_bound: bytes that live at the same time at the worst moment.
        scratch_bytes: of scratch that its kernels share.
        segments: its steps as they run: (first, count) in one compiled call, or the number of a call that
        goes
            through Python.
        seconds: measured for each call, when profiling is on (`profile.py`); else empty.
    """

    def __init__(self, low: Lowered, specs: Sequence[TensorSpec]):
        from ..kernels.cpu import steps

        self.graph = low.graph
        self.calls = low.calls
        self.low = low
        self.specs = tuple(specs)
        self.arena_bytes = place_buffers(low.buffers)
        self.arena_lower_bound = lower_bound(low.buffers)
        self.seconds: list[float] = []
        self.threads = current().threads
        self._lock = threading.Lock()
        _plans.add(self)
        self._arena = empty_aligned((max(self.arena_bytes, 1),), np.uint8)
        self._stand_ins = _StandIns(low, specs)
        self._new = [(allocator(*_shape_of(low, b)), *_shape_of(low, b)) for b in low.new]
        self._results = [_number(place, len(specs)) for place in low.outputs]
        # Results in donated memory may have another shape than the argument had.
        given = [place for place in low.outputs if place.buffer.kind == "input"]
        self._as_given = all(p.spec.shape == self.specs[p.buffer.number].shape for p in given)
        self._runs = _Runs(self, steps)
        self.scratch_bytes = self._runs.scratch_bytes
        self.segments = self._runs.segments
        self._timed = profile.wanted()

    def run(self, given: Sequence[NDArray[Any]]) -> Arrays:
        """The results for arguments of exactly the plan's specs, which nobody checks here."""
        if self._timed:
            return profile.timed(self, given)
        arrays = (*given, *[allocate(shape, dtype) for allocate, shape, dtype in self._new])
        with self._lock:
            self._runs.all(arrays)
        return self._made(arrays)

    def quick(self) -> Callable[[tuple[NDArray[Any], ...]], Arrays]:
        """`run` of a tuple of arrays, with everything looked up that can be."""
        if self._timed or len(self._new) != 1 or self._results != [len(self.specs)]:
            return self.run
        ((allocate, shape, dtype),), run = self._new, self._runs.all

        def quick(given: tuple[NDArray[Any], ...]) -> Arrays:
            """One new result: no list is worth making."""
            made = allocate(shape, dtype)
            arrays = (*given, made)
            with self._lock:
                run(arrays)
            return [made]

        return quick

    def run_each(self, given: Sequence[NDArray[Any]], after: Callable[[int, Arrays], None]) -> Arrays:
        """As `run`, call by call; `after(number of the call, its outputs)` is called after each."""
        arrays = (*given, *[allocate(shape, dtype) for allocate, shape, dtype in self._new])
        with self._lock:
            for number, call in enumerate(self.calls):
                self._runs.one(number, arrays)
                after(number, [self.array_at(place, arrays) for place in call.outputs])
        return self._made(arrays)

    def _made(self, arrays: Sequence[NDArray[Any]]) -> Arrays:
        """The results, of a call with these arguments and new arrays."""
        if self._as_given:
            return [arrays[number] for number in self._results]
        shapes = [place.spec.shape for place in self.low.outputs]
        return [arrays[number].reshape(shape) for number, shape in zip(self._results, shapes, strict=True)]

    def array_at(self, place: Place, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The array that lies at a place, in a call with these arguments and results."""
        buffer = place.buffer
        if buffer.kind == "arena":
            return _viewed(self._arena, buffer.offset + place.offset, place.spec)
        if buffer.kind == "constant":
            return _viewed(self.low.constants[buffer.number], place.offset, place.spec)
        return _viewed(arrays[_number(place, len(self.specs))], place.offset, place.spec)

    def how(self) -> str:
        """The last line of the printed plan: how it runs, and in how much memory."""
        python = sum(not isinstance(segment, tuple) for segment in self.segments)
        through = f", {python} of them through Python" if python else ", in one compiled call"
        return (
            f"{len(self.calls)} steps{through}; arena {self.arena_bytes:,} bytes (at least "
            f"{self.arena_lower_bound:,} live at once), scratch {self.scratch_bytes:,} bytes; "
            f"{self.threads} threads"
        )

    def __str__(self) -> str:
        return plan_text(self)


_plans: weakref.WeakSet[Plan] = weakref.WeakSet()


def _forget_after_fork() -> None:
    """In a forked child nobody is in the middle of a plan: the thread that was is not there."""
    for plan in _plans:
        plan._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def make_plan(graph: Graph, specs: Sequence[TensorSpec] | None = None, donated: Collection[int] = ()) -> Any:
    """The plan of a graph under the settings in force: a `Plan`, or on a GPU a `gpu.plan.CudaPlan`.

    Args:
        graph: what it computes.
        specs: of the arguments, with their strides; row-major unless given.
        donated: the numbers of the arguments whose memory results may take.

    Raises:
        NoKernelError: under strict settings, for an op that only its reference could compute; on a GPU, for
            one without a CUDA kernel.
        LaunchError: on a GPU, for a kernel that cannot be made ready.
    """
    specs = tuple(v.spec for v in graph.inputs) if specs is None else tuple(specs)
    low = lowered(graph, specs, donated)
    if graph.device != "cpu":
        from .gpu.plan import CudaPlan

        return CudaPlan(low, specs)
    return Plan(low, specs)


def _shape_of(low: Lowered, buffer: Buffer) -> tuple[tuple[int, ...], Any]:
    place = next(p for p in low.outputs if p.buffer is buffer)
    return place.spec.shape, place.spec.np_dtype


def _viewed(memory: Any, offset: int, spec: TensorSpec) -> NDArray[Any]:
    """The array of `spec` whose first element lies `offset` bytes behind that of `memory`."""
    return view_at(memory, offset, spec.shape, spec.strides, spec.np_dtype)


def _number(place: Place, arguments: int) -> int:
    """Which of a call's arguments and new arrays lies at a place."""
    return place.buffer.number + (arguments if place.buffer.kind == "output" else 0)


_UNWRITTEN = 0xA5


def _first_bytes(array: Any) -> NDArray[np.uint8]:
    """Some bytes of a row-major array."""
    return array.reshape(-1).view(np.uint8)[:64]  # type: ignore[no-any-return]


class _StandIns:
    """Memory in place of arguments and results while steps are written down."""

    def __init__(self, low: Lowered, specs: Sequence[TensorSpec]):
        self.bases: list[tuple[int, int, int]] = []
        self.memories: list[NDArray[np.uint8]] = []
        self.starts: list[int] = []
        sizes = [extent(spec.shape, spec.strides, spec.itemsize) for spec in specs]
        sizes += [(0, buffer.nbytes) for buffer in low.new]
        for number, (before, after) in enumerate(sizes):
            memory = np.empty(after - before + 2 * _GUARD, np.uint8)
            address = int(memory.ctypes.data)
            first = address + _GUARD - before
            first += -first % 64
            self.bases.append((address, address + memory.nbytes, number))
            self.memories.append(memory)
            self.starts.append(first - address)

    def array(self, number: int, offset: int, spec: TensorSpec) -> NDArray[Any]:
        """What stands for an argument or result, or a view of it."""
        return _viewed(self.memories[number], self.starts[number] + offset, spec)

    def find(self, address: int) -> tuple[int, int] | None:
        """(number, bytes from the first element) of the argument or result that an address belongs to."""
        for low, high, number in self.bases:
            if low <= address < high:
                return number, address - low - self.starts[number]
        return None


class _Runs:
    """The steps of a plan in runs: compiled ones, and between them calls that go through Python."""

    def __init__(self, plan: Plan, steps: Any):
        from ..kernels.cpu.launch import TUPLE_HEAD, objects_show_their_data
        from ..kernels.cpu.team import team_address

        if not objects_show_their_data():
            raise RuntimeError("plans need NumPy's arrays as CPython lays them out")
        self._plan = plan
        self._tuple_head, self._team = TUPLE_HEAD, team_address
        recorded = [self._record(call, steps) for call in plan.calls]
        flat = [step for made in recorded if isinstance(made, list) for step in made]
        self._steps = flat
        self.table = np.array([step.row() for step in flat], np.int64).reshape(-1, steps.STEP_WORDS)
        patches = [patch for step in flat for patch in self._patches(step)]
        self.patches = np.array(patches, np.int64).reshape(-1, steps.PATCH_WORDS)
        self.scratch_bytes = max([step.scratch_bytes for step in flat], default=0)
        self._scratch = empty_aligned((max(self.scratch_bytes, 1),), np.uint8)
        self.most_tasks = max([step.most_tasks for step in flat], default=1)
        self._run = steps.steps_runner()
        self._places = self._cut(recorded)
        self.segments = self._joined()
        # `ctypes.data` takes longer than a small plan: addresses are asked for once.
        self._table_at = int(self.table.ctypes.data)
        self._patches_at, self._patch_count = int(self.patches.ctypes.data), len(self.patches)
        self._scratch_at = int(self._scratch.ctypes.data)
        self.all = self._whole()

    def _record(self, call: Call, steps: Any) -> Any:
        """The steps of a call; or, when it is no chain of tasks, its launch."""
        launch = call.choice.bind()
        if launch is nothing_to_do:
            return []
        arrays = [None if p is None else self._stand_in(p) for p in (*call.inputs, *call.outputs)]
        if call.choice.kernel is None or call.choice.fallback is not None:
            return launch
        # A launch that computes in Python besides, and so writes now, cannot be steps alone.
        starts = [_first_bytes(array) for array in arrays[len(call.inputs) :]]
        for start in starts:
            start[:] = _UNWRITTEN
        found = steps.record(launch, arrays)
        return found if found and all((start == _UNWRITTEN).all() for start in starts) else launch

    def _stand_in(self, place: Place) -> NDArray[Any]:
        plan, buffer = self._plan, place.buffer
        if buffer.kind in ("arena", "constant"):
            return plan.array_at(place, ())
        return plan._stand_ins.array(_number(place, len(plan.specs)), place.offset, place.spec)

    def _patches(self, step: Any) -> list[tuple[int, int, int]]:
        found = []
        for word in range(step.arrays):
            place = self._plan._stand_ins.find(int(step.block[word]))
            if place is not None:
                found.append((int(step.block.ctypes.data) + 8 * word, *place))
        return found

    def _cut(self, recorded: list[Any]) -> list[Any]:
        """For each call: (first step, number of steps), or its launch."""
        at, cuts = 0, []
        for made in recorded:
            if isinstance(made, list):
                cuts.append((at, len(made)))
                at += len(made)
            else:
                cuts.append(made)
        return cuts

    def _joined(self) -> list[Any]:
        """Runs of steps, (first, count), and numbers of calls that go through Python."""
        segments: list[Any] = []
        for number, cut in enumerate(self._places):
            if not isinstance(cut, tuple):
                segments.append(number)
            elif segments and isinstance(segments[-1], tuple):
                segments[-1] = (segments[-1][0], segments[-1][1] + cut[1])
            else:
                segments.append(cut)
        return segments

    def _whole(self) -> Callable[[tuple[NDArray[Any], ...]], None]:
        """What runs all segments: straight into the compiled call where there is only one."""
        if [type(segment) for segment in self.segments] == [tuple]:
            ((first, count),) = self.segments
            run, team, most = self._run, self._team, self.most_tasks
            table, patches, patch_count = self._table_at + 32 * first, self._patches_at, self._patch_count
            head, scratch = self._tuple_head, self._scratch_at

            def at_once(arrays: tuple[NDArray[Any], ...]) -> None:
                here = team(most) if most > 1 else 0
                run(table, count, patches, patch_count, id(arrays) + head, scratch, here, most)

            return at_once
        return self._in_turn

    def _in_turn(self, arrays: tuple[NDArray[Any], ...]) -> None:
        # What goes through Python may fail, when steps before it have written to donated memory already.
        kept = [(arrays[number], arrays[number].copy()) for number in self._plan.low.donated]
        try:
            for segment in self.segments:
                if isinstance(segment, tuple):
                    self._native(arrays, *segment)
                else:
                    self._through_python(segment, arrays)
        except BaseException:
            for array, before in kept:
                array[...] = before
            raise

    def one(self, number: int, arrays: tuple[NDArray[Any], ...]) -> None:
        """Run a single call."""
        cut = self._places[number]
        if isinstance(cut, tuple):
            self._native(arrays, *cut)
        else:
            self._through_python(number, arrays)

    def _native(self, arrays: tuple[NDArray[Any], ...], first: int, count: int) -> None:
        team = self._team(self.most_tasks) if self.most_tasks > 1 else 0
        given = id(arrays) + self._tuple_head
        table, patches = self._table_at + 32 * first, self._patches_at
        self._run(table, count, patches, self._patch_count, given, self._scratch_at, team, self.most_tasks)

    def _through_python(self, number: int, arrays: tuple[NDArray[Any], ...]) -> None:
        call, launch = self._plan.calls[number], self._places[number]
        places = (*call.inputs, *call.outputs)
        launch(*[None if p is None else self._plan.array_at(p, arrays) for p in places])
