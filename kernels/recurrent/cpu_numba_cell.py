"""Single steps of LSTM, GRU and RNN on the CPU, float32 and float64; weights also bfloat16 beside float32.

direct    the rows of w_ih and w_hh are read where they are, once, 4 rows x 1 or 4 sequences in registers; the
          sums of `lanes` units of all gates then give their new state (cell_tile.py); threads have units each
panels    strided operands, and many sequences: the kernel for whole sequences, of one step

GRU with the reset before the product is two phases of `direct`: r, z and r h of all units, then n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, seconds
from ..kernel import Config, Launch
from ..machine import machine, many_registers, vector_bytes
from ..op import ABSENT, Attrs, Specs, get_op
from ..registry import kernel
from ..spec import TensorSpec
from .cpu_numba import bind_forward, forward_model, forward_supports, kind_of, without_heads_and_resets
from .layout import Scratch, round_up
from .op import GATES, STATES, STEPWISE, sizes
from .tiles_shape import SLOTS

DTYPES = ("float32", "float64")
WORK_PER_THREAD = 12_000.0  # cycles below which a second thread costs more than it brings
FOLD = 8.0  # cycles to add up the lanes of a few rows
FINISH = 60.0  # cycles for the activations of one sequence and one vector of units


def tile() -> tuple[int, int]:
    """Rows of weights and sequences of the larger register tile."""
    return (4, 4) if many_registers() else (4, 2)


def sequence(op: str, specs: Specs, attrs: Attrs) -> tuple[Specs, dict[str, Any]]:
    """The call of the whole-sequence op that is this one step; `op` without `_cell`."""
    inputs = get_op(f"{op}_cell").inputs
    x, outputs = specs[0], specs[len(inputs) :]

    def one_step(spec: TensorSpec) -> TensorSpec:
        layout = None if spec.layout is None else (0, *spec.layout)
        return TensorSpec((1, *spec.shape), spec.dtype, spec.device, layout)

    more = {} if op == "rnn" else {"train": False}
    call = (one_step(x), *specs[1 : len(inputs)], *(ABSENT for _ in STEPWISE), one_step(outputs[0]), *outputs)
    return call, {"reverse": False, "batch_first": False, **attrs, **more}


def _parts(op: str, specs: Specs, attrs: Attrs, threads: int) -> tuple[int, float]:
    """Into how many parts `direct` cuts the units, and the cycles expected."""
    the_op = get_op(f"{op}_cell")
    _, b, i, h, _ = sizes(the_op, specs[: len(the_op.inputs)], attrs)
    lanes = vector_bytes() // specs[0].itemsize
    blocks, gates = ceil_div(h, lanes), GATES[op]
    nbytes = gates * h * (i + h) * specs[the_op.inputs.index("w_ih")].itemsize
    rows, seqs = tile()
    groups, wide = (1, 1) if b == 1 else (ceil_div(b, seqs), seqs)
    k = ceil_div(i, lanes) + ceil_div(h, lanes)
    # The sequences are read again for each few rows: from the second cache, where they overflow the first.
    overflow = b * (i + h) * specs[0].itemsize > 0.7 * machine().l1d
    apart = 0.4 * wide * vector_bytes() / NEAR if overflow else 0.0
    each = k * (max(0.53 * rows * wide, 0.55 * (rows + wide)) + apart) + FOLD * wide

    def cycles(parts: int) -> float:
        mine = ceil_div(blocks, parts)
        work = mine * (ceil_div(lanes, rows) * gates * groups * each + b * FINISH)
        share = nbytes / parts
        stream = share / (NEAR if share < 0.8 * machine().l2 else FAR)
        return CALL + max(work, stream) + 0.2 * min(work, stream)

    alone, many = cycles(1), min(threads, blocks)
    if many > 1 and alone > WORK_PER_THREAD and cycles(many) + HAND_OVER < alone:
        return many, cycles(many) + HAND_OVER
    return 1, alone


def direct_supports(op: str, specs: Specs, attrs: Attrs) -> str | None:
    """Rows of weights, states and biases that are contiguous."""
    the_op = get_op(f"{op}_cell")
    if (reason := without_heads_and_resets(the_op.inputs, specs)) is not None:
        return reason
    results = [f"{state[0]}'" for state in STATES[op]]
    for name, spec in zip((*the_op.inputs, *results), specs, strict=True):
        if spec.present and spec.size and spec.shape[-1] > 1 and spec.strides[-1] != spec.itemsize:
            return f"reads and writes rows that are contiguous, which those of {name} are not"
    return None


def direct_model(op: str, specs: Specs, attrs: Attrs, threads: int) -> float:
    """Predicted seconds."""
    return seconds(_parts(op, specs, attrs, threads)[1])


def bind_direct(op: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of `direct`."""
    from ..cpu.launch import address_of_task, bind_phases
    from . import cell_task as words

    the_op = get_op(f"{op}_cell")
    _, b, i, h, _ = sizes(the_op, specs[: len(the_op.inputs)], attrs)
    kind = kind_of(op, attrs)
    dtype, size = specs[0].dtype, specs[0].itemsize
    lanes = vector_bytes() // size
    parts, _ = _parts(op, specs, attrs, threads)
    (rows, seqs), memory = tile(), Scratch()
    rows = min(rows, lanes)
    zeros = np.zeros(max(GATES[op] * h, 1), specs[0].np_dtype)
    block = np.zeros(words.WORDS, np.int64)
    names = (*the_op.inputs, *(f"{state[0]}_out" for state in STATES[op]))
    given = dict(zip(names, specs, strict=True))
    for role, word in words.ROLES.items():
        block[word] = names.index(role) if role in given and given[role].present else -1
    for role, word in words.ROW_STRIDES.items():
        if role in given and given[role].present:
            block[word] = given[role].strides[0]
    step = round_up(b, seqs) * SLOTS * vector_bytes()
    held = (b * h * size if kind == "gru_before" else 0, h * size)
    memory.take(parts * step)
    block[[words.NB, words.NI, words.NH, words.PARTS, words.ZEROS]] = b, i, h, parts, zeros.ctypes.data
    block[[words.ARRAYS, words.PRE_STEP, words.HELD_RS]] = len(specs), step, held[1]
    block[[words.RH_AT, words.Z_AT]] = memory.take(held[0]), memory.take(held[0])
    phases = []
    for stage in ("gru_before_rz", "gru_before_n") if kind == "gru_before" else (kind,):
        key = (stage, dtype, lanes, given["w_ih"].dtype, rows, seqs)
        phases.append((address_of_task(words.cell_task(*key), key, f"{op}_cell for {dtype}"), parts))
    return bind_phases(block, len(specs), phases, memory.nbytes, keep=zeros)


