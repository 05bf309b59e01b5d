"""Whole networks, raced: training steps as one plan, and inference, against the best that others make of
them.

    training    forward, backward and update of equal weights on equal batches, against torch eager and
    inductor inference   batches of 1 and 8, against those and ONNX Runtime

Before anything is timed, the losses of the first steps (or the outputs) are compared: ours may be further
from those in float64 than torch's own by a few times, as other orders of summation have it, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...engine import nn
from ...engine.array import Array, array
from ...engine.autograd import value_and_grad
from ...engine.compile import compile as compiled
from ...engine.functional.loss import cross_entropy
from ...engine.training.precision import lowered
from ...engine.tree import to_device
from ...kernels.settings import using
from ..compare.intervals import geometric_mean, ratio_interval
from ..timing import Lane, Probe, Timing, race, settle
from . import rivals
from .networks import Network
from .networks.network import Batch

STEPS_COMPARED = 5
# Steps that are timed learn so slowly that weights, and with them the work, stay as they are.
TIMED_LR = 1e-7
# How many times torch's own distance from float64 ours may be; and a distance that is always allowed.
TIMES_THEIRS, ALWAYS_ALLOWED = 8.0, 1e-5
INFERENCE_BATCHES = (1, 8)

Make = Callable[[], rivals.Call]
Tell = Callable[[str], None]


@dataclass
class Contest:
    """One network, training or inferring, on a number of threads.

    Attributes:
        what: "step" or "inference".
        goal: the ratio wanted.
        error, their_error: relative distance from float64, of ours and of torch eager.
        right: whether that is near enough; what is not is not timed.
        trials: seconds of a call of each rival, roughly; what failed has its message instead.
        rival: the fastest, raced.
        ratio, low, high: its time over ours, and the 95% interval.
        ours_s, theirs_s: medians.
        noisy: pairs kept although something disturbed them.
    """

    network: str
    told: str
    what: str
    batch: int
    threads: int
    goal: float
    error: float = 0.0
    their_error: float = 0.0
    right: bool = False
    trials: dict[str, float | str] = field(default_factory=dict)
    rival: str = ""
    ratio: float = 0.0
    low: float = 0.0
    high: float = 0.0
    ours_s: float = 0.0
    theirs_s: float = 0.0
    noisy: int = 0
    pairs: list[tuple[float, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def training_step(network: Network, lr: float, like_torch: bool = True) -> tuple[Any, Any, Any]:
    """(compiled step, model, optimizer state): `model, state, loss = step(model, state, x, labels)`.

    Args:
        network: which.
        lr: the learning rate.
        like_torch: start from the parameters of `rivals.torch_model`; otherwise torch is not loaded.
    """
    optimizer = network.our_optimizer(lr)

    def loss_of(params: Any, rest: Any, x: Any, labels: Any) -> tuple[Any, Any]:
        used, stands = lowered(nn.combine(params, rest), network.precision)
        with nn.training() as run:
            loss = cross_entropy(stands(x), labels)
        return loss, nn.partition(run.updated(used))[1]

    def step(model: Any, state: Any, x: Any, labels: Any) -> tuple[Any, Any, Any]:
        params, rest = nn.partition(model)
        (loss, rest), grads = value_and_grad(loss_of, has_aux=True)(params, rest, x, labels)
        params, state = optimizer.update(params, grads, state)
        return nn.combine(params, rest), state, loss

    model = our_model(network) if like_torch else network.ours(0)
    return compiled(step, donate=(0, 1)), model, optimizer.init(model)


def our_model(network: Network) -> Any:
    """The network with the very parameters that `rivals.torch_model` has."""
    return nn.from_torch_state_dict(network.ours(0), rivals.torch_model(network).state_dict())


def our_step(network: Network, batch: Batch, lr: float, device: str | None = None) -> rivals.Call:
    """A training step as a function without arguments, on a device; returns the loss."""
    step, *held = training_step(network, lr)
    x, labels = (array(part, device=device) for part in batch)
    if device is not None:
        held = [to_device(one, device) for one in held]

    def call() -> Array:
        held[0], held[1], loss = step(held[0], held[1], x, labels)
        return loss  # type: ignore[no-any-return]

    return call


def our_inference(network: Network, x: np.ndarray[Any, Any]) -> rivals.Call:
    """The model's outputs: its parameters are constants of the plan."""
    model, given = our_model(network), array(x)

    def infer(x: Any) -> Any:
        return model(x)

    run = compiled(infer)
    return lambda: run(given)


