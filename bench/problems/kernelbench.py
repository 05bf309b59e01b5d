"""KernelBench's level-1 matmuls (MIT, see LICENSES.md), scaled to what a CPU does in a second.

KernelBench's sizes are made for large GPUs: up to 8.6 GB of operands and 1.1 TFLOP. A problem that is too
large is halved along all its dimensions above 512 until it fits, so that squares stay square and deep
products deep; its note says from what. Problems that are no plain matrix product are left out, and said so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

from .problem import Problem, matmul

DATA = Path(__file__).with_name("kernelbench_matmul.json")
MOST_BYTES = 256 << 20
KEPT = 512

NOT_A_MATMUL = {
    5: "a matrix times a scalar: no reduction",
    12: "diag(a) @ B scales rows: a matmul would multiply by zeros",
    14: "a product of triangular matrices: a plain matmul does several times the work",
    15: "a product of triangular matrices: a plain matmul does several times the work",
}
_TRANSPOSED = {16: (True, False), 17: (False, True), 18: (True, True)}


def load() -> list[dict[str, Any]]:
    """The records as published."""
    problems: list[dict[str, Any]] = json.loads(DATA.read_text())["problems"]
    return problems


def left_out() -> dict[str, str]:
    """The problems that a matmul can't express: {name: reason}."""
    return {_name(p): NOT_A_MATMUL[p["id"]] for p in load() if p["id"] in NOT_A_MATMUL}


def _name(record: dict[str, Any]) -> str:
    words = re.sub(r"_?matrix_multiplication|matmul_|(with|for)_(?=.)", "", record["name"].lower()).strip("_")
    return f"kernelbench-{record['id']}-{words.replace('__', '_').replace('_', '-')}"


def scaled(
    batch: Sequence[int], m: int, n: int, k: int, shared_b: bool, most_gflop: float
) -> tuple[int, ...]:
    """The sizes (*batch, m, n, k), halved along all dimensions above 512 (then the largest) until they fit.

    Args:
        batch, m, n, k: the sizes as published.
        shared_b: b has no batch axes.
        most_gflop: the most work; the operands take at most MOST_BYTES as float32.
    """
    sizes = [*batch, m, n, k]

    def too_large() -> bool:
        *outer, m, n, k = sizes
        count = prod(outer)
        nbytes = 4 * (count * m * k + (1 if shared_b else count) * k * n + count * m * n)
        return 2e-9 * count * m * n * k > most_gflop or nbytes > MOST_BYTES

    while too_large():
        bound = min(max(sizes), KEPT + 1)
        sizes = [size // 2 if size >= bound else size for size in sizes]
    return tuple(sizes)


def level1(most_gflop: float = 5.0) -> Iterable[Problem]:
    """The 14 problems of level 1 that are matrix products, each at most `most_gflop` GFLOP and 256 MiB."""
    for record in load():
        if record["id"] in NOT_A_MATMUL:
            continue
        trans_a, trans_b = _TRANSPOSED.get(record["id"], (False, False))
        a, b = (list(shape) for shape in record["inputs"])
        if trans_a:
            a[-2:] = a[:-3:-1]
        if trans_b:
            b[-2:] = b[:-3:-1]
        shared_b = len(b) == 2
        *batch, m, n, k = scaled(a[:-2], a[-2], b[-1], a[-1], shared_b, most_gflop)
        new_a, new_b = (*batch, m, k), ((k, n) if shared_b else (*batch, k, n))
        changed = list(new_a) != a or list(new_b) != b
        original = f"scaled from {'x'.join(map(str, a))} @ {'x'.join(map(str, b))}" if changed else ""
        yield matmul(
            _name(record),
            new_a,
            new_b,
            group="kernelbench",
            source=f"KernelBench level 1, problem {record['id']}",
            trans_a=trans_a,
            trans_b=trans_b,
            note=original,
        )
