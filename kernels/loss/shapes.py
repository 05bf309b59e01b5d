"""What the inputs of losses by labels must be, with the texts that a user reads when they are not."""

from __future__ import annotations

from ..errors import DTypeError, ShapeError
from ..spec import TensorSpec

LABELS = ("int64", "int32", "int16", "int8", "uint8")
"""The dtypes that labels and lengths may have."""


def sums_dtype(dtype: str) -> str:
    """What sums are kept in for inputs of a dtype."""
    return "float64" if dtype == "float64" else "float32"


def class_axis(x: TensorSpec) -> int:
    """Which axis of scores holds the classes: 0 of [C], 1 of [N, C, ...]."""
    return 0 if x.ndim == 1 else 1


def without_classes(op: str, x: TensorSpec) -> tuple[int, ...]:
    """The shape of one number for each row of scores.

    Raises:
        ShapeError: for a number alone.
    """
    if not x.ndim:
        raise ShapeError(f"{op}: x is {x}, a number alone; it takes scores [C] or [N, C, ...].")
    axis = class_axis(x)
    return x.shape[:axis] + x.shape[axis + 1 :]


def check_labels(op: str, x: TensorSpec, target: TensorSpec) -> None:
    """Refuse labels that do not fit the scores.

    Raises:
        DTypeError: for labels that are no whole numbers.
        ShapeError: for another shape than that of the scores without the axis of classes.
    """
    if target.dtype not in LABELS:
        raise DTypeError(
            f"{op}: target is {target}; labels are whole numbers ({', '.join(LABELS)}): write "
            "target.astype('int64')."
        )
    wanted = without_classes(op, x)
    if target.shape != wanted:
        raise ShapeError(
            f"{op}: x is {x}, so the labels have the shape {list(wanted)}, but target is {target}."
        )


def check_weight(op: str, classes: int, weight: TensorSpec) -> None:
    """Refuse weights that are not one for each class.

    Raises:
        ShapeError: for another shape.
    """
    if weight.present and weight.shape != (classes,):
        raise ShapeError(f"{op}: weight is {weight}, but there are {classes} classes: write [{classes}].")


def check_lengths(op: str, name: str, spec: TensorSpec, batch: int) -> None:
    """Refuse lengths that are not one whole number for each sequence.

    Raises:
        DTypeError, ShapeError: with what would do.
    """
    if spec.dtype not in LABELS:
        raise DTypeError(f"{op}: {name} is {spec}; it holds whole numbers ({', '.join(LABELS)}).")
    if spec.shape != (batch,):
        raise ShapeError(f"{op}: {name} is {spec}, but there are {batch} sequences: write [{batch}].")
