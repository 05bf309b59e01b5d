"""What docs/gpu/engine.md shows runs, on a stand-in for a GPU."""

from __future__ import annotations

import re
from pathlib import Path

from gpu_extra import need

need("torch", "triton")

from numpy_cuda import numpy_kernels  # noqa: E402
from triton_interpreter import standing_in  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu" / "engine.md"


def test_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert blocks
    known: dict[str, object] = {}
    with standing_in(), numpy_kernels(over_real=True):
        for block in blocks:
            exec(compile(block, "page.py", "exec"), known)
    plan = known["train"].plan  # type: ignore[attr-defined]
    assert plan.replays.replayed == 7
    assert plan.replays.captures == 1
