"""The documents are programs: what README.md and CONTRIBUTING.md show is written to disk and run.

A `python` block runs in a fresh process, in the order of the document. A comment on the line above a block
says what else to do with it: `<!-- file: PATH -->` writes the block to PATH, and `<!-- run -->` runs those
lines of a `console` block that start with `$ `. CONTRIBUTING.md works on a copy of the tree; README.md in an
empty folder, as somebody would who has only installed the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from project_tree import ROOT, copy_tree

BLOCK = re.compile(r"^(?:<!-- (?P<mark>[^>\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block of a document, with the line it starts on and the comment above it."""

    line: int
    language: str
    mark: str
    text: str

    @property
    def does(self) -> str:
        """`file`, `run`, `python` (run it) or `` (only to be read)."""
        if self.mark.startswith("file:"):
            return "file"
        if self.mark == "run" and self.language == "console":
            return "run"
        return "python" if self.language == "python" else ""


def blocks(document: str) -> list[Block]:
    """The fenced blocks of a document of the root, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(text[: m.start()].count("\n") + 1, m["language"], (m["mark"] or "").strip(), m["text"])
        for m in BLOCK.finditer(text)
    ]


def commands(block: Block) -> list[str]:
    """The lines of a console block that a reader types, `\\` at the end of a line joining it to the next."""
    joined = block.text.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def play(document: str, folder: Path, environment: dict[str, str]) -> int:
    """Do what the document says, in `folder`; how much of it ran. Fails with a block's own output."""
    ran = 0
    for block in blocks(document):
        if block.does == "file":
            path = folder / block.mark.removeprefix("file:").strip()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            continue
        todo = {"python": [[sys.executable, "-c", block.text]]}.get(block.does, [])
        if block.does == "run":
            todo = [["bash", "-euc", command] for command in commands(block)]
        for command in todo:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            assert done.returncode == 0, (
                f"{document}:{block.line}: {command[-1]}\n{done.stdout}\n{done.stderr}"
            )
            ran += 1
    return ran


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of this process, with the commands of its Python first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


def test_readme_examples_run(environment: dict[str, str]) -> None:
    # At the same place in every run: compiled code is kept by the path of a file outside the package.
    folder = ROOT / "build" / "readme"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assert play("README.md", folder, environment) >= 3


def test_contributing_examples_run(tmp_path: Path, environment: dict[str, str]) -> None:
    tree = copy_tree(tmp_path / "kernelwright")
    # The copy is meant, not the installed tree: its folder has the package's name, and its parent goes first.
    environment["PYTHONPATH"] = str(tmp_path)
    assert play("CONTRIBUTING.md", tree, environment) >= 3


def test_readme_shows_the_example_as_it_is() -> None:
    """The kernel in the README is examples/my_matmul.py, letter for letter."""
    shown = next(block for block in blocks("README.md") if block.mark == "file: my_matmul.py")
    assert shown.text == (ROOT / "examples" / "my_matmul.py").read_text(encoding="utf-8")


def test_python_blocks_are_found() -> None:
    """A block that the pattern above misses would be a block that nothing checks."""
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert text.count("```python") == sum(block.language == "python" for block in blocks(document))
