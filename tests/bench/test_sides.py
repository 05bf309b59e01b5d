"""What A and B may be on a command line, and revisions on disk."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernelwright.bench.compare import sides, trees
from kernelwright.bench.compare.duel import A, B
from kernelwright.bench.compare.session import Options, found
from kernelwright.bench.compare.sides import SideError, Words, opened, resolve, takes
from kernelwright.bench.compare.trees import Repository, Requirements, link_to
from kernelwright.bench.problems import select
from kernelwright.kernels.errors import ConfigError

SQUARE = select(problem="square-64").problems[:1]
KERNEL = """
import kernelwright as kw

@kw.kernel("matmul", dtypes=("float32",), rank=-9, binds=True)
def mine(specs, attrs, config, threads):
    return lambda a, b, out: None
"""


@pytest.mark.parametrize(
    ("text", "what", "name", "config", "environment"),
    [
        ("packed", None, "packed", {}, {}),
        (
            "matmul/cpu_numba/packed:mc=96,nc=512",
            None,
            "matmul/cpu_numba/packed",
            {"mc": 96, "nc": 512},
            {},
        ),
        ("packed:mode=fast,exact=True", None, "packed", {"mode": "fast", "exact": True}, {}),
        (
            "HEAD~3:env:KERNELWRIGHT_AMX=0",
            None,
            "HEAD~3",
            {},
            {"KERNELWRIGHT_AMX": "0"},
        ),
        ("env:A=1,2,env:B=x", None, ".", {}, {"A": "1,2", "B": "x"}),
        ("packed:mc=96,env:A=1", None, "packed", {"mc": 96}, {"A": "1"}),
        ("git:packed", "git", "packed", {}, {}),
        ("kernel:my.py::fast:depth=4", "kernel", "my.py::fast", {"depth": 4}, {}),
        ("HEAD@{1}", None, "HEAD@{1}", {}, {}),
        ("git::/fix the bug", "git", ":/fix the bug", {}, {}),
        ("file:old.json", "file", "old.json", {}, {}),
        (".", None, ".", {}, {}),
    ],
)
def test_a_side_is_taken_apart(
    text: str, what: str | None, name: str, config: dict[str, Any], environment: dict[str, str]
) -> None:
    words = Words.parse(text)
    assert (words.what, words.name) == (what, name)
    assert (words.config, words.environment) == (config, environment)


@pytest.mark.parametrize("text", ["", "git:", "kernel:mc=9"])
def test_a_side_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(SideError, match="names nothing"):
        Words.parse(text)


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory: nothing in these tests compiles."""
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def repository(tmp_path: Path, cache: Path) -> Iterator[Path]:
    """A user's repository with a file of kernels, in two commits; a branch is called as a kernel is."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "mine.py").write_text(KERNEL)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "the first")
    (folder / "mine.py").write_text(KERNEL + "# changed\n")
    git(folder, "commit", "-qam", "the second")
    git(folder, "branch", "packed")
    yield folder
    assert git(folder, "worktree", "list").count("\n") == 0, "a work tree was left behind"
    assert not list((cache / "worktrees").glob("*"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("matmul/cpu_numba/packed", "kernel"),
        ("reference", "kernel"),
        ("mine.py", "kernel"),
        ("HEAD", "git"),
        ("HEAD~1", "git"),
        ("main", "git"),
        (".", "tree"),
        ("worktree", "tree"),
        ("env:A=1", "tree"),
        ("old.json", "file"),
        ("git:packed", "git"),
        ("kernel:packed", "kernel"),
    ],
)
def test_a_word_means_what_it_can_mean(repository: Path, text: str, kind: str) -> None:
    assert resolve(text, SQUARE, repository).kind == kind


def test_a_word_that_could_be_two_things_is_refused_with_what_to_write(repository: Path) -> None:
    with pytest.raises(SideError, match="write kernel:packed or git:packed"):
        resolve("packed", SQUARE, repository)


def test_a_word_that_means_nothing_is_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(SideError, match="Did you mean 'packed'"):
        resolve("pakced", SQUARE, repository)
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(SideError, match="in no git repository"):
        resolve("HEAD", SQUARE, outside)


@pytest.mark.parametrize(
    ("text", "words"), [("HEAD:mc=96", "setting of a kernel"), ("old.json:env:A=1", "takes no settings")]
)
def test_settings_that_fit_nothing_are_refused(repository: Path, text: str, words: str) -> None:
    with pytest.raises(SideError, match=words):
        resolve(text, SQUARE, repository)


def test_a_kernel_takes_part_in_the_problems_of_its_op_alone(repository: Path) -> None:
    a, b, selection = found(Options("kernel:packed", "reference", suite="quick"), repository)
    assert {problem.op for problem in selection.problems} == {"matmul"}
    assert takes(a, "matmul")
    assert not takes(a, "conv")
    assert takes(b, "conv")


def test_a_result_file_and_something_else_cannot_be_compared(repository: Path) -> None:
    with pytest.raises(SideError, match=r"kernelwright bench --json"):
        found(Options("old.json", "HEAD"), repository)


def test_revisions_of_a_users_kernels_are_loaded_from_trees_of_their_own(repository: Path) -> None:
    a, b = (resolve(text, SQUARE, repository) for text in ("HEAD~1", "."))
    with opened(a, b, "mine.py", repository, lambda words: None) as entrants:
        paths = [Path(str(entrant.contestant.kernel)) for entrant in entrants]
        assert paths[A].read_text() == KERNEL
        assert paths[B] == repository / "mine.py"
        # The package is the installed one on both sides.
        assert entrants[A].launch.tree == entrants[B].launch.tree == trees.package_of_this_process()
        assert entrants[A].described["subject"] == "the first"
        assert entrants[B].described["dirty"] is False
    assert not paths[A].exists()


def test_a_users_repository_needs_the_file_of_kernels(repository: Path) -> None:
    a = resolve("HEAD", SQUARE, repository)
    with (
        pytest.raises(SideError, match=r"--kernel FILE\.py"),
        opened(a, a, None, repository, lambda words: None),
    ):
        pass


def test_an_option_for_revisions_is_refused_for_kernels(repository: Path) -> None:
    a, b = (resolve(text, SQUARE, repository) for text in ("kernel:packed", "HEAD"))
    with (
        pytest.raises(SideError, match="leave it out"),
        opened(a, b, "mine.py", repository, lambda words: None),
    ):
        pass


def test_an_environment_is_its_sides_alone(cache: Path, tmp_path: Path) -> None:
    a, b = (resolve(text, SQUARE, tmp_path) for text in ("env:KERNELWRIGHT_AMX=0", "."))
    with opened(a, b, None, tmp_path, lambda words: None) as entrants:
        assert entrants[A].launch.variables()["KERNELWRIGHT_AMX"] == "0"
        assert "KERNELWRIGHT_AMX" not in entrants[B].launch.environment


def test_a_work_tree_is_removed_when_the_comparison_is_interrupted(repository: Path) -> None:
    here = Repository.around(repository)
    assert here is not None
    commit = here.commit("HEAD~1")
    assert commit is not None
    trees_seen: list[Path] = []

    def interrupted(here: Repository, commit: str) -> None:
        with here.worktree(commit) as tree:
            trees_seen.append(tree)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(here, commit)
    assert trees_seen[0].name == "kernelwright"
    assert not trees_seen[0].parent.exists()


def test_work_trees_left_over_are_pruned_and_those_in_use_are_not(repository: Path, cache: Path) -> None:
    here = Repository.around(repository)
    assert here is not None
    left = cache / "worktrees" / "left"
    left.mkdir(parents=True)
    git(repository, "worktree", "add", "--detach", "-q", str(left / "kernelwright"), "HEAD")
    left.with_suffix(".lock").touch()
    used = cache / "worktrees" / "used"
    used.mkdir()
    lock = used.with_suffix(".lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        here.prune()
        assert not left.exists()
        assert used.exists()
    here.prune()
    assert not used.exists()


def test_dependencies_are_compared_by_their_words(tmp_path: Path) -> None:
    one, other, none = (tmp_path / name for name in ("one", "other", "none"))
    for folder, needs in ((one, '["numpy>=2.0", "numba"]'), (other, '["numba",  "numpy>=2.1"]')):
        folder.mkdir()
        (folder / "pyproject.toml").write_text(f'[project]\nname = "x"\ndependencies = {needs}\n')
    none.mkdir()
    assert Requirements.of(one) == Requirements(("numba", "numpy>=2.0"))
    assert Requirements.of(one).key != Requirements.of(other).key
    assert Requirements.of(none) == Requirements()
    (none / "pyproject.toml").write_text("[")
    with pytest.raises(ConfigError, match="can't be read"):
        Requirements.of(none)


def test_other_dependencies_get_an_environment_of_their_own(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def pretend(command: list[str], folder: Path) -> None:
        ran.append(command)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setattr(trees, "_must", pretend)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["numpy>=2.0"]\n')
    told: list[str] = []
    same = trees.launch_in(tree, Requirements.of(tree), told.append)
    assert not ran
    for _ in range(2):
        launch = trees.launch_in(tree, Requirements(("numpy>=1.0",)), told.append)
    assert launch.python == str(cache / "environments" / Requirements.of(tree).key / "bin" / "python")
    assert launch.variables()["PYTHONPATH"] == launch.package
    assert launch.tree == tree == same.tree
    assert [command[1:3] for command in ran] == [["-m", "venv"], ["-m", "pip"]]
    assert ran[1][-1] == "numpy>=2.0"
    assert len(told) == 1


def test_an_environment_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bench --json"):
        trees._must(["false"], tmp_path / "nothing")


def test_a_tree_of_any_name_is_imported_by_the_packages(tmp_path: Path, cache: Path) -> None:
    tree = tmp_path / "some-checkout"
    tree.mkdir()
    (tmp_path / "numpy").mkdir()  # a neighbour that must not come onto the path
    folder = link_to(tree)
    assert (folder / "kernelwright").resolve() == tree
    assert [path.name for path in folder.iterdir()] == ["kernelwright"]
    assert link_to(tree) == folder


def test_sides_are_told_apart_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve("packed", SQUARE, tmp_path).kind == sides.KERNEL
