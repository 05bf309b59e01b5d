"""Random numbers and dropout on the CPU: groups of 64 numbers (32 of 64 bits) from 16 counters at once.

    numbers      each thread draws some groups; where a number comes from is in its place, not in its thread
    dropout      the same, multiplied into x on the way; x is read in order where it lies in order
    permutation  one thread: each exchange needs the one before

What the vectors look like is in `emit.py`. Results are row-major.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernel import Launch
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from . import emit
from .limits import before, bits_of, joined, word_of
from .op import FLOATS, INTEGERS, threshold

# Numbers for which another thread pays: about 20 us of drawing them.
WORTH_A_THREAD = 1 << 16


def supports(specs: Specs, attrs: Attrs) -> str | None:
    """Results are row-major."""
    return None if specs[-1].layout is None else "writes row-major results"


def bind(
    task: Callable[..., None],
    key: tuple[Any, ...],
    specs: Specs,
    name: str,
    threads: int = 1,
    count: int | None = None,
    **words: int,
) -> Launch:
    """The launch of a task whose key is its input of dtype uint32.

    Args:
        count: the numbers to make; the elements of the result unless given.
        words: A to D of the block.
    """
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases

    block = np.zeros(emit.WORDS, np.int64)
    given: TensorSpec = next(spec for spec in specs if spec.dtype == "uint32" and spec.shape == (2,))
    block[emit.COUNT] = specs[-1].size if count is None else count
    block[emit.KEY_STEP] = given.strides[0]
    for word, value in words.items():
        block[getattr(emit, word)] = value
    tasks = max(1, min(threads, specs[-1].size // WORTH_A_THREAD))
    block[emit.TASKS] = tasks
    return bind_phases(block, len(specs), [(address_of(task, key, name), tasks)])


@kernel(
    "random_bits", dtypes=("uint32",), language="llvm", rank=1, supports=supports, binds=True, name="philox"
)
def random_bits(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Words as they come."""
    return bind(emit.emit_numbers, ("bits", "4", True), specs, "random bits", threads)


@kernel(
    "random_uniform", dtypes=FLOATS, language="llvm", rank=1, supports=supports, binds=True, name="philox"
)
def random_uniform(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Bits scaled."""
    low, high, dtype = float(attrs["low"]), float(attrs["high"]), attrs["dtype"]
    plain = (low, high) == (0.0, 1.0)
    limits = {"A": bits_of(low), "B": bits_of(high - low), "C": bits_of(before(high, dtype))}
    key = ("uniform", dtype, plain)
    return bind(emit.emit_numbers, key, specs, f"uniform {dtype}", threads, **limits)


@kernel("random_normal", dtypes=FLOATS, language="llvm", rank=1, supports=supports, binds=True, name="philox")
def random_normal(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Pairs by Box and Muller."""
    mean, std, dtype = float(attrs["mean"]), float(attrs["std"]), attrs["dtype"]
    key = ("normal", dtype, (mean, std) == (0.0, 1.0))
    given = {"A": bits_of(mean), "B": bits_of(std)}
    return bind(emit.emit_numbers, key, specs, f"normal {dtype}", threads, **given)


@kernel(
    "random_truncated_normal",
    dtypes=FLOATS,
    language="llvm",
    rank=1,
    supports=supports,
    binds=True,
    name="philox",
)
def random_truncated_normal(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Pairs by Box and Muller, drawn again until all of a group fit."""
    low, high, mean, std = (float(attrs[key]) for key in ("low", "high", "mean", "std"))
    key = ("truncated", attrs["dtype"], (mean, std) == (0.0, 1.0))
    given = {"A": bits_of(mean), "B": bits_of(std), "C": bits_of(low), "D": bits_of(high)}
    return bind(emit.emit_numbers, key, specs, f"truncated normal {attrs['dtype']}", threads, **given)


@kernel(
    "random_exponential", dtypes=FLOATS, language="llvm", rank=1, supports=supports, binds=True, name="philox"
)
def random_exponential(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Logarithms."""
    dtype = attrs["dtype"]
    key, scale = ("exponential", dtype, False), bits_of(-float(attrs["scale"]))
    return bind(emit.emit_numbers, key, specs, f"exponential {dtype}", threads, A=scale)


@kernel(
    "random_bernoulli",
    dtypes=("bool",),
    language="llvm",
    rank=1,
    supports=supports,
    binds=True,
    name="philox",
)
def random_bernoulli(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Comparisons."""
    at = threshold(attrs["p"])
    return bind(emit.emit_numbers, ("bernoulli", "1", True), specs, "bernoulli", threads, A=at)


@kernel(
    "random_randint", dtypes=INTEGERS, language="llvm", rank=1, supports=supports, binds=True, name="philox"
)
def random_randint(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Upper halves of products."""
    low, span = attrs["low"], attrs["high"] - attrs["low"]
    size = specs[-1].itemsize
    key = ("randint", str(size), span == 1 << 64)
    given = {"A": word_of(low), "B": word_of(span)}
    return bind(emit.emit_numbers, key, specs, f"integers of {size} bytes", threads, **given)


@kernel(
    "random_permutation",
    dtypes=("int64",),
    language="llvm",
    rank=1,
    supports=supports,
    binds=True,
    name="philox",
)
def random_permutation(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Exchanges."""
    return bind(emit.emit_permutation, (), specs, "permutation")


@kernel(
    "random_split", dtypes=("uint32",), language="llvm", rank=1, supports=supports, binds=True, name="philox"
)
def random_split(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """Two words a block."""
    return bind(emit.emit_split, (), specs, "split", count=attrs["n"])


@kernel(
    "random_fold_in",
    dtypes=("uint32",),
    language="llvm",
    rank=1,
    supports=supports,
    binds=True,
    name="philox",
)
def random_fold_in(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """One block."""
    data = specs[1]
    return bind(emit.emit_fold_in, (data.itemsize, data.dtype.startswith("i")), specs, "fold_in")


@kernel("dropout", dtypes=FLOATS, language="llvm", rank=1, supports=supports, binds=True, name="philox")
def dropout(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Launch:
    """x times 0 or 1 / (1 - p)."""
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases

    x, key, y = specs
    p = float(attrs["p"])
    block = np.zeros(emit.WORDS, np.int64)
    axes = [] if x.layout is None else joined(x)
    if len(axes) == 1 and axes[0][1] == x.itemsize:
        axes = []
    for place, (length, step) in enumerate(axes):
        block[emit.AXES + 2 * place], block[emit.AXES + 2 * place + 1] = length, step
    block[emit.COUNT], block[emit.KEY_STEP] = x.size, key.strides[0]
    block[emit.A], block[emit.B] = threshold(p), bits_of(0.0 if p == 1 else 1 / (1 - p))
    tasks = max(1, min(threads, y.size // WORTH_A_THREAD))
    block[emit.TASKS] = tasks
    address = address_of(emit.emit_dropout, (x.dtype, len(axes)), f"dropout of {x.dtype}")
    return bind_phases(block, 3, [(address, tasks)])
