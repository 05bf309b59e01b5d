"""The recurrent ops: `lstm`, `gru`, `rnn` over whole sequences, their gradients, and the single steps.

    x: [T, B, I] ([B, T, I] with batch_first)        h0, c0: [B, H], zeros when left out
    w_ih: [G H, I]   w_hh: [G H, H]   b_ih, b_hh: [G H]         G = 4 gates i, f, g, o; 3 gates r, z, n; 1
    lengths: [B] of int64, each 0 .. T, in any order     y: [T, B, H]      h_n, c_n: [B, H]
    resets: [T, B] of bool ([B, T] with batch_first)

Gate order, biases and shapes are PyTorch's. Beyond its length a sequence is not computed: y is 0 there, and
h_n and c_n are the states after its last step; in reverse, it starts at its own last step. Before a step at
which `resets` is true for a sequence, its states are set to zeros, and no gradient passes. With `train`, the
forward op has what the gradient needs as further outputs. `w_ih` and `w_hh` may be bfloat16 where all else is
float32. The definitions are in `reference.py`.

w_hh: [heads, G D, D] is block-diagonal: H = heads D units, of which each head of D sees itself alone
(`heads.py`).

In bfloat16 and float16 sums, activations and states are float32 inside a call. What enters a product with
weights of 16 bits (h, and the gradients of gates) is rounded to the dtype once a step, as are y, what `train`
keeps, and all results; c is not rounded between steps.

Weights packed ahead (`prepack.py`) are 1-D; `w_ih_format` and `w_ih_shape` say what they are, likewise for
w_hh and w_hr. Forward calls over sequences take them, the gradients and the cells do not.

`lstmp` is LSTM with projections (`kw.lstm` with `w_hr`): h and y are P wide instead of H, c stays H wide, and
w_hh: [4 H, P], w_hr: [P, H].

Rounding errors do not add up like those of one sum here: each step damps what it inherits by its activation's
slope and the norm of w_hh, and adds those of sums of I + H terms (w_ih x + w_hh h) and of a few elementwise
roundings. So the reduction length is I + H + 16, beside magnitudes that are sums of absolute terms
(`magnitude.py`). The gradients are sums over gates, and over steps as well for the weights: G H + T B more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Specs, register_op
from ..spec import ABSENT, TensorSpec
from . import magnitude, reference, samples
from .prepack import WEIGHTS, on_weights, unpacked_specs

GATES = {"lstm": 4, "lstmp": 4, "gru": 3, "rnn": 1}
SAVED = {"lstm": ("gates", "cells"), "lstmp": ("gates", "cells"), "gru": ("gates",), "rnn": ()}
STATES = {"lstm": ("h0", "c0"), "lstmp": ("h0", "c0"), "gru": ("h0",), "rnn": ("h0",)}
NONLINEARITIES = ("tanh", "relu")
DTYPES = ("float32", "float64", "bfloat16", "float16")
_ELEMENTWISE = 16  # roundings of a step beside those of its sums: activations, products, the state's update


def named(op: Op, specs: Specs) -> dict[str, TensorSpec]:
    """The specs of the inputs by their names."""
    return dict(zip(op.inputs, specs, strict=False))


def _expect(op: Op, name: str, spec: TensorSpec, shape: tuple[int, ...], means: str) -> None:
    if spec.present and spec.shape != shape:
        raise ShapeError(f"{op.name}: {name} is {spec}, but must be {list(shape)} here ({means}).")


def _check_weights(op: Op, given: Mapping[str, TensorSpec], dtype: str) -> None:
    names = [name for name in WEIGHTS if name in given]
    both = "both" if len(names) == 2 else "all"
    for name in names:
        allowed = (dtype, "bfloat16") if dtype == "float32" else (dtype,)
        if given[name].dtype not in allowed or given[name].dtype != given["w_ih"].dtype:
            *most, last = (f"{n} {given[n].dtype}" for n in names)
            raise DTypeError(
                f"{op.name}: x is {dtype}, {', '.join(most)} and {last}; {both} weights must be "
                f"{f' or {both} '.join(allowed)}; nothing is converted silently. Convert them yourself: "
                f"kw.array({name}, dtype={dtype!r})."
            )
    lengths = given.get("lengths", ABSENT)
    if lengths.present and lengths.dtype != "int64":
        raise DTypeError(
            f"{op.name}: lengths is {lengths.dtype}, but must be int64; write "
            "np.asarray(lengths, dtype='int64')."
        )
    resets = given.get("resets", ABSENT)
    if resets.present and resets.dtype != "bool":
        raise DTypeError(
            f"{op.name}: resets is {resets.dtype}, but must be bool, true where a sequence starts afresh; "
            "write np.asarray(resets, dtype='bool')."
        )


def _check_flags(op: Op, attrs: Mapping[str, Any]) -> None:
    for name, value in attrs.items():
        if name.startswith("w_"):
            continue  # of packed weights, which `unpacked_specs` looks at
        if name == "nonlinearity":
            if value not in NONLINEARITIES:
                raise DTypeError(f"{op.name}: nonlinearity is {value!r}; write 'tanh' or 'relu'.")
        elif not isinstance(value, bool):
            raise DTypeError(f"{op.name}: {name} is {value!r}; write True or False.")


def _hidden(op: Op, given: Mapping[str, TensorSpec], gates: int) -> tuple[int, int]:
    """H, and the width of h: P where it is projected, else H."""
    w_hh = given["w_hh"]
    if "w_hr" in given:
        w_hr = given["w_hr"]
        if w_hr.ndim != 2:
            raise ShapeError(
                f"{op.name}: w_hr is {w_hr}, but must be [P, H], which makes h of o tanh(c); leave it out "
                "for an LSTM without projections."
            )
        p, h = w_hr.shape
        if w_hh.ndim == 3:
            raise ShapeError(
                f"{op.name}: w_hh is {w_hh}, of {w_hh.shape[0]} heads, and w_hr joins the units of all; "
                f"leave w_hr out, or write w_hh as [{gates} H, P]."
            )
        means = f"[{gates} H, P]; P = {p}, H = {h} from w_hr"
        _expect(op, "w_hh", w_hh, (gates * h, p), means)
        return h, p
    if w_hh.ndim == 3:
        heads, rows, d = w_hh.shape
        if rows != gates * d:
            raise ShapeError(
                f"{op.name}: w_hh is {w_hh}, but one of heads must be [heads, {gates} D, D]"
                + (", the gates of a head one above the other." if gates > 1 else ".")
            )
        return heads * d, heads * d
    if w_hh.ndim != 2 or w_hh.shape[0] != gates * w_hh.shape[1]:
        raise ShapeError(
            f"{op.name}: w_hh is {w_hh}, but must be [{gates} H, H]"
            + (", the gates one above the other" if gates > 1 else "")
            + f", or [heads, {gates} D, D] with H = heads D."
        )
    return w_hh.shape[1], w_hh.shape[1]


def sizes(op: Op, specs: Specs, attrs: Mapping[str, Any]) -> tuple[int, int, int, int, int]:
    """T, B, I, H and P of a call, its weights and states checked; T is 1 for a cell, P is the width of h.

    Raises:
        ShapeError, DTypeError: when the inputs do not fit.
    """
    dtype = op.check_inputs(specs)
    _check_flags(op, attrs)
    given = unpacked_specs(op.name, named(op, specs), attrs)
    _check_weights(op, given, dtype)
    x, w_ih = given["x"], given["w_ih"]
    cell = op.name.endswith("_cell")
    axes = "[B, I]" if cell else "[B, T, I]" if attrs["batch_first"] else "[T, B, I]"
    if x.ndim != (2 if cell else 3):
        raise ShapeError(f"{op.name}: x is {x}, but must be {axes}.")
    b, i = x.shape[-2:]
    t = 1
    if not cell:
        b, t = x.shape[:2] if attrs["batch_first"] else (x.shape[1], x.shape[0])
    g = GATES[op.name.partition("_")[0]]
    h, p = _hidden(op, given, g)
    projects = "w_hr" in given
    means = f"B = {b}, I = {i} from x {axes}, " + (
        f"P = {p}, H = {h} from w_hr" if projects else f"H = {h} from w_hh"
    )
    _expect(op, "w_ih", w_ih, (g * h, i), f"[{g} H, I]; {means}")
    for name in ("h", "h0", "dh_n"):
        shape = "[B, P]" if projects else "[B, H]"
        _expect(op, name, given.get(name, ABSENT), (b, p), f"{shape}; {means}")
    for name in ("c", "c0", "dc_n"):
        _expect(op, name, given.get(name, ABSENT), (b, h), f"[B, H]; {means}")
    for name in ("b_ih", "b_hh"):
        _expect(op, name, given.get(name, ABSENT), (g * h,), f"[{g} H]; {means}")
    _expect(op, "lengths", given.get("lengths", ABSENT), (b,), f"[B]; {means}")
    if "resets" in given:
        wanted, axes = ((b, t), "[B, T]") if attrs["batch_first"] else ((t, b), "[T, B]")
        _expect(op, "resets", given["resets"], wanted, f"{axes}; T = {t}, B = {b} from x")
    return t, b, i, h, p


def head_count(op: Op, specs: Specs) -> int:
    """Into how many recurrences of their own the hidden units fall: 1 unless w_hh has three axes."""
    w_hh = named(op, specs)["w_hh"]
    return max(w_hh.shape[0], 1) if w_hh.ndim == 3 else 1


def _sequence(t: int, b: int, n: int, attrs: Mapping[str, Any]) -> tuple[int, int, int]:
    return (b, t, n) if attrs["batch_first"] else (t, b, n)


def _infer(kind: str, specs: Specs, **attrs: Any) -> Specs:
    """The specs of y and the last states, and with `train` of what the gradient needs."""
    op = _OPS[kind]
    t, b, _, h, p = sizes(op, specs, attrs)
    dtype, device = specs[0].dtype, specs[0].device
    shapes = [_sequence(t, b, p, attrs), (b, p), *[(b, h)] * (len(STATES[kind]) - 1)]
    if attrs.get("train"):
        widths = {"gates": 4 * h, "cells": h}
        shapes += [_sequence(t, b, widths[name], attrs) for name in SAVED[kind]]
    return tuple(TensorSpec(shape, dtype, device) for shape in shapes)


def _infer_grad(kind: str, specs: Specs, **attrs: Any) -> Specs:
    """The specs of dx, the gradients of the first states, of the weights, db_ih and db_hh."""
    op = _OPS[f"{kind}_grad"]
    t, b, _, h, p = sizes(op, specs, attrs)
    given, dtype = named(op, specs), specs[0].dtype
    for name, width in (("y", p), ("dy", p), ("gates", 4 * h), ("cells", h)):
        shape = _sequence(t, b, width, attrs)
        _expect(op, name, given.get(name, ABSENT), shape, f"as the forward op returned it, T = {t}")
    weights = [given[name].shape for name in WEIGHTS if name in given]
    states = [(b, p), *[(b, h)] * (len(STATES[kind]) - 1)]
    shapes = [given["x"].shape, *states, *weights, weights[0][:1], weights[0][:1]]
    return tuple(TensorSpec(shape, dtype, specs[0].device) for shape in shapes)


def _infer_cell(kind: str, specs: Specs, **attrs: Any) -> Specs:
    """The specs of the new states."""
    _, b, _, h, _ = sizes(_OPS[f"{kind}_cell"], specs, attrs)
    return (TensorSpec((b, h), specs[0].dtype, specs[0].device),) * len(STATES[kind])


def _cost(name: str, specs: Specs, **attrs: Any) -> Cost:
    """Multiply-adds of the products with the weights; elementwise work is not counted. Full lengths."""
    op = _OPS[name]
    t, b, i, h, p = sizes(op, specs, attrs)
    kind, _, what = name.partition("_")
    projection = p * h if kind == "lstmp" else 0
    seen = p // head_count(op, specs)
    work = 2 * t * b * (GATES[kind] * h * (i + seen) + projection) * (2 if what == "grad" else 1)
    inputs = specs[: len(op.inputs)]
    moved = sum(spec.nbytes for spec in (*inputs, *op.infer(inputs, **attrs)) if spec.present)
    return Cost(flops=work, bytes=moved)


def _reduction_length(name: str, specs: Specs, **attrs: Any) -> int:
    op = _OPS[name]
    t, b, i, h, p = sizes(op, specs, attrs)
    kind, _, what = name.partition("_")
    more = GATES[kind] * h + t * b if what == "grad" else 0
    projection = h if kind == "lstmp" else 0
    return i + p + projection + more + _ELEMENTWISE


def _precisely(compute: Callable[..., tuple[AnyArray, ...]], *arrays: AnyArray | None, **attrs: Any) -> Any:
    """`compute` in long double: 64 bits of mantissa or more on x86, ARM and POWER, 53 where C has no more."""
    wide = [a if a is None or a.dtype.kind in "iub" else a.astype(np.longdouble) for a in arrays]
    return tuple(out.astype(np.float64) for out in compute(*wide, **attrs))


def _one_step(compute: Any, kind: str, *arrays: AnyArray | None, **attrs: Any) -> tuple[AnyArray, ...]:
    """One step of the sequence's definition, or its magnitudes."""
    x, *rest = arrays
    assert x is not None
    if kind != "rnn":
        attrs["train"] = False
    whole = {"reverse": False, "batch_first": False, **attrs}
    states: tuple[AnyArray, ...] = compute(x[None], *rest, *(None for _ in STEPWISE), **whole)
    return states[1:]


