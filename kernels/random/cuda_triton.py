"""Random numbers and dropout on the GPU, in Triton: the CPU's numbers, bit for bit.

    numbers        each program a tile of Philox's blocks; what a word becomes is in `cuda/number_kernels.py`
    dropout        the same, multiplied into x on the way                        `cuda/dropout_kernels.py`
    split, fold_in, permutation                                                  `cuda/key_kernels.py`

Results are row-major. Keys lie on the device, and a launch depends on nothing else: a captured graph draws
other numbers when the key's two words have changed. No share of a roof has been measured yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..cpu.cycles import ceil_div
from ..cuda.launch import launcher
from ..cuda.step import Arg, Step, Workspace
from ..cuda.triton_numbers import floating
from ..kernel import Launch
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import dropout_kernels, key_kernels, number_kernels
from .limits import before, joined, word_of
from .op import FLOATS, INTEGERS, threshold

# Neighbouring blocks of Philox of one thread: 16 bytes of numbers of so many, 8 of single bytes.
_BLOCKS_OF_THREAD = {8: 2, 4: 4, 2: 8, 1: 8}
_LANES = 16
MOST_AXES = 6
"""Axes of an x in another layout than row-major, those joined that follow one another without a gap."""


def supports(specs: Specs, attrs: Attrs) -> str | None:
    """Results are row-major."""
    return None if specs[-1].layout is None else "writes row-major results"


def groups_of(itemsize: int, warps: int) -> int:
    """Groups of 16 blocks for a program of so many warps."""
    return 32 * warps * _BLOCKS_OF_THREAD[itemsize] // _LANES


def in_tiles(
    fn: Any, args: dict[str, Any], count: int, per_program: int, itemsize: int, warps: int
) -> list[Step]:
    """The launches over `count` numbers: one where vectors of them are whole, else another for the last tile.

    A mask that may end inside of a vector makes every access of a launch one of single elements.
    """
    unit = _BLOCKS_OF_THREAD[itemsize]
    whole = count if count % unit == 0 else count // per_program * per_program
    steps = []
    for skipped, end, step in ((0, whole, unit), (whole // per_program, count, 1)):
        programs = ceil_div(end, per_program) - skipped
        if end > skipped * per_program and (step == unit or end > whole):
            given = {**args, "skipped": skipped, "count": end, "UNIT": step}
            steps.append(Step(fn, (programs,), given, warps=warps, any_int=True))
    return steps


def drawn(
    specs: Specs,
    kind: str,
    numbers_of: Sequence[float | int] = (),
    *,
    plain: bool = True,
    narrow: bool = False,
    wide: bool = False,
    warps: int = 4,
) -> Launch:
    """The launch of `number_kernels.draw` for a call (key -> out)."""
    key, out = specs
    groups = groups_of(out.itemsize, warps)
    args = {
        "key": Arg(0),
        "out": Arg(1),
        "key_step": key.strides[0] // key.itemsize,
        **dict(zip("abcd", (*numbers_of, 0, 0, 0, 0), strict=False)),
        "KIND": kind,
        "PLAIN": plain,
        "NARROW": narrow,
        "WIDE": wide,
        "GROUPS": groups,
    }
    per_program = groups * _LANES * (2 if wide else 4)
    return launcher(specs, *in_tiles(number_kernels.draw, args, out.size, per_program, out.itemsize, warps))


def _declared(op: str, dtypes: Sequence[str]) -> Any:
    return kernel(
        op,
        device="cuda",
        language="triton",
        dtypes=tuple(dtypes),
        supports=supports,
        binds=True,
        name="philox",
    )


@_declared("random_bits", ("uint32",))
def random_bits(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Words as they come."""
    return drawn(specs, "bits")


