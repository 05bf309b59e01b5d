"""Compiled code on disk: never stale, never mixed up, and no trouble when the disk is."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kernelwright.kernels.cpu import kept
from kernelwright.kernels.cpu.compile import Compiled, compiled
from kernelwright.kernels.errors import CacheWarning

# A kernel, made of: a compiled helper in another file, a second one below it, an intrinsic in a third, a
# constant in a fourth, and a value in the closure of a factory. `plain` is the same with Numba's own cache.
PACKAGE = {
    "__init__.py": "",
    "kernel.py": """
from numba import njit
from kernelwright.kernels.cpu.compile import compiled
from .constants import BASE
from .factory import make
from .helper import step
from .lowlevel import plus

def kernel(x):
    return plus(step(x)) + BASE

ours = compiled(kernel)
closed = compiled(make())

@njit(cache=True)
def plain(x):
    return plus(step(x)) + BASE
""",
    "helper.py": """
from numba import njit
from . import (  # (a list
    deep,  # over some lines)
)

@njit
def step(x):
    return deep.inner(x) + 1
""",
    "deep.py": """
import os
from numba import njit

TURNS = int(os.environ.get("TURNS", "0"))

@njit
def inner(x):
    return 10 * x + TURNS * 1000000
""",
    "lowlevel.py": """
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

def amount(kind):
    return ir.Constant(kind, 100)

AMOUNTS = {"usual": amount}  # no name leads from the kernel to the function

@intrinsic
def plus(typingctx, x):
    def codegen(context, builder, sig, args):
        return builder.add(args[0], AMOUNTS["usual"](args[0].type))
    return types.int64(types.int64), codegen
""",
    "constants.py": "BASE = 1000",
    "factory.py": """
def make(amount=70000):
    def closed(x):
        return x + amount
    return closed
""",
}
RESULT, CLOSED_RESULT = 1121, 70002  # of kernel(2) and closed(2)
# What stands in the sources, what is written instead, and the results then.
CHANGES = {
    "helper.py": ("+ 1\n", "+ 3\n", 1123, 70002),
    "deep.py": ("10 * x", "40 * x", 1181, 70002),
    "lowlevel.py": ("100)", "200)", 1221, 70002),
    "constants.py": ("1000", "5000", 5121, 70002),
    "factory.py": ("70000", "90000", 1121, 90002),
}
RUN = """
import json
from package import kernel
print(json.dumps([kernel.ours(2), kernel.closed(2), kernel.ours.cache.stats, kernel.closed.cache.stats]))
"""
LOADED, COMPILED = {"loaded": 1, "compiled": 0}, {"loaded": 0, "compiled": 1}


def write_package(folder: Path, **changes: tuple[str, str]) -> None:
    """Write PACKAGE, with `old` replaced by `new` in some files; times and sizes never change."""
    (folder / "package").mkdir(exist_ok=True)
    for name, text in PACKAGE.items():
        old, new = changes.get(name, ("", ""))
        assert len(old) == len(new)
        assert not old or text.count(old) == 1
        path = folder / "package" / name
        path.write_text(text.replace(old, new) if old else text)
        os.utime(path, ns=(10**18, 10**18))


def fresh(folder: Path, code: str = RUN, **environment: str) -> Any:
    """What `code` prints as JSON in a fresh interpreter, with all caches in the folder."""
    caches = {"KERNELWRIGHT_CACHE_DIR": str(folder / "cache"), "NUMBA_CACHE_DIR": str(folder / "numba")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **caches, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, run once: its code is on disk."""
    folder = tmp_path_factory.mktemp("stale")
    write_package(folder)
    code = RUN + "assert kernel.plain(2) == kernel.ours(2)\n"
    assert fresh(folder, code) == [RESULT, CLOSED_RESULT, COMPILED, COMPILED]
    return folder


def test_unchanged_source_is_loaded_and_not_compiled(folder: Path) -> None:
    write_package(folder)
    assert fresh(folder) == [RESULT, CLOSED_RESULT, LOADED, LOADED]


@pytest.mark.parametrize("changed", CHANGES)
def test_a_change_in_any_file_shows_at_once(folder: Path, changed: str) -> None:
    old, new, result, closed_result = CHANGES[changed]
    write_package(folder, **{changed: (old, new)})
    found = fresh(folder)
    assert found[:2] == [result, closed_result]
    assert found[2] == COMPILED


def test_control_numbas_own_cache_serves_stale_code(folder: Path) -> None:
    """Without this, the test above would pass also where nothing was ever kept."""
    write_package(folder, **{"helper.py": CHANGES["helper.py"][:2]})
    code = "import json\nfrom package import kernel\nprint(json.dumps([kernel.plain(2), kernel.ours(2)]))"
    stale, right = fresh(folder, code)
    assert stale == RESULT, "Numba's own cache has become right: see whether ours is still needed"
    assert right == CHANGES["helper.py"][2]


