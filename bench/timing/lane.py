"""A contestant: how it runs a list of calls, on which operands, and how many calls make a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...kernels.op import AnyArray
from ..problems.problem import poison
from .probe import Probe
from .rules import Timing
from .signs import Own, Signs

Args = tuple[Any, ...]
Outputs = tuple[AnyArray, ...]


class Call(NamedTuple):
    """One call's arguments in the library's own types, and the arrays it writes.

    `outputs` is empty when the call returns new memory: the lane's `read` makes arrays of that.
    """

    args: Args
    outputs: Outputs = ()


Run = Callable[[Sequence[Args]], Any]


class Lane:
    """One contestant: how it runs a list of calls, and the operands it runs them on.

    Args:
        name: for messages.
        run: performs each call of a list, in order, and nothing else; returns what the last one returned.
            See `call_loop` and `closure_loop`.
        calls: operand sets. One for a warm cache; many, together larger than the cache, for a cold one.
        spare: warm only: the same inputs with other outputs, for the call that is verified.
        read: makes arrays of what `run` returned, for calls without outputs of their own.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        calls: Sequence[Call],
        spare: Call | None = None,
        read: Callable[[Any], Outputs] | None = None,
    ):
        self.name = name
        self.run = run
        self.cold = len(calls) > 1
        self.batch = 1
        self.call_s = 0.0
        self.idle_s = 0.0
        self.verified = 0
        self.timed = 0
        self.faults = 0
        self.own = Own()
        self._calls = list(calls)
        self._spare = spare or calls[0]
        self._read = read
        self._at = 0

    @property
    def only(self) -> Call:
        """The first operand set: all there is when the cache is warm."""
        return self._calls[0]

    @property
    def in_place(self) -> bool:
        """Whether calls write into outputs that they are given, and allocate none."""
        return self._read is None

    def outputs(self, call: Call, result: Any) -> Outputs:
        """What a call computed, of which `run` returned `result`."""
        return call.outputs if self._read is None else self._read(result)

    def compute(self) -> Outputs:
        """Runs the first call once, outside any timing; its outputs."""
        return self.outputs(self.only, self.run([self.only.args]))

    def some(self, n: int) -> list[Args]:
        """The next n calls: the same one over again, or the next sets in the rotation."""
        if not self.cold:
            return [self._calls[0].args] * n
        count = len(self._calls)
        picked = [self._calls[(self._at + i) % count].args for i in range(n)]
        self._at = (self._at + n) % count
        return picked

    def timed_batch(self, rng: np.random.Generator, check: bool) -> tuple[list[Args], int, Call | None]:
        """The calls of one batch; how many of them end with the one to verify, chosen at random; that one."""
        if not check:
            return self.some(self.batch), self.batch, None
        chosen = int(rng.integers(self.batch))
        if self.cold:
            call = self._calls[(self._at + chosen) % len(self._calls)]
            calls = self.some(self.batch)
        else:
            call, calls = self._spare, self.some(self.batch)
            calls[chosen] = call.args
        for output in call.outputs:
            poison(output)
        return calls, chosen + 1, call

    def warmup(self, options: Timing) -> list[Args]:
        if self.call_s > options.long_call_s:
            return []
        return self.some(max(1, math.ceil(options.warmup_s / self.call_s)))

    def measure_batch(self, probe: Probe, options: Timing) -> None:
        """Finds how many calls a batch needs."""
        n, least = 1, max(options.min_batch_s, options.min_batch_steps * probe.step())
        while True:
            took = self._best_of_three(n, probe, options, least)
            if took >= least or n >= 1_000_000:
                break
            # Two tenths on top: the first calls are slower than the rest.
            n = max(2 * n, min(100 * n, math.ceil(1.2 * n * least / took)))
        self.batch, self.call_s = n, took / n

    def _best_of_three(self, n: int, probe: Probe, options: Timing, least: float) -> float:
        """Seconds of n calls. On a busy machine one run may be far too long; long calls run once."""
        best = math.inf
        for _ in range(3):
            calls = self.some(n)
            signs, start = Signs.before(probe), probe.now()
            self.run(calls)
            took = max(probe.now() - start, 1e-9)
            if took >= least:
                self.own.learn(Signs.after(probe).since(signs), took)
            best = min(best, took)
            if best > options.long_call_s:
                break
        return best


def call_loop(fn: Callable[..., Any], arity: int, out: bool = True) -> Run:
    """A loop of calls fn(*inputs, out=output) as a user would write them; without `out`, fn(*inputs).

    Each call's arguments are the inputs and then the output, None where there is no `out`.
    """
    if arity == 2 and out:

        def two(calls: Sequence[Args]) -> None:
            for a, b, c in calls:
                fn(a, b, out=c)

        return two
    if arity == 2:

        def two_fresh(calls: Sequence[Args]) -> Any:
            result = None
            for a, b, _ in calls:
                result = fn(a, b)
            return result

        return two_fresh

    def many(calls: Sequence[Args]) -> None:
        for *inputs, c in calls:
            fn(*inputs, out=c)

    return many


def closure_loop(calls: Sequence[Args]) -> Any:
    """A loop of calls that are functions without arguments: `run` of a lane whose calls carry one each."""
    result = None
    for (call,) in calls:
        result = call()
    return result
