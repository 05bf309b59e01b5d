"""Trees of Arrays: taking them apart, putting them together, and what is said of what does not belong."""

from __future__ import annotations

import re
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine import tree
from kernelwright.kernels.errors import DTypeError, ShapeError

Pair = namedtuple("Pair", "h c")
A, B, C = (kw.array(np.full(2, value, "f4")) for value in (1, 2, 3))


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (A, 1),
        (None, 0),
        ([], 0),
        ((), 0),
        ({}, 0),
        ((A,), 1),
        ([A, (B, None), {"x": C}], 3),
        ({"b": A, "a": [B]}, 2),
        (Pair(A, B), 2),
        ({1: A, "one": B, (2, 3): C}, 3),
        (np.ones(3), 1),
    ],
)
def test_a_tree_comes_back_from_its_leaves(made: Any, count: int) -> None:
    leaves, structure = tree.flatten(made)
    assert len(leaves) == structure.size == count
    again = structure.unflatten(leaves)
    assert type(again) is type(made)
    twice, same = tree.flatten(again)
    assert same == structure
    assert hash(same) == hash(structure)
    assert [id(leaf) for leaf in twice] == [id(leaf) for leaf in leaves]


def test_the_order_of_a_dicts_keys_says_nothing() -> None:
    one, two = {"a": A, "b": B}, {"b": B, "a": A}
    assert tree.flatten(one)[1] == tree.flatten(two)[1]
    assert [id(leaf) for leaf in tree.leaves(two)] == [id(A), id(B)]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ([A], (A,), "a list in one and a tuple in the other"),
        ({"x": [A, B]}, {"x": [A]}, r"p\['x'\] has \[0, 1\] in one and \[0\] in the other"),
        ({"x": A}, {"y": A}, r"p has \['x'\] in one and \['y'\]"),
        ((A, None), (A, B), r"p\[1\] is None in one and an array in the other"),
    ],
)
def test_structures_differ_where_they_say(one: Any, two: Any, said: str) -> None:
    first, second = tree.flatten(one)[1], tree.flatten(two)[1]
    assert first != second
    assert re.search(said, first.difference(second, "p"))
    with pytest.raises(ShapeError, match="different structures"):
        tree.map(lambda x, y: x, one, two)


def test_paths_read_as_python_or_as_a_state_dict() -> None:
    _, structure = tree.flatten({"w": [A, Pair(B, C)]})
    assert structure.paths("p") == ["p['w'][0]", "p['w'][1].h", "p['w'][1].c"]
    assert structure.paths(dotted=True) == ["w.0", "w.1.h", "w.1.c"]
    assert repr(structure) == "{'w': [*, Pair(h=*, c=*)]}"


def test_map_goes_over_several_trees() -> None:
    made = tree.map(lambda x, y: np.asarray(x) - np.asarray(y), {"a": (A, B)}, {"a": (C, C)})
    np.testing.assert_array_equal(made["a"][0], [-2, -2])
    np.testing.assert_array_equal(made["a"][1], [-1, -1])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"lr": [A, 0.1]}, r"p\['lr'\]\[1\] is a float \(0.1\).*kw.array\(0.1, dtype='float32'\)"),
        ((A, "relu"), r"p\[1\] is a str \('relu'\).*lambda x: fn\(x, 'relu'\)"),
        (Pair(A, {1}), r"p.c is a set"),
        (3, r"p is an int \(3\)"),
    ],
)
def test_what_is_no_array_is_named_by_its_path(made: Any, said: str) -> None:
    with pytest.raises(DTypeError, match=said):
        tree.flatten(made, "p")


def test_too_many_or_too_few_leaves_are_refused() -> None:
    _, structure = tree.flatten([A, B])
    for leaves in ([A], [A, B, C]):
        with pytest.raises(ShapeError, match="2 leaves"):
            structure.unflatten(leaves)
