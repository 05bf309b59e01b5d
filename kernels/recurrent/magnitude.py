"""What rounding errors of recurrent results are measured against: sums of absolute values of terms.

Each element is the result of sums and of smooth functions of sums. The magnitude of a sum is the sum of the
absolute values of its terms; a function of slope d turns a magnitude m into |d| m, and adds its own value,
which is rounded. Where a state goes on to the next step elementwise (c by f c, h by z h), so does its
magnitude. Through w_hh the errors of all units come together, of all signs: the root of the sum of their
squares is added there. A sum of absolute values would grow without limit from step to step, while real errors
are damped; leaving them out would forget what a cancellation has magnified once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..op import AnyArray
from . import reference
from .heads import from_state, gate_rows, reset, summed, to_state, units_of
from .reference import Outputs, Steps


def _carried(m: AnyArray, w: AnyArray) -> AnyArray:
    """What independent errors of size m become in m @ w."""
    result: AnyArray = np.sqrt((m * m) @ (w * w))
    return result


def _carried_on(m: AnyArray, w: AnyArray) -> AnyArray:
    """What independent errors of size m of states become in w_hh h."""
    result: AnyArray = np.sqrt(from_state(m * m, w * w))
    return result


def _carried_back(m: AnyArray, w: AnyArray) -> AnyArray:
    """What independent errors of size m of gates become in w_hh^T d."""
    result: AnyArray = np.sqrt(to_state(m * m, w * w))
    return result


def _bias(*biases: AnyArray | None) -> Any:
    return sum(np.abs(bias) for bias in biases if bias is not None)


def _states(t: int, b: int, h: int, state: AnyArray | None) -> AnyArray:
    return np.zeros((b, h)) if state is None else np.abs(state)


def _out(y: AnyArray, batch_first: bool) -> AnyArray:
    return y.swapaxes(0, 1) if batch_first else y


def lstm(
    x: AnyArray,
    h0: Any,
    c0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    b_ih: Any,
    b_hh: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `lstm`."""
    return lstmp(x, h0, c0, w_ih, w_hh, None, b_ih, b_hh, lengths, resets, **attrs)


