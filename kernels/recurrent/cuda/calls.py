"""The calls of the recurrent ops as chains of launches in CUDA C++: which tensor is what, what runs when.

    forward    prepare | product of the input | steps
    backward   prepare | states before each step | steps | biases | products: dx, dw_ih, dw_hh

The struct of each launch is packed here, in the order of its fields in `*.cu`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda.chain import ChainLaunch, Part, Place, product
from ...cuda.code_launch import CodeLaunch, CodeStep
from ...cuda.device import facts
from ...cuda.source import Code
from ...cuda.step import Workspace, element_strides
from ...op import Attrs, Specs, get_op
from ...spec import ABSENT, TensorSpec
from .teams import TYPES, Shape, Team

FILES = ("recurrent/cuda/team.cuh",)
OUTPUTS = {
    "lstm": ("y", "h_n", "c_n", "gates_out", "cells_out"),
    "gru": ("y", "h_n", "gates_out"),
    "rnn": ("y", "h_n"),
    "lstm_grad": ("dx", "dh0", "dc0", "dw_ih", "dw_hh", "db_ih", "db_hh"),
    "gru_grad": ("dx", "dh0", "dw_ih", "dw_hh", "db_ih", "db_hh"),
    "rnn_grad": ("dx", "dh0", "dw_ih", "dw_hh", "db_ih", "db_hh"),
}
THREADS = 256
_BLOCKS_A_MULTIPROCESSOR = 8  # of the elementwise launches: 2048 threads


@dataclass(frozen=True)
class Call:
    """A call of `lstm`, `gru`, `rnn` or a gradient of theirs.

    Attributes:
        op: its name.
        specs: of inputs and outputs.
        attrs: complete.
    """

    op: str
    specs: Specs
    attrs: Attrs

    @property
    def kind(self) -> str:
        """`"lstm"`, `"gru"` or `"rnn"`."""
        return self.op.partition("_")[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the call's tensors."""
        inputs = get_op(self.op).inputs
        return (*inputs, *OUTPUTS[self.op][: len(self.specs) - len(inputs)])

    def place(self, name: str) -> int | None:
        """Which tensor of the call that is; None when it is not there."""
        place = self.names.index(name) if name in self.names else None
        return place if place is not None and self.specs[place].present else None

    def spec(self, name: str) -> TensorSpec:
        """Its spec."""
        place = self.place(name)
        return ABSENT if place is None else self.specs[place]

    @property
    def shape(self) -> Shape:
        """What the steps compute."""
        x, w = self.spec("x"), self.spec("w_hh")
        t, b = x.shape[:2] if not self.attrs["batch_first"] else (x.shape[1], x.shape[0])
        heads = w.shape[0] if w.ndim == 3 else 1
        return Shape(self.kind, x.dtype, self.op.endswith("_grad"), t, b, heads, w.shape[-1])

    def steps(self, name: str) -> tuple[int, ...]:
        """In elements; [t, b, ...] where it lies over time, zeros where it is not there."""
        spec = self.spec(name)
        if not spec.present:
            return (0, 0, 0)
        steps = element_strides(spec)
        over_time = ("x", "y", "gates", "cells", "gates_out", "cells_out", "dy", "dx", "resets")
        if self.attrs["batch_first"] and name in over_time:
            return (steps[1], steps[0], *steps[2:])
        return steps

    def ordered(self, t: int, b: int) -> tuple[int, int]:
        """(t, b) in the order of the first two axes of x."""
        return (b, t) if self.attrs["batch_first"] else (t, b)

    def dense(self, width: int) -> tuple[int, int]:
        """Steps along t and b of an array [.., .., width] of our own, its first two axes those of x."""
        s = self.shape
        return (width, s.steps * width) if self.attrs["batch_first"] else (s.batch * width, width)

    def of_heads(self, spec: TensorSpec) -> tuple[int, int, int]:
        """Steps of w_hh, from head to head first."""
        steps = element_strides(spec)
        return steps if spec.ndim == 3 else (0, *steps)  # type: ignore[return-value]


def _type(dtype: str) -> str:
    return TYPES[dtype]


def _kind(shape: Shape, attrs: Attrs) -> str:
    end = "Back" if shape.backward else ""
    if shape.kind == "rnn":
        return f"Rnn{end}<{'true' if attrs['nonlinearity'] == 'relu' else 'false'}>"
    return shape.kind.capitalize() + end


