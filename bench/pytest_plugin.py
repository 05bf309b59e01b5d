"""A pytest plugin: the `race` fixture, which fails a test whose code is slower than it may be.

    def test_dot(race):
        race(mylib.dot, numpy.dot, x, y, max_slowdown=1.05)

pytest loads this file in every run of everybody who has kernelwright installed. It therefore imports nothing
but the standard library and pytest; NumPy and the rest of the laboratory come with the first race. What a
race measured travels on the test's report, so that under pytest-xdist one process, the controller, tells and
keeps them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .compare.in_process import Contest, Result

WARN, FAIL = "warn", "fail"
# On the test's node while it runs, and on its report afterwards.
RACES = "kernelwright_races"

PASSED, LOST, WRONG, INCONCLUSIVE = "passed", "slower", "wrong", "inconclusive"
NOT_TIMED = "untimed"


class RaceLost(AssertionError):
    """The candidate takes longer than it may, and did so twice."""


class RaceWrong(AssertionError):
    """The candidate computes something else than the baseline; nothing was timed, or it is void."""


class RaceInconclusive(AssertionError):
    """The times don't say whether the candidate is within its limit, and --race-inconclusive=fail."""


class RaceWarning(UserWarning):
    """The times don't say whether the candidate is within its limit."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of races."""
    group = parser.getgroup("race", "races of two functions (kernelwright)")
    group.addoption(
        "--race-inconclusive",
        choices=(WARN, FAIL),
        default=None,
        help="What a race does that can't tell: warn and pass, or fail. Default: the ini file's "
        "race_inconclusive, else warn.",
    )
    group.addoption(
        "--race-seconds",
        type=float,
        default=None,
        metavar="S",
        help="What one measurement of a race should take. Default: the ini file's race_seconds, else 0.7.",
    )
    group.addoption(
        "--race-off",
        action="store_true",
        help="Compare the results of races and time nothing. So does --benchmark-disable.",
    )
    group.addoption(
        "--race-store",
        default=None,
        metavar="FILE",
        help="Keep races in this kernelwright store too. Default: $KERNELWRIGHT_STORE if it is set.",
    )
    parser.addini("race_inconclusive", "warn or fail: what a race does that can't tell", default=WARN)
    parser.addini("race_seconds", "what one measurement of a race should take", default="0.7")


def pytest_configure(config: pytest.Config) -> None:
    """Takes up the options and starts the list of races."""
    inconclusive = config.getoption("race_inconclusive") or config.getini("race_inconclusive")
    if inconclusive not in (WARN, FAIL):
        raise pytest.UsageError(f"race_inconclusive is {inconclusive!r}: write {WARN} or {FAIL}.")
    _seconds(config)
    config.pluginmanager.register(Ledger(config, inconclusive), "kernelwright-races")


def _seconds(config: pytest.Config) -> float:
    given = config.getoption("race_seconds")
    word = config.getini("race_seconds") if given is None else given
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise pytest.UsageError(f"race_seconds is {word!r}: write a number of seconds, such as 0.7.")
    return seconds


@pytest.fixture
def race(request: pytest.FixtureRequest) -> Race:
    """Races a candidate against a baseline; fails the test when it is slower than it may be, or wrong."""
    return Race(request)


