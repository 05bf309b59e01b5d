"""Of which source a time on a GPU speaks: the files that a CUDA kernel's code is in.

That is the file which declares the kernel, what it takes from the rooms `cuda` of the families, and the
device code that all share; comments and docstrings apart. The launch path, the model and the reports are not
in it: they do not change how long a kernel takes.
"""

from __future__ import annotations

import ast
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

_KERNELS = Path(__file__).resolve().parent.parent
_SHARED = Path(__file__).resolve().parent
_SHARED_CODE = ("triton_activations.py", "device.cuh", "elements.cuh")


def files_of(path: Path) -> tuple[Path, ...]:
    """The files behind the kernels that one declares, itself first."""
    found: dict[Path, None] = {}
    left = [path.resolve()]
    while left:
        file = left.pop()
        if file in found:
            continue
        found[file] = None
        left += [other for other in _imported(file) if _counts(other)]
        if _SHARED / "code_launch.py" in _imported(file):  # CUDA C++, which is read and not imported
            room = file.parent if file.parent.name == "cuda" else file.parent / "cuda"
            left += [*sorted(_SHARED.glob("*.cuh")), *sorted(room.glob("*.cu*"))]
    return tuple(found)


@cache
def digest(path: Path, stamp: Any = None) -> str:
    """SHA-256 of the files behind the kernels that one declares; `stamp` tells states of it apart."""
    whole = sha256()
    for file in sorted(files_of(path)):
        whole.update(f"{file.name}\n{_meaning(file)}\n".encode())
    return whole.hexdigest()


def _counts(path: Path) -> bool:
    if path.parent == _SHARED:
        return path.name in _SHARED_CODE
    return path.is_relative_to(_KERNELS) and (path.parent.name == "cuda" or path.name.startswith("cuda_"))


def _imported(path: Path) -> tuple[Path, ...]:
    """The files that a Python file imports by relative names."""
    if path.suffix != ".py":
        return ()
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parent
        for _ in range(node.level - 1):
            folder = folder.parent
        base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
        names = [base / alias.name for alias in node.names]
        found += [file.with_suffix(".py") for file in (base, *names) if file.with_suffix(".py").is_file()]
    return tuple(found)


def _meaning(path: Path) -> str:
    """A file without comments, and Python without docstrings."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        lines = (line.split("//")[0].strip() for line in text.splitlines())
        return "\n".join(line for line in lines if line)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
