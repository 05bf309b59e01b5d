"""What A and B may be on a command line.

    SIDE     =  [WHAT] [":" SETTING {"," SETTING}]
    WHAT     =  a kernel        its name or id, "reference", or FILE.py[::NAME]
             |  a git revision  anything `git rev-parse` takes
             |  "." | "worktree"  the tree as it stands; with settings alone, this is meant
             |  FILE.json       a result of `bench` or `compare`, or of pytest-benchmark
             |  "kernel:" KERNEL | "git:" REVISION | "file:" FILE.json     where a word could mean several
    SETTING  =  NAME "=" VALUE        an entry of the kernel's configuration
             |  "env:" NAME "=" VALUE  an environment variable of its processes

    packed:mc=96,nc=512     HEAD~3     .     main:env:KERNELWRIGHT_AMX=0     env:KERNELWRIGHT_VECTOR_BYTES=32

Where the repository is this package's own, a revision is the package of that revision; elsewhere it is the
revision of a kernel's file, which `--kernel` names, and the package is the one that is installed.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...kernels import dispatch, registry
from ...kernels.errors import ConfigError, KernelwrightError, did_you_mean
from ..problems import Problem
from .contestant import FILE_AND_NAME, Contestant, find
from .duel import Entrant
from .remote import Launch
from .trees import Repository, Requirements, Tell, launch_in, present_launch

KERNEL, GIT, TREE, FILE = "kernel", "git", "tree", "file"
TREE_WORDS = (".", "worktree")
_SETTING = r"(?:env:)?[A-Za-z_]\w*="
_SETTINGS = re.compile(rf"(?:^|:)(?={_SETTING})")
_COMMA = re.compile(rf",(?={_SETTING})")


class SideError(ConfigError):
    """A word on the command line that is no side, or could be several; the text says what to write."""


@dataclass(frozen=True)
class Words:
    """A side as it was written.

    Attributes:
        text: all of it.
        what: "kernel", "git" or "file" where a prefix says so; None else.
        name: what is left without prefix and settings.
        config: settings of the kernel's configuration.
        environment: settings of the environment.
    """

    text: str
    what: str | None
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Words:
        """Takes a side apart.

        Raises:
            SideError: it is empty, or a setting is.
        """
        start = _SETTINGS.search(text)
        name = text[: start.start()] if start else text
        settings = _COMMA.split(text[start.end() :]) if start else []
        config: dict[str, Any] = {}
        environment: dict[str, str] = {}
        for setting in settings:
            key, _, value = setting.removeprefix("env:").partition("=")
            if setting.startswith("env:"):
                environment[key] = value
            else:
                config[key] = _value(value)
        what = next((p for p in (KERNEL, GIT, FILE) if name.startswith(f"{p}:")), None)
        name = name.removeprefix(f"{what}:")
        if not name and (what is not None or not settings):
            raise SideError(f"{text!r} names nothing: write a kernel, a git revision, `.` or a result file.")
        return cls(text, what, name or TREE_WORDS[0], config, environment)


def _value(text: str) -> Any:
    """A number or bool as Python writes it, or else the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | str) else text


@dataclass(frozen=True)
class Side:
    """What a side was found to be.

    Attributes:
        words: as written.
        kind: "kernel", "git", "tree" or "file".
        commit: of a revision.
        repository: of a revision or tree.
    """

    words: Words
    kind: str
    commit: str | None = None
    repository: Repository | None = None

    @property
    def path(self) -> Path:
        """Of a file."""
        return Path(self.words.name).expanduser()


def resolve(text: str, problems: Iterable[Problem], folder: Path) -> Side:
    """Finds out what a side is.

    Args:
        text: the word on the command line.
        problems: what is to be compared: their ops' kernels are those that can be meant.
        folder: the working directory.

    Raises:
        SideError: it is nothing known, could be several things, or is set in a way that fits nothing.
    """
    words = Words.parse(text)
    ops = sorted({problem.op for problem in problems})
    meanings = _meanings(words, ops, folder)
    if words.what is not None:
        meanings = [side for side in meanings if side.kind == words.what]
    if len(meanings) > 1:
        ways = " or ".join(f"{side.kind}:{words.text}" for side in meanings)
        raise SideError(
            f"{words.name!r} could be {' and '.join(_TOLD[side.kind] for side in meanings)}: write {ways}."
        )
    if not meanings:
        raise SideError(_nothing(words, ops, folder))
    (side,) = meanings
    if side.kind != KERNEL and words.config:
        name = next(iter(words.config))
        raise SideError(
            f"{words.text!r}: {name}={words.config[name]} is a setting of a kernel, and {words.name!r} is "
            f"{_TOLD[side.kind]}: write KERNEL:{name}={words.config[name]}, or env:{name}=... for a variable "
            "of the environment."
        )
    if side.kind == FILE and words.environment:
        raise SideError(f"{words.text!r}: a result file was measured before; it takes no settings.")
    return side


_TOLD = {KERNEL: "a kernel", GIT: "a git revision", TREE: "the tree as it stands", FILE: "a result file"}


def _meanings(words: Words, ops: Iterable[str], folder: Path) -> list[Side]:
    """All that a word can mean."""
    name = words.name
    if words.what is None and name in TREE_WORDS:
        return [Side(words, TREE, repository=Repository.around(folder))]
    found = []
    if _is_kernel(name, ops):
        found.append(Side(words, KERNEL))
    if words.what == FILE or name.endswith(".json"):
        found.append(Side(words, FILE))
    # Kernels' files and results may be called as revisions can't.
    if not name.endswith(".json") and not _is_file_of_kernels(name):
        repository = Repository.around(folder)
        commit = None if repository is None else repository.commit(name)
        if commit is not None:
            found.append(Side(words, GIT, commit, repository))
    return found


