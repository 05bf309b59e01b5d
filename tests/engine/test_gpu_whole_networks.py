"""The networks that people learn with, trained on a GPU in Triton's interpreter: the CPU's numbers, and the
same bits whether a step is launched or replayed from its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from late_transfers import LateTransfers  # noqa: E402
from triton_interpreter import StandIn, interpreted, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright import nn  # noqa: E402
from kernelwright.engine import tree  # noqa: E402

pytestmark = interpreted
RNG = np.random.default_rng(0)
STEPS = 2  # the first is launched, the second captured and replayed


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in() as runtime, kw.using(backend="triton"):  # CUDA C++ has no interpreter
        late = LateTransfers()
        runtime.transfers = lambda index: late  # type: ignore[attr-defined]
        yield runtime


def some(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype("float32")


def labels(count: int, *shape: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, count, shape)


def numbers(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(kw.array(x, device="cpu"))


def step_of(loss: Callable[..., Any], optimizer: Any, most: float | None) -> Any:
    """A training step that may be compiled: (model, state, key, *batch) -> (model, state, loss)."""

    def loss_of(model: Any, key: Any, *batch: Any) -> Any:
        with nn.training(key) as run:
            value = loss(model, *batch)
        return value, run.updated(model)

    def step(model: Any, state: Any, key: Any, *batch: Any) -> Any:
        (value, model), grads = kw.value_and_grad(loss_of, has_aux=True)(model, key, *batch)
        if most is not None:
            grads, _ = kw.optim.clip_by_global_norm(grads, most)
        return *optimizer.update(model, grads, state), value

    return step


def trained(device: str, step: Any, model: Any, optimizer: Any, data: Any) -> tuple[Any, list[float], Any]:
    """The model and the losses of `STEPS` steps, and the plan."""
    f = kw.compile(step, donate=(0, 1))
    model = tree.map(lambda x: kw.array(x, device=device), model)
    state, key = optimizer.init(model), kw.random.key(3, device=device)
    batch = [kw.array(x, device=device) for x in data]
    losses = []
    for _ in range(STEPS):
        model, state, loss = f(model, state, key, *batch)
        losses.append(loss.item())
    return (model, state), losses, f.plan


def check(
    model: Any,
    loss: Callable[..., Any],
    optimizer: Any,
    *data: Any,
    most: float | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Any:
    """Train on the CPU, on the GPU through graphs and there without them; compare. Returns the GPU's plan."""
    step = step_of(loss, optimizer, most)
    here, wanted, _ = trained("cpu", step, model, optimizer, data)
    there, found, plan = trained("cuda:0", step, model, optimizer, data)
    assert plan.replays.replayed == STEPS - 1, plan.replays.why_not
    assert all(call.choice.fallback is None for call in plan.calls)
    np.testing.assert_allclose(found, wanted, rtol=rtol)
    paths = tree.flatten(here)[1].paths("")
    for path, a, b in zip(paths, tree.leaves(here), tree.leaves(there), strict=True):
        assert b.device == "cuda:0", path
        np.testing.assert_allclose(numbers(b), numbers(a), rtol=rtol, atol=atol, err_msg=path)
    with kw.using(cuda_graphs=False):
        direct, again, other = trained("cuda:0", step, model, optimizer, data)
    assert other.replays.replayed == 0
    assert again == found
    for path, a, b in zip(paths, tree.leaves(direct), tree.leaves(there), strict=True):
        assert numbers(a).tobytes() == numbers(b).tobytes(), path
    return plan


def classified(model: Any, x: Any, y: Any) -> Any:
    return kw.cross_entropy(model(x), y)


def test_a_perceptron_with_dropout() -> None:
    model = nn.Sequential(
        nn.Linear(12, 16, key=1), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 16, key=2), nn.Tanh(),
        nn.Dropout(0.3), nn.Linear(16, 5, key=3),
    )  # fmt: skip
    check(model, classified, kw.optim.adam(1e-2), some(9, 12), labels(5, 9))


