"""The tuning cache under bad luck, and the search for a fast configuration."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_op import SPECS, add_kernel, right

import kernelwright as kw
from kernelwright.kernels import cache as cache_module
from kernelwright.kernels import machine, paths, settings, tuning
from kernelwright.kernels.cache import Entry, TuningCache
from kernelwright.kernels.dispatch import choose
from kernelwright.kernels.errors import CacheWarning, ConfigError, ShapeError
from kernelwright.kernels.kernel import Kernel
from kernelwright.kernels.op import Op
from kernelwright.kernels.settings import Settings
from kernelwright.kernels.tuning import best, tune

pytestmark = pytest.mark.usefixtures("own_cache")


def entry(n: int = 0, seconds: float = 1e-3, **changed: Any) -> Entry:
    fields = {"kernel": f"toy/file/k{n}", "source": "abc", "problem": "toy(f32[2]@cpu)", "threads": 1}
    return Entry(**{**fields, "config": {"n": n}, "seconds": seconds, **changed})


# The cache.


def test_what_one_process_measured_another_one_knows(tmp_path: Path) -> None:
    TuningCache(tmp_path).put([entry(1), entry(2, 2e-3)])
    found = TuningCache(tmp_path)
    assert {e.key: e.seconds for e in found} == {entry(1).key: 1e-3, entry(2).key: 2e-3}
    assert found.find("toy(f32[2]@cpu)", 1) != []
    assert found.find("toy(f32[2]@cpu)", 2) == []
    assert len(found) == 2


def test_a_newer_time_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    TuningCache(tmp_path).put([entry(1, 1.0)])
    TuningCache(tmp_path).put([entry(1, 2.0)])
    assert [e.seconds for e in TuningCache(tmp_path)] == [2.0]


def test_times_of_each_source_configuration_and_thread_count_are_kept_apart(tmp_path: Path) -> None:
    different = [
        entry(),
        entry(source="def"),
        entry(config={"n": 5}),
        entry(threads=2),
        entry(problem="toy(f32[3]@cpu)"),
    ]
    TuningCache(tmp_path).put([*different, entry(config={"n": 0})])
    assert len(TuningCache(tmp_path)) == 5


def test_the_order_of_a_configurations_values_does_not_matter() -> None:
    assert entry(config={"a": 1, "b": 2}).key == entry(config={"b": 2, "a": 1}).key


def test_the_file_is_named_after_machine_and_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {TuningCache(tmp_path).file.name}
    monkeypatch.setattr(machine, "fingerprint", lambda: "another machine")
    names.add(TuningCache(tmp_path).file.name)
    monkeypatch.setattr(cache_module, "_versions_digest", lambda: "another numba")
    names.add(TuningCache(tmp_path).file.name)
    assert len(names) == 3
    assert dict(cache_module.library_versions())["numba"]


def test_the_file_can_be_read_by_people(tmp_path: Path) -> None:
    cache = TuningCache(tmp_path)
    cache.put([entry(1), entry(2)])
    document = json.loads(cache.file.read_text())
    assert document["machine"]["cpu"] == machine.machine().cpu
    assert "numba" in document["versions"]
    assert len([line for line in cache.file.read_text().splitlines() if '"seconds"' in line]) == 2


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, -1.0, "fast", None])
def test_a_time_that_means_nothing_is_refused_and_nothing_is_kept(seconds: Any, tmp_path: Path) -> None:
    cache = TuningCache(tmp_path)
    with pytest.raises(ConfigError, match=r"positive number of seconds.*repeat the measurement"):
        cache.put([entry(1), entry(2, seconds)])
    assert len(cache) == 0
    assert not cache.file.exists()


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"threads": True}, {"kernel": 3}, {"config": "n=1"}, {"samples": 0}]
)
def test_an_entry_with_a_wrong_field_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wrong type"):
        TuningCache(tmp_path).put([entry(**wrong)])


GOOD = '{"format": 1, "entries": []}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 99, "entries": []}',
        '{"format": 1}',
        '{"format": 1, "entries": [{"kernel": "k"}]}',
        '{"format": 1, "entries": 7}',
        GOOD.replace("[]", json.dumps([{**cache_module.asdict(entry()), "seconds": float("nan")}])),
        "\x00\x01binary",
    ],
)
def test_a_corrupt_file_is_set_aside_with_a_warning(text: str, tmp_path: Path) -> None:
    file = TuningCache(tmp_path).file
    file.write_text(text)
    cache = TuningCache(tmp_path)
    with pytest.warns(CacheWarning, match=r"are corrupt \(.*the file is now .*\.corrupt-"):
        assert len(cache) == 0
    (aside,) = tmp_path.glob("*.corrupt-*")
    assert aside.read_text() == text, "nothing is thrown away"
    cache.put([entry()])
    assert len(TuningCache(tmp_path)) == 1


def test_bytes_that_are_no_text_are_corrupt_too(tmp_path: Path) -> None:
    TuningCache(tmp_path).file.write_bytes(b"\xff\xfe\xfa")
    with pytest.warns(CacheWarning, match="corrupt"):
        assert len(TuningCache(tmp_path)) == 0


def test_a_file_that_became_corrupt_meanwhile_loses_nothing_of_ours(tmp_path: Path) -> None:
    cache = TuningCache(tmp_path)
    cache.put([entry(1)])
    cache.file.write_text("{")
    with pytest.warns(CacheWarning, match="corrupt"):
        cache.put([entry(2)])
    assert len(cache) == 2
    assert [e.kernel for e in TuningCache(tmp_path)] == ["toy/file/k2"]


def test_a_good_file_is_no_reason_to_warn(tmp_path: Path) -> None:
    TuningCache(tmp_path).file.write_text(GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache = TuningCache(tmp_path)
        assert len(cache) == 0
        cache.put([entry()])


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_where_nothing_can_be_written_one_warning_and_memory_remain(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TuningCache(tmp_path / place)
    with pytest.warns(CacheWarning, match=r"kept in memory only.*KERNELWRIGHT_CACHE_DIR"):
        cache.put([entry(1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put([entry(2)])
    assert len(cache) == 2


def test_a_directory_in_place_of_the_file_is_a_warning(tmp_path: Path) -> None:
    TuningCache(tmp_path).file.mkdir(parents=True)
    cache = TuningCache(tmp_path)
    with pytest.warns(CacheWarning, match="cannot be read"):
        assert len(cache) == 0


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TuningCache(tmp_path)
    cache.put([entry(1)])
    before = cache.file.read_text()

    def crash(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module.os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        cache.put([entry(2)])
    assert cache.file.read_text() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tuning")], "no litter"


def test_several_processes_lose_nothing(own_cache: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from kernelwright.kernels.cache import Entry, TuningCache
        cache = TuningCache()
        who = int(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(20):
            cache.put([Entry("k", "s", f"problem {who}", 1, {"n": n}, 1.0 + n)])
    """)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, str(who)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all begin at once
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0] * 4
    found = TuningCache(own_cache)
    assert {(e.problem, e.config["n"]) for e in found} == {
        (f"problem {w}", n) for w in range(4) for n in range(20)
    }


