"""Wrong recurrent results that the judge must catch, and what must hold whatever threads do."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from recurrent_calls import CELLS, KINDS, STATES, kernels_of, public

import kernelwright as kw
from kernelwright.engine.eager import call_all
from kernelwright.kernels.accuracy import Truth
from kernelwright.kernels.errors import DTypeError, ShapeError
from kernelwright.kernels.op import TensorSpec, get_op
from kernelwright.kernels.recurrent import reference, samples

LENGTHS = np.array([6, 3, 0, 5], np.int64)


def made_for(kind: str, h: int = 20) -> dict[str, Any]:
    return samples.contents(kind, np.random.default_rng(3), 6, 4, 30, h, "float32")


def wide(made: dict[str, Any]) -> list[Any]:
    return [a.astype(np.float64) for a in made.values()]


ATTRS = {
    "lstm": {"reverse": False, "batch_first": False, "train": False},
    "lstmp": {"reverse": False, "batch_first": False, "train": False},
    "gru": {"reverse": False, "batch_first": False, "train": False, "reset_after": True},
    "rnn": {"reverse": False, "batch_first": False, "nonlinearity": "tanh"},
}


def judge_forward(kind: str, outputs: Any, lengths: Any = None) -> bool:
    """Whether these results (float64, rounded here) pass for those of the sequence."""
    op, made = get_op(kind), made_for(kind)
    inputs = [*made.values(), lengths, None]
    specs = tuple(map(TensorSpec.of, inputs))
    truth = Truth.of(op, inputs, ATTRS[kind])
    rounded = [out.astype(np.float32) for out in outputs]
    return truth.judge(rounded, (*specs, *op.infer(specs, **ATTRS[kind]))).ok


@pytest.mark.parametrize("kind", KINDS)
def test_the_definition_itself_passes(kind: str) -> None:
    outputs = getattr(reference, kind)(*wide(made_for(kind)), None, **ATTRS[kind])
    assert judge_forward(kind, outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_was_skipped_is_caught(kind: str) -> None:
    made = wide(made_for(kind))
    outputs = getattr(reference, kind)(*made, None, **ATTRS[kind])
    shorter = getattr(reference, kind)(made[0][1:], *made[1:], None, **ATTRS[kind])
    y = np.concatenate([outputs[0][:1], shorter[0]])
    assert not judge_forward(kind, (y, *outputs[1:]))


@pytest.mark.parametrize(
    ("kind", "name"), [*((kind, name) for kind in KINDS for name in ("w_ih", "w_hh")), ("lstmp", "w_hr")]
)
def test_one_term_that_was_left_out_is_caught(kind: str, name: str) -> None:
    made = made_for(kind)
    row = np.abs(made[name][0])
    # Not the largest term of the row: one of middle size.
    made[name][0, np.argsort(row)[len(row) // 2]] = 0
    assert not judge_forward(kind, getattr(reference, kind)(*wide(made), None, **ATTRS[kind]))


@pytest.mark.parametrize("name", ["w_ih", "w_hh"])
def test_one_term_is_caught_where_gru_resets_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTRS, "gru", {**ATTRS["gru"], "reset_after": False})
    test_the_definition_itself_passes("gru")
    test_one_term_that_was_left_out_is_caught("gru", name)


@pytest.mark.parametrize("kind", ["lstm", "lstmp", "gru"])
def test_swapped_gates_are_caught(kind: str) -> None:
    made = made_for(kind)
    order = [1, 0, *range(2, 3 if kind == "gru" else 4)]
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        parts = np.split(made[name], len(order))
        made[name] = np.concatenate([parts[i] for i in order])
    assert not judge_forward(kind, getattr(reference, kind)(*wide(made), None, **ATTRS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_that_does_not_stop_at_its_length_is_caught(kind: str) -> None:
    made = wide(made_for(kind))
    right = getattr(reference, kind)(*made, LENGTHS, **ATTRS[kind])
    on = getattr(reference, kind)(*made, None, **ATTRS[kind])
    assert judge_forward(kind, right, LENGTHS)
    assert not judge_forward(kind, (on[0], *right[1:]), LENGTHS)
    assert not judge_forward(kind, (right[0], *on[1:]), LENGTHS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_without_one_step_is_caught(kind: str) -> None:
    op, rng = get_op(f"{kind}_grad"), np.random.default_rng(4)
    for sample in op.samples(rng, "float32"):
        if sample.name == "no lengths":
            break
    attrs = op.complete(sample.attrs)
    truth, specs = Truth.of(op, sample.inputs, attrs), tuple(map(TensorSpec.of, sample.inputs))
    full = (*specs, *op.infer(specs, **attrs))
    inputs = [a if a is None else a.astype(np.float64) for a in sample.inputs]
    right = [out.astype(np.float32) for out in op.reference(*inputs, **attrs)]
    assert truth.judge(right, full).ok
    place = op.inputs.index("dy")
    dropped = inputs[place] = inputs[place].copy()
    dropped[2] = 0
    wrong = [out.astype(np.float32) for out in op.reference(*inputs, **attrs)]
    for at in range(len(right)):
        mixed = [*right[:at], wrong[at], *right[at + 1 :]]
        assert not truth.judge(mixed, full).ok, at


def run(kind: str, made: dict[str, Any], lengths: Any) -> list[Any]:
    """All outputs of forward and backward."""
    train, count = ({} if kind == "rnn" else {"train": True}), STATES[kind]
    out = call_all(get_op(kind), [*made.values(), lengths, None], train)
    names = ("x", *("h0", "c0")[:count], "w_ih", "w_hh", *(("w_hr",) if kind == "lstmp" else ()))
    states = [None] * count
    grad = [*(made[n] for n in names), out[0], *out[1 + count :], out[0], *states, lengths, None]
    return [np.asarray(o) for o in (*out, *call_all(get_op(f"{kind}_grad"), grad))]


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_give_the_same_bits_and_cuts_hardly_matter(kind: str, cut_for_threads: str) -> None:
    made = made_for(kind, 150)
    for threads in (1, 2, 3):
        with kw.using(threads=threads):
            first, second = run(kind, made, LENGTHS), run(kind, made, LENGTHS)
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
        if threads == 1:
            alone = first
        assert all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(first, alone, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_two_python_threads_at_once_are_right(kind: str, cut_for_threads: str) -> None:
    """One of them finds the team busy and runs all its parts alone, one after the other."""
    made = made_for(kind, 150)
    results: dict[int, list[list[Any]]] = {0: [], 1: []}

    def work(me: int) -> None:
        with kw.using(threads=2):
            for _ in range(20):
                results[me].append(run(kind, made, LENGTHS))

    workers = [threading.Thread(target=work, args=(me,)) for me in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    with kw.using(threads=2):
        expected = run(kind, made, LENGTHS)
    for outputs in (*results[0], *results[1]):
        assert all(np.array_equal(a, b) for a, b in zip(outputs, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_kernels_and_not_the_references(kind: str) -> None:
    made = made_for(kind)
    for what in ("", "_grad", *(("_cell",) if kind in CELLS else ())):
        assert kernels_of(f"{kind}{what}")
    explanation = str(kw.explain(kind, *made.values(), None, None))
    assert f"{kind}/cpu_numba/panels" in explanation


def test_bad_input_is_refused_with_what_to_write() -> None:
    made = made_for("lstm")
    x, weights = made["x"], [made[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")]
    with pytest.raises(ShapeError, match=r"x is f32\[4,30\]@cpu, but must be \[T, B, I\]"):
        kw.lstm(x[0], None, *weights)
    with pytest.raises(ShapeError, match=r"w_ih .* must be \[80, 30\] here"):
        kw.lstm(x, None, weights[0][:, 1:], *weights[1:])
    with pytest.raises(ShapeError, match=r"w_hh is .*must be \[4 H, H\]"):
        kw.lstm(x, None, weights[0], weights[1][1:], *weights[2:])
    with pytest.raises(ShapeError, match=r"h0 .* must be \[4, 20\]"):
        kw.lstm(x, (made["h0"][1:], made["c0"]), *weights)
    with pytest.raises(DTypeError, match="the state is a pair"):
        kw.lstm(x, made["h0"], *weights)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="x is float32, w_ih float64"):
        kw.lstm(x, None, weights[0].astype(np.float64), *weights[1:])
    with pytest.raises(ShapeError, match=r"lengths are 1 to 7, but x .* has 6 steps"):
        kw.lstm(x, None, *weights, [1, 7, 2, 3])
    with pytest.raises(DTypeError, match="lengths must be whole numbers"):
        kw.lstm(x, None, *weights, [1.5, 2, 3, 4])  # type: ignore[list-item]
    with pytest.raises(ShapeError, match=r"lengths is .* must be \[4\]"):
        kw.lstm(x, None, *weights, [1, 2])
    projected = made_for("lstmp")
    with pytest.raises(ShapeError, match=r"w_hr is f32\[20\]@cpu, but must be \[P, H\]"):
        public("lstmp", {**projected, "w_hr": projected["w_hr"][0]}, None)
    with pytest.raises(
        ShapeError, match=r"w_hh .* must be \[80, 9\] here \(\[4 H, P\]; P = 9, H = 20 from w_hr"
    ):
        public("lstmp", {**projected, "w_hr": projected["w_hr"][1:]}, None)
    with pytest.raises(ShapeError, match=r"h0 .* must be \[4, 10\] here \(\[B, P\];"):
        public("lstmp", projected, (projected["c0"], projected["c0"]))
    with pytest.raises(ShapeError, match=r"c0 .* must be \[4, 20\] here \(\[B, H\];"):
        public("lstmp", projected, (projected["h0"], projected["h0"]))
    with pytest.raises(DTypeError, match="w_hh float32 and w_hr float64; all weights must be float32 or all"):
        public("lstmp", {**projected, "w_hr": projected["w_hr"].astype(np.float64)}, None)
    with pytest.raises(ShapeError, match=r"w_hh is .*must be \[4 H, H\]"):
        kw.lstm(x, None, *(projected[n] for n in ("w_ih", "w_hh", "b_ih", "b_hh")))
    rnn = made_for("rnn")
    with pytest.raises(DTypeError, match="nonlinearity is 'sigmoid'; write 'tanh' or 'relu'"):
        kw.rnn(rnn["x"], None, rnn["w_ih"], rnn["w_hh"], nonlinearity="sigmoid")
