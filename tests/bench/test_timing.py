"""The race, on a clock that the tests turn: nothing here depends on how busy the machine is."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.timing import Call, Lane, Race, Timing, call_loop, race, settle
from kernelwright.kernels.errors import WrongResultError

OPTIONS = Timing(min_pairs=10, max_pairs=10)


def lane(
    probe: Any, name: str, call_s: float, on_call: Callable[[np.ndarray], None] | None = None, sets: int = 1
) -> Lane:
    """A contestant whose calls take `call_s` on the probe's clock and write ones."""

    def run(calls: Sequence[tuple[Any, ...]]) -> None:
        for (output,) in calls:
            probe.time += call_s
            output.fill(1.0)
            if on_call is not None:
                on_call(output)

    outputs = [np.zeros(2) for _ in range(sets + 1)]
    calls = [Call((output,), (output,)) for output in outputs]
    return Lane(name, run, calls[:sets], calls[sets] if sets == 1 else None)


def run_race(probe: Any, ours: Lane, theirs: Lane, options: Timing = OPTIONS, verify: Any = None) -> Race:
    return race(ours, theirs, probe=probe, options=options, rng=np.random.default_rng(0), verify=verify)


def all_ones(name: str, outputs: tuple[np.ndarray, ...]) -> str | None:
    (output,) = outputs
    return None if (output == 1).all() else f"{output}"


def test_times_are_seconds_a_call(fake_probe: Any) -> None:
    result = run_race(fake_probe, lane(fake_probe, "ours", 2e-5), lane(fake_probe, "theirs", 5e-5))
    assert len(result.pairs) == 10
    assert result.ours_s == pytest.approx(2e-5)
    assert result.theirs_s == pytest.approx(5e-5)
    assert result.rejected == {}
    assert result.noisy == 0


@pytest.mark.parametrize("call_s", [1e-7, 3e-5, 9e-4, 0.2])
def test_batches_take_a_millisecond_and_long_calls_are_single(fake_probe: Any, call_s: float) -> None:
    ours = lane(fake_probe, "ours", call_s)
    result = run_race(fake_probe, ours, lane(fake_probe, "theirs", 0.002))
    assert result.batches[0] * call_s >= 1e-3
    assert result.batches[0] == 1 or result.batches[0] * call_s < 3e-3


def test_order_alternates_from_pair_to_pair(fake_probe: Any) -> None:
    sequence: list[str] = []
    ours = lane(fake_probe, "ours", 0.1, lambda _: sequence.append("o"))
    theirs = lane(fake_probe, "theirs", 0.1, lambda _: sequence.append("t"))
    run_race(fake_probe, ours, theirs)
    timed = "".join(sequence)[-20:]
    pairs = [timed[i : i + 2] for i in range(0, 20, 2)]
    assert set(pairs) == {"ot", "to"}
    assert all(a != b for a, b in pairwise(pairs))


