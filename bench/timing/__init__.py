"""The loop that every time comes from: rules, contestants, races, and the signs of a disturbance."""

from .lane import Args, Call, Lane, Outputs, Run, call_loop, closure_loop
from .probe import Probe, SystemProbe, clock_step
from .race import Race, Verify, race, settle, timed, timed_pair, wanted_pairs
from .rules import Timing
from .signs import Own, Signs, changed, disturbance

__all__ = [
    "Args",
    "Call",
    "Lane",
    "Outputs",
    "Own",
    "Probe",
    "Race",
    "Run",
    "Signs",
    "SystemProbe",
    "Timing",
    "Verify",
    "call_loop",
    "changed",
    "clock_step",
    "closure_loop",
    "disturbance",
    "race",
    "settle",
    "timed",
    "timed_pair",
    "wanted_pairs",
]
