"""Revisions on disk: a work tree for each under the cache directory, and an interpreter that fits it.

<cache>/worktrees/<random>/kernelwright    a revision, while it is compared
<cache>/worktrees/<random>.lock            held as long; one that nobody holds is left over, and removed
<cache>/links/<hash>/kernelwright          a link to a tree whose folder has another name
<cache>/environments/<hash>                a virtual environment, for revisions with other dependencies
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ...kernels.errors import ConfigError
from ...kernels.paths import cache_dir
from .remote import Launch, package_of_this_process

PACKAGE = "kernelwright"
GIT_SECONDS, INSTALL_SECONDS = 120, 1200

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Requirements:
    """What a project needs, by its pyproject.toml: its dependencies and the Python it asks for."""

    dependencies: tuple[str, ...] = ()
    python: str = ""

    @classmethod
    def of(cls, tree: Path) -> Requirements:
        """Those of a tree; none when it has no pyproject.toml, or one that says nothing.

        Raises:
            ConfigError: the file can't be read.
        """
        path = tree / "pyproject.toml"
        if not path.exists():
            return cls()
        try:
            project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} can't be read: {error}.") from None
        words = (" ".join(each.split()) for each in project.get("dependencies", ()))
        return cls(tuple(sorted(words)), str(project.get("requires-python", "")))

    @property
    def key(self) -> str:
        """A name for environments that hold them."""
        text = json.dumps([self.dependencies, self.python, sys.version_info[:2]])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Repository:
    """A git repository.

    Attributes:
        root: the top of its work tree.
    """

    root: Path

    @classmethod
    def around(cls, folder: Path) -> Repository | None:
        """The repository that a folder lies in; None when there is none, or no git."""
        found = _git(folder, "rev-parse", "--show-toplevel", check=False)
        return cls(Path(found).resolve()) if found else None

    @property
    def is_package(self) -> bool:
        """Whether it holds this package itself, and not a user's kernels."""
        return (self.root / "kernels" / "registry.py").exists() and (self.root / "bench").is_dir()

    def commit(self, revision: str) -> str | None:
        """The commit that a revision means; None when it means none."""
        return _git(
            self.root,
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{revision}^{{commit}}",
            check=False,
        )

    def subject(self, commit: str) -> str:
        """The first line of a commit's message."""
        return _git(self.root, "log", "-1", "--format=%s", commit) or ""

    def dirty(self) -> bool:
        """Whether the tree as it stands differs from its commit."""
        return bool(_git(self.root, "status", "--porcelain"))

    @contextlib.contextmanager
    def worktree(self, commit: str) -> Iterator[Path]:
        """A work tree of a commit, in a folder called as the package; removed afterwards.

        Raises:
            ConfigError: git can't make it, or the cache directory can't be written.
        """
        self.prune()
        with _locked_folder() as folder:
            path = folder / PACKAGE
            try:
                _git(self.root, "worktree", "add", "--detach", "--quiet", str(path), commit)
                yield path
            finally:
                _remove(path)

    def prune(self) -> None:
        """Removes work trees that a comparison left behind when it was killed."""
        for lock in sorted(_worktrees().glob("*.lock")):
            held = _try_lock(lock)
            if held is None:
                continue
            with held:
                folder = lock.with_suffix("")
                _remove(folder / PACKAGE)
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)
        _git(self.root, "worktree", "prune", check=False)


def _worktrees() -> Path:
    return cache_dir() / "worktrees"


