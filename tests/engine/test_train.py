"""Training: the same bits for the same seed, and after a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project_tree import ROOT

import kernelwright as kw
from kernelwright import nn
from kernelwright.kernels.errors import ConfigError, ShapeError


def digits() -> tuple[np.ndarray, np.ndarray]:
    with np.load(ROOT / "examples/data/digits.npz") as file:
        return file["images"].astype("f4") / 16, file["labels"].astype("i8")


def classify(model: Any, x: Any, labels: Any) -> Any:
    logits = model(x.reshape((x.shape[0], 64)) if len(x.shape) == 3 else x)
    right = kw.equal(kw.argmax(logits, 1), labels)
    return kw.cross_entropy(logits, labels), {"accuracy": kw.mean(right.astype("float32"))}


def mlp(*keys: int, drop: float = 0.0) -> Any:
    one, two = keys or (1, 2)
    return nn.Sequential(nn.Linear(64, 32, key=one), nn.ReLU(), nn.Dropout(drop), nn.Linear(32, 10, key=two))


def short(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits()
    return images[:count], labels[:count]


def fit(**options: Any) -> Any:
    given = {"epochs": 2, "data": short(), "progress": False, "model": mlp(drop=0.2), "loss_fn": classify}
    return kw.train.fit(**{"optimizer": kw.optim.adam(1e-2), **given, **options})


def bits(done: Any) -> dict[str, bytes]:
    return {name: np.asarray(a).tobytes() for name, a in nn.state_dict(done.model).items()}


def test_the_same_seed_gives_the_same_bits() -> None:
    model = mlp(drop=0.2)
    before = {name: np.asarray(a).copy() for name, a in nn.state_dict(model).items()}
    one, two, other = fit(model=model), fit(model=model), fit(model=model, seed=1)
    assert bits(one) == bits(two)
    assert bits(one) != bits(other)
    assert one.history[-1]["loss"] == two.history[-1]["loss"] < one.history[0]["loss"]
    for name, array in nn.state_dict(model).items():
        np.testing.assert_array_equal(np.asarray(array), before[name])


@pytest.mark.parametrize("patience", [None, 5])
def test_after_a_checkpoint_training_goes_on_to_the_same_bits(tmp_path: Path, patience: int | None) -> None:
    rate = kw.schedule.plateau(1e-2, patience=0, threshold=0.5)
    options: dict[str, Any] = {
        "optimizer": kw.optim.adam(rate),
        "validation": short(64),
        "patience": patience,
    }
    path = tmp_path / "run.safetensors"
    fit(**options, epochs=2, checkpoint=path)
    gone_on, straight = fit(**options, epochs=5, checkpoint=path), fit(**options, epochs=5)
    assert bits(gone_on) == bits(straight)
    assert [h["val_loss"] for h in gone_on.history] == [h["val_loss"] for h in straight.history]
    assert float(gone_on.state["lr"]) == float(straight.state["lr"]) < 1e-2
    assert rate.lr == 1e-2
    names = [p.name for p in tmp_path.iterdir()]
    assert sorted(names) == ["run.safetensors", "run.safetensors.previous"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"damaged.*run.safetensors.previous"):
        fit(**options, epochs=6, checkpoint=path)
    with pytest.raises(ConfigError, match="another seed"):
        fit(**options, epochs=6, checkpoint=tmp_path / "run.safetensors.previous", seed=3)


def test_accumulated_batches_are_one_large_batch() -> None:
    """200 rows are 4 batches of 50, or 8 of 25 taken in pairs."""
    options: dict[str, Any] = {"model": mlp(), "optimizer": kw.optim.sgd(0.1), "clip_norm": 1.0}
    large, small = fit(**options, batch_size=50), fit(**options, batch_size=25, accumulate=2)
    for one, two in zip(
        nn.state_dict(large.model).values(), nn.state_dict(small.model).values(), strict=True
    ):
        np.testing.assert_allclose(np.asarray(one), np.asarray(two), rtol=1e-4, atol=1e-5)


def test_the_last_batches_are_trained_with_too() -> None:
    """70 rows in batches of 20, three to an update: the second update has one batch, of ten rows."""
    seen = fit(model=mlp(), data=short(70), batch_size=20, accumulate=3, epochs=1)
    assert float(seen.state["step"]) == 2
    assert fit(data=short(70), batch_size=20, epochs=1).state["step"].item() == 4


def test_training_stops_when_nothing_gets_better() -> None:
    done = fit(optimizer=kw.optim.sgd(0.0), model=mlp(), epochs=9, patience=2, shuffle=False)
    assert len(done.history) == 3
    best = fit(epochs=6, patience=6, validation=short(64), optimizer=kw.optim.adam(0.03))
    losses = [h["val_loss"] for h in best.history]
    found = kw.train.evaluate(best.model, classify, short(64))
    assert found["loss"] == pytest.approx(min(losses), rel=1e-5)


def test_bfloat16_trains_parameters_of_float32() -> None:
    low = fit(model=mlp(), epochs=6, precision="bfloat16", validation=short())
    full = fit(model=mlp(), epochs=6, validation=short())
    assert {str(a.dtype) for a in nn.state_dict(low.model).values()} == {"float32"}
    assert low.history[-1]["val_loss"] == pytest.approx(full.history[-1]["val_loss"], rel=0.1)
    assert low.history[-1]["val_loss"] != full.history[-1]["val_loss"]
    assert low.history[-1]["val_accuracy"] > 0.9


def test_float16_trains_by_a_scaled_loss() -> None:
    low = fit(model=mlp(), epochs=6, precision="float16", validation=short())
    full = fit(model=mlp(), epochs=6, validation=short())
    assert {str(a.dtype) for a in nn.state_dict(low.model).values()} == {"float32"}
    assert low.history[-1]["val_loss"] == pytest.approx(full.history[-1]["val_loss"], rel=0.1)
    assert low.history[-1]["val_loss"] != full.history[-1]["val_loss"]


def steep(model: Any, x: Any, labels: Any) -> Any:
    """A loss whose scaled gradients do not fit float16 for large scales."""
    return classify(model, x, labels)[0] * 64.0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_update_that_overflows_is_left_out_and_halves_the_scale(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernelwright.engine.training import precision
    from kernelwright.engine.training.run import Run

    monkeypatch.setattr(precision, "FIRST", 2.0**24)
    run = Run(mlp(), steep, kw.optim.sgd(1e-4), seed=0, clip_norm=None, accumulate=accumulate,
              precision="float16", device=None)  # fmt: skip
    before = {name: np.asarray(a).copy() for name, a in nn.state_dict(run.model).items()}
    images, labels = short(16 * accumulate)
    batches = [(images[i : i + 16], labels[i : i + 16]) for i in range(0, len(images), 16)]

    class Quiet:
        def batch(self, *numbers: Any) -> None: ...

    run.epoch(0, batches, Quiet())  # type: ignore[arg-type]
    for name, a in nn.state_dict(run.model).items():
        np.testing.assert_array_equal(np.asarray(a), before[name])
    assert float(run.state["step"]) == 0.0
    assert float(run.scale["scale"]) == 2.0**23
    for epoch in range(1, 20):
        run.epoch(epoch, batches, Quiet())  # type: ignore[arg-type]
    assert float(run.state["step"]) > 5
    assert float(run.scale["good"]) == float(run.state["step"])
    assert 2.0**4 < float(run.scale["scale"]) < 2.0**22


def test_a_scale_that_stands_long_enough_is_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.engine.training import precision

    monkeypatch.setattr(precision, "FIRST", 8.0)
    monkeypatch.setattr(precision, "INTERVAL", 3.0)
    scale, grads = precision.scale_for("float16"), {"w": kw.ones(2)}
    seen = []
    for _ in range(7):
        _, scale = precision.kept_finite(grads, scale, grads, grads)
        seen.append((float(scale["scale"]), float(scale["good"])))
    assert seen == [(8, 1), (8, 2), (16, 0), (16, 1), (16, 2), (32, 0), (32, 1)]
    grads = {"w": kw.array(np.array([1.0, np.inf], "f4"))}
    kept, scale = precision.kept_finite(grads, scale, {"w": kw.zeros(2)}, grads)
    assert (float(scale["scale"]), float(scale["good"])) == (16, 0)
    np.testing.assert_array_equal(np.asarray(kept["w"]), 0)


def test_a_scale_goes_on_after_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit(precision="float16", epochs=1, checkpoint=path)
    on, straight = (fit(precision="float16", epochs=3, checkpoint=p) for p in (path, None))
    assert bits(on) == bits(straight)


def test_a_precision_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of bfloat16, float16"):
        fit(precision="float8")


def test_batches_may_come_from_a_function_of_the_epoch() -> None:
    images, labels = short(64)

    def data(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 64, 16):
            yield images[start : start + 16], labels[start : start + 16]

    one = fit(model=mlp(), data=data)
    two = fit(model=mlp(), data=list(data(0)))
    three = fit(model=mlp(), data=(images, labels), batch_size=16, shuffle=False)
    assert bits(one) == bits(two) == bits(three)


def test_progress_is_shown_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    fit(epochs=1)
    assert capsys.readouterr().out == ""
    fit(epochs=2, progress=True)
    out = capsys.readouterr().out
    assert "epoch 2/2" in out
    assert "accuracy" in out


def test_a_loss_that_is_not_finite_stops_training() -> None:
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) in epoch 1, batch \d"):
        fit(optimizer=kw.optim.sgd(1e30), model=mlp())


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"data": (np.zeros((3, 8, 8), "f4"), np.zeros(4, "i8"))}, ShapeError, "equally long"),
        ({"data": (np.zeros((0, 8, 8), "f4"), np.zeros(0, "i8"))}, ConfigError, "have no batches"),
        ({"accumulate": 0}, ConfigError, "accumulate and batch_size are 1 or more"),
        ({"monitor": "val_loss"}, ConfigError, "monitor='val_loss' is none of loss, accuracy"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: Any, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said):
        fit(**options)


class Words(nn.Module):
    """Every kind of layer that has a precision of its own, over whole numbers [B, T]."""

    def __init__(self, kind: str) -> None:
        self.embed = nn.Embedding(20, 8, key=1)
        self.norm, self.conv = nn.BatchNorm1d(8), nn.Conv1d(8, 8, 3, padding=1, key=2)
        self.inner = (
            nn.LSTM(8, 8, 2, batch_first=True, dropout=0.1, key=3)
            if kind == "lstm"
            else nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, key=3)
        )
        self.out = nn.Linear(8, 20, key=4)

    def __call__(self, x: Any) -> Any:
        y = self.norm(self.conv(kw.swapaxes(self.embed(x), 1, 2)))
        y = self.inner(kw.swapaxes(y, 1, 2))
        return self.out((y[0] if isinstance(y, tuple) else y)[:, -1])


@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_networks_of_many_layers_train_in_bfloat16(kind: str) -> None:
    words = np.random.default_rng(0).integers(0, 20, (64, 5))
    losses = []
    for precision in (None, "bfloat16"):
        options: dict[str, Any] = {"data": (words, words[:, 0]), "precision": precision, "epochs": 3}
        done = fit(model=Words(kind), **options)
        assert {str(a.dtype) for a in nn.state_dict(done.model).values()} == {"float32"}
        losses.append([h["loss"] for h in done.history])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert losses[0] != losses[1]
    assert losses[1][-1] < losses[1][0]