def test_several_threads_lose_nothing(tmp_path: Path) -> None:
    cache = TuningCache(tmp_path)
    threads = [
        threading.Thread(target=lambda w=w: [cache.put([entry(10 * w + n)]) for n in range(10)])
        for w in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == len(TuningCache(tmp_path)) == 40


def test_what_others_wrote_is_learned_with_the_next_write_or_refresh(tmp_path: Path) -> None:
    mine, theirs = TuningCache(tmp_path), TuningCache(tmp_path)
    assert len(mine) == 0
    theirs.put([entry(1)])
    assert len(mine) == 0
    mine.put([entry(2)])
    assert len(mine) == 2
    theirs.put([entry(3)])
    mine.refresh()
    assert len(mine) == 3


def test_learning_something_empties_the_memos(tmp_path: Path) -> None:
    memo = settings.current().memo
    memo["stale"] = print
    before = tuning.generation()
    TuningCache(tmp_path).put([entry()])
    assert "stale" not in memo
    assert tuning.generation() > before


def test_the_directory_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuning.default_cache() is tuning.default_cache()
    assert tuning.default_cache().directory == tmp_path / "cache"
    monkeypatch.delenv("KERNELWRIGHT_CACHE_DIR")
    monkeypatch.setattr(paths.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_dir() == tmp_path / "xdg" / "kernelwright"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_dir() == tmp_path / ".cache" / "kernelwright"


# The search.


class FakeClock:
    """A timer that runs a launch, and returns the seconds told for the kernel that ran."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.calls: list[str] = []

    def kernel(self, name: str, **declared: Any) -> Kernel:
        def body(x: Any, y: Any, out: Any, scale: Any, config: Any) -> None:
            right(x, y, out, scale, config)
            self.last = name + "".join(map(str, config.values()))

        return add_kernel(name, body, **declared)

    def __call__(self, launch: Any, arrays: Any) -> float:
        launch(*arrays)
        self.calls.append(self.last)
        return self.seconds[self.last]


def test_the_fastest_configuration_is_found_kept_and_used(toy: Op) -> None:
    clock = FakeClock(a1=3e-3, a2=1e-3, b=2e-3)
    a = clock.kernel("a", configs=[{"n": 1}, {"n": 2}])
    clock.kernel("b", rank=1)
    result = tune(toy, SPECS, threads=1, timer=clock)
    assert [(t.kernel.name, t.config, t.seconds) for t in result.timings] == [
        ("a", {"n": 2}, 1e-3),
        ("b", {}, 2e-3),
        ("a", {"n": 1}, 3e-3),
    ]
    assert result.best is not None
    assert not result.rejected
    assert not result.untried
    found = best(toy, SPECS, threads=1)
    assert found is not None
    assert (found.kernel, found.config, found.from_cache) == (a, {"n": 2}, True)
    assert best(toy, SPECS, threads=2) is None
    choice = choose(toy, SPECS, settings=Settings(1))
    assert (choice.kernel, choice.config) == (a, {"n": 2})
    assert "1 ms  toy/toy_op/a n=2" in str(result)


def test_a_cache_that_is_given_is_used_while_it_is_empty(toy: Op, tmp_path: Path) -> None:
    clock = FakeClock(a1=1e-3)
    clock.kernel("a", configs=[{"n": 1}])
    own = TuningCache(tmp_path / "own")
    result = tune(toy, SPECS, threads=1, timer=clock, cache=own)
    assert list(own) == list(result.entries)
    assert best(toy, SPECS, threads=1) is None
    assert best(toy, SPECS, threads=1, cache=TuningCache(tmp_path / "none")) is None


def test_candidates_are_timed_in_turns_and_the_clearly_slower_drop_out(toy: Op) -> None:
    clock = FakeClock(a1=1e-3, a2=1.1e-3, a3=9e-3)
    clock.kernel("a", configs=[{"n": 1}, {"n": 2}, {"n": 3}])
    result = tune(toy, SPECS, threads=1, timer=clock)
    assert clock.calls[:6] == ["a1", "a2", "a3", "a1", "a2", "a3"]
    samples = {t.config["n"]: t.samples for t in result.timings}
    assert samples[3] < samples[1] == samples[2]


def test_a_wrong_or_failing_configuration_is_rejected_with_the_reason(toy: Op) -> None:
    def body(x: Any, y: Any, out: Any, scale: Any, config: Any) -> None:
        if config["n"] == 3:
            raise MemoryError("too large a tile")
        right(x, y, out, scale + (0.1 if config["n"] == 2 else 0), config)
        if config["n"] == 4:
            out[3, 3] = float("nan")

    add_kernel("a", body, configs=[{"n": n} for n in (1, 2, 3, 4)])
    result = tune(toy, SPECS, threads=1)
    assert [t.config for t in result.timings] == [{"n": 1}]
    reasons = {config["n"]: reason for _, config, reason in result.rejected}
    assert set(reasons) == {2, 3, 4}
    assert "relative error" in reasons[2]
    assert reasons[3] == "MemoryError: too large a tile"
    assert "nan where" in reasons[4]
    assert len(tuning.default_cache()) == 1, "times of wrong results are not kept"


def test_editing_the_list_of_configurations_keeps_what_is_known(toy: Op) -> None:
    clock = FakeClock(a1=3e-3, a2=2e-3, a3=1e-3)
    declared = [{"n": 1}, {"n": 2}]
    clock.kernel("a", configs=lambda *_: declared)
    tune(toy, SPECS, threads=1, timer=clock)
    clock.calls.clear()
    declared[:] = [{"n": 2}, {"n": 3}]
    result = tune(toy, SPECS, threads=1, timer=clock)
    assert set(clock.calls) == {"a3"}, "only the new one is measured"
    assert [(t.config["n"], t.from_cache) for t in result.timings] == [(3, False), (2, True)]
    clock.calls.clear()
    tune(toy, SPECS, threads=1, timer=clock, force=True)
    assert set(clock.calls) == {"a2", "a3"}


def test_an_edited_kernel_is_measured_again(toy: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(a=1e-3)
    clock.kernel("a")
    tune(toy, SPECS, threads=1, timer=clock)
    monkeypatch.setattr(Kernel, "source_digest", lambda self: "edited")
    assert best(toy, SPECS, threads=1) is None
    clock.calls.clear()
    tune(toy, SPECS, threads=1, timer=clock)
    assert clock.calls


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, -1e-3])
def test_a_timer_that_returns_no_time_is_an_error(seconds: float, toy: Op) -> None:
    clock = FakeClock(a=seconds)
    clock.kernel("a")
    with pytest.raises(ConfigError, match=r"the timer returned .* for toy/toy_op/a"):
        tune(toy, SPECS, threads=1, timer=clock)
    assert len(tuning.default_cache()) == 0


def test_an_interrupted_search_keeps_what_it_measured(toy: Op) -> None:
    clock = FakeClock(a1=1e-3, a2=2e-3)
    clock.kernel("a", configs=[{"n": 1}, {"n": 2}])

    def timer(launch: Any, arrays: Any) -> float:
        if len(clock.calls) == 3:
            raise KeyboardInterrupt
        return clock(launch, arrays)

    with pytest.raises(KeyboardInterrupt):
        tune(toy, SPECS, threads=1, timer=timer)
    assert sorted(e.seconds for e in TuningCache()) == [1e-3, 2e-3]


def test_what_was_measured_is_kept_before_the_search_ends(toy: Op) -> None:
    kept: list[int] = []

    class Looks(FakeClock):
        def __call__(self, launch: Any, arrays: Any) -> float:
            kept.append(len(tuning.default_cache()))
            return super().__call__(launch, arrays)

    clock = Looks(a1=1e-3, a2=1.1e-3)
    clock.kernel("a", configs=[{"n": 1}, {"n": 2}])
    tune(toy, SPECS, threads=1, timer=clock)
    assert kept[:3] == [0, 0, 2]  # a process that is killed in the second round loses nothing of the first


def test_inputs_can_be_given(toy: Op) -> None:
    seen: list[Any] = []

    def body(x: Any, y: Any, out: Any, scale: Any, config: Any) -> None:
        seen.append(x)
        right(x, y, out, scale, config)

    add_kernel("a", body)
    given = [np.full(spec.shape, 2.0, np.float32) for spec in SPECS]
    assert tune(toy, SPECS, threads=1, inputs=given).timings
    assert all((x == 2.0).all() for x in seen)


def test_the_budget_is_kept_and_the_rest_is_named(toy: Op) -> None:
    def slow(x: Any, y: Any, out: Any, scale: Any, config: Any) -> None:
        time.sleep(0.05)
        right(x, y, out, scale, config)

    add_kernel("a", slow, configs=[{"n": n} for n in range(50)])
    started = time.perf_counter()
    result = tune(toy, SPECS, threads=1, budget_s=0.3)
    assert time.perf_counter() - started < 1.0
    assert 1 <= len(result.timings) < 50
    assert len(result.timings) + len(result.untried) == 50
    assert all(t.seconds >= 0.05 for t in result.timings)
    assert "untried" in str(result)


def test_the_clock_repeats_short_calls(toy: Op) -> None:
    add_kernel("a")
    result = tune(toy, SPECS, threads=1, budget_s=1)
    assert result.best is not None
    assert 1e-8 < result.best.seconds < 1e-3


def test_progress_is_told(toy: Op) -> None:
    told: list[tuple[int, int, str]] = []
    add_kernel("a", configs=[{"n": 1}, {"n": 2}])
    tune(toy, SPECS, threads=1, progress=lambda *news: told.append(news), budget_s=0.5)
    assert (0, 2, "checking toy/toy_op/a n=1") in told
    assert any(what == "timing toy/toy_op/a" for _, _, what in told)
    assert all(done <= total for done, total, _ in told)


def test_strided_and_repeated_inputs_can_be_tuned(toy: Op) -> None:
    seen = set()
    add_kernel("a", lambda x, y, out, s, c: (seen.add((x.strides, y.strides)), right(x, y, out, s, c)))
    specs = (
        kw.TensorSpec((7, 5), "float32", layout=(4, 28)),
        kw.TensorSpec((7, 5), "float32", layout=(0, -4)),
    )
    assert tune(toy, specs, threads=1, budget_s=0.2).best is not None
    assert seen == {((4, 28), (0, -4))}


def test_bad_arguments_are_refused(toy: Op) -> None:
    add_kernel("a")
    with pytest.raises(ConfigError, match="budget_s"):
        tune(toy, SPECS, threads=1, budget_s=float("nan"))
    with pytest.raises(ConfigError, match="1 or more, got 0"):
        tune(toy, SPECS, threads=0)
    with pytest.raises(ShapeError):
        tune(toy, [SPECS[0], kw.TensorSpec((2,), "float32")], threads=1)


def test_without_kernels_there_is_nothing_to_find(toy: Op) -> None:
    result = tune(toy, SPECS, threads=1)
    assert result.best is None
    assert best(toy, SPECS, threads=1) is None


def test_a_kernel_whose_configs_fail_is_rejected(toy: Op) -> None:
    add_kernel("a", configs=lambda *_: 1 / 0)
    (rejected,) = tune(toy, SPECS, threads=1).rejected
    assert rejected[2].startswith("ZeroDivisionError")
