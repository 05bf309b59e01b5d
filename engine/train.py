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
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.errors import ConfigError, ShapeError
from . import checkpoint as files
from . import nn, optim, tree
from .array import Array, array, asarray
from .autograd import value_and_grad
from .compile import compile as compiled
from .functional import random
from .progress import Progress
from .schedule import plateau

Batch = tuple[Any, ...]
Data = tuple[Any, ...] | Iterable[Batch] | Callable[[int], Iterable[Batch]]
Numbers = dict[str, float]


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
        precision: "bfloat16": the model computes in it, from parameters kept in their own dtype, and what it
            returns comes in float32.
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
    run = _Run(model, loss_fn, optimizer, seed, clip_norm, accumulate, precision)
    watch = _Watch(patience, monitor or ("loss" if validation is None else "val_loss"))
    history = run.resumed(checkpoint, watch)
    with Progress(epochs, progress) as shown:
        while len(history) < epochs and not watch.stop(history):
            epoch, start = len(history), time.perf_counter()
            means = run.epoch(epoch, _batches(data, batch_size, shuffle, seed, epoch), shown)
            if validation is not None:
                batches = _batches(validation, batch_size, False, seed, epoch)
                means |= {f"val_{k}": v for k, v in _measured(run.judge, run.model, batches).items()}
            run.adjust(watch.look(means, len(history), run))
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
    return _measured(_judge(loss_fn, precision), model, _batches(data, batch_size, False, 0, 0))


