"""docs/training.md: its Python runs, and the programs that it names do what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from project_tree import ROOT


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    code = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.S))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/training.md", "exec"), {"__name__": "page"})
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"model.safetensors", "run.safetensors", "run.safetensors.previous"}


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "autoencoder"])
def test_an_example_reaches_what_it_promises(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / f"examples/digits_{name}.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if name == "autoencoder":
        picture = (tmp_path / "digits_autoencoder.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 2000
    else:
        assert "test accuracy" in done.stdout
