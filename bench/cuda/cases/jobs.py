"""The jobs of a run: races, proofs and searches, the most telling ones first."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from typing import Any

from ....kernels.op import get_op, ops
from ....kernels.registry import kernels_for
from ...whole.networks.network import GPU_NAMES
from .job import Job, Race

FAMILIES = (
    "matmul",
    "conv",
    "recurrent",
    "attention",
    "pointwise",
    "softmax",
    "normalize",
    "loss",
    "reduce",
    "optimizer",
    "shape",
    "random",
    "index",
    "pool",
    "resize",
)
"""The files beside this one, in the order in which their races take turns."""
NOT_RACED: frozenset[str] = frozenset()
"""Families with CUDA kernels that nobody waits for."""
_TURN = 8  # races of a family before the next has its turn


def cuda_ops() -> tuple[str, ...]:
    """The ops that have CUDA kernels, those of `FAMILIES` first, in that order."""
    found = [op.name for op in ops() if kernels_for(op.name, "cuda")]

    def order(op: str) -> tuple[int, str]:
        family = get_op(op).family
        return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)), family

    return tuple(sorted(found, key=order))


def file_of(family: str) -> Any:
    """The file of a family's races."""
    return import_module(f".{family}", __package__)


def races(suite: str) -> Iterator[Race]:
    """The problems of a suite, families taking turns; each family's most telling ones come first."""
    rows = [iter(file_of(family).races(suite == "quick")) for family in FAMILIES]
    while rows:
        for row in list(rows):
            turn = list(islice(row, _TURN))
            yield from turn
            if len(turn) < _TURN:
                rows.remove(row)


def jobs(suite: str, check: bool) -> list[Job]:
    """All jobs of a run.

    Args:
        suite: "all", "quick" or "steps".
        check: also prove every kernel over its op's samples and past 2^31 elements.
    """
    if suite == "steps":
        return steps()
    found = [Job("copy", "copy"), Job("launch", "launch")]
    raced = [Job("race", f"race {p.name}", p, extra) for p, extra in races(suite)]
    proofs: list[Job] = []
    if check:
        proofs.append(Job("wide", "wide"))
        proofs += [
            Job("proof", f"proof {op} {dtype}", op=op, dtype=dtype)
            for dtype in DTYPES
            for op in cuda_ops()
            if proven(op, dtype)
        ]
    tuned = [Job("search", f"search {p.name}", p, extra) for p, extra in searches(suite)]
    # The races that tell most, the proofs, some of the searches, and then what is left of both.
    found += [*raced[:_FIRST_RACES], *proofs, *tuned[:_FIRST_SEARCHES]]
    return [*found, *raced[_FIRST_RACES:], *tuned[_FIRST_SEARCHES:]]


def steps() -> list[Job]:
    """Whole training steps: what holds over many of them, and races."""
    found = [Job("same bits", f"same bits {name}", network=name) for name in ("mlp_gpu", "lenet", "lstm")]
    found.append(Job("leaks", "leaks mlp_gpu", network="mlp_gpu"))
    found += [Job("step", f"step {name}", network=name) for name in GPU_NAMES]
    return [*found, Job("digits", "digits")]


def searches(suite: str) -> Iterator[Race]:
    """The problems of a suite that are tuned, in the order in which time is spent on them.

    A third of some groups of races, and all of short ones: what is found for them is shipped, and says how
    far an untuned call is from a tuned one.
    """
    seen: dict[str, int] = {}
    later = []
    for problem, extra in races(suite):
        group = problem.group
        if group in _SEARCHED:
            seen[group] = place = seen.get(group, -1) + 1
            if place % _SEARCHED[group] == 0:
                later.append((place, problem, extra))
    # The first of each group before the second of any.
    yield from ((problem, extra) for _, problem, extra in sorted(later, key=lambda row: row[0]))


def proven(op: str, dtype: str) -> bool:
    """Whether a run proves an op in a dtype: those that share one generated kernel, in four of them."""
    return dtype in get_op(op).dtypes and (get_op(op).family not in GENERATED or dtype in _TELLING)


_FIRST_RACES, _FIRST_SEARCHES = 96, 14
DTYPES = (
    *("bfloat16", "float16", "float32", "float64", "float8_e4m3fn"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"),
)
# One generator makes all their kernels.
GENERATED = ("pointwise", "reduce", "optimizer")
_TELLING = ("bfloat16", "float32", "float64", "int32")
# Every how many of a group's problems one is tuned.
_SEARCHED = {
    "square-bf16": 2,
    "square-fp16": 4,
    "square-tf32": 2,
    "fp8": 2,
    "decode": 3,
    "transformers": 3,
    "deepbench": 5,
    "resnet-32": 4,
    "resnet-dx-32": 4,
    "resnet-dw-32": 4,
    "depthwise": 3,
    "attention-flash": 4,
    "attention-flash-grad": 4,
    "attention-decode": 2,
}