class _Run:
    """The model and its optimizer's state on their way, and the compiled functions that move them."""

    def __init__(
        self,
        model: Any,
        loss_fn: Callable[..., Any],
        optimizer: optim.Optimizer,
        seed: int,
        clip_norm: float | None,
        accumulate: int,
        precision: str | None,
    ) -> None:
        if isinstance(optimizer.lr, plateau):  # which remembers what it has seen
            optimizer = dataclasses.replace(optimizer, lr=dataclasses.replace(optimizer.lr))
        self.optimizer, self.accumulate, self.key = optimizer, accumulate, random.key(seed)
        # Steps write over what they are given, which must not be the caller's.
        self.model = tree.map(array, model)
        self.state = optimizer.init(self.model)
        self.judge = _judge(loss_fn, precision)
        slopes = _slopes(loss_fn, precision)

        def step(model: Any, state: Any, key: Any, *batch: Any) -> tuple[Any, ...]:
            model, grads, numbers = slopes(model, key, *batch)
            return (*update(model, state, grads), numbers)

        def update(model: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            if clip_norm is not None:
                grads, _ = optim.clip_by_global_norm(grads, clip_norm)
            params, rest = nn.partition(model)
            params, state = optimizer.update(params, grads, state)
            return nn.combine(params, rest), state

        def gather(model: Any, total: Any, key: Any, *batch: Any) -> tuple[Any, ...]:
            model, grads, numbers = slopes(model, key, *batch)
            return model, tree.map(lambda one, more: one + more, total, grads), numbers

        def average(model: Any, state: Any, total: Any, count: Any) -> tuple[Any, Any]:
            return update(model, state, tree.map(lambda one: one / count.astype(one.dtype), total))

        self._step = compiled(step, donate=(0, 1))
        self._gather, self._average = compiled(gather, donate=(0, 1)), compiled(average, donate=(0, 1, 2))

    def epoch(self, epoch: int, batches: Iterable[Batch], shown: Progress) -> Numbers:
        """One pass over the batches; the means of what the loss function gave."""
        sums, key = _Means(), random.fold_in(self.key, epoch)
        total, gathered = None, 0
        for number, batch in enumerate(batches):
            drawn = random.fold_in(key, number)
            if self.accumulate == 1:
                self.model, self.state, numbers = self._step(self.model, self.state, drawn, *batch)
            else:
                if total is None:
                    params = nn.partition(self.model)[0]
                    total = tree.map(lambda p: Array(np.zeros(p.shape, p.dtype)), params)
                self.model, total, numbers = self._gather(self.model, total, drawn, *batch)
                gathered += 1
                if gathered == self.accumulate:
                    self._apply(total, gathered)
                    total, gathered = None, 0
            loss = sums.add(numbers, len(batch[0]))
            if not math.isfinite(loss):
                raise ConfigError(
                    f"fit: the loss is {loss} in epoch {epoch + 1}, batch {number + 1}. Lower the learning "
                    "rate, clip gradients by clip_norm=1.0, or find the operation with kw.debug_nans()."
                )
            shown.batch(epoch, number, loss)
        if gathered:
            self._apply(total, gathered)
        return sums.means("data")

    def _apply(self, total: Any, count: int) -> None:
        self.model, self.state = self._average(self.model, self.state, total, array(float(count)))

    def adjust(self, measured: float) -> None:
        """Let a plateau see what was measured."""
        if isinstance(self.optimizer.lr, plateau):
            self.state = self.optimizer.with_lr(self.state, self.optimizer.lr.after(measured))

    def save(self, path: str | os.PathLike[str], history: list[Numbers], watch: _Watch) -> None:
        """Write what `resumed` reads."""
        made = {"model": self.model, "optimizer": self.state}
        made |= {} if watch.best is None else {"best": watch.best}
        rate = self.optimizer.lr
        info = {"history": history, "watch": [watch.least, watch.at], "seed": self.key.tolist()}
        info |= {"plateau": dataclasses.asdict(rate)} if isinstance(rate, plateau) else {}
        files.save(path, made, info, keep=True)

    def resumed(self, path: str | os.PathLike[str] | None, watch: _Watch) -> list[Numbers]:
        """Go on from a checkpoint, where there is one; the history so far."""
        if path is None or not Path(path).exists():
            return []
        made = {"model": self.model, "optimizer": self.state}
        _, info = files.read(path)
        least, watch.at = info["watch"]
        watch.least = math.inf if least is None else least
        if watch.patience is not None and info["history"]:
            made["best"] = self.model
        if info["seed"] != self.key.tolist():
            raise ConfigError(f"fit: {path} was trained from another seed; give that seed, or another file.")
        found, _ = files.read(path, made)
        self.model, self.state, watch.best = found["model"], found["optimizer"], found.get("best")
        if "plateau" in info:
            self.optimizer = dataclasses.replace(self.optimizer, lr=plateau(**info["plateau"]))
        return list(info["history"])


class _Watch:
    """Early stopping: the best epoch so far, and its model."""

    def __init__(self, patience: int | None, monitor: str) -> None:
        self.patience, self.monitor = patience, monitor
        self.least, self.at, self.best = math.inf, 0, None

    def look(self, means: Numbers, epoch: int, run: _Run) -> float:
        """Take note of an epoch; what was measured."""
        if self.monitor not in means:
            raise ConfigError(f"fit: monitor={self.monitor!r} is none of {', '.join(means)}.")
        measured = means[self.monitor]
        if measured < self.least or epoch == 0:
            self.least, self.at = measured, epoch
            if self.patience is not None:
                self.best = tree.map(array, run.model)
        return measured

    def stop(self, history: list[Numbers]) -> bool:
        """Whether there was nothing better for long enough."""
        return self.patience is not None and len(history) - 1 - self.at >= self.patience > -1 < len(history)


class _Means:
    """Sums of numbers, each counted as often as its batch has rows."""

    def __init__(self) -> None:
        self._sums: Numbers = {}
        self._rows = 0

    def add(self, numbers: Mapping[str, Any], rows: int) -> float:
        """Add a batch's; its loss."""
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + rows * float(value)
        self._rows += rows
        return float(numbers["loss"])

    def means(self, what: str) -> Numbers:
        """By name, the loss first."""
        if not self._rows:
            raise ConfigError(f"the {what} have no batches.")
        names = sorted(self._sums, key=lambda name: (name != "loss", name))
        return {name: self._sums[name] / self._rows for name in names}


def _slopes(loss_fn: Callable[..., Any], precision: str | None) -> Callable[..., Any]:
    """`(model, key, *batch) -> (model with new buffers, gradients of nn.partition's first, numbers)`."""

    def loss(params: Any, rest: Any, key: Any, *batch: Any) -> tuple[Any, Any]:
        model = nn.combine(params, rest)
        used = model if precision is None else nn.cast(model, precision)
        with nn.training(key) as run:
            numbers = _numbers(loss_fn(used if precision is None else _Low(used, precision), *batch))
        return numbers["loss"], (nn.partition(run.updated(used))[1], numbers)

    differentiated = value_and_grad(loss, has_aux=True)

    def slopes(model: Any, key: Any, *batch: Any) -> tuple[Any, Any, Any]:
        params, rest = nn.partition(model)
        (_, (rest, numbers)), grads = differentiated(params, rest, key, *batch)
        return nn.combine(params, rest), grads, numbers

    return slopes


def _judge(loss_fn: Callable[..., Any], precision: str | None) -> Callable[..., Any]:
    def judge(model: Any, *batch: Any) -> Any:
        used = model if precision is None else _Low(nn.cast(model, precision), precision)
        return _numbers(loss_fn(used, *batch))

    made: Callable[..., Any] = compiled(judge)
    return made


def _measured(judge: Callable[..., Any], model: Any, batches: Iterable[Batch]) -> Numbers:
    sums = _Means()
    for batch in batches:
        sums.add(judge(model, *batch), len(batch[0]))
    return sums.means("validation data")


def _numbers(result: Any) -> dict[str, Any]:
    """What a loss function gave, by name."""
    loss, more = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    return {"loss": loss, **more}


class _Low:
    """A model in a lower precision, called with arrays of any, and giving float32."""

    def __init__(self, model: Any, precision: str) -> None:
        self._model, self._precision = model, precision

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = _converted((args, kwargs), self._precision)
        return _converted(self._model(*args, **kwargs), "float32")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _converted(values: Any, dtype: str) -> Any:
    """Floating-point arrays in another dtype, in whatever they are packed."""
    if isinstance(values, dict):
        return {key: _converted(value, dtype) for key, value in values.items()}
    if isinstance(values, list | tuple) and not hasattr(values, "_fields"):
        return type(values)(_converted(value, dtype) for value in values)
    is_one = isinstance(values, Array | np.ndarray) and tree.is_float(values)
    return asarray(values).astype(dtype) if is_one and str(values.dtype) != dtype else values


def _batches(data: Data, size: int, shuffle: bool, seed: int, epoch: int) -> Iterator[Batch]:
    """The batches of an epoch; those of arrays are gathered in an order that only seed and epoch decide."""
    if callable(data):
        yield from data(epoch)
        return
    if not isinstance(data, tuple):
        yield from data
        return
    arrays = [np.asarray(part) for part in data]
    lengths = {len(part) if part.ndim else 0 for part in arrays}
    if len(lengths) != 1:
        raise ShapeError(
            f"the arrays of data have shapes {', '.join(str(part.shape) for part in arrays)}; the first axis "
            "counts examples, and must be equally long."
        )
    (rows,) = lengths
    order = np.arange(rows)
    if shuffle:
        np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(order)
    for start in range(0, rows, size):
        chosen = order[start : start + size]
        yield tuple(Array(np.take(part, chosen, axis=0)) for part in arrays)
