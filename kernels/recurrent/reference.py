"""LSTM, GRU and RNN by their definitions, in NumPy: forward and backward, in the precision of the inputs.

    LSTM   i, f, o = sigmoid(...), g = tanh(...) of w_ih x + b_ih + w_hh h + b_hh
           c' = f c + i g,  h' = o tanh(c')              (Hochreiter, Schmidhuber 1997; Gers et al. 2000)
    LSTMP  h' = w_hr (o tanh(c')), all else as LSTM      (Sak, Senior, Beaufays 2014; PyTorch's proj_size)
    GRU    r, z = sigmoid(...),  n = tanh(w_in x + b_in + r (w_hn h + b_hn))     (reset_after: PyTorch, cuDNN)
                             or  n = tanh(w_in x + b_in + w_hn (r h) + b_hn)     (Cho et al. 2014; ONNX)
           h' = (1 - z) n + z h
    RNN    h' = tanh or relu of w_ih x + b_ih + w_hh h + b_hh                    (Elman 1990)

Everything is written in *steps*: in step s, a sequence of length n reads time s, or n - 1 - s when it runs in
reverse, and stands still once s reaches n. Where `resets` [T, B] is true, the states of a sequence are zeros
before the step that reads this time. Products with w_hh, whole or by heads, are in `heads.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import AnyArray
from .heads import from_state, gate_rows, reset, summed, to_state, units_of

Outputs = tuple[AnyArray, ...]


def sigmoid(x: AnyArray) -> AnyArray:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    result: AnyArray = np.where(x >= 0, 1, small) / (1 + small)
    return result


def swapped(x: AnyArray | None, batch_first: bool) -> AnyArray | None:
    """`x` time-major, whatever way round it is; None stays None."""
    return x if x is None or not batch_first else x.swapaxes(0, 1)


class Steps:
    """Which time each sequence of a batch reads in each step."""

    def __init__(self, t: int, b: int, lengths: AnyArray | None, reverse: bool):
        self.t = t
        self.lengths = np.full(b, t) if lengths is None else np.asarray(lengths, np.int64)
        self.reverse = reverse

    def at(self, s: int) -> tuple[AnyArray, AnyArray]:
        """The sequences that take step s, and the times that they read."""
        rows = np.flatnonzero(self.lengths > s)
        return rows, (self.lengths[rows] - 1 - s if self.reverse else np.full(len(rows), s))

    def forward(self) -> Iterator[tuple[AnyArray, AnyArray]]:
        """All steps, the first first."""
        return (self.at(s) for s in range(self.t))

    def backward(self) -> Iterator[tuple[AnyArray, AnyArray, AnyArray, AnyArray]]:
        """All steps, the last first; with the rows that have a step before this one, and its times."""
        for s in reversed(range(self.t)):
            rows, times = self.at(s)
            yield rows, times, np.full(len(rows), s == 0), times + (1 if self.reverse else -1)


def _start(state: AnyArray | None, b: int, h: int, dtype: Any) -> AnyArray:
    return np.zeros((b, h), dtype) if state is None else np.array(state, dtype)


def _one_minus_square(x: AnyArray) -> AnyArray:
    """1 - x^2. Its square rounded, an x within 1e-8 of 1 has lost half of all digits, even in long double."""
    result: AnyArray = (1 - x) * (1 + x)
    return result


def _plus(x: AnyArray, bias: AnyArray | None) -> AnyArray:
    return x if bias is None else x + bias


def lstm(
    x: AnyArray,
    h0: AnyArray | None,
    c0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    b_ih: AnyArray | None,
    b_hh: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    reverse: bool,
    batch_first: bool,
    train: bool,
) -> Outputs:
    """(y, h_n, c_n), and with `train` the gates [T, B, 4 H] after their functions and the cells [T, B, H]."""
    attrs = {"reverse": reverse, "batch_first": batch_first, "train": train}
    return lstmp(x, h0, c0, w_ih, w_hh, None, b_ih, b_hh, lengths, resets, **attrs)


def lstmp(
    x: AnyArray,
    h0: AnyArray | None,
    c0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    w_hr: AnyArray | None,
    b_ih: AnyArray | None,
    b_hh: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    reverse: bool,
    batch_first: bool,
    train: bool,
) -> Outputs:
    """As `lstm`, h projected by w_hr where there is one: y: [T, B, P], h_n: [B, P]."""
    x, resets = x.swapaxes(0, 1) if batch_first else x, swapped(resets, batch_first)
    (t, b, _), h_size, p = x.shape, len(w_ih) // 4, units_of(w_hh)
    h, c = _start(h0, b, p, x.dtype), _start(c0, b, h_size, x.dtype)
    y, cells = np.zeros((t, b, p), x.dtype), np.zeros((t, b, h_size), x.dtype)
    gates = np.zeros((t, b, 4 * h_size), x.dtype)
    for rows, times in Steps(t, b, lengths, reverse).forward():
        h_prev, c_prev = (reset(state[rows], resets, (times, rows)) for state in (h, c))
        pre = _plus(x[times, rows] @ w_ih.T, b_ih) + _plus(from_state(h_prev, w_hh), b_hh)
        i, f, g, o = np.split(pre, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c[rows] = f * c_prev + i * g
        z = o * np.tanh(c[rows])
        h[rows] = z if w_hr is None else z @ w_hr.T
        y[times, rows], cells[times, rows] = h[rows], c[rows]
        gates[times, rows] = np.concatenate([i, f, g, o], axis=1)
    outputs = (y, gates, cells)
    y, gates, cells = (out.swapaxes(0, 1) if batch_first else out for out in outputs)
    return (y, h, c, gates, cells) if train else (y, h, c)


def lstm_grad(
    x: AnyArray,
    h0: AnyArray | None,
    c0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    y: AnyArray,
    gates: AnyArray,
    cells: AnyArray,
    dy: AnyArray | None,
    dh_n: AnyArray | None,
    dc_n: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    reverse: bool,
    batch_first: bool,
) -> Outputs:
    """(dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh)."""
    more = (y, gates, cells, dy, dh_n, dc_n, lengths, resets)
    found = lstmp_grad(x, h0, c0, w_ih, w_hh, None, *more, reverse=reverse, batch_first=batch_first)
    return (*found[:5], *found[6:])


def lstmp_grad(
    x: AnyArray,
    h0: AnyArray | None,
    c0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    w_hr: AnyArray | None,
    y: AnyArray,
    gates: AnyArray,
    cells: AnyArray,
    dy: AnyArray | None,
    dh_n: AnyArray | None,
    dc_n: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    reverse: bool,
    batch_first: bool,
) -> Outputs:
    """(dx, dh0, dc0, dw_ih, dw_hh, dw_hr, db_ih, db_hh)."""
    x, y, gates, cells = (a.swapaxes(0, 1) if batch_first else a for a in (x, y, gates, cells))
    dy, resets = swapped(dy, batch_first), swapped(resets, batch_first)
    (t, b, _), h_size, p = x.shape, len(w_ih) // 4, units_of(w_hh)
    h0, c0 = _start(h0, b, p, x.dtype), _start(c0, b, h_size, x.dtype)
    dh, dc = _start(dh_n, b, p, x.dtype), _start(dc_n, b, h_size, x.dtype)
    dx, dw_ih, dw_hh = np.zeros_like(x), np.zeros(w_ih.shape, x.dtype), np.zeros(w_hh.shape, x.dtype)
    dw_hr, db = np.zeros((p, h_size), x.dtype), np.zeros(len(w_ih), x.dtype)
    for rows, times, first, before in Steps(t, b, lengths, reverse).backward():
        if not len(rows):
            continue
        at = times, rows
        h_prev = reset(h0[rows] if first[0] else y[before, rows], resets, at)
        c_prev = reset(c0[rows] if first[0] else cells[before, rows], resets, at)
        i, f, g, o = np.split(gates[times, rows], 4, axis=1)
        tanh_c = np.tanh(cells[times, rows])
        dh_now = dh[rows] if dy is None else dh[rows] + dy[times, rows]
        dz = dh_now if w_hr is None else dh_now @ w_hr
        dc_now = dc[rows] + dz * o * _one_minus_square(tanh_c)
        d = [dc_now * g * i * (1 - i), dc_now * c_prev * f * (1 - f), dc_now * i * _one_minus_square(g)]
        dgates = np.concatenate([*d, dz * tanh_c * o * (1 - o)], axis=1)
        dc[rows] = reset(dc_now * f, resets, at)
        dh[rows] = reset(to_state(dgates, w_hh), resets, at)
        dx[times, rows] = dgates @ w_ih
        dw_ih += dgates.T @ x[times, rows]
        dw_hh += summed(dgates, h_prev, w_hh)
        if w_hr is not None:
            dw_hr += dh_now.T @ (o * tanh_c)
        db += dgates.sum(axis=0)
    return dx.swapaxes(0, 1) if batch_first else dx, dh, dc, dw_ih, dw_hh, dw_hr, db, db.copy()


def gru(
    x: AnyArray,
    h0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    b_ih: AnyArray | None,
    b_hh: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    reverse: bool,
    batch_first: bool,
    reset_after: bool,
    train: bool,
) -> Outputs:
    """(y, h_n), and with `train` the gates [T, B, 4 H]: r, z, n and w_hn h + b_hn (w_hn (r h) + b_hn)."""
    x, resets = x.swapaxes(0, 1) if batch_first else x, swapped(resets, batch_first)
    (t, b, _), k = x.shape, units_of(w_hh)
    w_rz, w_n = gate_rows(w_hh, 0, 2, 3), gate_rows(w_hh, 2, 3, 3)
    h = _start(h0, b, k, x.dtype)
    y, gates = np.zeros((t, b, k), x.dtype), np.zeros((t, b, 4 * k), x.dtype)
    b_hrz, b_hn = (None, None) if b_hh is None else (b_hh[: 2 * k], b_hh[2 * k :])
    for rows, times in Steps(t, b, lengths, reverse).forward():
        from_x, h_prev = _plus(x[times, rows] @ w_ih.T, b_ih), reset(h[rows], resets, (times, rows))
        rz = sigmoid(from_x[:, : 2 * k] + _plus(from_state(h_prev, w_rz), b_hrz))
        r, z = rz[:, :k], rz[:, k:]
        inner = h_prev if reset_after else r * h_prev
        from_h = _plus(from_state(inner, w_n), b_hn)
        n = np.tanh(from_x[:, 2 * k :] + (r * from_h if reset_after else from_h))
        h[rows] = (1 - z) * n + z * h_prev
        y[times, rows] = h[rows]
        gates[times, rows] = np.concatenate([r, z, n, from_h], axis=1)
    y, gates = (out.swapaxes(0, 1) if batch_first else out for out in (y, gates))
    return (y, h, gates) if train else (y, h)


def gru_grad(
    x: AnyArray,
    h0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    y: AnyArray,
    gates: AnyArray,
    dy: AnyArray | None,
    dh_n: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    reverse: bool,
    batch_first: bool,
    reset_after: bool,
) -> Outputs:
    """(dx, dh0, dw_ih, dw_hh, db_ih, db_hh)."""
    x, y, gates = (a.swapaxes(0, 1) if batch_first else a for a in (x, y, gates))
    dy, resets = swapped(dy, batch_first), swapped(resets, batch_first)
    (t, b, _), k = x.shape, units_of(w_hh)
    w_rz, w_n = gate_rows(w_hh, 0, 2, 3), gate_rows(w_hh, 2, 3, 3)
    h0, dh = _start(h0, b, k, x.dtype), _start(dh_n, b, k, x.dtype)
    dx, dw_ih, dw_hh = np.zeros_like(x), np.zeros(w_ih.shape, x.dtype), np.zeros(w_hh.shape, x.dtype)
    db_ih, db_hh = np.zeros(len(w_ih), x.dtype), np.zeros(len(w_ih), x.dtype)
    for rows, times, first, before in Steps(t, b, lengths, reverse).backward():
        if not len(rows):
            continue
        at = times, rows
        h_prev = reset(h0[rows] if first[0] else y[before, rows], resets, at)
        r, z, n, from_h = np.split(gates[times, rows], 4, axis=1)
        dh_now = dh[rows] if dy is None else dh[rows] + dy[times, rows]
        dz = dh_now * (h_prev - n) * z * (1 - z)
        dn = dh_now * (1 - z) * _one_minus_square(n)
        if reset_after:
            dr, dn_h, inner = dn * from_h * r * (1 - r), dn * r, h_prev
            carried = dh_now * z + to_state(dn_h, w_n)
        else:
            d_inner, dn_h, inner = to_state(dn, w_n), dn, r * h_prev
            dr = d_inner * h_prev * r * (1 - r)
            carried = dh_now * z + d_inner * r
        drz = np.concatenate([dr, dz], axis=1)
        dgates = np.concatenate([drz, dn], axis=1)
        dh[rows] = reset(carried + to_state(drz, w_rz), resets, at)
        dx[times, rows] = dgates @ w_ih
        dw_ih += dgates.T @ x[times, rows]
        gate_rows(dw_hh, 0, 2, 3)[...] += summed(drz, h_prev, w_rz)
        gate_rows(dw_hh, 2, 3, 3)[...] += summed(dn_h, inner, w_n)
        db_ih += dgates.sum(axis=0)
        db_hh += np.concatenate([drz, dn_h], axis=1).sum(axis=0)
    return dx.swapaxes(0, 1) if batch_first else dx, dh, dw_ih, dw_hh, db_ih, db_hh


def rnn(
    x: AnyArray,
    h0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    b_ih: AnyArray | None,
    b_hh: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    nonlinearity: str,
    reverse: bool,
    batch_first: bool,
) -> Outputs:
    """(y, h_n)."""
    x, resets = x.swapaxes(0, 1) if batch_first else x, swapped(resets, batch_first)
    (t, b, _), h_size = x.shape, units_of(w_hh)
    h, y = _start(h0, b, h_size, x.dtype), np.zeros((t, b, h_size), x.dtype)
    for rows, times in Steps(t, b, lengths, reverse).forward():
        h_prev = reset(h[rows], resets, (times, rows))
        pre = _plus(x[times, rows] @ w_ih.T, b_ih) + _plus(from_state(h_prev, w_hh), b_hh)
        h[rows] = np.tanh(pre) if nonlinearity == "tanh" else np.maximum(pre, 0)
        y[times, rows] = h[rows]
    return y.swapaxes(0, 1) if batch_first else y, h


def rnn_grad(
    x: AnyArray,
    h0: AnyArray | None,
    w_ih: AnyArray,
    w_hh: AnyArray,
    y: AnyArray,
    dy: AnyArray | None,
    dh_n: AnyArray | None,
    lengths: AnyArray | None,
    resets: AnyArray | None = None,
    *,
    nonlinearity: str,
    reverse: bool,
    batch_first: bool,
) -> Outputs:
    """(dx, dh0, dw_ih, dw_hh, db_ih, db_hh)."""
    x, y = (a.swapaxes(0, 1) if batch_first else a for a in (x, y))
    dy, resets = swapped(dy, batch_first), swapped(resets, batch_first)
    (t, b, _), h_size = x.shape, units_of(w_hh)
    h0, dh = _start(h0, b, h_size, x.dtype), _start(dh_n, b, h_size, x.dtype)
    dx, dw_ih, dw_hh = np.zeros_like(x), np.zeros(w_ih.shape, x.dtype), np.zeros(w_hh.shape, x.dtype)
    db = np.zeros(len(w_ih), x.dtype)
    for rows, times, first, before in Steps(t, b, lengths, reverse).backward():
        if not len(rows):
            continue
        at = times, rows
        h_prev, h_now = reset(h0[rows] if first[0] else y[before, rows], resets, at), y[at]
        dh_now = dh[rows] if dy is None else dh[rows] + dy[times, rows]
        d = dh_now * (_one_minus_square(h_now) if nonlinearity == "tanh" else (h_now > 0))
        dh[rows], dx[at] = reset(to_state(d, w_hh), resets, at), d @ w_ih
        dw_ih += d.T @ x[at]
        dw_hh += summed(d, h_prev, w_hh)
        db += d.sum(axis=0)
    return dx.swapaxes(0, 1) if batch_first else dx, dh, dw_ih, dw_hh, db, db.copy()
