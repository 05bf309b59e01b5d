"""What was found out about a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WRONG, SUSPECT, REFUSED = "wrong", "suspect", "refused"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        check: which part of the inspection found it, such as "contents" or "threads".
        text: what is wrong, in words.
        wrong: a result was wrong; else the time is not to be believed.
    """

    check: str
    text: str
    wrong: bool = False


def status_of(findings: Sequence[Finding]) -> str:
    """The status of a case with these findings: "wrong" where a result was, else "suspect"."""
    return WRONG if any(finding.wrong for finding in findings) else SUSPECT


def told(findings: Sequence[Finding]) -> str:
    """All of them in one line: first what was wrong."""
    ordered = sorted(findings, key=lambda finding: not finding.wrong)
    return "; ".join(dict.fromkeys(finding.text for finding in ordered))
