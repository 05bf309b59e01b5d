"""What a comparison means for a change: a word for each problem, and one exit code for all of them.

A is what stands, such as the commit before; B is the candidate. Findings by weight, the exit code being that
of the heaviest:

    wrong         4   the candidate's result is wrong, its times are not to be believed, or its kernel failed
    regressed     1   slower by more than the threshold, twice; or it fell back to a slower kernel unasked
    missing       5   a problem of A that the candidate does not have or take; or there is no baseline
    inconclusive  3   the pairs allow no verdict, or the control of A against itself failed
    ok            0   no slower than the threshold allows; `faster`, `new` and `mended` are ok too

A fall-back and a wrong result need no clock: they count in a run that its control has made void.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ..compare.result import (
    FAILED,
    MISSING,
    OK,
    REFUSED,
    SUSPECT,
    UNSUPPORTED,
    WRONG,
    Comparison,
    Duel,
    Side,
)
from ..compare.verdict import Kind, Verdict
from ..report.text import plural
from ..session import Exit

REFERENCE = "reference"


class Word(StrEnum):
    """What is found of one problem, the heaviest first."""

    WRONG = "wrong"
    REGRESSED = "regressed"
    MISSING = "missing"
    INCONCLUSIVE = "inconclusive"
    FASTER = "faster"
    MENDED = "mended"
    NEW = "new"
    OK = "ok"


CODES = {
    Word.WRONG: Exit.WRONG,
    Word.REGRESSED: Exit.REGRESSED,
    Word.MISSING: Exit.MISSING,
    Word.INCONCLUSIVE: Exit.INCONCLUSIVE,
}
_WEIGHT = {word: place for place, word in enumerate(Word)}
_BY_VERDICT = {
    Kind.SLOWER: Word.REGRESSED,
    Kind.FASTER: Word.FASTER,
    Kind.SAME: Word.OK,
    Kind.INCONCLUSIVE: Word.INCONCLUSIVE,
}


@dataclass(frozen=True)
class Finding:
    """One problem's outcome.

    Attributes:
        word: what it is.
        reason: why, in words; empty for ok.
        duel: what it rests on.
    """

    word: Word
    reason: str
    duel: Duel

    @property
    def name(self) -> str:
        return self.duel.name

    @property
    def verdict(self) -> Verdict | None:
        return self.duel.verdict


@dataclass(frozen=True)
class Judgement:
    """All findings, the heaviest first.

    Attributes:
        findings: one for each problem and number of threads.
        allowed: findings that do not fail the gate although they would.
        void: why no time counts; None when they do.
    """

    findings: tuple[Finding, ...]
    allowed: frozenset[Word] = frozenset()
    void: str | None = None

    @property
    def code(self) -> Exit:
        """What the command exits with."""
        if not self.findings:
            return Exit.NOTHING
        for finding in self.findings:
            if finding.word in CODES and finding.word not in self.allowed:
                return CODES[finding.word]
        return Exit.OK

    @property
    def word(self) -> str:
        """The gate's answer in a word or two."""
        words = {
            Exit.OK: "passed",
            Exit.REGRESSED: "regressed",
            Exit.INCONCLUSIVE: "inconclusive",
            Exit.WRONG: "wrong result",
            Exit.MISSING: "missing",
            Exit.NOTHING: "nothing measured",
        }
        return words[self.code]

    @property
    def counts(self) -> dict[Word, int]:
        """How many problems have each word; words that none has are left out."""
        found = Counter(finding.word for finding in self.findings)
        return {word: found[word] for word in Word if found[word]}

    @property
    def summary(self) -> str:
        """`3 problems: 1 regressed, 2 ok`."""
        words = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        return f"{plural(len(self.findings), 'problem')}: {words or 'none'}"


def judge(comparison: Comparison, allowed: Sequence[Word] = ()) -> Judgement:
    """The findings of a comparison of what stands (A) with a candidate (B).

    Args:
        comparison: with its verdicts.
        allowed: findings that do not fail the gate, such as `inconclusive` where machines are busy.
    """
    found = [finding(duel, comparison.void) for duel in comparison.results]
    ordered = sorted(found, key=lambda each: _WEIGHT[each.word])
    return Judgement(tuple(ordered), frozenset(allowed), comparison.void)


def finding(duel: Duel, void: str | None = None) -> Finding:
    """What one duel says."""
    a, b = duel.a, duel.b
    if b.status in (WRONG, SUSPECT, FAILED):
        return Finding(Word.WRONG, b.message or b.status, duel)
    if b.status in (MISSING, UNSUPPORTED, REFUSED):
        return Finding(Word.MISSING, b.message or "the candidate does not have it", duel)
    if a.status == MISSING:
        return Finding(Word.NEW, a.message or "there is nothing to compare it with", duel)
    fell = fell_back(a, b)
    if fell is not None:
        return Finding(Word.REGRESSED, fell, duel)
    if a.status != OK:
        return Finding(Word.MENDED, f"before: {a.message or a.status}", duel)
    if void is not None:
        return Finding(Word.INCONCLUSIVE, void, duel)
    if duel.verdict is None:
        return Finding(Word.INCONCLUSIVE, "it was not timed", duel)
    word = _BY_VERDICT[duel.verdict.kind]
    return Finding(word, _reason(word, duel.verdict), duel)


def fell_back(a: Side, b: Side) -> str | None:
    """In what way the candidate fell back where A did not; None when it did not.

    A kernel that took A's call and refuses it now was fallen back from, whatever runs instead. One that takes
    it still, beside a better one, was not; nor was one that is gone or renamed.
    """
    if b.fallback is not None and a.fallback is None:
        return f"fell back: {b.fallback}"
    before, now = a.kernel.split(" + "), b.kernel.split(" + ")
    for kernel in before:
        if kernel not in now and kernel in b.refused:
            return f"fell back to {b.kernel}: {kernel} no longer takes the call ({b.refused[kernel]})"
    if REFERENCE in now and REFERENCE not in before:
        return f"fell back to the reference; {a.kernel} ran before"
    return None


def _reason(word: Word, verdict: Verdict) -> str:
    percent = f"{100 * (verdict.ratio - 1):+.1f}%"
    if word is Word.REGRESSED:
        least = f"{100 * (verdict.low - 1):.1f}%"
        return f"{percent} time, by {verdict.confidence:.0%} confidence more than {least}"
    if word is Word.INCONCLUSIVE:
        return (
            f"{percent} time, {verdict.low:.3f} to {verdict.high:.3f}: both sides of the threshold of "
            f"{verdict.threshold:.0%}"
        )
    return f"{percent} time" if word is Word.FASTER else ""
