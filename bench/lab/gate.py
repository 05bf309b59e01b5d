"""Does the gate find what it is there for? Revisions of this project, each with one thing planted.

A clone of the repository gets a kernel for products of 96 x 96, and from there one commit each:

    nothing changed        passes, 0
    a planted slowdown     the kernel computes everything twice: regressed, 1
    a planted mistake      one element is off: wrong, 4
    a lost benchmark       the problem is gone from its suite: missing, 5
    a fall-back            the kernel refuses the call, and another one runs: regressed, 1

The gate runs on each as on any two revisions, and its exit code is compared with what it should be.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...kernels.errors import ConfigError
from ..compare.remote import package_of_this_process
from ..session import Exit

PROBLEM, SUITE = "square-96", "squares"
KERNEL_FILE = Path("kernels/matmul/cpu_numba_planted.py")
SUITE_FILE = Path("bench/problems/synthetic.py")
_AUTHOR = [
    "-c",
    "user.name=planted",
    "-c",
    "user.email=planted@example.invalid",
    "-c",
    "commit.gpgsign=false",
]

KERNEL = '''"""A plain product for one shape, planted to see whether the gate finds what is done to it."""

from __future__ import annotations

from ..registry import kernel


def supports(specs, attrs):
    a, b, _ = specs
    fits = a.shape == b.shape == (96, 96) and not REFUSES
    return None if fits else "was planted for 96 x 96 alone"


REFUSES = False


@kernel("matmul", name="planted", supports=supports, rank=9)
def planted(a, b, out):
    """out = a @ b, row by row."""
    for repeat in range(1):
        for i in range(96):
            row = out[i]
            row[:] = 0
            for p in range(96):
                x = a[i, p]
                for j in range(96):
                    row[j] += x * b[p, j]
'''


@dataclass(frozen=True)
class Planted:
    """A revision.

    Attributes:
        name: what is planted, in words.
        branch: its branch in the clone.
        file: what is edited.
        edit: how; the text must change by it.
        code: how the gate must exit.
    """

    name: str
    branch: str
    file: Path
    edit: Callable[[str], str]
    code: Exit


@dataclass(frozen=True)
class Outcome:
    """What the gate said.

    Attributes:
        planted: of what.
        code: its exit code.
        said: its last line.
        seconds: what it took.
    """

    planted: Planted
    code: int
    said: str
    seconds: float

    @property
    def right(self) -> bool:
        return self.code == self.planted.code


PLANTED: Sequence[Planted] = (
    Planted("nothing changed", "same", KERNEL_FILE, lambda text: text + "\n# No change.\n", Exit.OK),
    Planted(
        "a slowdown: everything computed twice",
        "slow",
        KERNEL_FILE,
        lambda text: text.replace("range(1)", "range(2)"),
        Exit.REGRESSED,
    ),
    Planted(
        "a mistake: one element is off",
        "wrong",
        KERNEL_FILE,
        lambda text: text + "    out[1, 2] += 1\n",
        Exit.WRONG,
    ),
    Planted(
        "a lost benchmark",
        "lost",
        SUITE_FILE,
        lambda text: re.sub(r"(SQUARES = \(64, )96, ", r"\1", text),
        Exit.MISSING,
    ),
    Planted(
        "a fall-back: the kernel refuses the call",
        "refuses",
        KERNEL_FILE,
        lambda text: text.replace("REFUSES = False", "REFUSES = True"),
        Exit.REGRESSED,
    ),
)


def outcomes(planted: Sequence[Planted] = PLANTED, options: Sequence[str] = ()) -> Iterator[Outcome]:
    """Plants, and runs the gate on each.

    Args:
        planted: what.
        options: more words for `kernelwright gate`.

    Raises:
        ConfigError: this package does not run from a git repository, or a text to edit is not there.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        raise ConfigError(f"{root} is no git repository: run this from a clone of the project.")
    with tempfile.TemporaryDirectory(prefix="kernelwright-planted-") as folder:
        clone = Path(folder) / "kernelwright"
        _git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
        base = _plant(clone, planted)
        for each in planted:
            yield _gate(clone, base, each, options)


def _plant(clone: Path, planted: Sequence[Planted]) -> str:
    """Commits the kernel, and a branch for each; the name of the first commit."""
    (clone / KERNEL_FILE).write_text(KERNEL, encoding="utf-8")
    _git(clone, "checkout", "--quiet", "-b", "base")
    _commit(clone, "A kernel is planted")
    for each in planted:
        _git(clone, "checkout", "--quiet", "-b", each.branch, "base")
        path = clone / each.file
        text = path.read_text(encoding="utf-8")
        if each.edit(text) == text:
            raise ConfigError(f"{each.file} has no place any more where to plant {each.name}.")
        path.write_text(each.edit(text), encoding="utf-8")
        _commit(clone, each.name)
    return "base"


def _gate(clone: Path, base: str, planted: Planted, options: Sequence[str]) -> Outcome:
    words = ["gate", "--against", base, "--candidate", planted.branch, SUITE, "--problem", PROBLEM, *options]
    started = time.monotonic()
    # The package's own folder first: the clone is what is gated, this is what gates.
    path = os.pathsep.join(filter(None, (str(package_of_this_process()), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kernelwright.bench.cli", *words],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
    return Outcome(planted, done.returncode, said, time.monotonic() - started)


def _commit(clone: Path, message: str) -> None:
    _git(clone, "add", "--all")
    _git(clone, *_AUTHOR, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", message)


def _git(folder: Path, *words: str) -> None:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"git {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
