"""What a test needs of the extra `gpu`; where it is not installed, the test is skipped and says so."""

from __future__ import annotations

from typing import Any

import pytest


def need(*modules: str) -> Any:
    """Import modules such as `"triton"`, or skip the test file with the reason; the first of them."""
    found = [
        pytest.importorskip(
            name, reason=f"needs {name}: pip install 'kernelwright[gpu]'", exc_type=ImportError
        )
        for name in modules
    ]
    return found[0]
