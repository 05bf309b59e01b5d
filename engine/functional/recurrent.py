"""`lstm`, `gru`, `rnn` over whole sequences and their cells, as functions of Arrays, as in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels.errors import DTypeError, ShapeError
from ...kernels.op import Op
from ...kernels.prepack import Packed
from ...kernels.recurrent.op import GRU, GRU_CELL, LSTM, LSTM_CELL, LSTMP, RNN, RNN_CELL
from ..array import Array, asarray
from ..eager import Operand, call_all

State = tuple[Operand, Operand]
Lengths = Operand | Sequence[int]
Resets = Operand | Sequence[Sequence[bool]]
Weight = Operand | Packed


def lstm(
    x: Operand,
    state: State | None,
    w_ih: Weight,
    w_hh: Weight,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    lengths: Lengths | None = None,
    resets: Resets | None = None,
    *,
    w_hr: Weight | None = None,
    reverse: bool = False,
    batch_first: bool = False,
) -> tuple[Array, tuple[Array, Array]]:
    """Long short-term memory over a batch of sequences (Hochreiter, Schmidhuber 1997; Gers 2000).

    Args:
        x: [T, B, I], float32, float64, bfloat16 or float16; [B, T, I] with batch_first. In 16 bits sums and
            states are float32 inside the call.
        state: (h, c), each [B, H], before the first step; zeros for None.
        w_ih, w_hh: [4 H, I] and [4 H, H], the gates i, f, g, o one above the other; of x's dtype, or both
            bfloat16 where that is float32; or what `kernels.prepack.prepack("lstm", w)` made of them ("gru",
            "rnn"; "lstmp" with w_hr, which is packed with name="w_hr").
            w_hh of [heads, 4 D, D] is block-diagonal: H = heads D units, each head of D sees itself alone;
            rows of w_ih and of the biases stay gate H + unit.
        b_ih, b_hh: [4 H] each, added up; zeros for None.
        lengths: [B] whole numbers in 0..T, in any order: how many steps of each sequence count. Beyond them,
            nothing is computed and y is 0. On a GPU from an array there, unchecked: each must be in 0..T.
        resets: [T, B] of bool ([B, T] with batch_first): before a step at which it is true for a sequence,
            its state is set to zeros, and no gradient passes.
        w_hr: [P, H], of the dtype of w_ih, projects h: h' = w_hr (o tanh(c')), so that h is [B, P], w_hh
            [4 H, P] and y [T, B, P] (Sak, Senior, Beaufays 2014; PyTorch's proj_size). For `kw.explain` and
            errors that is the op `lstmp`.
        reverse: from each sequence's last step to its first.
        batch_first: x and y are [B, T, ...].

    Returns:
        y: [T, B, H] (or [B, T, H]), h after each step; and (h, c), each [B, H], after the last step of each
        sequence.

    Raises:
        ShapeError: for shapes that do not fit, or lengths outside 0..T.
        DTypeError: for other or mixed dtypes, or a state that is no pair.
    """
    attrs = {"reverse": reverse, "batch_first": batch_first}
    op, weights = (LSTM, (w_ih, w_hh)) if w_hr is None else (LSTMP, (w_ih, w_hh, w_hr))
    arrays = _arrays(attrs, ("w_ih", "w_hh", "w_hr"), weights)
    inputs = (x, *_pair(state), *arrays, b_ih, b_hh, *_by_step(op, x, lengths, resets, batch_first))
    y, h, c = call_all(op, inputs, attrs)
    return y, (h, c)


def gru(
    x: Operand,
    state: Operand | None,
    w_ih: Weight,
    w_hh: Weight,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    lengths: Lengths | None = None,
    resets: Resets | None = None,
    *,
    reverse: bool = False,
    batch_first: bool = False,
    reset_after: bool = True,
) -> tuple[Array, Array]:
    """Gated recurrent unit over a batch of sequences (Cho et al. 2014).

    Args:
        state: h: [B, H] before the first step; zeros for None.
        w_ih, w_hh: [3 H, I] and [3 H, H], the gates r, z, n one above the other; or packed, or w_hh of heads,
            as in `lstm`.
        b_ih, b_hh: [3 H] each; zeros for None.
        reset_after: the reset gate multiplies w_hn h + b_hn (PyTorch; ONNX: linear_before_reset=1). False: it
            multiplies h before the product (ONNX's default).
        x, lengths, resets, reverse, batch_first: as in `lstm`.

    Returns:
        y: [T, B, H], and h: [B, H] after the last step of each sequence.

    Raises:
        ShapeError, DTypeError: as `lstm`.
    """
    attrs = {"reverse": reverse, "batch_first": batch_first, "reset_after": reset_after}
    arrays = _arrays(attrs, ("w_ih", "w_hh"), (w_ih, w_hh))
    inputs = (x, state, *arrays, b_ih, b_hh, *_by_step(GRU, x, lengths, resets, batch_first))
    y, h = call_all(GRU, inputs, attrs)
    return y, h


def rnn(
    x: Operand,
    state: Operand | None,
    w_ih: Weight,
    w_hh: Weight,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    lengths: Lengths | None = None,
    resets: Resets | None = None,
    *,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    batch_first: bool = False,
) -> tuple[Array, Array]:
    """A plain recurrent layer over a batch of sequences (Elman 1990).

    Args:
        state: h: [B, H] before the first step; zeros for None.
        w_ih, w_hh: [H, I] and [H, H]; or packed, or w_hh of heads, as in `lstm`.
        b_ih, b_hh: [H] each; zeros for None.
        nonlinearity: "tanh" or "relu".
        x, lengths, resets, reverse, batch_first: as in `lstm`.

    Returns:
        y: [T, B, H], and h: [B, H] after the last step of each sequence.

    Raises:
        ShapeError, DTypeError: as `lstm`.
    """
    attrs = {"reverse": reverse, "batch_first": batch_first, "nonlinearity": nonlinearity}
    arrays = _arrays(attrs, ("w_ih", "w_hh"), (w_ih, w_hh))
    inputs = (x, state, *arrays, b_ih, b_hh, *_by_step(RNN, x, lengths, resets, batch_first))
    y, h = call_all(RNN, inputs, attrs)
    return y, h


def lstm_cell(
    x: Operand,
    state: State | None,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
) -> tuple[Array, Array]:
    """One step of `lstm`. x: [B, I], state: (h, c), each [B, H] -> the new (h, c). Raises as `lstm`."""
    h, c = call_all(LSTM_CELL, (x, *_pair(state), w_ih, w_hh, b_ih, b_hh), {})
    return h, c


def gru_cell(
    x: Operand,
    state: Operand | None,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    *,
    reset_after: bool = True,
) -> Array:
    """One step of `gru`. x: [B, I], state: [B, H] -> the new state. Raises as `gru`."""
    (h,) = call_all(GRU_CELL, (x, state, w_ih, w_hh, b_ih, b_hh), {"reset_after": reset_after})
    return h


def rnn_cell(
    x: Operand,
    state: Operand | None,
    w_ih: Operand,
    w_hh: Operand,
    b_ih: Operand | None = None,
    b_hh: Operand | None = None,
    *,
    nonlinearity: str = "tanh",
) -> Array:
    """One step of `rnn`. x: [B, I], state: [B, H] -> the new state. Raises as `rnn`."""
    (h,) = call_all(RNN_CELL, (x, state, w_ih, w_hh, b_ih, b_hh), {"nonlinearity": nonlinearity})
    return h


def _arrays(attrs: dict[str, Any], names: Sequence[str], weights: Sequence[Weight]) -> list[Operand]:
    """The arrays of the weights; `attrs` gets what is to be known of packed ones."""
    arrays: list[Operand] = []
    for name, weight in zip(names, weights, strict=False):
        if type(weight) is Packed:
            attrs |= {f"{name}_format": weight.format, f"{name}_shape": weight.shape}
            arrays.append(weight.data)
        else:
            arrays.append(weight)  # type: ignore[arg-type]
    return arrays


def _pair(state: Any) -> tuple[Operand | None, Operand | None]:
    """h and c of an LSTM's state."""
    if state is None:
        return None, None
    if not isinstance(state, tuple | list) or len(state) != 2:
        raise DTypeError(
            f"lstm: the state is a pair (h, c) of arrays [B, H], got {type(state).__name__}; write "
            "state=(h, c), or None for zeros."
        )
    return state[0], state[1]


def _by_step(
    op: Op, x: Operand, lengths: Lengths | None, resets: Resets | None, batch_first: bool
) -> tuple[Operand | None, Operand | None]:
    """`lengths` as an array of int64, each within x's time axis, and `resets` as one of bool, where x is."""
    if lengths is not None and not _elsewhere(lengths):
        lengths = _checked(op, x, np.asarray(lengths), batch_first)
    if resets is not None and not _elsewhere(resets):
        resets = np.asarray(resets)
        if resets.dtype != np.bool_:
            raise DTypeError(
                f"{op.name}: resets must be bool, true where a sequence starts afresh, got {resets.dtype}; "
                "write np.asarray(resets, 'bool')."
            )
    return _beside(x, lengths), _beside(x, resets)


def _elsewhere(value: Any) -> bool:
    """Whether it is an Array whose numbers NumPy cannot see now: traced, or on a GPU."""
    return (isinstance(value, Array) and type(value) is not Array) or bool(getattr(value, "is_cuda", False))


def _beside(x: Operand, value: Any) -> Operand | None:
    """`value` on the device of x."""
    device = str(getattr(x, "device", "cpu"))
    if value is None or _elsewhere(value) or not device.startswith("cuda"):
        return value  # type: ignore[no-any-return]
    return asarray(value, device=device)


def _checked(op: Op, x: Operand, array: Any, batch_first: bool) -> Operand:
    """Lengths as int64, each within x's time axis."""
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"{op.name}: lengths must be whole numbers, got {array.dtype}; write "
            "np.asarray(lengths, 'int64')."
        )
    shape = x.shape
    if len(shape) == 3 and array.size:
        t, low, high = shape[1 if batch_first else 0], int(array.min()), int(array.max())
        if low < 0 or high > t:
            raise ShapeError(
                f"{op.name}: lengths are {low} to {high}, but x ({list(shape)}) has {t} steps; each must be "
                f"in 0..{t}."
            )
    return array.astype(np.int64, copy=False)  # type: ignore[no-any-return]
