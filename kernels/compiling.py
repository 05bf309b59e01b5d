"""What this process has spent on compiling kernels, and on loading what was compiled before.

    before = spent()
    first_call()
    print(spent() - before)

Only compiling and loading write here; a call of a kernel that is ready never looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """How many functions were compiled and loaded, and the seconds of it.

    One that is compiled while another is counts with it; what several threads compile at once adds up.
    """

    compiled: int = 0
    loaded: int = 0
    compile_s: float = 0.0
    load_s: float = 0.0

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(
            self.compiled - earlier.compiled,
            self.loaded - earlier.loaded,
            self.compile_s - earlier.compile_s,
            self.load_s - earlier.load_s,
        )

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.compiled + other.compiled,
            self.loaded + other.loaded,
            self.compile_s + other.compile_s,
            self.load_s + other.load_s,
        )

    def __str__(self) -> str:
        parts = [f"compiling {self.compile_s:.2f} s ({self.compiled} functions)"] if self.compiled else []
        if self.loaded:
            parts.append(f"loading {self.load_s:.3f} s ({self.loaded} functions)")
        return ", ".join(parts) or "nothing compiled or loaded"


class _Nest(threading.local):
    depth = 0
    started = 0.0


_lock = threading.Lock()
_nest = _Nest()
_so_far = Spent()


def spent() -> Spent:
    """All of this process so far."""
    return _so_far


def begin() -> None:
    """Compiling or loading starts in this thread, perhaps within another."""
    if _nest.depth == 0:
        _nest.started = time.perf_counter()
    _nest.depth += 1


def end(compiled: int = 0, loaded: int = 0) -> None:
    """It is over; so many functions came of it. Seconds count when the outermost ends."""
    global _so_far
    _nest.depth -= 1
    took = time.perf_counter() - _nest.started if _nest.depth == 0 else 0.0
    with _lock:
        _so_far += Spent(compiled, loaded, 0.0 if loaded else took, took if loaded else 0.0)


@contextmanager
def compiling() -> Iterator[None]:
    """Around the compilation of one function."""
    begin()
    done = 0
    try:
        yield
        done = 1
    finally:
        end(compiled=done)


@contextmanager
def loading() -> Iterator[None]:
    """Around the loading of one function."""
    begin()
    try:
        yield
    finally:
        end(loaded=1)
