"""Trees of Arrays: dicts, lists, tuples, named tuples, None and Modules, with arrays as leaves.

    leaves, structure = flatten({"w": w, "b": [b, None]})        # [b, w], {"b": [*, None], "w": *}
    structure.unflatten(leaves)                                   # the same tree
    structure.paths("params")                                     # ["params['b'][0]", "params['w']"]

A structure is what is left of a tree without its leaves: hashable, compared by value, so that a function can
be compiled once for each. A class joins by two methods, as `nn.Module` does: `__tree__`, which gives an
instance's leaves and structure (`by_attribute` finds them), and the class method `__from_tree__(structure,
children, leaves)`, which makes an instance of its children; leaves are all those below, which an instance may
remember, or None in a part of a larger one.

Compiled steps take trees apart and build them at every call, so equal structures are one object where they
are made here, found by the identity of their children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ..kernels.errors import DTypeError, ShapeError
from .array import Array, asarray, is_on_gpu

_NoneType = type(None)
_PLAIN = (list, tuple, dict, MappingProxyType)


class Static:
    """The kind of a value inside a Module that is no array: it belongs to the structure."""


class Structure:
    """A tree without its leaves: the kind of node, its keys and children, or a static value."""

    __slots__ = ("_fill", "_id", "_joined", "_template", "children", "flat", "keys", "kind", "size", "static")

    def __init__(
        self, kind: Any, keys: tuple[Any, ...] = (), children: Sequence[Structure] = (), static: Any = None
    ) -> None:
        self.kind, self.keys, self.children, self.static = kind, keys, tuple(children), static
        self.size: int = 1 if kind is Array else sum(child.size for child in self.children)
        self.flat = all(child.kind is Array for child in self.children)
        # For `_built`: what is the same in every tree, and where the rest goes: number, child, first leaf.
        self._joined = hasattr(kind, "__from_tree__")
        self._template = [child.static for child in self.children]
        self._fill: list[tuple[int, Structure, int]] = []
        at = 0
        for number, child in enumerate(self.children):
            if child.kind is not Static and child.kind is not _NoneType:
                self._fill.append((number, child, at))
            at += child.size
        # 1, 1.0 and True are equal to Python, and three values to whoever compiles.
        value = frozenset(static) if isinstance(static, set) else static
        what = (kind, keys, self.children, type(static), value)
        self._id = (hash(what), what)

    def __hash__(self) -> int:
        return self._id[0]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Structure) and self._id == other._id)

    def __repr__(self) -> str:
        if self is LEAF:
            return "*"
        if self.kind in (Static, _NoneType):
            return repr(self.static)
        if self.kind in (list, tuple):
            inner = ", ".join([repr(child) for child in self.children])
            return f"[{inner}]" if self.kind is list else f"({inner}{',' * (len(self.children) == 1)})"
        if self.kind in (dict, MappingProxyType):
            return "{" + ", ".join(f"{k!r}: {c!r}" for k, c in self.items()) + "}"
        return f"{self.kind.__name__}({', '.join(f'{k}={c!r}' for k, c in self.items())})"

    def items(self) -> Iterator[tuple[Any, Structure]]:
        """Keys, names or numbers, and what is there."""
        return zip(self.keys or range(len(self.children)), self.children, strict=True)

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The tree with these leaves, which may be any objects, in the order of `flatten`.

        Raises:
            ShapeError: when there are more or fewer of them than places.
        """
        leaves = list(leaves)
        if len(leaves) != self.size:
            raise ShapeError(f"a tree of {self.size} leaves cannot be made of {len(leaves)}: {self!r}.")
        return leaves[0] if self is LEAF else self._built(leaves, 0)

    def take(self, value: Any, into: list[Any]) -> bool:
        """Append what is at the leaves of `value`; False when it is no tree of this structure, or might be
        one only by a closer look. Quicker than `flatten`, for trees that are nearly always as the last one
        was; leaves are not looked at.
        """
        kind = self.kind
        if type(value) is not kind:
            return False
        if kind is tuple or kind is list:
            parts = value
        elif kind is dict:
            parts = [value.get(key) for key in self.keys]
        elif kind is _NoneType:
            return True
        elif (known := getattr(value, "__tree__", None)) is not None:
            more, structure = known()
            into += more
            return structure is self or structure == self
        else:
            return False
        if len(value) != len(self.children):
            return False
        if self.flat:
            into += parts
            return True
        for child, part in zip(self.children, parts, strict=True):
            if child is LEAF:
                into.append(part)
            elif not child.take(part, into):
                return False
        return True

    def _built(self, leaves: list[Any], start: int, inside: bool = False) -> Any:
        kind, joined = self.kind, self._joined
        if self.flat:
            parts = leaves[start : start + self.size]
        else:
            parts = self._template.copy()
            for number, child, at in self._fill:
                at += start
                parts[number] = leaves[at] if child is LEAF else child._built(leaves, at, joined or inside)
        if joined:
            return kind.__from_tree__(self, parts, None if inside else leaves[start : start + self.size])
        if kind is tuple:
            return tuple(parts)
        if kind is list:
            return parts
        if kind is dict:
            return dict(zip(self.keys, parts, strict=True))
        if kind is MappingProxyType:
            return MappingProxyType(dict(zip(self.keys, parts, strict=True)))
        return self.static if kind is Static or kind is _NoneType else kind(*parts)

    def paths(self, root: str = "", dotted: bool = False) -> list[str]:
        """What each leaf is called in Python, as in `model.layers[0].weight`.

        Args:
            root: what the tree is called.
            dotted: keys and numbers as attributes too, `layers.0.weight`: the names of a state_dict.
        """
        return [path for path, node in self._named(root, dotted) if node is LEAF]

    def _named(self, at: str, dotted: bool = False) -> Iterator[tuple[str, Structure]]:
        yield at, self
        for key, child in self.items():
            yield from child._named(self._below(at, key, dotted), dotted)

    def _below(self, at: str, key: Any, dotted: bool = False) -> str:
        if key == getattr(
            self.kind, "inline", None
        ):  # its parts are the node's own: model[0], not .layers[0]
            return at
        if self.kind in _PLAIN and not dotted:
            return f"{at}[{key!r}]"
        return f"{at}.{key}" if at else str(key)

    def trainable(self) -> list[bool]:
        """For each leaf, whether training changes it by its gradient: False below a Module's `buffers`."""
        if self is LEAF:
            return [True]
        buffers = getattr(self.kind, "buffers", ())
        return [yes and key not in buffers for key, child in self.items() for yes in child.trainable()]

    def difference(self, other: Structure, root: str = "") -> str:
        """Where another structure first differs from this one, as a sentence's end; "" when nowhere."""
        if self == other:
            return ""
        at = root or "the tree"
        if (self.kind, self.static) != (other.kind, other.static) or self.kind is Static:
            return f"{at} is {self._told()} in one and {other._told()} in the other"
        if len(self.children) != len(other.children) or self.keys != other.keys:
            mine, theirs = [k for k, _ in self.items()], [k for k, _ in other.items()]
            return f"{at} has {mine} in one and {theirs} in the other"
        pairs = zip(self.items(), other.children, strict=True)
        return next(
            found for (key, child), twin in pairs if (found := child.difference(twin, self._below(root, key)))
        )

    def _told(self) -> str:
        if self is LEAF:
            return "an array"
        return repr(self.static) if self.kind in (Static, _NoneType) else f"a {self.kind.__name__}"


