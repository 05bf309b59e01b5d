"""The syntax tree of a function that runs, and what its names mean."""

from __future__ import annotations
import __future__

import ast
import builtins
import os
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any


class CannotLower(Exception):
    """A function uses something that this front end leaves to Numba; its text says what, and where."""


_FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


@lru_cache(maxsize=64)
def _top_level(path: str, changed_ns: int) -> tuple[list[ast.stmt], list[ast.FunctionDef]]:
    """What a module imports, and the functions that stand in it: nothing else can hold a part."""
    tree = ast.parse(Path(path).read_bytes(), path)
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return imports, [node for node in tree.body if isinstance(node, ast.FunctionDef)]


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(one.lineno for one in node.decorator_list)])


@lru_cache(maxsize=256)
def _codes(path: str, changed_ns: int, place: int, flags: int) -> dict[tuple[str, int], CodeType]:
    """The byte code of a function of a module and of all that stand in it, by name and first line.

    The byte code of a call depends on whether a name is that of an import.
    """
    imports, functions = _top_level(path, changed_ns)
    part = ast.Module([*imports, functions[place]], type_ignores=[])
    whole = compile(part, path, "exec", flags=flags & _FUTURE, dont_inherit=True)
    found: dict[tuple[str, int], CodeType] = {}

    def visit(code: CodeType) -> None:
        for held in code.co_consts:
            if isinstance(held, CodeType):
                found[held.co_name, held.co_firstlineno] = held
                visit(held)

    visit(whole)
    return found


def tree_of(fn: FunctionType) -> ast.FunctionDef:
    """The tree of a function, from its file.

    Raises:
        CannotLower: without a file, or when the file no longer says what runs.
    """
    code = fn.__code__
    path, name, line = code.co_filename, code.co_name, code.co_firstlineno
    try:
        changed_ns = os.stat(path).st_mtime_ns
        _, functions = _top_level(path, changed_ns)
    except (OSError, SyntaxError, ValueError):
        raise CannotLower(f"{name} has no source") from None
    for place, outer in enumerate(functions):
        if not _first_line(outer) <= line <= (outer.end_lineno or 0):
            continue
        for node in ast.walk(outer):
            if isinstance(node, ast.FunctionDef) and (node.name, _first_line(node)) == (name, line):
                if _codes(path, changed_ns, place, code.co_flags).get((name, line)) == code:
                    return node
                raise CannotLower(f"{name} is not what its file says")
    raise CannotLower(f"{name} is not in its file")


def meaning(fn: FunctionType, name: str) -> Any:
    """What a name that is not local means in a function.

    Raises:
        CannotLower: when it means nothing yet.
    """
    if name in fn.__code__.co_freevars:
        cell = (fn.__closure__ or ())[fn.__code__.co_freevars.index(name)]
        try:
            return cell.cell_contents
        except ValueError:
            raise CannotLower(f"{name} is not there yet") from None
    if name in fn.__globals__:
        return fn.__globals__[name]
    try:
        return getattr(builtins, name)
    except AttributeError:
        raise CannotLower(f"{name} is not defined") from None
