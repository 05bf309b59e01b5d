"""Gradient rules: a file a family of operations, found by the family's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}


def gradient(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares the gradient rule of the op called `name`: `rule(grads, inputs, outputs, attrs)`."""

    def add(rule: Callable[..., Any]) -> Callable[..., Any]:
        RULES[name] = rule
        return rule

    return add
