"""Losses by labels on the CPU, generated: a row of scores at a time, in whole vectors of classes (`rows.py`).

    along     classes side by side: 64 bytes of them at once; each row is in the nearest cache when it is
              read a second time
    across    rows side by side, as the pixels of an image: so many of them at once
    else      an element at a time

All numbers of a row are worked out in its registers, so scores are read once from memory, and written once by
a gradient. Sums of 16-bit numbers are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..cpu.launch import bind_phases
from ..kernel import Config, Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from . import frame, rows
from .frame import Kind
from .op import DTYPES
from .shapes import class_axis, sums_dtype

# Scores that a task is worth at least: about 20 us.
TASK_WORK = 1 << 16


class Call(NamedTuple):
    """What a kernel here is bound from.

    Attributes:
        specs: of all arrays.
        scores: which of them have an axis of classes, inputs first.
        rows: which have one number a row.
        label: which has the labels.
        weight: which has the weights of classes.
        classes: how many there are.
        crosses: whether the task can run across rows.
    """

    specs: Specs
    scores: tuple[int, ...]
    rows: tuple[int, ...]
    label: int
    weight: int
    classes: int
    crosses: bool = True


def _number(kind: Kind, value: float) -> int:
    """The bits of a number of the computed dtype, as a word."""
    wide = np.zeros(1, np.int64)
    wide.view(kind.dtype)[0] = value
    return int(wide[0])


def _bind(
    call: Call,
    emit: Callable[..., None],
    key: tuple[Any, ...],
    numbers: Sequence[float],
    ignore_index: int,
    threads: int,
    held_weights: bool = False,
) -> Launch:
    """The launch of a call by one generated task."""
    from ..cpu.generate import address_of

    target, weight, scores = (
        call.specs[call.label],
        call.specs[call.weight],
        [call.specs[i] for i in call.scores],
    )
    stored = scores[0].dtype
    dtype = sums_dtype(stored)
    steps = [spec.strides[class_axis(spec)] for spec in scores]
    side_by_side = all(s == spec.itemsize for s, spec in zip(steps, scores, strict=True)) or call.classes == 1
    strides: list[tuple[int, ...]] = []
    for i, spec in enumerate(call.specs):
        axis = class_axis(spec) if i in call.scores else None
        strides.append(() if i == call.weight else frame.row_strides(spec, axis))
    strides += [()] * (frame.ARRAYS - len(strides))
    table, outer, inner, inner_steps = frame.shared_out(target.shape, strides)
    # Across rows: where it is the scores' rows that lie side by side, and more than a few.
    across = not side_by_side and all(inner_steps[i] == call.specs[i].itemsize for i in call.scores)
    lanes = vector_bytes() // (8 if dtype == "float64" else 4) if side_by_side or across else 1
    across = across and lanes > 1 and call.crosses
    others = (*call.rows, call.label)
    dense = across and all(inner_steps[i] == call.specs[i].itemsize for i in others)
    lanes = lanes if side_by_side or across else 1
    kind = Kind(dtype, stored, lanes, target.dtype, weight.present, across, dense)
    count = outer * inner
    tasks = 1 if threads == 1 else max(1, min(count, threads, count * max(call.classes, 1) // TASK_WORK))
    block = np.zeros(frame.WORDS, np.int64)
    block[[frame.OUTER, frame.INNER, frame.TASKS, frame.CLASSES]] = outer, inner, tasks, call.classes
    block[[frame.CLASS_STEP, frame.OUT_STEP]] = steps[0], steps[-1]
    block[frame.WEIGHT_STEP] = weight.strides[0] if weight.present else 0
    block[[frame.IGNORE, frame.TABLE]] = ignore_index, table.ctypes.data
    block[frame.STEPS : frame.STEPS + frame.ARRAYS] = inner_steps
    for place, number in enumerate(numbers):
        block[frame.FIRST + place] = _number(kind, number)
    stride = (64 + call.classes * kind.size + 127) // 64 * 64 if held_weights else 0
    block[frame.STRIDE] = stride
    name = emit.__name__.removeprefix("emit_")
    address = address_of(emit, (tuple(kind), *key), f"{name}_{stored}")
    return _padded(
        bind_phases(block, frame.ARRAYS, [(address, tasks)], tasks * stride, keep=table), len(call.specs)
    )


def _padded(launch: Launch, arrays: int) -> Launch:
    """A launch that takes fewer arrays than its block has words for."""
    rest = (None,) * (frame.ARRAYS - arrays)
    return launch if not rest else lambda *given: launch(*given, *rest)


def _classes(spec: TensorSpec) -> int:
    return spec.shape[class_axis(spec)]


def _smoothing(attrs: Attrs, classes: int) -> tuple[float, float]:
    smoothing = attrs["label_smoothing"]
    return 1.0 - smoothing, smoothing / max(classes, 1)


@kernel("cross_entropy", dtypes=DTYPES, language="llvm", binds=True, name="rows")
def cross_entropy(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Two sweeps over each row."""
    call = Call(specs, (0,), (3, 4, 5), 1, 2, _classes(specs[0]))
    smooth = attrs["label_smoothing"] != 0.0
    numbers = _smoothing(attrs, call.classes)
    return _bind(call, rows.emit_cross_entropy, (smooth,), numbers, attrs["ignore_index"], threads, smooth)


@kernel("cross_entropy_grad", dtypes=DTYPES, language="llvm", binds=True, name="rows")
def cross_entropy_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """One sweep over each row."""
    call = Call(specs, (1, 5), (0, 4), 2, 3, _classes(specs[1]))
    smooth = attrs["label_smoothing"] != 0.0
    numbers = _smoothing(attrs, call.classes)
    return _bind(
        call, rows.emit_cross_entropy_grad, (smooth,), numbers, attrs["ignore_index"], threads, smooth
    )


@kernel("nll_loss", dtypes=DTYPES, language="llvm", binds=True, name="rows")
def nll_loss(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The label's score alone."""
    call = Call(specs, (0,), (3, 4), 1, 2, _classes(specs[0]))
    return _bind(call, rows.emit_nll_loss, (), (), attrs["ignore_index"], threads)


@kernel("nll_loss_grad", dtypes=DTYPES, language="llvm", binds=True, name="rows")
def nll_loss_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Zeros, and the label's element."""
    call = Call(specs, (3,), (0,), 1, 2, attrs["classes"])
    return _bind(call, rows.emit_nll_loss_grad, (), (), attrs["ignore_index"], threads)


def _margin_numbers(specs: Specs, attrs: Attrs, x: int) -> tuple[float, float]:
    return attrs["margin"], 1.0 / max(specs[x].shape[-1], 1)


@kernel("multi_margin_loss", dtypes=DTYPES, language="llvm", binds=True, name="rows")
def multi_margin_loss(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """One sweep over each row."""
    call = Call(specs, (0,), (3,), 1, 2, _classes(specs[0]), crosses=False)
    numbers = _margin_numbers(specs, attrs, 0)
    return _bind(call, rows.emit_multi_margin, (attrs["p"],), numbers, -1, threads)


@kernel("multi_margin_loss_grad", dtypes=DTYPES, language="llvm", binds=True, name="rows")
def multi_margin_loss_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """One sweep over each row, and the label's element."""
    call = Call(specs, (1, 4), (0,), 2, 3, _classes(specs[1]), crosses=False)
    numbers = _margin_numbers(specs, attrs, 1)
    return _bind(call, rows.emit_multi_margin_grad, (attrs["p"],), numbers, -1, threads)
