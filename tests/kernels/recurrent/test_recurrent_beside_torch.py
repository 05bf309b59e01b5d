"""Recurrent layers beside torch's: forward, packed sequences, gradients; and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recurrent_calls import CELLS, KINDS, NAMES, STATES, public, torch_layer

import kernelwright as kw
from kernelwright.engine.eager import call_all
from kernelwright.kernels.op import AnyArray, get_op
from kernelwright.kernels.recurrent import samples

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
TOLERANCE = {
    "float32": 2e-5,
    "float64": 1e-13,
}  # of numbers around 1, summed over a few dozen terms and steps
SIZES = ((7, 5, 12, 20), (4, 1, 3, 17), (3, 9, 33, 8))
CASES = [(kind, dtype, size) for kind in KINDS for dtype in TOLERANCE for size in SIZES]


def own_attrs(kind: str, place: int) -> dict[str, Any]:
    return {"nonlinearity": ("tanh", "relu")[place % 2]} if kind == "rnn" else {}


def close(ours: Any, theirs: Any, dtype: str) -> bool:
    a, b = np.asarray(ours, np.float64), theirs.detach().numpy().astype(np.float64)
    return a.shape == b.shape and bool((np.abs(a - b) <= TOLERANCE[dtype] * np.maximum(1, np.abs(b))).all())


def states_of(kind: str, made: dict[str, AnyArray]) -> Any:
    states = [torch.from_numpy(made[name])[None].requires_grad_() for name in ("h0", "c0")[: STATES[kind]]]
    return states, tuple(states) if STATES[kind] == 2 else states[0]


def run_torch(kind: str, layer: Any, x: Any, state: Any, lengths: AnyArray | None) -> tuple[Any, list[Any]]:
    """y and the last states; packed sequences where there are lengths."""
    if lengths is None:
        y, last = layer(x, state)
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
        y, last = layer(packed, state)
        y = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=x.shape[0])[0]
    return y, list(last) if STATES[kind] == 2 else [last]


@pytest.mark.parametrize(("kind", "dtype", "size"), CASES)
@pytest.mark.parametrize("with_lengths", [False, True])
def test_results_and_gradients_are_torchs(
    kind: str, dtype: str, size: tuple[int, ...], with_lengths: bool
) -> None:
    rng = np.random.default_rng(sum(size))
    t, b, _, _ = size
    made, attrs = samples.contents(kind, rng, *size, dtype), own_attrs(kind, t)
    lengths = rng.integers(1, t + 1, b).astype(np.int64) if with_lengths else None
    layer, x = torch_layer(kind, made, attrs, dtype), torch.from_numpy(made["x"]).requires_grad_()
    states, state = states_of(kind, made)
    y, last = run_torch(kind, layer, x, state, lengths)
    train = {} if kind == "rnn" else {"train": True}
    ours = call_all(get_op(kind), [*made.values(), lengths, None], {**attrs, **train})
    count = STATES[kind]
    assert close(ours[0], y, dtype)
    assert all(close(a, z[0], dtype) for a, z in zip(ours[1 : 1 + count], last, strict=True))

    grads = [rng.standard_normal(out.shape).astype(dtype) for out in ours[: 1 + count]]
    total = (y * torch.from_numpy(grads[0])).sum()
    total = total + sum((z[0] * torch.from_numpy(g)).sum() for z, g in zip(last, grads[1:], strict=True))
    total.backward()
    names = [*STATE_NAMES[:count], *(n for n in NAMES if n in made)]
    inputs = [made[n] for n in ("x", *names[:-2])] + [ours[0]]
    found = call_all(get_op(f"{kind}_grad"), [*inputs, *ours[1 + count :], *grads, lengths, None], attrs)
    theirs = [x.grad, *(s.grad[0] for s in states)]
    theirs += [getattr(layer, f"{NAMES[name]}_l0").grad for name in names[count:]]
    for name, a, z in zip(("x", *names), found, theirs, strict=True):
        assert close(a, z, dtype), name


STATE_NAMES = ("h0", "c0")


@pytest.mark.parametrize("kind", KINDS)
def test_the_reverse_direction_is_torchs(kind: str) -> None:
    rng = np.random.default_rng(5)
    made, attrs = samples.contents(kind, rng, 6, 4, 7, 18, "float32"), own_attrs(kind, 0)
    layer = torch_layer(kind, made, attrs, "float32", back=True)
    lengths = np.array([6, 2, 1, 4], np.int64)
    x = torch.from_numpy(made["x"])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False)
    y = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0])[0][..., made["h0"].shape[1] :]
    assert close(public(kind, made, None, lengths, reverse=True, **attrs)[0], y, "float32")


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_torchs(kind: str) -> None:
    rng = np.random.default_rng(6)
    for b, i, h in ((1, 30, 40), (3, 5, 17), (40, 33, 64)):
        made, attrs = samples.contents(kind, rng, 1, b, i, h, "float32"), own_attrs(kind, b)
        cell = getattr(torch.nn, f"{kind.upper()}Cell")(i, h, **attrs)
        for ours, theirs in (
            ("w_ih", "weight_ih"),
            ("w_hh", "weight_hh"),
            ("b_ih", "bias_ih"),
            ("b_hh", "bias_hh"),
        ):
            getattr(cell, theirs).data.copy_(torch.from_numpy(made[ours]))
        states = [torch.from_numpy(made[name]) for name in STATE_NAMES[: STATES[kind]]]
        theirs_out = cell(torch.from_numpy(made["x"][0]), tuple(states) if kind == "lstm" else states[0])
        state = (made["h0"], made["c0"]) if kind == "lstm" else made["h0"]
        weights = [made[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")]
        # The second call finds what the first one has chosen.
        for _ in range(2):
            found = getattr(kw, f"{kind}_cell")(made["x"][0], state, *weights, **attrs)
            pairs = zip(found, theirs_out, strict=True) if kind == "lstm" else [(found, theirs_out)]
            assert all(close(a, z, "float32") for a, z in pairs)


@pytest.mark.parametrize(("kind", "reset_after"), [*((kind, True) for kind in KINDS), ("gru", False)])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_match_finite_differences(kind: str, reverse: bool, reset_after: bool) -> None:
    rng = np.random.default_rng(7)
    made = samples.contents(kind, rng, 4, 3, 3, 5, "float64")
    attrs = {
        **own_attrs(kind, 0),
        "reverse": reverse,
        **({"reset_after": reset_after} if kind == "gru" else {}),
    }
    lengths, count = np.array([4, 0, 2], np.int64), STATES[kind]
    train = {} if kind == "rnn" else {"train": True}

    def forward(values: dict[str, AnyArray]) -> list[AnyArray]:
        return [
            np.asarray(out)
            for out in call_all(get_op(kind), [*values.values(), lengths, None], {**attrs, **train})
        ]

    outputs = forward(made)
    grads = [rng.standard_normal(out.shape) for out in outputs[: 1 + count]]
    names = ["x", *STATE_NAMES[:count], *(n for n in ("w_ih", "w_hh", "w_hr") if n in made)]
    inputs = [*(made[n] for n in names), outputs[0], *outputs[1 + count :], *grads, lengths, None]
    found = call_all(get_op(f"{kind}_grad"), inputs, attrs)
    step = 1e-6
    for name, gradient in zip([*names, "b_ih", "b_hh"], found, strict=True):
        for _ in range(6):
            at = tuple(int(rng.integers(n)) for n in made[name].shape)
            values = []
            for sign in (step, -step):
                moved = {**made, name: made[name].copy()}
                moved[name][at] += sign
                values.append(sum((o * g).sum() for o, g in zip(forward(moved), grads, strict=False)))
            expected = (values[0] - values[1]) / (2 * step)
            assert abs(float(np.asarray(gradient)[at]) - expected) <= 1e-7 * max(1, abs(expected)), (name, at)
