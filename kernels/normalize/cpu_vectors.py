"""Norms and their gradients on the CPU: rows, groups and channels swept while they are in the cache.

    layer, RMS, group      a row is read once from memory: mean, squares, y; threads share the rows
    batch, [N, C, ...]     so is a channel; threads share the channels
    batch, [N, ..., C]     vectors run across channels. Where that is much memory: pieces of some rows give
                           mean and squares, these are merged, and then y is written: it is read twice
    gradients              likewise; what a layer norm's weight gets is summed up by each task for itself and
                           then over tasks

`emit.py` says what happens in a row, `kernels/reduce/staged.py` writes the loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..cpu.generate import address_of
from ..cpu.launch import bind_phases
from ..kernel import Config, Launch
from ..op import Attrs, Specs
from ..reduce.lanes import computed_bytes, computed_dtype
from ..reduce.staged import MOST_AXES, Operand, block_of, plan
from ..registry import kernel
from ..spec import TensorSpec, row_major
from . import emit
from .form import Form
from .op import FLOATS, OPS, form_of

# Bytes of x for which another thread pays: about 5 us of three sweeps.
WORTH_A_THREAD = 1 << 17
# From so many bytes of x on, channels that come last are reduced in pieces.
WORTH_PIECES = 1 << 18
# Rows of a piece, at most: with 256 channels in float32 they fill half of a small second cache.
PIECE_ROWS = 128
Roles = dict[str, Operand]
_STATISTICS = ("mean", "rstd", "running_mean", "running_var", "new_running_mean", "new_running_var")
_PARAMETERS = ("weight", "bias", "dweight", "dbias")


class Phases:
    """The phases of a launch, one after the other, with one block and one scratch."""

    def __init__(self, name: str, specs: Specs, form: Form, threads: int):
        op = OPS[name]
        self.specs, self.form, self.arrays = specs, form, len(specs)
        x = specs[op.inputs.index("x")]
        self.stored, self.dtype = x.dtype, computed_dtype(x.dtype)
        self.tasks = max(1, min(threads, x.nbytes // WORTH_A_THREAD))
        self.parts: list[list[int]] = []
        self.table: list[tuple[Callable[..., None], tuple[Any, ...], int]] = []
        self.scratch = 0
        self.fits = True

    def room(self, shape: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """(bytes from the scratch's start, byte steps) of new numbers there."""
        size = computed_bytes(self.stored)
        at, steps = self.scratch, row_major(tuple(shape), size)
        count = size
        for length in shape:
            count *= length
        self.scratch += -(-count // 64) * 64
        return at, steps

    def add(
        self,
        emitter: Callable[..., None],
        shape: Sequence[int],
        reduced: Sequence[int],
        operands: Mapping[str, Operand],
        numbers: Sequence[float] = (),
        *,
        before: tuple[Any, ...] = (),
        words: Sequence[int] = (),
        tasks: int | None = None,
        columns: bool = True,
    ) -> None:
        """One more phase; `words` follow its numbers, `before` comes first in its emitter's key."""
        if not self.fits:
            return
        first = self.arrays + 1 + sum(map(len, self.parts))
        found = plan(
            tuple(shape),
            tuple(reduced),
            list(operands.values()),
            self.arrays,
            numbers,
            first=first,
            tasks=self.tasks if tasks is None else tasks,
            columns=columns,
        )
        if found is None:
            self.fits = False
            return
        key = (self.dtype, tuple(operands), *before, *found.key)
        self.parts.append([*found.words, *words])
        # Compiled by `launch`: whether a call is supported is asked more often than it is bound.
        self.table.append((emitter, key, found.words[0]))

    def launch(self, name: str) -> Launch:
        """All phases, ready to run."""
        phases = [
            (address_of(emitter, key, f"{name} {emitter.__name__} {self.stored}"), tasks)
            for emitter, key, tasks in self.table
        ]
        return bind_phases(block_of(self.arrays, *self.parts), self.arrays, phases, self.scratch)


def _steps(form: Form, kind: str, role: str, spec: TensorSpec) -> tuple[int, ...]:
    """The byte steps of an operand along the axes of the form's view."""
    strides, axes = spec.strides, len(form.view)
    if role not in _STATISTICS and role not in _PARAMETERS:
        if kind != "group":
            return strides
        return (strides[0], strides[1] * form.view[2], strides[1], *strides[2:])
    if kind == "layer":
        none = (0,) * (axes - len(strides))
        return (*strides, *none) if role in _STATISTICS else (*none, *strides)
    if kind == "group":
        rest = (0,) * (axes - 2)
        if role in _STATISTICS:
            return (*strides, *rest)
        return (0, strides[0] * form.view[2], strides[0], *rest[1:])
    return tuple(strides[0] if i not in form.axes else 0 for i in range(axes))


def _kind(attrs: Attrs) -> str:
    return "layer" if "axes" in attrs else "group" if "groups" in attrs else "batch"


_OUTPUTS = {
    "layer_norm": ("y", "mean", "rstd"),
    "group_norm": ("y", "mean", "rstd"),
    "rms_norm": ("y", "rstd"),
    "batch_norm": ("y", "mean", "rstd", "new_running_mean", "new_running_var"),
    "batch_norm_inference": ("y",),
    "rms_norm_grad": ("dx", "dweight"),
    "batch_norm_grad": ("dx", "dweight", "dbias", "dresidual"),
}


def _operands(name: str, specs: Specs, form: Form, kind: str) -> Roles:
    """The operands that a call has, by name."""
    names = (*OPS[name].inputs, *_OUTPUTS.get(name, ("dx", "dweight", "dbias")))
    found: Roles = {}
    for place, (role, spec) in enumerate(zip(names, specs, strict=True)):
        gone = role in ("dweight", "dbias") and not specs[OPS[name].inputs.index("weight")].present
        gone = gone or (role.startswith("new_") and not specs[OPS[name].inputs.index(role[4:])].present)
        if spec.present and not gone and not (role == "dresidual" and spec.shape == (0,)):
            found[role] = Operand(place, spec.dtype, _steps(form, kind, role, spec))
    return found


def _chosen(operands: Roles, *roles: str) -> Roles:
    return {role: operands[role] for role in roles if role in operands}


def _numbers(form: Form, attrs: Attrs) -> list[float]:
    n = float(form.count)
    return [n, attrs.get("eps", 0.0), attrs.get("momentum", 0.0), n / max(n - 1, 1.0)]


def _pieces(p: Phases, name: str, operands: Roles) -> tuple[int, int] | None:
    """(how many, of how many rows) pieces a batch is cut into whose channels come last; None for none."""
    form = p.form
    c = form.view[-1]
    full = [o for role, o in operands.items() if role not in _STATISTICS and role not in _PARAMETERS]
    x = p.specs[OPS[name].inputs.index("x")]
    if form.axes != tuple(range(len(form.view) - 1)) or x.nbytes < WORTH_PIECES or not c:
        return None
    for o in full:
        size = 2 if o.dtype in ("bfloat16", "float16") else computed_bytes(o.dtype)
        if o.steps != row_major(form.view, size):
            return None
    rows = form.count
    best = max(d for d in range(1, min(PIECE_ROWS, rows) + 1) if rows % d == 0)
    return (rows // best, best) if best >= min(8, rows) else None


def _cut(form: Form, cut: tuple[int, int], operands: Roles) -> tuple[tuple[int, ...], Roles]:
    """The shape [pieces, rows, C], and operands with their steps along it."""
    shape = (*cut, form.view[-1])
    found = {}
    for role, o in operands.items():
        last = o.steps[-1]
        small = role in _STATISTICS or role in _PARAMETERS
        row = 0 if small else last * shape[2]
        found[role] = Operand(o.place, o.dtype, (row * cut[1], row, last), o.scratch)
    return shape, found


# --- forward ------------------------------------------------------------------------------------------------


def forward(name: str, specs: Specs, attrs: Attrs, threads: int) -> Phases:
    """The phases of a norm."""
    x = specs[0]
    form, kind = form_of(name, x.shape, attrs), _kind(attrs)
    p = Phases(name, specs, form, threads)
    operands = _operands(name, specs, form, kind)
    numbers, ending = _numbers(form, attrs), attrs.get("activation") or ""
    cut = _pieces(p, name, operands) if kind == "batch" else None
    if name == "batch_norm_inference":
        if cut is not None:
            shape, operands = _cut(form, cut, operands)
            p.add(emit.forward, shape, (1,), operands, numbers, before=("kept", ending))
            return p
        # Planes rather than channels: more to share, and memory is read in order.
        batch = [i for i in form.axes if i != 0] if form.axes[:1] == (0,) else form.axes
        p.add(emit.forward, form.view, batch, operands, numbers, before=("kept", ending))
        return p
    if cut is None:
        how = "rms" if name == "rms_norm" else "row"
        p.add(emit.forward, form.view, form.axes, operands, numbers, before=(how, ending))
        return p
    shape, full = _cut(form, cut, operands)
    pieces, _, c = shape
    parts: Roles = {}
    for role in ("part_mean", "part_squares"):
        at, (far, near) = p.room((pieces, c))
        parts[role] = Operand(at, p.dtype, (far, 0, near), scratch=True)
    p.add(emit.moments, shape, (1,), {**_chosen(full, "x"), **parts}, [float(cut[1])])
    kept = _chosen(full, *_STATISTICS)
    across = {
        role: Operand(o.place, o.dtype, (o.steps[0], o.steps[2]), o.scratch)
        for role, o in {**parts, **kept}.items()
    }
    p.add(emit.merge, (pieces, c), (0,), across, [*numbers, float(pieces), float(cut[1])])
    ends = _chosen(full, "x", "weight", "bias", "residual", "mean", "rstd", "y")
    p.add(emit.forward, shape, (1,), ends, numbers, before=("given", ending))
    return p


# --- gradients ----------------------------------------------------------------------------------------------


def backward(name: str, specs: Specs, attrs: Attrs, threads: int) -> Phases:
    """The phases of a norm's gradient."""
    x = specs[1]
    form, kind = form_of(name, x.shape, attrs), _kind(attrs)
    p = Phases(name, specs, form, threads)
    operands = _operands(name, specs, form, kind)
    {"layer": _rows, "group": _groups, "batch": _channels}[kind](p, name, operands)
    return p


def _rows(p: Phases, name: str, operands: Roles) -> None:
    form = p.form
    n, size = form.count, computed_bytes(p.stored)
    units = 1
    for length in form.statistics:
        units *= length
    tasks = max(1, min(p.tasks, units))
    given = _chosen(operands, "dy", "x", "weight", "mean", "rstd", "dx")
    both = [role for role in ("sum_w", "sum_b") if {"sum_w": "dweight", "sum_b": "dbias"}[role] in operands]
    each = -(-len(both) * n * size // 64) * 64
    at = p.scratch
    p.scratch += tasks * each
    along = (*(0,) * len(form.statistics), *row_major(form.parameters, size))
    for place, role in enumerate(both):
        given[role] = Operand(at + place * n * size, p.dtype, along, scratch=True)
    p.add(
        emit.backward,
        form.view,
        form.axes,
        given,
        [float(n)],
        words=[each, len(both) * n],
        tasks=tasks,
        columns=False,
    )
    if both:
        results = {"sum_w": "dweight", "sum_b": "dbias"}
        shares: Roles = {}
        axes = (0,) * len(form.parameters)
        for role in both:
            shares[role] = Operand(
                given[role].place, p.dtype, (each, *row_major(form.parameters, size)), True
            )
        for role in both:
            o = operands[results[role]]
            shares[results[role]] = Operand(o.place, o.dtype, (0, *o.steps[len(form.view) - len(axes) :]))
        p.add(emit.shares, (tasks, *form.parameters), (0,), shares)


def _channels(p: Phases, name: str, operands: Roles) -> None:
    form = p.form
    n = float(form.count)
    cut = _pieces(p, name, operands)
    if cut is None:
        p.add(emit.channel, form.view, form.axes, operands, [n])
        return
    shape, full = _cut(form, cut, operands)
    pieces, _, c = shape
    parts: Roles = {}
    for role in ("part_a", "part_b"):
        at, (far, near) = p.room((pieces, c))
        parts[role] = Operand(at, p.dtype, (far, 0, near), scratch=True)
    p.add(emit.sums, shape, (1,), {**_chosen(full, "dy", "x", "mean", "y"), **parts})
    totals: Roles = {}
    for role in ("a", "b"):
        at, (near,) = p.room((c,))
        totals[role] = Operand(at, p.dtype, (0, 0, near), scratch=True)
    across = {
        role: Operand(o.place, o.dtype, (o.steps[0], o.steps[2]), o.scratch)
        for role, o in {**parts, **_chosen(full, "rstd", "dweight", "dbias"), **totals}.items()
    }
    p.add(emit.total, (pieces, c), (0,), across, [n])
    ends = _chosen(full, "dy", "x", "mean", "rstd", "weight", "y", "dx", "dresidual")
    p.add(emit.slope, shape, (1,), {**ends, **totals}, before=(False,))


def _groups(p: Phases, name: str, operands: Roles) -> None:
    form = p.form
    n_images, groups, each = form.view[:3]
    inner = tuple(range(3, len(form.view)))
    none = (0,) * len(inner)
    parts: Roles = {}
    for role in ("part_a", "part_b"):
        at, steps = p.room((n_images, groups, each))
        parts[role] = Operand(at, p.dtype, (*steps, *none), scratch=True)
    p.add(emit.sums, form.view, inner, {**_chosen(operands, "dy", "x", "mean"), **parts})
    totals: Roles = {}
    for role in ("a", "b"):
        at, steps = p.room((n_images, groups))
        totals[role] = Operand(at, p.dtype, (*steps, 0, *none), scratch=True)
    by_channel = _without(inner, {**parts, **_chosen(operands, "weight"), **totals})
    p.add(emit.total, (n_images, groups, each), (2,), by_channel, [float(form.count)])
    ends = {**_chosen(operands, "dy", "x", "mean", "rstd", "weight", "dx"), **totals}
    p.add(emit.slope, form.view, inner, ends, before=(True,))
    if "dweight" in operands:
        # Groups of no elements have no rstd that could be a factor.
        factor = ("rstd",) if form.count else ()
        over_images = _without(inner, {**parts, **_chosen(operands, *factor, "dweight", "dbias")})
        p.add(emit.total, (n_images, groups, each), (0,), over_images, [1.0])


def _without(inner: tuple[int, ...], operands: Roles) -> Roles:
    """Operands along the first axes alone."""
    keep = 3
    return {r: Operand(o.place, o.dtype, o.steps[:keep], o.scratch) for r, o in operands.items()}


# --- the kernels --------------------------------------------------------------------------------------------


def _register(name: str) -> None:
    phases = backward if name.endswith("_grad") else forward

    def supports(specs: Specs, attrs: Attrs) -> str | None:
        if phases(name, specs, attrs, 1).fits:
            return None
        return f"takes at most {MOST_AXES} axes of each kind, once joined"

    def vectors(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        return phases(name, specs, attrs, threads).launch(name)

    kernel(name, dtypes=FLOATS, supports=supports, binds=True, name="vectors", rank=1)(vectors)


for _name in OPS:
    _register(_name)
