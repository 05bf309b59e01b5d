"""The networks of examples/digits_*.py beside the same in PyTorch: from the same parameters and batches, the
losses of the first 50 steps. Without their dropout, whose random numbers are nobody else's.

Where rounding puts a number on this or that side of a kink (ReLU, max pooling), two right trainings part, and
the steps behind it make more of it: PyTorch's own in float32 and in float64 do, for the examples' CNN, from
some parameters and batches on. The CNN beside it is the same but smooth.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from project_tree import ROOT

import kernelwright as kw
from kernelwright import nn

STEPS, BATCH, EPOCH = 50, 32, 45  # EPOCH: steps that the examples make in one


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same for both sides."""
    with np.load(ROOT / "examples/data/digits.npz") as file:
        images, labels = file["images"].astype("f4") / 16, file["labels"].astype("i8")
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        chosen = rng.choice(len(images), BATCH, replace=False)
        yield images[chosen], labels[chosen]


class Reader(nn.Module):
    def __init__(self) -> None:
        self.lstm = nn.LSTM(8, 64, batch_first=True, key=1)
        self.out = nn.Linear(64, 10, key=2)

    def __call__(self, x: Any) -> Any:
        return self.out(self.lstm(x)[1][0][0])


def their_reader(torch: Any) -> Any:
    class TorchReader(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(8, 64, batch_first=True)
            self.out = torch.nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            return self.out(self.lstm(x)[1][0][0])

    return TorchReader()


def layers(library: Any, keyed: bool, name: str) -> Any:
    """A network of our `nn` or of PyTorch's, whose layers have the same names."""

    def key(number: int) -> dict[str, int]:
        return {"key": number} if keyed else {}

    def block(inputs: int, outputs: int, activation: str) -> list[Any]:
        conv = library.Conv2d(inputs, outputs, 3, padding=1, bias=False, **key(inputs))
        return [conv, library.BatchNorm2d(outputs), getattr(library, activation)()]

    def lines(*sizes: int) -> list[Any]:
        made = []
        for inputs, outputs in pairwise(sizes):
            made += [library.Linear(inputs, outputs, **key(inputs)), library.ReLU()]
        return made[:-1]

    if name == "mlp":
        found = lines(64, 128, 128, 10)
    elif name == "autoencoder":
        found = [*lines(64, 128, 64, 8), *lines(8, 64, 128, 64), library.Sigmoid()]
    else:
        kind, pool = ("SiLU", library.AvgPool2d) if name == "smooth cnn" else ("ReLU", library.MaxPool2d)
        found = [*block(1, 32, kind), *block(32, 64, kind), pool(2), *block(64, 64, kind), pool(2)]
        found += [library.Flatten(), library.Linear(256, 10, **key(9))]
    return library.Sequential(*found)


def one_cycle(rate: float, epochs: int) -> tuple[Any, Any]:
    """Our schedule, and what makes PyTorch's."""
    steps = epochs * EPOCH
    return kw.schedule.one_cycle(rate, steps), lambda torch, optimizer: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, cycle_momentum=False
    )


def cosine(rate: float, epochs: int) -> tuple[Any, Any]:
    return kw.schedule.cosine(
        rate, epochs * EPOCH
    ), lambda torch, optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * EPOCH)


# name -> shape of an image, optimizer, learning rate and schedule, largest norm of the gradients
RECIPES: dict[str, tuple[tuple[int, ...], str, float, tuple[Any, Any], float | None]] = {
    "mlp": ((64,), "adamw", 3e-3, one_cycle(3e-3, 40), None),
    "cnn": ((1, 8, 8), "adamw", 3e-3, one_cycle(3e-3, 20), None),
    "smooth cnn": ((1, 8, 8), "adamw", 3e-3, one_cycle(3e-3, 20), None),
    "lstm": ((8, 8), "adam", 1e-2, one_cycle(1e-2, 30), 1.0),
    "autoencoder": ((64,), "adam", 2e-3, cosine(2e-3, 60), None),
}


@pytest.mark.parametrize("name", RECIPES)
def test_fifty_steps_have_the_losses_of_pytorch(name: str) -> None:
    """Each loss within 1e-4 of PyTorch's."""
    torch = pytest.importorskip("torch", reason="waits for PyTorch, whose losses these are")
    shape, kind, rate, (schedule, their_schedule), most = RECIPES[name]
    torch.manual_seed(0)
    theirs = their_reader(torch) if name == "lstm" else layers(torch.nn, False, name)
    ours = Reader() if name == "lstm" else layers(nn, True, name)
    model = nn.from_torch_state_dict(ours, theirs.state_dict())

    other = getattr(torch.optim, {"adam": "Adam", "adamw": "AdamW"}[kind])(theirs.parameters(), rate)
    slower = their_schedule(torch, other)
    wanted = []
    for images, labels in batches():
        x = torch.tensor(images.reshape(-1, *shape))
        other.zero_grad()
        y = theirs(x)
        if name == "autoencoder":
            value = torch.nn.functional.mse_loss(y, x)
        else:
            value = torch.nn.functional.cross_entropy(y, torch.tensor(labels))
        value.backward()
        if most:
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), most)
        other.step()
        slower.step()
        wanted.append(value.item())

    optimizer = getattr(kw.optim, kind)(lr=schedule)

    def loss(model: Any, x: Any, labels: Any) -> Any:
        with nn.training() as run:
            y = model(x)
        value = kw.mse_loss(y, x) if name == "autoencoder" else kw.cross_entropy(y, labels)
        return value, run.updated(model)

    @kw.compile(donate=(0, 1))
    def step(model: Any, state: Any, x: Any, labels: Any) -> Any:
        (value, model), grads = kw.value_and_grad(loss, has_aux=True)(model, x, labels)
        if most:
            grads, _ = kw.optim.clip_by_global_norm(grads, most)
        return (*optimizer.update(model, grads, state), value)

    state = optimizer.init(model)
    found = []
    for images, labels in batches():
        model, state, value = step(model, state, images.reshape(-1, *shape), labels)
        found.append(float(value))
    assert found[-1] < found[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    print(f"{name}: losses differ by at most {np.max(np.abs(np.divide(found, wanted) - 1)):.1e} of theirs")
