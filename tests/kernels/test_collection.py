"""The garbage collector is found again as it was."""

from __future__ import annotations

import contextlib
import gc

import pytest

from kernelwright.kernels.collection import paused_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_paused_and_goes_on_as_before(enabled: bool) -> None:
    before = gc.isenabled()
    seen = []
    try:
        (gc.enable if enabled else gc.disable)()
        with contextlib.suppress(ValueError), paused_collection():
            seen.append(gc.isenabled())
            with paused_collection():
                pass
            seen.append(gc.isenabled())
            raise ValueError
        assert seen == [False, False], "an inner pause ends with the outer one"
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
