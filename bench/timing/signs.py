"""What disturbed a batch, by the counters around it.

switches    involuntary context switches may have cost more than the tolerance
off core    the wall's clock went on while no thread of the process ran
waited      a thread that could run waited for a core
stolen      the hypervisor ran somebody else
drift       the calibration loop took another time after the pair than before it
clock       both took another time than this race's calibrations usually do
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .probe import Probe
from .rules import Timing


@dataclass(frozen=True)
class Signs:
    """Counters at one moment, or how far they went in a while.

    Attributes:
        cpu_s: CPU seconds of all threads of the process.
        switches: involuntary context switches.
        faults: page faults.
        waited_s: seconds in which threads that could run had no core, summed over them.
    """

    cpu_s: float = 0.0
    switches: int = 0
    faults: int = 0
    waited_s: float = 0.0

    @classmethod
    def before(cls, probe: Probe) -> Signs:
        """Read just before a batch: the slow ones first, CPU time next to the clock."""
        waited, faults, switches = probe.waited(), probe.faults(), probe.switches()
        return cls(probe.cpu(), switches, faults, waited)

    @classmethod
    def after(cls, probe: Probe) -> Signs:
        """Read just after a batch."""
        cpu, switches = probe.cpu(), probe.switches()
        return cls(cpu, switches, probe.faults(), probe.waited())

    def since(self, start: Signs) -> Signs:
        return Signs(
            self.cpu_s - start.cpu_s,
            self.switches - start.switches,
            self.faults - start.faults,
            self.waited_s - start.waited_s,
        )

    def off_core(self, seconds: float) -> float:
        """The share of so many seconds in which no thread of the process can have run: at least this."""
        return max(0.0, 1 - self.cpu_s / seconds)


@dataclass
class Own:
    """The least idle and waiting shares seen of a lane: what its threads do by themselves."""

    off_core: float = 1.0
    waited: float = 1.0

    def learn(self, signs: Signs, seconds: float) -> None:
        self.off_core = min(self.off_core, signs.off_core(seconds))
        self.waited = min(self.waited, signs.waited_s / seconds)


def disturbance(
    switches: int,
    stolen_s: float,
    seconds: float,
    options: Timing,
    signs: Signs | None = None,
    own: Own | None = None,
) -> str | None:
    """Why a batch of that many seconds can't be trusted; None when it can.

    Args:
        switches: involuntary context switches in it.
        stolen_s: what the hypervisor took of all CPUs, from before the warm-up on.
        seconds: what the batch took by the wall's clock.
        options: the rules.
        signs: how far the counters went in it; without, CPU time and waiting are not looked at.
        own: what the lane's threads idle and wait by themselves.
    """
    if switches * options.switch_cost_s > options.tolerance * seconds:
        return "switches"
    if signs is not None:
        usual = own or Own(0.0, 0.0)
        if signs.off_core(seconds) > min(usual.off_core, options.own_idle) + options.tolerance:
            return "off core"
        if signs.waited_s / seconds > min(usual.waited, options.own_idle) + options.tolerance:
            return "waited"
    return "stolen" if stolen_s > options.tolerance * seconds else None


def changed(clocks: Sequence[float], before: float, after: float, options: Timing) -> str | None:
    """Why a pair between two calibrations can't be trusted; None when it can.

    Args:
        clocks: earlier calibrations of the race.
        before, after: seconds of the calibration loop around the pair.
        options: the rules.
    """
    if abs(math.log(after / before)) > options.drift:
        return "drift"
    if len(clocks) < options.least_clocks:
        return None
    usual = median(clocks)
    return "clock" if min(abs(math.log(t / usual)) for t in (before, after)) > options.drift else None