LEAF = Structure(Array)
_NONE = Structure(_NoneType)
_ARRAYS = (Array, np.ndarray)

_MOST = 4096
_made: dict[Any, Structure] = {}


def _node(kind: Any, keys: tuple[Any, ...], children: list[Structure]) -> Structure:
    """The structure of this kind, keys and children; the same object as before, if they are."""
    key = (kind, keys, *[id(child) for child in children])
    found = _made.get(key)
    if found is None:
        if len(_made) >= _MOST:
            _made.clear()
        found = _made[key] = Structure(kind, keys, children)
    return found


def flatten(tree: Any, name: str = "") -> tuple[list[Any], Structure]:
    """The leaves of a tree and what is left of it without them; dicts in the order of their sorted keys.

    Args:
        tree: an Array, a NumPy array, a torch CUDA tensor, None, or any nesting of dict, list, tuple, named
        tuple and Module.
        name: what the tree is called in errors, such as "params".

    Raises:
        DTypeError: for a leaf that is no array, with its path.
    """
    leaves: list[Any] = []
    try:
        return leaves, _flatten(tree, leaves, inside=False)
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


def to_device(tree: Any, device: str) -> Any:
    """The tree with every Array on a device: those that are there already as they are, the others copied.

    Args:
        tree: a model, an optimizer's state, or any other tree of Arrays.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`.

    Raises:
        DTypeError: for a leaf that is no array.
        DeviceError: for a device that is not there.
    """
    return map(lambda leaf: asarray(leaf, device=device), tree)


