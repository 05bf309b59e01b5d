"""Picking, placing and joining on NVIDIA GPUs, in Triton.

    taken      index_select, embedding, gather: places from an index
    mapped     pad, roll, tril, triu: places worked out along each axis
    joined     concat: all parts in one launch, or each by `mapped`
    hot        one_hot

A place outside an axis is refused before a call where its numbers are known. On a device they are not looked
at before the launch, which would mean to wait for it: negative places count from the end, and for one that is
not there the nearest stands, as the op defines it and as in a traced program on the CPU. So the bits are the
same on both, and no index leads outside of an array.

All are bound by memory; tiles of 8 KB move 16 bytes at a time where both sides lie so
(`cuda/move_kernels.py`). Sums by an index are in `cuda_triton_sums.py`, orders in `cuda_triton_sorts.py`.
"""

from __future__ import annotations

from typing import Any

from ..cuda.launch import CudaLaunch, launcher
from ..op import Attrs, Specs
from ..registry import kernel
from ..shape.common import ANY_DTYPE
from .cuda import steps
from .cuda.walk import words
from .takes import EMBEDDING, INDEX_DTYPES


def _moved(specs: Specs, index: int = -1) -> Specs:
    """The specs with whole numbers for what is only moved."""
    return tuple(
        spec if i == index else word for i, (spec, word) in enumerate(zip(specs, words(specs), strict=True))
    )


def _select(specs: Specs, attrs: Attrs) -> str | None:
    return steps.select_walk(specs, attrs.get("axis", 0)).refusal()


@kernel(
    "index_select",
    device="cuda",
    language="triton",
    dtypes=ANY_DTYPE,
    supports=_select,
    binds=True,
    name="taken",
)
@kernel(
    "embedding",
    device="cuda",
    language="triton",
    dtypes=EMBEDDING.dtypes,
    supports=_select,
    binds=True,
    name="taken",
)
def select(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Parts of x at the places of an index, zeros for one of them."""
    axis, skip = attrs.get("axis", 0), attrs.get("skip", -1)
    found = steps.select_walk(specs, axis)
    step = steps.taken_step(found, specs[0], axis, skip if skip >= 0 else None)
    return launcher(_moved(specs, 1), step)


def _gather(specs: Specs, attrs: Attrs) -> str | None:
    return steps.gather_walk(specs, attrs["axis"]).refusal()


@kernel(
    "gather", device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_gather, binds=True, name="taken"
)
def gather(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """An element for each place of the index."""
    found = steps.gather_walk(specs, attrs["axis"])
    return launcher(_moved(specs, 1), steps.taken_step(found, specs[0], attrs["axis"], None))


def _hot(specs: Specs, attrs: Attrs) -> str | None:
    return steps.hot_walk(specs).refusal()


@kernel(
    "one_hot", device="cuda", language="triton", dtypes=INDEX_DTYPES, supports=_hot, binds=True, name="hot"
)
def one_hot(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Rows of zeros with a one; of zeros alone where the place is none of them."""
    return launcher(specs, steps.hot_step(steps.hot_walk(specs)))


def _concat(specs: Specs, attrs: Attrs) -> str | None:
    walks = (one for _, one, _ in steps.concat_parts(specs, attrs["axis"]))
    return next((reason for reason in (one.refusal() for one in walks) if reason), None)


@kernel(
    "concat", device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_concat, binds=True, name="joined"
)
def concat(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Arrays one after the other along an axis."""
    return launcher(words(specs), *steps.concat_steps(specs, attrs["axis"]))


def _pad(specs: Specs, attrs: Attrs) -> str | None:
    return steps.pad_walk(specs, attrs).refusal()


@kernel("pad", device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_pad, binds=True, name="mapped")
def pad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """x with a border."""
    return launcher(words(specs), steps.pad_step(steps.pad_walk(specs, attrs), specs, attrs))


def _roll(specs: Specs, attrs: Attrs) -> str | None:
    return steps.roll_walk(specs, attrs).refusal()


@kernel("roll", device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_roll, binds=True, name="mapped")
def roll(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """x moved around its axes."""
    step = steps.mapped_step(steps.roll_walk(specs, attrs), {"MODE": "circular"})
    return launcher(words(specs), step)


def _triangle(specs: Specs, attrs: Attrs) -> str | None:
    return steps.triangle_walk(specs).refusal()


def _bind_triangle(side: str) -> Any:
    def bind(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
        values = {"TRIANGLE": side, "diagonal": attrs["diagonal"]}
        return launcher(words(specs), steps.mapped_step(steps.triangle_walk(specs), values))

    return bind


for _op, _side in (("tril", "lower"), ("triu", "upper")):
    kernel(
        _op, device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_triangle, binds=True, name="mapped"
    )(_bind_triangle(_side))  # fmt: skip
