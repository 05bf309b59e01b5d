"""What `explain` asks of public functions whose arguments are not their op's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...kernels.op import Op

Prepared = tuple[Op, tuple[Any, ...], dict[str, Any]]


def prepared_by(prepare: Callable[..., Prepared], axes: int) -> Callable[..., Prepared]:
    """The `prepare` of a function for so many axes: its arguments, but `out`, as (op, inputs, attrs)."""

    def prepared(*args: Any, **kwargs: Any) -> Prepared:
        return prepare(axes, *args, **kwargs)

    return prepared
