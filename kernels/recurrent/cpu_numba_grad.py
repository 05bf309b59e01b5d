"""Gradients of LSTM, GRU and RNN over whole sequences on the CPU, float32 and float64.

    step       dh = dy + dgates w_hh: 6 sequences x 4 vectors of units in registers; then dgates of the step
               before, elementwise, while dh is in the nearest cache (slopes.py)
    project    LSTM with projections: dz = dh w_hr by the same tiles, between dh and dgates
    products   dx = dgates w_ih, dw_ih = dgates^T x, dw_hh = dgates^T h: one blocked product each over all
               steps (kernels/cpu/gemm.py), no operand transposed as a whole

Threads share the steps like forward; between the phases is one hand-over each (backward.py).
"""

from __future__ import annotations

from typing import Any

from ..cpu.cycles import seconds
from ..kernel import Config, Launch
from ..machine import many_registers, vector_bytes
from ..op import Attrs, Specs, get_op
from ..registry import kernel
from . import model
from .cpu_numba import kind_of, without_heads_and_resets
from .layout import LINE, Scratch, array_words, fill, round_up, widen_phases
from .op import GATES, SAVED, STATES, sizes
from .tiles_shape import COLUMNS

DTYPES = ("float32", "float64")
MC, NC, KC = 384, 1024, 256  # blocks of the products: backward.py


