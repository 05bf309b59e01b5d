"""First calls in fresh processes: what is measured, and what is said when a process fails."""

from __future__ import annotations

import os

import pytest

from kernelwright.bench.first_call import FirstCall, FreshProcessError, _fresh


def test_the_record_comes_back_and_speaks() -> None:
    found = FirstCall(empty_s=2.5, warm_s=0.08, import_s=0.12, numpy_import_s=0.1)
    assert FirstCall.from_json(found.to_json()) == found
    assert found.import_ratio == pytest.approx(1.2)
    said = " ".join(found.lines())
    assert "2.50 s with an empty cache" in said
    assert "1.20 times import numpy" in said


def test_a_fresh_process_reports_its_times() -> None:
    assert _fresh("print('{\"call_s\": 0.5}')", dict(os.environ), 30) == {"call_s": 0.5}


@pytest.mark.parametrize(
    ("code", "timeout", "words"),
    [
        ("raise ValueError('broken')", 30, "ValueError: broken"),
        ("import time; time.sleep(9)", 0.3, r"longer than 0 s"),
    ],
)
def test_a_fresh_process_that_fails_says_why(code: str, timeout: float, words: str) -> None:
    with pytest.raises(FreshProcessError, match=words):
        _fresh(code, dict(os.environ), timeout)
