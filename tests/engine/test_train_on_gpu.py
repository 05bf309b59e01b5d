"""Training on a GPU, on a stand-in whose kernels are the ops' NumPy definitions: the same as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from late_transfers import LateTransfers  # noqa: E402
from numpy_cuda import numpy_kernels  # noqa: E402
from triton_interpreter import StandIn, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright import nn  # noqa: E402


@pytest.fixture
def gpu() -> Iterator[StandIn]:
    with standing_in() as found, numpy_kernels(over_real=True):
        late = LateTransfers()
        found.transfers = lambda index: late  # type: ignore[attr-defined]
        yield found


def data(count: int = 90) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    return (rng.standard_normal((count, 8)) + 2 * np.eye(8)[labels]).astype("f4"), labels


def mlp() -> Any:
    """No bias before the batch norm: its gradient is but rounding, which Adam makes whole steps of."""
    return nn.Sequential(
        nn.Linear(8, 16, bias=False, key=1),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(16, 3, key=2),
    )


def loss(model: Any, x: Any, labels: Any) -> Any:
    logits = model(x)
    right = kw.equal(kw.argmax(logits, 1), labels)
    return kw.cross_entropy(logits, labels), {"accuracy": kw.mean(right.astype("float32"))}


def fit(device: str | None, **options: Any) -> Any:
    given = {"epochs": 3, "batch_size": 20, "validation": data(30), "progress": False, **options}
    return kw.train.fit(mlp(), loss, data(), kw.optim.adam(1e-2), device=device, **given)


def close(one: Any, two: Any, tolerance: float = 1e-4) -> None:
    """Whether two fits came to the same, wherever they were made."""
    for there, here in zip(one.history, two.history, strict=True):
        for name in set(there) - {"seconds"}:
            assert there[name] == pytest.approx(here[name], rel=tolerance, abs=tolerance), name
    mine, theirs = nn.state_dict(one.model), nn.state_dict(two.model)
    for name, a in mine.items():
        numbers = np.asarray(kw.array(a, device="cpu"))
        np.testing.assert_allclose(numbers, np.asarray(theirs[name]), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"accumulate": 2}], ids=str)
def test_it_comes_to_the_same_as_on_the_cpu(gpu: StandIn, options: dict[str, Any]) -> None:
    there, here = fit("cuda", **options), fit(None, **options)
    assert {a.device for a in nn.state_dict(there.model).values()} == {"cuda:0"}
    close(there, here)
    found = kw.train.evaluate(there.model, loss, data(30))
    assert found["loss"] == pytest.approx(kw.train.evaluate(here.model, loss, data(30))["loss"], rel=1e-4)


def test_a_model_that_is_on_the_gpu_is_trained_there(gpu: StandIn) -> None:
    model = kw.to_device(mlp(), "cuda")
    before = nn.state_dict(model)["0.weight"].tolist()
    done = kw.train.fit(model, loss, data(), kw.optim.sgd(0.1), progress=False)
    assert nn.state_dict(done.model)["0.weight"].device == "cuda:0"
    assert nn.state_dict(model)["0.weight"].tolist() == before


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_there_too(gpu: StandIn, precision: str) -> None:
    low = fit("cuda", precision=precision, epochs=6)
    assert {str(a.dtype) for a in nn.state_dict(low.model).values()} == {"float32"}
    assert low.history[-1]["val_loss"] < 0.8 * low.history[0]["val_loss"]


def test_after_a_checkpoint_training_goes_on_to_the_same_bits(gpu: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fit("cuda", epochs=2, checkpoint=path)
    on, straight = fit("cuda", epochs=4, checkpoint=path), fit("cuda", epochs=4)
    for name, a in nn.state_dict(on.model).items():
        assert a.tolist() == nn.state_dict(straight.model)[name].tolist()


def test_a_loss_that_is_not_finite_is_told_with_its_batch(gpu: StandIn) -> None:
    x, labels = data()
    x[45] = np.nan  # in the third batch of 20
    with pytest.raises(kw.errors.ConfigError, match=r"epoch 1, batch 3\b"):
        kw.train.fit(
            mlp(), loss, (x, labels), kw.optim.sgd(0.1), batch_size=20, shuffle=False, device="cuda",
            progress=False,
        )  # fmt: skip
