"""The files that make the project, and copies of them: for the tests that look at the project itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def tree_files() -> list[str]:
    """The files of the project, as paths from its root: what git tracks or would, or else what is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.decode().split("\0")
        return sorted({name for name in names if name and (ROOT / name).is_file()})
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if _is_source(name)]
        found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in files]
    return sorted(found)


def _is_source(folder: str) -> bool:
    made = folder in {"build", "dist", "kernelwright-results", "__pycache__"} or folder.endswith(".egg-info")
    return not made and (not folder.startswith(".") or folder == ".ci")


def copy_tree(to: Path) -> Path:
    """Copy the project's files alone to the folder `to`, and return it."""
    for name in tree_files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to / name)
    return to
