"""Attention on the CPU: blocks of queries and keys, generated as vector code (`forward.py`, `backward.py`).

    out [L x Ev] = softmax(Q K^T scale + mask) V        one online-softmax sweep over blocks of keys

Multiply-adds keep their sums in registers (`products.tile`); between the two products a block of scores, at
most KEYS x 64, passes through the nearest cache. Sums of bfloat16 and float16 are float32.

GFLOP/s of one core of an AMD Zen 5 with AVX-512, November 2026, beside torch 2.13 in brackets, by turns in
one process; [batch, heads, length, features], float32, causal counted as if whole:

                          [8, 4, 128, 64]    [1, 12, 1024, 64]    the same, causal
    attention             206 (81)           222 (96)             386 (125)
    attention_grad        196 (84)           231 (90)             406 (120)
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..cpu.cycles import ceil_div
from ..cpu.narrow import NARROW
from ..kernel import Config, Launch
from ..machine import many_registers, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from . import backward, few, forward, products
from .forward import Form
from .op import DTYPES
from .products import Product
from .reference import factor
from .routines import GRAIN, LINE, Kind
from .shapes import Sizes, repeated_strides, sizes

# Keys in a block of scores.
KEYS = 120
# Multiply-adds that a task is worth at least.
TASK_WORK = 1 << 18
MOST_WIDE = 4  # vectors in a panel of queries


def kind_of(query: TensorSpec, length: int, width: int) -> Kind:
    """What is computed with, in vectors of `width` bytes and panels that leave few queries over."""
    dtype = "float64" if query.dtype == "float64" else "float32"
    lanes = width // (8 if dtype == "float64" else 4)
    registers, widest = (24, MOST_WIDE) if many_registers() else (12, 2)

    def work(panel: int) -> float:
        # A narrower panel reads keys and values more often, from the second cache: a few percent.
        return ceil_div(length, panel * lanes) * panel * (1.0 + 0.03 * (widest - panel))

    return Kind(dtype, query.dtype, lanes, min(range(1, widest + 1), key=work), registers)


def mask_way(mask: TensorSpec, strides: tuple[int, ...]) -> str:
    """How a mask is read: see `routines.mask_panel`."""
    if strides[-2] == 0:
        return "keys"
    return "rows" if strides[-1] == mask.itemsize else "any"


def not_dense(spec: TensorSpec) -> bool:
    """Whether the numbers of a row are not side by side."""
    return spec.shape[-1] > 1 and spec.strides[-1] != spec.itemsize


def lies_apart(spec: TensorSpec) -> bool:
    """Whether the rows of an operand are not numbers side by side that can be computed with."""
    return spec.dtype in NARROW or not_dense(spec)


def head_offsets(specs: Specs, shape: tuple[int, ...], group: int) -> np.ndarray[Any, Any]:
    """[heads of query, arrays]: where each head's part of each array starts, in bytes."""
    lead = shape[:-2]
    columns = []
    for spec, trailing, repeats in specs_of_heads(specs, group):
        if not spec.present:
            columns.append(np.zeros(prod(lead), np.int64))
            continue
        own = spec.shape[: spec.ndim - trailing]
        strides = spec.strides[: spec.ndim - trailing]
        total = np.zeros(own, np.int64)
        for axis, stride in enumerate(strides):
            steps = np.arange(own[axis]) * stride
            total = total + steps.reshape((-1,) + (1,) * (len(own) - 1 - axis))
        if repeats and own:
            total = np.repeat(total, group, axis=-1)
        columns.append(np.broadcast_to(total, lead).ravel())
    return np.ascontiguousarray(np.stack(columns, -1)).astype(np.int64)


def specs_of_heads(specs: Specs, group: int) -> list[tuple[TensorSpec, int, bool]]:
    """Of each array: its spec, how many axes a head has, and whether heads of query share its heads."""
    names = ("query", "key", "value", "mask", "out", "total", "dout", "dtotal", "dq", "dk", "dv")
    shared = ("key", "value", "dk", "dv")
    trailing = {"total": 1, "dtotal": 1}
    return [
        (spec, trailing.get(name, 2), name in shared and group > 1)
        for name, spec in zip(names, specs, strict=False)
    ]


class Room:
    """Places in a task's scratch, one after the other."""

    def __init__(self) -> None:
        self.nbytes = 0

    def take(self, nbytes: int) -> int:
        """The next place with so many bytes, and a line to spare."""
        place = self.nbytes
        self.nbytes += ceil_div(nbytes, LINE) * LINE + LINE
        return place


