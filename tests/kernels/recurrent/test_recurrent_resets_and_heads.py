"""Sequences that start afresh in the middle, heads of their own, and 16 bits: what they mean, by the public
functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recurrent_calls import CELLS, KINDS, public

import kernelwright as kw
from kernelwright.kernels.accuracy import Truth
from kernelwright.kernels.dispatch import fallbacks
from kernelwright.kernels.errors import DTypeError, ShapeError
from kernelwright.kernels.op import AnyArray, get_op
from kernelwright.kernels.recurrent import samples
from kernelwright.kernels.spec import TensorSpec, np_dtype

T, B, H = 7, 3, 10


def flat(last: Any) -> list[AnyArray]:
    """The last states of any kind."""
    return [np.asarray(state) for state in (last if isinstance(last, tuple) else (last,))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_reset_starts_the_sequence_anew(kind: str, reverse: bool) -> None:
    """One call is as good as one for each piece between resets; the one at a first step drops the state."""
    made = samples.contents(kind, np.random.default_rng(0), T, B, 4, H, "float64")
    state = (made["h0"], made["c0"]) if "c0" in made else made["h0"]
    resets = np.zeros((T, B), bool)
    resets[3] = True
    y, last = public(kind, made, state, resets=resets, reverse=reverse)
    # In reverse the step that reads time 3 is the first of the second piece.
    cut = 4 if reverse else 3
    early, late = {**made, "x": made["x"][:cut]}, {**made, "x": made["x"][cut:]}
    pieces = [public(kind, early, None if reverse else state, reverse=reverse)]
    pieces.append(public(kind, late, state if reverse else None, reverse=reverse))
    np.testing.assert_allclose(y, np.concatenate([np.asarray(p[0]) for p in pieces]), rtol=1e-12, atol=1e-14)
    for mine, theirs in zip(flat(last), flat(pieces[0 if reverse else 1][1]), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-14)
    turned = {**made, "x": np.ascontiguousarray(made["x"].swapaxes(0, 1))}
    again, _ = public(kind, turned, state, resets=resets.T, reverse=reverse, batch_first=True)
    np.testing.assert_array_equal(np.asarray(again).swapaxes(0, 1), y)


@pytest.mark.parametrize("kind", CELLS)
def test_each_head_is_a_layer_of_its_own(kind: str) -> None:
    heads, d, gates = 2, 5, samples._GATES[kind]
    made = samples.in_heads(kind, np.random.default_rng(1), (T, B, 4), heads, d, "float64")
    state = (made["h0"], made["c0"]) if "c0" in made else made["h0"]
    y, last = public(kind, made, state)
    for head in range(heads):
        mine = slice(head * d, (head + 1) * d)
        rows = np.concatenate([np.arange(g * heads * d, (g + 1) * heads * d)[mine] for g in range(gates)])
        one = {name: made[name][rows] for name in ("w_ih", "b_ih", "b_hh")}
        one |= {"x": made["x"], "w_hh": made["w_hh"][head]}
        own = tuple(part[:, mine] for part in state) if isinstance(state, tuple) else state[:, mine]
        its_y, its_last = public(kind, one, own)
        np.testing.assert_allclose(np.asarray(y)[..., mine], its_y, rtol=1e-12, atol=1e-14)
        for all_heads, theirs in zip(flat(last), flat(its_last), strict=True):
            np.testing.assert_allclose(all_heads[:, mine], theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_go_through_no_reset(kind: str) -> None:
    made = samples.contents(kind, np.random.default_rng(2), T, B, 4, H, "float64")
    resets = np.zeros((T, B), bool)
    resets[4] = True

    def loss(x: kw.Array, h0: kw.Array) -> kw.Array:
        state = (h0, kw.array(made["c0"])) if kind == "lstm" else h0
        return public(kind, {**made, "x": x}, state, resets=resets)[0][4:].sum()

    dx, dh0 = (np.asarray(g) for g in kw.grad(loss, argnums=(0, 1))(*map(kw.array, (made["x"], made["h0"]))))
    assert not dx[:4].any()
    assert not dh0.any()
    assert dx[4:].all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_16_bits_are_the_definition_rounded_and_shown_as_a_fallback(kind: str, dtype: str) -> None:
    made = samples.contents(kind, np.random.default_rng(3), T, B, 4, H, dtype)
    before = fallbacks().get(f"{kind}: kernel -> reference", 0)
    y, _ = public(kind, made, None)
    assert fallbacks()[f"{kind}: kernel -> reference"] == before + 1
    assert np.asarray(y).dtype == np_dtype(dtype)
    states = [None] * (2 if "c0" in made else 1)
    weights = [a for name, a in made.items() if name not in ("x", "h0", "c0")]
    inputs = [made["x"], *states, *weights, None, None]
    op = get_op(kind)
    exact = Truth.of(op, inputs).outputs[0]
    np.testing.assert_array_equal(np.asarray(y), exact.astype(np_dtype(dtype)))
    specs = tuple(map(TensorSpec.of, inputs))
    assert {spec.dtype for spec in op.infer(specs, **op.complete({}))} == {dtype}


def test_resets_and_heads_that_do_not_fit_are_refused_with_what_to_write() -> None:
    made = samples.contents("lstm", np.random.default_rng(4), T, B, 4, H, "float32")
    with pytest.raises(DTypeError, match=r"resets must be bool, .* got int64"):
        public("lstm", made, None, resets=np.zeros((T, B), int))
    with pytest.raises(ShapeError, match=r"resets is .* must be \[7, 3\] here \(\[T, B\]"):
        public("lstm", made, None, resets=np.zeros((B, T), bool))
    with pytest.raises(ShapeError, match=r"one of heads must be \[heads, 4 D, D\]"):
        public("lstm", {**made, "w_hh": made["w_hh"].reshape(2, 20, 10)}, None)
    projected = samples.contents("lstmp", np.random.default_rng(4), T, B, 4, H, "float32")
    with pytest.raises(ShapeError, match="w_hr joins the units of all"):
        public("lstmp", {**projected, "w_hh": projected["w_hh"][None]}, None)


def test_layers_take_resets() -> None:
    layer = kw.nn.GRU(3, 4, num_layers=2, bidirectional=True, key=0)
    x = kw.array(np.random.default_rng(5).standard_normal((6, 2, 3)).astype("f4"))
    resets = np.zeros((6, 2), bool)
    resets[0] = True
    # Forwards it drops the state before the first step; backwards it cuts the last step off.
    y, _ = layer(x, resets=resets)
    plain, _ = layer(x)
    assert not np.allclose(y, plain)
    again, _ = layer(x, resets=np.zeros((6, 2), bool))
    np.testing.assert_allclose(again, plain, rtol=1e-6, atol=1e-6)
