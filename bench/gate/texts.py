"""The gate's answer as Markdown for a pull request, as JUnit XML for a build server, and as JSON."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from ..compare.result import Comparison
from ..report import text
from ..store import dumps
from .judgement import Finding, Judgement, Word

KIND, SCHEMA = "kernelwright-gate", 1
_MARKS = {Word.WRONG: "❌", Word.REGRESSED: "❌", Word.MISSING: "❌", Word.INCONCLUSIVE: "⚠️"}


def markdown(judgement: Judgement, comparison: Comparison) -> str:
    """A comment for a pull request: the answer, what needs a look, and everything else folded away."""
    lines = [
        f"### Performance gate: {judgement.word}",
        "",
        f"`{comparison.b.get('text', 'B')}` against `{comparison.a.get('text', 'A')}` on "
        f"{comparison.machine.get('cpu', 'an unknown CPU')}: {judgement.summary}.",
    ]
    if judgement.void is not None:
        lines += ["", f"**No time counts:** {_cell(judgement.void)}"]
    telling = [each for each in judgement.findings if each.word in _MARKS or each.word is Word.FASTER]
    rest = [each for each in judgement.findings if each not in telling]
    if telling:
        lines += ["", *_table(telling)]
    if rest:
        lines += ["", f"<details><summary>{text.plural(len(rest), 'problem')} without findings</summary>", ""]
        lines += [*_table(rest), "", "</details>"]
    commands = [each.duel.reproduce for each in telling if each.duel.reproduce]
    if commands:
        lines += ["", "Again:", "", "```console", *(f"$ {command}" for command in commands), "```"]
    return "\n".join(lines) + "\n"


def _table(findings: list[Finding]) -> list[str]:
    head = "| problem | verdict | time, B / A | bounds | kernel | |"
    return [head, "|---|---|---|---|---|---|", *map(_row, findings)]


def _row(finding: Finding) -> str:
    verdict, duel = finding.verdict, finding.duel
    ratio = f"{verdict.ratio:.3f}" if verdict else text.DASH
    bounds = f"{verdict.low:.3f}{text.DASH}{verdict.high:.3f}" if verdict else text.DASH
    changed = duel.a.kernel and duel.b.kernel and duel.a.kernel != duel.b.kernel
    kernel = f"{duel.a.kernel} → {duel.b.kernel}" if changed else duel.b.kernel or duel.a.kernel
    word = f"{_MARKS.get(finding.word, '')} {finding.word}".strip()
    return (
        f"| {_cell(finding.name)} | {word} | {ratio} | {bounds} | {_cell(kernel)} | {_cell(finding.reason)} |"
    )


def _cell(words: str) -> str:
    """Text that can't break out of a table's cell."""
    return words.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def junit(judgement: Judgement, comparison: Comparison) -> str:
    """JUnit XML: a test case for each problem. What fails the gate is a failure, a wrong result an error,
    what is inconclusive or allowed is skipped."""
    elements = [_junit_element(finding, judgement) for finding in judgement.findings]
    suite = ElementTree.Element(
        "testsuite",
        name=f"kernelwright gate {comparison.suite}".strip(),
        tests=str(len(elements)),
        failures=str(elements.count("failure")),
        errors=str(elements.count("error")),
        skipped=str(elements.count("skipped")),
        time=f"{comparison.seconds:.3f}",
    )
    if comparison.started:
        suite.set("timestamp", comparison.started)
    for finding, element in zip(judgement.findings, elements, strict=True):
        seconds = sum(b for each in finding.duel.rounds for _, b in each.pairs)
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"kernelwright.{finding.duel.problem.op}",
            name=finding.name,
            time=f"{seconds:.6f}",
        )
        if element is not None:
            message = f"{finding.word}: {finding.reason}"
            ElementTree.SubElement(
                case, element, message=message, type=str(finding.word)
            ).text = f"{message}\n{finding.duel.reproduce}".rstrip()
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _junit_element(finding: Finding, judgement: Judgement) -> str | None:
    if finding.word in judgement.allowed or finding.word is Word.INCONCLUSIVE:
        return "skipped"
    if finding.word is Word.WRONG:
        return "error"
    return "failure" if finding.word in (Word.REGRESSED, Word.MISSING) else None


def document(judgement: Judgement, comparison: Comparison) -> dict[str, Any]:
    """The answer and what it rests on, as JSON values."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "verdict": judgement.word,
        "exit_code": int(judgement.code),
        "counts": {str(word): count for word, count in judgement.counts.items()},
        "allowed": sorted(map(str, judgement.allowed)),
        "findings": [
            {
                "name": finding.name,
                "problem": finding.duel.problem.name,
                "threads": finding.duel.threads,
                "word": str(finding.word),
                "reason": finding.reason,
            }
            for finding in judgement.findings
        ],
        "comparison": comparison.to_json(),
    }


def json_text(judgement: Judgement, comparison: Comparison) -> str:
    """`document` as text."""
    return dumps(document(judgement, comparison))
