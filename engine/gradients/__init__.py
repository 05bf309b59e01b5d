"""Gradient rules: how the gradient of an op's results becomes the gradient of its inputs, a file a family.

A rule is written with public functions, so one rule serves eager and compiled gradients, and the gradient of
a gradient wherever the functions that it uses have rules themselves:

    @gradient("exp")
    def exp(grads, inputs, outputs, attrs):
        return (grads[0] * outputs[0],)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from ...kernels.op import Op
from ..array import Array

Grads = Sequence[Array | None]
Rule = Callable[[Any, Any, Any, Mapping[str, Any]], Sequence[Array | None]]
R = TypeVar("R", bound=Callable[..., Any])

RULES: dict[str, Rule] = {}


def gradient(name: str) -> Callable[[R], R]:
    """Declare the gradient rule of the op called `name`.

    The rule is `rule(grads, inputs, outputs, attrs) -> one Array or None for each input`: `grads` has the
    gradient of each output, None where there is none; `inputs` and `outputs` are the op's own, None for an
    input that was left out; None in the result says that an input has no gradient.
    """

    def add(rule: R) -> R:
        RULES[name] = rule
        return rule

    return add


def rule_of(op: Op) -> Rule | None:
    """The rule of an op, or None. The file of its family, here, is imported when it is first asked for."""
    found = RULES.get(op.name)
    if found is None and find_spec(f".{op.family}", __name__) is not None:
        import_module(f".{op.family}", __name__)
        found = RULES.get(op.name)
    return found
