"""What a comparison means for a change: words, exit codes, and the texts that say them."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from kernelwright.bench.compare.result import (
    FAILED,
    MISSING,
    REFUSED,
    SUSPECT,
    WRONG,
    Comparison,
    Duel,
    Round,
    Side,
)
from kernelwright.bench.compare.verdict import Kind, Verdict
from kernelwright.bench.gate.judgement import Word, judge
from kernelwright.bench.gate.texts import document, json_text, junit, markdown
from kernelwright.bench.problems import get_suite
from kernelwright.bench.session import Exit

PROBLEMS = get_suite("squares").problems
SAME = Verdict(Kind.SAME, 1.01, 0.99, 1.03, 0.05, 0.99, 30, 0.9)
SLOWER = Verdict(Kind.SLOWER, 1.12, 1.08, 1.15, 0.05, 0.99, 30, 0.001)
UNSURE = Verdict(Kind.INCONCLUSIVE, 1.04, 0.98, 1.09, 0.05, 0.99, 60, 0.3)
FASTER = Verdict(Kind.FASTER, 0.8, 0.78, 0.82, 0.05, 0.99, 30, 1.0)
RIGHT = Side(kernel="matmul/fast")


def duel(verdict: Verdict | None = SAME, a: Side = RIGHT, b: Side = RIGHT, problem: int = 0) -> Duel:
    return Duel(
        PROBLEMS[problem],
        1,
        a=a,
        b=b,
        verdict=verdict,
        rounds=[Round([(1e-3, 1e-3)])],
        reproduce=f"kernelwright compare HEAD~1 . --problem {PROBLEMS[problem].name}",
    )


def comparison(*duels: Duel, void: str | None = None) -> Comparison:
    return Comparison(
        {"text": "HEAD~1"},
        {"text": "."},
        suite="quick",
        machine={"cpu": "a CPU"},
        results=list(duels),
        void=void,
    )


@pytest.mark.parametrize(
    ("found", "word", "code"),
    [
        (duel(), Word.OK, Exit.OK),
        (duel(FASTER), Word.FASTER, Exit.OK),
        (duel(SLOWER), Word.REGRESSED, 1),
        (duel(UNSURE), Word.INCONCLUSIVE, 3),
        (duel(None), Word.INCONCLUSIVE, 3),
        (duel(None, b=Side(WRONG, "wrong: 3 of 9 elements")), Word.WRONG, 4),
        (duel(None, b=Side(FAILED, "it crashed")), Word.WRONG, 4),
        (duel(None, b=Side(SUSPECT, "it called libopenblas")), Word.WRONG, 4),
        (duel(None, b=Side(REFUSED, "zeros would pass")), Word.MISSING, 5),
        (duel(None, b=Side(MISSING, "no problem of that name")), Word.MISSING, 5),
        (duel(SAME, b=replace(RIGHT, fallback="turned is not for 3 threads")), Word.REGRESSED, 1),
        (duel(SAME, b=Side(kernel="reference")), Word.REGRESSED, 1),
        (duel(None, a=Side(MISSING)), Word.NEW, Exit.OK),
        (duel(None, a=Side(WRONG, "wrong")), Word.MENDED, Exit.OK),
        (duel(None, a=Side(WRONG, "wrong"), b=Side(WRONG, "wrong")), Word.WRONG, 4),
    ],
)
def test_each_outcome_has_its_word_and_exit_code(found: Duel, word: Word, code: int) -> None:
    judgement = judge(comparison(found))
    assert (judgement.findings[0].word, judgement.code) == (word, code)


def test_a_fallback_that_a_has_too_is_no_regression() -> None:
    both = replace(RIGHT, fallback="no kernel takes float16")
    assert judge(comparison(duel(SAME, both, both))).code is Exit.OK


def test_a_kernel_that_refuses_the_call_now_was_fallen_back_from() -> None:
    other = Side(kernel="matmul/slow", refused={"matmul/fast": "takes no transposed operand"})
    judgement = judge(comparison(duel(SAME, b=other)))
    assert judgement.code == 1
    assert (
        "matmul/fast no longer takes the call (takes no transposed operand)" in judgement.findings[0].reason
    )


def test_another_kernel_that_is_chosen_or_takes_the_place_of_one_that_is_gone_is_no_fallback() -> None:
    assert judge(comparison(duel(SAME, b=Side(kernel="matmul/better")))).code is Exit.OK


def test_nothing_measured_has_a_code_of_its_own() -> None:
    assert judge(comparison()).code == 6


def test_the_heaviest_finding_decides() -> None:
    wrong = duel(None, b=Side(WRONG, "wrong"), problem=1)
    judgement = judge(comparison(duel(), duel(UNSURE, problem=2), duel(SLOWER, problem=3), wrong))
    assert judgement.code == 4
    assert [each.word for each in judgement.findings] == ["wrong", "regressed", "inconclusive", "ok"]


def test_what_is_allowed_does_not_fail_the_gate() -> None:
    judgement = judge(comparison(duel(UNSURE)), allowed=[Word.INCONCLUSIVE])
    assert judgement.code is Exit.OK
    assert judgement.counts == {Word.INCONCLUSIVE: 1}


def test_in_a_void_run_no_time_counts_but_wrong_results_and_fallbacks_do() -> None:
    void = "A beside itself was 9% slower"
    assert judge(comparison(duel(SLOWER), void=void)).code == 3
    assert judge(comparison(duel(SLOWER), duel(None, b=Side(WRONG, "wrong")), void=void)).code == 4
    fell = duel(SAME, b=Side(kernel="reference"))
    assert judge(comparison(fell, void=void)).code == 1


def test_markdown_puts_what_needs_a_look_first_and_escapes_what_it_quotes() -> None:
    bad = duel(None, b=Side(WRONG, "wrong: a | b <c>\nat [0]"), problem=1)
    found = comparison(duel(), duel(SLOWER, problem=2), bad)
    text = markdown(judge(found), found)
    assert text.startswith("### Performance gate: wrong result\n")
    assert "wrong: a \\| b &lt;c> at [0]" in text
    wrong, slow, folded = (text.index(word) for word in ("❌ wrong", "❌ regressed", "<details>"))
    assert wrong < slow < folded < text.index(PROBLEMS[0].name, folded)
    assert f"$ kernelwright compare HEAD~1 . --problem {PROBLEMS[2].name}" in text


def test_junit_has_a_case_for_each_problem() -> None:
    found = comparison(
        duel(),
        duel(SLOWER, problem=1),
        duel(None, b=Side(WRONG, 'wrong: "<&>"'), problem=2),
        duel(UNSURE, problem=3),
    )
    suite = ElementTree.fromstring(junit(judge(found), found))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases[f"{PROBLEMS[0].name} on 1 thread"] == []
    assert cases[f"{PROBLEMS[1].name} on 1 thread"] == ["failure"]
    (error,) = suite.iter("error")
    assert error.get("message") == 'wrong: wrong: "<&>"'


def test_json_holds_the_code_the_findings_and_all_pairs() -> None:
    found = comparison(duel(SLOWER))
    record = json.loads(json_text(judge(found), found))
    assert record == json.loads(json.dumps(document(judge(found), found)))
    assert (record["exit_code"], record["findings"][0]["word"]) == (1, "regressed")
    assert Comparison.from_json(record["comparison"]) == found