def by_attribute(instance: Any) -> tuple[list[Any], Structure]:
    """Leaves and structure of an object by its attributes; what is no array there is static.

    Raises:
        DTypeError: for a static value that cannot be hashed, and so cannot tell two structures apart.
    """
    into: list[Any] = []
    try:
        parts = [_flatten(value, into, inside=True) for value in vars(instance).values()]
    except _NoLeafError:
        raise DTypeError(_complaint(instance, type(instance).__name__)) from None
    return into, _node(type(instance), tuple(vars(instance)), parts)


def is_float(leaf: Any) -> bool:
    """Whether an array holds floating-point numbers: what can be trained."""
    return bool(leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16")


class _NoLeafError(Exception):
    """Something in a tree has no place there; where, a second and slower walk finds out."""


def _flatten(value: Any, into: list[Any], inside: bool) -> Structure:
    """The structure of `value`, its leaves appended; `inside` a Module, other values are static."""
    kind = type(value)
    if kind is Array or isinstance(value, _ARRAYS):
        into.append(value)
        return LEAF
    if value is None:
        return _NONE
    if kind is tuple or kind is list:
        return _node(kind, (), [_flatten(part, into, inside) for part in value])
    if kind is dict or kind is MappingProxyType:
        keys = _sorted(value)
        return _node(kind, keys, [_flatten(value[key], into, inside) for key in keys])
    known = getattr(value, "__tree__", None) if not isinstance(value, type) else None
    if known is not None:
        leaves, structure = known()
        into += leaves
        return structure  # type: ignore[no-any-return]
    if hasattr(kind, "is_cuda") and is_on_gpu(value):
        into.append(value)
        return LEAF
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return _node(kind, kind._fields, [_flatten(part, into, inside) for part in value])
    if inside and _hashes(value):
        key = (Static, kind, frozenset(value) if isinstance(value, set) else value)
        return _made.get(key) or _made.setdefault(key, Structure(Static, static=value))
    raise _NoLeafError


def _sorted(keys: Iterable[Any]) -> tuple[Any, ...]:
    """Keys in an order that does not depend on how the dict came about, whatever they are."""
    try:
        return tuple(sorted(keys))
    except TypeError:
        return tuple(sorted(keys, key=lambda key: (type(key).__name__, repr(key))))


def _hashes(value: Any) -> bool:
    try:
        return isinstance(value, set) or bool(hash(value) or True)
    except TypeError:
        return False


def _complaint(tree: Any, name: str) -> str:
    path, value = next(_odd(tree, name, hasattr(tree, "__tree__")), (name, tree))
    what = f"{path or 'the tree'} is {_short(value)}, and leaves must be Arrays"
    if not _hashes(value):
        return f"{what}, what is static must be hashable; keep numbers, text, tuples or functions there."
    if isinstance(value, bool | int | float | np.generic):
        return f"{what}; write kw.array({value!r}, dtype='float32'), or bind it: lambda x: fn(x, {value!r})."
    if isinstance(value, str):
        return f"{what}; keep text out of the tree and bind it instead: lambda x: fn(x, {value!r})."
    if hasattr(value, "__dlpack__"):
        return f"{what}; write kw.from_dlpack(x) for another framework's tensor."
    return f"{what}, in dicts, lists, tuples and Modules; bind it instead: lambda x: fn(x, value)."


def _odd(value: Any, at: str, inside: bool) -> Iterator[tuple[str, Any]]:
    """Path and value of what is no part of a tree."""
    if value is None or isinstance(value, _ARRAYS) or is_on_gpu(value):
        return
    if hasattr(value, "__tree__") or hasattr(type(value), "_fields"):
        inside = inside or hasattr(value, "__tree__")
        names = vars(value) if inside else type(value)._fields
        for key in names:
            yield from _odd(getattr(value, key), f"{at}.{key}".lstrip("."), inside)
    elif isinstance(value, dict | list | tuple | MappingProxyType):
        keys = _sorted(value) if not isinstance(value, list | tuple) else range(len(value))
        for key in keys:
            yield from _odd(value[key], f"{at}[{key!r}]", inside)
    elif not (inside and _hashes(value)):
        yield at, value


def _short(value: Any) -> str:
    text, name = repr(value), type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" + (f" ({text})" if len(text) <= 40 else "")
