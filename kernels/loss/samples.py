"""Calls of the loss ops that every kernel must survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import AnyArray, Sample, Specs
from ..spec import TensorSpec, np_dtype
from . import reference

# Shapes of scores: classes last and first, around the widths of vectors; zeros and ones.
_SHAPES = (
    (5,),
    (1, 1),
    (7, 3),
    (4, 16),
    (3, 130),
    (2, 1030),
    (0, 4),
    (2, 5, 3),
    (3, 4, 17, 2),
    (2, 9, 70),
    (2, 1, 3),
)


def _labels(rng: np.random.Generator, shape: tuple[int, ...], kind: str = "int64") -> AnyArray:
    """Labels for scores of a shape."""
    rows = shape[:0] + shape[1:] if len(shape) == 1 else (shape[0], *shape[2:])
    return np.asarray(rng.integers(0, shape[0 if len(shape) == 1 else 1], rows), kind)


def _by_labels(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """(x, target, weight) with an ignore_index; of 16-bit scores one call in three."""
    step = 3 if dtype in ("bfloat16", "float16") else 1
    for place, sample in enumerate(_all_by_labels(rng, dtype)):
        if place % step == 0:
            yield sample


def _all_by_labels(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    kind = np_dtype(dtype)

    def normal(*shape: int) -> AnyArray:
        return rng.standard_normal(shape).astype(kind)

    def weights(n: int) -> AnyArray:
        return rng.uniform(0.2, 2.0, n).astype(kind)

    for place, shape in enumerate(_SHAPES):
        label_kind = (
            ("int64", "int32", "uint8", "int16")[place % 4] if shape[min(1, len(shape) - 1)] < 99 else "int64"
        )
        target = _labels(rng, shape, label_kind)
        classes = shape[0 if len(shape) == 1 else 1]
        name = "x".join(map(str, shape))
        yield Sample(name, (normal(*shape), target, None))
        yield Sample(f"{name}, weights", (normal(*shape), target, weights(classes)))
    for shape in ((6, 5), (3, 5, 7)):
        target = _labels(rng, shape)
        target[rng.random(target.shape) < 0.4] = -100
        yield Sample("ignored", (normal(*shape), target, weights(5)))
        yield Sample("ignored label", (normal(*shape), _labels(rng, shape), None), {"ignore_index": 2})
        yield Sample("all ignored", (normal(*shape), np.full_like(target, -100), None))
    spread = normal(12, 40)[::2, ::-2]
    yield Sample("steps", (spread, _labels(rng, (12, 20))[::2], weights(40)[::-2]))
    yield Sample("classes far apart", (normal(20, 6).T, _labels(rng, (6, 20)), None))
    yield Sample(
        "planes turned", (normal(2, 7, 5, 6).transpose(0, 2, 3, 1), _labels(rng, (2, 5, 6, 7)), None)
    )
    repeated = np.broadcast_to(normal(1, 9), (4, 9)), np.broadcast_to(np.asarray(3), (4,))
    yield Sample("repeated", (*repeated, np.broadcast_to(normal(1) ** 2, (9,))))
    yield Sample("large", ((30 * normal(4, 33).astype(np.float64)).astype(kind), _labels(rng, (4, 33)), None))


def cross_entropy(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `cross_entropy`."""
    for place, sample in enumerate(_by_labels(rng, dtype)):
        yield sample
        if place % 2:
            yield Sample(f"{sample.name}, smooth", sample.inputs, {**sample.attrs, "label_smoothing": 0.1})


