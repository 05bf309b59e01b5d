"""DeepBench's GEMMs (Apache-2.0, see LICENSES.md): matrix products of speech and vision networks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from .problem import Problem, matmul

DATA = Path(__file__).with_name("deepbench_gemm.json")


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DATA.read_text())
    return loaded


def _problems(key: str, prefix: str) -> Iterable[Problem]:
    data = _data()
    for m, n, k, trans_a, trans_b in data["problems"][key]:
        marks = ("-ta" if trans_a else "") + ("-tb" if trans_b else "")
        yield matmul(
            f"{prefix}-{m}x{n}x{k}{marks}",
            (m, k),
            (k, n),
            group=prefix,
            source=f"DeepBench {data['file']} at {data['commit'][:12]}",
            trans_a=trans_a,
            trans_b=trans_b,
        )


def train() -> Iterable[Problem]:
    """The 160 training GEMMs, names m x n x k. C[m,n] = op(A)[m,k] @ op(B)[k,n] taken row-major."""
    return _problems("deepbench-train", "deepbench-train")


def inference() -> Iterable[Problem]:
    """The 75 inference GEMMs for servers and 13 for devices."""
    yield from _problems("deepbench-inference-server", "deepbench-server")
    yield from _problems("deepbench-inference-device", "deepbench-device")