@_declared("random_uniform", FLOATS)
def random_uniform(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Bits scaled."""
    low, high, dtype = float(attrs["low"]), float(attrs["high"]), attrs["dtype"]
    plain = (low, high) == (0.0, 1.0)
    limits = [floating(x, dtype) for x in (low, high - low, before(high, dtype))]
    return drawn(specs, "uniform", () if plain else limits, plain=plain, wide=dtype == "float64")


@_declared("random_normal", FLOATS)
def random_normal(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Pairs by Box and Muller."""
    mean, std, dtype = float(attrs["mean"]), float(attrs["std"]), attrs["dtype"]
    plain = (mean, std) == (0.0, 1.0)
    given = [floating(x, dtype) for x in (mean, std)]
    return drawn(specs, "normal", () if plain else given, plain=plain, wide=dtype == "float64")


@_declared("random_truncated_normal", FLOATS)
def random_truncated_normal(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Pairs by Box and Muller, drawn again until all of a program's fit: programs of one warp."""
    low, high, mean, std = (float(attrs[key]) for key in ("low", "high", "mean", "std"))
    dtype = attrs["dtype"]
    given = [floating(x, dtype) for x in (mean, std, low, high)]
    plain = (mean, std) == (0.0, 1.0)
    return drawn(specs, "truncated", given, plain=plain, wide=dtype == "float64", warps=1)


@_declared("random_exponential", FLOATS)
def random_exponential(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Logarithms."""
    dtype = attrs["dtype"]
    scale = floating(-float(attrs["scale"]), dtype)
    return drawn(specs, "exponential", (scale, 0.0, 0.0), plain=False, wide=dtype == "float64")


@_declared("random_bernoulli", ("bool",))
def random_bernoulli(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Comparisons."""
    return drawn(specs, "bernoulli", (threshold(attrs["p"]),))


@_declared("random_randint", INTEGERS)
def random_randint(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Upper halves of products."""
    low, span = attrs["low"], attrs["high"] - attrs["low"]
    plain, narrow = span == 1 << 64, span < 1 << 32
    return drawn(specs, "randint", (word_of(low), word_of(span)), plain=plain, narrow=narrow, wide=True)


@_declared("random_split", ("uint32",))
def random_split(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Two words a block."""
    key, block = specs[0], 128
    args = {"key": Arg(0), "out": Arg(1), "key_step": key.strides[0] // key.itemsize, "count": attrs["n"]}
    step = Step(key_kernels.split, (ceil_div(attrs["n"], block),), {**args, "BLOCK": block}, any_int=True)
    return launcher(specs, step)


@_declared("random_fold_in", ("uint32",))
def random_fold_in(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """One block."""
    key = specs[0]
    args = {"key": Arg(0), "data": Arg(1), "out": Arg(2), "key_step": key.strides[0] // key.itemsize}
    return launcher(specs, Step(key_kernels.fold_in, (1,), args, warps=1, any_int=True))


@_declared("random_permutation", ("int64",))
def random_permutation(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Lists of the steps that go to each place, then each place's last; see `cuda/key_kernels.py`."""
    key, n = specs[0], attrs["n"]
    kind = "int32" if n < 1 << 31 else "int64"
    to, heads, following = (Workspace((n,), kind) for _ in range(3))
    wide, small = 512, 32
    lists = {"heads": heads, "following": following}
    first = Step(
        key_kernels.no_steps, (ceil_div(n, wide),), {"heads": heads, "count": n, "BLOCK": wide}, any_int=True
    )
    args = {"key": Arg(0), "to": to, **lists, "key_step": key.strides[0] // key.itemsize, "count": n}
    second = Step(key_kernels.jumps, (ceil_div(n, wide),), {**args, "BLOCK": wide}, any_int=True)
    # One warp to a program: its places go on looking until the last of them is found.
    args = {"to": to, **lists, "out": Arg(1), "count": n}
    last = Step(key_kernels.followed, (ceil_div(n, small),), {**args, "BLOCK": small}, warps=1, any_int=True)
    return launcher(specs, first, second, last)


def _axes_fit(specs: Specs, attrs: Attrs) -> str | None:
    x = specs[0]
    if x.layout is not None and len(joined(x)) > MOST_AXES:
        return f"reads x along {MOST_AXES} axes at most, and {x} has {len(joined(x))} that do not join"
    return supports(specs, attrs)


@kernel(
    "dropout", device="cuda", language="triton", dtypes=FLOATS, supports=_axes_fit, binds=True, name="philox"
)
def dropout(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """x times 0 or 1 / (1 - p)."""
    x, key, _ = specs
    p = float(attrs["p"])
    axes = [] if x.layout is None else joined(x)
    if len(axes) == 1 and axes[0][1] == x.itemsize:
        axes = []
    padded = [*((length, step // x.itemsize) for length, step in axes), *[(1, 0)] * MOST_AXES][:MOST_AXES]
    warps = 4
    groups = groups_of(x.itemsize, warps)
    args = {
        "x": Arg(0),
        "key": Arg(1),
        "y": Arg(2),
        "key_step": key.strides[0] // key.itemsize,
        "threshold": threshold(p),
        "scale": floating(0.0 if p == 1 else 1 / (1 - p), x.dtype),
        **{f"n{i}": length for i, (length, _) in enumerate(padded[:-1])},
        **{f"s{i}": step for i, (_, step) in enumerate(padded)},
        "AXES": len(axes),
        "WIDE": x.size + groups * _LANES * 4 >= 1 << 31,
        "GROUPS": groups,
    }
    steps = in_tiles(dropout_kernels.dropout, args, x.size, groups * _LANES * 4, x.itemsize, warps)
    return launcher(specs, *steps)
