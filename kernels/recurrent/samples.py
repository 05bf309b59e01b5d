"""Calls of the recurrent ops: those that every kernel must survive, and contents to time them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..op import AnyArray, Sample, Specs
from ..spec import dtype_name, np_dtype
from . import reference
from .prepack import prepack

_GATES = {"lstm": 4, "lstmp": 4, "gru": 3, "rnn": 1}
_WEIGHTS = ("w_ih", "w_hh", "w_hr")
# T, B, I, H. Around the widths of vectors and register tiles; zeros and ones.
_SIZES = (
    (0, 2, 3, 4),
    (3, 0, 3, 4),
    (3, 2, 0, 4),
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (3, 1, 16, 16),
    (4, 2, 33, 17),
    (2, 5, 8, 65),
    (3, 8, 20, 31),
    (2, 16, 64, 64),
    (9, 7, 3, 40),
)


def contents(
    kind: str, rng: np.random.Generator, t: int, b: int, i: int, h: int, dtype: str, p: int = 0
) -> dict[str, AnyArray]:
    """Inputs of a forward call, time-major: weights and biases as PyTorch starts them, all else normal.

    `lstmp` projects to p, half of h unless given.
    """
    g, bound, width = _GATES[kind], max(h, 1) ** -0.5, h
    if kind == "lstmp":
        width = p or (h + 1) // 2

    as_dtype = np_dtype(dtype)

    def uniform(*shape: int) -> AnyArray:
        return rng.uniform(-bound, bound, shape).astype(as_dtype)

    made = {
        "x": rng.standard_normal((t, b, i)).astype(as_dtype),
        "h0": rng.uniform(-1, 1, (b, width)).astype(as_dtype),
        "c0": rng.standard_normal((b, h)).astype(as_dtype),
        "w_ih": uniform(g * h, i),
        "w_hh": uniform(g * h, width),
        **({"w_hr": uniform(width, h)} if kind == "lstmp" else {}),
        "b_ih": uniform(g * h),
        "b_hh": uniform(g * h),
    }
    if kind in ("gru", "rnn"):
        del made["c0"]
    return made


def _attributes(kind: str) -> list[dict[str, Any]]:
    if kind == "gru":
        return [{"reset_after": True}, {"reset_after": False}]
    return [{"nonlinearity": "tanh"}, {"nonlinearity": "relu"}] if kind == "rnn" else [{}]


def _no_train(kind: str) -> dict[str, Any]:
    return {} if kind == "rnn" else {"train": False}


def _inputs(made: dict[str, AnyArray], *without: str, **other: AnyArray) -> tuple[AnyArray | None, ...]:
    given = {**made, "lengths": None, "resets": None, **other}
    return tuple(None if name in without else array for name, array in given.items())


def forward(kind: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `lstm`, `gru` and `rnn`."""
    states = ("h0", "c0") if kind.startswith("lstm") else ("h0",)
    trains: list[dict[str, Any]] = [{}] if kind == "rnn" else [{}, {"train": True}]
    for own in _attributes(kind):
        for place, size in enumerate(_SIZES):
            attrs = {**own, **trains[place % len(trains)]}
            yield Sample("x".join(map(str, size)), _inputs(contents(kind, rng, *size, dtype)), attrs)
        for p in (1, 16, 21, 70, 130) if kind == "lstmp" else ():
            made = contents(kind, rng, 4, 7, 9, 21, dtype, p)
            yield Sample(f"projected to {p}", _inputs(made), trains[p % 2])
        made = contents(kind, rng, 5, 6, 9, 19, dtype)
        lengths = np.array([3, 0, 5, 1, 5, 2], np.int64)
        for reverse in (False, True):
            for train in trains:
                attrs = {**own, **train, "reverse": reverse}
                yield Sample("lengths", _inputs(made, lengths=lengths), attrs)
            yield Sample("no lengths", _inputs(made), {**own, "reverse": reverse})
        yield from _with_resets(kind, rng, made, lengths, own, trains)
        yield Sample("lengths all 0", _inputs(made, lengths=np.zeros(6, np.int64)), own)
        yield Sample("no states", _inputs(made, *states), own)
        yield Sample("no b_ih", _inputs(made, "b_ih"), own)
        yield Sample("no b_hh", _inputs(made, "b_hh", lengths=lengths[::-1]), own)
        yield Sample("no biases", _inputs(made, "b_ih", "b_hh"), own)
        batch_major = _inputs(made, x=np.ascontiguousarray(made["x"].swapaxes(0, 1)), lengths=lengths)
        yield Sample("batch first", batch_major, {**own, **trains[-1], "batch_first": True, "reverse": True})
        for name, changed in _strided(made):
            yield Sample(name, _inputs(changed), own)
        if dtype == "float32":
            yield Sample("bfloat16 weights", _inputs(_halved(made), lengths=lengths), own)
            yield Sample("bfloat16 weights, spread", _inputs(_halved(made, 2)), {**own, "reverse": True})
            for size in ((3, 2, 5, 70), (2, 13, 9, 19)):
                halved = _halved(contents(kind, rng, *size, dtype))
                yield Sample(f"bfloat16 weights, {'x'.join(map(str, size))}", _inputs(halved), own)
        if dtype in ("float32", "float64"):
            yield from _packed(kind, rng, dtype, own)