def bind_panels(op: str, specs: Specs, attrs: Attrs, threads: int) -> Launch:
    """The launch of `panels`."""
    call, more = sequence(op, specs, attrs)
    run, count = bind_forward(op, call, more, threads), len(get_op(f"{op}_cell").inputs)

    def launch(*arrays: Any) -> None:
        # The sequence's y and last state are one and the same here.
        run(*arrays[:count], *(None for _ in STEPWISE), arrays[count], *arrays[count:])

    return launch


def _register(op: str) -> None:
    """Declares both kernels of a cell."""

    def direct(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        return bind_direct(op, specs, attrs, threads)

    def panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        return bind_panels(op, specs, attrs, threads)

    def supports_panels(specs: Specs, attrs: Attrs) -> str | None:
        return forward_supports(op, *sequence(op, specs, attrs))

    def model_panels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        call, more = sequence(op, specs, attrs)
        return forward_model(op, call, more, config, threads)

    kernel(
        f"{op}_cell",
        dtypes=DTYPES,
        supports=lambda specs, attrs: direct_supports(op, specs, attrs),
        model=lambda specs, attrs, config, threads: direct_model(op, specs, attrs, threads),
        binds=True,
    )(direct)
    kernel(f"{op}_cell", dtypes=DTYPES, supports=supports_panels, model=model_panels, binds=True)(panels)


for _op in ("lstm", "gru", "rnn"):
    _register(_op)
