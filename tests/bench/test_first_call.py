"""First calls in fresh processes: what is measured, and what is said when a process fails."""

from __future__ import annotations

import os

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.bench.first_call import EXAMPLES, FirstCall, FreshProcessError, fresh


def test_the_record_comes_back_and_speaks() -> None:
    found = FirstCall({"matmul": (2.5, 0.08), "lstm": (3.0, 0.1)}, import_s=0.12, numpy_import_s=0.1)
    assert FirstCall.from_json(found.to_json()) == found
    assert found.import_ratio == pytest.approx(1.2)
    said = " ".join(found.lines())
    assert "First call of matmul: 2.50 s with an empty cache" in said
    assert "First call of lstm: 3.00 s" in said
    assert "1.20 times import numpy" in said


def test_what_compilers_took_is_told_apart() -> None:
    found = FirstCall({"matmul": (2.5, 0.08)}, 0.12, 0.1, parts={"matmul": (1.9, 0.013)})
    assert FirstCall.from_json(found.to_json()) == found
    (line, _) = found.lines()
    assert "2.50 s with an empty cache (compilers 1.90 s), 0.080 s with a warm one (loading 0.013 s)" in line


def test_a_record_of_one_call_is_read() -> None:
    old = {"empty_s": 2.5, "warm_s": 0.08, "import_s": 0.12, "numpy_import_s": 0.1, "import_ratio": 1.2}
    assert list(FirstCall.from_json(old).calls.values()) == [(2.5, 0.08)]


@pytest.mark.parametrize("op", EXAMPLES)
def test_each_example_is_a_call_that_runs(op: str) -> None:
    with kw.using(backend="reference"):
        for example in EXAMPLES[op]:
            arrays = dict(zip("xyz", (np.ones(shape, np.float32) for shape in example.shapes), strict=False))
            assert eval(example.call, {"kw": kw, **arrays}) is not None


def test_a_fresh_process_reports_its_times() -> None:
    assert fresh("print('{\"call_s\": 0.5}')", dict(os.environ), 30) == {"call_s": 0.5}


@pytest.mark.parametrize(
    ("code", "timeout", "words"),
    [
        ("raise ValueError('broken')", 30, "ValueError: broken"),
        ("import time; time.sleep(9)", 0.3, r"longer than 0 s"),
    ],
)
def test_a_fresh_process_that_fails_says_why(code: str, timeout: float, words: str) -> None:
    with pytest.raises(FreshProcessError, match=words):
        fresh(code, dict(os.environ), timeout)