def _many(team: Team) -> str:
    return "true" if team.turns > 1 else "false"


def _elementwise(
    call: Call, name: str, argument: str, places: Sequence[Place], values: tuple[int, ...], work: int
) -> Part:
    """A launch of one of `prepare.cu`, so many threads wide at most."""
    dtype = call.spec("x").dtype
    types = _type(dtype) + (f", {_type(dtype)}" if name == "prepare" else "")
    code = Code(
        name=f"kw_recurrent_{name}",
        files=("recurrent/cuda/prepare.cu",),
        call=f"recurrent_{name}<{types}>",
        argument=argument,
        threads=THREADS,
        shared=0,
    )
    most = _BLOCKS_A_MULTIPROCESSOR * facts(call.specs[0].device).multiprocessors
    blocks = max(1, min(ceil_div(work, THREADS), most))
    step = CodeStep(code, blocks, tuple(None if p is None else i for i, p in enumerate(places)), values)
    return Part(CodeLaunch(call.specs, lambda aligned: step), tuple(places))


@dataclass(frozen=True)
class Weights:
    """w_hh as the product reads it: where it is, the steps from head to head and from row to row."""

    place: Place
    head: int
    row: int
    made: bool


def _weights(call: Call, aligned: bool) -> Weights:
    """As it lies where each row is contiguous, aligned, and ends with a block of k; else written anew."""
    s, spec = call.shape, call.spec("w_hh")
    head, row, column = call.of_heads(spec)
    vector = 16 // s.size
    if not s.backward and aligned and column == 1 and s.k == s.units and not (row % vector or head % vector):
        return Weights(call.place("w_hh"), head, row, False)
    rows = s.units if s.backward else s.gates * s.units
    return Weights(Workspace((s.heads, rows, s.k), s.dtype), rows * s.k, s.k, True)


def _prepare(call: Call, shown: Workspace, w: Weights) -> Part:
    s, spec = call.shape, call.spec("w_hh")
    turned = s.backward
    h0 = (0, 0) if turned else call.steps("h0")[:2]
    values = (
        *(s.steps, s.batch, s.heads, s.units, s.k, s.used, 0 if turned else 1, *h0),
        *(s.units if turned else s.gates * s.units, s.k, s.gates, s.apart, int(turned), *call.of_heads(spec)),
    )
    places = (shown, w.place if w.made else None, call.place("w_hh"), None if turned else call.place("h0"))
    vectors = s.steps * s.batch * s.heads * s.k * s.size // 16
    return _elementwise(call, "prepare", "Prepare", places, values, vectors)


def _steps(
    call: Call,
    team: Team,
    template: str,
    argument: str,
    places: Sequence[Place],
    values: Callable[[int], Any],
) -> list[Part]:
    """The cooperative launches of a team, `values(first team)` each."""
    code = Code(
        name=f"kw_{template.partition('<')[0]}",
        files=(*FILES, f"recurrent/cuda/{argument.lower()}.cu"),
        call=template,
        argument=argument,
        threads=32 * team.warps,
        shared=team.shared,
        together=True,
    )
    pointers = tuple(None if place is None else i for i, place in enumerate(places))
    parts = []
    for first, count in team.rounds(facts(call.specs[0].device)):
        step = CodeStep(code, count * team.unit_blocks, pointers, values(first))
        parts.append(Part(CodeLaunch(call.specs, lambda aligned, step=step: step), tuple(places)))  # type: ignore[misc]
    return parts


def _sizes(call: Call, team: Team, first: int) -> tuple[int, ...]:
    s = call.shape
    reverse = int(call.attrs["reverse"])
    blocks = (team.unit_blocks, team.tiles, team.groups, team.turns, first, team.shared_blocks, reverse)
    return (s.steps, s.batch, s.heads, s.units, s.k, *blocks)


def _between_gates(call: Call, name: str) -> tuple[int, int]:
    """Hidden units of all heads, and elements from gate to gate of what a forward call saved."""
    hidden = call.shape.heads * call.shape.units
    return hidden, hidden * call.steps(name)[2]


