"""Our own front end of kernels: what it compiles means what it means in Python and in Numba."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import types

import kernelwright as kw
from kernelwright.kernels.cpu import generate, launch
from kernelwright.kernels.cpu.compile import part
from kernelwright.kernels.cpu.lowering.address import left_to_numba, lowered_address
from kernelwright.kernels.cpu.lowering.source import CannotLower, tree_of
from kernelwright.kernels.cpu.memory import load_element, load_word, store_element, store_word

NUMBERS = (-7, -2, -1, 0, 1, 3, 8)


def quotients(a, b):  # type: ignore[no-untyped-def]
    if b == 0:
        return 0
    return (a // b * 100 + a % b) * 10 + a // 8 % 4 + a % -3


def bits(a, b):  # type: ignore[no-untyped-def]
    return (a & b) + 3 * (a | b) - (a ^ b) + (a << 3) + (a >> 1) - -b


def ranges(a, b):  # type: ignore[no-untyped-def]
    total = i = 0
    for i in range(a):
        total += i * i
    for j in range(a, b, 2):
        total = total * 3 + j
    for j in range(b, a, -3):
        total = total * 5 + j
    if a != 0:
        for j in range(b, 11, a):
            if j > 9:
                break
            total += 7 * j
            if total > 10000:
                break
    return total + i


def loops(a, b):  # type: ignore[no-untyped-def]
    n = steps = 0
    while True:
        n += 1
        if n % 3 == 0:
            continue
        if n > b + 10:
            break
        steps += n
    while a < b and n > 0:
        a, n = a + 2, n - 1
    return steps * 100 + a + n


def choices(a, b):  # type: ignore[no-untyped-def]
    first = a if a > b else b
    flag = (a < b or a == 3) and not (b == 8 and a < 0)
    many = 1 if -2 <= a < b <= 8 else 0
    if flag and many:
        first += 100
    elif flag or b > 3 or a:
        first -= 50
    return min(first, a * b, 40) + max(a, b) + many


def tuples(a, b):  # type: ignore[no-untyped-def]
    pair, rest = (a, b), (1, 2, 3)
    x, (y, z) = b, (a + 1, pair[0])
    x, y = y, x
    total = 0
    for i in range(3):
        total += rest[i] * (a, b, a - b)[i]
    return total + x * 7 + y + z + pair[1] + len(rest)


def early(a, b):  # type: ignore[no-untyped-def]
    for i in range(5):
        if i == a:
            return b
        if i == b:
            return -1
    if a < b:
        return 4
    else:  # noqa: RET505 - nothing comes after such an if
        return 5


WAYS = (quotients, bits, ranges, loops, choices, tuples, early)


def words_of(address: int, words: np.ndarray[Any, Any]) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)(words.ctypes.data, 3)


def task_of(fn: Callable[..., Any]) -> Any:
    inner = part("test", fn.__name__)(fn)

    @part("test", fn.__name__)
    def task(block, index):  # type: ignore[no-untyped-def]
        store_word(block, 2, inner(load_word(block, 0), load_word(block, 1)) + index - 3)

    return task


@pytest.mark.parametrize("fn", WAYS, ids=lambda fn: str(fn.__name__))
def test_lowered_code_computes_what_python_and_numba_do(fn: Callable[..., Any]) -> None:
    task = task_of(fn)
    ours = lowered_address(task, ("a test", fn.__name__), "a test")
    assert ours is not None, left_to_numba
    theirs, _held = launch._by_numba(task, ("a test", fn.__name__), "a test")
    for a, b in itertools.product(NUMBERS, NUMBERS):
        for address in (ours, theirs):
            words = np.array([a, b, -99], np.int64)
            words_of(address, words)
            assert words[2] == fn(a, b), (a, b)


def test_whole_numbers_wrap_around() -> None:
    @part("test", "wrap")
    def task(block, index):  # type: ignore[no-untyped-def]
        store_word(block, 1, load_word(block, 0) * 0x100000001 + 0x7FFFFFFFFFFFFFFF)

    words = np.array([0x123456789ABCDEF, 0], np.int64)
    address = lowered_address(task, ("a test", "wrap"), "a test")
    assert address is not None
    words_of(address, words)
    wide = (0x123456789ABCDEF * 0x100000001 + 0x7FFFFFFFFFFFFFFF) % (1 << 64)
    assert int(words[1]) % (1 << 64) == wide


def test_floats_and_several_results_pass_through_parts() -> None:
    element = types.float32

    @part("test", "several")
    def both(at, sign):  # type: ignore[no-untyped-def]
        value = element(0)
        if sign:
            value = load_element(element, at)
        return value, (at + 4, sign)

    @part("test", "several")
    def task(block, index):  # type: ignore[no-untyped-def]
        at = load_word(block, 0)
        value, (following, sign) = both(at, index == 3)
        other, _ = both(following, not sign)
        store_element(value + value * value - other, at)

    data = np.array([1.5, 2.5], np.float32)
    words = np.array([data.ctypes.data, 0], np.int64)
    address = lowered_address(task, ("a test", "several"), "a test")
    assert address is not None
    words_of(address, words)
    assert data.tolist() == [3.75, 2.5]


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_not_known_is_left_to_numba(deep: bool) -> None:
    """`deep` is known: what stands behind it is not looked at."""

    @part("test", "left", deep)
    def task(block, index):  # type: ignore[no-untyped-def]
        if deep:
            store_word(block, 1, int(load_word(block, 0) / 4.0))
        else:
            store_word(block, 1, load_word(block, 0) // 4)

    key = ("a test", "left", deep)
    for _ in range(2):
        words = np.array([8, 0], np.int64)
        words_of(launch.address_of_task(task, key, "a test"), words)
        assert words[1] == 2
        assert (lowered_address(task, key, "a test") is None) == deep


def test_a_function_that_its_file_no_longer_shows_is_left_to_numba(tmp_path: Path) -> None:
    path = tmp_path / "changing.py"
    path.write_text("def outer(n):\n    def one(a):\n        return a + n\n    return one\n")
    spec = spec_from_file_location("changing", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tree_of(module.outer(1)).name == "one"
    path.write_text("def outer(n):\n    def one(a):\n        return a - n\n    return one\n")
    with pytest.raises(CannotLower, match="one is not what its file says"):
        tree_of(module.outer(1))


def test_a_lowered_task_is_kept_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path))
    task = task_of(quotients)
    before = dict(generate.counts)
    first = lowered_address(task, ("kept", 1), "kept")
    assert lowered_address(task, ("kept", 1), "kept") == first
    assert generate.counts["compiled"] == before["compiled"] + 1
    assert len(list(tmp_path.rglob("kept-*.o"))) == 1
    # Another process finds the file.
    monkeypatch.setattr(generate, "_addresses", {})
    assert lowered_address(task, ("kept", 1), "kept")
    assert generate.counts["loaded"] == before["loaded"] + 1


@pytest.mark.skipif(sys.platform == "win32", reason="tasks run elsewhere")
def test_matmul_convolution_and_recurrent_kernels_are_not_left_to_numba() -> None:
    """Falling back would be right, and cost seconds at a first call."""

    def ones(*shape: int) -> np.ndarray[Any, Any]:
        return np.ones(shape, np.float32)

    kw.matmul(ones(70, 50), ones(50, 40))
    kw.matmul(ones(9, 5, 6), ones(9, 6, 7))
    kw.conv2d(ones(1, 9, 9, 8), ones(8, 8, 3, 3), padding=1, layout="NHWC")
    kw.conv2d(ones(1, 8, 9, 9), ones(8, 8, 3, 3), padding=1)
    kw.conv2d(ones(1, 16, 9, 9), ones(16, 1, 3, 3), padding=1, groups=16)
    kw.grad(lambda w: kw.sum(kw.conv2d(ones(1, 8, 9, 9), w, stride=2)))(kw.array(ones(8, 8, 3, 3)))
    kw.lstm(ones(3, 2, 8), None, ones(32, 8), ones(32, 8))
    ours = ("kernels.conv", "kernels.cpu", "kernels.matmul", "kernels.recurrent")
    assert not [name for name in left_to_numba if name.removeprefix("kernelwright.").startswith(ours)]