def _is_file_of_kernels(name: str) -> bool:
    return name.partition(FILE_AND_NAME)[0].endswith(".py")


def _is_kernel(name: str, ops: Iterable[str]) -> bool:
    if _is_file_of_kernels(name) or name == dispatch.REFERENCE:
        return True
    return any(name in (k.id, k.name) for op in ops for k in _kernels(op))


def _kernels(op: str) -> tuple[Any, ...]:
    try:
        return registry.kernels_for(op)
    except KernelwrightError:  # problems of several ops, such as a layer's training
        return ()


def _nothing(words: Words, ops: Iterable[str], folder: Path) -> str:
    """Why a word means nothing, and what to write."""
    kernels = {name for op in ops for k in _kernels(op) for name in (k.id, k.name)}
    where = f"no revision of the git repository around {folder}"
    if Repository.around(folder) is None:
        where = f"no git revision, since {folder} is in no git repository"
    return (
        f"{words.name!r} is no kernel of {', '.join(ops)}, {where}, and no result file (.json)."
        f"{did_you_mean(words.name, kernels)} `kernelwright list kernels` shows the kernels."
    )


def takes(side: Side, op: str) -> bool:
    """Whether a side may have something for an op: a kernel has it for its own alone."""
    if side.kind != KERNEL or side.words.name == dispatch.REFERENCE:
        return True
    try:
        find(side.words.name, op)
    except KernelwrightError:
        return False
    return True


@contextlib.contextmanager
def opened(
    a: Side, b: Side, kernel: str | None, folder: Path, tell: Tell
) -> Iterator[tuple[Entrant, Entrant]]:
    """Both sides, ready to be started; work trees are there until the block ends.

    Args:
        a, b: the sides; neither a file of results.
        kernel: what `--kernel` said: computes on both sides, where they are revisions.
        folder: the working directory.
        tell: told what takes a while.

    Raises:
        SideError: `--kernel` is missing, or not for these sides.
        ConfigError: a revision can't be put on disk, or its environment can't be made.
    """
    if kernel is not None and KERNEL in (a.kind, b.kind):
        raise SideError(
            "--kernel says what revisions compute with; these sides say that themselves: leave it out."
        )
    with contextlib.ExitStack() as stack:
        yield (
            stack.enter_context(_entrant(a, kernel, folder, tell)),
            stack.enter_context(_entrant(b, kernel, folder, tell)),
        )


@contextlib.contextmanager
def _entrant(side: Side, kernel: str | None, folder: Path, tell: Tell) -> Iterator[Entrant]:
    words = side.words
    described: dict[str, Any] = {"text": words.text, "kind": side.kind}
    if words.environment:
        described["environment"] = dict(words.environment)
    if side.kind == KERNEL:
        name = _absolute(words.name, folder)
        described |= {"kernel": words.name, "config": dict(words.config)}
        yield Entrant(Contestant(name, words.config), _with(present_launch(), words), described)
        return
    repository = side.repository
    if repository is None:  # the tree as it stands, outside of any: the package as it is
        contestant = Contestant(None if kernel is None else _absolute(kernel, folder))
        yield Entrant(contestant, _with(present_launch(), words), described)
        return
    with contextlib.ExitStack() as stack:
        tree = repository.root
        if side.commit is not None:
            tell(f"checking out {words.name}")
            tree = stack.enter_context(repository.worktree(side.commit))
            described |= {"commit": side.commit, "subject": repository.subject(side.commit)}
        else:
            described |= {"commit": repository.commit("HEAD"), "dirty": repository.dirty()}
        contestant, launch = _of_tree(side, tree, repository, kernel, folder, tell)
        if kernel is not None:
            described["kernel"] = kernel
        yield Entrant(contestant, _with(launch, words), described)


def _of_tree(
    side: Side, tree: Path, repository: Repository, kernel: str | None, folder: Path, tell: Tell
) -> tuple[Contestant, Launch]:
    """What runs in a tree, and how it is started."""
    present = Requirements.of(repository.root)
    if repository.is_package:
        name = None if kernel is None else _in_tree(kernel, folder, repository.root, tree)
        return Contestant(name), launch_in(tree, present, tell)
    if kernel is None and side.kind == TREE:
        return Contestant(), present_launch()
    if kernel is None or not _is_file_of_kernels(kernel):
        raise SideError(
            f"{side.words.name!r} is a revision of {repository.root}, which is not Kernelwright's own: write "
            "--kernel FILE.py for the file of kernels there that is to be compared."
        )
    package = present_launch().package
    return (
        Contestant(_in_tree(kernel, folder, repository.root, tree)),
        launch_in(tree, present, tell, python_path=package),
    )


def _with(launch: Launch, words: Words) -> Launch:
    """The side's own environment on top."""
    from dataclasses import replace

    return replace(launch, environment={**launch.environment, **words.environment})


def _absolute(kernel: str, folder: Path) -> str:
    """A kernel's file by its whole path: workers need not run where the user is."""
    if not _is_file_of_kernels(kernel):
        return kernel
    path, mark, name = kernel.partition(FILE_AND_NAME)
    return f"{(folder / Path(path).expanduser()).resolve()}{mark}{name}"


def _in_tree(kernel: str, folder: Path, root: Path, tree: Path) -> str:
    """The same file in another work tree; a file outside of the repository stays as it is."""
    if not _is_file_of_kernels(kernel):
        return kernel
    path, mark, name = _absolute(kernel, folder).partition(FILE_AND_NAME)
    with contextlib.suppress(ValueError):
        path = str(tree / Path(path).relative_to(root))
    return f"{path}{mark}{name}"