def forward(call: Call, team: Team) -> ChainLaunch:
    """`lstm`, `gru`, `rnn`."""

    def make(aligned: bool) -> list[Part]:
        s, x = call.shape, call.spec("x")
        wide, row = s.gates * s.heads * s.units, s.heads * s.k
        shown, of_x = Workspace((s.steps, s.batch, row), s.dtype), Workspace((*x.shape[:2], wide), s.dtype)
        w = _weights(call, aligned)
        names = ("y", "h_n", "c_n", "gates_out", "cells_out")
        places = (
            *(
                shown,
                w.place,
                of_x,
                *(call.place(name) for name in ("b_hh", "h0", "c0", "lengths", "resets")),
            ),
            *(call.place(name) for name in names),
        )

        def values(first: int) -> tuple[int, ...]:
            widths = {"y": 3, "h_n": 2, "c_n": 2, "gates_out": 3, "cells_out": 3}
            return (
                *_sizes(call, team, first),
                *(w.head, w.row, s.batch * row, row, *call.dense(wide), call.steps("b_hh")[0]),
                *(*call.steps("h0")[:2], *call.steps("c0")[:2], call.steps("lengths")[0]),
                *call.steps("resets")[:2],
                *(step for name in names for step in call.steps(name)[: widths[name]]),
                *_between_gates(call, "gates_out"),
            )

        train = "true" if call.attrs.get("train") else "false"
        kinds = f"{_type(s.dtype)}, {_kind(s, call.attrs)}"
        template = f"recurrent_forward<{kinds}, {team.product()}, {_many(team)}, {train}>"
        parts = [_prepare(call, shown, w)] if s.steps * s.batch or w.made else []
        if s.steps * s.batch:
            out = TensorSpec(of_x.shape, s.dtype, x.device)
            specs = (x, call.spec("w_ih"), call.spec("b_ih"), ABSENT, out)
            inputs = (call.place("x"), call.place("w_ih"), call.place("b_ih"), None, of_x)
            parts.append(product("linear", specs, {}, inputs))
        return [*parts, *_steps(call, team, template, "Forward", places, values)]

    return ChainLaunch(call.specs, make)


@dataclass(frozen=True)
class Gradients:
    """Where the gradients of the gates lie after the steps: as x sees them, and as h does."""

    shown: Workspace
    dx: Workspace | None
    dh: Workspace | None
    sums: Workspace

    @classmethod
    def of(cls, call: Call, team: Team) -> Gradients:
        """For a call: memory of their own only where what the blocks show has another order."""
        s, lead = call.shape, call.spec("x").shape[:2]
        odd = s.apart != s.units
        wide = s.gates * s.heads * s.units
        count = 4 if s.kind == "gru" else s.gates
        return cls(
            Workspace((*lead, s.heads, s.k), s.dtype),
            Workspace((*lead, wide), s.dtype) if s.apart_from_shown else None,
            Workspace((*lead, wide), s.dtype) if odd else None,
            Workspace((team.groups, count, s.heads * s.units), "float32"),
        )


def backward(call: Call, team: Team) -> ChainLaunch:
    """Their gradients."""

    def make(aligned: bool) -> list[Part]:
        w, d = _weights(call, aligned), Gradients.of(call, team)
        parts = [_prepare(call, d.shown, w), *_backward_steps(call, team, w, d), _biases(call, team, d)]
        return [*parts, *_products(call, d)]

    return ChainLaunch(call.specs, make)


def _backward_steps(call: Call, team: Team, w: Weights, d: Gradients) -> list[Part]:
    s = call.shape
    wide = s.gates * s.heads * s.units
    inputs = ("gates", "cells", "y", "h0", "c0", "dy", "dh_n", "dc_n", "lengths", "resets")
    places = (
        *(d.shown, w.place, *(call.place(name) for name in inputs), d.dx, d.dh),
        *(call.place("dh0"), call.place("dc0"), d.sums),
    )
    over_time, states = ("gates", "cells", "y"), ("h0", "c0")

    def values(first: int) -> tuple[int, ...]:
        def steps(names: Sequence[str], axes: int) -> list[int]:
            return [step for name in names for step in call.steps(name)[:axes]]

        return (
            *_sizes(call, team, first),
            *(s.apart, w.head, w.row, *call.dense(s.heads * s.k), call.steps("lengths")[0]),
            *(*call.steps("resets")[:2], *call.dense(wide), *call.dense(wide)),
            *(*steps(over_time, 3), *steps(states, 2), *steps(("dy",), 3)),
            *(*steps(("dh_n", "dc_n", "dh0", "dc0"), 2), *_between_gates(call, "gates")),
        )

    apart = "true" if s.apart_from_shown else "false"
    kinds = f"{_type(s.dtype)}, {_kind(s, call.attrs)}"
    template = f"recurrent_backward<{kinds}, {team.product()}, {_many(team)}, {apart}>"
    return _steps(call, team, template, "Backward", places, values)


