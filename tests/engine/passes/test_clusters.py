"""Which nodes may become one: as a search through the graph of what was joined already finds it."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pass_graphs import graph_of

from kernelwright.engine.passes.clusters import Joins

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
HIDDEN = [(2, 3), (3, 1), (1, 1), (6, 2), (0, 6), (1, 6), (8, 2)]


@settings(max_examples=150)
@example(HIDDEN, [([18, 13], False), ([31, 27], False), ([14, 6], False), ([19, 30], False)])
@given(
    pairs=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=14),
    tries=st.lists(st.tuples(st.lists(NUMBERS, min_size=2, max_size=3), st.booleans()), max_size=20),
)
def test_sets_may_be_joined_unless_something_lies_between(
    pairs: list[tuple[int, int]], tries: list[tuple[list[int], bool]]
) -> None:
    def function(a: Any) -> Any:
        values = [a]
        for step, (i, j) in enumerate(pairs):
            values.append(values[i % len(values)] * (2.0 + step) + values[j % len(values)])
        return values[1:]

    joins = Joins(graph_of(function, "float32 3"))
    for numbers, turned in tries:
        chosen = {joins.of(joins.nodes[number % len(joins.nodes)]) for number in numbers}
        free = not _something_between(joins, chosen)
        assert joins.may(chosen) == free
        if free and len(chosen) > 1:
            joins.join(sorted(chosen, reverse=turned))
