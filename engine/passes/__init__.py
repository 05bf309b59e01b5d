"""Passes: graph to graph, a file each, every one with a switch. `run` does them in order, checking each
result.

A pass is a function `run(graph) -> graph` in a module named after its switch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from ...kernels.errors import GraphError
from ..graph import Graph


@dataclass(frozen=True)
class Switches:
    """Which passes run, in this order.

    Attributes:
        marks: leave out what only marks places (alias), now that gradients are taken.
        shared: one call where a gradient rule has asked for the same call with more results.
        layout: images channels-last, where that makes convolutions faster.
        constants: what depends on constants alone is computed now.
        zeros: what changes nothing is left out.
        algebra: fewer or cheaper operations with the same results.
        folding: batch norms by constant statistics go into the weights before them.
        epilogues: sums and activations become the ending of what they follow.
        prepack: constant weights are packed.
        fusion: pointwise operations become programs.
        recompute: bytes that may be live at the same time, beside arguments and results; where more would be,
            pointwise values are computed again instead of kept. 0 for no such limit.
    """

    marks: bool = True
    shared: bool = True
    layout: bool = True
    constants: bool = True
    zeros: bool = True
    algebra: bool = True
    folding: bool = True
    epilogues: bool = True
    prepack: bool = True
    fusion: bool = True
    recompute: int = 0

    @classmethod
    def none(cls) -> Switches:
        """All off."""
        off: dict[str, Any] = {
            field.name: 0 if field.type in ("int", int) else False for field in fields(cls)
        }
        return cls(**off)


def run(graph: Graph, switches: Switches) -> Graph:
    """The graph after all passes that are on.

    Raises:
        GraphError: when a pass has made something that is not sound; a defect of this package.
    """
    for field in fields(switches):
        switch = getattr(switches, field.name)
        if switch:
            graph = run_one(graph, field.name, *(() if switch is True else (switch,)))
    return graph


def run_one(graph: Graph, name: str, *limit: int) -> Graph:
    """The graph after the pass of that name, with its number if it takes one.

    Raises:
        GraphError: when the pass has made something that is not sound; a defect of this package.
    """
    after: Graph = import_module(f".{name}", __name__).run(graph, *limit).check()
    for before, now in zip(graph.outputs, after.outputs, strict=True):
        if before.spec is not now.spec:
            raise GraphError(f"pass {name} made {now!r} of the result {before!r}.")
    return after
