"""Recurrent calls as launches of the Triton kernels. Needs triton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton

from ...cpu.cycles import ceil_div
from ...cuda.device import Device, facts
from ...cuda.launch import CudaLaunch, launcher
from ...cuda.step import Arg, Step, Workspace, is_wide
from ...op import Attrs, Specs
from . import choices, products
from .backward import backward
from .cells import cell
from .forward import forward
from .prepare import added, by_length, emptied, laid_out
from .problem import Call, call_of
from .products import Steps, multiply

_ROWS, _COLUMNS = 16, 256  # of the blocks of what is made before and after


class Recurrence:
    """What both directions of a call have in common: cut, exchange, order.

    Args:
        call: the call.
        config: how it is cut.
        back: whether gradients of gates are exchanged, and not the state.
    """

    def __init__(self, call: Call, config: Mapping[str, Any], back: bool, device: Device) -> None:
        self.call, self.config, self.device = call, config, device
        self.resident, self.solo = bool(config["resident"]), bool(config["solo"])
        self.units, self.rows = int(config["units"]), int(config["rows"])
        self.tiles = ceil_div(call.d, self.units)
        self.row_tiles = max(ceil_div(call.b, self.rows), 1)
        self.padded = self.row_tiles * self.rows
        kc = int(config["kc"])
        self.width = kc * (int(config["tiles"]) or ceil_div(call.d, kc))
        self.gates = call.gates if back else 1
        slots = max(call.t, 1)
        shape = (slots, call.heads, self.padded, self.gates, self.width)
        self.exchange = None if self.solo else Workspace(shape, call.dtype)
        self.count = slots * call.heads * self.row_tiles
        self.counters = None if self.resident else Workspace((self.count,), "int32")
        self.order = Workspace((max(call.b, 1),), "int32") if call.has("lengths") else None

    def arg(self, name: str) -> Arg | None:
        """A tensor of the call; None where it was left out."""
        return Arg(self.call.places[name]) if self.call.has(name) else None

    def prepare(self, steps: Steps, first: bool) -> None:
        """The order of sequences, and the exchange; `first`: with the first state in it."""
        call = self.call
        (len_step,) = call.steps("lengths", 1)
        if self.order is not None:
            args = {
                "lengths": self.arg("lengths"),
                "order": self.order,
                "batch": call.b,
                "steps": call.t,
                "len_step": len_step,
                "BLOCK": 64,
            }
            steps.add(Step(by_length, (ceil_div(call.b, 64),), args, any_int=True))
        if self.solo:
            return
        h0_b, h0_u = call.steps("h0", 2)
        slot = call.heads * self.padded * self.gates
        rows = max(call.t, 1) * slot
        block = min(_COLUMNS, triton.next_power_of_2(self.width))
        args = {
            "exchange": self.exchange,
            "counters": self.counters,
            "h0": self.arg("h0") if first else None,
            "order": self.order if first and call.has("h0") else None,
            "rows": rows,
            "batch": call.b,
            "rows_padded": self.padded,
            "d": call.d,
            "slot_rows": slot,
            "count": self.count,
            "h0_b": h0_b,
            "h0_u": h0_u,
            "G": self.gates,
            "WIDTH": self.width,
            "HEADS": call.heads,
            "POISON": self.resident,
            "FIRST": first,
            "BR": _ROWS,
            "BK": block,
        }
        programs = max(ceil_div(rows, _ROWS), ceil_div(self.count, block))
        steps.add(Step(emptied, (programs,), args, any_int=True))

    def run(self, steps: Steps, fn: Any, args: Mapping[str, Any]) -> None:
        """The recurrence: a launch for as many heads and tiles of sequences as run at one time."""
        call, config = self.call, self.config
        groups = call.heads * self.row_tiles
        at_once = choices.groups_at_once(call, config, self.device)
        tf32 = call.dtype == "float32"
        common = {
            "lengths": self.arg("lengths"),
            "resets": self.arg("resets"),
            "order": self.order,
            "exchange": self.exchange,
            "counters": self.counters,
            "steps": call.t,
            "batch": call.b,
            "d": call.d,
            "hidden": call.h,
            "tiles": self.tiles,
            "rows_padded": self.padded,
            "KIND": call.kind,
            "G": call.gates,
            "U": self.units,
            "BB": self.rows,
            "KS": int(config["warps"]),
            "KC": int(config["kc"]),
            "NC": int(config["tiles"]),
            "WIDTH": self.width,
            "HEADS": call.heads,
            "RESIDENT": self.resident,
            "SOLO": self.solo,
            "PRECISION": "tf32x3" if tf32 else "ieee",
            "REVERSE": call.reverse,
        }
        names = (("h0", 2), ("c0", 2), ("y", 3), ("gates", 3), ("cells", 3))
        for name, axes in names:
            common |= zip_steps(call, name, axes)
        (common["len_step"],) = call.steps("lengths", 1)
        common["re_t"], common["re_b"] = call.steps("resets", 2)
        w = call.steps("w_hh", 2)
        common |= {"w_head": 0 if len(w) == 2 else w[0], "w_row": w[-2], "w_col": w[-1]}
        # What the steps walk: beyond 2^31 elements, offsets are counted in 64 bits.
        most = call.t * call.b * 4 * max(call.h, 1)
        common["WIDE"] = most + 2**20 >= 2**31 or is_wide(*call.specs.values())
        # Rows that can be loaded 16 bytes at a time, or fewer, as the compiler is told.
        unit = next(n for n in (8, 4, 2, 1) if not any(m % n for m in (call.d, *w[:-1])))
        common["W_UNIT"] = unit if w[-1] == 1 else 0
        for start in range(0, groups, at_once):
            grid = (min(at_once, groups - start) * self.tiles,)
            given = {**common, **args, "first_group": start}
            given = {name: given[name] for name in fn.arg_names}
            steps.add(
                Step(
                    fn,
                    grid,
                    given,
                    warps=int(config["warps"]),
                    stages=2,
                    registers=255,
                    any_int=True,
                    together=not self.solo,
                )
            )


def zip_steps(call: Call, name: str, axes: int) -> dict[str, int]:
    """The steps of a tensor as arguments: of states b and u, of sequences t and b."""
    short = {"gates": "g", "cells": "ce"}.get(name, name.replace("_", ""))
    found = call.steps(name, axes)
    letters = ("t", "b", "u") if axes == 3 else ("b", "u")
    return {f"{short}_{letter}": step for letter, step in zip(letters, found, strict=True)}


def bind_forward(name: str, specs: Specs, attrs: Attrs, config: Mapping[str, Any]) -> CudaLaunch:
    """The launch of `lstm`, `gru` or `rnn`."""
    device = facts(specs[0].device)
    call = call_of(name, specs, attrs)
    made, steps = Recurrence(call, config, False, device), Steps()
    xg = Workspace((*call.outer, call.gates * call.h))
    where: dict[str, Any] = {"a": call.places["x"], "b": call.places["w_ih"], "c": xg}
    if call.has("b_ih"):
        where["bias"] = call.places["b_ih"]
    multiply(steps, products.of_inputs(call), where, device)
    made.prepare(steps, True)
    width = call.gates * call.h
    (b_step,) = call.steps("b_hh", 1)
    row_t, row_b = call.row_steps
    args = {name: made.arg(name) for name in ("h0", "c0", "b_hh", "y", "h_n", "c_n", "gates", "cells")} | {
        "xg": xg,
        "w": made.arg("w_hh"),
        "x_t": row_t * width,
        "x_b": row_b * width,
        "b_step": b_step,
        "hn_b": call.steps("h_n", 2)[0],
        "cn_b": call.steps("c_n", 2)[0],
        "TRAIN": call.train,
    }
    made.run(steps, forward, args)
    return launcher(specs, *steps.aligned, otherwise=lambda: steps.others)


def bind_backward(name: str, specs: Specs, attrs: Attrs, config: Mapping[str, Any]) -> CudaLaunch:
    """The launch of `lstm_grad`, `gru_grad` or `rnn_grad`."""
    device = facts(specs[0].device)
    call = call_of(name, specs, attrs)
    made, steps = Recurrence(call, config, True, device), Steps()
    rows, width = call.t * call.b, call.gates * call.h
    dg_x = Workspace((*call.outer, width), call.dtype)
    dg_h = Workspace((*call.outer, width), call.dtype) if call.kind == "gru" else None
    h_seen = Workspace((*call.outer, call.h), call.dtype)
    sums = Workspace((made.row_tiles, call.gates + 1, call.h))
    row_t, row_b = call.row_steps
    names = ("h0", "c0", "y", "gates", "cells", "dy", "dh_n", "dc_n", "dh0", "dc0")
    args: dict[str, Any] = {n: made.arg(n) for n in names}
    args |= {"w": made.arg("w_hh"), "dg_x": dg_x, "dg_h": dg_h, "h_seen": h_seen, "sums": sums}
    args |= {"row_t": row_t, "row_b": row_b, "dh0_b": call.steps("dh0", 2)[0]}
    args |= {"dc0_b": call.steps("dc0", 2)[0]}
    for short, axes in (("dy", 3), ("dh_n", 2), ("dc_n", 2)):
        args |= zip_steps(call, short, axes)
    if rows or call.b:
        made.prepare(steps, False)
        made.run(steps, backward, args)
    places = call.places
    multiply(steps, products.of_dx(call), {"a": dg_x, "b": places["w_ih"], "c": places["dx"]}, device)
    x: Any = places["x"]
    spec = call.specs["x"]
    column = spec.strides[2] // spec.itemsize
    step = products.row_step(spec)
    if step is None and call.i and rows:
        x, step, column = Workspace((rows, call.i), call.dtype), call.i, 1
        outer, inner, c_step = (stride // spec.itemsize for stride in spec.strides)
        copy = {"x": Arg(places["x"]), "out": x, "outer": spec.shape[0], "inner": spec.shape[1]}
        copy |= {"columns": call.i, "o_step": outer, "i_step": inner, "c_step": c_step, "BR": 8, "BC": 64}
        steps.add(Step(laid_out, (ceil_div(rows, 8) * ceil_div(call.i, 64),), copy, any_int=True))
    dw = call.specs["dw_ih"]
    p = products.of_weight(rows, width, call.i, step or 0, column, call.dtype, dw)
    multiply(steps, p, {"a": dg_x, "b": x, "c": places["dw_ih"]}, device)
    of_h, dw = dg_h or dg_x, call.specs["dw_hh"]
    p = (
        products.of_weight(rows, width, call.h, call.h, 1, call.dtype, dw)
        if dw.ndim == 2
        else products.of_heads(call)
    )
    multiply(steps, p, {"a": of_h, "b": h_seen, "c": places["dw_hh"]}, device)
    last = {
        "sums": sums,
        "db_ih": made.arg("db_ih"),
        "db_hh": made.arg("db_hh"),
        "tiles": made.row_tiles if call.b else 0,
        "hidden": call.h,
        "ih_step": call.steps("db_ih", 1)[0],
        "hh_step": call.steps("db_hh", 1)[0],
        "G": call.gates,
        "APART": call.kind == "gru",
        "BC": 128,
    }
    steps.add(Step(added, (ceil_div(width, 128),), last, any_int=True))
    return launcher(specs, *steps.aligned, otherwise=lambda: steps.others)


def bind_cell(name: str, specs: Specs, attrs: Attrs, config: Mapping[str, Any]) -> CudaLaunch:
    """The launch of `lstm_cell`, `gru_cell` or `rnn_cell`."""
    call = call_of(name, specs, attrs)
    units, rows = int(config["units"]), int(config["rows"])
    tiles = ceil_div(call.d, units)
    w = call.steps("w_hh", 2)
    args: dict[str, Any] = {"w_head": 0 if len(w) == 2 else w[0], "wh_row": w[-2], "wh_col": w[-1]}
    for tensor in ("x", "h", "c", "w_ih", "w_hh", "b_ih", "b_hh", "h_out", "c_out"):
        args[tensor] = Arg(call.places[tensor]) if call.has(tensor) else None
    for tensor, row, column in (
        ("x", "x_row", "x_col"),
        ("h", "h_row", "h_col"),
        ("c", "c_row", "c_col"),
        ("w_ih", "wi_row", "wi_col"),
    ):
        args[row], args[column] = call.steps(tensor, 2)
    (args["bi_step"],), (args["bh_step"],) = call.steps("b_ih", 1), call.steps("b_hh", 1)
    args["ho_row"], args["co_row"] = call.steps("h_out", 2)[0], call.steps("c_out", 2)[0]
    args |= {"batch": call.b, "inputs": call.i, "d": call.d, "hidden": call.h, "tiles": tiles}
    args |= {"KIND": call.kind, "G": call.gates, "U": units, "BB": rows, "KC": int(config["kc"])}
    args |= {"HEADS": call.heads, "PRECISION": "tf32x3" if call.dtype == "float32" else "ieee"}
    columns = [args[n] for n in ("wi_col", "wh_col", "x_col", *(["h_col"] if call.has("h") else []))]
    steps = [args[n] for n in ("wi_row", "wh_row", "x_row", "h_row", "w_head", "inputs", "d")]
    args["UNIT"] = int(all(n == 1 for n in columns) and not any(n % 8 for n in steps))
    programs = tiles * call.heads * ceil_div(call.b, rows)
    given = {n: args[n] for n in cell.arg_names}
    return launcher(specs, Step(cell, (programs,), given, warps=int(config["warps"]), stages=3, any_int=True))
