"""What every test starts from: one cache of compiled kernels, a fixed number of threads, no deadlines."""

from __future__ import annotations

import os
from pathlib import Path

import child_tests
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# These have to stand before anything compiles, and child processes inherit them. Compiled kernels are kept
# from one run to the next: they are keyed by their source, so that a run compiles only what has changed.
BUILD = ROOT / "build"
CACHE = Path(os.environ.setdefault("KERNELWRIGHT_CACHE_DIR", str(BUILD / "test-cache")))
os.environ.setdefault("TRITON_CACHE_DIR", str(CACHE / "triton"))
os.environ.setdefault("KERNELWRIGHT_NUM_THREADS", "2")
for _pool in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "2")
# What an earlier run has tuned would change which kernels this one chooses.
if CACHE.is_relative_to(BUILD):
    for _tuned in CACHE.glob("tuning-*"):
        _tuned.unlink()
# A user's own kernels and habits are no part of these tests.
os.environ.pop("KERNELWRIGHT_KERNELS", None)
os.environ.pop("KERNELWRIGHT_STRICT", None)
os.environ.pop("KERNELWRIGHT_EXTRA_ERROR", None)

# The first call of a kernel compiles it, which no deadline can know. The same cases every time, so that a
# change is judged by what it does; fresh ones, to find what nobody has thought of, with
# KERNELWRIGHT_TEST_FRESH=1.
settings.register_profile(
    "fresh", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("same", settings.get_profile("fresh"), derandomize=True)
settings.load_profile("fresh" if os.environ.get("KERNELWRIGHT_TEST_FRESH") else "same")


def pytest_configure(config: pytest.Config) -> None:
    for mark, what in child_tests.MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {what}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    return child_tests.run_elsewhere(item, nextitem)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    child_tests.write_down(report)
