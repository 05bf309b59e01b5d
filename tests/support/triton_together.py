"""Programs of one launch that wait for each other, in Triton's interpreter.

The interpreter runs programs one after the other, and the first that waits for another would wait for ever.
Here each program of a cooperative launch (`Step.together`) is a thread, and one of them runs at a time: it
hands on when it is about to read what others may still write (volatile loads) and at atomics. Who comes next
is by the order asked for, so that a kernel meets programs that are far ahead of it and far behind.

A plain load of what another program has written is a race there, unless the reader has passed an atomic with
acquire: `Baton.may_read`.

Where all programs only read, again and again, and nobody writes, they wait for what never comes: that raises
StuckError in place of hanging.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

ORDERS = ("forwards", "backwards", "random 1", "random 2")
_MOST_IDLE = 40  # turns of each program, one after the other, in which nothing is written


class StuckError(AssertionError):
    """All programs of a launch wait."""


class _Stopped(BaseException):
    """Ends a program because another one has failed."""


class Baton:
    """Which program runs.

    Args:
        order: one of ORDERS.
    """

    def __init__(self, order: str) -> None:
        self.order = order
        self.random = random.Random(order)
        self.turn = threading.Condition()
        self.running: int | None = None
        self.alive: list[int] = []
        self.idle = 0
        self.error: BaseException | None = None
        self.volatile = False
        self.acquired: set[int] = set()

    def run(self, programs: list[Callable[[], None]], resumed: Callable[[int], None]) -> None:
        """Run all programs; `resumed(i)` is called whenever program i goes on."""
        self.alive, self.acquired = list(range(len(programs))), set()
        self.resumed = resumed
        self.programs = programs
        threads = [threading.Thread(target=self._body, args=(i,), daemon=True) for i in self.alive]
        self.here = threading.local()
        for thread in threads:
            thread.start()
        with self.turn:
            self.running = self._next(None)
            self.turn.notify_all()
        for thread in threads:
            thread.join(120)
        if self.error is not None:
            raise self.error

    def _body(self, me: int) -> None:
        import numpy as np

        self.here.me = me
        try:
            with np.errstate(all="ignore"):
                self._wait(me)
                self.programs[me]()
        except _Stopped:
            pass
        except BaseException as error:
            self.error = self.error or error
        finally:
            with self.turn:
                after = self._next(me)
                self.alive.remove(me)
                if after == me:
                    after = self.alive[0] if self.alive else -1
                self.running = after
                self.turn.notify_all()

    def hand_on(self) -> None:
        """Let others run; returns when it is this program's turn again."""
        me = getattr(self.here, "me", None)
        if me is None:
            return
        with self.turn:
            self.idle += 1
            if self.idle > _MOST_IDLE * len(self.alive) and self.error is None:
                self.error = StuckError(f"all {len(self.alive)} programs wait for what nobody writes")
            self.running = self._next(me)
            self.turn.notify_all()
        self._wait(me)

    def may_read(self) -> bool:
        """Whether the program that runs may read now what others have written."""
        return self.volatile or getattr(self.here, "me", None) in self.acquired

    def wrote(self) -> None:
        """Something was written: waiting may have been worth it."""
        self.idle = 0

    def _wait(self, me: int) -> None:
        with self.turn:
            self.turn.wait_for(lambda: self.running == me or self.error is not None)
            if self.error is not None:
                raise _Stopped
        self.resumed(me)

    def _next(self, me: int | None) -> int:
        if self.order.startswith("random"):
            return self.random.choice(self.alive)
        step = 1 if self.order == "forwards" else -1
        if me is None:
            return self.alive[0 if step > 0 else -1]
        return self.alive[(self.alive.index(me) + step) % len(self.alive)]


@contextlib.contextmanager
def together(order: str) -> Iterator[Baton]:
    """Launches inside the block run their programs side by side."""
    import triton.runtime.interpreter as interpreter

    baton = Baton(order)
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    patch_lang, place = interpreter._patch_lang, builder.set_grid_idx
    names = ("create_masked_load", "create_atomic_rmw", "create_atomic_cas", "create_masked_store")
    before = {name: getattr(builder, name) for name in names}
    the_builder = interpreter.interpreter_builder

    class Side(executor):  # type: ignore[misc, valid-type]
        """Collects the programs of a grid, and runs them when the last one is there."""

        def __init__(self, fn: Any, arg_names: Any, grid: Any, *rest: Any) -> None:
            super().__init__(fn, arg_names, grid, *rest)
            waiting: list[tuple[Any, dict[str, Any]]] = []
            count = grid[0] * (grid[1] if len(grid) > 1 else 1) * (grid[2] if len(grid) > 2 else 1)

            @functools.wraps(fn)
            def collected(**args: Any) -> None:
                waiting.append((the_builder.grid_idx, args))
                if len(waiting) == count:
                    programs = [functools.partial(fn, **given) for _, given in waiting]
                    baton.run(programs, lambda i: place(the_builder, *waiting[i][0]))

            collected.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]
            self.fn = collected

    def load(self: Any, ptrs: Any, mask: Any, other: Any, cache: Any, eviction: Any, is_volatile: Any) -> Any:
        if is_volatile:
            baton.hand_on()
        baton.volatile = bool(is_volatile)
        try:
            return before["create_masked_load"](self, ptrs, mask, other, cache, eviction, is_volatile)
        finally:
            baton.volatile = False

    def written(name: str) -> Any:
        def call(self: Any, *args: Any) -> Any:
            if name != "create_masked_store":
                baton.hand_on()
            held = None if name == "create_masked_store" else _contents(args["rmw" in name])
            result = before[name](self, *args)
            if held is None or held != _contents(args["rmw" in name]):
                baton.wrote()
            if any("ACQUIRE" in str(arg) for arg in args):
                baton.acquired.add(baton.here.me)
            return result

        return call

    builder.create_masked_load = load
    for name in names[1:]:
        setattr(builder, name, written(name))
    interpreter.GridExecutor = Side
    interpreter._patch_lang = lambda fn: patch_lang(getattr(fn, "__wrapped__", fn))
    try:
        yield baton
    finally:
        for name, function in before.items():
            setattr(builder, name, function)
        interpreter.GridExecutor, interpreter._patch_lang = executor, patch_lang


def _contents(pointers: Any) -> bytes | None:
    """What lies at an atomic's address, to see whether a counter has changed; None of several addresses."""
    import ctypes

    addresses = pointers.data.ravel()
    if len(addresses) != 1:
        return None
    return ctypes.string_at(int(addresses[0]), 4)
