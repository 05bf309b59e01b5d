"""The lines that `explain` adds for a call on a GPU: device, the code that would run, and the runners-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..explain import config_text, duration_text
from . import device

if TYPE_CHECKING:
    from ..dispatch import Choice

_MOST_OTHERS = 3  # configurations that are listed beside the chosen one


def lines(choice: Choice, place: str) -> list[str]:
    """What is worth knowing of a choice on a GPU beside its table of candidates.

    Args:
        choice: the choice.
        place: its device, such as `"cuda:0"`.
    """
    facts = device.facts(place)
    told = [f"  on {facts}"]
    if choice.kernel is None:
        return told
    try:
        launch = choice.bind()
    except Exception as error:  # an explanation is asked for when something is wrong: say what
        return [*told, f"  {choice.kernel.id} cannot be bound: {type(error).__name__}: {error}"]
    codes = getattr(launch, "codes", None)
    if codes is not None:
        try:
            told += [
                f"  code: {code}; {_grid(launch, step)}" for step, code in enumerate(codes(facts.capability))
            ]
        except Exception as error:
            told.append(f"  its code cannot be read here: {type(error).__name__}: {error}")
    return told + _others(choice)


def _grid(launch: Any, place: int) -> str:
    """The grid of a step in words."""
    steps = getattr(launch, "steps", ())
    if place >= len(steps):
        return "grid not told"
    step = steps[place]
    return f"{' x '.join(map(str, step.grid))} programs of {step.warps} warps"


def _others(choice: Choice) -> list[str]:
    """The chosen kernel's other configurations, with the time that its model predicts for each."""
    kernel = choice.kernel
    assert kernel is not None
    known = [
        c for c in kernel.configurations(choice.specs, choice.attrs, choice.threads) if c != choice.config
    ]
    if not known:
        return ["  the kernel has no other configuration for this call"]
    timed = [(kernel.predict(choice.specs, choice.attrs, config, choice.threads), config) for config in known]
    rows = sorted(timed, key=lambda row: (row[0] is None, row[0] or 0.0))
    told = []
    for seconds, config in rows[:_MOST_OTHERS]:
        time = "no prediction" if seconds is None else f"{duration_text(seconds)} predicted"
        told.append(f"  not {{{config_text(config)}}}: {time}")
    left = len(rows) - len(told)
    return [*told, f"  and {left} more configurations"] if left > 0 else told
