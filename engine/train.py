"""Training loops: `fit` runs a compiled step over the batches of each epoch, and is the same to the bit for
the same seed; `evaluate` measures a model.

    def loss_fn(model, images, labels):
        logits = model(images)
        right = kw.argmax(logits, 1) == labels
        return kw.cross_entropy(logits, labels), {"accuracy": right.astype("float32").mean()}

    done = kw.train.fit(model, loss_fn, (x, y), kw.optim.adam(1e-3), epochs=10, validation=(x_test, y_test))
    print(done.history[-1], kw.train.evaluate(done.model, loss_fn, (x_test, y_test)))
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..kernels.cuda.device import preferred
from ..kernels.errors import ConfigError
from . import optim
from .progress import Progress
from .training.batches import Batch, Data, batches
from .training.means import Means, Numbers
from .training.precision import checked
from .training.run import Run, device_of
from .training.steps import judge_of
from .training.upload import on_device
from .training.watch import Watch


@dataclasses.dataclass
class Fitted:
    """What `fit` gives: the model, the optimizer's state, and for each epoch its means, by name."""

    model: Any
    state: optim.State
    history: list[Numbers]


def fit(
    model: Any,
    loss_fn: Callable[..., Any],
    data: Data,
    optimizer: optim.Optimizer,
    epochs: int = 1,
    *,
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    validation: Data | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    precision: str | None = None,
    device: str | None = None,
    patience: int | None = None,
    monitor: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Fitted:
    """Train a model.

    Args:
        model: a Module, or any tree that loss_fn takes; it stays as it is, `Fitted.model` is the trained one.
        loss_fn: `(model, *batch) -> loss`, or `(loss, {name: number})`, all 0-d. It runs within
            `nn.training`, for validation outside of it.
        data: arrays of one length, cut into batches in an order that seed and epoch give; or batches, a tuple
            of arrays each; or a function that gives the batches of an epoch.
        optimizer: from `kw.optim`.
        epochs: how often the data are gone through, those before a checkpoint included.
        batch_size, shuffle: for arrays.
        seed: of the order and of what dropout draws.
        validation: like data, measured after each epoch; its numbers are called `val_...`.
        clip_norm: the global norm that gradients are scaled down to.
        accumulate: how many batches are averaged to one update; an epoch's last update takes what is left.
        precision: "bfloat16" or "float16": the model computes in it, from parameters kept in their own dtype,
            and what it returns comes in float32. Gradients in float16 are those of a scaled loss: an update
            whose gradients are not all finite is left out, and the scale is halved.
        device: where to train: `"cuda"`, `"cuda:1"`, or `"auto"` for a GPU where there is one. The model and
            the optimizer's state are copied there, and batches on their way, beside the step before. Where
            the model is unless given.
        patience: stop after so many epochs in which `monitor` got no smaller, and give the best one's model.
        monitor: a name in the history; "val_loss" where there is validation, else "loss".
        checkpoint: a file that is written after each epoch, the one before kept as `<checkpoint>.previous`.
            Where it exists, training goes on from it, to the same bits as if it had never stopped.
        progress: whether to show it.

    Returns:
        The trained model, the optimizer's state and the history.

    Raises:
        ConfigError: for settings that mean nothing, a damaged checkpoint, or a loss that is not finite.
        ShapeError: for arrays of different lengths.
    """
    if accumulate < 1 or batch_size < 1:
        raise ConfigError(f"fit: accumulate and batch_size are 1 or more, got {accumulate} and {batch_size}.")
    run = Run(
        model,
        loss_fn,
        optimizer,
        seed=seed,
        clip_norm=clip_norm,
        accumulate=accumulate,
        precision=checked(precision),
        device=preferred() if device == "auto" else device,
    )
    watch = Watch(patience, monitor or ("loss" if validation is None else "val_loss"))
    history = run.resumed(checkpoint, watch)
    with Progress(epochs, progress) as shown:
        while len(history) < epochs and not watch.stop(history):
            epoch, start = len(history), time.perf_counter()
            means = run.epoch(epoch, batches(data, batch_size, shuffle, seed, epoch), shown)
            if validation is not None:
                given = batches(validation, batch_size, False, seed, epoch)
                found = _measured(run.judge, run.model, on_device(given, run.device))
                means |= {f"val_{k}": v for k, v in found.items()}
            run.adjust(watch.look(means, len(history), run.model))
            history.append({**means, "seconds": time.perf_counter() - start})
            shown.epoch(epoch, history[-1])
            if checkpoint is not None:
                run.save(checkpoint, history, watch)
    return Fitted(run.model if watch.best is None else watch.best, run.state, history)


def evaluate(
    model: Any,
    loss_fn: Callable[..., Any],
    data: Data,
    *,
    batch_size: int = 256,
    precision: str | None = None,
) -> Numbers:
    """The means of what loss_fn gives over data, `{"loss": ..., ...}`; arguments as for `fit`."""
    given = on_device(batches(data, batch_size, False, 0, 0), device_of(model))
    return _measured(judge_of(loss_fn, checked(precision)), model, given)


def _measured(judge: Callable[..., Any], model: Any, given: Iterable[Batch]) -> Numbers:
    sums = Means()
    for batch in given:
        sums.add(judge(model, *batch), len(batch[0]))
    return sums.means("validation data")