def _with_resets(
    kind: str,
    rng: np.random.Generator,
    made: dict[str, AnyArray],
    lengths: AnyArray,
    own: dict[str, Any],
    trains: list[dict[str, Any]],
) -> Iterator[Sample]:
    """Sequences that start afresh in the middle; and heads, with and without."""
    t, b, i = made["x"].shape
    resets, last = rng.integers(0, 3, (t, b)) == 0, trains[-1]
    resets[0, :2] = True, False
    for reverse in (False, True):
        attrs = {**own, **(last if reverse else {}), "reverse": reverse}
        yield Sample("resets", _inputs(made, resets=resets), attrs)
    batch_major = _inputs(
        {**made, "x": np.ascontiguousarray(made["x"].swapaxes(0, 1))}, lengths=lengths, resets=resets.T
    )
    yield Sample("resets and lengths, batch first", batch_major, {**own, **last, "batch_first": True})
    yield Sample("resets everywhere", _inputs(made, resets=np.broadcast_to(np.True_, (t, b))), own)
    for heads, d in ((3, 7), (1, 19), (19, 1), (2, 33)) if kind != "lstmp" else ():
        split = in_heads(kind, rng, (t, b, i), heads, d, dtype_name(made["x"].dtype))
        yield Sample(f"{heads} heads of {d}", _inputs(split), {**own, **(last if heads == 3 else {})})
        if heads == 3:
            attrs = {**own, "reverse": True}
            yield Sample("heads, resets, lengths", _inputs(split, lengths=lengths, resets=resets), attrs)


def in_heads(
    kind: str, rng: np.random.Generator, size: tuple[int, int, int], heads: int, d: int, dtype: str
) -> dict[str, AnyArray]:
    """`contents` with block-diagonal recurrent weights. size: T, B, I; there are heads * d hidden units."""
    made = contents(kind, rng, *size, heads * d, dtype)
    w = rng.uniform(-(max(d, 1) ** -0.5), max(d, 1) ** -0.5, (heads, _GATES[kind] * d, d))
    return {**made, "w_hh": w.astype(np_dtype(dtype))}


def _packed(kind: str, rng: np.random.Generator, dtype: str, own: dict[str, Any]) -> Iterator[Sample]:
    """Calls with weights that were packed ahead: all of them, and one of them."""
    for size, names in (
        ((5, 6, 9, 19), _WEIGHTS),
        ((2, 13, 33, 66), _WEIGHTS),
        ((3, 1, 40, 130), ("w_hh",)),
        ((3, 2, 0, 7), ("w_ih",)),
    ):
        made = contents(kind, rng, *size, dtype)
        for weights in (made, _halved(made)) if dtype == "float32" else (made,):
            packed = {name: prepack(kind, weights[name], name=name) for name in names if name in weights}
            attrs: dict[str, Any] = dict(own)
            for name, held in packed.items():
                attrs |= {f"{name}_format": held.format, f"{name}_shape": held.shape}
            data = {name: held.data for name, held in packed.items()}
            yield Sample(f"packed, {'x'.join(map(str, size))}", _inputs({**weights, **data}), attrs)


def _halved(made: dict[str, AnyArray], step: int = 1) -> dict[str, AnyArray]:
    """The same contents with the weights as bfloat16, their numbers `step` places apart."""
    half = np_dtype("bfloat16")
    weights = [n for n in _WEIGHTS if n in made]
    narrow = {n: np.repeat(made[n], step, axis=1).astype(half)[:, ::step] for n in weights}
    return {**made, **narrow}


def _strided(made: dict[str, AnyArray]) -> Iterator[tuple[str, dict[str, AnyArray]]]:
    """The same contents in other layouts: transposed, spread, reversed, repeated."""
    yield "transposed", {n: np.asfortranarray(a) for n, a in made.items()}
    yield "spread", {n: np.repeat(a, 2, axis=-1)[..., ::2] for n, a in made.items()}
    yield "reversed", {n: np.ascontiguousarray(a[..., ::-1])[..., ::-1] for n, a in made.items()}
    same = {n: np.broadcast_to(a[..., :1], a.shape) for n, a in made.items()}
    yield "one number a row", same
    yield "x repeated", {**made, "x": np.broadcast_to(made["x"][:1, :1], made["x"].shape)}