def test_a_network_of_convolutions_batch_norms_and_pools() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False, key=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, bias=False, key=2), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4, key=3),
    )  # fmt: skip
    optimizer = kw.optim.sgd(0.05, momentum=0.9)
    plan = check(model, classified, optimizer, some(3, 3, 6, 6), labels(4, 3))
    assert {call.node.attrs["layout"] for call in plan.calls if "conv" in call.node.op.name} == {"NHWC"}
    masks = [call.inputs[5] for call in plan.calls if call.node.op.name == "batch_norm_grad"]
    assert len(masks) == 2
    assert None not in masks  # a relu's gradient is part of the norm's


class Residual(nn.Module):
    """A block as ResNet has it."""

    def __init__(self) -> None:
        self.conv1 = nn.Conv2d(4, 8, 3, 2, 1, bias=False, key=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 1, 1, bias=False, key=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.past = nn.Conv2d(4, 8, 1, 2, bias=False, key=3)
        self.bn3 = nn.BatchNorm2d(8)

    def __call__(self, x: Any) -> Any:
        y = kw.relu(self.bn1(self.conv1(x)))
        return kw.relu(self.bn2(self.conv2(y)) + self.bn3(self.past(x)))


def test_a_residual_block() -> None:
    def loss(model: Any, x: Any, y: Any) -> Any:
        return kw.cross_entropy(kw.mean(model(x), axis=(2, 3)), y)

    check(Residual(), loss, kw.optim.sgd(0.05, momentum=0.9), some(3, 4, 7, 7), labels(8, 3))


class Language(nn.Module):
    """words: [T, B] -> [T B, words]."""

    def __init__(self, kind: Any, layers: int) -> None:
        self.embed = nn.Embedding(11, 6, key=1)
        self.layers = kind(6, 8, layers, key=2)
        self.out = nn.Linear(8, 11, key=3)

    def __call__(self, words: Any) -> Any:
        return self.out(self.layers(self.embed(words))[0]).reshape((-1, 11))


@pytest.mark.parametrize(("kind", "layers"), [(nn.LSTM, 2), (nn.GRU, 1)], ids=["lstm", "gru"])
def test_a_language_model(kind: Any, layers: int) -> None:
    words = labels(11, 3, 2)
    targets = labels(11, 6)
    check(Language(kind, layers), classified, kw.optim.adam(1e-2), words, targets, most=0.5)


class Encoder(nn.Module):
    """words: [B, T] -> [B, classes]."""

    def __init__(self, norm_first: bool, dropout: float) -> None:
        self.embed = nn.Embedding(13, 8, key=1)
        self.place = nn.Embedding(4, 8, key=2)
        self.layer = nn.TransformerEncoderLayer(
            8, 2, 12, dropout, activation="gelu", batch_first=True, norm_first=norm_first, key=3
        )
        self.out = nn.Linear(8, 3, key=4)

    def __call__(self, words: Any) -> Any:
        return self.out(kw.mean(self.layer(self.embed(words) + self.place.weight), axis=1))


@pytest.mark.parametrize(("norm_first", "dropout"), [(True, 0.1), (False, 0.0)])
def test_an_encoder_of_a_transformer(norm_first: bool, dropout: float) -> None:
    # The gradient of the keys' bias is but rounding, of which Adam would make whole steps: hence its eps.
    optimizer = kw.optim.adamw(1e-2, eps=1e-3)
    plan = check(Encoder(norm_first, dropout), classified, optimizer, labels(13, 2, 4), labels(3, 2))
    if not dropout:  # heads lie side by side from the beginning, and their slopes in one piece
        names = {call.node.op.name for call in plan.calls}
        assert {"attention", "attention_grad"} < names
        assert not {"reshape", "transpose", "concat"} & names


class UNet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, with a way past."""

    def __init__(self) -> None:
        self.into = nn.Conv2d(2, 4, 3, padding=1, key=1)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, key=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2, key=3)
        self.mix = nn.Conv2d(8, 4, 3, padding=1, key=4)
        self.last = nn.Conv2d(12, 2, 1, key=5)

    def __call__(self, x: Any) -> Any:
        a = kw.relu(self.into(x))
        b = kw.relu(self.down(a))
        c = kw.relu(self.mix(kw.concat([self.up(b), a], axis=1)))
        wide = kw.interpolate(b, scale_factor=2, mode="bilinear")
        return self.last(kw.concat([c, wide], axis=1))


def test_an_autoencoder_with_ways_past() -> None:
    def loss(model: Any, x: Any, y: Any) -> Any:
        return kw.mse_loss(kw.sigmoid(model(x)), y)

    check(UNet(), loss, kw.optim.adam(1e-2), some(1, 2, 6, 6), RNG.random((1, 2, 6, 6), np.float32))


def test_a_segmentation_judged_at_each_pixel() -> None:
    def loss(model: Any, x: Any, y: Any) -> Any:
        return kw.cross_entropy(model(x), y, ignore_index=0)

    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, key=1), nn.SiLU(), nn.Conv2d(6, 4, 1, key=2))
    check(model, loss, kw.optim.sgd(0.1), some(2, 2, 5, 5), labels(4, 2, 5, 5))


class Head(nn.Module):
    """Of each image the best places by a score, and a box regressed there."""

    def __init__(self) -> None:
        self.body = nn.Conv2d(3, 6, 3, padding=1, key=1)
        self.score = nn.Conv2d(6, 1, 1, key=2)
        self.box = nn.Conv2d(6, 4, 1, key=3)

    def __call__(self, x: Any) -> Any:
        y = kw.relu(self.body(x))
        scores = kw.reshape(self.score(y), (len(x), -1))
        boxes = kw.reshape(kw.permute(self.box(y), (0, 2, 3, 1)), (len(x), -1, 4))
        best, places = kw.topk(scores, 5, axis=1)
        order = kw.broadcast_to(kw.expand_dims(places, 2), (len(x), 5, 4))
        ranked = kw.sort(scores, axis=1)
        ranked = ranked[0] if isinstance(ranked, tuple) else ranked
        return best, kw.gather(boxes, 1, order), ranked


def test_a_head_that_picks_the_best_places() -> None:
    def loss(model: Any, x: Any, wanted: Any) -> Any:
        best, boxes, ranked = model(x)
        return (
            kw.smooth_l1_loss(boxes, wanted)
            + kw.binary_cross_entropy_with_logits(best, kw.ones_like(best))
            + 0.1 * (ranked[:, :3] ** 2).mean()
        )

    check(Head(), loss, kw.optim.adam(1e-2), some(2, 3, 4, 4), some(2, 5, 4))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_with_a_scaled_loss(precision: str) -> None:
    """Two batches, of which the parameters take their steps as on the CPU, within the rounding of 16 bits."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, key=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 4, key=2),
    )  # fmt: skip
    data = some(8, 2, 6, 6), labels(4, 8)

    def fit(device: str | None) -> Any:
        return kw.train.fit(
            model, classified, data, kw.optim.sgd(0.1, momentum=0.9), batch_size=4, precision=precision,
            device=device, progress=False, clip_norm=1.0,
        )  # fmt: skip

    there, here = fit("cuda"), fit(None)
    assert there.history[0]["loss"] == pytest.approx(here.history[0]["loss"], rel=2e-2)
    for name, a in nn.state_dict(there.model).items():
        b = nn.state_dict(here.model)[name]
        assert a.device == "cuda:0"
        assert str(a.dtype) == str(b.dtype)
        np.testing.assert_allclose(numbers(a), np.asarray(b), rtol=2e-2, atol=4e-3, err_msg=name)
