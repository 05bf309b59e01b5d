"""Loading code without the garbage collector at its heels."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """Lets no garbage collection start inside, where it would have started before.

    Importing and compiling make a great many objects and little garbage, and each collection goes through all
    of them.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