def backward(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of the gradients, with what the forward definition gives for y, gates and cells."""
    kind = name.partition("_")[0]
    for sample in forward(kind, rng, dtype):
        if sample.attrs.get("train") or sample.name in ("no b_ih", "no biases"):
            continue
        if sample.name.startswith("packed"):
            continue
        yield Sample(sample.name, *_gradient_call(kind, rng, sample, dtype, ()))
        if sample.name == "lengths":
            for without in (("dy",), ("dh_n", "dc_n"), ("dy", "dh_n")):
                call = _gradient_call(kind, rng, sample, dtype, without)
                yield Sample(f"{sample.name}, no {', '.join(without)}", *call)


def _gradient_call(
    kind: str, rng: np.random.Generator, sample: Sample, dtype: str, without: tuple[str, ...]
) -> tuple[tuple[AnyArray | None, ...], dict[str, Any]]:
    attrs = {"reverse": False, "batch_first": False, **sample.attrs}
    attrs.pop("train", None)
    train = {} if kind == "rnn" else {"train": True}
    wide = [a if a is None or a.dtype.kind in "ib" else a.astype(np.float64) for a in sample.inputs]
    with np.errstate(all="ignore"):
        outputs = getattr(reference, kind)(*wide, **attrs, **train)
    outputs = [out.astype(np_dtype(dtype)) for out in outputs]
    count, places = (2 if kind.startswith("lstm") else 1), 3 if kind == "lstmp" else 2
    x, states = sample.inputs[0], sample.inputs[1 : 1 + count]
    weights = sample.inputs[1 + count : 1 + count + places]
    saved = outputs[1 + count :]
    grads: list[AnyArray | None] = [
        rng.standard_normal(out.shape).astype(np_dtype(dtype)) for out in outputs[: 1 + count]
    ]
    for place, grad in enumerate(("dy", "dh_n", "dc_n")[: 1 + count]):
        if grad in without:
            grads[place] = None
    return (x, *states, *weights, outputs[0], *saved, *grads, *sample.inputs[-2:]), attrs


def cell(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of the cells: the forward calls of one step."""
    kind = name.partition("_")[0]
    for own in _attributes(kind):
        for b, i, h in ((0, 3, 4), (1, 0, 3), (1, 1, 1), (1, 33, 17), (3, 16, 16), (5, 8, 65), (13, 20, 31)):
            made = contents(kind, rng, 1, b, i, h, dtype)
            yield Sample(f"{b}x{i}x{h}", _inputs({**made, "x": made["x"][0]})[:-2], own)
        made = contents(kind, rng, 1, 3, 9, 19, dtype)
        made["x"] = made["x"][0]
        for without in (("h0",), ("c0",), ("b_ih",), ("b_ih", "b_hh")):
            if without[0] in made:
                yield Sample(f"no {', '.join(without)}", _inputs(made, *without)[:-2], own)
        for layout, changed in _strided(made):
            if layout != "x repeated":
                yield Sample(layout, _inputs(changed)[:-2], own)
        if dtype == "float32":
            for b, i, h, step in ((1, 33, 17, 1), (6, 40, 19, 1), (3, 9, 19, 2)):
                halved = _halved(contents(kind, rng, 1, b, i, h, dtype), step)
                call = _inputs({**halved, "x": halved["x"][0]})[:-2]
                yield Sample(f"bfloat16 weights {step} apart, {b}x{i}x{h}", call, own)


SAMPLES: dict[str, Callable[..., Iterator[Sample]]] = {"": forward, "grad": backward, "cell": cell}


def draw(
    name: str, inputs: tuple[str, ...], rng: np.random.Generator, specs: Specs, **attrs: Any
) -> tuple[AnyArray | None, ...]:
    """Contents to time with: weights +-1/sqrt(H), gates in 0..1, lengths uniform in 1..T, a reset every 100
    steps, all else uniform in -1..1.
    """
    given = dict(zip(inputs, specs, strict=True))
    last = "w_hr" if "w_hr" in given else "w_hh"
    shape = attrs.get(f"{last}_shape") or given[last].shape
    bound = max(shape[-1], 1) ** -0.5
    x = given["x"].shape
    t = 1 if len(x) < 3 else x[1] if attrs.get("batch_first") else x[0]
    drawn: list[AnyArray | None] = []
    for place, spec in given.items():
        if not spec.present:
            drawn.append(None)
        elif place == "lengths":
            drawn.append(rng.integers(min(1, t), t + 1, spec.shape).astype(np.int64))
        elif place == "resets":
            drawn.append(rng.integers(0, 100, spec.shape) == 0)
        elif place in (*_WEIGHTS, "b_ih", "b_hh"):
            drawn.append(rng.uniform(-bound, bound, spec.shape).astype(np_dtype(spec.dtype)))
        elif place == "gates":
            drawn.append(rng.uniform(0.05, 0.95, spec.shape).astype(spec.np_dtype))
        else:
            drawn.append(rng.uniform(-1, 1, spec.shape).astype(spec.np_dtype))
    return tuple(drawn)
