"""The fooling suite: every trick is caught, every honest kernel comes through."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from project_tree import ROOT

from kernelwright.bench.honest import trials

CHECKS = {
    "by_address": "contents",
    "by_contents": "contents",
    "stale_output": "contents",
    "in_two_halves": "contents",
    "even_sizes": "proof",
    "plain_strides": "proof",
    "zeros": "problem",
    "scratch_in_inputs": "inputs",
    "numpys_matmul": "libraries",
    "sgemm_by_address": "libraries",
    "torchs_operator": "libraries",
    "more_threads": "threads",
    "another_process": "threads",
    "slow_clock": "seal",
    "slow_probe": "clock",
    "bribed_checker": "seal",
    "looks_at_callers": "race",
    "other_code": "source",
    "another_kernel": "source",
    "hinders_the_rival": "surroundings",
}
"""The check that must be among those that find a trick, where it is known which one that is."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All outcomes, by name. The trials run in processes of their own."""
    path: Path = tmp_path_factory.mktemp("tricks") / "tricks.json"
    command = [sys.executable, "-m", "kernelwright.bench.cli", "lab", "tricks", "--few", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert path.exists(), done.stderr
    return {outcome["name"]: outcome for outcome in json.loads(path.read_text())}


def test_there_are_at_least_fifteen_tricks() -> None:
    assert len({trick.name for trick in trials.TRICKS}) == len(trials.TRICKS) >= 15


def test_the_page_names_every_trick() -> None:
    page = (ROOT / "docs" / "honesty.md").read_text(encoding="utf-8")
    assert [trick.name for trick in trials.TRICKS if f"| `{trick.name}` |" not in page] == []
    assert f"runs {len(trials.TRICKS)} kernels that cheat" in page.replace("\n", " ")


@pytest.mark.parametrize("name", [trick.name for trick in trials.TRICKS])
def test_a_trick_is_caught(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    outcome = outcomes[name]
    if outcome["status"] == "skipped":
        pytest.skip(outcome["message"])
    assert outcome["status"] in trials.CAUGHT, outcome
    assert outcome["tries"]
    assert outcome["message"]
    if name in CHECKS:
        assert CHECKS[name] in outcome["caught_by"], outcome


@pytest.mark.parametrize("name", [trial.name for trial in trials.HONEST[: 2 * trials.FEW]])
def test_an_honest_kernel_comes_through(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    assert outcomes[name]["status"] == "timed", outcomes[name]