def work(op: str, specs: Specs, attrs: Attrs) -> model.Work:
    """The sizes that the model counts with; `op` without `_grad`."""
    the_op = get_op(f"{op}_grad")
    t, b, i, h, p = sizes(the_op, specs[: len(the_op.inputs)], attrs)
    size, vector = specs[0].itemsize, vector_bytes()
    panels, wide = (-(-n * size // (COLUMNS * vector)) for n in (h, p))
    return model.Work(t, b, i, h, panels, COLUMNS, vector, GATES[op], size, p, wide if op == "lstmp" else 0)


def supports(op: str, specs: Specs, attrs: Attrs) -> str | None:
    """Saved values and results with contiguous rows."""
    inputs = get_op(f"{op}_grad").inputs
    named = dict(zip(inputs, specs, strict=False))
    if (reason := without_heads_and_resets(inputs, specs)) is not None:
        return reason
    if not named["w_hh"].size:
        return "takes one hidden unit or more" + (", projected to one or more" if op == "lstmp" else "")
    for name in ("y", *SAVED[op]):
        if named[name].size and named[name].strides[-1] != named[name].itemsize:
            return f"reads {name} by vectors along its last axis, and there it is not contiguous"
    for spec in specs[len(inputs) :]:
        if spec.layout is not None:
            return "writes row-major results"
    return None


def predict(op: str, specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(model.best_cut(work(op, specs, attrs), threads, model.backward_cycles).cycles)


def _steps(strides: tuple[int, ...], batch_first: bool) -> tuple[int, int]:
    """The strides of time and of the batch."""
    return (strides[1], strides[0]) if batch_first else (strides[0], strides[1])


def bind_backward(op: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of a backward call; `op` without `_grad`."""
    from ..cpu.launch import address_of_task, bind_phases
    from .backward import multiply_task, prepare_task, run_task, scatter_task
    from .block import table_words

    the_op = get_op(f"{op}_grad")
    states = [f"d{state}" for state in STATES[op]]
    projects = op == "lstmp"
    weights = ("dw_ih", "dw_hh", "dw_hr") if projects else ("dw_ih", "dw_hh")
    outputs = ("dx", *states, *weights, "db_ih", "db_hh")
    block, roles = array_words(the_op, outputs, specs, attrs["batch_first"], widened=True)
    kind = kind_of(op, attrs)
    dtype, size, vector = specs[0].dtype, specs[0].itemsize, vector_bytes()
    lanes = vector // size
    w = work(op, specs, attrs)
    cut = model.best_cut(w, threads, model.backward_cycles)
    tasks, total, width = cut.rows * cut.units, w.t * w.b, w.gates * w.h
    in_order = not roles["lengths"].present and not attrs["reverse"]
    places = {}
    for name in ("x", "dx"):
        t_stride, b_stride = _steps(roles[name].strides, attrs["batch_first"])
        places[name] = in_order and (w.t == 1 or t_stride == w.b * b_stride)
    state_panels = w.p_panels or w.panels
    state_rs = max(w.panels, state_panels) * COLUMNS * vector + LINE
    xbuf_rs, hbuf_rs = round_up(w.i * size, LINE) + LINE, round_up(max(w.h, w.p) * size, LINE) + LINE
    dg_rs = round_up(width * size, LINE) + LINE
    mr, nv = (6, 4) if many_registers() else (6, 2)
    prod = round_up(NC * KC * size + MC * (KC * size + LINE) + 4 * LINE, 4096)
    memory = Scratch()
    dgx = memory.take(total * dg_rs)
    fill(
        block,
        NT=w.t,
        NB=w.b,
        NI=w.i,
        NH=w.h,
        NP=w.p,
        P_PANELS=state_panels,
        REVERSE=attrs["reverse"],
        ROW_PARTS=cut.rows,
        UNIT_PARTS=cut.units,
        PANELS=w.panels,
        TASKS=tasks,
        COUNT_G=width,
        SEEN=2 * w.h if kind == "gru_before" else width,
        X_IN_PLACE=places["x"],
        DX_IN_PLACE=places["dx"],
        STATE_RS=state_rs,
        STATE_STEP=round_up(w.b * state_rs, LINE),
        XBUF_RS=xbuf_rs,
        HBUF_RS=hbuf_rs,
        DG_RS=dg_rs,
        PROD_STEP=prod,
        TABLE_AT=memory.take(8 * table_words(w.t, w.b)),
        SYNC_AT=memory.take(256 * tasks),
        DYBUF_AT=memory.take(cut.rows * state_rs),
        H_AT=memory.take((2 * w.b + 1) * state_rs),
        C_AT=memory.take(2 * w.b * state_rs),
        WH_AT=memory.take(state_panels * width * COLUMNS * vector),
        DGX_AT=dgx,
        DGH_AT=memory.take(total * dg_rs) if kind == "gru" else dgx,
        RBUF_AT=memory.take(total * hbuf_rs if kind == "gru_before" else 0),
        HBUF_AT=memory.take(total * hbuf_rs),
        XBUF_AT=memory.take(0 if places["x"] else total * xbuf_rs),
        DXBUF_AT=memory.take(0 if places["dx"] else total * xbuf_rs),
        PROD_AT=memory.take(tasks * prod),
        HR_AT=memory.take(w.panels * w.p * COLUMNS * vector if projects else 0),
        Z_AT=memory.take(w.b * state_rs if projects else 0),
        DHBUF_AT=memory.take(total * hbuf_rs if projects else 0),
        ZBUF_AT=memory.take(total * hbuf_rs if projects else 0),
    )
    key, tall = (kind, dtype, lanes), 6 if many_registers() else 3
    name, shared = f"{op}_grad for {dtype}", f"gradients of recurrent layers for {dtype}"
    first: tuple[Any, ...] = (dtype, lanes, roles["w_hr"].dtype) if projects else (dtype, lanes)
    phases = [
        *widen_phases(block, roles, memory, tasks),
        (address_of_task(prepare_task(*first), first, name if projects else shared), tasks),
        (address_of_task(run_task(*key, tall), (*key, tall), name), tasks),
        (address_of_task(multiply_task(dtype, lanes, mr, nv), (dtype, lanes, mr, nv), shared), tasks),
    ]
    if not places["dx"]:
        phases.append((address_of_task(scatter_task(dtype, lanes), (dtype, lanes), shared), tasks))
    return bind_phases(block, len(specs), phases, memory.nbytes)


def _supports(op: str) -> Any:
    return lambda specs, attrs: supports(op, specs, attrs)


def _model(op: str) -> Any:
    return lambda specs, attrs, config, threads: predict(op, specs, attrs, config, threads)


@kernel("lstm_grad", dtypes=DTYPES, supports=_supports("lstm"), model=_model("lstm"), binds=True)
def products(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Back through the steps, then three products over all of them."""
    return bind_backward("lstm", specs, attrs, threads)


@kernel(
    "lstmp_grad",
    dtypes=DTYPES,
    supports=_supports("lstmp"),
    model=_model("lstmp"),
    binds=True,
    name="products",
)
def lstmp_products(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Back through the steps in two stages, then four products over all of them."""
    return bind_backward("lstmp", specs, attrs, threads)


@kernel(
    "gru_grad", dtypes=DTYPES, supports=_supports("gru"), model=_model("gru"), binds=True, name="products"
)
def gru_products(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Back through the steps, then three products over all of them."""
    return bind_backward("gru", specs, attrs, threads)


@kernel(
    "rnn_grad", dtypes=DTYPES, supports=_supports("rnn"), model=_model("rnn"), binds=True, name="products"
)
def rnn_products(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Back through the steps, then three products over all of them."""
    return bind_backward("rnn", specs, attrs, threads)