def contests(
    networks: Sequence[Network], threads: Sequence[int], what: str, probe: Probe, options: Timing, tell: Tell
) -> Iterator[Contest]:
    """Each network's contests, as they are finished; `what` is "step" or "inference"."""
    for network in networks:
        for count in threads:
            for batch in (network.batch,) if what == "step" else INFERENCE_BATCHES:
                tell(f"{network.name}, {what}, batch {batch}, threads {count}")
                goal = network.goal if what == "step" else 1.0
                contest = Contest(network.name, network.told, what, batch, count, goal)
                with using(threads=count), rivals.torch_threads(count):
                    run = _step if what == "step" else _inference
                    run(contest, network, probe, options, tell)
                yield contest


def _step(contest: Contest, network: Network, probe: Probe, options: Timing, tell: Tell) -> None:
    import torch

    batch = network.draw(np.random.default_rng(0), contest.batch)
    exact = _losses(rivals.torch_step(network, batch, network.lr, dtype=torch.float64))
    theirs = _losses(rivals.torch_step(network, batch, network.lr))
    ours = _losses(our_step(network, batch, network.lr))
    if not _judge(contest, ours, theirs, exact):
        return
    makers = {
        "torch eager": lambda: rivals.torch_step(network, batch, TIMED_LR),
        "torch inductor": lambda: rivals.torch_step(network, batch, TIMED_LR, compiled=True),
    }
    _race(contest, our_step(network, batch, TIMED_LR), makers, probe, options, tell)


def _inference(contest: Contest, network: Network, probe: Probe, options: Timing, tell: Tell) -> None:
    import torch

    x, _ = network.draw(np.random.default_rng(0), contest.batch)
    given = torch.from_numpy(x)
    with torch.no_grad():
        wide = rivals.torch_model(network).eval().double()
        exact = wide(given.double() if given.is_floating_point() else given).numpy()
    ours = our_inference(network, x)
    if not _judge(contest, np.asarray(ours()), rivals.torch_inference(network, x)().numpy(), exact):
        return
    makers = {
        "torch eager": lambda: rivals.torch_inference(network, x),
        "torch inductor": lambda: rivals.torch_inference(network, x, compiled=True),
        "onnxruntime": lambda: rivals.onnx_inference(network, x, contest.threads),
    }
    _race(contest, ours, makers, probe, options, tell)


def _losses(step: rivals.Call) -> np.ndarray[Any, Any]:
    """The losses of the first steps."""
    return np.array([float(step()) for _ in range(STEPS_COMPARED)])


def _judge(contest: Contest, ours: Any, theirs: Any, exact: Any) -> bool:
    """Fill in how far both are from float64; whether ours is near enough."""
    scale = np.abs(exact).max()
    contest.error = float(np.abs(ours - exact).max() / scale)
    contest.their_error = float(np.abs(theirs - exact).max() / scale)
    contest.right = contest.error <= max(TIMES_THEIRS * contest.their_error, ALWAYS_ALLOWED)
    return contest.right


def _race(
    contest: Contest,
    ours: rivals.Call,
    makers: dict[str, Make],
    probe: Probe,
    options: Timing,
    tell: Tell,
) -> None:
    """Try each rival for a moment, and race the fastest."""
    tried: dict[str, Lane] = {}
    for name, make in makers.items():
        tell(f"{contest.network}: {name}")
        try:
            call = make()
            contest.trials[name] = _trial(call, probe, options)
            tried[name] = rivals.lane(name, call)
        except Exception as error:  # a rival that cannot do it is none
            contest.trials[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    if not tried:
        return
    contest.rival = min(tried, key=lambda name: contest.trials[name])
    own = rivals.lane("kernelwright", ours)
    start = float(np.asarray(ours()).ravel()[0])

    def verify(name: str, outputs: Any) -> str | None:
        """Whether what a timed call gave still looks like what the first one gave."""
        found = float(outputs[0].ravel()[0])
        close = abs(found - start) <= 0.2 * abs(start) + 1e-2
        return None if close else f"{found}, where the first call gave {start}"

    result = race(
        own, tried[contest.rival], probe=probe, options=options, rng=np.random.default_rng(0), verify=verify
    )
    ratio = ratio_interval(result.pairs)
    contest.ratio, contest.low, contest.high = ratio.value, ratio.low, ratio.high
    contest.ours_s, contest.theirs_s = result.ours_s, result.theirs_s
    contest.noisy, contest.pairs = result.noisy, result.pairs


def _trial(call: rivals.Call, probe: Probe, options: Timing, least: int = 5, budget_s: float = 0.3) -> float:
    """Seconds of the fastest of a few calls, once warm."""
    for _ in range(3):
        call()
    settle(probe, options)
    times: list[float] = []
    started = probe.now()
    while len(times) < least or probe.now() - started < budget_s:
        before = probe.now()
        call()
        times.append(probe.now() - before)
    return min(times)


def mean_ratio(found: Sequence[Contest]) -> float:
    """The geometric mean of the ratios of what was raced."""
    return geometric_mean([contest.ratio for contest in found if contest.ratio])
