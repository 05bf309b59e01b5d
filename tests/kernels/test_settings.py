"""Threads, backend and strictness: for the process, for a block, and from the environment."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels import settings
from kernelwright.kernels.errors import ConfigError
from kernelwright.kernels.settings import Settings, current

pytestmark = pytest.mark.usefixtures("fresh_settings")


def test_threads_are_the_cpus_of_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNELWRIGHT_NUM_THREADS", raising=False)
    assert kw.get_num_threads() == len(os.sched_getaffinity(0))


def test_threads_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_NUM_THREADS", " 3 ")
    assert kw.get_num_threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "100000"])
def test_a_wrong_number_in_the_environment_names_the_variable(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_NUM_THREADS", text)
    with pytest.raises(ConfigError, match=f"environment variable KERNELWRIGHT_NUM_THREADS .*{text}"):
        kw.get_num_threads()


@pytest.mark.parametrize(("text", "strict"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_strictness_comes_from_the_environment(
    text: str, strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_STRICT", text)
    assert current().strict is strict


@pytest.mark.parametrize(
    ("text", "float32", "float64"), [("1", True, True), ("", True, False), ("0", False, False)]
)
def test_the_extra_error_comes_from_the_environment(
    text: str, float32: bool, float64: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_EXTRA_ERROR", text)
    with kw.using(threads=1):
        assert current().allows_extra_error("float32") is float32
        assert current().allows_extra_error("float64") is float64, "whoever uses it asks for accuracy"
    with kw.using(extra_error=True):
        assert current().allows_extra_error("float64")
        with kw.using(extra_error=False, threads=1):
            assert not current().allows_extra_error("float32")
        assert current().allows_extra_error("float64"), "as before the inner block"


def test_a_wrong_strictness_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_STRICT", "maybe")
    with pytest.raises(ConfigError, match="KERNELWRIGHT_STRICT is 'maybe'; write KERNELWRIGHT_STRICT=1"):
        current()


@pytest.mark.parametrize("wrong", [0, -2, 1.0, "2", None, True, 10**9])
def test_a_wrong_number_of_threads_is_refused_and_changes_nothing(wrong: object) -> None:
    before = kw.get_num_threads()
    with pytest.raises(ConfigError, match=r"kw\.set_num_threads"):
        kw.set_num_threads(wrong)  # type: ignore[arg-type]
    assert kw.get_num_threads() == before
    if wrong is not None:
        with pytest.raises(ConfigError, match="threads"), kw.using(threads=wrong):  # type: ignore[arg-type]
            pass
    assert kw.get_num_threads() == before


def test_the_refusal_of_zero_threads_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"1 or more, got 0; write kw\.set_num_threads\(1\)"):
        kw.set_num_threads(0)


def test_set_num_threads_holds_for_every_thread() -> None:
    kw.set_num_threads(np.int64(3))  # type: ignore[arg-type]
    assert in_another_thread(kw.get_num_threads) == kw.get_num_threads() == 3


def test_using_nests_and_ends() -> None:
    kw.set_num_threads(2)
    with kw.using(threads=1, strict=True) as outer:
        assert outer is current()
        with kw.using(backend="numba"):
            assert current() is Settings(1, "numba", True)
            with kw.using(threads=3, strict=False):
                assert current() is Settings(3, "numba", False)
        assert current() is outer
    assert current() is Settings(2, None, False)


def test_using_ends_after_an_error() -> None:
    before = current()
    with pytest.raises(RuntimeError, match="inside"), kw.using(threads=1, backend="x"):
        raise RuntimeError("inside")
    assert current() is before


def test_using_is_seen_by_its_own_thread_alone() -> None:
    kw.set_num_threads(2)
    with kw.using(threads=1):
        assert in_another_thread(kw.get_num_threads) == 2


def test_set_num_threads_reaches_into_an_open_block_that_left_them_alone() -> None:
    kw.set_num_threads(2)
    with kw.using(backend="numba"):
        kw.set_num_threads(3)
        assert current() is Settings(3, "numba", False)
        with kw.using(threads=1):
            kw.set_num_threads(4)
            assert current().threads == 1
        assert current().threads == 4


@pytest.mark.parametrize(
    "wrong", [{"backend": ""}, {"backend": 3}, {"strict": 1}, {"extra_error": 0}, {"threads": 0}]
)
def test_using_refuses_values_that_mean_nothing(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))), kw.using(**wrong):  # type: ignore[arg-type]
        pass


def test_equal_settings_share_a_memo_and_different_ones_do_not() -> None:
    one = Settings(1, "numba")
    assert Settings(1, "numba") is one
    one.memo["key"] = len
    assert "key" not in Settings(2, "numba").memo
    settings.clear_memos()
    assert not one.memo


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match=r"kw\.using\(threads=2\)"):
        current().threads = 2


def in_another_thread(ask: object) -> object:
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return found[0]
