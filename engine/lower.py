"""From a graph to steps: an order, a place for each value, a kernel for each node.

view ops (reshape, transpose, slice, ...) become places and cost nothing
an elementwise op may write over an input that nobody reads afterwards
a result that is all of a buffer makes that buffer an output; any other result is copied
an image that a convolution reads through strides is copied first, where its model says that this pays
on a GPU, what no kernel takes through its strides is copied first
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ..kernels import dispatch
from ..kernels.dispatch import Choice
from ..kernels.op import get_op
from ..kernels.spec import ABSENT, TensorSpec
from .graph import CONSTANT, Graph, Node, Value, dense, make_node
from .memory import Buffer, Place

_NEVER = 1 << 60
# Ops that read an image once for each tap: strides there cost many times what they cost a copy.
_READ_OFTEN = ("conv", "conv_input_grad", "conv_weight_grad")
_COPIED_PER_S = 2e9  # bytes; measured: [8, 64, 64, 3] floats out of [8, 3, 64, 64] at twice that
_HOME = 1 << 16  # bytes: the most of a result that is copied to where an argument was
_LAUNCH_S = 4e-6  # of one more kernel on a GPU, see gpu/replay.py
# Op -> its outputs that the GPU's kernels may write over the input behind the colon: each element is read and
# written by one program. Running statistics so stay where they are from step to step, as parameters do: a
# graph that was captured over their addresses goes on serving.
_UPDATED = {"batch_norm": {3: 3, 4: 4}}


@dataclass(eq=False)
class Call:
    """One kernel call of a plan: what is computed, by what, from where to where.

    On a GPU, calls that follow each other with the same `step` may be one launch; elsewhere each has its own.
    """

    node: Node
    choice: Choice
    inputs: tuple[Place | None, ...]
    outputs: tuple[Place, ...]
    step: int = -1

    @property
    def kernel_id(self) -> str:
        """The kernel's id, or `<op>/reference`."""
        kernel = self.choice.kernel
        return f"{self.node.op.name}/reference" if kernel is None else kernel.id


@dataclass(eq=False)
class Lowered:
    """A graph with places and kernels.

    Attributes:
        graph: the graph.
        calls: in the order in which they run.
        places: of every value.
        outputs: where each result lies.
        buffers: those of the arena.
        constants: the arrays of the buffers of that kind, by number.
        new: the buffers that are allocated for each call.
        donated: the arguments whose memory results may take.
    """

    graph: Graph
    calls: list[Call] = field(default_factory=list)
    places: dict[Value, Place] = field(default_factory=dict)
    outputs: list[Place] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    constants: list[object] = field(default_factory=list)
    new: list[Buffer] = field(default_factory=list)
    donated: Collection[int] = ()


def lowered(graph: Graph, specs: Sequence[TensorSpec], donated: Collection[int] = ()) -> Lowered:
    """Choose an order, places and kernels.

    Args:
        graph: what is computed.
        specs: of the arguments, with their strides.
        donated: numbers of the arguments whose memory may be written.

    Raises:
        NoKernelError: under strict settings, for an op that only its reference could compute.
    """
    return _Lowering(graph, specs, donated).run()


def schedule(graph: Graph, donated: Collection[int]) -> list[Node]:
    """The order of the steps: as traced, but an update of donated memory as soon as nothing else reads it.

    So a gradient's memory is free again right after its parameter's update.
    """
    order = list(graph.steps)
    given = {graph.inputs[i] for i in donated}
    if not given:
        return order
    results = set(graph.outputs)
    at = {node: i for i, node in enumerate(order)}
    roots = _roots(graph)
    users: dict[Value, list[Node]] = {}  # of donated memory, also through views
    for node in order:
        for root in {roots[v] for v in node.inputs if v is not None}:
            users.setdefault(root, []).append(node)
    early: dict[Node, float] = {}
    for node in order:
        if node.op.in_place and any(v in given for v in node.inputs) and results & set(node.outputs):
            made = [at[v.node] for v in node.inputs if v is not None and v.node in at]
            readers = [at[user] for v in node.inputs if v in given for user in users[v] if user is not node]
            ready = max([-1, *made, *readers])
            if ready < at[node]:
                early[node] = ready + 0.5
    return sorted(order, key=lambda node: (early.get(node, at[node]), at[node]))


