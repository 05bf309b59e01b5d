"""Calls of matmul drawn at random, and the function that says what is wrong with what a call did.

`what_is_wrong` is what every accuracy test of matmul asks, and what the controls must not get past.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

import kernelwright as kw
from kernelwright.kernels.accuracy import Truth, judge
from kernelwright.kernels.guard import Guarded
from kernelwright.kernels.kernel import Config, Kernel
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import extent, np_dtype

Shape = tuple[int, ...]
Matmul = Callable[..., Any]
PATHS = ("tiny", "batched", "packed", "direct", "stream", "dots")
"""The kernels of `kernels/matmul/cpu_numba.py`."""

# Results of fewer elements than this are judged together with those of the same call on other numbers: the
# norm of a few rounding errors is a matter of luck, ours and the vendor's.
_ENOUGH = 48
_MOST_REPEATS = 24


def built_in(name: str) -> Kernel:
    """One of `PATHS`."""
    (found,) = [kernel for kernel in kernels_for("matmul") if kernel.id == f"matmul/cpu_numba/{name}"]
    return found


def operands(m: int, k: int, n: int, dtype: str = "f4") -> tuple[np.ndarray, np.ndarray]:
    """Two matrices of normally distributed numbers, always the same ones."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)


@dataclass(frozen=True)
class Layout:
    """How an array lies in memory.

    Attributes:
        order: its axes, the outermost first.
        steps: for each axis, how many elements lie between one element and the next, plus 1; 0 for the same
            element again and again, negative for running backwards.
        gaps: for each axis, the elements that are left free after it.
        shift: how many elements the first one lies behind a cache line's start.
    """

    order: tuple[int, ...]
    steps: tuple[int, ...]
    gaps: tuple[int, ...]
    shift: int = 0

    def strides(self, shape: Shape, itemsize: int) -> tuple[int, ...]:
        """Byte strides of an array of `shape`."""
        found = [0] * len(shape)
        reach = itemsize
        for axis in reversed(self.order):
            found[axis] = reach * self.steps[axis]
            if shape[axis] > 1:
                reach *= shape[axis] * max(1, abs(self.steps[axis])) + self.gaps[axis]
        return tuple(found)

    def place(self, values: np.ndarray) -> np.ndarray:
        """An array laid out like this that holds `values`; where elements coincide, one of them."""
        strides = self.strides(values.shape, values.itemsize)
        low, high = extent(values.shape, strides, values.itemsize)
        room = np.empty(high - low + 64 + self.shift * values.itemsize, np.uint8)
        offset = -room.ctypes.data % 64 + self.shift * values.itemsize - low
        array: np.ndarray = np.ndarray(values.shape, values.dtype, room, offset, strides)
        array[...] = values
        return array


def plain(ndim: int) -> Layout:
    """Row-major, nothing between the elements."""
    return Layout(tuple(range(ndim)), (1,) * ndim, (0,) * ndim)


def turned(ndim: int) -> Layout:
    """The last two axes change places in memory."""
    order = (*range(ndim - 2), ndim - 1, ndim - 2) if ndim > 1 else tuple(range(ndim))
    return Layout(order, (1,) * ndim, (0,) * ndim)