def test_a_value_from_outside_the_source_is_part_of_the_key(folder: Path) -> None:
    write_package(folder)
    assert fresh(folder, TURNS="1")[0] == RESULT + 1_000_000
    assert fresh(folder)[0] == RESULT


def test_source_that_changes_under_a_running_process_does_not_take_its_old_code(folder: Path) -> None:
    """The process computes with what it has imported, and keeps nothing under the name of the new source."""
    write_package(folder)
    code = """
import json
from pathlib import Path
from package import kernel
path = Path("package/helper.py")
path.write_text(path.read_text().replace("deep.inner(x) + 1", "deep.inner(x) + 7"))
print(json.dumps(kernel.compiled(kernel.kernel)(2)))
"""
    assert fresh(folder, code) == RESULT
    assert fresh(folder)[0] == RESULT + 6


def test_a_helper_with_numbas_own_cache_can_not_bring_stale_code_in(tmp_path: Path) -> None:
    (tmp_path / "low.py").write_text("from numba import njit\n@njit\ndef low(x):\n    return x + 1\n")
    (tmp_path / "mid.py").write_text(
        "from numba import njit\nfrom low import low\n@njit(cache=True)\ndef mid(x):\n    return low(x)\n"
    )
    (tmp_path / "top.py").write_text(
        "from kernelwright.kernels.cpu.compile import compiled\nfrom mid import mid\n"
        "def top(x):\n    return mid(x)\n"
    )
    first = "import json, mid, top; top.compiled(json.dumps); print(json.dumps(mid.mid(1)))"
    then = "import json, top; print(json.dumps(top.compiled(top.top)(1)))"
    assert fresh(tmp_path, first) == 2
    (tmp_path / "low.py").write_text("from numba import njit\n@njit\ndef low(x):\n    return x + 5\n")
    assert fresh(tmp_path, then) == 6
    # A process that has loaded the stale helper before keeps nothing that was made with it.
    both = "import mid; mid.mid(1)\n" + then
    (tmp_path / "low.py").write_text("from numba import njit\n@njit\ndef low(x):\n    return x + 8\n")
    fresh(tmp_path, both)
    assert fresh(tmp_path, then) == 9


MIXING = """
import json, os
from numba import njit
from kernelwright.kernels.cpu.compile import compiled

def make(n):
    @njit
    def helper(x):
        if x <= 0:
            return n
        return helper(x - 1) + n

    def top(x):
        return helper(x)

    if "HELPER_FIRST" in os.environ:
        helper(0)
    return compiled(top, key=(n,))

def run(*wanted):
    made = [make(n) for n in wanted]
    print(json.dumps([[m.entry(("int64",))(3) for m in made], [m.cache.stats["compiled"] for m in made]]))
"""


def test_code_from_several_processes_is_not_mixed_up(tmp_path: Path) -> None:
    """The linker knows a function by a name and a number, and Numba counts from 1 in every process."""
    (tmp_path / "mixing.py").write_text(MIXING)
    assert fresh(tmp_path, "import mixing; mixing.run(2)") == [[8], [1]]
    assert fresh(tmp_path, "import mixing; mixing.run(5)") == [[20], [1]]
    assert fresh(tmp_path, "import mixing; mixing.run(2, 5)") == [[8, 20], [0, 0]]


def test_a_helper_that_was_compiled_before_us_is_not_mixed_up_either(tmp_path: Path) -> None:
    """It has one of the numbers that start from 1, and what it is part of is not kept."""
    (tmp_path / "mixing.py").write_text(MIXING)
    for n in (2, 5):
        assert fresh(tmp_path, f"import mixing; mixing.run({n})", HELPER_FIRST="1") == [[4 * n], [1]]
    assert fresh(tmp_path, "import mixing; mixing.run(2, 5)") == [[8, 20], [1, 1]]