def lstmp(
    x: AnyArray,
    h0: Any,
    c0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    w_hr: AnyArray | None,
    b_ih: Any,
    b_hh: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `lstmp`; of `lstm` without w_hr."""
    train, first = attrs["train"], attrs["batch_first"]
    outputs = reference.lstmp(
        x, h0, c0, w_ih, w_hh, w_hr, b_ih, b_hh, lengths, resets, **{**attrs, "train": True}
    )
    y, gates, cells = (_out(outputs[place], first) for place in (0, 3, 4))
    x, resets = _out(x, first), reference.swapped(resets, first)
    (t, b, _), k, p = x.shape, len(w_ih) // 4, units_of(w_hh)
    h, c, hm, cm = _states(t, b, p, h0), _states(t, b, k, c0), _states(t, b, p, h0), _states(t, b, k, c0)
    ym, gm, sm = np.zeros_like(y), np.zeros_like(gates), np.zeros_like(cells)
    for rows, times in Steps(t, b, lengths, attrs["reverse"]).forward():
        for state in (h, c, hm, cm):
            state[rows] = reset(state[rows], resets, (times, rows))
        pre = np.abs(x[times, rows]) @ np.abs(w_ih).T + from_state(h[rows], np.abs(w_hh)) + _bias(b_ih, b_hh)
        pre += _carried_on(hm[rows], w_hh)
        act = np.abs(gates[times, rows])
        slope = act * (1 - act)
        slope[:, 2 * k : 3 * k] = 1 - act[:, 2 * k : 3 * k] ** 2
        m = slope * pre + act
        (i, f, g, o), (im, fm, gm_, om) = np.split(act, 4, axis=1), np.split(m, 4, axis=1)
        cm[rows] = f * cm[rows] + c[rows] * fm + i * gm_ + g * im
        c[rows] = np.abs(cells[times, rows])
        th = np.tanh(c[rows])
        zm = o * (1 - th * th) * cm[rows] + th * om + o * th
        hm[rows] = zm if w_hr is None else (o * th) @ np.abs(w_hr).T + _carried(zm, w_hr.T)
        h[rows] = np.abs(y[times, rows])
        ym[times, rows], gm[times, rows], sm[times, rows] = hm[rows], m, cm[rows]
    found = (_out(ym, first), hm, cm)
    return (*found, _out(gm, first), _out(sm, first)) if train else found


def gru(
    x: AnyArray,
    h0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    b_ih: Any,
    b_hh: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `gru`."""
    train, first = attrs["train"], attrs["batch_first"]
    outputs = reference.gru(x, h0, w_ih, w_hh, b_ih, b_hh, lengths, resets, **{**attrs, "train": True})
    y, gates = _out(outputs[0], first), _out(outputs[2], first)
    x, resets = _out(x, first), reference.swapped(resets, first)
    (t, b, _), k = x.shape, units_of(w_hh)
    h, hm = _states(t, b, k, h0), _states(t, b, k, h0)
    ym, gm = np.zeros_like(y), np.zeros_like(gates)
    for rows, times in Steps(t, b, lengths, attrs["reverse"]).forward():
        r, z, n, m = np.split(np.abs(gates[times, rows]), 4, axis=1)
        from_x = np.abs(x[times, rows]) @ np.abs(w_ih).T + _bias(b_ih)
        h[rows], hm[rows] = (reset(state[rows], resets, (times, rows)) for state in (h, hm))
        from_h = from_state(h[rows], np.abs(w_hh)) + _bias(b_hh) + _carried_on(hm[rows], w_hh)
        rm, zm = (
            s * (1 - s) * (from_x[:, j * k : (j + 1) * k] + from_h[:, j * k : (j + 1) * k]) + s
            for j, s in enumerate((r, z))
        )
        if attrs["reset_after"]:
            mm = from_h[:, 2 * k :]
            inner = r * mm + rm * m
        else:
            w_n, b_n = gate_rows(w_hh, 2, 3, 3), None if b_hh is None else b_hh[2 * k :]
            mm = inner = from_state(rm * h[rows], np.abs(w_n)) + _bias(b_n) + _carried_on(r * hm[rows], w_n)
        nm = (1 - n * n) * (from_x[:, 2 * k :] + inner) + n
        hm[rows] = (1 - z) * nm + z * hm[rows] + (n + h[rows]) * zm + n + h[rows]
        h[rows] = np.abs(y[times, rows])
        ym[times, rows], gm[times, rows] = hm[rows], np.concatenate([rm, zm, nm, mm], axis=1)
    return (_out(ym, first), hm, _out(gm, first)) if train else (_out(ym, first), hm)


def rnn(
    x: AnyArray,
    h0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    b_ih: Any,
    b_hh: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `rnn`."""
    first = attrs["batch_first"]
    y = _out(reference.rnn(x, h0, w_ih, w_hh, b_ih, b_hh, lengths, resets, **attrs)[0], first)
    x, resets = _out(x, first), reference.swapped(resets, first)
    (t, b, _), k = x.shape, units_of(w_hh)
    h, hm, ym = _states(t, b, k, h0), _states(t, b, k, h0), np.zeros_like(y)
    for rows, times in Steps(t, b, lengths, attrs["reverse"]).forward():
        h[rows], hm[rows] = (reset(state[rows], resets, (times, rows)) for state in (h, hm))
        pre = np.abs(x[times, rows]) @ np.abs(w_ih).T + from_state(h[rows], np.abs(w_hh)) + _bias(b_ih, b_hh)
        pre += _carried_on(hm[rows], w_hh)
        h[rows] = np.abs(y[times, rows])
        hm[rows] = ((1 - h[rows] ** 2) if attrs["nonlinearity"] == "tanh" else 1) * pre + h[rows]
        ym[times, rows] = hm[rows]
    return _out(ym, first), hm


class _Sums:
    """Magnitudes of the gradients that are sums over steps."""

    def __init__(self, x: AnyArray, w_ih: AnyArray, w_hh: AnyArray):
        self.x, self.w_ih, self.w_hh = x, np.abs(w_ih), w_hh
        self.dx, self.dw_ih, self.dw_hh = np.zeros_like(x), np.zeros(w_ih.shape), np.zeros(w_hh.shape)
        self.db_ih, self.db_hh = np.zeros(len(w_ih)), np.zeros(len(w_ih))

    def add(self, at: Any, as_x: AnyArray, as_h: AnyArray, h_prev: AnyArray) -> None:
        self.dx[at] = as_x @ self.w_ih
        self.dw_ih += as_x.T @ np.abs(self.x[at])
        self.dw_hh += summed(as_h, np.abs(h_prev), self.w_hh)
        self.db_ih += as_x.sum(axis=0)
        self.db_hh += as_h.sum(axis=0)

    def outputs(self, states: Outputs, batch_first: bool) -> Outputs:
        return _out(self.dx, batch_first), *states, self.dw_ih, self.dw_hh, self.db_ih, self.db_hh


def lstm_grad(
    x: AnyArray,
    h0: Any,
    c0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    y: AnyArray,
    gates: AnyArray,
    cells: AnyArray,
    dy: Any,
    dh_n: Any,
    dc_n: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `lstm_grad`."""
    more = (y, gates, cells, dy, dh_n, dc_n, lengths, resets)
    found = lstmp_grad(x, h0, c0, w_ih, w_hh, None, *more, **attrs)
    return (*found[:5], *found[6:])


def lstmp_grad(
    x: AnyArray,
    h0: Any,
    c0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    w_hr: AnyArray | None,
    y: AnyArray,
    gates: AnyArray,
    cells: AnyArray,
    dy: Any,
    dh_n: Any,
    dc_n: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `lstmp_grad`; of `lstm_grad`, and one more, without w_hr."""
    first = attrs["batch_first"]
    x, y, gates, cells = (_out(a, first) for a in (x, y, gates, cells))
    dy, resets = reference.swapped(dy, first), reference.swapped(resets, first)
    (t, b, _), k, p = x.shape, len(w_ih) // 4, units_of(w_hh)
    h0, dh = (np.zeros((b, p)) if s is None else np.array(s) for s in (h0, dh_n))
    c0, dc = (np.zeros((b, k)) if s is None else np.array(s) for s in (c0, dc_n))
    dhm, dcm, sums, dw_hr = np.abs(dh), np.abs(dc), _Sums(x, w_ih, w_hh), np.zeros((p, k))
    for rows, times, start, before in Steps(t, b, lengths, attrs["reverse"]).backward():
        if not len(rows):
            continue
        at = times, rows
        h_prev, c_prev = (h0[rows], c0[rows]) if start[0] else (y[before, rows], cells[before, rows])
        h_prev, c_prev = reset(h_prev, resets, at), reset(c_prev, resets, at)
        i, f, g, o = np.split(gates[times, rows], 4, axis=1)
        th, given = np.tanh(cells[times, rows]), 0 if dy is None else dy[times, rows]
        now, size = dh[rows] + given, dhm[rows] + np.abs(given)
        if w_hr is not None:
            dw_hr += size.T @ np.abs(o * th)
            now, size = now @ w_hr, np.abs(now) @ np.abs(w_hr) + _carried(size, w_hr)
        cell = dc[rows] + now * o * (1 - th * th)
        cell_size = dcm[rows] + size * np.abs(o) * (1 + th * th)
        slopes = [g * i * (1 - i), c_prev * f * (1 - f), i * (1 - g * g)]
        last = th * o * (1 - o)
        d = np.concatenate([*(cell * s for s in slopes), now * last], axis=1)
        m = np.concatenate([*(cell_size * np.abs(s) for s in slopes), size * np.abs(last)], axis=1)
        dc[rows], dcm[rows] = cell * f, cell_size * np.abs(f)
        dh[rows] = to_state(d, w_hh)
        dhm[rows] = to_state(np.abs(d), np.abs(w_hh)) + _carried_back(m, w_hh)
        for state in (dh, dc, dhm, dcm):
            state[rows] = reset(state[rows], resets, at)
        sums.add(at, m, m, h_prev)
    found = sums.outputs((dhm, dcm), first)
    return (*found[:5], dw_hr, *found[5:])


def gru_grad(
    x: AnyArray,
    h0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    y: AnyArray,
    gates: AnyArray,
    dy: Any,
    dh_n: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `gru_grad`."""
    first = attrs["batch_first"]
    x, y, gates = (_out(a, first) for a in (x, y, gates))
    dy, resets = reference.swapped(dy, first), reference.swapped(resets, first)
    (t, b, _), k = x.shape, units_of(w_hh)
    h0, dh = (np.zeros((b, k)) if s is None else np.array(s) for s in (h0, dh_n))
    dhm, sums = np.abs(dh), _Sums(x, w_ih, w_hh)
    w_rz, w_n = gate_rows(w_hh, 0, 2, 3), gate_rows(w_hh, 2, 3, 3)
    for rows, times, start, before in Steps(t, b, lengths, attrs["reverse"]).backward():
        if not len(rows):
            continue
        at = times, rows
        h_prev = reset(h0[rows] if start[0] else y[before, rows], resets, at)
        r, z, n, inner = np.split(gates[times, rows], 4, axis=1)
        given = 0 if dy is None else dy[times, rows]
        now, size = dh[rows] + given, dhm[rows] + np.abs(given)
        s_z, s_n, s_r = (h_prev - n) * z * (1 - z), (1 - z) * (1 - n * n), r * (1 - r)
        dz, dn, zm, nm = now * s_z, now * s_n, size * np.abs(s_z), size * np.abs(s_n)
        if attrs["reset_after"]:
            dr, rm = dn * inner * s_r, nm * np.abs(inner) * s_r
            dn_h, nm_h, seen = dn * r, nm * r, h_prev
            back = to_state(dn_h, w_n)
            back_size = to_state(np.abs(dn_h), np.abs(w_n)) + _carried_back(nm_h, w_n)
        else:
            into = to_state(dn, w_n)
            into_size = to_state(np.abs(dn), np.abs(w_n)) + _carried_back(nm, w_n)
            dr, rm = into * h_prev * s_r, into_size * np.abs(h_prev) * s_r
            dn_h, nm_h, seen = dn, nm, h_prev
            back, back_size = into * r, into_size * r
        drz = np.concatenate([dr, dz], axis=1)
        dh[rows] = now * z + back + to_state(drz, w_rz)
        dhm[rows] = size * z + back_size + to_state(np.abs(drz), np.abs(w_rz))
        dhm[rows] += _carried_back(np.concatenate([rm, zm], axis=1), w_rz)
        dh[rows], dhm[rows] = (reset(state[rows], resets, at) for state in (dh, dhm))
        sums.add(at, np.concatenate([rm, zm, nm], axis=1), np.concatenate([rm, zm, nm_h], axis=1), seen)
    return sums.outputs((dhm,), first)


def rnn_grad(
    x: AnyArray,
    h0: Any,
    w_ih: AnyArray,
    w_hh: AnyArray,
    y: AnyArray,
    dy: Any,
    dh_n: Any,
    lengths: Any,
    resets: Any,
    **attrs: Any,
) -> Outputs:
    """For the outputs of `rnn_grad`."""
    first = attrs["batch_first"]
    x, y = _out(x, first), _out(y, first)
    dy, resets = reference.swapped(dy, first), reference.swapped(resets, first)
    (t, b, _), k = x.shape, units_of(w_hh)
    h0, dh = (np.zeros((b, k)) if s is None else np.array(s) for s in (h0, dh_n))
    dhm, sums = np.abs(dh), _Sums(x, w_ih, w_hh)
    for rows, times, start, before in Steps(t, b, lengths, attrs["reverse"]).backward():
        if not len(rows):
            continue
        at = times, rows
        h_prev, h_now = reset(h0[rows] if start[0] else y[before, rows], resets, at), y[at]
        given = 0 if dy is None else dy[times, rows]
        slope = (1 - h_now * h_now) if attrs["nonlinearity"] == "tanh" else h_now > 0
        d, m = (dh[rows] + given) * slope, (dhm[rows] + np.abs(given)) * np.abs(slope)
        dh[rows] = reset(to_state(d, w_hh), resets, at)
        dhm[rows] = reset(to_state(np.abs(d), np.abs(w_hh)) + _carried_back(m, w_hh), resets, at)
        sums.add(at, m, m, h_prev)
    return sums.outputs((dhm,), first)