class _Lowering:
    def __init__(self, graph: Graph, specs: Sequence[TensorSpec], donated: Collection[int]):
        self.result = Lowered(graph, donated=frozenset(donated))
        self.graph = graph
        self.places = self.result.places
        self.copies: dict[Value, Place] = {}
        self.order, self.steps = _ordered(graph, donated)
        self.roots = _roots(graph)
        self.last = self._last_uses()
        self.readers: dict[tuple[int, Value], list[Node]] | None = None
        for number, (value, spec) in enumerate(zip(graph.inputs, specs, strict=True)):
            can_write = number in donated and spec.layout is None
            buffer = Buffer("input", spec.nbytes, number, -1, _NEVER, writable=can_write)
            self.places[value] = Place(buffer, 0, spec)

    def _last_uses(self) -> dict[Value, int]:
        """Of each root, the last step that reads it or a view of it."""
        last: dict[Value, int] = {}
        for node in self.order:
            step = self.steps[node]
            for value in node.inputs:
                if value is not None:
                    last[self.roots[value]] = step
            for value in node.outputs:
                last.setdefault(self.roots[value], step)
        for value in self.graph.outputs:
            last[self.roots[value]] = _NEVER
        return last

    def run(self) -> Lowered:
        for node in self.graph.nodes:
            if node.op is CONSTANT:
                self._constant(node)
        for node in self.order:
            if node.outputs[0] not in self.places and not self._view(node):
                self._call(self.steps[node], node)
        homes = {} if self.graph.device == "cpu" else self._homes()
        for number, value in enumerate(self.graph.outputs):
            home = homes.get(number)
            self.result.outputs.append(
                self._output(value) if home is None else self._copied(value, self.places[value], home, "copy")
            )
        self._lifetimes()
        return self.result

    def _constant(self, node: Node) -> None:
        array, device = node.attrs["data"].array, node.attrs["data"].device
        number = len(self.result.constants)
        self.result.constants.append(array)
        buffer = Buffer("constant", array.nbytes, number, -1, _NEVER, writable=False)
        if device == "cpu":
            spec = TensorSpec.of(array)
        else:
            from .gpu.memory import constant_spec

            spec = constant_spec(array, device)
        self.places[node.outputs[0]] = Place(buffer, 0, spec)

    def _view(self, node: Node) -> bool:
        """Whether the node's output is a view of its input."""
        if node.op.view is None or node.inputs[0] is None:
            return False
        source = self.places[node.inputs[0]]
        found = node.op.view(source.spec, **node.attrs)
        if found is None or (self.graph.device != "cpu" and min(found[2], default=0) < 0):
            return False  # torch has no tensors that run backwards
        self.places[node.outputs[0]] = source.viewed(*found)
        return True

    def _call(self, step: int, node: Node) -> None:
        inputs = tuple(None if v is None else self.places[v] for v in node.inputs)
        if node.op.name in _READ_OFTEN:
            inputs = self._without_strides(step, node, inputs)
        taken: set[Buffer] = set()
        outputs = []
        for number, value in enumerate(node.outputs):
            buffer = self._reused(step, node, value, inputs, taken)
            buffer = buffer or self._updated(step, node, number, inputs)
            if buffer is None:
                buffer = Buffer("arena", value.spec.nbytes, first=step, last=step, label=node.op.name)
                self.result.buffers.append(buffer)
            taken.add(buffer)
            self.places[value] = Place(buffer, 0, value.spec)
            outputs.append(self.places[value])
        choice, inputs = self._chosen(step, node, inputs, [p.spec for p in outputs])
        if self.graph.device != "cpu":
            choice, outputs = self._laid_out(node, choice, inputs, outputs)
        self.result.calls.append(Call(node, choice, inputs, tuple(outputs), step))

    def _laid_out(
        self, node: Node, choice: Choice, inputs: Sequence[Place | None], outputs: list[Place]
    ) -> tuple[Choice, list[Place]]:
        """The call with its outputs where their readers want them, if the same kernel writes them so."""
        from .gpu.layouts import destination

        wanted = destination(self.graph, node)
        if wanted is None or choice.kernel is None:
            return choice, outputs
        specs = [ABSENT if p is None else p.spec for p in inputs]
        places = [
            one if to is None else Place(one.buffer, *to)
            for one, to in zip(outputs, wanted.places, strict=True)
        ]
        other = dispatch.choose(node.op, (*specs, *(p.spec for p in places)), node.attrs)
        if other.kernel is not choice.kernel:
            return choice, outputs
        if wanted.whole is not None:
            whole = wanted.whole.outputs[0]
            buffer = Buffer("arena", whole.spec.nbytes, label="concat")
            for one in outputs:
                self.result.buffers.remove(one.buffer)
            self.result.buffers.append(buffer)
            self.places[whole] = Place(buffer, 0, whole.spec)
            places = [Place(buffer, place.offset, place.spec) for place in places]
        self.places.update(zip(node.outputs, places, strict=True))
        return other, places

    def _chosen(
        self, step: int, node: Node, inputs: tuple[Place | None, ...], outputs: Sequence[TensorSpec]
    ) -> tuple[Choice, tuple[Place | None, ...]]:
        """The kernel of a call, and its inputs, on a GPU perhaps as row-major copies."""
        specs = [ABSENT if p is None else p.spec for p in inputs]
        choice = dispatch.choose(node.op, (*specs, *outputs), node.attrs)
        strided = [i for i, spec in enumerate(specs) if spec.present and spec.layout is not None]
        if choice.kernel is not None or not strided or self.graph.device == "cpu":
            return choice, inputs
        for i in strided:
            specs[i] = dense(specs[i])
        other = dispatch.choose(node.op, (*specs, *outputs), node.attrs)
        if other.kernel is None:
            return choice, inputs  # which says what was wrong with the call as it is
        places = list(inputs)
        for i in strided:
            value, place = node.inputs[i], places[i]
            assert value is not None
            assert place is not None
            places[i] = self._row_major(step, value, place)
        return other, tuple(places)

    def _row_major(self, step: int, value: Value, place: Place) -> Place:
        """The place of a row-major copy of a value, made now or before."""
        if value not in self.copies:
            buffer = Buffer("arena", value.spec.nbytes, first=step, last=step, label="copy")
            self.result.buffers.append(buffer)
            self.copies[value] = self._copied(value, place, buffer)
        return self.copies[value]

    def _without_strides(
        self, step: int, node: Node, inputs: tuple[Place | None, ...]
    ) -> tuple[Place | None, ...]:
        """The places of a step's inputs, of which one may be that of a copy made now or before."""
        for i, (value, place) in enumerate(zip(node.inputs, inputs, strict=True)):
            if value is None or place is None or place.spec.layout is None:
                continue
            if place.buffer.kind == "constant":
                continue  # prepacked where that pays
            cost = 0.0 if value in self.copies else _copying_s(value.spec)
            specs = [ABSENT if p is None else p.spec for p in inputs]
            outputs = [v.spec for v in node.outputs]
            now = _predicted(node, (*specs, *outputs))
            specs[i] = value.spec
            then = _predicted(node, (*specs, *outputs))
            if now is None or then is None or then + cost >= now:
                continue
            return (*inputs[:i], self._row_major(step, value, place), *inputs[i + 1 :])
        return inputs

    def _reused(
        self,
        step: int,
        node: Node,
        output: Value,
        inputs: Sequence[Place | None],
        taken: Collection[Buffer],
    ) -> Buffer | None:
        """An input's buffer that the output may take: nobody reads it after this step."""
        if not node.op.in_place:
            return None
        able = []
        for value, place in zip(node.inputs, inputs, strict=True):
            if value is None or place is None or place.buffer in taken or not place.buffer.writable:
                continue
            if not place.is_whole or not _same_places(place.spec, output.spec):
                continue
            if self.last[self.roots[value]] > step or place.buffer.kind == "constant":
                continue
            if self._is_read_beside(step, node, self.roots[value]):
                continue
            others = [p for p in inputs if p is not None and p is not place and p.buffer is place.buffer]
            # The same memory seen in another shape would be read after it was written.
            if all(p.is_whole and p.spec is place.spec for p in others):
                able.append(place.buffer)
        if not able:
            return None
        # A result takes an argument's memory, what stays inside takes the arena's.
        first = "input" if self.last[self.roots[output]] == _NEVER else "arena"
        return next((b for b in able if b.kind == first), None if first == "arena" else able[0])

    def _updated(self, step: int, node: Node, number: int, inputs: Sequence[Place | None]) -> Buffer | None:
        """The donated argument that an output is the new value of, where the kernels can write over it."""
        source = _UPDATED.get(node.op.name, {}).get(number)
        if source is None or self.graph.device == "cpu":
            return None
        value, place = node.inputs[source], inputs[source]
        if value is None or place is None or place.buffer.kind != "input" or not place.buffer.writable:
            return None
        alone = sum(p is not None and p.buffer is place.buffer for p in inputs) == 1
        fits = place.is_whole and _same_places(place.spec, node.outputs[number].spec)
        is_last = self.last[self.roots[value]] <= step and self.last[node.outputs[number]] == _NEVER
        return place.buffer if alone and fits and is_last else None

    def _is_read_beside(self, step: int, node: Node, root: Value) -> bool:
        """Whether another call of the same launch reads a value or a view of it."""
        if self.graph.device == "cpu":
            return False
        if self.readers is None:
            self.readers = {}
            for other in self.order:
                for read in {self.roots[v] for v in other.inputs if v is not None}:
                    self.readers.setdefault((self.steps[other], read), []).append(other)
        return any(other is not node for other in self.readers.get((step, root), ()))

    def _output(self, value: Value) -> Place:
        """Where a result lies: in a buffer of its own that the caller gets."""
        place = self.places[value]
        buffer = place.buffer
        used = [p.buffer for p in self.result.outputs]
        if place.is_whole and buffer not in used:
            if buffer.kind == "arena":
                return self._handed_out(place)
            if buffer.kind == "input" and buffer.writable:
                return place
        return self._copy(value, place)

    def _homes(self) -> dict[int, Buffer]:
        """Results that are copied to donated memory which nothing has taken, by their numbers.

        A small state that an op writes beside the old one, such as the statistics of a batch norm, would move
        at every call of a plan on a GPU, and no captured graph would know where it is. The results and the
        arguments that are left go together in their order, so that each stays where it is.
        """
        outputs, free = self.graph.outputs, []
        used = {self.places[v].buffer for v in outputs if self.places[v].is_whole}
        used |= {self.places[self.roots[v]].buffer for v in outputs if self.roots[v] in self.places}
        for number in sorted(self.result.donated):
            place = self.places[self.graph.inputs[number]]
            if place.buffer.writable and place.buffer not in used and place.spec.nbytes <= _HOME:
                free.append(place)
        homes = {}
        for number, value in enumerate(outputs):
            if self.places[value].buffer.kind != "arena" or outputs.count(value) > 1:
                continue
            fitting = next((place for place in free if place.spec is value.spec), None)
            if fitting is not None:
                free.remove(fitting)
                homes[number] = fitting.buffer
        return homes

    def _handed_out(self, place: Place) -> Place:
        buffer = place.buffer
        buffer.kind, buffer.number = "output", len(self.result.new)
        self.result.buffers.remove(buffer)
        self.result.new.append(buffer)
        return place

    def _copy(self, value: Value, place: Place) -> Place:
        """A copy of a result that is part of something else, or in memory that is not to be handed out."""
        buffer = Buffer("output", value.spec.nbytes, len(self.result.new), label="copy")
        self.result.new.append(buffer)
        return self._copied(value, place, buffer)

    def _copied(self, value: Value, place: Place, buffer: Buffer, name: str = "transpose") -> Place:
        """A call that copies a value, row-major, into a buffer of its size.

        Those by the op `copy`, which come at the end, may be one launch.
        """
        op = get_op(name)
        attrs = {"axes": tuple(range(value.spec.ndim))} if name == "transpose" else {}
        to = Place(buffer, 0, value.spec)
        node = make_node(op, (value,), attrs, value.node.where)
        choice = dispatch.choose(op, (place.spec, to.spec), attrs)
        step = len(self.order) if name == "copy" else -1
        self.result.calls.append(Call(node, choice, (place,), (to,), step))
        return to

    def _lifetimes(self) -> None:
        """From the calls, when each buffer of the arena is in use."""
        time = -1
        for number, made in enumerate(self.result.calls):
            together = number and made.step >= 0 and made.step == self.result.calls[number - 1].step
            step = time = time if together else time + 1
            for place in made.outputs:
                if place.buffer.kind == "arena" and not any(
                    p is not None and p.buffer is place.buffer for p in made.inputs
                ):
                    place.buffer.first = step
                    place.buffer.last = step
            for used in (*made.inputs, *made.outputs):
                if used is not None and used.buffer.kind == "arena":
                    used.buffer.last = max(used.buffer.last, step)


