"""compile: a Python function, traced once for each set of specs, and run as a plan from then on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

import numpy as np

from ..kernels import settings
from ..kernels.errors import DeviceError, DonatedError, DTypeError, NonFiniteError, TraceError
from ..kernels.settings import Settings, current
from ..kernels.spec import TensorSpec, extent
from . import passes, tree
from .array import Array
from .eager import overlaps
from .graph import Graph
from .plan import Plan, make_plan
from .trace import active_trace, traced

MOST_PLANS = 64
"""Plans that a compiled function keeps; the one that was not used for longest goes first."""


class DonatedArray(Array):
    """An Array whose memory was given to a compiled function: nothing is left to read."""

    __slots__ = ()

    @property
    def _data(self) -> Any:  # type: ignore[override]
        raise DonatedError(
            "this Array was donated to a compiled function, which has put its results into the same memory; "
            "use the Array that the function returned, or compile it without donate."
        )

    def __repr__(self) -> str:
        return "Array(donated)"


class _Entry:
    """A plan, and how its results become what the function returned.

    Attributes:
        plan: the plan.
        structure: of what the function returns.
        donated: the numbers of the leaves whose memory is given away.
        under, epoch: the settings and the state of kernels and tuning that it was made under.
        taken, fits, run: the structure of positional arguments, the look at their leaves, and the plan's run,
            for quick calls; the structure is None where there were keyword arguments.
        plain: whether the arguments are leaves.
    """

    __slots__ = (
        "donated", "epoch", "fits", "plain", "plan", "run", "single", "structure", "taken", "under",
    )  # fmt: skip

    def __init__(self, plan: Plan, structure: Any, donated: Sequence[int] = (), taken: Any = None):
        from .guard import guard

        self.plan = plan
        self.structure = structure
        self.donated = tuple(donated)
        self.single = structure is tree.LEAF
        self.taken, self.under, self.epoch = taken, current(), settings.epoch
        self.plain = taken is not None and taken.flat
        self.fits = guard(plan.specs, Array, self.donated)
        self.run = plan.quick()


class Compiled:
    """A function that runs as a plan; made by `kw.compile`.

    Attributes:
        traces: how often it was traced.
        graph, plan: those of the latest call: `print(f.graph)`, `print(f.plan)`.
    """

    def __init__(self, function: Callable[..., Any], donate: Collection[int], under: passes.Switches):
        update_wrapper(self, function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.donate = frozenset(donate)
        self.switches = under
        self.traces = 0
        self._latest: Any = None  # an _Entry, or on a GPU a CudaEntry
        self._lock = threading.RLock()
        # Kept here and not in the memo of the settings: they go when the function does.
        self._plans: dict[Settings, OrderedDict[Any, Any]] = {}
        self._epoch = settings.epoch

    @property
    def plan(self) -> Any:
        """The plan of the latest call: a `Plan`, or on a GPU a `CudaPlan`.

        Raises:
            LookupError: before the first call.
        """
        if self._latest is None:
            raise LookupError(f"{self.name} has not been called yet: a plan is made for the first arguments.")
        return self._latest.plan

    @property
    def graph(self) -> Graph:
        """The graph of the latest call, after all passes. Errors as `plan`."""
        graph: Graph = self.plan.graph
        return graph

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        entry = self._latest
        if entry is None or kwargs or _watching or current() is not entry.under:
            return self._slow(args, kwargs)
        if settings.epoch != entry.epoch:
            return self._slow(args, kwargs)
        leaves: Any = args
        if not entry.plain:
            taken: list[Any] = []
            if entry.taken is None or not entry.taken.take(args, taken):
                return self._slow(args, kwargs)
            leaves = tuple(taken)
        try:
            arrays = tuple([x._data for x in leaves])
        except (AttributeError, DeviceError, DonatedError, TraceError):
            return self._slow(args, kwargs)
        if not entry.fits(arrays, leaves):
            return self._slow(args, kwargs)
        # Arrays as in the last call: nothing to work out.
        for number in entry.donated:
            leaves[number].__class__ = DonatedArray
        try:
            results = entry.run(arrays)
        except BaseException:
            _give_back(leaves, entry.donated)
            raise
        return Array(results[0]) if entry.single else entry.structure.unflatten(map(Array, results))

    def _slow(self, args: Any, kwargs: Any) -> Any:
        """A call with new specs, or with anything but Arrays."""
        if active_trace() is not None:
            return self.function(*args, **kwargs)
        latest = self._latest
        if latest is not None and latest.under is None and not (kwargs or _watching):
            made = latest.quick(args)
            if made is not NotImplemented:
                return made
        leaves, structure = tree.flatten((args, kwargs), f"the arguments of {self.name}")
        donated = self._donated(structure.children[0].children)
        if _are_on_gpu(leaves):
            return self._on_gpu(leaves, structure, donated)
        arrays = [_numbers(leaf, self.name) for leaf in leaves]
        specs = tuple(map(TensorSpec.of, arrays))
        _check_donated(self.name, leaves, arrays, donated)
        entry = self._entry(structure, specs, donated)
        self._latest = entry
        return _finished(entry, leaves, arrays)

    def _on_gpu(self, leaves: Sequence[Any], structure: Any, donated: Sequence[int]) -> Any:
        """A call whose arguments are on a GPU."""
        arrays = _gpu().gathered(leaves, self.name, lambda: _paths(structure))
        entry = self._entry(structure, tuple(array.spec for array in arrays), donated)
        self._latest = entry
        return entry.call(leaves, arrays, bool(_watching))

    def _donated(self, args: Sequence[tree.Structure]) -> list[int]:
        """The numbers of the leaves of the donated arguments."""
        found: list[int] = []
        at = 0
        for number, argument in enumerate(args):
            if number in self.donate or number - len(args) in self.donate:
                found += range(at, at + argument.size)
            at += argument.size
        return found

    def _entry(self, structure: Any, specs: tuple[TensorSpec, ...], donated: Sequence[int]) -> Any:
        key = (structure, specs)
        with self._lock:
            if self._epoch != settings.epoch:
                self._plans.clear()
            plans = self._plans.setdefault(current(), OrderedDict())
            entry = plans.get(key)
            if entry is None:
                entry = plans[key] = self._made(structure, specs, donated)
                if len(plans) > MOST_PLANS:
                    plans.popitem(last=False)
            else:
                plans.move_to_end(key)
            # Families of kernels that were loaded meanwhile change nothing for what was planned before.
            for other in plans.values():
                other.epoch = settings.epoch
            self._epoch = settings.epoch
        return entry

    def _made(self, structure: Any, specs: tuple[TensorSpec, ...], donated: Sequence[int]) -> Any:
        self.traces += 1
        graph, result, _ = trace_tree(self.function, structure, specs, self.name)
        graph = passes.run(graph, self.switches)
        positional, named = structure.children
        plan = make_plan(graph, specs, donated)
        kind = _Entry if graph.device == "cpu" else _gpu().CudaEntry
        return kind(plan, result, donated, None if named.children else positional)


def compile(
    function: Callable[..., Any] | None = None,
    *,
    donate: int | Collection[int] = (),
    switches: passes.Switches | None = None,
) -> Any:
    """A function that is traced once for each set of shapes, dtypes and layouts, and then runs as one plan.

    Args:
        function: takes Arrays and trees of them (dicts, lists, tuples, Modules), returns a tree of Arrays.
            It is called with Tracers: what it does besides computing happens once, when it is traced. Arrays
            that it uses from outside are constants of the plan and become read-only.
        donate: the number of the positional arguments, or several, whose memory results may take: parameters
            and optimizer states that the function returns anew. The Arrays given are gone after the call.
        switches: which passes run; all unless given.

    Returns:
        A `Compiled`; a decorator without `function`.

    Raises (when called):
        TraceError: for a function whose course depends on values.
        DTypeError: for an argument that is no tree of Arrays, with its path.
        DonatedError: for a donated Array that is used again, or given twice.
    """
    if function is None:
        return lambda decorated: compile(decorated, donate=donate, switches=switches)
    numbers = (donate,) if isinstance(donate, int) else tuple(donate)
    return Compiled(function, numbers, switches or passes.Switches())


def trace_tree(
    function: Callable[..., Any], structure: Any, specs: Sequence[TensorSpec], name: str, lifts: bool = False
) -> tuple[Graph, Any, list[Array]]:
    """The graph of a function of trees, the structure of its result, and the Arrays that became inputs."""

    def flat(tracers: Sequence[Any]) -> tuple[list[Any], Any]:
        args, kwargs = structure.unflatten(tracers)
        result = function(*args, **kwargs)
        leaves, made = tree.flatten(result, f"what {name} returns")
        return leaves, made

    return traced(flat, specs, _paths(structure), name, lifts)


def _paths(structure: Any) -> list[str]:
    """What the leaves of (args, kwargs) are called."""
    return [_tidy(path) for path in structure.paths("")]


def _tidy(path: str) -> str:
    """`[0][1]['w']`, the path in (args, kwargs), as a name for prints: `arg1['w']`."""
    if path.startswith("[0]["):
        number, _, rest = path[4:].partition("]")
        return f"arg{number}{rest}"
    return path.removeprefix("[1]").removeprefix("['").replace("']", "", 1)


def run_once(function: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Any:
    """Trace a call, run it, and keep the plan by its graph: the same computation is not planned again."""
    leaves, structure = tree.flatten((args, kwargs), f"the arguments of {name}")
    there = _are_on_gpu(leaves)
    arrays: list[Any] = []
    if there:
        arrays += _gpu().gathered(leaves, name, lambda: _paths(structure))
    else:
        arrays += [_numbers(leaf, name) for leaf in leaves]
    specs = tuple(x.spec if there else TensorSpec.of(x) for x in arrays)
    graph, result, lifted = trace_tree(function, structure, specs, name, lifts=True)
    arrays += lifted if there else [x._data for x in lifted]
    specs = tuple(x.spec if there else TensorSpec.of(x) for x in arrays)
    plans = current().memo.setdefault(run_once, OrderedDict())
    key = (graph.key, specs)
    plan = plans.get(key)
    if plan is None:
        plan = plans[key] = make_plan(passes.run(graph, passes.Switches()), specs)
        if len(plans) > MOST_PLANS:
            plans.popitem(last=False)
    if there:
        return _gpu().CudaEntry(plan, result).call(leaves, arrays, bool(_watching))
    return _finished(_Entry(plan, result), leaves, arrays)


def _are_on_gpu(leaves: Sequence[Any]) -> bool:
    """Whether one of the leaves is on a GPU; nothing is imported for those of the CPU."""
    kinds = set(map(type, leaves))
    return not kinds <= _HOST and bool(_gpu().on_gpu(leaves))


_HOST = {Array, DonatedArray, np.ndarray}


def _gpu() -> Any:
    """The module `gpu.entry`, imported by the first call with something that is not on the CPU."""
    from .gpu import entry

    return entry


def _numbers(leaf: Any, name: str) -> Any:
    """The NumPy array of an argument."""
    if isinstance(leaf, Array):
        return leaf._data
    if hasattr(leaf, "mask"):
        raise DTypeError(f"{name}: a masked array would lose its mask; fill it first: x.filled(0).")
    return np.asarray(leaf)


def _check_donated(name: str, leaves: Sequence[Any], arrays: Sequence[Any], donated: Sequence[int]) -> None:
    """Refuse donated memory that somebody else would still see."""
    if not donated:
        return
    given = set(donated)
    reached: list[tuple[int, int]] = []  # the end, and the number, of those that may reach to where we are
    for start, end, number in sorted(_bounds(arrays)):
        reached = [one for one in reached if one[0] > start]
        for _, other in reached:
            if (number in given or other in given) and overlaps(arrays[number], arrays[other]):
                first, second = sorted((number, other))
                raise DonatedError(
                    f"{name}: the same memory is given as leaf {first} and leaf {second} of the "
                    "arguments, and one of them is donated: results would overwrite what is still read. Give "
                    "a copy: x.copy()."
                )
        reached.append((end, number))
    for number in donated:
        if type(leaves[number]) is not Array:
            kind = type(leaves[number]).__name__
            raise DonatedError(
                f"{name}: leaf {number} of the arguments is donated and no Array but a {kind}, which you "
                "could go on using; write kw.array(x)."
            )


def _bounds(arrays: Sequence[Any]) -> list[tuple[int, int, int]]:
    """The first byte, the one behind the last, and the number of each array that has any."""
    found = []
    for number, array in enumerate(arrays):
        if array.size:
            at = array.__array_interface__["data"][0]
            before, after = extent(array.shape, array.strides, array.itemsize)
            found.append((at + before, at + after, number))
    return found


def _may_be_written(array: Any) -> bool:
    """Whether neither an array nor what it is a view of is a constant of some plan, which is read-only."""
    while isinstance(array, np.ndarray):
        if not array.flags.writeable:
            return False
        array = getattr(array.base, "held", array.base)
    return True


def _finished(entry: _Entry, leaves: Sequence[Any], arrays: Sequence[Any]) -> Any:
    """Run a plan, and give what the function returns."""
    plan, donated = entry.plan, entry.donated
    ready = list(arrays)
    for number in donated:
        if not _may_be_written(ready[number]):
            ready[number] = ready[number].copy()
    # First: another thread must not read what is being overwritten.
    for number in donated:
        leaves[number].__class__ = DonatedArray
    try:
        results = _watched(plan, ready, donated) if _watching else plan.run(ready)
    except BaseException:
        _give_back(leaves, donated)
        raise
    return entry.structure.unflatten(map(Array, results))


def _give_back(leaves: Sequence[Any], donated: Sequence[int]) -> None:
    """After a call that failed: its donated Arrays are what they were."""
    for number in donated:
        leaves[number].__class__ = Array


_watching: list[str] = []


@contextmanager
def debug_nans() -> Any:
    """Inside the block, compiled functions stop at the first call that makes NaN or infinity of finite
    numbers.

    Raises (in the block):
        NonFiniteError: naming the op, the line of the user's function and the first bad element. Donated
            arguments keep the numbers that they had.
    """
    _watching.append("nan")
    try:
        yield
    finally:
        _watching.pop()


def _watched(plan: Plan, arrays: list[Any], donated: Sequence[int]) -> list[Any]:
    """`plan.run`, looking at the outputs of each call."""
    before = {number: arrays[number].copy() for number in donated}

    def look(number: int, outputs: list[Any]) -> None:
        node = plan.calls[number].node
        for out in outputs:
            if out.dtype.kind in "iub" or not out.size:
                continue
            fine = np.isfinite(out.astype(np.float64) if out.dtype.kind == "V" else out)
            if not fine.all():
                at = tuple(int(i) for i in np.argwhere(~fine)[0])
                raise NonFiniteError(
                    f"{node.op.name} ({node.where or plan.graph.name}) gave {out[at]} at {list(at)} of "
                    f"{TensorSpec.of(out)}; its inputs: {', '.join(map(str, node.input_specs))}."
                )

    try:
        return plan.run_each(arrays, look)
    except BaseException:
        for number, kept in before.items():
            arrays[number][...] = kept
        raise