def _op(
    name: str, infer: Any, inputs: tuple[str, ...], optional: tuple[str, ...], doc: str, **rest: Any
) -> Op:
    kind, _, what = name.partition("_")
    compute, size = (getattr(where, kind if what == "cell" else name) for where in (reference, magnitude))
    if what == "cell":
        compute, size = partial(_one_step, compute, kind), partial(_one_step, size, kind)
    elif not what:
        compute, size = on_weights(name, inputs, compute), on_weights(name, inputs, size)
    made = Op(
        name=name,
        infer=infer,
        reference=compute,
        cost=partial(_cost, name),
        samples=partial(samples.SAMPLES[what], name),
        reduction_length=partial(_reduction_length, name),
        inputs=inputs,
        optional=optional,
        dtypes=DTYPES,
        own_dtype=tuple(n for n in (*WEIGHTS, *STEPWISE) if n in inputs),
        magnitude=size,
        exact=partial(_precisely, compute),
        draw=partial(samples.draw, name, inputs),
        family="recurrent",
        doc=doc,
        **rest,
    )
    return register_op(made)


STEPWISE = ("lengths", "resets")  # the last inputs of every op over sequences
_DIRECTION = {"reverse": False, "batch_first": False}
_OWN: dict[str, dict[str, Any]] = {
    "lstm": {},
    "lstmp": {},
    "gru": {"reset_after": True},
    "rnn": {"nonlinearity": "tanh"},
}
_UNPACKED: tuple[tuple[str, Any], ...] = (("format", ""), ("shape", ()))
_OPS: dict[str, Op] = {}
for _kind, _title in (
    ("lstm", "LSTM"),
    ("lstmp", "LSTM with projections"),
    ("gru", "GRU"),
    ("rnn", "plain recurrent layer"),
):
    _first, _weights = STATES[_kind], WEIGHTS[: 3 if _kind == "lstmp" else 2]
    _y, _last = ("[T, B, P]", "h: [B, P], c: [B, H]") if _kind == "lstmp" else ("[T, B, H]", "[B, H]")
    _OPS[_kind] = _op(
        _kind,
        partial(_infer, _kind),
        ("x", *_first, *_weights, "b_ih", "b_hh", *STEPWISE),
        (*_first, "b_ih", "b_hh", *STEPWISE),
        f"{_title} over x: [T, B, I] -> y: {_y} and the last states {_last}.",
        attrs={
            **_DIRECTION,
            **_OWN[_kind],
            **({} if _kind == "rnn" else {"train": False}),
            **{f"{_name}_{_what}": _none for _name in _weights for _what, _none in _UNPACKED},
        },
    )
    _grads = ("dy", "dh_n", "dc_n")[: 1 + len(_first)]
    _OPS[f"{_kind}_grad"] = _op(
        f"{_kind}_grad",
        partial(_infer_grad, _kind),
        ("x", *_first, *_weights, "y", *SAVED[_kind], *_grads, *STEPWISE),
        (*_first, *_grads, *STEPWISE),
        f"Gradients of {_kind} for x, the first states, the weights and the biases.",
        attrs={**_DIRECTION, **_OWN[_kind]},
    )
    if _kind == "lstmp":  # its cell: a sequence of one step
        continue
    _OPS[f"{_kind}_cell"] = _op(
        f"{_kind}_cell",
        partial(_infer_cell, _kind),
        ("x", *(state[0] for state in _first), "w_ih", "w_hh", "b_ih", "b_hh"),
        (*(state[0] for state in _first), "b_ih", "b_hh"),
        f"One step of {_kind}: x: [B, I] and states [B, H] -> new states.",
        attrs=_OWN[_kind],
    )

LSTM, LSTM_GRAD, LSTM_CELL = (_OPS[name] for name in ("lstm", "lstm_grad", "lstm_cell"))
LSTMP, LSTMP_GRAD = _OPS["lstmp"], _OPS["lstmp_grad"]
GRU, GRU_GRAD, GRU_CELL = (_OPS[name] for name in ("gru", "gru_grad", "gru_cell"))
RNN, RNN_GRAD, RNN_CELL = (_OPS[name] for name in ("rnn", "rnn_grad", "rnn_cell"))
