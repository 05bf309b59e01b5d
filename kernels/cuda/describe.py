"""The lines that `explain` adds for a call on a GPU: device, the code that would run, and the runners-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import tuning
from ..explain import config_text, duration_text
from . import device, tables
from .problem_class import on_device

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
    told = [f"  on {facts}", _times(choice, place)]
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


def _times(choice: Choice, place: str) -> str:
    """How many times are known of calls like this one, and from where."""
    key = tuning.key_of(choice.op, choice.specs, choice.attrs)
    own = len(tuning.default_cache().find(key, 1))
    table = tables.of_device(on_device(place))
    shipped = len(tables.find(key))
    if table is None:
        there = "no table is shipped for this GPU"
    else:
        there = f"{shipped or 'none'} of such calls shipped in {table}"
    return f"  times: {own or 'none'} measured here; {there}"


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
