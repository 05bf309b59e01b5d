"""Module: a layer or a model as an immutable tree of Arrays, called like a function.

    class Net(nn.Module):
        def __init__(self, key):
            first, second = kw.random.split(key)
            self.hidden = nn.Linear(64, 128, key=first)
            self.out = nn.Linear(128, 10, key=second)

        def __call__(self, x):
            return self.out(kw.relu(self.hidden(x)))

Attributes are set in `__init__` and never again: a changed Module is another, `net.replace(out=other)`. That
is what lets a model be compiled, differentiated and updated as the tree of Arrays that it is. What a layer
needs only in training (keys for dropout, a place for new running statistics) comes from `nn.training`, not
from a switch in the model: a plain call is always inference.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from ...kernels.errors import ConfigError
from ...kernels.spec import TensorSpec, dtype_name
from .. import tree
from ..array import Array, array, from_dlpack
from ..checkpoint import check_names, check_same


class Module:
    """Base of layers and models. Attributes that are Arrays, Modules, or lists, tuples and dicts of them are
    children; everything else (numbers, text, functions) is static and must be hashable.

    A subclass may name attributes in `buffers` that training does not change by their gradient (running
    statistics), and one in `inline` whose parts count as the Module's own in names.
    """

    __slots__ = ("__dict__", "__weakref__", "_fixed", "_flat")

    buffers: ClassVar[tuple[str, ...]] = ()
    inline: ClassVar[str | None] = None

    _flat: tuple[list[Any], tree.Structure]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" not in vars(cls):
            return
        init = cls.__init__

        @functools.wraps(init)
        def fixing(self: Module, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            if type(self).__init__ is fixing:  # not yet when it is a base's __init__ that has ended
                self._fix()

        cls.__init__ = fixing  # type: ignore[assignment, method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        if getattr(self, "_fixed", False):
            raise ConfigError(
                f"{type(self).__name__}.{name} cannot be set: a Module does not change after __init__. Write "
                f"model = model.replace({name}=...), which is a new one with everything else the same."
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"{type(self).__name__}.{name} cannot be deleted: a Module does not change.")

    def _fix(self) -> None:
        attributes = vars(self)
        for name, value in attributes.items():
            if isinstance(value, list | dict):
                attributes[name] = _fixed(value)
        object.__setattr__(self, "_fixed", True)

    def replace(self, **changes: Any) -> Self:
        """This Module with other values for some of its attributes.

        Raises:
            ConfigError: for an attribute that it does not have.
        """
        unknown = next((name for name in changes if name not in vars(self)), None)
        if unknown is not None:
            raise ConfigError(f"{type(self).__name__} has no {unknown!r}; it has {', '.join(vars(self))}.")
        return self._made({**vars(self), **changes})

    @classmethod
    def _made(cls, attributes: Mapping[str, Any]) -> Self:
        made = object.__new__(cls)
        vars(made).update(attributes)
        made._fix()
        return made

    def __tree__(self) -> tuple[list[Any], tree.Structure]:
        known: tuple[list[Any], tree.Structure] | None = getattr(self, "_flat", None)
        if known is None:
            self._fix()
            known = tree.by_attribute(self)
            object.__setattr__(self, "_flat", known)
        return known

    @classmethod
    def __from_tree__(cls, structure: tree.Structure, children: list[Any], leaves: list[Any] | None) -> Self:
        made = object.__new__(cls)
        made.__dict__.update(zip(structure.keys, children, strict=True))
        _set_fixed(made, True)
        if leaves is not None and all(isinstance(leaf, Array) for leaf in leaves):
            _set_flat(made, (leaves, structure))
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: dict(value) if isinstance(value, MappingProxyType) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._fix()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_inner(vars(self).items())})"


# Past __setattr__: a compiled step makes every Module of a model anew.
_set_fixed, _set_flat = Module._fixed.__set__, Module._flat.__set__  # type: ignore[attr-defined]


def _fixed(value: Any) -> Any:
    """Lists as tuples and dicts as read-only ones, so that what is known of a Module stays true."""
    if type(value) in (list, tuple):
        return tuple(_fixed(part) for part in value)
    return MappingProxyType({k: _fixed(v) for k, v in value.items()}) if type(value) is dict else value


def _inner(items: Any) -> str:
    lines = []
    for name, value in items:
        if isinstance(value, tuple) and any(isinstance(part, Module) for part in value):
            lines += [f"{name}[{number}]={part!r}" for number, part in enumerate(value)]
        else:
            lines.append(f"{name}={_told(value)}")
    text = ", ".join(lines)
    if "\n" not in text and len(text) <= 80:
        return text
    return "\n" + ",\n".join("  " + line.replace("\n", "\n  ") for line in lines) + "\n"


def _told(value: Any) -> str:
    if isinstance(value, Array | np.ndarray):
        return str(TensorSpec(value.shape, dtype_name(value.dtype))).partition("@")[0]
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


def modules(model: Any) -> Iterator[Module]:
    """Every Module in a tree, the outer ones first."""
    if isinstance(model, Module):
        yield model
        model = vars(model)
    if isinstance(model, list | tuple | Mapping):
        for part in model.values() if isinstance(model, Mapping) else model:
            yield from modules(part)


def state_dict(model: Any) -> dict[str, Array]:
    """The Arrays of a model by name, `{"layers.0.weight": Array, ...}`, as PyTorch names them."""
    leaves, structure = tree.flatten(model)
    return dict(zip(structure.paths(dotted=True), leaves, strict=True))


def load_state(model: Any, state: Mapping[str, Any]) -> Any:
    """The model with its Arrays taken from `state`, a name each, as `state_dict` gives them; each is on the
    device of the one before.

    Raises:
        ConfigError: for names that are missing, or that the model does not have.
        ShapeError, DTypeError: for an array unlike the one of that name; nothing is converted.
    """
    mine = state_dict(model)
    check_names(mine, state, "the state")
    for name, old in mine.items():
        check_same(name, state[name], old, "the state")
    return tree.flatten(model)[1].unflatten(
        array(state[name], device=old.device) for name, old in mine.items()
    )


def from_torch_state_dict(model: Any, state: Mapping[str, Any]) -> Any:
    """The model with its Arrays copied from `torch_model.state_dict()`; attributes of the two must have the
    same names. Batch norms' `num_batches_tracked`, which nothing here uses, is left aside.

    Raises:
        ConfigError, ShapeError, DTypeError: as `load_state`.
    """
    kept = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    return load_state(model, {k: from_dlpack(v.detach().cpu().contiguous()) for k, v in kept.items()})


def cast(model: Any, dtype: Any) -> Any:
    """The model with its trainable floating-point Arrays in another dtype; buffers stay as they are.

    Within a function that is differentiated, gradients come back in the dtype of the original.
    """
    leaves, structure = tree.flatten(model)
    return structure.unflatten(
        leaf.astype(dtype) if change and tree.is_float(leaf) else leaf
        for leaf, change in zip(leaves, structure.trainable(), strict=True)
    )


class Rest(Module):
    """What `partition` leaves of a model: its structure, and the Arrays that are not trained."""

    def __init__(self, structure: tree.Structure, kept: tuple[Any, ...]) -> None:
        self.structure, self.kept = structure, kept


def partition(model: Any) -> tuple[tuple[Array, ...], Rest]:
    """The trainable Arrays of a model, and what is left: `combine(params, rest)` is the model again.

    Trainable are floating-point Arrays that are no Module's buffer. Both parts are trees, so that a loss can
    be differentiated by the parameters alone: `kw.grad(lambda params: loss(nn.combine(params, rest)))`.
    """
    leaves, structure = tree.flatten(model, "model")
    flags = [yes and tree.is_float(leaf) for leaf, yes in zip(leaves, structure.trainable(), strict=True)]
    params = tuple(leaf for leaf, yes in zip(leaves, flags, strict=True) if yes)
    return params, Rest(structure, tuple(None if yes else x for x, yes in zip(leaves, flags, strict=True)))


def combine(params: Sequence[Any], rest: Rest) -> Any:
    """The model that `partition` took apart, with these parameters."""
    given = iter(params)
    return rest.structure.unflatten(next(given) if leaf is None else leaf for leaf in rest.kept)
