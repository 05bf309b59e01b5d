"""Learning rates against torch.optim.lr_scheduler, update by update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kernelwright as kw
from kernelwright.engine import schedule
from kernelwright.kernels.errors import ConfigError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
from torch.optim import lr_scheduler as theirs  # noqa: E402

UPDATES = 60


def torch_rates(make: Callable[[Any], Any], lr: float = 0.1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(UPDATES):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _chained(optimizer: Any) -> Any:
    first = theirs.LinearLR(optimizer, start_factor=0.25, total_iters=7)
    then = theirs.CosineAnnealingLR(optimizer, T_max=40)
    return theirs.SequentialLR(optimizer, [first, then], milestones=[7])


@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (schedule.constant(0.1), lambda o: theirs.ConstantLR(o, factor=1.0)),
        (schedule.step(0.1, 7, 0.3), lambda o: theirs.StepLR(o, 7, 0.3)),
        (schedule.exponential(0.1, 0.95), lambda o: theirs.ExponentialLR(o, 0.95)),
        (schedule.cosine(0.1, 25, 0.01), lambda o: theirs.CosineAnnealingLR(o, 25, 0.01)),
        (schedule.one_cycle(0.5, UPDATES + 1), lambda o: theirs.OneCycleLR(o, 0.5, UPDATES + 1)),
        (
            schedule.one_cycle(0.5, 80, 0.4, 10, 100),
            lambda o: theirs.OneCycleLR(o, 0.5, 80, pct_start=0.4, div_factor=10, final_div_factor=100),
        ),
        (schedule.warmup(0.1, 5), lambda o: theirs.LinearLR(o, total_iters=5)),
        (schedule.warmup(schedule.cosine(0.1, 40), 7, 0.25), _chained),
    ],
    ids=["constant", "step", "exponential", "cosine", "one_cycle", "one_cycle2", "warmup", "warmup_cosine"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter")
def test_rates_are_those_of_pytorch(ours: schedule.Schedule, make: Callable[[Any], Any]) -> None:
    assert [ours(t) for t in range(UPDATES)] == pytest.approx(torch_rates(make), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "rates",
    [
        schedule.constant(0.1),
        schedule.step(0.1, 7, 0.3),
        schedule.exponential(0.1, 0.95),
        schedule.warmup(schedule.cosine(0.1, 25, 0.01), 7),
        schedule.one_cycle(0.5, 40),
    ],
)
def test_a_compiled_step_sees_the_same_rates(rates: schedule.Schedule) -> None:
    compiled = kw.compile(lambda t: rates(t))
    found = [float(compiled(kw.array(float(t)))) for t in range(0, 40, 3)]
    assert found == pytest.approx([rates(t) for t in range(0, 40, 3)], rel=1e-12, abs=1e-15)
    assert compiled.traces == 1


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"patience": 1, "cooldown": 2, "factor": 0.5},
        {"patience": 0, "min_lr": 0.02, "factor": 0.3},
        {"patience": 1, "mode": "max", "threshold": 0.1},
    ],
)
def test_a_plateau_is_that_of_pytorch(options: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = theirs.ReduceLROnPlateau(optimizer, **options)
    mine = schedule.plateau(0.1, **{{"min_lr": "lr_min"}.get(k, k): v for k, v in options.items()})
    for measured in (
        1.0,
        0.9,
        0.9,
        0.91,
        0.95,
        0.95,
        0.89,
        0.889999,
        float("nan"),
        0.9,
        0.5,
        0.6,
        0.7,
        1.2,
        1.3,
    ):
        scheduler.step(measured)
        assert mine.after(measured) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedule.step(0.1, 0),
        lambda: schedule.cosine(0.1, -3),
        lambda: schedule.one_cycle(0.1, 3),
        lambda: schedule.plateau(0.1, mode="least"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()
