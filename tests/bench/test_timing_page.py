"""docs/timing.md: it has every option with its value and reason, and names what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from kernelwright.bench import timing
from kernelwright.bench.timing.described import main, reasons, table, with_tables
from kernelwright.bench.timing.gpu_rules import GpuTiming
from kernelwright.bench.timing.rules import Timing
from kernelwright.bench.timing.signs import __doc__ as signs

PAGE = Path(timing.__file__).parents[2] / "docs" / "timing.md"


@pytest.mark.parametrize("rules", [Timing, GpuTiming])
def test_every_option_stands_on_the_page_with_its_value_and_reason(rules: type) -> None:
    page = PAGE.read_text("utf-8")
    assert set(reasons(rules)) == {field.name for field in fields(rules)}
    assert all(len(text) > 30 for text in reasons(rules).values())
    assert table(rules) in page, "out of date: python -m kernelwright.bench.timing.described docs/timing.md"


def test_the_tables_are_written_between_their_markers_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- made of the docstring of Timing -->\nof yesterday\n<!-- end of Timing -->\nb\n")
    main([str(path)])
    text = path.read_text()
    assert text.startswith("a\n")
    assert text.endswith("<!-- end of Timing -->\nb\n")
    assert "of yesterday" not in text
    assert "| `min_batch_s` | 0.001 | calls are timed" in text
    assert "| `cold_bytes` | 256 MiB |" in text
    assert with_tables(text) == text


def test_every_reason_for_a_repeat_stands_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    named = re.findall(r"^ *(\w+(?: \w+)?) {2,}", signs or "", re.M)
    assert set(named) == {"switches", "off core", "waited", "stolen", "drift", "clock"}
    for name in named:
        assert f"| `{name}` |" in page
