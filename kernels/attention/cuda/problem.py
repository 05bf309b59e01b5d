"""A call of attention as numbers: sizes, steps of each array in elements, and what may be loaded how.

Nothing here needs triton or a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...op import Attrs, Specs
from ...spec import TensorSpec
from ..shapes import repeated_strides, sizes

LOG2E = 1.4426950408889634
VECTOR_BYTES = 16
MASK_UNIT = 16
"""Elements of a mask that are loaded together where its steps allow it."""
LONGEST = 2**31 - 2**12
"""The largest number of rows, and of heads times their tiles: they are counted in 32 bits."""
WIDEST = 256
"""The most features of a head: a tile's sums [64, 256] are 128 numbers a thread."""
_FORWARD = ("q", "k", "v", "mask", "out", "total")
_BACKWARD = ("q", "k", "v", "mask", "out", "total", "g", "gtotal", "dq", "dk", "dv")
OF_KEYS = ("k", "v", "dk", "dv")
_FLAT = ("total", "gtotal")


@dataclass(frozen=True)
class Array:
    """How an array is laid out.

    Attributes:
        place: which tensor of the call it is.
        outer, inner, head, row, column: steps along the two axes of the batch, and within a matrix; 0 along
            axes of length 1.
        unit: see `shared_kernels.py`: 0, 1, or how many elements all steps are multiples of.
        rows, width: lengths; itemsize: bytes of an element.
    """

    place: int
    outer: int
    inner: int
    head: int
    row: int
    column: int
    unit: int
    rows: int
    width: int
    itemsize: int


@dataclass(frozen=True)
class Problem:
    """A call of `attention`, or of `attention_grad`.

    Attributes:
        outer, inner: lengths of the two axes of the batch.
        heads, key_heads, l, s, e, ev: as in `shapes.Sizes`.
        dtype: of query.
        causal, scale: attributes, the scale as a number.
        arrays: those that there are, by name.
        mask: `""`, `"bool"` or `"added"`.
    """

    outer: int
    inner: int
    heads: int
    key_heads: int
    l: int  # noqa: E741
    s: int
    e: int
    ev: int
    dtype: str
    causal: bool
    scale: float
    arrays: Mapping[str, Array]
    mask: str

    @property
    def batch(self) -> int:
        """Matrices of the batch, heads aside."""
        return self.outer * self.inner

    @property
    def group(self) -> int:
        """How many heads of query share one of key."""
        return self.heads // self.key_heads if self.key_heads else 1

    @property
    def c(self) -> float:
        """What products are multiplied by to be scores in units of log 2."""
        return self.scale * LOG2E

    @property
    def wide_e(self) -> int:
        """E, filled up to what a block of registers can have."""
        return filled(self.e)

    @property
    def wide_ev(self) -> int:
        """Ev likewise."""
        return filled(self.ev)

    @property
    def widest(self) -> int:
        """The larger of both."""
        return max(self.wide_e, self.wide_ev)

    def by_rows(self, packed: bool = False) -> bool:
        """Whether the mask differs between the rows of a tile."""
        if not self.mask:
            return False
        mask = self.arrays["mask"]
        return mask.row != 0 or (packed and mask.head != 0)


def filled(features: int) -> int:
    """The power of two from 16 on that holds so many features."""
    return max(16, 1 << (max(features, 1) - 1).bit_length())


