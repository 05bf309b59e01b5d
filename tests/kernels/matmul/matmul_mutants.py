"""The built-in matmul kernels with one thing wrong in their micro-kernel, for the controls.

A mutant is registered under a name of its own, above all other kernels, and bound by the true code with a
class of the micro-kernels exchanged: everything but the mistake is what runs in earnest. Its tiles are of a
shape that the true kernels do not use, so that no code is ever mistaken for theirs, and it is compiled into a
cache that the test throws away.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from llvmlite import ir
from matmul_calls import built_in

from kernelwright.kernels.cpu import batched, gemm, launch, microkernel, small, streams, thin
from kernelwright.kernels.cpu.microkernel import Tile
from kernelwright.kernels.cpu.vector_ir import Vectors, i64
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.matmul import cpu_numba
from kernelwright.kernels.registry import kernel, kernels_for, unregister

_TILE = {"mr": 3, "nv": 1, "depth": 3, "nr": 2}
_HEIGHTS = ((7, 5, 3), (5, 3, 2), (3, 2, 1))


# --- mistakes in the register tile of packed, direct, tiny, batched -----------------------------------------


class LastColumnDropped(Tile):
    """The last column is computed and not stored."""

    def store(self, acc: Any, c: Any, c_rs: Any, rows: Any, cols: Any, add: Any) -> None:
        self.masks = []  # made anew for these columns
        super().store(acc, c, c_rs, rows, self.builder.sub(cols, i64(1)), add)


class LastRowDropped(Tile):
    """The last row is computed and not stored, where there are two or more."""

    def store(self, acc: Any, c: Any, c_rs: Any, rows: Any, cols: Any, add: Any) -> None:
        super().store(acc, c, c_rs, self.builder.sub(rows, i64(1)), cols, add)


class ColumnTooMany(Tile):
    """One element past the end of each row is stored, where the tile does not end there."""

    def store(self, acc: Any, c: Any, c_rs: Any, rows: Any, cols: Any, add: Any) -> None:
        self.masks = []
        super().store(acc, c, c_rs, rows, self.builder.add(cols, i64(1)), add)


class RowTooMany(Tile):
    """One row past the last one is stored, where the tile does not end there."""

    def store(self, acc: Any, c: Any, c_rs: Any, rows: Any, cols: Any, add: Any) -> None:
        super().store(acc, c, c_rs, self.builder.add(rows, i64(1)), cols, add)


class KRoundedUp(Tile):
    """Sums run to the next whole vector of k, past the ends of A and B."""

    def accumulate(self, k: Any, a: Any, b: Any, b_rs: Any, unroll: int) -> list[ir.Value]:
        lanes = i64(self.v.lanes)
        vectors = self.builder.sdiv(self.builder.add(k, i64(self.v.lanes - 1)), lanes)
        return super().accumulate(self.builder.mul(vectors, lanes), a, b, b_rs, unroll)


class WritesA(Tile):
    """The first element of A's tile is overwritten."""

    def store(self, acc: Any, c: Any, c_rs: Any, rows: Any, cols: Any, add: Any) -> None:
        super().store(acc, c, c_rs, rows, cols, add)
        self.builder.store(ir.Constant(self.v.element, 7.0), self.a_rows[0]).align = 1

    def accumulate(self, k: Any, a: Any, b: Any, b_rs: Any, unroll: int) -> list[ir.Value]:
        self.a_rows = a
        return super().accumulate(k, a, b, b_rs, unroll)


class BReadWithoutMask(Tile):
    """Whole vectors of B are read where its row ends within one: what they bring is not stored."""

    def step(self, *args: Any) -> list[ir.Value]:
        self.masked_b = False
        return super().step(*args)


# --- mistakes in the vectors that all micro-kernels are made of ---------------------------------------------


