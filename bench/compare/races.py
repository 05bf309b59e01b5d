"""The races of a test session as a comparison document: A is the baseline, B the candidate."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..machine import environment, facts, versions
from ..problems import Operand, Problem
from .result import WRONG, Comparison, Duel, Round, Side
from .verdict import Verdict

# Not operations of ours: what a user's function computes is the user's.
OP, DTYPE, GROUP = "python", "any", "pytest"


def as_comparison(races: Sequence[Mapping[str, Any]]) -> Comparison:
    """A document of races as the pytest plugin records them, a duel each, said to be on 1 thread."""
    return Comparison(
        a={"text": "baseline"},
        b={"text": "candidate"},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["pytest", *sys.argv[1:]]),
        suite=GROUP,
        machine=facts(),
        versions=versions(),
        environment=environment(),
        git={},
        settings={"folder": os.getcwd(), "threshold": None},
        status="complete",
        results=[_duel(record) for record in races],
    )


def _duel(record: Mapping[str, Any]) -> Duel:
    name = record["test"] + (f":{record['name']}" if record["name"] else "")
    candidate, baseline = record["functions"]
    return Duel(
        Problem(name.replace(" ", "-"), OP, (Operand((), DTYPE),), GROUP, source=record["test"]),
        threads=1,
        a=Side(kernel=baseline),
        b=Side(kernel=candidate, status=WRONG if record["state"] == "wrong" else "ok"),
        rounds=_rounds(record["rounds"], record),
        again=_rounds(record["again"], {}),
        verdict=Verdict.from_json(record["verdict"]),
        reproduce=f"pytest '{record['test']}'",
    )


def _rounds(rounds: Sequence[Any], record: Mapping[str, Any]) -> list[Round]:
    found = [Round(pairs=[(a, b) for a, b in pairs]) for pairs in rounds]
    if found and record:
        found[0].rejected = {"disturbed": record["rejected"]} if record["rejected"] else {}
        found[0].noisy = record["noisy"]
    return found