def problem_of(specs: Specs, attrs: Attrs) -> Problem | str:
    """The problem behind a call (of six tensors forward, eleven backward), or why no kernel takes it."""
    names = _FORWARD if len(specs) == len(_FORWARD) else _BACKWARD
    n = sizes("attention", *specs[:3])
    query, mask = specs[0], specs[3]
    if max(n.e, n.ev) > WIDEST:
        return f"keeps sums for up to {WIDEST} features of a head, not {max(n.e, n.ev)}"
    heads, lead = (n.heads, n.lead) if query.ndim > 2 else (1, ())
    steps = {}
    for name, spec in zip(names, specs, strict=True):
        if spec.present:
            full = (*query.shape[:-1], n.s) if name == "mask" else spec.shape
            steps[name] = _steps(spec, full, name in _FLAT)
    batch = _merged(lead, {name: found[:-3] for name, found in steps.items()})
    if len(batch) > 2:
        return "walks two axes before that of heads, and here are more that no one step walks"
    batch = [(1, dict.fromkeys(steps, 0))] * (2 - len(batch)) + batch
    (outer, of_outer), (inner, of_inner) = batch
    if outer * inner * heads * -(-max(n.l, n.s) // 16) > LONGEST or max(n.l, n.s) > LONGEST:
        return f"counts rows and tiles in 32 bits, up to {LONGEST:,}"
    arrays = {}
    for place, (name, spec) in enumerate(zip(names, specs, strict=True)):
        if spec.present:
            of_keys = name in OF_KEYS
            width = {"mask": n.s, "total": 1, "gtotal": 1, "q": n.e, "k": n.e, "dq": n.e, "dk": n.e}.get(
                name, n.ev
            )
            head, row, column = steps[name][-3:]
            count, rows = (n.key_heads, n.s) if of_keys else (heads, n.l)
            found = (
                of_outer[name],
                of_inner[name],
                head if count > 1 else 0,
                row if rows > 1 else 0,
                column if width > 1 else 1,
            )
            unit = _unit(found, width, spec.itemsize if name != "mask" else 1)
            arrays[name] = Array(place, *found, unit, rows, width, spec.itemsize)
    return Problem(
        outer, inner, heads, n.key_heads, n.l, n.s, n.e, n.ev, query.dtype, bool(attrs["is_causal"]),
        float(factor_of(n.e, attrs["scale"])), arrays,
        "" if not mask.present else "bool" if mask.dtype == "bool" else "added",
    )  # fmt: skip


def factor_of(e: int, scale: float | None) -> float:
    """What products are multiplied by: 1 / sqrt(E) unless given."""
    return float(max(e, 1) ** -0.5 if scale is None else scale)


def _steps(spec: TensorSpec, full: tuple[int, ...], flat: bool) -> tuple[int, ...]:
    """(steps of leading axes..., head, row, column), in elements."""
    strides = tuple(stride // spec.itemsize for stride in repeated_strides(spec, full))
    if flat:
        strides = (*strides, 0)
    return strides if len(strides) > 2 else (0, *strides)


def _merged(lead: Sequence[int], steps: Mapping[str, Sequence[int]]) -> list[tuple[int, dict[str, int]]]:
    """The fewest axes (length, step of each array) that walk the leading ones."""
    axes: list[tuple[int, dict[str, int]]] = []
    for axis, length in enumerate(lead):
        if length == 1:
            continue
        here = {name: found[axis] for name, found in steps.items()}
        if axes and all(axes[-1][1][name] == step * length for name, step in here.items()):
            axes[-1] = (axes[-1][0] * length, here)
        else:
            axes.append((length, here))
    return axes


def _unit(steps: Sequence[int], width: int, itemsize: int) -> int:
    if steps[-1] != 1:
        return 0
    unit = VECTOR_BYTES // itemsize
    return unit if all(value % unit == 0 for value in (*steps[:-1], width)) else 1


def box_problem(p: Problem, names: Sequence[str]) -> str | None:
    """Why some arrays cannot be behind tensor descriptors; None when they can."""
    for name in names:
        x = p.arrays[name]
        if not (p.batch and p.heads and p.key_heads and x.rows and x.width):
            return f"the copy engine cannot read {name}: it is empty"
        if p.outer > 1:
            return f"the copy engine cannot read {name}: its batch has two axes that no one step walks"
        if x.column != 1 or (x.rows > 1 and x.row < x.width):
            return f"the copy engine cannot read {name}: its rows do not lie apart, side by side each"
        steps = (x.inner, x.head, x.row)
        odd = [s for s in steps if s * x.itemsize % VECTOR_BYTES or s * x.itemsize >= 2**40]
        if odd:
            return f"the copy engine cannot read {name}: a step of {odd[0]} is no multiple of 16 bytes"
    return None


@dataclass(frozen=True)
class Box:
    """What a tensor descriptor says: lengths, steps in elements (the last is 1) and the block of one copy."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]
    block: tuple[int, ...]


def box_of(p: Problem, name: str, rows: int) -> Box:
    """`rows` rows of a head; an axis that is repeated has the length 1."""
    x = p.arrays[name]
    heads = p.key_heads if name in OF_KEYS else p.heads
    unit = VECTOR_BYTES // x.itemsize
    row = x.row or -(-x.width // unit) * unit
    head = x.head or x.rows * row
    shape = (p.inner if x.inner else 1, heads if x.head else 1, x.rows, x.width)
    return Box(shape, (x.inner or head * shape[1], head, row, 1), (1, 1, rows, filled(x.width)))
