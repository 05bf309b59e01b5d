"""The process that computes one side of a comparison: `python -m kernelwright.bench.compare.worker`.

It reads a request a line from its standard input, as JSON, and answers each with a line:

    {"do": "hello", "timing": {...}}          who this is: protocol, versions, where the package lies
    {"do": "list", "suite": ..., ...}         the problems of a suite, as this revision knows them
    {"do": "prepare", "problem": {...}, "threads": 1, "kernel": null, "config": {}}
                                              choose, draw the operands, make the first call
    {"do": "size"}                            find how many calls make a batch; the seconds of one
    {"do": "time"}                            one batch: seconds a call, what disturbed it, the clock
    {"do": "verify", "approved": [...], "prove": true}
                                              only now the oracle: were timed calls right, and samples?
    {"do": "drop"}                            forget the problem
    {"do": "end"}

What a kernel prints goes to standard error, whether by Python or by C, so that it can't be taken for an
answer. What it raises is an answer with "error" and a "status". A crash or a hang is seen from outside, by
`remote.py`.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ...kernels import dispatch
from ...kernels.errors import KernelwrightError, NoKernelError, WrongResultError
from ...kernels.settings import using
from ..honest.check import Checker, Prover, checksum, reason
from ..ours import Ours
from ..problems import Problem, select
from ..timing import Lane, Outputs, Probe, SystemProbe, Timing, settle
from ..timing.race import timed
from .contestant import Contestant
from .result import FAILED, OK, UNSUPPORTED, WRONG

# What a request or an answer means; a controller refuses a worker of another number. Raise it with every
# change that the other side would misunderstand.
PROTOCOL = 1
# Outputs of timed calls that are kept to be judged afterwards, and how many bytes of them at most.
KEPT_OUTPUTS, KEPT_BYTES = 3, 256 << 20

Reply = dict[str, Any]


class Bench:
    """Answers requests.

    Args:
        probe: clock and disturbance counters.
        timing: the rules, until `hello` brings others.
        seed: which timed calls are verified, and where in a batch.
    """

    def __init__(self, probe: Probe, timing: Timing | None = None, seed: int | None = None):
        self._probe = probe
        self._timing = timing or Timing()
        self._rng = np.random.default_rng(seed)
        self._prover = Prover()
        self._prepared: Prepared | None = None

    def answer(self, request: Mapping[str, Any]) -> Reply:
        """The answer to a request; never raises for what a kernel does."""
        requests: dict[str, Callable[[Mapping[str, Any]], Reply]] = {
            "hello": self._hello,
            "list": self._list,
            "prepare": self._prepare,
            "size": lambda _: self._present.size(),
            "time": lambda _: self._present.time(),
            "verify": lambda asked: self._present.verify(asked["approved"], self._prover, asked["prove"]),
            "drop": self._drop,
        }
        do = request.get("do")
        if do not in requests:
            return {"error": f"this worker knows no request {do!r}", "status": FAILED}
        try:
            return requests[do](request)
        except NoKernelError as error:
            return {"error": str(error), "status": UNSUPPORTED}
        except WrongResultError as error:
            return {"error": str(error), "status": WRONG}
        except KernelwrightError as error:
            return {"error": str(error).splitlines()[0], "status": FAILED}
        except BaseException as error:  # a kernel may raise anything, SystemExit too
            first = (str(error).splitlines() or [""])[0]
            return {"error": f"{type(error).__name__}: {first}", "status": FAILED}

    @property
    def _present(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("no problem is prepared")
        return self._prepared

    def _hello(self, request: Mapping[str, Any]) -> Reply:
        known = {f.name for f in fields(Timing)}
        given = {name: value for name, value in request.get("timing", {}).items() if name in known}
        self._timing = Timing(**given)
        package = Path(__file__).resolve().parents[2]
        return {
            "protocol": PROTOCOL,
            "package": str(package),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pid": os.getpid(),
        }

    def _list(self, request: Mapping[str, Any]) -> Reply:
        words = {name: request.get(name) for name in ("problem", "op", "dtype")}
        found = select(request.get("suite"), most_gflop=request.get("most_gflop"), **words)
        return {"problems": [problem.to_json() for problem in found.problems]}

    def _prepare(self, request: Mapping[str, Any]) -> Reply:
        self._drop({})
        problem = Problem.from_json(request["problem"])
        contestant = Contestant(request["kernel"], request["config"])
        prepared = Prepared(problem, request["threads"], contestant, self._probe, self._timing, self._rng)
        self._prepared = prepared
        return prepared.first_call()

    def _drop(self, _: Mapping[str, Any]) -> Reply:
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None
        return {}


class Prepared:
    """One problem, ready to be timed.

    Args:
        problem: what is computed.
        threads: on how many threads.
        contestant: by which kernel.
        probe, timing, rng: as the bench's.
    """

    def __init__(
        self,
        problem: Problem,
        threads: int,
        contestant: Contestant,
        probe: Probe,
        timing: Timing,
        rng: np.random.Generator,
    ):
        self._problem, self._threads = problem, threads
        self._probe, self._timing, self._rng = probe, timing, rng
        self._settings = contextlib.ExitStack()
        backend = contestant.enter(problem.op)
        self._settings.enter_context(using(threads=threads, backend=backend, strict=backend is not None))
        self._kept: list[Outputs] = []
        self._choices: list[dispatch.Choice] = []
        self._lane: Lane | None = None
        gc.collect()
        gc.disable()

    def close(self) -> None:
        """Gives the settings back."""
        self._settings.close()
        gc.enable()

    def first_call(self) -> Reply:
        """Chooses, and calls once: that compiles, or loads what was compiled before."""
        problem, ours = self._problem, Ours(self._problem)
        self._inputs = problem.draw()
        self._before = checksum(self._inputs)
        calls = ours.calls(self._inputs)
        try:
            self._choices = [dispatch.choose(*call) for call in calls]
        except NoKernelError as error:
            raise NoKernelError(_shorter(error, calls)) from None
        self._lane = ours.lane([self._inputs], in_place=True)
        start = time.perf_counter()
        outputs = self._lane.compute()
        took = time.perf_counter() - start
        self._keep("", outputs)
        choices = self._choices
        return {
            "status": OK,
            "kernel": " + ".join(c.kernel.id if c.kernel else dispatch.REFERENCE for c in choices),
            "config": dict(choices[0].config),
            "why": "; ".join(c.why for c in choices),
            "fallback": next((c.fallback for c in choices if c.fallback is not None), None),
            "first_call_s": took,
        }

    @property
    def lane(self) -> Lane:
        assert self._lane is not None, "first_call comes first"
        return self._lane

    def size(self) -> Reply:
        """Settles on the number of calls in a batch. Nothing else may be timed meanwhile."""
        settle(self._probe, self._timing)
        self.lane.run(self.lane.some(1))
        self.lane.measure_batch(self._probe, self._timing)
        settle(self._probe, self._timing)
        return {"batch": self.lane.batch, "call_s": self.lane.call_s}

    def time(self) -> Reply:
        """One batch. It ends when this process is quiet again, so that it disturbs nobody."""
        clock = [self._probe.calibrate()]
        seconds, disturbed = timed(self.lane, self._probe, self._timing, self._rng, self._keep)
        clock.append(self._probe.calibrate())
        settle(self._probe, self._timing)
        return {"seconds": seconds, "disturbed": disturbed, "clock": clock}

    def _keep(self, name: str, outputs: Outputs) -> None:
        """Copies what a timed call computed: it is judged when nothing is timed any more."""
        self._kept.append(tuple(np.array(output) for output in outputs))
        each = sum(output.nbytes for output in outputs)
        # The very first call stays; of the timed ones, the last.
        while len(self._kept) > max(2, min(KEPT_OUTPUTS, KEPT_BYTES // max(1, each))):
            del self._kept[1]

    def verify(self, approved: list[str], prover: Prover, prove: bool) -> Reply:
        """Judges what timed calls computed, against the oracle where it isn't bit for bit known to be right.

        Args:
            approved: digests of outputs that an earlier process of this side had judged right.
            prover: tries the op's samples.
            prove: whether to.
        """
        if checksum(self._inputs) != self._before:
            raise WrongResultError("the kernel wrote into its inputs")
        reply: Reply = {"verified": self.lane.verified, "digests": list(approved), "error_norm": None}
        checker: Checker | None = None
        only = self._choices[0].kernel if len(self._choices) == 1 else None
        for outputs in self._kept:
            found = digest(outputs)
            if found in reply["digests"]:
                continue
            checker = checker or Checker(self._problem, self._inputs)
            verdict = checker.judge(outputs, None if only is None else only.error)
            if not verdict.ok:
                raise WrongResultError(reason(verdict))
            reply["digests"].append(found)
            reply["error_norm"] = verdict.error.norm_rel
        for kernel in (c.kernel for c in self._choices if prove and c.kernel is not None):
            wrong = prover.why_wrong(kernel, self._problem.dtype, self._threads)
            if wrong is not None:
                raise WrongResultError(wrong)
        return reply


def _shorter(error: NoKernelError, calls: list[Any]) -> str:
    """Why the kernel that was asked for can't run a call, without the list of all others."""
    from ...kernels.settings import current

    wanted = current().backend
    with using(strict=False):
        for choice in (dispatch.choose(*call) for call in calls):
            for candidate in choice.candidates:
                if candidate.reason_not and wanted in (candidate.kernel.id, candidate.kernel.name):
                    return f"{wanted}: {candidate.reason_not}"
    return str(error).splitlines()[0]


def digest(outputs: Outputs) -> str:
    """Tells outputs from others that are not the same bit for bit."""
    found = hashlib.blake2b(digest_size=16)
    for output in outputs:
        found.update(f"{output.dtype} {output.shape};".encode())
        found.update(np.ascontiguousarray(output).view(np.uint8).data)
    return found.hexdigest()


def _channel() -> tuple[TextIO, TextIO]:
    """Requests and answers, on descriptors of their own: 0 and 1 are then empty and standard error."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    sys.stdout = sys.stderr
    return requests, answers


def _end_with_parent() -> None:
    """Lets the kernel end this process when the one that started it is gone, however that ended."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Answers until the requests end."""
    requests, answers = _channel()
    _end_with_parent()
    bench = Bench(SystemProbe())
    for line in requests:
        request = json.loads(line)
        if request.get("do") == "end":
            break
        answers.write(json.dumps(bench.answer(request)) + "\n")
        answers.flush()
    # Without the interpreter's clearing up: threads of a kernel may still run, and nothing is left to write.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