def test_two_processes_that_compile_at_once_both_succeed(tmp_path: Path) -> None:
    write_package(tmp_path)
    caches = {"KERNELWRIGHT_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "error", "-c", RUN]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **caches}
    running = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in running:
        out, problem = process.communicate(timeout=120)
        assert process.returncode == 0, problem.decode()
        assert json.loads(out)[:2] == [RESULT, CLOSED_RESULT]
    assert not [path.name for path in (tmp_path / "cache" / "compiled").iterdir() if path.suffix != ".bin"]
    assert fresh(tmp_path) == [RESULT, CLOSED_RESULT, LOADED, LOADED]


def test_nothing_compiles_at_import(python: Callable[..., Any]) -> None:
    done = python(
        """
import importlib, pkgutil
from numba.core import event
compiling = event.RecordingListener()
event.register("numba:compile", compiling)
import kernelwright
from kernelwright import kernels
names = [m.name for m in pkgutil.walk_packages(kernels.__path__, kernels.__name__ + ".")]
names = [name for name in names if "cuda" not in name]
for name in names:
    importlib.import_module(name)
print(len(names), len(compiling.buffer))
"""
    )
    modules, compiled_now = map(int, done.stdout.split())
    assert modules > 20
    assert compiled_now == 0


# --- in this process ----------------------------------------------------------------------------------------


def add_three(x: Any) -> Any:
    return x + 3


def add_four(x: Any) -> Any:
    return x + 4


def by_entry(function: Compiled) -> Any:
    return function.entry(("int64",))(1)


def by_call(function: Compiled) -> Any:
    return function(1)


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


def not_numbas(data: bytes) -> bytes:
    payload = pickle.dumps(("something", "else"))
    return kept.MAGIC + hashlib.sha256(payload).digest() + payload


@pytest.mark.parametrize("use", [by_entry, by_call])
@pytest.mark.parametrize(
    "damage", [flipped, not_numbas, lambda data: data[: len(data) // 2], lambda data: b""]
)
def test_a_damaged_entry_is_set_aside_and_made_again(
    damage: Callable[[bytes], bytes],
    use: Callable[[Compiled], Any],
    entries: Callable[[], list[Path]],
    forget_compiled: Callable[[], None],
) -> None:
    assert use(compiled(add_three)) == 4
    (path,) = entries()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    forget_compiled()
    with pytest.warns(
        CacheWarning, match=r"can't be used .* set aside as .*corrupt.* compiled again"
    ) as told:
        result = use(again := compiled(add_three))
    assert result == 4
    assert len(told) == 1
    assert again.cache is not None
    assert again.cache.stats == COMPILED
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1
    forget_compiled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = compiled(add_three)
        assert use(loaded) == 4
    assert loaded.cache is not None
    assert loaded.cache.stats == LOADED


def test_a_directory_that_can_not_be_written_is_told_once_and_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget_compiled: Callable[[], None]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    kept.warn_unwritable.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        results = [use(compiled(fn)) for fn in (add_three, add_four) for use in (by_entry, by_call)]
    assert results == [4, 4, 5, 5]
    (only,) = told
    assert only.category is CacheWarning
    assert re.search("can't be kept in .*file/cache.*KERNELWRIGHT_CACHE_DIR", str(only.message))


def test_a_file_that_is_run_again_is_compiled_again(
    tmp_path: Path, entries: Callable[[], list[Path]]
) -> None:
    """As a notebook or an editor does; also within the file system's clock, and with the same length."""
    results = []
    for amount in (1, 2, 1):
        path = tmp_path / "again.py"
        path.write_text(f"def fn(x):\n    return x + {amount}\n")
        os.utime(path, ns=(10**18, 10**18))
        results.append(compiled(run_file(path).fn)(0))
    assert results == [1, 2, 1]


def run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("again", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def test_what_is_typed_at_a_prompt_is_not_kept(entries: Callable[[], list[Path]]) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def typed(x):\n    return x + 1\n", space)
    function = compiled(space["typed"])
    assert function(1) == by_entry(function) == 2
    assert function.cache is None
    assert not entries()


def test_a_closure_without_a_stable_name_is_not_kept(entries: Callable[[], list[Path]]) -> None:
    from ctypes import CFUNCTYPE, c_int64

    double = CFUNCTYPE(c_int64, c_int64)(lambda x: 2 * x)

    def fn(x: Any) -> Any:
        return double(x)

    function = compiled(fn)
    assert function.cache is None
    assert function(4) == 8

    def itself(x: Any) -> Any:
        return unbound if x else 0

    assert compiled(itself).cache is None
    if False:
        unbound = 0
    assert not entries()


def test_a_set_has_one_name_in_every_process() -> None:
    from kernelwright.kernels.cpu.provenance import stable

    assert stable(frozenset(["a", "b", "c"])) == stable(frozenset(["c", "b", "a"]))
    assert stable((1, 2.0)) != stable((1.0, 2))
    assert stable((1, object())) is None


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import a, b.c as d", {"a", "b", "b.c"}),
        ("from .x import y, z as w", {"here.there.x", "here.there.x.y", "here.there.x.z"}),
        ("from .. import (  # (one\n    y,  # two)\n)", {"here", "here.y"}),
        ("from . import \\\n    y", {"here.there", "here.there.y"}),
        ("from.x import(y)", {"here.there.x", "here.there.x.y"}),
        ("if True: import a; from b import *", {"a", "b", "b.*"}),
        ("    try:import a", {"a"}),
    ],
)
def test_every_way_to_write_an_import_is_seen(line: str, names: set[str]) -> None:
    from kernelwright.kernels.cpu.provenance import imported_names

    assert imported_names(f"x = 1\n{line}\ny = 2\n", "here.there") == names