@dataclass(frozen=True)
class Problem:
    """One call of matmul, but for its numbers.

    Attributes:
        a, b: shapes.
        a_layout, b_layout, out_layout: where they lie.
        dtype: of all three.
        contents: what kind of numbers, one of `CONTENTS`.
        seed: for the numbers.
        threads: what the call may use.
        wrapped: whether a, b and out are Arrays, rather than NumPy's.
    """

    a: Shape
    b: Shape
    a_layout: Layout
    b_layout: Layout
    out_layout: Layout
    dtype: str = "float32"
    contents: str = "normal"
    seed: int = 0
    threads: int = 1
    wrapped: tuple[bool, bool, bool] = (False, False, False)

    def inputs(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Operands with numbers in them."""
        a, b = CONTENTS[self.contents](rng, self.a, self.b)
        dtype = np_dtype(self.dtype)
        return self.a_layout.place(a.astype(dtype)), self.b_layout.place(b.astype(dtype))

    def out(self, expected: TensorSpec) -> TensorSpec:
        """Where the result is to go."""
        strides = self.out_layout.strides(expected.shape, expected.itemsize)
        return TensorSpec(expected.shape, expected.dtype, layout=strides)

    @property
    def k(self) -> int:
        """Terms in each sum."""
        return self.a[-1]


def _normal(rng: np.random.Generator, a: Shape, b: Shape) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal(a), rng.standard_normal(b)


def _positive(rng: np.random.Generator, a: Shape, b: Shape) -> tuple[np.ndarray, np.ndarray]:
    return np.abs(rng.standard_normal(a)), np.abs(rng.standard_normal(b))


def _whole(rng: np.random.Generator, a: Shape, b: Shape) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(-8, 9, a).astype(float), rng.integers(-8, 9, b).astype(float)


def _scaled(rng: np.random.Generator, a: Shape, b: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a and columns of b of very different sizes."""
    x, y = _normal(rng, a, b)
    rows = (*a[:-1], 1)
    columns = (*b[:-2], 1, b[-1]) if len(b) > 1 else (1,)
    return x * 2.0 ** rng.integers(-20, 21, rows), y * 2.0 ** rng.integers(-20, 21, columns)


def _not_finite(rng: np.random.Generator, a: Shape, b: Shape) -> tuple[np.ndarray, np.ndarray]:
    """A few infinities and NaNs, which a kernel that pads or reads too far spreads or loses."""
    x, y = _normal(rng, a, b)
    for array in (x, y):
        for value in (np.inf, -np.inf, np.nan):
            if array.size and rng.random() < 0.5:
                array[tuple(rng.integers(0, length) for length in array.shape)] = value
    return x, y


CONTENTS = {
    "normal": _normal,
    "positive": _positive,
    "whole": _whole,
    "scaled": _scaled,
    "not finite": _not_finite,
}


# --- what is wrong with a call ------------------------------------------------------------------------------


def what_is_wrong(problem: Problem, matmul: Matmul = kw.matmul, beside_vendor: bool = True) -> str | None:
    """Run a call with a NaN-filled `out`, without `out`, and with it again; None when all of it is right.

    Right is: within the budget of `kernels.accuracy`, with an error of at most twice NumPy's plus one
    rounding; the same bits the second time; inputs, and all memory around the three arrays, bit for bit as
    they were. All memory around the inputs is NaN, so reading it shows.

    Args:
        problem: the call.
        matmul: what is called, as `matmul(a, b, out=out)`, and as `matmul(a, b)` where it is `kw.matmul`.
        beside_vendor: whether the error is compared with NumPy's.
    """
    rng = np.random.default_rng(problem.seed)
    runs: list[_Run] = []
    with kw.using(threads=problem.threads), np.errstate(all="ignore"):
        repeats = 1
        while len(runs) < repeats:
            run = _Run(problem, *problem.inputs(rng))
            fault = run.fault(matmul)
            if fault is not None:
                return fault
            runs.append(run)
            repeats = 1 if problem.contents == "whole" else min(_MOST_REPEATS, -(-_ENOUGH // run.different()))
    truth = [Truth.of(MATMUL, (run.a, run.b)) for run in runs]
    exact = np.stack([t.outputs[0] for t in truth])
    scale = np.stack([np.asarray(t.scales[0]) for t in truth])
    # Where a few elements outweigh the others, or are the only ones that are numbers, luck decides again.
    compared = beside_vendor and problem.contents not in ("scaled", "not finite")
    vendor = np.stack([run.vendor for run in runs]) if compared else None
    for name in ("given", "made"):
        results = [getattr(run, name) for run in runs]
        if results[0] is None:
            continue
        verdict = judge(
            np.stack(results),
            exact,
            dtype=problem.dtype,
            reduction_length=problem.k,
            vendor=vendor,
            scale=scale,
        )
        if not verdict.ok:
            return f"{'with' if name == 'given' else 'without'} out: {verdict.text}"
    return None


def beside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NumPy's product; of 16-bit numbers, its product in float32, rounded once."""
    if a.dtype.itemsize > 2:
        return np.asarray(np.matmul(a, b))
    return np.asarray(np.matmul(a.astype(np.float32), b.astype(np.float32))).astype(a.dtype)


class _Run:
    """One problem with numbers in it, and what came out."""

    def __init__(self, problem: Problem, a: np.ndarray, b: np.ndarray):
        self.problem = problem
        self.guards = {"a": Guarded.copy_of(a), "b": Guarded.copy_of(b)}
        self.a, self.b = a, b
        self.vendor = beside(a, b)
        (self.spec,) = MATMUL.infer((TensorSpec.of(a), TensorSpec.of(b)))
        self.given: np.ndarray | None = None
        self.made: np.ndarray | None = None

    def different(self) -> int:
        """How many different sums the result consists of: repeated rows and columns give the same."""
        repeats = 0 in (*self.problem.a_layout.steps, *self.problem.b_layout.steps)
        return max(1, len(np.unique(self.vendor)) if repeats else self.spec.size)

    def fault(self, matmul: Matmul) -> str | None:
        """Runs the calls; what can be seen without judging the numbers."""
        first, out = self._into(matmul)
        if first is not None:
            return first
        self.given = out.array.copy()
        if matmul is kw.matmul:
            a, b = self._operands()
            made = matmul(a, b)
            self.made = np.asarray(made)
            if type(made) is not kw.Array or self.made.shape != self.spec.shape:
                return f"without out: {type(made).__name__} of shape {self.made.shape}, not {self.spec}"
            if any(np.shares_memory(self.made, guard.memory) for guard in self.guards.values()):
                return "without out: the result shares memory with an input"
        again, out = self._into(matmul)
        if again is not None:
            return f"the second time: {again}"
        if not np.array_equal(self.given, out.array, equal_nan=True):
            return "the second call gives other bits than the first"
        return None

    def _operands(self) -> tuple[Any, Any]:
        a, b = self.guards["a"].array, self.guards["b"].array
        return (
            kw.asarray(a) if self.problem.wrapped[0] else a,
            kw.asarray(b) if self.problem.wrapped[1] else b,
        )

    def _into(self, matmul: Matmul) -> tuple[str | None, Guarded]:
        """A call with `out`, and what memory says of it."""
        out = Guarded.filled(self.problem.out(self.spec))
        # Not NaN around it: a kernel that reads NaN beside an input, and writes beside out, would write NaN.
        out.memory[:] = 0xAB
        out.array[...] = np.nan
        out.before[:] = out.memory
        target = kw.asarray(out.array) if self.problem.wrapped[2] else out.array
        result = matmul(*self._operands(), out=target)
        if matmul is kw.matmul:
            if self.problem.wrapped[2] and result is not target:
                return "out is an Array, and another one came back", out
            if self.spec.size and not np.shares_memory(np.asarray(result), out.array):
                return "the result is not in out", out
        for name, guard in self.guards.items():
            if not guard.untouched():
                return f"wrote to {name}, or beside it", out
        if not out.surroundings_untouched():
            return "wrote beside out", out
        return None, out


def bound(kernel: Kernel, config: Config) -> Matmul:
    """`kernel` in that configuration, to be called like `kw.matmul` with an out."""

    def matmul(a: Any, b: Any, out: Any) -> None:
        a, b, out = (np.asarray(x) for x in (a, b, out))
        specs = tuple(TensorSpec.of(x) for x in (a, b, out))
        kernel.bind(specs, {}, config, kw.get_num_threads())(a, b, out)

    return matmul


def why_not(kernel: Kernel, problem: Problem) -> str | None:
    """Why the kernel cannot run a problem with its `out`."""
    a, b = problem.inputs(np.random.default_rng(0))
    specs = (TensorSpec.of(a), TensorSpec.of(b))
    (expected,) = MATMUL.infer(specs)
    return kernel.why_not((*specs, problem.out(expected)), {})


def label(config: Config) -> str:
    """A configuration in a test's name."""
    return json.dumps(config, separators=(",", ":")).replace('"', "")


# --- random problems ----------------------------------------------------------------------------------------

# Around the widths of vectors and register tiles, and of the blocks that small sizes reach.
_EDGES = sorted({0, 2, 3, *(n + i for n in (6, 8, 12, 16, 24, 32, 48, 64, 96, 128) for i in (-1, 0, 1))})
LENGTHS = st.one_of(st.integers(0, 20), st.sampled_from(_EDGES), st.integers(0, 300))
LARGE = st.integers(90, 300)
SHORT = st.one_of(st.integers(0, 12), st.sampled_from([n for n in _EDGES if n <= 49]), st.integers(0, 70))
_STEPS = st.sampled_from((1, 1, 1, 1, 1, -1, -1, 2, 3, -2, 0))
_GAPS = st.sampled_from((0, 0, 0, 1, 3, 16))


@st.composite
def any_layout(draw: st.DrawFn, ndim: int) -> Layout:
    """Any strides: transposed, stepped, reversed, repeated, a window in something larger."""
    kind = draw(st.integers(0, 5))
    if kind < 2:
        return plain(ndim)
    if kind == 2:
        return turned(ndim)
    order = tuple(draw(st.permutations(range(ndim))))
    steps = tuple(draw(_STEPS) for _ in range(ndim))
    return Layout(order, steps, tuple(draw(_GAPS) for _ in range(ndim)), draw(st.integers(0, 15)))


@st.composite
def rows_apart(draw: st.DrawFn, ndim: int) -> Layout:
    """Contiguous rows, perhaps with gaps between them."""
    gaps = tuple(draw(_GAPS) for _ in range(ndim))
    return Layout(tuple(range(ndim)), (1,) * ndim, gaps, draw(st.integers(0, 15)))


@st.composite
def easy_layout(draw: st.DrawFn, ndim: int) -> Layout:
    """Contiguous along the last axis or the one before it."""
    rows = draw(rows_apart(ndim))
    return rows if draw(st.integers(0, 2)) else Layout(turned(ndim).order, rows.steps, rows.gaps, rows.shift)


@st.composite
def out_layout(draw: st.DrawFn, ndim: int) -> Layout:
    """What results may be written to: side by side along one of the last two axes, ever upwards."""
    batch = draw(st.permutations(range(max(0, ndim - 2))))
    core = draw(st.permutations(range(max(0, ndim - 2), ndim)))
    gaps = (0,) * ndim if draw(st.booleans()) else tuple(draw(_GAPS) for _ in range(ndim))
    return Layout((*batch, *core), (1,) * ndim, gaps)


@st.composite
def shapes(draw: st.DrawFn, kinds: tuple[str, ...]) -> tuple[Shape, Shape]:
    """Shapes of a and b that fit: "matrices", "large" ones that are worth two threads, "vectors", "batch"."""
    kind = draw(st.sampled_from(kinds))
    if kind in ("matrices", "large"):
        m, k, n = (draw(LENGTHS if kind == "matrices" else LARGE) for _ in range(3))
        return (m, k), (k, n)
    m, k, n = (draw(SHORT) for _ in range(3))
    if kind == "vectors":
        form = draw(st.integers(0, 4))
        batch = (draw(st.integers(0, 3)),)
        return (
            ((k,), (k,)),
            ((k,), (k, n)),
            ((m, k), (k,)),
            ((k,), (*batch, k, n)),
            ((*batch, m, k), (k,)),
        )[form]
    full = tuple(draw(st.lists(st.sampled_from((1, 2, 3, 2, 4, 5, 0)), min_size=1, max_size=2)))
    batches = []
    for _ in range(2):
        own = tuple(length if draw(st.integers(0, 3)) else 1 for length in full)
        batches.append(own[draw(st.integers(0, len(full))) :] if draw(st.booleans()) else own)
    return (*batches[0], m, k), (*batches[1], k, n)


def result_ndim(a: Shape, b: Shape) -> int:
    """The number of axes of the result."""
    return max(len(a) - 2, len(b) - 2, 0) + (len(a) > 1) + (len(b) > 1)


@st.composite
def problems(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = ("matrices",) * 4 + ("large", "vectors", "batch", "batch"),
    layouts: Callable[..., st.SearchStrategy[Layout]] = any_layout,
    outs: Callable[..., st.SearchStrategy[Layout]] = out_layout,
    contents: tuple[str, ...] = ("normal",) * 5 + ("whole", "scaled", "not finite"),
    most_work: int = 300**3,
    dtypes: tuple[str, str] = ("float32", "float64"),
) -> Problem:
    """Any call of matmul on shapes of 0 to 300."""

    def little(pair: tuple[Shape, Shape]) -> bool:
        a, b = pair
        return prod(a) * (b[-1] if len(b) > 1 else 1) <= most_work

    a, b = draw(shapes(kinds).filter(little))
    flags = draw(st.integers(0, 31))
    a_layout, b_layout = draw(layouts(len(a))), draw(layouts(len(b)))
    kind = draw(st.sampled_from(contents))
    # One number added again and again is rounded the same way each time, and the errors of such a sum grow
    # with k, whoever computes it. Whole numbers are not rounded.
    repeats_terms = a_layout.steps[-1] == 0 or b_layout.steps[-2:][0] == 0
    return Problem(
        a,
        b,
        a_layout,
        b_layout,
        draw(outs(result_ndim(a, b))),
        dtype=dtypes[flags & 1],
        contents="whole" if repeats_terms else kind,
        seed=draw(st.integers(0, 2**32 - 1)),
        threads=2 if flags & 2 else 1,
        wrapped=(bool(flags & 4), bool(flags & 8), bool(flags & 16)),
    )
