"""What a run paid once: first calls, compilation, and whether tuning chose the configurations."""

from __future__ import annotations

from collections.abc import Sequence

from ..store import Case
from . import text


def once_lines(cases: Sequence[Case]) -> list[str]:
    """Sentences for the report; none of a run that called nothing."""
    called = [case for case in cases if case.first_call_s is not None]
    if not called:
        return []
    total = sum(case.first_call_s or 0.0 for case in called)
    compiled, loaded = sum(c.compiled for c in called), sum(c.loaded for c in called)
    compile_s, load_s = sum(c.compile_s or 0.0 for c in called), sum(c.load_s or 0.0 for c in called)
    slowest = max(called, key=lambda case: case.first_call_s or 0.0)
    parts = []
    if compiled:
        parts.append(f"{text.seconds(compile_s)} compiling {text.plural(compiled, 'function')}")
    if loaded:
        parts.append(f"{text.seconds(load_s)} loading {text.plural(loaded, 'function')}")
    of_it = f", of it {' and '.join(parts)}" if parts else ""
    tuned = sum(case.tuned for case in called)
    return [
        f"First calls, not in the times above: {text.seconds(total)} in {text.plural(len(called), 'case')}"
        f"{of_it}; the longest {text.seconds(slowest.first_call_s)} ({slowest.problem.name}).",
        f"Tuning: {tuned} of {text.plural(len(called), 'case')} ran a configuration that was measured "
        "before; `kernelwright tune` says what a search takes.",
    ]
