"""The arrays of a normalisation as steps along the axes of one view: x's, weight's, those of statistics.

The view is `form.Form.view`: x's own shape, or [N, G, C / G, ...] of groups. An array that lacks some of its
axes has steps of 0 there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...cuda.step import element_strides
from ...reduce.cuda.axes import row_major_steps
from ...spec import TensorSpec
from ..form import Form
from ..op import form_of

Steps = list[int]


class View:
    """A call's form and its arrays.

    Args:
        name: the op.
        x: the spec of x.
        attrs: of the call.
    """

    def __init__(self, name: str, x: TensorSpec, attrs: dict[str, object]) -> None:
        self.form: Form = form_of(name, x.shape, attrs)
        self.shape = self.form.view
        self._grouped = "groups" in attrs
        self._batch = "channel_axis" in attrs

    @property
    def kept(self) -> list[int]:
        """The axes along which statistics change."""
        return [place for place in range(len(self.shape)) if place not in self.form.axes]

    @property
    def of_parameters(self) -> list[int]:
        """The axes along which weight changes."""
        if self._grouped:
            return [1, 2]
        return self.kept if self._batch else list(self.form.axes)

    def full(self, spec: TensorSpec) -> Steps:
        """Of an array of x's shape."""
        steps = list(element_strides(spec))
        if self._grouped:
            steps[1:2] = [steps[1] * self.shape[2], steps[1]]
        return steps

    def parameter(self, spec: TensorSpec) -> Steps:
        """Of weight or bias."""
        return self._spread(spec, self.of_parameters, self._grouped)

    def statistic(self, spec: TensorSpec) -> Steps:
        """Of mean or rstd."""
        return self._spread(spec, self.kept, False)

    def _spread(self, spec: TensorSpec, over: Sequence[int], grouped: bool) -> Steps:
        steps = [0] * len(self.shape)
        if not spec.present or not spec.size:
            return steps
        own = list(element_strides(spec))
        if grouped:
            own = [own[0] * self.shape[2], own[0]]
        for place, step in zip(over, own, strict=True):
            steps[place] = step
        return steps

    def places(self) -> Steps:
        """Of a row-major array of parameters."""
        return row_major_steps(self.shape, self.of_parameters)

    def table(self) -> Steps:
        """Of a row-major array of statistics."""
        return row_major_steps(self.shape, self.kept)