def cross_entropy_grad(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `cross_entropy_grad`: the forward ones with their results."""
    sums = np_dtype("float64" if dtype == "float64" else "float32")
    for sample in cross_entropy(rng, dtype):
        attrs = {"ignore_index": -100, "label_smoothing": 0.0, **sample.attrs}
        with np.errstate(all="ignore"):
            wide: Any = _wide(sample.inputs)
            _, total, _ = reference.cross_entropy(*wide, **attrs)
        dloss = np.asarray(rng.standard_normal(total.shape), np_dtype(dtype))
        x, target, weight = sample.inputs
        yield Sample(sample.name, (dloss, x, target, weight, np.asarray(total, sums)), sample.attrs)


def nll_loss(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `nll_loss`."""
    yield from _by_labels(rng, dtype)


def nll_loss_grad(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `nll_loss_grad`."""
    for sample in _by_labels(rng, dtype):
        x, target, weight = sample.inputs
        assert x is not None
        assert target is not None
        dloss = np.asarray(rng.standard_normal(target.shape), np_dtype(dtype))
        attrs = {**sample.attrs, "classes": x.shape[0 if x.ndim == 1 else 1]}
        yield Sample(sample.name, (dloss, target, weight), attrs)


def multi_margin_loss(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `multi_margin_loss`: scores whose distances are well away from the margin."""
    kind = np_dtype(dtype)
    for place, shape in enumerate(((5,), (1, 1), (7, 3), (4, 16), (3, 130), (0, 4))):
        classes = shape[-1]
        # Multiples of 3/8: a distance is at least 1/8 off a margin of 1 (or of -1/4).
        x = (rng.integers(-9, 9, shape) * 0.375).astype(kind)
        target = _labels(rng, shape, "int32" if place % 2 else "int64")
        weight = rng.uniform(0.2, 2.0, classes).astype(kind) if place % 2 else None
        yield Sample("x".join(map(str, shape)), (x, target, weight))
        yield Sample("squares", (x, target, None), {"p": 2})
        yield Sample("margin", (x, target, weight), {"margin": -0.25})
    x = (rng.integers(-9, 9, (8, 30)) * 0.375).astype(kind)
    yield Sample("steps", (x[::-2, ::3], _labels(rng, (8, 10))[::2], None), {"p": 2})
    yield Sample("turned", (x.T, _labels(rng, (30, 8)), None))


def multi_margin_loss_grad(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `multi_margin_loss_grad`."""
    for sample in multi_margin_loss(rng, dtype):
        assert sample.inputs[1] is not None
        dloss = np.asarray(rng.standard_normal(sample.inputs[1].shape), np_dtype(dtype))
        yield Sample(sample.name, (dloss, *sample.inputs), sample.attrs)


def ctc_loss(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `ctc_loss`."""
    for t, n, classes, longest in ((1, 1, 2, 1), (5, 2, 4, 2), (12, 3, 5, 4), (40, 4, 7, 17), (6, 0, 3, 2)):
        probs = _log_probs(rng, dtype, t, n, classes)
        targets = rng.integers(1, classes, (n, longest))
        shortest = min(longest, max(1, (t - 1) // 2))
        inputs_n, targets_n = rng.integers((t + 1) // 2, t + 1, n), rng.integers(0, shortest + 1, n)
        name = f"{t} steps, {n} sequences, {classes} classes, up to {longest} labels"
        yield Sample(name, (probs, targets, np.maximum(inputs_n, 2 * targets_n), targets_n))
    probs, targets = _log_probs(rng, dtype, 9, 3, 4), np.array([[0, 0, 2], [3, 3, 3], [0, 2, 0]])
    lengths = np.array([9, 8, 9], np.int32), np.array([3, 3, 2], np.int32)
    yield Sample("repeats, blank 1", (probs, targets, *lengths), {"blank": 1})
    in_a_row = np.array([0, 0, 2, 3, 3, 3, 0, 2])
    yield Sample("targets in a row", (probs, in_a_row, *lengths), {"blank": 1, "longest": 3})
    impossible = np.array([4, 2, 0]), np.array([3, 3, 0])
    yield Sample("impossible", (probs, targets, *impossible), {"blank": 1, "zero_infinity": True})
    turned = np.ascontiguousarray(probs.transpose(1, 2, 0)).transpose(2, 0, 1)
    yield Sample("turned", (turned, targets[:, ::-1], lengths[0][::-1], lengths[1]), {"blank": 1})


def _log_probs(rng: np.random.Generator, dtype: str, *shape: int) -> AnyArray:
    x = rng.standard_normal(shape)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)), np_dtype(dtype))


def ctc_loss_grad(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `ctc_loss_grad`."""
    for sample in ctc_loss(rng, dtype):
        assert sample.inputs[0] is not None
        dloss = np.asarray(rng.standard_normal(sample.inputs[0].shape[1]), np_dtype(dtype))
        yield Sample(sample.name, (dloss, *sample.inputs), sample.attrs)


def _wide(inputs: Any) -> list[AnyArray | None]:
    return [x if x is None or x.dtype.kind in "iu" else x.astype(np.float64) for x in inputs]


# --- contents to time with ----------------------------------------------------------------------------------


def draw_labels(rng: np.random.Generator, classes: int, spec: TensorSpec) -> AnyArray:
    """Labels of so many classes."""
    return np.asarray(rng.integers(0, max(classes, 1), spec.shape), spec.np_dtype)


def drawn(rng: np.random.Generator, spec: TensorSpec) -> AnyArray | None:
    """Standard normal numbers."""
    return np.asarray(rng.standard_normal(spec.shape), spec.np_dtype) if spec.present else None


def draw_by_labels(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Contents for (x, target, weight)."""
    x, target, weight = specs[:3]
    classes = x.shape[0 if x.ndim == 1 else 1]
    made = drawn(rng, weight)
    return drawn(rng, x), draw_labels(rng, classes, target), None if made is None else abs(made)


def draw_grad(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Contents for (dloss, x, target, weight) and, for cross_entropy, the logsumexp."""
    x, target, weight = draw_by_labels(rng, specs[1:4])
    made: list[AnyArray | None] = [drawn(rng, specs[0]), x, target, weight]
    if len(specs) > 4:
        wide: Any = _wide((x, target, weight))
        made.append(reference.cross_entropy(*wide, **attrs)[1].astype(specs[4].np_dtype))
    return tuple(made)


def draw_nll_grad(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Contents for (dloss, target, weight)."""
    made = drawn(rng, specs[2])
    target = draw_labels(rng, attrs["classes"], specs[1])
    return drawn(rng, specs[0]), target, None if made is None else abs(made)


def draw_ctc(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Contents for (log_probs, targets, input_lengths, target_lengths), all of full length."""
    probs, targets, inputs_n, targets_n = specs[-4:]
    t, n, classes = probs.shape
    labels = 1 + draw_labels(rng, classes - 1, targets)
    longest = attrs["longest"] or targets.shape[-1]
    if targets.ndim == 1:
        longest = targets.shape[0] // max(n, 1)
    lengths = np.full(n, t, inputs_n.np_dtype), np.full(n, min(longest, t // 2), targets_n.np_dtype)
    head = (drawn(rng, specs[0]),) if len(specs) == 5 else ()
    return (*head, _log_probs(rng, probs.dtype, t, n, classes), labels, *lengths)
