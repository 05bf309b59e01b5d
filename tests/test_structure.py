"""The house itself: imports go one way, the face loads little, and the wheel holds the tree."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tree import ROOT, copy_tree, tree_files

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# What each room may import of ours, top to bottom. The face loads names from all of them on first use.
ROOMS: dict[str, set[str]] = {
    "kernels": {"kernels"},
    "engine": {"engine", "kernels"},
    "bindings": {"bindings", "engine", "kernels"},
    "bench": {"bench", "bindings", "engine", "kernels", "kernelwright"},
}
# Loaded when first needed, never by `import kernelwright`.
HEAVY = {
    "cupy",
    "jax",
    "llvmlite",
    "matplotlib",
    "ml_dtypes",
    "numba",
    "onnx",
    "onnxruntime",
    "rich",
    "sklearn",
    "torch",
    "triton",
    "typer",
}


def modules() -> list[str]:
    """The Python files that make the package, as paths from the root."""
    return [f for f in tree_files() if f.endswith(".py") and (f.split("/")[0] in ROOMS or "/" not in f)]


def room_of(dotted: str) -> str:
    """`kernelwright.kernels.op` -> `kernels`; the face and names on it -> `kernelwright`."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "kernelwright"


def imports_of_ours(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of every import of kernelwright in a module, relative ones resolved."""
    package = ["kernelwright", *Path(path).parent.parts]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            name = str(node.args[0].value)
            level = len(name) - len(name.lstrip("."))
            names = [".".join([*package[: len(package) - level + 1], name.lstrip(".")]) if level else name]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "kernelwright")


def uphill(path: str, source: str) -> list[str]:
    """The imports of a module that its room does not allow, each as a line to read."""
    room = path.split("/")[0]
    return [
        f"{path}:{line}: {room}/ may import {sorted(ROOMS[room])}, not {name}"
        for line, name in imports_of_ours(path, source)
        if room_of(name) not in ROOMS[room]
    ]


def test_imports_go_one_way() -> None:
    inside = [path for path in modules() if "/" in path]
    assert any(path.startswith("kernels/") for path in inside)
    wrong = [line for path in inside for line in uphill(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "from ..engine import array",
        "from ..engine.array import Array",
        "from .. import engine",
        "from .. import matmul",
        "import kernelwright as kw",
        "import kernelwright.bench.cli",
        "def f():\n    from ..bench import timing",
        "import importlib\nimportlib.import_module('..engine', __package__)",
    ],
)
def test_an_import_that_goes_up_is_found(source: str) -> None:
    assert uphill("kernels/control.py", source)


def test_the_package_imports_itself_relatively() -> None:
    """An absolute import finds another copy when two are installed. Tests that lie in bench/ are users."""
    wrong = []
    for path in modules():
        if Path(path).name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            wrong += [f"{path}:{node.lineno}: {n}" for n in names if n.split(".")[0] == "kernelwright"]
    assert not wrong, "write it relatively, as in `from ..kernels.op import Op`:\n" + "\n".join(wrong)


def test_examples_use_the_public_face_alone() -> None:
    wrong = []
    for path in tree_files():
        if path.startswith("examples/") and path.endswith(".py"):
            for line, name in imports_of_ours(path, (ROOT / path).read_text(encoding="utf-8")):
                if room_of(name) != "kernelwright" or name.count(".") > 1:
                    wrong.append(f"{path}:{line}: {name}")
    assert not wrong, "\n".join(wrong)


def test_no_file_shadows_a_library_when_run_as_a_script() -> None:
    taken = HEAVY | {"numpy", "pytest", "hypothesis", "scipy"}
    wrong = [path for path in modules() if Path(path).stem in taken or Path(path).parent.name in taken]
    wrong = [path for path in wrong if not path.startswith("bindings/")]
    assert not wrong, f"name these <device>_<language>.py or by what they hold: {wrong}"


def run(code: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("use", ["", "kw.__version__", "kw.Array", "kw.array([[1.0, 2.0]])", "dir(kw)"])
def test_the_face_loads_no_compiler_and_no_framework(use: str, tmp_path: Path) -> None:
    done = run(f"import sys, kernelwright as kw\n{use}\nprint(*sys.modules)", tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "kernelwright" in loaded
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}


def test_the_face_loads_only_the_modules_it_must(tmp_path: Path) -> None:
    """Beside NumPy, the import reads a handful of small files: this is what keeps it fast."""
    done = run(
        "import numpy, sys; old = set(sys.modules); import kernelwright; print(*(set(sys.modules) - old))"
    )
    assert done.returncode == 0, done.stderr
    added = set(done.stdout.split())
    ours = {name for name in added if name.startswith("kernelwright")}
    assert len(ours) <= 10, sorted(ours)
    assert not any(name.startswith("kernelwright.bench") for name in ours)
    assert not added & {
        "inspect",
        "asyncio",
        "importlib.metadata",
        "multiprocessing",
        "subprocess",
        "tempfile",
    }


@pytest.mark.parametrize("room", ["kernels", "engine", "bench"])
def test_importing_a_room_from_the_root_says_what_to_write(room: str) -> None:
    done = run(f"import {room}", ROOT)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert f"from kernelwright import {room}" in last


def test_the_root_does_not_hide_the_package() -> None:
    """From the root, where kernels/ lies beside the tests, `import kernelwright` still means this tree."""
    done = run("import kernelwright as kw, kernelwright.kernels as k; print(kw.__file__, k.__name__)", ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / "__init__.py"), "kernelwright.kernels"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this tree, built from a copy, so that nothing left in build/ can slip into it."""
    tree = copy_tree(tmp_path_factory.mktemp("a-folder.of another name"))
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--wheel-dir", str(out), str(tree)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(out.glob("kernelwright-*.whl")))


def test_the_wheel_holds_the_tree(wheel: zipfile.ZipFile) -> None:
    rooms = {
        name.removeprefix("kernelwright.").split(".")[0] for name in CONFIG["tool"]["setuptools"]["packages"]
    }
    tree = {name for name in tree_files() if name.split("/")[0] in rooms | set(ROOMS)} | {
        "__init__.py",
        "py.typed",
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {f"kernelwright/{name}" for name in tree}


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    text = wheel.read(info).decode()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: <3.14,>=3.11" in text
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_works_without_the_tree(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import numpy as np, kernelwright as kw\n"
        f"assert kw.__file__.startswith({str(tmp_path)!r}), kw.__file__\n"
        "a = np.arange(6.0, dtype=np.float32).reshape(2, 3)\n"
        "assert np.asarray(kw.matmul(a, a.T)).tolist() == [[5.0, 14.0], [14.0, 50.0]]\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_subpackage_is_named() -> None:
    named = set(CONFIG["tool"]["setuptools"]["packages"])
    there = {
        ".".join(["kernelwright", *Path(path).parent.parts])
        for path in modules()
        if Path(path).name == "__init__.py"
    }
    assert named == there