@contextlib.contextmanager
def _locked_folder() -> Iterator[Path]:
    """A new folder that nobody else takes for left over."""
    parent = _worktrees()
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"a work tree needs the cache directory, and {parent} can't be made ({error.strerror}): set "
            "KERNELWRIGHT_CACHE_DIR to one that can."
        ) from None
    while True:
        folder = parent / secrets.token_hex(6)
        lock = folder.with_suffix(".lock")
        lock.touch()
        held = _try_lock(lock)
        # Somebody who tidies up may have taken the lock first, and with it the file.
        if held is not None and lock.exists():
            break
    with held:
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _try_lock(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed; None when another process has it, or it is gone."""
    try:
        file = path.open("rb+")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _remove(path: Path) -> None:
    """Takes a work tree away, and git's note of it."""
    if not path.exists():
        return
    _git(path, "worktree", "remove", "--force", str(path), check=False)
    shutil.rmtree(path, ignore_errors=True)


def _git(folder: Path, *words: str, check: bool = True) -> str | None:
    """What git prints; None when it fails and `check` is off.

    Raises:
        ConfigError: it fails, or is not installed; with `check` only.
    """
    # Variables of a hook that this may run in would send git to another repository; so may hooks of this one.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, env=ours, capture_output=True, text=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if check:
            raise ConfigError(f"git can't be run: {error}.") from None
        return None
    if done.returncode:
        if check:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConfigError(f"git {' '.join(words)} failed: {last}")
        return None
    return done.stdout.strip()


def link_to(tree: Path) -> Path:
    """A folder in which `kernelwright` is this tree and nothing else lies: what goes on a worker's path."""
    tree = tree.resolve()
    folder = cache_dir() / "links" / hashlib.sha256(str(tree).encode()).hexdigest()[:16]
    link = folder / PACKAGE
    if link.is_symlink() and link.resolve() == tree:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{PACKAGE}.{os.getpid()}"
        fresh.symlink_to(tree)
        fresh.replace(link)
    except OSError as error:
        raise ConfigError(
            f"{link} can't be made ({error.strerror}): set KERNELWRIGHT_CACHE_DIR to a folder that can be "
            "written."
        ) from None
    return folder


def launch_in(tree: Path, present: Requirements, tell: Tell, python_path: str | None = None) -> Launch:
    """How a worker is started that runs a tree of the package.

    Args:
        tree: its folder.
        present: what the present interpreter has been set up for.
        tell: told when an environment is made.
        python_path: the folder of a package to run; of the tree unless given.

    Raises:
        ConfigError: the environment can't be made.
    """
    alone = tree.parent.parent == _worktrees()
    package = python_path or str(tree.parent if alone else link_to(tree))
    wanted = Requirements.of(tree)
    if wanted == present:
        return Launch(package=package)
    python = environment(wanted, tell, with_package=python_path is not None)
    # What the present interpreter's path leads to belongs to other versions.
    return Launch(str(python), package, {"PYTHONPATH": package, "PYTHONHOME": None})


def present_launch() -> Launch:
    """How a worker is started that runs this very package."""
    return Launch(package=str(link_to(package_of_this_process())))


def environment(wanted: Requirements, tell: Tell, with_package: bool) -> Path:
    """The interpreter of a virtual environment that holds what is wanted; made unless it is there.

    Args:
        with_package: a user's project: this package's own requirements go in too, the package does not.

    Raises:
        ConfigError: it can't be made; the text has pip's last words.
    """
    needs = [each for each in wanted.dependencies if _name(each) != PACKAGE]
    if with_package:
        needs += own_requirements()
    folder = cache_dir() / "environments" / f"{wanted.key}{'-user' if with_package else ''}"
    python, ready = folder / "bin" / "python", folder / "ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.with_suffix(".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists() and python.exists():
            return python
        tell(f"its dependencies are others ({', '.join(needs)}): making an environment for them, in {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _must([sys.executable, "-m", "venv", str(folder)], folder)
        if needs:
            _must([str(python), "-m", "pip", "install", "--quiet", *needs], folder)
        ready.touch()
    return python


def own_requirements() -> list[str]:
    """What this package needs without its extras."""
    tree = package_of_this_process()
    if (tree / "pyproject.toml").exists():
        return list(Requirements.of(tree).dependencies)
    with contextlib.suppress(metadata.PackageNotFoundError):
        return [each for each in metadata.requires(PACKAGE) or () if "extra ==" not in each]
    return []


def _name(requirement: str) -> str:
    """The name at the start of a requirement, as packages are compared by."""
    head = requirement.strip()
    end = next((i for i, letter in enumerate(head) if not (letter.isalnum() or letter in "._-")), len(head))
    return head[:end].lower().replace("_", "-")


def _must(command: list[str], folder: Path) -> None:
    try:
        done: Any = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        failed, words = done.returncode, (done.stderr or done.stdout).strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        failed, words = 1, [str(error)]
    if failed:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(
            f"no environment could be made for the revision's dependencies: {(words or ['no message'])[-1]}. "
            "Compare revisions that declare the same dependencies, or measure each by itself with "
            "`kernelwright bench --json` in its own environment and compare the two files."
        )
