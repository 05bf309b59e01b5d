"""kernelwright as an installed package, for pytest runs of their own: this tree and its entry points."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def make_site(folder: Path) -> Path:
    """A folder for PYTHONPATH: a link to this tree, and the metadata that pip would have written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernelwright").symlink_to(ROOT, target_is_directory=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # A name that sorts before an editable install's: whichever comes first on the path counts.
    info = folder / f"kernelwright-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: kernelwright\nVersion: {project['version']}\n"
    )
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def run_pytest(
    site: Path, folder: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """pytest as a user calls it in a folder, with the plugins that are installed, and wide lines."""
    # What belongs to the tests that are running, such as the name of a worker of xdist, is not the user's.
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    plain.pop("KERNELWRIGHT_STORE", None)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options],
        cwd=folder,
        env={**plain, "PYTHONPATH": str(site), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