class Race:
    """What the `race` fixture is: call it, as often as the test likes."""

    def __init__(self, request: pytest.FixtureRequest):
        self._node = request.node
        self._config = request.config
        self._ledger: Ledger = request.config.pluginmanager.get_plugin("kernelwright-races")  # type: ignore[assignment]

    def __call__(
        self,
        candidate: Callable[..., Any],
        baseline: Callable[..., Any],
        *args: Any,
        max_slowdown: float = 1.05,
        min_speedup: float | None = None,
        setup: Callable[[], tuple[Any, ...]] | None = None,
        check: str | Callable[[Any, Any], Any] | None = "close",
        rtol: float | None = None,
        atol: float = 0.0,
        name: str | None = None,
    ) -> Result | None:
        """Times both functions in turns on the same arguments, and judges.

        Args:
            candidate, baseline: any functions.
            args: what both are called with.
            max_slowdown: the candidate may take this many times the baseline's time, 1 or more.
            min_speedup: in its place: the candidate must be this many times as fast.
            setup: makes the arguments of each call, as a tuple, outside the timing: for functions that
                change what they are given. In place of `args`.
            check: "close" compares the results and what is left in array arguments; a function of
                (candidate's result, baseline's) that raises AssertionError or returns False; None.
            rtol, atol: of "close"; see docs/pytest.md.
            name: in the table, where a test has several races.

        Returns:
            What was measured; None when timing is off.

        Raises:
            RaceLost, RaceWrong, RaceInconclusive: what fails the test.
            ValueError, TypeError: arguments that make no sense.
        """
        __tracebackhide__ = True
        limit = _limit(max_slowdown, min_speedup)
        if setup is not None and args:
            raise ValueError("a race takes its arguments from setup or from the call, not from both.")
        if not (callable(check) or check in ("close", None)):
            raise ValueError(f'check={check!r}: write "close", a function of both results, or None.')
        from .compare.in_process import Contest, for_tests

        timing = for_tests(_seconds(self._config))
        contest = Contest(candidate, baseline, args, setup, limit, check, rtol, atol, timing)
        record = {"test": self._node.nodeid, "name": name or "", "limit": limit, "state": NOT_TIMED}
        record["worker"] = hasattr(self._config, "workerinput")
        record["functions"] = [_name(candidate), _name(baseline)]
        vars(self._node).setdefault(RACES, []).append(record)
        return self._run(contest, record)

    def _run(self, contest: Contest, record: dict[str, Any]) -> Result | None:
        __tracebackhide__ = True
        from ..kernels.errors import WrongResultError
        from .compare.in_process import contend, wrong

        if (why := wrong(contest)) is not None:
            record["state"] = WRONG
            raise RaceWrong(_wrong_text(record, why))
        if self._ledger.off:
            return None
        try:
            with _turn():
                result = contend(contest)
        except WrongResultError as problem:
            record["state"] = WRONG
            raise RaceWrong(
                _wrong_text(record, f"{problem}; a function that changes its arguments needs `setup`")
            ) from None
        record.update(_figures(result))
        self._node.user_properties.append(("race", _sentence(record)))
        if result.passed is False:
            raise RaceLost(_lost_text(record))
        if result.passed is None:
            if self._ledger.inconclusive == FAIL:
                raise RaceInconclusive(_inconclusive_text(record))
            self._node.warn(RaceWarning(_inconclusive_text(record)))
        return result


@contextmanager
def _turn() -> Iterator[None]:
    """Races of several processes of this user, such as xdist's workers, take turns by a lock on a file."""
    try:
        import fcntl
    except ImportError:  # Windows: they don't
        yield
        return
    import tempfile

    path = os.path.join(tempfile.gettempdir(), f"kernelwright-races-{os.getuid()}.lock")
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # no folder to write to: better without turns than not at all
        yield
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _limit(max_slowdown: float, min_speedup: float | None) -> float:
    if min_speedup is not None:
        if not 0 < min_speedup < float("inf"):
            raise ValueError(f"min_speedup={min_speedup!r}: write how many times as fast, such as 1.2.")
        return 1 / min_speedup
    if not 1 <= max_slowdown < float("inf"):
        raise ValueError(
            f"max_slowdown={max_slowdown!r}: write 1 or more, such as 1.05 for 5%; a candidate that must be "
            "faster has min_speedup."
        )
    return max_slowdown


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def _figures(result: Result) -> dict[str, Any]:
    """A race as plain values: xdist sends them from the worker to the controller."""
    state = {True: PASSED, False: LOST, None: INCONCLUSIVE}[result.passed]
    return {
        "state": state,
        "verdict": {**result.verdict.to_json(), "kind": str(result.verdict.kind)},
        "candidate_s": result.candidate_s,
        "baseline_s": result.baseline_s,
        "rounds": [[list(pair) for pair in each] for each in result.rounds],
        "again": [[list(pair) for pair in each] for each in result.again],
        "rejected": result.rejected,
        "noisy": result.noisy,
        "batches": list(result.batches),
    }


