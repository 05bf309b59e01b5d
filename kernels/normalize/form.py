"""What the four norms have in common: along which axes x is normalised, and where weight and bias belong.

v = x in the shape `view`
mean, var      over `axes` of v
y = (v - mean) / sqrt(var + eps) * weight + bias       weight and bias in the shape `spread`

           view                axes                    parameters    statistics
layer      x's                 the last k              shape[-k:]    shape[:-k]
group      [N, G, C / G, ...]  all but N, G            [C]           [N, G]
batch      x's                 all but the channels'   [C]           [C]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ..errors import ShapeError
from ..reduce.axes import axis_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """Shapes of one normalisation; the letters are those of the table above.

    Attributes:
        view: the shape in which x is looked at.
        axes: of the view, that a mean is taken over.
        parameters: the shape of weight and bias.
        spread: the shape in which they meet the view.
        statistics: the shape of mean and rstd.
        kept: the shape in which these meet the view.
    """

    view: Shape
    axes: Shape
    parameters: Shape
    spread: Shape
    statistics: Shape

    @property
    def kept(self) -> Shape:
        return tuple(1 if i in self.axes else length for i, length in enumerate(self.view))

    @property
    def count(self) -> int:
        """Elements that share a mean."""
        return prod(self.view[i] for i in self.axes)

    @property
    def repeats(self) -> Shape:
        """The axes of the view along which one number of weight or bias is used again and again."""
        return tuple(i for i, length in enumerate(self.spread) if length == 1)


@lru_cache(maxsize=1024)
def layer(name: str, shape: Shape, axes: int) -> Form:
    """The form of layer and RMS normalisation over the last `axes` axes.

    Raises:
        ShapeError: for an x with fewer axes, or none to normalise.
    """
    if not 1 <= axes <= len(shape):
        raise ShapeError(
            f"{name}: x has shape {shape}, and {axes} axes at its end are to be normalised; write 1 to "
            f"{len(shape)}."
        )
    first = len(shape) - axes
    inner = shape[first:]
    return Form(shape, tuple(range(first, len(shape))), inner, (*(1,) * first, *inner), shape[:first])


@lru_cache(maxsize=1024)
def group(name: str, shape: Shape, groups: int) -> Form:
    """The form of group normalisation; x: [N, C, ...].

    Raises:
        ShapeError: for an x without channels, or channels that do not make up so many groups.
    """
    if len(shape) < 2:
        raise ShapeError(f"{name}: x has shape {shape}, but it is [N, C, ...].")
    n, c = shape[:2]
    if groups < 1 or c % groups:
        raise ShapeError(f"{name}: {c} channels do not make up {groups} groups; write a divisor of {c}.")
    view = (n, groups, c // groups, *shape[2:])
    spread = (1, groups, c // groups, *(1,) * (len(shape) - 2))
    return Form(view, tuple(range(2, len(view))), (c,), spread, (n, groups))


@lru_cache(maxsize=1024)
def batch(name: str, shape: Shape, channel_axis: int) -> Form:
    """The form of batch normalisation.

    Raises:
        ShapeError: for an axis that x does not have.
    """
    if not shape:
        raise ShapeError(f"{name}: x has no axes, but it is [N, C, ...].")
    at = axis_of(name, len(shape), channel_axis)
    spread = tuple(length if i == at else 1 for i, length in enumerate(shape))
    axes = tuple(i for i in range(len(shape)) if i != at)
    return Form(shape, axes, (shape[at],), spread, (shape[at],))
