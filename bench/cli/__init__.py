"""The command line, `kernelwright bench | compare | tune | ...`: a file for each command or for a few."""

from __future__ import annotations

import os
import sys

# Before NumPy is loaded: its OpenBLAS lets idle workers spin for 2**28 cycles, 100 ms in which they take a
# core from whoever is timed next. A race would wait for that after every batch; with 2**20 it waits for 0.4
# ms. Calls in a batch follow each other at once, and calls before it wake the workers up, so that NumPy's own
# times are the same.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

# Each of these modules puts its commands into `app`, in the order that --help shows.
from ..session import Exit
from . import bench, compare, inspect, lab, tune  # noqa: F401
from .app import app


def main() -> None:
    """The `kernelwright` command."""
    try:
        app()
    except BrokenPipeError:  # `kernelwright list | head`
        sys.stderr.close()
        raise SystemExit(Exit.PROBLEM) from None
