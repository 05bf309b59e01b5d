"""Losses beside torch, forward and backward; their second derivatives; CTC; bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError
from kernelwright.kernels.op import TensorSpec, get_op
from kernelwright.kernels.registry import kernels_for


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def uniform(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.05, 0.95, shape).astype("float32")


def labels(classes: int, *shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, classes, shape)


def probabilities(*shape: int) -> Any:
    x = np.exp(normal(*shape, seed=8))
    return (x / x.sum(1, keepdims=True)).astype("float32")


IGNORING = np.array([1, -100, 3, -100, 0, 2, 4])
CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("cross_entropy", (normal(7, 5), labels(5, 7)), {}),
    ("cross_entropy", (normal(7, 5), IGNORING, uniform(5)), {}),
    ("cross_entropy", (normal(7, 5), labels(5, 7), uniform(5)), {"label_smoothing": 0.2}),
    ("cross_entropy", (normal(3, 5, 4, 2), labels(5, 3, 4, 2)), {"label_smoothing": 0.2, "ignore_index": 2}),
    ("cross_entropy", (normal(5), np.asarray(3)), {}),
    ("cross_entropy", (normal(7, 5), probabilities(7, 5)), {}),
    ("cross_entropy", (normal(3, 5, 4), probabilities(3, 5, 4), uniform(5)), {"label_smoothing": 0.3}),
    ("nll_loss", (normal(7, 5), labels(5, 7), uniform(5)), {}),
    ("nll_loss", (normal(3, 5, 4), labels(5, 3, 4)), {"ignore_index": 1}),
    ("mse_loss", (normal(3, 4), normal(3, 4, seed=1)), {}),
    ("l1_loss", (normal(3, 4), normal(3, 4, seed=1)), {}),
    ("smooth_l1_loss", (normal(3, 4), normal(3, 4, seed=1)), {}),
    ("smooth_l1_loss", (normal(3, 4), normal(3, 4, seed=1)), {"beta": 0.3}),
    ("smooth_l1_loss", (normal(3, 4), normal(3, 4, seed=1)), {"beta": 0.0}),
    ("huber_loss", (normal(3, 4), normal(3, 4, seed=1)), {"delta": 0.7}),
    ("binary_cross_entropy_with_logits", (normal(3, 4), uniform(3, 4)), {}),
    ("binary_cross_entropy_with_logits", (50 * normal(3, 4), uniform(3, 4), uniform(4)), {}),
    ("multi_margin_loss", (normal(7, 5), labels(5, 7)), {}),
    ("multi_margin_loss", (normal(7, 5), labels(5, 7)), {"p": 2, "margin": 0.5}),
    ("kl_div", (np.log(probabilities(4, 5)), probabilities(4, 5)[::-1].copy()), {}),
    ("kl_div", (normal(4, 5), normal(4, 5, seed=3)), {"log_target": True}),
]


def torch_of(value: Any) -> Any:
    import torch

    return torch.from_numpy(np.asarray(value)) if isinstance(value, np.ndarray) else value


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "args", "attrs"), CALLS, ids=lambda x: x if type(x) is str else "")
def test_results_and_gradients_are_those_of_torch(
    name: str, args: tuple[Any, ...], attrs: dict[str, Any], reduction: str
) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    attrs = {**attrs, "reduction": reduction}
    x = torch.from_numpy(args[0].copy()).requires_grad_()
    theirs = getattr(torch.nn.functional, name)(x, *map(torch_of, args[1:]), **attrs)
    share = normal(*theirs.shape, seed=5)
    (theirs * torch.from_numpy(np.asarray(share))).sum().backward()
    function = getattr(kw, name)
    mine = function(*args, **attrs)
    np.testing.assert_allclose(np.asarray(mine), theirs.detach().numpy(), rtol=2e-5, atol=2e-6)
    dx = kw.grad(lambda x: kw.sum(kw.mul(function(x, *args[1:], **attrs), share)))(kw.array(args[0]))
    np.testing.assert_allclose(np.asarray(dx), x.grad.numpy(), rtol=5e-5, atol=5e-6)


def test_pos_weight_and_batchmean_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    x, t, w = normal(6, 4), uniform(6, 4), 3 * uniform(4, seed=2)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        *map(torch.from_numpy, (x, t)), pos_weight=torch.from_numpy(w)
    )
    mine = kw.binary_cross_entropy_with_logits(x, t, pos_weight=w)
    np.testing.assert_allclose(float(mine), theirs.item(), rtol=1e-5)
    theirs = torch.nn.functional.kl_div(*map(torch.from_numpy, (x, t)), reduction="batchmean")
    np.testing.assert_allclose(float(kw.kl_div(x, t, reduction="batchmean")), theirs.item(), rtol=1e-5)


def test_kl_div_takes_probabilities_of_zero() -> None:
    target = kw.array(np.array([[0.0, 1.0], [0.5, 0.5]]))
    loss, grads = kw.value_and_grad(kw.kl_div, (0, 1))(kw.array(normal(2, 2, dtype="float64")), target)
    assert np.isfinite(float(loss))
    assert np.isfinite(np.asarray(grads[0])).all()
    assert np.isfinite(np.asarray(grads[1])).all()


def test_cosine_similarity_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    x, y = normal(3, 5, 4), normal(3, 5, 4, seed=1)
    x[0, :, 0] = 0
    for axis in (1, -1):
        theirs = torch.nn.functional.cosine_similarity(torch.from_numpy(x), torch.from_numpy(y), dim=axis)
        mine = kw.cosine_similarity(x, y, axis)
        np.testing.assert_allclose(np.asarray(mine), theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_has_second_derivatives(smoothing: float) -> None:
    x, weight = normal(3, 4, 2, dtype="float64"), uniform(4).astype("float64")
    target = labels(4, 3, 2)

    def loss(x: Any, weight: Any) -> Any:
        return kw.cross_entropy(x, target, weight, ignore_index=1, label_smoothing=smoothing)

    kw.check_grads(loss, x, weight, order=2)


def test_a_mean_of_many_float16_losses_stays_in_range() -> None:
    x = np.zeros((70_000, 3), "float16")
    loss = kw.cross_entropy(x, np.zeros(70_000, "int64"))
    np.testing.assert_allclose(float(loss), np.log(3), rtol=1e-3)


def test_a_traced_label_that_is_no_class_gives_nan() -> None:
    step = kw.compile(lambda x, y: kw.cross_entropy(x, y, reduction="none"))
    losses = np.asarray(step(kw.array(normal(3, 4)), kw.array(np.array([1, 4, 0]))))
    assert list(np.isnan(losses)) == [False, True, False]


def test_explain_names_the_kernel_of_a_loss() -> None:
    scores, targets, steps, lengths = ctc_call()
    for told in (
        kw.explain(kw.cross_entropy, normal(3, 4), labels(4, 3), label_smoothing=0.1, reduction="sum"),
        kw.explain(kw.nll_loss, normal(3, 4), labels(4, 3)),
        kw.explain(kw.multi_margin_loss, normal(3, 4), labels(4, 3), p=2),
        kw.explain(kw.ctc_loss, scores, targets, tuple(steps.tolist()), lengths),
        kw.explain(kw.scaled_dot_product_attention, *[normal(2, 5, 8)] * 3, is_causal=True),
    ):
        assert "cpu_llvm" in str(told)


# --- CTC ----------------------------------------------------------------------------------------------------


def ctc_call(seed: int = 0) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((12, 4, 6))
    return scores, rng.integers(1, 6, (4, 5)), np.array([12, 9, 12, 7]), np.array([5, 3, 0, 1])


@pytest.mark.parametrize("form", ["padded", "in a row", "tuples", "blank 3"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc_and_its_gradient_are_those_of_torch(form: str, reduction: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional")
    scores, targets, steps, lengths = ctc_call()
    attrs: dict[str, Any] = {"reduction": reduction}
    if form == "in a row":
        targets = np.concatenate([row[:n] for row, n in zip(targets, lengths, strict=True)])
    if form == "blank 3":
        attrs["blank"] = 3
        targets = np.where(targets == 3, 0, targets)
    counts: Any = (tuple(steps.tolist()), tuple(lengths.tolist())) if form == "tuples" else (steps, lengths)
    x = torch.from_numpy(scores).requires_grad_()
    theirs = torch.nn.functional.ctc_loss(
        x.log_softmax(-1), torch.from_numpy(targets), *map(torch_of, counts), **attrs
    )
    theirs.sum().backward()

    def loss(x: Any) -> Any:
        return kw.ctc_loss(kw.log_softmax(x, -1), targets, *counts, **attrs)

    np.testing.assert_allclose(np.asarray(loss(kw.array(scores))), theirs.detach().numpy(), rtol=1e-10)
    dx = kw.grad(lambda x: kw.sum(loss(x)))(kw.array(scores))
    np.testing.assert_allclose(np.asarray(dx), x.grad.numpy(), rtol=1e-8, atol=1e-10)


def test_an_impossible_target_is_infinite_or_zero() -> None:
    probs = np.log(np.full((2, 1, 3), 1 / 3))
    call = (probs, np.array([[1, 1]]), (2,), (2,))
    assert float(kw.ctc_loss(*call, reduction="sum")) == np.inf
    assert float(kw.ctc_loss(*call, reduction="sum", zero_infinity=True)) == 0.0
    dx = kw.grad(lambda p: kw.ctc_loss(p, *call[1:], zero_infinity=True))(kw.array(probs))
    assert not np.asarray(dx).any()


def test_one_sequence_needs_no_batch() -> None:
    scores, targets, _, _ = ctc_call()
    alone = kw.ctc_loss(scores[:, 0], targets[0], 12, 5, reduction="none")
    batch = kw.ctc_loss(scores[:, :1], targets[:1], (12,), (5,), reduction="none")
    assert alone.shape == ()
    assert float(alone) == float(batch[0])


@pytest.mark.parametrize(
    "name", ["cross_entropy", "cross_entropy_grad", "multi_margin_loss_grad", "ctc_loss_grad"]
)
def test_narrower_vectors_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", "16")
    (kernel,) = kernels_for(name)
    op = get_op(name)
    for sample in list(op.samples(np.random.default_rng(1), "float32"))[2:14:3]:
        verdict = check_kernel(kernel, sample, threads=2)
        assert verdict.ok, f"{sample}: {verdict.text}"


@pytest.mark.parametrize("name", ["cross_entropy_grad", "multi_margin_loss_grad"])
@pytest.mark.parametrize("shape", [(3, 70), (2, 5, 40), (9,)])
def test_a_gradient_may_be_written_where_its_scores_are(name: str, shape: tuple[int, ...]) -> None:
    op, (kernel,) = get_op(name), kernels_for(name)
    classes = shape[0] if len(shape) == 1 else shape[1]
    rows = shape[:0] if len(shape) == 1 else (shape[0], *shape[2:])
    if name == "multi_margin_loss_grad" and len(shape) == 3:
        return
    inputs = [normal(*rows), normal(*shape, seed=1), labels(classes, *rows), uniform(classes)]
    inputs = [np.asarray(x, "int64" if i == 2 else "float32") for i, x in enumerate(inputs)]
    attrs = op.complete({"label_smoothing": 0.1} if name == "cross_entropy_grad" else {"p": 2})
    if name == "cross_entropy_grad":
        inputs.append(np.asarray(normal(*rows, seed=2) + 3, "float32"))
    specs = tuple(map(TensorSpec.of, inputs))
    specs = (*specs, *op.infer(specs, **attrs))
    launch = kernel.bind(specs, attrs, {}, 2)
    apart = specs[-1].empty()
    launch(*inputs, apart)
    for place in (1, 3):
        if inputs[place].shape == apart.shape:
            given = [x.copy() for x in inputs]
            launch(*given, given[place])
            np.testing.assert_array_equal(given[place], apart)


# --- bad input ----------------------------------------------------------------------------------------------


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: kw.cross_entropy(normal(3, 4), labels(4, 2)), ShapeError, r"labels have the shape \[3\]"),
    (lambda: kw.cross_entropy(normal(3, 4), np.array([0, 4, 1])), ShapeError, r"target\[1\] is 4"),
    (lambda: kw.cross_entropy(normal(3, 4), np.ones(3, bool)), DTypeError, "astype"),
    (lambda: kw.cross_entropy(normal(3, 4), labels(4, 3), normal(3)), ShapeError, r"write \[4\]"),
    (
        lambda: kw.cross_entropy(normal(3, 4), labels(4, 3), label_smoothing=1.5),
        ConfigError,
        "between 0 and 1",
    ),
    (lambda: kw.cross_entropy(normal(3, 4), labels(4, 3), reduction="avg"), ConfigError, "'mean', 'sum'"),
    (lambda: kw.cross_entropy(normal(3, 4), normal(3, 4), ignore_index=1), ConfigError, "probabilities"),
    (lambda: kw.nll_loss(normal(3, 4), np.array([0, -1, 1])), ShapeError, r"target\[1\] is -1"),
    (lambda: kw.mse_loss(normal(3, 1), normal(3)), ShapeError, "one shape"),
    (lambda: kw.huber_loss(normal(3), normal(3), delta=0.0), ConfigError, "above 0"),
    (lambda: kw.smooth_l1_loss(normal(3), normal(3), beta=-1.0), ConfigError, "0 or more"),
    (lambda: kw.multi_margin_loss(normal(3, 4), labels(4, 3), p=3), ConfigError, "1 or 2"),
    (lambda: kw.multi_margin_loss(normal(3, 4, 2), labels(4, 3, 2)), ShapeError, r"\[C\] or \[N, C\]"),
    (lambda: kw.ctc_loss(*ctc_call()[:2], (13, 9, 12, 7), (5, 3, 0, 1)), ShapeError, r"0\.\.12"),
    (lambda: kw.ctc_loss(*ctc_call()[:2], (12, 9, 12, 7), (6, 3, 0, 1)), ShapeError, r"0\.\.5"),
    (lambda: kw.ctc_loss(*ctc_call(), blank=6), ConfigError, "none of the 6 classes"),
    (lambda: kw.ctc_loss(ctc_call()[0], np.arange(8), *ctc_call()[2:]), ShapeError, "add up to 9"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input_is_refused_with_what_would_do(
    call: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call()
