"""Trees of Arrays: dicts, lists, tuples, named tuples, None and Modules, with arrays as leaves.

    leaves, structure = flatten({"w": w, "b": [b, None]})        # [b, w], {"b": [*, None], "w": *}
    structure.unflatten(leaves)                                   # the same tree
    structure.paths("params")                                     # ["params['b'][0]", "params['w']"]

A structure is what is left of a tree without its leaves: hashable, compared by value, so that a function can
be compiled once for each. A class joins by two methods, as `nn.Module` does: `__tree__`, which gives an
instance's leaves and structure (`by_attribute` finds them), and the class method `__from_tree__(structure,
children)`, which makes an instance of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..kernels.errors import DTypeError, ShapeError
from .array import Array


def frozen(value: Any) -> Any:
    """A static value in a form that can be hashed; 1, 1.0 and True are three values."""
    if isinstance(value, list | tuple):
        return (type(value), *(frozen(part) for part in value))
    if isinstance(value, dict):
        return (dict, *sorted(((repr(k), frozen(v)) for k, v in value.items()), key=lambda pair: pair[0]))
    if isinstance(value, set | frozenset):
        return (set, frozenset(frozen(part) for part in value))
    return (type(value), value)


class Structure:
    """A tree without its leaves: the kind of node, its keys, static values and children."""

    __slots__ = ("_hash", "children", "keys", "kind", "size", "static")

    def __init__(
        self, kind: Any, keys: tuple[Any, ...] = (), children: Sequence[Structure] = (), static: Any = None
    ) -> None:
        self.kind, self.keys, self.children, self.static = kind, keys, tuple(children), static
        self.size: int = 1 if kind is Array else sum(child.size for child in self.children)
        self._hash: int = hash((kind, keys, frozen(static), self.children))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Structure):
            return NotImplemented
        return (
            self._hash == other._hash
            and (self.kind, self.keys) == (other.kind, other.keys)
            and frozen(self.static) == frozen(other.static)
            and self.children == other.children
        )

    def __repr__(self) -> str:
        if self is LEAF:
            return "*"
        if self.kind in (list, tuple):
            inner = ", ".join([repr(child) for child in self.children])
            return f"[{inner}]" if self.kind is list else f"({inner}{',' * (len(self.children) == 1)})"
        if self.kind is dict:
            return "{" + ", ".join(f"{k!r}: {c!r}" for k, c in self._items()) + "}"
        name = self.kind.__name__
        return (
            "None"
            if self.kind is type(None)
            else f"{name}({', '.join(f'{k}={c!r}' for k, c in self._items())})"
        )

    def _items(self) -> Iterator[tuple[Any, Structure]]:
        return zip(self.keys or range(len(self.children)), self.children, strict=True)

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The tree with these leaves, which may be any objects, in the order of `flatten`.

        Raises:
            ShapeError: when there are more or fewer of them than places.
        """
        leaves = list(leaves)
        if len(leaves) != self.size:
            raise ShapeError(f"a tree of {self.size} leaves cannot be made of {len(leaves)}: {self!r}.")
        return self._built(iter(leaves))

    def _built(self, leaves: Iterator[Any]) -> Any:
        kind = self.kind
        if kind is Array:
            return next(leaves)
        if kind is type(None):
            return None
        parts = [child._built(leaves) for child in self.children]
        if kind is list:
            return parts
        if kind is tuple:
            return tuple(parts)
        if kind is dict:
            return dict(zip(self.keys, parts, strict=True))
        if issubclass(kind, tuple):
            return kind(*parts)
        return kind.__from_tree__(self, parts)

    def paths(self, root: str = "", dotted: bool = False) -> list[str]:
        """What each leaf is called in Python, as in `model.layers[0].weight`.

        Args:
            root: what the tree is called.
            dotted: keys and numbers as attributes too, `layers.0.weight`: the names of a state_dict.
        """
        found: list[str] = []
        self._name(root, dotted, found)
        return found

    def _name(self, at: str, dotted: bool, found: list[str]) -> None:
        if self is LEAF:
            found.append(at)
        plain = self.kind in (list, tuple, dict) and not dotted
        for key, child in self._items():
            child._name(f"{at}[{key!r}]" if plain else f"{at}.{key}" if at else str(key), dotted, found)

    def difference(self, other: Structure, root: str = "") -> str:
        """Where another structure first differs from this one, as a sentence's end; "" when nowhere."""
        at = root or "the tree"
        if self == other:
            return ""
        if self.kind is not other.kind:
            return f"{at} is {_kind_name(self)} in one and {_kind_name(other)} in the other"
        if len(self.children) != len(other.children) or self.keys != other.keys:
            mine, theirs = list(dict(self._items())), list(dict(other._items()))
            return f"{at} has {mine} in one and {theirs} in the other"
        for (key, child), (_, twin) in zip(self._items(), other._items(), strict=True):
            plain = self.kind in (list, tuple, dict)
            found = child.difference(twin, f"{root}[{key!r}]" if plain else f"{root}.{key}".lstrip("."))
            if found:
                return found
        one, two = dict(self.static or ()), dict(other.static or ())
        name = next((n for n in one | two if frozen(one.get(n)) != frozen(two.get(n))), "")
        return f"{at}.{name} is {one.get(name)!r} in one and {two.get(name)!r} in the other"


LEAF = Structure(Array)
_NONE = Structure(type(None))


