"""The experiment on verdicts: what is planted, what is counted, and that it goes on when interrupted."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.compare.duel import Rules
from kernelwright.bench.lab import errors, planted
from kernelwright.bench.lab.errors import Experiment, Trial, open_experiment, run
from kernelwright.bench.lab.load import burning_share, neighbour
from kernelwright.bench.problems import select
from kernelwright.kernels import registry
from kernelwright.kernels.errors import ConfigError

SLOWDOWNS = (0.0, 0.03, 0.1)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """Comparisons that say what they should; the calls that were made."""
    calls: list[tuple[float, int]] = []

    def compared(problem: Any, slowdown: float, delay: int, rules: Rules) -> Trial:
        calls.append((slowdown, delay))
        return Trial(slowdown, "slower" if slowdown == 0.1 else "same", 1 + slowdown, 1.0, 1.2)

    monkeypatch.setattr(errors, "compared", compared)
    monkeypatch.setattr(errors, "calibrated", lambda problem: (1e-4, 1e-9))
    return calls


def test_each_slowdown_has_its_runs_and_its_delay(made_up: list[tuple[float, int]], tmp_path: Path) -> None:
    experiment = Experiment(3, SLOWDOWNS, load=False)
    run(experiment, tmp_path / "e.json", lambda trial: None)
    assert made_up == [(0.0, 0), (0.03, 3000), (0.1, 10000)] * 3
    assert [experiment.holds(s) for s in SLOWDOWNS] == [True] * 3
    assert open_experiment(Experiment(3, SLOWDOWNS, load=False), tmp_path / "e.json") == experiment


def test_an_interrupted_experiment_goes_on(made_up: list[tuple[float, int]], tmp_path: Path) -> None:
    path = tmp_path / "e.json"

    def impatient(trial: Trial) -> None:
        if len(made_up) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Experiment(2, SLOWDOWNS, load=False), path, impatient)
    experiment = open_experiment(Experiment(2, SLOWDOWNS, load=False), path)
    assert experiment.left == [0.03, 0.1]
    run(experiment, path, lambda trial: None)
    assert len(made_up) == 6
    assert experiment.left == []


def test_another_experiment_is_not_continued(made_up: list[tuple[float, int]], tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    run(Experiment(1, SLOWDOWNS, load=False), path, lambda trial: None)
    with pytest.raises(ConfigError, match="another path"):
        open_experiment(Experiment(1, SLOWDOWNS, load=True), path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="something else"):
        open_experiment(Experiment(1, SLOWDOWNS, load=False), path)


@pytest.mark.parametrize(
    ("slowdown", "kinds", "holds"),
    [
        (0.0, ["same"] * 38 + ["inconclusive", "faster"], True),
        (0.0, ["same"] * 38 + ["slower", "faster"], False),
        (0.03, ["same"] * 32 + ["slower"] * 8, True),
        (0.03, ["same"] * 31 + ["slower"] * 9, False),
        (0.1, ["slower"] * 38 + ["inconclusive", "void"], True),
        (0.1, ["slower"] * 37 + ["same"] * 3, False),
        (0.06, ["slower"], None),
    ],
)
def test_what_is_demanded_is_counted(slowdown: float, kinds: list[str], holds: bool | None) -> None:
    experiment = Experiment(40, (slowdown,), load=False, trials=[Trial(slowdown, kind) for kind in kinds])
    assert experiment.holds(slowdown) is holds


def test_the_neighbour_works_half_of_the_time() -> None:
    shares = [burning_share(seed, 8.0) for seed in range(400)]
    assert statistics.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert min(shares) < 0.3
    assert max(shares) > 0.7
    with neighbour(1):
        pass


def test_the_planted_kernel_is_right() -> None:
    (kernel,) = registry.load_file(planted.written())
    try:
        (problem,) = select(problem="square-64").problems[:1]
        a, b = problem.draw()
        (out,) = problem.empty_outputs()
        launch = kernel.bind((*problem.specs, *problem.outputs), problem.complete, {"delay": 10}, 1)
        launch(a, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
    finally:
        registry.unregister(kernel)