def _biases(call: Call, team: Team, d: Gradients) -> Part:
    s = call.shape
    hidden, sums = s.heads * s.units, d.sums.shape[1]
    values = (team.groups, hidden, s.gates, sums, call.steps("db_ih")[0], call.steps("db_hh")[0])
    places = (d.sums, call.place("db_ih"), call.place("db_hh"))
    return _elementwise(call, "biases", "Biases", places, values, sums * hidden)


def _products(call: Call, d: Gradients) -> list[Part]:
    """What follows the steps: dx, dw_ih and dw_hh, and what these read."""
    s, x = call.shape, call.spec("x")
    size, device = s.size, x.device
    n, hidden = s.steps * s.batch, s.heads * s.units
    wide = s.gates * hidden

    def view(shape: tuple[int, ...], steps: tuple[int, ...]) -> TensorSpec:
        return TensorSpec(shape, s.dtype, device, tuple(step * size for step in steps))

    def gives(op_inputs: Sequence[tuple[TensorSpec, Place]], name: str) -> list[Part]:
        out = call.spec(name)
        if not out.size:
            return []
        specs = (*(spec for spec, _ in op_inputs), out)
        return [product("matmul", specs, {}, (*(place for _, place in op_inputs), call.place(name)))]

    at, row = (d.dx, wide) if d.dx else (d.shown, s.k)
    first, second = x.shape[:2]
    d_rows = view((first, second, wide), (second * row, row, 1)), at
    d_columns = view((wide, n), (1, row)), at
    parts = gives([d_rows, (call.spec("w_ih"), call.place("w_ih"))], "dx")
    gathered, joined = _joined_x(call)
    parts += [*gathered, *gives([d_columns, joined], "dw_ih")]
    states = Workspace((*x.shape[:2], hidden), s.dtype)
    parts.append(_states_before(call, states))
    at, head, row = (d.dh, s.gates * s.units, wide) if d.dh else (d.shown, s.k, s.heads * s.k)
    rows = s.gates * s.units
    if call.spec("w_hh").ndim == 3:
        of_d = view((s.heads, rows, n), (head, 1, row))
        of_h = view((s.heads, n, s.units), (s.units, hidden, 1))
    else:
        of_d, of_h = view((rows, n), (1, row)), view((n, s.units), (hidden, 1))
    return [*parts, *gives([(of_d, at), (of_h, states)], "dw_hh")]


def _joined_x(call: Call) -> tuple[list[Part], tuple[TensorSpec, Place]]:
    """x with its first two axes as one: as it lies, or gathered first."""
    s, x = call.shape, call.spec("x")
    outer, inner, step = element_strides(x)
    first, second, width = x.shape
    n = first * second
    if first <= 1 or second <= 1 or outer == second * inner:
        row = outer if second <= 1 else inner
        return [], (TensorSpec((n, width), s.dtype, x.device, (row * s.size, step * s.size)), call.place("x"))
    memory = Workspace((n, width), s.dtype)
    values = (first, second, width, outer, inner, step)
    part = _elementwise(call, "gather", "Gather", (call.place("x"), memory), values, n * width)
    return [part], (TensorSpec((n, width), s.dtype, x.device), memory)


def _states_before(call: Call, states: Workspace) -> Part:
    s = call.shape
    hidden = s.heads * s.units
    values = (
        *(s.steps, s.batch, hidden, int(call.attrs["reverse"]), *call.steps("y"), *call.steps("h0")[:2]),
        *(call.steps("lengths")[0], *call.steps("resets")[:2], *call.dense(hidden)),
    )
    places = (*(call.place(name) for name in ("y", "h0", "lengths", "resets")), states)
    return _elementwise(call, "before", "Before", places, values, s.steps * s.batch * hidden)


MAKERS: Mapping[bool, Callable[[Call, Team], ChainLaunch]] = {False: forward, True: backward}