def dense_row(kind: Kind, features: int) -> int:
    """Bytes of a row of so many numbers that is filled up to whole vectors."""
    return max(1, ceil_div(features, kind.lanes)) * kind.vector_bytes


def keys_in_block(length: int) -> int:
    """Keys in a block, so that all blocks but the last are of one size, and that is hardly smaller."""
    blocks = max(1, ceil_div(length, KEYS + GRAIN // 2))
    return ceil_div(max(ceil_div(length, blocks), 1), GRAIN) * GRAIN


def scale_word(kind: Kind, scale: float) -> int:
    """The bits of the number that scores are multiplied by."""
    wide = np.zeros(1, np.int64)
    wide.view(np.float64 if kind.size == 8 else np.float32)[0] = scale
    return int(wide[0])


def steps_of(spec: TensorSpec) -> tuple[int, int]:
    """(bytes between rows, bytes between features) of an operand."""
    return spec.strides[-2], spec.strides[-1]


def mask_strides(mask: TensorSpec, full: tuple[int, ...]) -> tuple[int, ...]:
    """Of a mask read as scores of the shape `full`; zeros without one."""
    return repeated_strides(mask, full) if mask.present else (0,) * len(full)


def repeated_mask(mask: TensorSpec, full: tuple[int, ...]) -> TensorSpec:
    """The mask with all the axes of the scores."""
    if not mask.present:
        return mask
    return TensorSpec(full, mask.dtype, mask.device, mask_strides(mask, full))


def out_problem(specs: Specs, first: int) -> str | None:
    """Why results cannot be written."""
    for spec in specs[first:]:
        if spec.ndim >= 2 and spec.size and spec.shape[-1] > 1 and spec.strides[-1] != spec.itemsize:
            return f"writes rows side by side, and an output is {spec}"
    return None


def with_products(block: np.ndarray[Any, Any], keys: tuple[Product, ...]) -> np.ndarray[Any, Any]:
    """A copy of a block, with the addresses of products behind it."""
    from ..cpu.generate import address_of

    addresses = [address_of(products.emit, tuple(key), "attention_product") for key in keys]
    return np.array([*block, *addresses], np.int64)


@lru_cache(maxsize=512)
def plan_forward(
    specs: Specs, causal: bool, scale: float | None, threads: int, width: int
) -> tuple[Kind, Form, np.ndarray[Any, Any], np.ndarray[Any, Any], int, int]:
    """(kind, form, the block, the table of heads, tasks, bytes of scratch) of a call."""
    query, key, value, mask, out, total = specs
    n: Sizes = sizes("attention", query, key, value)
    kind = kind_of(query, n.l, width)
    full = (*query.shape[:-1], n.s)
    hidden = mask_strides(mask, full)
    few_queries = n.l if n.l <= few.MOST else 0
    form = Form(
        vectors=ceil_div(n.ev, kind.lanes),
        # A few queries are laid out with zeros behind them; keys and values are then read as they are.
        lay_q=bool(few_queries) or not_dense(query),
        lay_k=not_dense(key) if few_queries else lies_apart(key),
        lay_v=not_dense(value) if few_queries else lies_apart(value) or n.ev % kind.lanes != 0,
        mask=mask.dtype if mask.present else "",
        way=mask_way(mask, hidden) if mask.present else "",
        causal=causal,
        few=few_queries,
    )
    blocks, keys = ceil_div(n.l, kind.rows), keys_in_block(n.s)
    units = prod(query.shape[:-2]) * blocks
    work = units * kind.rows * n.s * (n.e + n.ev)
    tasks = 1 if threads == 1 else max(1, min(units, 4 * threads, work // TASK_WORK))
    room, f = Room(), forward
    block = np.zeros(f.WORDS, np.int64)
    rows = {f.SUMS_RS: n.ev, f.ROWS_Q_RS: n.e, f.ROWS_K_RS: n.e, f.ROWS_V_RS: n.ev}
    for place, features in rows.items():
        block[place] = dense_row(kind, features)
    height = keys + GRAIN
    block[f.PANEL] = room.take(dense_row(kind, n.e) // kind.size * kind.row_bytes)
    block[f.SCORES] = room.take(height * kind.row_bytes)
    block[f.MASKS] = room.take((keys + kind.lanes) * kind.row_bytes if form.mask else 0)
    block[f.SUMS] = room.take(kind.rows * int(block[f.SUMS_RS]))
    block[f.STATE] = room.take(f.STATE_ROWS * kind.row_bytes)
    block[f.ROWS_Q] = room.take(kind.rows * int(block[f.ROWS_Q_RS]) if form.lay_q else 0)
    block[f.ROWS_K] = room.take(n.s * int(block[f.ROWS_K_RS]) if form.lay_k else 0)
    block[f.ROWS_V] = room.take(n.s * int(block[f.ROWS_V_RS]) if form.lay_v else 0)
    block[[f.UNITS, f.TASKS, f.GROUP, f.BLOCKS, f.BC]] = units, tasks, n.group, blocks, keys
    block[[f.L, f.S, f.E, f.EV]] = n.l, n.s, n.e, n.ev
    block[f.SCALE] = scale_word(kind, factor(np.empty(query.shape[-1:]), scale))
    block[[f.Q_RS, f.Q_CS]], block[[f.K_RS, f.K_CS]] = steps_of(query), steps_of(key)
    block[[f.V_RS, f.V_CS]], block[[f.M_RS, f.M_CS]] = steps_of(value), hidden[-2:]
    block[[f.O_RS, f.T_RS, f.STRIDE]] = out.strides[-2], total.strides[-1], room.nbytes
    table = head_offsets((query, key, value, repeated_mask(mask, full), out, total), full, n.group)
    return kind, form, block, table, tasks, tasks * room.nbytes


def forward_supports(specs: Specs, attrs: Attrs) -> str | None:
    return out_problem(specs, 4)


@kernel("attention", dtypes=DTYPES, language="llvm", supports=forward_supports, binds=True)
def blocks(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Blocks of queries against blocks of keys."""
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases

    kind, form, block, table, tasks, nbytes = plan_forward(
        specs, attrs["is_causal"], attrs["scale"], threads, vector_bytes()
    )
    block = with_products(block, forward.product_keys(kind, form))
    block[forward.TABLE] = table.ctypes.data
    address = address_of(forward.emit, (tuple(kind), tuple(form)), f"attention_{kind.stored}")
    return bind_phases(block, 6, [(address, tasks)], nbytes, keep=table)


# --- gradients ----------------------------------------------------------------------------------------------


class GradPlan(NamedTuple):
    """A bound gradient call: see `plan_backward`."""

    kind: Kind
    form: backward.Form
    block: np.ndarray[Any, Any]
    table: np.ndarray[Any, Any]
    tasks: int
    heads: int
    nbytes: int


def _runs(n: Sizes, shared: int, threads: int) -> tuple[int, int]:
    """(into how many runs keys are cut, keys in one): so that all threads get work."""
    runs = max(1, min(ceil_div(threads, max(shared, 1)), ceil_div(n.s, KEYS)))
    work = n.group * n.l * n.s * (3 * n.e + 2 * n.ev)
    runs = max(1, min(runs, work // TASK_WORK))
    run = ceil_div(ceil_div(max(n.s, 1), runs), GRAIN) * GRAIN
    return ceil_div(max(n.s, 1), run), run


@lru_cache(maxsize=512)
def plan_backward(specs: Specs, causal: bool, scale: float | None, threads: int, width: int) -> GradPlan:
    """What runs a call: its block but for the table's address, tasks, and bytes of scratch."""
    query, key, value, mask, out, total, dout, dtotal, dq, dk, dv = specs
    n: Sizes = sizes("attention_grad", query, key, value)
    kind = kind_of(query, n.l, width)
    full = (*query.shape[:-1], n.s)
    hidden = mask_strides(mask, full)
    heads = prod(query.shape[:-2])
    shared = heads // n.group
    runs, run = _runs(n, shared, threads)
    odd_e, odd_ev = n.e % kind.lanes != 0, n.ev % kind.lanes != 0
    form = backward.Form(
        vectors_e=ceil_div(n.e, kind.lanes),
        vectors_ev=ceil_div(n.ev, kind.lanes),
        lay_q=lies_apart(query) or odd_e,
        lay_k=lies_apart(key) or odd_e,
        lay_v=lies_apart(value),
        lay_o=lies_apart(out),
        lay_g=lies_apart(dout) or odd_ev,
        mask=mask.dtype if mask.present else "",
        way=mask_way(mask, hidden) if mask.present else "",
        causal=causal,
        dtotal=dtotal.present,
        runs=runs > 1,
    )
    units = shared * runs
    work = n.group * n.l * n.s * (3 * n.e + 2 * n.ev) * shared
    tasks = 1 if threads == 1 else max(1, min(units, 4 * threads, work // TASK_WORK))
    keys = keys_in_block(min(run, max(n.s, 1)))
    w: dict[str, int] = {"units": units, "tasks": tasks, "group": n.group, "runs": runs, "run": run}
    w |= {"l": n.l, "s": n.s, "e": n.e, "ev": n.ev, "blocks": ceil_div(n.l, kind.rows), "bc": keys}
    w |= {"scale": scale_word(kind, factor(np.empty(query.shape[-1:]), scale)), "heads": heads}
    for name, spec in (("q", query), ("k", key), ("v", value), ("o", out), ("g", dout)):
        w[f"{name}_rs"], w[f"{name}_cs"] = steps_of(spec)
    w |= {"m_rs": hidden[-2], "m_cs": hidden[-1], "t_rs": total.strides[-1]}
    w |= {"dt_rs": dtotal.strides[-1] if dtotal.present else 0}
    w |= {f"{name}_rs": spec.strides[-2] for name, spec in (("dq", dq), ("dk", dk), ("dv", dv))}
    w |= {"row_e": dense_row(kind, n.e), "row_ev": dense_row(kind, n.ev)}
    _place_backward(w, kind, form, n, keys, min(run, max(n.s, 1)))
    w["share"] = n.l * w["row_e"]
    w["shares"] = tasks * w["stride"]
    block = np.zeros(backward.WORDS, np.int64)
    for name, number in w.items():
        block[backward.PLACES[name]] = number
    arrays = (query, key, value, repeated_mask(mask, full), *specs[4:])
    table = head_offsets(arrays, full, n.group)
    nbytes = w["shares"] + (runs * heads * w["share"] if form.runs else 0)
    return GradPlan(kind, form, block, table, tasks, heads, nbytes)


def _place_backward(
    w: dict[str, int], kind: Kind, form: backward.Form, n: Sizes, keys: int, run: int
) -> None:
    """Where things are in a task's scratch."""
    room, height = Room(), keys + GRAIN
    w["panel_q"] = room.take(w["row_e"] // kind.size * kind.row_bytes)
    w["panel_g"] = room.take(w["row_ev"] // kind.size * kind.row_bytes)
    w["scores"], w["slopes"] = room.take(height * kind.row_bytes), room.take(height * kind.row_bytes)
    w["masks"] = room.take((keys + kind.lanes) * kind.row_bytes if form.mask else 0)
    w["state"] = room.take(backward.STATE_ROWS * kind.row_bytes)
    w["rows_q"] = room.take(kind.rows * w["row_e"] if form.lay_q else 0)
    w["rows_g"] = room.take(kind.rows * w["row_ev"] if form.lay_g else 0)
    w["rows_o"] = room.take(kind.rows * w["row_ev"] if form.lay_o else 0)
    w["rows_k"] = room.take(run * w["row_e"] if form.lay_k else 0)
    w["rows_v"] = room.take(run * w["row_ev"] if form.lay_v else 0)
    w["sums_q"] = room.take(kind.rows * w["row_e"])
    w["sums_k"] = room.take((run + GRAIN) * w["row_e"])
    w["sums_v"] = room.take((run + GRAIN) * w["row_ev"])
    w["stride"] = room.nbytes


def backward_supports(specs: Specs, attrs: Attrs) -> str | None:
    return out_problem(specs, 8)


@kernel("attention_grad", dtypes=DTYPES, language="llvm", supports=backward_supports, binds=True)
def blocks_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Blocks of queries against blocks of keys, the probabilities computed again."""
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases

    plan = plan_backward(specs, attrs["is_causal"], attrs["scale"], threads, vector_bytes())
    block = with_products(plan.block, backward.product_keys(plan.kind, plan.form))
    block[backward.PLACES["table"]] = plan.table.ctypes.data
    kind, stored = tuple(plan.kind), plan.kind.stored
    address = address_of(backward.emit, (kind, tuple(plan.form)), f"attention_grad_{stored}")
    phases = [(address, plan.tasks)]
    if plan.form.runs and plan.heads:
        sums = address_of(backward.emit_shares, (kind,), f"attention_grad_sums_{stored}")
        phases.append((sums, plan.heads))
    return bind_phases(block, backward.ARRAYS, phases, plan.nbytes, keep=plan.table)
