"""What the inputs of attention must be, with the texts that a user reads when they are not."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import DTypeError, ShapeError
from ..spec import TensorSpec


class Sizes(NamedTuple):
    """The letters of the formula: `lead` axes, query heads and key heads, and what each head has.

    `lead` are the axes before those of heads, lengths and features; without an axis of heads, both are 1.
    """

    lead: tuple[int, ...]
    heads: int
    key_heads: int
    l: int  # noqa: E741  rows of query
    s: int  # rows of key and value
    e: int  # features of query and key
    ev: int  # features of value

    @property
    def group(self) -> int:
        """How many heads of query share one of key and value."""
        return self.heads // self.key_heads if self.key_heads else 1


def sizes(op: str, query: TensorSpec, key: TensorSpec, value: TensorSpec) -> Sizes:
    """The sizes of a call.

    Raises:
        ShapeError: where the shapes do not fit each other.
    """
    named = {"query": query, "key": key, "value": value}
    for name, spec in named.items():
        if spec.ndim < 2:
            raise ShapeError(f"{op}: {name} is {spec}; it takes two axes or more: [..., length, features].")
    if not query.ndim == key.ndim == value.ndim:
        told = ", ".join(f"{name} {list(spec.shape)}" for name, spec in named.items())
        raise ShapeError(f"{op}: query, key and value have the same number of axes, got {told}.")
    if query.shape[-1] != key.shape[-1]:
        raise ShapeError(
            f"{op}: query is {query} and key is {key}: their rows have {query.shape[-1]} and {key.shape[-1]} "
            "features, which must be equal."
        )
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"{op}: key is {key} and value is {value}: they have {key.shape[-2]} and {value.shape[-2]} rows, "
            "which must be equal."
        )
    if query.shape[:-3] != key.shape[:-3] or key.shape[:-2] != value.shape[:-2]:
        raise ShapeError(
            f"{op}: query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)} differ in "
            "their leading axes; kw.broadcast_to repeats one without a copy."
        )
    heads, key_heads = (query.shape[-3], key.shape[-3]) if query.ndim > 2 else (1, 1)
    if heads != key_heads and (key_heads == 0 or heads % key_heads):
        raise ShapeError(
            f"{op}: query has {heads} heads, which is no multiple of the {key_heads} of key and value "
            f"(query {list(query.shape)}, key {list(key.shape)})."
        )
    length, (rows, features) = query.shape[-2], key.shape[-2:]
    return Sizes(query.shape[:-3], heads, key_heads, length, rows, features, value.shape[-1])


def check_mask(op: str, mask: TensorSpec, query: TensorSpec, key: TensorSpec) -> None:
    """Refuse a mask that cannot be repeated to [..., heads, L, S], or of another dtype.

    Raises:
        ShapeError, DTypeError: with what would do.
    """
    if not mask.present:
        return
    if mask.dtype not in ("bool", query.dtype):
        raise DTypeError(
            f"{op}: mask is {mask}; it is bool (True: takes part) or of query's dtype, {query.dtype} (added "
            f"to the scores); write mask.astype({query.dtype!r})."
        )
    full = (*query.shape[:-1], key.shape[-2])
    fits = len(mask.shape) <= len(full) and all(
        length in (1, wanted) for length, wanted in zip(mask.shape[::-1], full[::-1], strict=False)
    )
    if not fits:
        raise ShapeError(f"{op}: mask is {mask}, which cannot be repeated to the scores' shape {list(full)}.")


def repeated_strides(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The byte strides with which an array is read as if it had `shape`: 0 where it is repeated."""
    missing = len(shape) - spec.ndim
    inner = [0 if length == 1 else stride for length, stride in zip(spec.shape, spec.strides, strict=True)]
    return (0,) * missing + tuple(inner)
