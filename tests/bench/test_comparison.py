"""Comparisons survive their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernelwright.bench.compare.result import Comparison, ComparisonFileError, Duel, Round, Side
from kernelwright.bench.compare.verdict import Kind, Verdict
from kernelwright.bench.problems import select


def example() -> Comparison:
    (problem,) = select(problem="square-64").problems[:1]
    verdict = Verdict(Kind.SLOWER, 1.1, 1.06, 1.15, 0.05, 0.99, 30, 0.001)
    duel = Duel(problem, 2, a=Side(kernel="a"), b=Side(kernel="b", fallback="no reason"), verdict=verdict)
    duel.rounds.append(Round([(1e-3, 1.1e-3)], [(1e-3, 1e-3)], {"switches": 1}, 0, (1, 2)))
    return Comparison({"text": "HEAD~1"}, {"text": "HEAD"}, suite="quick", results=[duel])


def test_a_comparison_survives_its_file(tmp_path: Path) -> None:
    before = example()
    before.save(tmp_path / "c.json")
    assert Comparison.load(tmp_path / "c.json") == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "kernelwright-comparison", "schema": 99}'])
def test_what_is_no_comparison_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ComparisonFileError):
        Comparison.load(tmp_path / "c.json")


def test_a_damaged_comparison_is_refused() -> None:
    record = json.loads(json.dumps(example().to_json()))
    del record["results"][0]["a"]
    with pytest.raises(ComparisonFileError, match="damaged"):
        Comparison.from_json(record)
