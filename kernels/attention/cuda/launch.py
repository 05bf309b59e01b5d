"""Calls of attention as launches of the Triton kernels. Needs triton."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda.step import Arg, Descriptor, Step, Workspace
from . import backward_kernels, forward_kernels
from .choices import bands, is_packed, parts, tiles_of
from .problem import Array, Problem, box_of

_EMPTY = Array(0, 0, 0, 0, 0, 0, 0, 0, 0, 1)


class Held:
    """The scratch of a call: the same pieces for its steps with boxes and without."""

    def __init__(self) -> None:
        self._pieces: dict[str, Workspace] = {}

    def piece(self, name: str, numbers: int, dtype: str = "float32", zero: bool = False) -> Workspace:
        """The piece of that name, made at the first call, which asks for as much as any other."""
        if name not in self._pieces:
            self._pieces[name] = Workspace((max(numbers, 1),), dtype, zero)
        return self._pieces[name]


def _walk(letter: str, x: Array, count: int = 5) -> dict[str, int]:
    steps = {"o": x.outer, "b": x.inner, "h": x.head, "r": x.row, "c": x.column}
    return {f"{letter}_{name}": step for name, step in list(steps.items())[:count]}


def _given(p: Problem, name: str, box_rows: int) -> Any:
    """The argument for an array: its pointer, or a descriptor with blocks of so many rows."""
    if name not in p.arrays:
        return None
    place = p.arrays[name].place
    if not box_rows:
        return Arg(place)
    box = box_of(p, name, box_rows)
    return Descriptor(place, box.block, box.shape, box.steps)


def _many(p: Problem, name: str, letter: str) -> dict[str, int]:
    """Whether the batch and the heads of an array differ, as factors."""
    x = p.arrays[name]
    return {f"{letter}_many": int(x.inner != 0), f"{letter}_heads": int(x.head != 0)}


def _shared(p: Problem, precision: str, boxes: bool, packed: bool = False) -> dict[str, Any]:
    """The arguments that all three kernels take."""
    mask = p.arrays.get("mask", _EMPTY)
    unit = mask.unit if mask.unit <= 1 or p.s % mask.unit == 0 else 1
    return {
        "group": max(p.group, 1),
        "inner": p.inner,
        "rows": p.l,
        "keys": p.s,
        "e": p.e,
        "ev": p.ev,
        "c": p.scale if p.mask == "added" else p.c,
        **_walk("m", mask),
        "E": p.wide_e,
        "EV": p.wide_ev,
        "CAUSAL": p.causal,
        "MASK": p.mask,
        "BY_ROWS": p.by_rows(packed),
        "M_UNIT": unit,
        "BOXES": boxes,
        "PRECISION": precision,
        "WHOLE_E": p.e == p.wide_e,
        "WHOLE_EV": p.ev == p.wide_ev,
    }


def forward_steps(
    p: Problem, config: Mapping[str, Any], precision: str, boxes: bool, held: Held, l2: int
) -> list[Step]:
    """The launch of `attend`."""
    bm, bn = config["bm"], config["bn"]
    packed = is_packed(p, bm)
    units, tiles = tiles_of(p, bm)
    splits, of_part = parts(p, bn, config["splits"])
    items = units * tiles
    if not items:
        return []
    a = p.arrays
    by_box = boxes and not packed and splits == 1
    args: dict[str, Any] = {name: _given(p, name, 0) for name in ("q", "mask", "total")}
    args["out"] = _given(p, "out", bm * by_box)
    args |= {name: _given(p, name, bn * boxes) for name in ("k", "v")}
    sums = held.piece("sums", items * splits * bm * (p.wide_ev + 2)) if splits > 1 else None
    arrivals = held.piece("arrivals", items, "int32", True) if splits > 1 else None
    args |= {"sums": sums, "arrivals": arrivals, **_shared(p, precision, boxes, packed)}
    args |= {**_many(p, "k", "k"), **_many(p, "v", "v")}
    for letter, name in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out")):
        args |= _walk(letter, a[name]) | {f"{letter.upper()}_UNIT": a[name].unit}
    args |= _walk("t", a["total"], 4)
    args |= {
        "units": units,
        "heads": p.key_heads if packed else p.heads,
        "band": bands(p, units, p.group if not packed else 1, l2),
        "splits": splits,
        "blocks_of_part": of_part,
        "BM": bm,
        "BN": bn,
        "PACKED": packed,
        "SPLIT": splits > 1,
        "BY_BOX": by_box,
        "POSITIVE": p.scale > 0,
    }
    fn = forward_kernels.attend
    return [Step(fn, (items * splits,), args, warps=config["warps"], stages=config["stages"], any_int=True)]


def room_of(p: Problem) -> int:
    """Numbers between the rows of the scratch of a backward call: a multiple of 16 bytes, as boxes want
    it."""
    return ceil_div(p.l, 4) * 4


def backward_steps(
    p: Problem, config: Mapping[str, Any], precision: str, boxes: bool, held: Held, l2: int
) -> list[Step]:
    """The launches of `slopes_of_queries` and `slopes_of_keys`; without those that would compute nothing."""
    units, key_units = p.batch * p.heads, p.batch * p.key_heads
    stats = held.piece("stats", 2 * units * room_of(p))
    steps = []
    if units * p.l:
        steps.append(_of_queries(p, config, precision, boxes, stats, l2))
    if key_units * p.s:
        steps.append(_of_keys(p, config, precision, boxes and units * p.l > 0, stats, l2))
    return steps


def _of_queries(
    p: Problem, config: Mapping[str, Any], precision: str, boxes: bool, stats: Workspace, l2: int
) -> Step:
    bm, bn, a, units = config["bm"], config["bn"], p.arrays, p.batch * p.heads
    args: dict[str, Any] = {
        name: _given(p, name, 0) for name in ("q", "mask", "out", "total", "g", "gtotal", "dq")
    }
    args |= {name: _given(p, name, bn * boxes) for name in ("k", "v")}
    args |= {
        "stats": stats,
        "room": room_of(p),
        **_shared(p, precision, boxes),
        **_many(p, "k", "k"),
        **_many(p, "v", "v"),
    }
    named = (("q", "q"), ("k", "k"), ("v", "v"), ("o", "out"), ("g", "g"), ("d", "dq"))
    for letter, name in named:
        args |= _walk(letter, a[name]) | {f"{letter.upper()}_UNIT": a[name].unit}
    args |= _walk("t", a["total"], 4) | _walk("s", a.get("gtotal", _EMPTY), 4)
    args |= {
        "units": units,
        "heads": p.heads,
        "scale": p.scale,
        "band": bands(p, units, p.group, l2),
        "BM": bm,
        "BN": bn,
        "OF_TOTAL": "gtotal" in a,
    }
    programs = ceil_div(p.l, bm) * units
    return Step(
        backward_kernels.slopes_of_queries, (programs,), args, warps=config["warps"],
        stages=config["stages"], any_int=True,
    )  # fmt: skip


def _of_keys(
    p: Problem, config: Mapping[str, Any], precision: str, boxes: bool, stats: Workspace, l2: int
) -> Step:
    bm, bn, a, units = config["kbm"], config["kbn"], p.arrays, p.batch * p.key_heads
    args: dict[str, Any] = {"mask": _given(p, "mask", 0)}
    args |= {name: _given(p, name, bm * boxes) for name in ("q", "g")}
    args |= {name: _given(p, name, bn * boxes) for name in ("k", "v", "dk", "dv")}
    described = Descriptor(stats, (1, bm), (2 * p.batch * p.heads, p.l), (room_of(p), 1))
    args |= {"stats": described if boxes else stats, "room": room_of(p), **_shared(p, precision, boxes)}
    for letter in ("q", "k", "v", "g"):
        args |= _many(p, letter, letter)
    for letter, name in (("q", "q"), ("k", "k"), ("v", "v"), ("g", "g"), ("dk", "dk"), ("dv", "dv")):
        args |= _walk(letter, a[name]) | {f"{letter.upper()}_UNIT": a[name].unit}
    args |= {
        "group": p.group,
        "units": p.batch * p.heads,
        "key_units": units,
        "heads": p.heads,
        "key_heads": p.key_heads,
        "scale": p.scale,
        "band": bands(p, units, 1, l2),
        "BM": bm,
        "BN": bn,
    }
    programs = ceil_div(p.s, bn) * units
    return Step(
        backward_kernels.slopes_of_keys, (programs,), args, warps=config["kwarps"],
        stages=config["kstages"], any_int=True,
    )  # fmt: skip


Steps = Callable[[Problem, Mapping[str, Any], str, bool, Held, int], Sequence[Step]]