# What a test says ------------------------------------------------------------------------------------------


def _sentence(record: Mapping[str, Any]) -> str:
    """`1.203 times the baseline's time (99% bounds 1.187 to 1.214), allowed 1.05`."""
    verdict = record["verdict"]
    return (
        f"{verdict['ratio']:.3f} times the baseline's time (99% bounds {verdict['low']:.3f} to "
        f"{verdict['high']:.3f}), allowed {record['limit']:.4g}"
    )


def _measured_text(record: Mapping[str, Any]) -> str:
    again = " and again as many afresh" if record["again"] else ""
    count = sum(map(len, record["rounds"]))
    noise = f"; {record['noisy']} of them disturbed by other load" if record["noisy"] else ""
    return (
        f"  candidate {record['functions'][0]}: {_time(record['candidate_s'])} a call\n"
        f"  baseline  {record['functions'][1]}: {_time(record['baseline_s'])} a call\n"
        f"  measured: {count} pairs in turns{again}{noise}"
    )


def _lost_text(record: Mapping[str, Any]) -> str:
    wish = (
        "If the slowdown is meant, raise max_slowdown; if it is news to you, profile the candidate."
        if record["limit"] >= 1
        else "The speedup that min_speedup asks for is not there: profile the candidate, or ask for less."
    )
    return f"too slow: {_sentence(record)}.\n{_measured_text(record)}\n{wish}"


def _inconclusive_text(record: Mapping[str, Any]) -> str:
    return (
        f"inconclusive: {_sentence(record)}; the limit lies between the bounds.\n{_measured_text(record)}\n"
        "Measure longer (--race-seconds), on a quieter machine, or allow more."
    )


def _wrong_text(record: Mapping[str, Any], why: str) -> str:
    return (
        "wrong result: {} does not compute what {} does: ".format(*record["functions"])
        + f"{why.rstrip('.')}.\n"
        "Nothing is said of its speed. Where such a difference is fine, pass rtol= and atol=, or check= a "
        "function of both results."
    )


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


# What becomes of it ----------------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Puts a test's races on the report of its call."""
    outcome = yield
    races = vars(item).get(RACES)
    if races and call.when == "call":
        report = outcome.get_result()  # type: ignore[attr-defined]
        setattr(report, RACES, races)
        # A test that is run again, as pytest-rerunfailures does, starts a list of its own.
        delattr(item, RACES)


class Ledger:
    """The races of a session: tells them at its end, and passes them on to who keeps benchmarks."""

    def __init__(self, config: pytest.Config, inconclusive: str):
        self.config = config
        self.inconclusive = inconclusive
        self.races: list[dict[str, Any]] = []
        self.kept: list[str] = []

    @property
    def off(self) -> bool:
        """Whether results are compared and nothing is timed."""
        option = self.config.getoption
        disabled = option("benchmark_disable", False) and not option("benchmark_enable", False)
        return bool(option("race_off") or disabled)

    @property
    def here(self) -> bool:
        """Whether this process tells and keeps: any but a worker of xdist's."""
        return not hasattr(self.config, "workerinput")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the races from a report."""
        if not self.here:
            return
        for record in getattr(report, RACES, ()):
            self.races.append(record)
            if "verdict" in record:
                self._guarded("pytest-benchmark's storage", to_pytest_benchmark, self.config, [record])

    def pytest_sessionfinish(self) -> None:
        """Keeps the races in our store, if one was named."""
        timed = [record for record in self.races if "verdict" in record]
        path = self.config.getoption("race_store") or os.environ.get("KERNELWRIGHT_STORE")
        if timed and path and self.here:
            self._guarded(f"the store {path}", _to_store, path, timed)

    def _guarded(self, where: str, keep: Callable[..., None], *args: Any) -> None:
        """Not being able to keep a race must not fail the tests; it is said, though."""
        try:
            keep(*args)
        except Exception as problem:
            note = f"not kept in {where}: {type(problem).__name__}: {problem}"
            if note not in self.kept:
                self.kept.append(note)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A line for each race."""
        if not self.races:
            return
        out = terminalreporter
        out.section("races", sep="-")
        names = [record["test"] + (f" {record['name']}" if record["name"] else "") for record in self.races]
        width = max(map(len, names))
        titles = f"{'candidate':>10}  {'baseline':>10}  {'ratio':>6}  {'99% bounds':>13}  {'allowed':>7}"
        out.write_line(f"{'':{width}}  {titles}  verdict")
        markup: dict[str, dict[str, bool]] = {
            PASSED: {"green": True},
            LOST: {"red": True, "bold": True},
            WRONG: {"red": True, "bold": True},
            INCONCLUSIVE: {"yellow": True},
        }
        for name, record in zip(names, self.races, strict=True):
            out.write_line(
                f"{name:{width}}  {_cells(record)}  {_word(record)}", **markup.get(record["state"], {})
            )
        if any(record["worker"] for record in self.races):
            out.write_line(
                "Races took turns, but other xdist workers ran tests meanwhile: bounds are wider for it. "
                "Run races by themselves with -n0."
            )
        for note in self.kept:
            out.write_line(note, yellow=True)


