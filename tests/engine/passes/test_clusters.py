"""Which nodes may become one: as a search through the graph of what was joined already finds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernelwright.engine.passes.clusters import Joins


class Plain:
    """A node that only has inputs, each the one result of another."""

    def __init__(self, nodes: list[Plain]):
        self.inputs = [SimpleNamespace(node=node) for node in nodes]


NUMBERS = st.integers(0, 1000)


def _something_between(joins: Joins, sets: set[int]) -> bool:
    """Whether a path leads from these sets over others back to them."""
    readers: dict[int, set[int]] = {}
    for node in joins.nodes:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(joins.of(value.node), set()).add(joins.of(node))
    waiting = [one for start in sets for one in readers.get(start, ()) if one not in sets]
    seen = set(waiting)
    while waiting:
        for one in readers.get(waiting.pop(), ()):
            if one in sets:
                return True
            if one not in seen:
                seen.add(one)
                waiting.append(one)
    return False


# What comes before a join has to learn what that leads to, and seldom is anything else joined to show it.
HIDDEN = [(5, 3), (5, 0), (3, 2), (8, 0), (5, 0), (5, 10), (11, 11)]
JOINED = [[31, 17], [24, 11], [20, 38], [40, 39], [29, 11]]


@settings(max_examples=1000)
@example(HIDDEN, [(numbers, False) for numbers in JOINED])
@given(
    pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=14),
    tries=st.lists(st.tuples(st.lists(NUMBERS, min_size=2, max_size=3), st.booleans()), max_size=20),
)
def test_sets_may_be_joined_unless_something_lies_between(
    pairs: list[tuple[int, int]], tries: list[tuple[list[int], bool]]
) -> None:
    nodes: list[Any] = [Plain([])]
    for pair in pairs:
        nodes.append(Plain([nodes[i % len(nodes)] for i in pair]))
    joins = Joins(cast(Any, SimpleNamespace(nodes=nodes)))
    for numbers, turned in tries:
        chosen = {joins.of(joins.nodes[number % len(joins.nodes)]) for number in numbers}
        free = not _something_between(joins, chosen)
        assert joins.may(chosen) == free
        if free and len(chosen) > 1:
            joins.join(sorted(chosen, reverse=turned))