class SummedInHalf(Vectors):
    """Each step's sum is rounded to float16."""

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        half = ir.VectorType(ir.HalfType(), self.lanes)
        return self.builder.fpext(self.builder.fptrunc(super().fma(a, b, c), half), self.type)


class TailsNotMasked(Vectors):
    """Tails are read and written as whole vectors."""

    def tail_mask(self, valid: ir.Value, first: int = 0) -> ir.Value:
        return ir.Constant(self.mask_type, [1] * self.lanes)


class TailsOneShort(Vectors):
    """The last element of each tail is left out."""

    def tail_mask(self, valid: ir.Value, first: int = 0) -> ir.Value:
        return super().tail_mask(self.builder.sub(valid, i64(1)), first)


def _fresh(factory: Any) -> Callable[..., Any]:
    """A factory that makes a new function each time, instead of the one that the true kernels use."""

    def make(*args: Any, **options: Any) -> Any:
        return factory.__wrapped__(*args, **options)

    make.__wrapped__ = factory.__wrapped__  # type: ignore[attr-defined]
    return make


@contextmanager
def _exchanged(mistake: type, name: str) -> Iterator[None]:
    """The micro-kernels' class exchanged for `mistake`, and no compiled code shared with the true kernels."""
    address_of_task, compiled = launch.address_of_task, small.compiled

    def address(task: Any, key: Any, label: str) -> int:
        return address_of_task(task, (*key, name), label)

    def compiled_small(fn: Any, *, key: Any, **options: Any) -> Any:
        return compiled(fn, key=(*key, name), **options)

    changes: list[tuple[Any, str, Any]] = [
        (launch, "address_of_task", address),
        (small, "compiled", compiled_small),
        (gemm, "gemm_task", _fresh(gemm.gemm_task)),
        (thin, "stream_task", _fresh(thin.stream_task)),
        (thin, "dots_task", _fresh(thin.dots_task)),
        (small, "small_matmul", _fresh(small.small_matmul)),
        (batched, "batched_task", _fresh(batched.batched_task)),
        (batched, "small_product", _fresh(small.small_product)),
        (small, "small_product", _fresh(small.small_product)),
        (cpu_numba, "_heights", lambda: _HEIGHTS),
    ]
    if issubclass(mistake, Vectors):
        changes += [(microkernel, "Vectors", mistake), (streams, "Vectors", mistake)]
    else:
        changes += [(microkernel, "Tile", mistake)]
    with ExitStack() as stack:
        for place, attribute, value in changes:
            stack.enter_context(patch.object(place, attribute, value))
        yield


@contextmanager
def mutant(path: str, mistake: type | None) -> Iterator[Kernel]:
    """The built-in kernel `path` with `mistake` in it (None: in the same disguise, but right), registered.

    While the block lasts, the mutant is what `kw.matmul` runs wherever the true kernel could.
    """
    true = built_in(path)
    name = f"{path}_{mistake.__name__ if mistake else 'without_mistake'}"

    @functools.cache
    def bind_once(specs: Any, config: Any, threads: int) -> Any:
        with _exchanged(
            mistake or (Tile if path in ("packed", "direct", "tiny", "batched") else Vectors), name
        ):
            return true.function(specs, {}, dict(config), threads)

    def bind(specs: Any, attrs: Any, config: Any, threads: int) -> Any:
        # The true kernel's lane is left out: it would be taken for other calls than this one.
        run = bind_once(specs, tuple(config.items()), threads)
        return lambda a, b, out: run(a, b, out)

    def configs(specs: Any, attrs: Any, threads: int) -> list[dict[str, Any]]:
        default = true.configurations(specs, attrs, threads)[0]
        return [{key: _TILE.get(key, value) for key, value in default.items()}]

    kernel(
        "matmul", name=name, dtypes=true.dtypes, supports=true.supports, configs=configs, rank=99, binds=True
    )(bind)
    (made,) = [known for known in kernels_for("matmul") if known.name == name]
    try:
        yield made
    finally:
        unregister(made)
