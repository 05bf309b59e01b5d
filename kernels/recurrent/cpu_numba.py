"""LSTM, GRU and RNN over whole sequences on the CPU, float32 and float64.

    pack      w_ih and w_hh once a call, into panels with the gates of the same hidden units side by side;
              nothing where they were packed ahead (prepack.py)
    input     gates = x w_ih^T, one product for as many steps as stay in the cache
    step      6 (8, 6) sequences x 4 (3, 4) vectors of gates: h w_hh^T in registers, then bias, activations,
              c' and h', all before anything is stored (tiles.py)
    project   LSTM with projections: 6 sequences x 4 vectors of w_hr z, once z of all units is there

Threads have sequences each, or hidden units each, by `model.py`; either way a call is two hand-overs to them,
whatever the number of steps (forward.py, team.py). Lengths cost nothing but a sort.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernel import Config, Launch
from ..machine import many_registers, vector_bytes
from ..op import Attrs, Specs, get_op
from ..registry import kernel
from ..spec import TensorSpec
from . import block as words
from . import model
from .layout import LINE, Scratch, array_words, fill, round_up
from .op import SAVED, STATES, sizes
from .prepack import WEIGHTS as NAMES
from .prepack import format_for
from .tiles_shape import COLUMNS, SLOTS, UNITS, WEIGHTS

DTYPES = ("float32", "float64")
# Bytes of gates that a chunk of steps gives: they are written and read once, and should still be near then.
CHUNK_BYTES = 1 << 19
MOST_CHUNK_ROWS = 384
# But w_ih is read once a chunk: with fewer rows than this, that takes longer than gates that are far away.
LEAST_CHUNK_ROWS = 192
# Up to so many sequences, a step is bound by reading w_hh: bfloat16 weights stay what they are, to be widened
# in registers. For more, they are widened once.
MOST_NARROW_ROWS = 8


def kind_of(op: str, attrs: Mapping[str, Any]) -> str:
    """The kind of layer as the tiles know it."""
    if op == "rnn":
        return f"rnn_{attrs['nonlinearity']}"
    return op if attrs.get("reset_after", True) else "gru_before"


def tall(kind: str) -> int:
    """Rows of the highest register tile."""
    if many_registers():
        return 8 if UNITS[kind] * 3 == WEIGHTS[kind] else 6
    return 4 if UNITS[kind] * 3 == WEIGHTS[kind] else 3


def work(op: str, specs: Specs, attrs: Attrs) -> model.Work:
    """The sizes that the model counts with."""
    the_op = get_op(op)
    t, b, i, h, p = sizes(the_op, specs[: len(the_op.inputs)], attrs)
    kind, size = kind_of(op, attrs), specs[0].itemsize
    units = UNITS[kind] * vector_bytes() // size
    gates = WEIGHTS[kind] // UNITS[kind]
    wide = -(-p * size // (COLUMNS * vector_bytes())) if kind == "lstmp" else 0
    packed = tuple(bool(attrs.get(f"{name}_format")) for name in NAMES)
    return model.Work(t, b, i, h, -(-h // units), WEIGHTS[kind], vector_bytes(), gates, size, p, wide, packed)


def without_heads_and_resets(inputs: tuple[str, ...], specs: Specs) -> str | None:
    """Why not, where a call has what no kernel on the CPU has."""
    if specs[inputs.index("w_hh")].ndim == 3:
        return "has one recurrence over all hidden units, and w_hh is of heads"
    if "resets" in inputs and specs[inputs.index("resets")].present:
        return "starts each sequence once, and there are resets"
    return None


def forward_supports(op: str, specs: Specs, attrs: Attrs) -> str | None:
    """Results with contiguous rows; something to project, and something to project it to."""
    inputs = get_op(op).inputs
    if (reason := without_heads_and_resets(inputs, specs)) is not None:
        return reason
    if op == "lstmp" and not specs[inputs.index("w_hr")].size:
        return "takes one hidden unit or more, and projects to one or more"
    for name in NAMES:
        form = attrs.get(f"{name}_format")
        if form and form != (wanted := format_for(op, name, specs[inputs.index(name)].dtype)):
            return f"reads {wanted} here, and {name} is packed as {form}"
    for spec in specs[len(inputs) :]:
        if spec.size and spec.strides[-1] != spec.itemsize:
            return "writes results whose last axis is contiguous"
    return None


def forward_model(op: str, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    from ..cpu.cycles import seconds

    return seconds(model.best_cut(work(op, specs, attrs), threads).cycles)


def bind_forward(op: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of a forward call."""
    from ..cpu.launch import address_of_task, bind_phases
    from .block import table_words
    from .forward import prepare_task, run_task
    from .pack import STAGE

    the_op, kind = get_op(op), kind_of(op, attrs)
    outputs = ("y", *(f"{state[0]}_n" for state in STATES[op]), *(SAVED[op] if attrs.get("train") else ()))
    block, roles = array_words(the_op, outputs, specs, attrs["batch_first"])
    dtype, size, lanes = specs[0].dtype, specs[0].itemsize, vector_bytes() // specs[0].itemsize
    w = work(op, specs, attrs)
    cut = model.best_cut(w, threads)
    tasks, mr = cut.rows * cut.units, tall(kind)
    units, width = UNITS[kind] * lanes, WEIGHTS[kind] * vector_bytes()
    rows = -(-w.b // cut.rows)
    stored = roles["w_hh"].dtype
    kept = stored if rows <= MOST_NARROW_ROWS else dtype
    kept_width = width // 2 if kept != dtype else width
    projection = w.p_panels * COLUMNS * vector_bytes()
    projects = w.p_panels > 0
    g_rs = -(-w.panels // cut.units) * SLOTS * vector_bytes() + LINE
    near = max(CHUNK_BYTES // g_rs, LEAST_CHUNK_ROWS)
    chunk = max(rows, min(rows * max(w.t, 1), MOST_CHUNK_ROWS, near))
    state_rs = max(w.panels * units * size, round_up(projection, LINE)) + LINE
    xbuf_rs = round_up(w.i * size, LINE) + LINE
    x = roles["x"]
    b_stride, t_stride = (
        (x.strides[0], x.strides[1]) if attrs["batch_first"] else (x.strides[1], x.strides[0])
    )
    in_place = (
        (x.strides[2] == size or w.i == 1)
        and not roles["lengths"].present
        and not attrs["reverse"]
        and w.b % cut.rows == 0
        and (w.t == 1 or t_stride == w.b * b_stride)
    )
    memory = Scratch()
    fill(
        block,
        NT=w.t,
        NB=w.b,
        NI=w.i,
        NH=w.h,
        NP=w.p,
        P_PANELS=w.p_panels,
        REVERSE=attrs["reverse"],
        ROW_PARTS=cut.rows,
        UNIT_PARTS=cut.units,
        PANELS=w.panels,
        CHUNK=chunk,
        X_IN_PLACE=in_place,
        STATE_RS=state_rs,
        STATE_STEP=round_up(w.b * state_rs, LINE),
        G_RS=g_rs,
        G_STEP=round_up(chunk * g_rs, LINE),
        XBUF_RS=xbuf_rs,
        XBUF_STEP=0 if in_place else chunk * xbuf_rs,
        TABLE_AT=memory.take(8 * table_words(w.t, w.b)),
        SYNC_AT=memory.take(256 * tasks),
        BIAS_AT=memory.take(w.panels * SLOTS * vector_bytes()),
        H_AT=memory.take(2 * w.b * state_rs),
        C_AT=memory.take(w.b * state_rs),
        WIDEH_AT=memory.take(tasks * STAGE * width if kept != dtype else 0),
        G_AT=memory.take(tasks * chunk * g_rs),
        XBUF_AT=memory.take(0 if in_place else tasks * chunk * xbuf_rs),
        Z_AT=memory.take(w.b * state_rs if projects else 0),
    )
    _place(block, roles, attrs, memory, "w_hh", w.panels * w.p * kept_width, kept)
    _place(block, roles, attrs, memory, "w_ih", w.panels * w.i * width, dtype)
    if projects:
        _place(block, roles, attrs, memory, "w_hr", w.h * projection, dtype)
    name, first = f"{op} for {dtype}", (kind, dtype, lanes, stored, kept)
    second: tuple[Any, ...] = (kind, dtype, lanes, mr, kept)
    if projects:
        second += (6 if many_registers() else 3,)
    phases = [
        (address_of_task(prepare_task(*first), first, name), tasks),
        (address_of_task(run_task(*second), second, name), tasks),
    ]
    return bind_phases(block, len(specs), phases, memory.nbytes)


def _place(
    block: NDArray[np.int64],
    roles: dict[str, TensorSpec],
    attrs: Attrs,
    memory: Scratch,
    name: str,
    nbytes: int,
    kept: str,
) -> None:
    """Where a weight's panels are: in its array, if they are there in the dtype `kept`, or in scratch."""
    letters = {"w_ih": "WI", "w_hh": "WH", "w_hr": "HR"}[name]
    packed = bool(attrs.get(f"{name}_format"))
    there = packed and roles[name].dtype == kept
    values = {
        "PACKED": packed,
        "IN": block[words.WORD[name.upper()] if there else words.SCRATCH],
        "AT": 0 if there else memory.take(nbytes),
    }
    fill(block, **{f"{letters}_{what}": value for what, value in values.items()})


def _supports(op: str) -> Any:
    return lambda specs, attrs: forward_supports(op, specs, attrs)


def _model(op: str) -> Any:
    return lambda specs, attrs, config, threads: forward_model(op, specs, attrs, config, threads)


@kernel("lstm", dtypes=DTYPES, supports=_supports("lstm"), model=_model("lstm"), binds=True)
def panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gates i, f, g, o of the same units in one register tile."""
    return bind_forward("lstm", specs, attrs, threads)


@kernel("lstmp", dtypes=DTYPES, supports=_supports("lstmp"), model=_model("lstmp"), binds=True, name="panels")
def lstmp_panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gates i, f, g, o of the same units in one register tile, then the projection of all units."""
    return bind_forward("lstmp", specs, attrs, threads)


@kernel("gru", dtypes=DTYPES, supports=_supports("gru"), model=_model("gru"), binds=True, name="panels")
def gru_panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gates r, z, n of the same units in one register tile."""
    return bind_forward("gru", specs, attrs, threads)


@kernel("rnn", dtypes=DTYPES, supports=_supports("rnn"), model=_model("rnn"), binds=True, name="panels")
def rnn_panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Four vectors of units in one register tile."""
    return bind_forward("rnn", specs, attrs, threads)
