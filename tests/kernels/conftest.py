"""Fixtures for the room below: the toy op, a cache of its own, and settings as they are at start-up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_op import toy_registered

from kernelwright.kernels import settings
from kernelwright.kernels.op import Op


@pytest.fixture
def toy() -> Iterator[Op]:
    with toy_registered() as op:
        yield op


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, in force for the test."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(directory))
    settings.clear_memos()
    return directory


@pytest.fixture
def fresh_settings() -> Iterator[None]:
    """Settings that have not been read from the environment yet; afterwards those from before."""
    before, settings._default = settings._default, None
    yield
    settings._default = before