def _ordered(graph: Graph, donated: Collection[int]) -> tuple[list[Node], dict[Node, int]]:
    """The order of the steps, and the number of each."""
    if graph.device != "cpu":
        from .gpu.many import ordered

        return ordered(graph, donated)
    order = schedule(graph, donated)
    return order, {node: step for step, node in enumerate(order)}


def _predicted(node: Node, specs: Sequence[TensorSpec]) -> float | None:
    """Seconds that the kernel chosen for a call should take; None where no model says."""
    choice = dispatch.choose(node.op, specs, node.attrs)
    if choice.kernel is None or choice.fallback is not None:
        return None
    return choice.kernel.predict(choice.specs, choice.attrs, choice.config, choice.threads)


def _copying_s(spec: TensorSpec) -> float:
    """Seconds that a copy of an array should take."""
    if spec.device == "cpu":
        return spec.nbytes / _COPIED_PER_S
    from ..kernels.cuda.device import facts

    return 2 * spec.nbytes / facts(spec.device).bandwidth + _LAUNCH_S


def _same_places(x: TensorSpec, y: TensorSpec) -> bool:
    """Whether two row-major arrays have their elements at the same places, where one broadcasts with the
    other: they may differ in leading axes of length 1.
    """
    if x is y or x.dtype != y.dtype or x.size != y.size:
        return x is y
    rank = max(x.ndim, y.ndim)
    return (1,) * (rank - x.ndim) + x.shape == (1,) * (rank - y.ndim) + y.shape


def _roots(graph: Graph) -> dict[Value, Value]:
    """For each value, the one whose memory it may be a view of: itself, where no view op made it."""
    roots: dict[Value, Value] = {}
    for node in graph.nodes:
        for value in node.outputs:
            source = node.inputs[0] if node.op.view is not None and node.inputs else None
            roots[value] = value if source is None else roots[source]
    for value in graph.inputs:
        roots.setdefault(value, value)
    return roots
