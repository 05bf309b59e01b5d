"""The loop that every time comes from: rules, contestants, races, and the signs of a disturbance."""

from .lane import Args, Call, Lane, Outputs, Run, call_loop, closure_loop
from .probe import Probe, SystemProbe
from .race import Race, Verify, disturbance, race, settle, wanted_pairs
from .rules import Timing

__all__ = [
    "Args",
    "Call",
    "Lane",
    "Outputs",
    "Probe",
    "Race",
    "Run",
    "SystemProbe",
    "Timing",
    "Verify",
    "call_loop",
    "closure_loop",
    "disturbance",
    "race",
    "settle",
    "wanted_pairs",
]