def _cells(record: Mapping[str, Any]) -> str:
    if "verdict" not in record:
        return f"{'-':>10}  {'-':>10}  {'-':>6}  {'-':>13}  {record['limit']:>7.4g}"
    verdict = record["verdict"]
    bounds = f"{verdict['low']:.3f}-{verdict['high']:.3f}"
    times = f"{_time(record['candidate_s']):>10}  {_time(record['baseline_s']):>10}"
    return f"{times}  {verdict['ratio']:>6.3f}  {bounds:>13}  {record['limit']:>7.4g}"


def _word(record: Mapping[str, Any]) -> str:
    """The verdict: faster and same are told apart where both pass."""
    if record["state"] == PASSED and record["verdict"]["kind"] in ("faster", "same"):
        return str(record["verdict"]["kind"]) if record["limit"] >= 1 else PASSED
    return str(record["state"])


def to_pytest_benchmark(config: pytest.Config, races: list[dict[str, Any]]) -> None:
    """Adds both sides of races to the benchmarks that pytest-benchmark saves at the end of the session.

    Only when it was asked to save: a project that doesn't use it sees nothing of it. There is no public call
    for this; `config._benchmarksession.benchmarks` and `Metadata` are what its own fixture uses (3.x to 5.x).
    """
    session = getattr(config, "_benchmarksession", None)
    options = ("benchmark_save", "benchmark_autosave", "benchmark_json")
    if session is None or not any(config.getoption(option, None) for option in options):
        return
    import importlib
    from types import SimpleNamespace

    stats: Any = importlib.import_module("pytest_benchmark.stats")

    for record in races:
        pairs = [pair for each in (*record["rounds"], *record["again"]) for pair in each]
        kept = {key: record[key] for key in ("state", "verdict", "limit", "rejected", "noisy")}
        test = record["test"] + (f" {record['name']}" if record["name"] else "")
        for side, column, batch in (("candidate", 1, 0), ("baseline", 0, 1)):
            fixture = SimpleNamespace(
                name=f"{test.rpartition('::')[2]} {side}",
                fullname=f"{test} {side}",
                group=test,
                param=None,
                params=None,
                extra_info={"race": kept, "side": side, "function": record["functions"][batch]},
                cprofile_stats=None,
                has_error=False,
            )
            iterations = record["batches"][batch]
            benchmark = stats.Metadata(fixture, iterations, {"timer": "perf_counter", "pairs": True})
            for pair in pairs:
                benchmark.update(pair[column] * iterations)
            session.benchmarks.append(benchmark)


def _to_store(path: str, races: list[dict[str, Any]]) -> None:
    from pathlib import Path

    from .compare.races import as_comparison
    from .store.database import Store

    with Store.open(Path(path)) as store:
        store.add_comparison(as_comparison(races))
