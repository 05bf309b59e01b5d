"""Problems that differ in one size alone, found by their names and shapes: square-64, square-128 ..."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .view import Item

LEAST = 3
NUMBER = re.compile(r"\d+")
SIZE = "N"

# What must be equal for two cases to lie on one line, besides the threads.
Key = tuple[str, str, str, str, str, str]


@dataclass(frozen=True)
class Series:
    """Cases along one size, on any number of threads.

    Attributes:
        name: the problems' name with N for the size: `square-N`.
        origin, cache, asked: what they share.
        points: (size, the case's number on the page), by size.
    """

    name: str
    origin: str
    cache: str
    asked: str
    points: tuple[tuple[int, int], ...]

    @property
    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "origin": self.origin,
            "cache": self.cache,
            "asked": self.asked,
            "points": [list(point) for point in self.points],
        }


def find_series(items: Sequence[Item]) -> list[Series]:
    """The series of at least three sizes, those with most sizes first.

    A number in a problem's name is a size when replacing it by another problem's gives that problem's name,
    and each extent of the operands is either the same in all of them or that number.
    """
    members: dict[tuple[str, Key], list[tuple[int, Item]]] = defaultdict(list)
    for item in items:
        if item.case.seconds is None:
            continue
        for template, size in _templates(item.case.problem.name):
            members[template, _key(item)].append((size, item))
    found = []
    for (template, key), inside in members.items():
        sizes = {size for size, _ in inside}
        if len(sizes) < LEAST or not _differ_in_size_alone(inside):
            continue
        points = tuple(sorted((size, item.number) for size, item in inside))
        found.append(Series(template, key[0], key[1], key[2], points))
    return sorted(found, key=_longest_first)


def _longest_first(series: Series) -> tuple[int, bool, str, str]:
    return (-len({size for size, _ in series.points}), series.cache != "warm", series.name, series.origin)


def _templates(name: str) -> Iterator[tuple[str, int]]:
    for match in NUMBER.finditer(name):
        yield name[: match.start()] + SIZE + name[match.end() :], int(match[0])


def _key(item: Item) -> Key:
    case = item.case
    problem = case.problem
    return (
        item.origin,
        case.cache,
        case.asked,
        problem.op,
        problem.dtype,
        repr(sorted(problem.attrs.items())),
    )


def _differ_in_size_alone(members: Sequence[tuple[int, Item]]) -> bool:
    """Whether each extent is constant or the size, and at least one of them is the size."""
    shapes = []
    for size, item in members:
        inputs = item.case.problem.inputs
        flat = tuple(None if o is None else (len(o.shape), o.transposed, o.packed) for o in inputs)
        extents = tuple(extent for o in inputs if o is not None for extent in o.shape)
        shapes.append((size, flat, extents))
    if len({flat for _, flat, _ in shapes}) > 1:
        return False
    varying = 0
    for place in range(len(shapes[0][2])):
        if all(extents[place] == size for size, _, extents in shapes):
            varying += 1
        elif len({extents[place] for _, _, extents in shapes}) > 1:
            return False
    return varying > 0
