"""What a plan looks like, for people: a table of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .memory import Place

if TYPE_CHECKING:
    from .plan import Plan


def plan_text(plan: Plan) -> str:
    """One line a step: the kernel, the results, where they go, FLOP and bytes; measured time when there is
    one."""
    rows = [("step", "kernel", "result", "to", "kFLOP", "KiB", "line")]
    for number, call in enumerate(plan.calls):
        kernel = call.choice.kernel.id if call.choice.kernel is not None else f"{call.node.op.name}/reference"
        cost = call.node.cost
        results = ", ".join(str(place.spec).removesuffix("@cpu") for place in call.outputs)
        to = ", ".join(_where(place) for place in call.outputs)
        rows.append(
            (
                str(number),
                kernel,
                results,
                to,
                f"{cost.flops / 1e3:.1f}",
                f"{cost.bytes / 1024:.1f}",
                call.node.where,
            )
        )
    widths = [min(60, max(len(row[i]) for row in rows)) for i in range(len(rows[0]))]
    lines = [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.append(
        f"{len(plan.calls)} steps, arena {plan.arena_bytes:,} bytes (lower bound "
        f"{plan.arena_lower_bound:,}), scratch {plan.scratch_bytes:,} bytes, {plan.threads} threads"
    )
    return "\n".join(lines)


def _where(place: Place) -> str:
    buffer = place.buffer
    return f"arena+{buffer.offset}" if buffer.kind == "arena" else f"{buffer.kind} {buffer.number}"
