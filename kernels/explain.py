"""The choice of a kernel in words: every candidate with its prediction, measurement and reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .op import Cost
from .settings import Settings

if TYPE_CHECKING:
    from .dispatch import Candidate, Choice
    from .kernel import Config


@dataclass(frozen=True)
class Explanation:
    """What runs a call, and what else could; `print` it.

    Attributes:
        choice: the choice, with its candidates.
        settings: what it was made under.
        missing: built-in kernel files that could not be loaded, one sentence each.
    """

    choice: Choice
    settings: Settings
    missing: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """The FLOP and bytes of the call."""
        choice = self.choice
        return choice.op.cost(choice.specs[: len(choice.op.inputs)], **choice.attrs)

    def __str__(self) -> str:
        choice, cost = self.choice, self.cost
        count = len(choice.op.inputs)
        inputs = [
            f"{name}: {spec}" for name, spec in zip(choice.op.inputs, choice.specs[:count], strict=True)
        ]
        attrs = [f"{name}={value!r}" for name, value in choice.attrs.items()]
        outputs = ", ".join(map(str, choice.specs[count:]))
        place = _place(choice)
        under = f"{choice.threads} thread{'s' if choice.threads > 1 else ''}" if place == "cpu" else place
        under += "" if self.settings.backend is None else f", backend {self.settings.backend!r}"
        ran = "the NumPy reference" if place == "cpu" else "nothing"
        ran = ran if choice.kernel is None else choice.kernel.id
        config = f" {{{config_text(choice.config)}}}" if choice.config else ""
        return "\n".join(
            [
                f"{choice.op.name}({', '.join(inputs + attrs)}) -> {outputs}",
                f"  {cost.flops:,} FLOP, {cost.bytes:,} bytes, {cost.intensity:.3g} FLOP/byte; {under}",
                f"  runs {ran}{config}: {choice.why}",
                describe_candidates(choice, self.missing),
                *([] if place == "cpu" else _on_gpu(choice, place)),
            ]
        )


def _place(choice: Choice) -> str:
    """The device of the call."""
    return next((spec.device for spec in choice.specs if spec.present), "cpu")


def _on_gpu(choice: Choice, place: str) -> list[str]:
    from .cuda.describe import lines

    return lines(choice, place)


def describe_candidates(choice: Choice, missing: Sequence[str] = ()) -> str:
    """A table with a line for each candidate, then a line for each built-in file that could not be loaded."""
    rows = [_row(candidate, candidate.kernel is choice.kernel) for candidate in choice.candidates]
    if _place(choice) != "cpu":
        behind = [_behind(candidate, choice) for candidate in choice.candidates]
        rows = [(*row[:-1], row[-1] or why) for row, why in zip(rows, behind, strict=True)]
    head = ("", "kernel", "configuration", "predicted", "measured", "")
    lines = (
        _aligned([head, *rows])
        if rows
        else [f"  no kernel of {choice.op.name} is registered for this device"]
    )
    lines += [f"  not loaded: {sentence}" for sentence in missing]
    return "\n".join(lines)


def _row(candidate: Candidate, chosen: bool) -> tuple[str, ...]:
    config = "" if candidate.config is None else config_text(candidate.config) or "-"
    return (
        ">" if chosen else "",
        candidate.kernel.id,
        config,
        duration_text(candidate.predicted_s),
        duration_text(candidate.tuned_s),
        candidate.reason_not or "",
    )


def _behind(candidate: Candidate, choice: Choice) -> str:
    """Why a kernel that could run the call was not chosen; "" for the one that was."""
    best = next((c for c in choice.candidates if c.kernel is choice.kernel), None)
    if best is None or candidate is best:
        return ""
    for what, theirs, ours in (
        ("measured", candidate.tuned_s, best.tuned_s),
        ("predicted", candidate.predicted_s, best.predicted_s),
    ):
        ranked = what == "predicted" and max(candidate.kernel.rank, best.kernel.rank) > 0
        if theirs is not None and ours and not ranked:
            return f"{what} to take {theirs / ours:.2f} times as long"
    return f"of rank {candidate.kernel.rank}, the chosen of rank {best.kernel.rank}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def config_text(config: Config) -> str:
    """`mc=96 kc=384`."""
    return " ".join(f"{name}={value}" for name, value in config.items())


def duration_text(seconds: float | None) -> str:
    """A time with three digits and its unit: `1.23 us`; '' for None."""
    if seconds is None:
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
