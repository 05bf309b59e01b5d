"""Devices, thread counts and cache directories that matmul cannot work with: refused, or a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmul_calls import built_in, operands

import kernelwright as kw
from kernelwright.kernels import settings, tuning
from kernelwright.kernels.cache import Entry
from kernelwright.kernels.dispatch import choose
from kernelwright.kernels.errors import (
    CacheWarning,
    ConfigError,
    DeviceError,
    ShapeError,
)
from kernelwright.kernels.kernel import Config, Kernel
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import TensorSpec, problem_key


def test_arrays_of_other_devices_are_refused() -> None:
    on_gpu = TensorSpec((8, 8), "float32", "cuda")
    here = TensorSpec((8, 8), "float32")
    with pytest.raises(DeviceError, match="inputs are on several devices: a on cuda, b on cpu; move them"):
        kw.explain(kw.matmul, on_gpu, here)
    with pytest.raises(DeviceError, match="there is no 'cuda:99' here"):
        kw.array(np.ones((2, 2), "f4"), device="cuda:99")
    with pytest.raises(DeviceError, match="device 'tpu' is unknown; write 'cpu', 'cuda'"):
        kw.asarray(np.ones((2, 2), "f4"), device="tpu")


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", None, True, 10**6])
def test_a_number_of_threads_that_means_nothing_is_refused(threads: Any) -> None:
    before = kw.get_num_threads()
    with pytest.raises(ConfigError, match=r"kw\.set_num_threads"):
        kw.set_num_threads(threads)
    if threads is not None:
        with pytest.raises(ConfigError, match=r"kw\.using\(threads=\.\.\.\)"), kw.using(threads=threads):
            pytest.fail("the block was entered")
    assert kw.get_num_threads() == before
    a, b = operands(5, 6, 7)
    np.testing.assert_allclose(np.asarray(kw.matmul(a, b)), a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["0", "many", "-3", "1.5"])
@pytest.mark.usefixtures("fresh_settings")
def test_a_variable_that_means_nothing_is_refused_by_the_first_call(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELWRIGHT_NUM_THREADS", text)
    out = np.full((3, 5), 7, "f4")
    with pytest.raises(ConfigError, match="variable KERNELWRIGHT_NUM_THREADS takes a whole number"):
        kw.matmul(*operands(3, 4, 5), out=out)
    assert (out == 7).all()


def test_a_thread_that_dies_of_a_refusal_leaves_no_other_behind() -> None:
    a, b = operands(90, 80, 100)

    def refuse() -> None:
        with kw.using(threads=2), pytest.raises(ShapeError):
            kw.matmul(a, b, out=np.empty((1, 1), "f4"))

    before = {thread.name for thread in threading.enumerate()}
    worker = threading.Thread(target=refuse, name="caller")
    worker.start()
    worker.join()
    assert {thread.name for thread in threading.enumerate()} == before


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A cache directory below a file: nobody can make it, not even root."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "cache"


def measured(kernel: Kernel, specs: tuple[TensorSpec, ...], config: Config, seconds: float) -> Entry:
    problem = problem_key(MATMUL, specs, {})
    return Entry(kernel.id, kernel.source_digest(), problem, 1, dict(config), seconds)


def test_times_that_cannot_be_kept_are_a_warning_and_used_all_the_same(
    unwritable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = operands(200, 150, 170)
    specs = tuple(map(TensorSpec.of, (a, b, np.empty((200, 170), "f4"))))
    stream = built_in("stream")
    config = stream.configurations(specs, {}, 1)[-1]
    with kw.using(threads=1):
        chosen = choose(MATMUL, specs)
        assert chosen.kernel is not None
        # Compiled now, before nothing can be kept any more.
        np.testing.assert_allclose(np.asarray(kw.matmul(a, b)), a @ b, rtol=1e-3, atol=1e-3)
        stream.bind(specs, {}, config, 1)
        monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(unwritable))
        settings.clear_memos()
        entries = [measured(chosen.kernel, specs, chosen.config, 1.0), measured(stream, specs, config, 1e-9)]
        with pytest.warns(CacheWarning, match=re.escape(str(unwritable))):
            tuning.default_cache().put(entries)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tuned = choose(MATMUL, specs)
            assert (tuned.kernel, tuned.config) == (stream, config)
            assert "measured" in str(kw.explain(kw.matmul, a, b))
            np.testing.assert_allclose(np.asarray(kw.matmul(a, b)), a @ b, rtol=1e-3, atol=1e-3)
            tuning.default_cache().put(entries)
    monkeypatch.undo()
    settings.clear_memos()


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.usefixtures("own_cache")
def test_times_that_mean_nothing_change_no_choice(seconds: float) -> None:
    a, b = operands(200, 150, 170)
    specs = tuple(map(TensorSpec.of, (a, b, np.empty((200, 170), "f4"))))
    before = choose(MATMUL, specs)
    direct = built_in("direct")
    entry = measured(direct, specs, direct.configurations(specs, {}, 1)[0], seconds)
    with pytest.raises(ConfigError, match="a measured time is a positive number of seconds"):
        tuning.default_cache().put([entry])
    after = choose(MATMUL, specs)
    assert (after.kernel, after.config) == (before.kernel, before.config)


FIRST_CALL = """
import warnings
import numpy as np, kernelwright as kw
a, b = np.ones((5, 6), "f4"), np.ones((6, 7), "f4")
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    result = np.asarray(kw.matmul(a, b))
assert (result == 6).all()
print(*[f"{w.category.__name__}: {w.message}" for w in seen], sep="\\n")
"""


def test_compiled_code_that_cannot_be_kept_is_a_warning(unwritable: Path) -> None:
    environment = {**os.environ, "KERNELWRIGHT_CACHE_DIR": str(unwritable)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CacheWarning: compiled kernels can't be kept in"), done.stdout
    assert str(unwritable) in done.stdout
    assert len(done.stdout.splitlines()) == 1, "once"