@pytest.mark.parametrize("reason", ["switches", "stolen", "drift"])
def test_disturbed_pairs_are_repeated_and_counted(fake_probe: Any, reason: str) -> None:
    calls = 0

    def disturb(output: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls in (30, 40, 50):
            fake_probe.time += 0.5
            fake_probe.switched += 1000 * (reason == "switches")
            fake_probe.stolen_s += 0.3 * (reason == "stolen")
            slow[0] = 3 if reason == "drift" else 0

    slow = [0]

    def chain() -> float:
        slow[0] = max(0, slow[0] - 1)
        return 50e-6 if slow[0] else 25e-6

    fake_probe.chain = chain
    ours = lane(fake_probe, "ours", 0.01, disturb)
    result = run_race(
        fake_probe, ours, lane(fake_probe, "theirs", 0.01), replace(OPTIONS, max_pairs=40, budget_s=9)
    )
    assert result.rejected.get(reason, 0) >= 2
    assert set(result.rejected) == {reason}
    assert result.noisy == 0
    assert max(ours_s for ours_s, _ in result.pairs) == pytest.approx(0.01)


def test_on_a_machine_that_stays_busy_pairs_are_kept_and_called_noisy(fake_probe: Any) -> None:
    def disturb(output: np.ndarray) -> None:
        fake_probe.switched += 5

    result = run_race(fake_probe, lane(fake_probe, "ours", 0.002, disturb), lane(fake_probe, "theirs", 0.002))
    assert len(result.pairs) == 10
    assert result.rejected == {"switches": 10}
    assert result.noisy == 10


def test_a_long_batch_survives_a_single_switch(fake_probe: Any) -> None:
    def disturb(output: np.ndarray) -> None:
        fake_probe.switched += 1

    result = run_race(fake_probe, lane(fake_probe, "ours", 0.2, disturb), lane(fake_probe, "theirs", 0.2))
    assert result.rejected == {}


def test_settling_waits_for_spinning_threads_but_not_for_ever(fake_probe: Any) -> None:
    fake_probe.spinning = 20
    settle(fake_probe, OPTIONS)
    assert len(fake_probe.waits) == 20
    fake_probe.spinning, fake_probe.waits = 10**9, []
    start = fake_probe.time
    settle(fake_probe, OPTIONS)
    assert fake_probe.time - start <= OPTIONS.settle_most_s + OPTIONS.settle_slice_s
    fake_probe.spinning, fake_probe.waits = None, []
    settle(fake_probe, OPTIONS)
    assert fake_probe.waits == [OPTIONS.settle_blind_s]


def test_a_timed_call_that_writes_nothing_is_found(fake_probe: Any) -> None:
    lazy = lane(fake_probe, "ours", 0.01)
    written = 0

    def run(calls: Sequence[tuple[Any, ...]]) -> None:
        nonlocal written
        for (output,) in calls:
            fake_probe.time += 0.01
            written += 1
            if written < 12:
                output.fill(1.0)

    lazy.run = run
    with pytest.raises(WrongResultError, match=r"ours.*nan"):
        run_race(fake_probe, lazy, lane(fake_probe, "theirs", 0.01), verify=all_ones)


def test_a_kernel_that_is_wrong_now_and_then_is_found(fake_probe: Any) -> None:
    rng = np.random.default_rng(5)

    def spoil(output: np.ndarray) -> None:
        if rng.random() < 1 / 3:
            output[0] = 2.0

    with pytest.raises(WrongResultError, match="a timed call of ours"):
        run_race(
            fake_probe,
            lane(fake_probe, "ours", 1e-4, spoil),
            lane(fake_probe, "theirs", 1e-4),
            replace(OPTIONS, check_share=1.0),
            all_ones,
        )


def test_right_results_are_verified_on_both_sides(fake_probe: Any) -> None:
    ours, theirs = lane(fake_probe, "ours", 1e-4), lane(fake_probe, "theirs", 1e-4)
    result = run_race(fake_probe, ours, theirs, verify=all_ones)
    assert min(result.verified) >= 1


def test_cold_calls_rotate_over_every_set(fake_probe: Any) -> None:
    used: list[int] = []
    ours = lane(fake_probe, "ours", 3e-4, lambda output: used.append(id(output)), sets=64)
    run_race(fake_probe, ours, lane(fake_probe, "theirs", 3e-4, sets=64))
    assert len(set(used)) == 64
    for i in range(len(used) - 64):
        assert len(set(used[i : i + 64])) == 64


def test_garbage_collection_is_off_in_a_race_and_on_after_it(fake_probe: Any) -> None:
    states: set[bool] = set()
    ours = lane(fake_probe, "ours", 0.01, lambda _: states.add(gc.isenabled()))
    run_race(fake_probe, ours, lane(fake_probe, "theirs", 0.01))
    assert states == {False}
    assert gc.isenabled()


def test_the_number_of_pairs_follows_the_budget(fake_probe: Any) -> None:
    options = Timing(min_pairs=5, max_pairs=50, budget_s=1.0)

    def pairs(call_s: float) -> int:
        return len(
            run_race(fake_probe, lane(fake_probe, "a", call_s), lane(fake_probe, "b", call_s), options).pairs
        )

    assert pairs(0.5) == 5
    assert 5 < pairs(0.03) < 50
    assert pairs(1e-4) == 50


def test_call_loop_calls_as_a_user_would() -> None:
    seen: list[Any] = []

    def fn(*inputs: Any, out: Any = None) -> None:
        seen.append((inputs, out))

    call_loop(fn, 2)([(1, 2, 3), (4, 5, 6)])
    call_loop(fn, 2, out=False)([(1, 2, 3)])
    call_loop(fn, 3)([(1, 2, 3, 4)])
    assert seen == [((1, 2), 3), ((4, 5), 6), ((1, 2), None), ((1, 2, 3), 4)]


def test_every_rule_of_timing_has_its_reason() -> None:
    assert Timing.__doc__ is not None
    for name in Timing.__dataclass_fields__:
        assert f"\n        {name}:" in Timing.__doc__, f"{name} has no reason"
