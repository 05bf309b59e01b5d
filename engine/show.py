"""What a plan looks like, for people: a table of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .memory import Place

if TYPE_CHECKING:
    from .lower import Call

WIDEST = 58
"""Columns of the table are cut there."""


def plan_text(plan: Any) -> str:
    """One line a step: kernel, results, where they go, work; measured time and share of the roof, if
    profiled."""
    profiled = bool(plan.seconds)
    head = ["step", "kernel", "result", "to", "kFLOP", "KiB", *(["us", "roof"] if profiled else []), "line"]
    rows = [head, *(_row(plan, number, call, profiled) for number, call in enumerate(plan.calls))]
    widths = [min(WIDEST, max(len(row[i]) for row in rows)) for i in range(len(head))]
    lines = ["  ".join(_cell(word, w) for word, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(plan.how())
    if profiled:
        lines.append(f"the fastest of each step add up to {1e6 * sum(plan.seconds):,.1f} us")
    return "\n".join(lines)


def _row(plan: Any, number: int, call: Call, profiled: bool) -> list[str]:
    cost = call.node.cost
    row = [
        str(number),
        call.kernel_id,
        ", ".join(str(place.spec).removesuffix("@cpu") for place in call.outputs),
        ", ".join(_where(place) for place in call.outputs),
        f"{cost.flops / 1e3:.1f}",
        f"{cost.bytes / 1024:.1f}",
    ]
    if profiled:
        from .profile import share_of_roof

        seconds = plan.seconds[number]
        dtype = call.outputs[0].spec.dtype if call.outputs else "float32"
        share = share_of_roof(cost.flops, cost.bytes, dtype, seconds, plan)
        row += [f"{1e6 * seconds:.1f}", f"{100 * share:.0f}%"]
    return [*row, call.node.where]


def _cell(word: str, width: int) -> str:
    return word.ljust(width) if len(word) <= width else word[: width - 3] + "..."


def _where(place: Place) -> str:
    buffer = place.buffer
    return f"arena+{buffer.offset}" if buffer.kind == "arena" else f"{buffer.kind} {buffer.number}"