def flatten(tree: Any, name: str = "") -> tuple[list[Any], Structure]:
    """The leaves of a tree and what is left of it without them; dicts in the order of their sorted keys.

    Args:
        tree: an Array, a NumPy array, None, or any nesting of dict, list, tuple, named tuple and Module.
        name: what the tree is called in errors, such as "params".

    Raises:
        DTypeError: for a leaf that is no array, with its path.
    """
    leaves: list[Any] = []
    try:
        return leaves, _flatten(tree, leaves)
    except _NoLeafError:
        raise DTypeError(_complaint(tree, name)) from None


def leaves(tree: Any, name: str = "") -> list[Any]:
    """The leaves of a tree; errors as `flatten`."""
    return flatten(tree, name)[0]


def map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of `function(leaf, *leaves at the same place in the others)`.

    Raises:
        DTypeError: for a leaf that is no array.
        ShapeError: for trees of different structures, naming where they first differ.
    """
    first, structure = flatten(tree)
    columns = [first]
    for other in others:
        more, its = flatten(other)
        if its != structure:
            raise ShapeError(f"the trees have different structures: {structure.difference(its)}.")
        columns.append(more)
    return structure.unflatten(function(*row) for row in zip(*columns, strict=True))


def is_leaf(value: Any) -> bool:
    """Whether a value is an array: an Array (or what stands for one while tracing) or a NumPy array."""
    return isinstance(value, Array | np.ndarray)


def by_attribute(instance: Any, attributes: dict[str, Any]) -> tuple[list[Any], Structure]:
    """Leaves and structure of an object: attributes that are or hold arrays are children, the rest is static.

    Raises:
        DTypeError: for a static value that cannot be hashed, and so cannot tell two structures apart.
    """
    into: list[Any] = []
    inside = {name: value for name, value in attributes.items() if holds_leaf(value)}
    static = tuple((name, value) for name, value in attributes.items() if name not in inside)
    children = [_flatten(value, into) for value in inside.values()]
    try:
        return into, Structure(type(instance), tuple(inside), children, static)
    except TypeError as error:
        name = next((n for n, value in static if not _hashes(value)), "")
        raise DTypeError(
            f"{type(instance).__name__}.{name} is no Array and cannot be hashed ({error}); keep numbers, "
            "text, tuples or functions there."
        ) from None


def _hashes(value: Any) -> bool:
    try:
        hash(frozen(value))
    except TypeError:
        return False
    return True


def holds_leaf(value: Any) -> bool:
    """Whether a value is, or has anywhere inside, an array or a Module: what makes an attribute a child."""
    if is_leaf(value) or hasattr(type(value), "__tree__"):
        return True
    if isinstance(value, dict):
        return any(holds_leaf(part) for part in value.values())
    return isinstance(value, list | tuple) and any(holds_leaf(part) for part in value)


class _NoLeafError(Exception):
    """Something in a tree is no array; where, a second and slower walk finds out."""


def _flatten(value: Any, into: list[Any]) -> Structure:
    if isinstance(value, Array | np.ndarray):
        into.append(value)
        return LEAF
    kind = type(value)
    if value is None:
        return _NONE
    if kind is tuple or kind is list:
        return Structure(kind, (), [_flatten(part, into) for part in value])
    if kind is dict:
        keys = _sorted(value)
        return Structure(dict, keys, [_flatten(value[key], into) for key in keys])
    split = getattr(kind, "__tree__", None)
    if split is not None:
        # What it answers may be known from before: its leaves, and its structure.
        parts, structure = split(value)
        into.extend(parts)
        return structure  # type: ignore[no-any-return]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return Structure(kind, kind._fields, [_flatten(part, into) for part in value])
    raise _NoLeafError


def _sorted(keys: Iterable[Any]) -> tuple[Any, ...]:
    """Keys in an order that does not depend on how the dict came about, whatever they are."""
    try:
        return tuple(sorted(keys))
    except TypeError:
        return tuple(sorted(keys, key=lambda key: (type(key).__name__, repr(key))))


def _complaint(tree: Any, name: str) -> str:
    path, value = next(_odd(tree, name), (name, tree))
    what = f"{path or 'the tree'} is {_short(value)}, and leaves must be Arrays"
    if isinstance(value, bool | int | float | np.generic):
        return f"{what}; write kw.array({value!r}, dtype='float32'), or bind it: lambda x: fn(x, {value!r})."
    if isinstance(value, str):
        return f"{what}; keep text out of the tree and bind it instead: lambda x: fn(x, {value!r})."
    if hasattr(value, "__dlpack__"):
        return f"{what}; write kw.from_dlpack(x) for another framework's tensor."
    return f"{what}, in dicts, lists, tuples and Modules; bind it instead: lambda x: fn(x, value)."


def _odd(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Path and value of what is no part of a tree."""
    if value is None or is_leaf(value):
        return
    if type(value) is dict:
        for key in _sorted(value):
            yield from _odd(value[key], f"{at}[{key!r}]")
    elif type(value) is list or (isinstance(value, tuple) and not hasattr(value, "_fields")):
        for number, part in enumerate(value):
            yield from _odd(part, f"{at}[{number}]")
    elif isinstance(value, tuple):
        for key, part in zip(value._fields, value, strict=True):  # type: ignore[attr-defined]
            yield from _odd(part, f"{at}.{key}")
    elif hasattr(type(value), "__tree__"):
        for key, part in vars(value).items():
            if holds_leaf(part):
                yield from _odd(part, f"{at}.{key}".lstrip("."))
    else:
        yield at, value


def _kind_name(structure: Structure) -> str:
    return "a leaf" if structure is LEAF else "None" if structure is _NONE else f"a {structure.kind.__name__}"


def _short(value: Any) -> str:
    text = repr(value)
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" + (f" ({text})" if len(text) <= 40 else "")
