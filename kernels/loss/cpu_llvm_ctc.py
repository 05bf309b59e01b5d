"""CTC on the CPU, generated (`paths.py`): a sequence at a time, its states by whole vectors.

loss        one walk through time, two rows of states
gradient    the same walk, all rows kept in scratch: T (2 S + 1) numbers a task; then one backwards
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cpu.launch import bind_phases
from ..kernel import Config, Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from . import paths
from .ctc import state_count
from .paths import Kind

# States of all steps that a task is worth at least: about 20 us.
TASK_WORK = 1 << 12


def _bind(specs: Specs, attrs: Attrs, threads: int, dloss: bool) -> Launch:
    """The launch of the loss (`dloss` false: `specs` start with log_probs) or of the gradient."""
    from ..cpu.generate import address_of

    slope = specs[0] if dloss else None
    probs, targets, inputs_n, targets_n, out = specs[1:] if dloss else specs
    t, n, classes = probs.shape
    lanes = vector_bytes() // probs.itemsize
    kind = Kind(probs.dtype, lanes, targets.dtype, inputs_n.dtype, targets_n.dtype)
    states = state_count(targets, attrs["longest"])
    # A vector of minus infinity on either side, and the last one whole.
    row = (states + 3 * lanes + lanes - 1) // lanes * lanes * probs.itemsize
    tasks = 1 if threads == 1 else max(1, min(n, threads, n * t * states // TASK_WORK))
    rows = paths.PARTS + (t + 2 if dloss else 2)
    stride = (rows * row + 127) // 64 * 64
    words: dict[int, int] = {
        paths.N: n,
        paths.TASKS: tasks,
        paths.CLASSES: classes,
        paths.BLANK: attrs["blank"],
        paths.ZERO_INFINITY: int(attrs["zero_infinity"]),
        paths.ROW: row,
        paths.STRIDE: stride,
        paths.IN_A_ROW: int(targets.ndim == 1),
        paths.T: t,
        paths.MOST: targets.shape[-1],
        paths.LONGEST: (states - 1) // 2,
    }
    words |= dict(zip((paths.P_T, paths.P_N, paths.P_C), probs.strides, strict=True))
    words |= {paths.L_N: targets.strides[0] if targets.ndim == 2 else 0, paths.L_S: targets.strides[-1]}
    words |= {paths.I_N: inputs_n.strides[0], paths.T_N: targets_n.strides[0]}
    if slope is not None:
        words |= {paths.D_N: slope.strides[0]}
        words |= dict(zip((paths.O_T, paths.O_N, paths.O_C), out.strides, strict=True))
    else:
        words |= {paths.O_N: out.strides[0]}
    block = np.zeros(paths.WORDS, np.int64)
    for place, number in words.items():
        block[place] = number
    emit: Any = paths.emit_grad if dloss else paths.emit_loss
    name = "ctc_loss_grad" if dloss else "ctc_loss"
    return bind_phases(block, paths.ARRAYS, [(address_of(emit, (tuple(kind),), name), tasks)], tasks * stride)


@kernel("ctc_loss", dtypes=("float32", "float64"), language="llvm", binds=True, name="paths")
def ctc_loss(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """One walk through time."""
    launch = _bind(specs, attrs, threads, dloss=False)
    return lambda *arrays: launch(None, *arrays)


@kernel("ctc_loss_grad", dtypes=("float32", "float64"), language="llvm", binds=True, name="paths")
def ctc_loss_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """A walk through time and one back."""
    return _bind(specs, attrs, threads, dloss=True)
