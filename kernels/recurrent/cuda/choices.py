"""How a recurrence is cut into programs, and what a step of each cut is expected to take.

A configuration is `units` hidden units and `rows` sequences of a program, `warps`, `kc` columns of w_hh in a
tile, `resident`, whether its weights stay on the multiprocessor, and `solo`, whether it has all units of a
head and meets nobody. Else programs of one head and one tile of sequences meet in every step and run at one
time, at most one on a multiprocessor; what does not fit at once is a launch of its own, as tiles of sequences
are independent.

No line has been timed on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda import ranking
from ...cuda.device import Device
from ...kernel import Config
from .problem import Call

MOST_TILES = 6  # of weights for a gate: each is a matrix instruction's operand of its own in the code
MOST_OFFERED = 6
MOST_ALONE = 32  # hidden units of a program that has all of a head: each of its warps has all their gates
MOST_HELD = 48  # registers for the state of a step: with more, what is computed beside them is spilled
_PORT, _L2, _SHARED = 64, 5120, 128  # bytes a clock: into a multiprocessor, from the L2 cache, shared memory
# Instructions for each hidden unit and sequence of a step, counted in SASS of an LSTM's, rounded; every warp
# computes them all, as sums over warps end in each of them.
_INSTRUCTIONS = 60
# units, rows, warps where weights are read in each step, by the bytes of an element and the direction: larger
# ones were seen to spill.
_STREAMED = {
    (2, False): ((16, 16, 4), (32, 16, 8), (64, 16, 8)),
    (2, True): ((16, 16, 8), (32, 16, 8), (32, 32, 8), (64, 16, 8)),
    (4, False): ((16, 8, 4), (32, 8, 8)),
    (4, True): ((16, 8, 4), (32, 8, 8)),
}


def chunks(d: int, warps: int, item: int, rows: int) -> tuple[int, int]:
    """Columns of a tile of weights and how many tiles: powers of two that reach past d by the least.

    Each warp has the 16 columns of a matrix instruction, and each thread a 32-bit word of the state or more:
    the exchange is of words, and is read by words.
    """
    least = max(warps * (16 if item == 2 else 8), 4 * 32 * warps // (item * rows))
    found = []
    for power in range(4, 12):
        kc = 1 << power
        if kc >= least and (tiles := ceil_div(d, kc)) <= MOST_TILES:
            found.append((tiles * kc, tiles, kc))
    if not found:
        return 0, 0
    _, tiles, kc = min(found)
    return kc, tiles


def shared_bytes(call: Call, config: Mapping[str, Any], back: bool) -> int:
    """Shared memory of a program that keeps its weights: they, the state of a step, and sums of warps."""
    width = config["kc"] * config["tiles"]
    weights = call.gates * max(config["units"], 16) * width * call.item
    state = (call.gates if back else 1) * width * config["rows"] * call.item
    sums = config["warps"] * config["units"] * config["rows"] * 4 * (1 if back or call.gates == 1 else 4)
    if call.item == 4:
        weights, state = 2 * weights, 2 * state  # three products of tf32 have two parts of each operand
    return weights + max(state, sums) + 4096


def groups_at_once(call: Call, config: Mapping[str, Any], device: Device) -> int:
    """How many pairs of head and tile of sequences run at one time; 0 where not even one does."""
    if config["solo"]:
        return call.heads * ceil_div(max(call.b, 1), config["rows"])
    return device.multiprocessors // ceil_div(call.d, config["units"])


def launches(call: Call, config: Mapping[str, Any], device: Device) -> int:
    """Into how many launches the pairs of head and tile of sequences fall."""
    groups = call.heads * ceil_div(max(call.b, 1), config["rows"])
    return ceil_div(groups, groups_at_once(call, config, device))


def candidates(call: Call, back: bool, device: Device) -> list[Config]:
    """Configurations that can be launched, the fastest predicted first."""
    found: list[tuple[float, int, Config]] = []
    for config in (*_solo(call, back), *_resident(call, back, device), *_streaming(call, back, device)):
        if groups_at_once(call, config, device):
            found.append((seconds(call, config, back, device), len(found), config))
    return [config for _, _, config in sorted(found, key=lambda f: f[:2])][:MOST_OFFERED]


def _solo(call: Call, back: bool) -> list[Config]:
    """A program for each head of up to 32 units: a warp for each 16 columns of a matrix instruction."""
    units = max(16, 1 << (call.d - 1).bit_length())
    if units > MOST_ALONE or call.item != 2:
        return []
    return [
        {"units": units, "rows": rows, "warps": units // 16, "kc": units, "tiles": 1}
        | {"resident": True, "solo": True}
        for rows in ((8,) if units < MOST_ALONE else (4,) if back else (8, 4))
    ]


def _resident(call: Call, back: bool, device: Device) -> list[Config]:
    made = []
    for units, rows, warps in (
        (16, 8, 8),
        (16, 16, 8),
        (16, 32, 8),
        (32, 8, 8),
        (32, 16, 8),
        (16, 8, 4),
        (16, 16, 4),
        (16, 1, 8),
        (16, 1, 4),
        (8, 1, 4),
    ):
        kc, tiles = chunks(call.d, warps, call.item, rows)
        # A tile of sequences twice as long as the batch computes nothing but padding in its second half.
        if (
            not kc
            or (rows > 8 and rows >= 2 * call.b)
            or (rows == 1 and call.b > 2)
            or (units > 16 and units >= 2 * call.d)
        ):
            continue
        crowded = call.gates == 4 or call.has("lengths") or call.has("resets")
        if warps == 4 and rows > 1 and crowded:
            continue  # seen to spill
        config = {
            "units": units,
            "rows": rows,
            "warps": warps,
            "kc": kc,
            "tiles": tiles,
            "resident": True,
            "solo": False,
        }
        # Registers of a thread that hold the state of a step until none of it is missing.
        held = (call.gates if back else 1) * kc * tiles * rows * call.item // (4 * 32 * warps)
        if held <= MOST_HELD and shared_bytes(call, config, back) <= device.shared_bytes:
            made.append(config)
    return made


def _streaming(call: Call, back: bool, device: Device) -> list[Config]:
    made = []
    for units, rows, warps in _STREAMED[call.item, back]:
        if rows > 16 and rows >= 2 * call.b:
            continue
        made.append(
            {"units": units, "rows": rows, "warps": warps, "kc": 32 if call.item == 4 else 64, "tiles": 0}
            | {"resident": False, "solo": False}
        )
    return made


def seconds(call: Call, config: Mapping[str, Any], back: bool, device: Device) -> float:
    """Seconds of the recurrence alone: launches, each as many steps as there are."""
    hertz = ranking.clock(device)
    tiles = ceil_div(call.d, config["units"])
    groups = call.heads * ceil_div(max(call.b, 1), config["rows"])
    programs = min(groups, groups_at_once(call, config, device)) * tiles
    width = config["kc"] * (config["tiles"] or ceil_div(call.d, config["kc"]))
    state = (call.gates if back else 1) * width * config["rows"] * call.item
    weights = call.gates * config["units"] * width * call.item
    flop = 2 * call.gates * max(config["units"], 16) * width * config["rows"] * (1 if call.item == 2 else 3)
    unit = call.dtype if call.item == 2 else "tf32"
    # mma.sync reaches about 63% of the rate on Hopper (see docs/kernels-gpu.md).
    multiply = flop / (device.flops[unit] / device.multiprocessors * 0.63)
    gates = config["units"] * config["rows"] * _INSTRUCTIONS * config["warps"] / 128 / hertz
    port = min(_PORT, _L2 / programs) * hertz
    if config["resident"]:
        moved = state / port + (weights + 2 * state) / (_SHARED * hertz)
        # Alone, few warps wait for their own instructions, one after the other.
        meet = ranking.LATENCY / 2 if config["solo"] else 2 * ranking.LATENCY
    else:
        total = call.gates * call.h * call.d * call.item
        again = weights / port if total < device.l2_bytes else total / device.bandwidth
        moved = state / port + again
        meet = 2 * ranking.LATENCY + 2 * ranking.ARRIVAL
    step = meet + moved + multiply + gates
    if config["solo"]:
        step *= ceil_div(groups, 4 * device.multiprocessors)
    return launches(call, config, device) * (ranking.LAUNCH + max(call.t, 1) * step)
