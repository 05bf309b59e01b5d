"""A model and its optimizer's state on their way through the epochs, and what a checkpoint holds of them."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...kernels.errors import ConfigError
from .. import checkpoint as files
from .. import nn, optim, tree
from ..array import Array, array
from ..functional import random
from ..progress import Progress
from ..schedule import plateau
from .batches import Batch
from .means import Means, Numbers
from .precision import scale_for
from .steps import Steps, judge_of
from .upload import on_device
from .watch import Watch


class Run:
    """Training on its way; arguments as of `train.fit`."""

    def __init__(
        self,
        model: Any,
        loss_fn: Callable[..., Any],
        optimizer: optim.Optimizer,
        *,
        seed: int,
        clip_norm: float | None,
        accumulate: int,
        precision: str | None,
        device: str | None,
    ) -> None:
        if isinstance(optimizer.lr, plateau):  # which remembers what it has seen
            optimizer = dataclasses.replace(optimizer, lr=dataclasses.replace(optimizer.lr))
        self.optimizer, self.accumulate, self.key = optimizer, accumulate, random.key(seed)
        # Steps write over what they are given, which must not be the caller's.
        self.model = tree.map(array, model)
        self.device = device or device_of(self.model)
        self.model = self._there(self.model)
        self.state = self._there(optimizer.init(self.model))
        self.scale = self._there(scale_for(precision))
        self.judge = judge_of(loss_fn, precision)
        self._steps = Steps(loss_fn, optimizer, clip_norm, precision)

    def _there(self, made: Any) -> Any:
        """A tree of Arrays on the device of the run."""
        if self.device is None:
            return made
        return tree.map(lambda x: array(x, device=self.device), made)

    def epoch(self, epoch: int, batches: Iterable[Batch], shown: Progress) -> Numbers:
        """One pass over the batches; the means of what the loss function gave."""

        def told(number: int, loss: float) -> None:
            if not math.isfinite(loss):
                raise ConfigError(
                    f"fit: the loss is {loss} in epoch {epoch + 1}, batch {number + 1}. Lower the learning "
                    "rate, clip gradients by clip_norm=1.0, or find the operation with kw.debug_nans()."
                )
            shown.batch(epoch, number, loss)

        means, key = Means(told), random.fold_in(self.key, epoch)
        keyed = ((random.fold_in(key, number), *batch) for number, batch in enumerate(batches))
        total, gathered = None, 0
        for drawn, *batch in on_device(keyed, self.device):
            if self.accumulate == 1:
                self.model, self.state, self.scale, numbers = self._steps.step(
                    self.model, self.state, self.scale, drawn, *batch
                )
            else:
                total = self._zeros() if total is None else total
                self.model, total, numbers = self._steps.gather(self.model, total, self.scale, drawn, *batch)
                gathered += 1
                if gathered == self.accumulate:
                    self._apply(total, gathered)
                    total, gathered = None, 0
            means.add(numbers, len(batch[0]))
        if gathered:
            self._apply(total, gathered)
        return means.means("data")

    def _zeros(self) -> Any:
        """Gradients of no batch."""
        params = nn.partition(self.model)[0]
        return self._there(tree.map(lambda p: Array(np.zeros(p.shape, p.dtype)), params))

    def _apply(self, total: Any, count: int) -> None:
        number = self._there(array(float(count)))
        self.model, self.state, self.scale = self._steps.average(
            self.model, self.state, self.scale, total, number
        )

    def adjust(self, measured: float) -> None:
        """Let a plateau see what was measured."""
        if isinstance(self.optimizer.lr, plateau):
            changed = self.optimizer.with_lr(self.state, self.optimizer.lr.after(measured))
            self.state = self._there(changed)

    def save(self, path: str | os.PathLike[str], history: list[Numbers], watch: Watch) -> None:
        """Write what `resumed` reads."""
        made = self._saved() | ({} if watch.best is None else {"best": watch.best})
        rate = self.optimizer.lr
        info = {"history": history, "watch": [watch.least, watch.at], "seed": self.key.tolist()}
        info |= {"plateau": dataclasses.asdict(rate)} if isinstance(rate, plateau) else {}
        files.save(path, made, info, keep=True)

    def _saved(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.state, **({"scale": self.scale} if self.scale else {})}

    def resumed(self, path: str | os.PathLike[str] | None, watch: Watch) -> list[Numbers]:
        """Go on from a checkpoint, where there is one; the history so far."""
        if path is None or not Path(path).exists():
            return []
        made = self._saved()
        _, info = files.read(path)
        least, watch.at = info["watch"]
        watch.least = math.inf if least is None else least
        if watch.patience is not None and info["history"]:
            made["best"] = self.model
        if info["seed"] != self.key.tolist():
            raise ConfigError(f"fit: {path} was trained from another seed; give that seed, or another file.")
        found = self._there(files.read(path, made)[0])
        self.model, self.state, watch.best = found["model"], found["optimizer"], found.get("best")
        self.scale = found.get("scale", {})
        if "plateau" in info:
            self.optimizer = dataclasses.replace(self.optimizer, lr=plateau(**info["plateau"]))
        return list(info["history"])


def device_of(model: Any) -> str | None:
    """The GPU that a model's Arrays are on; None for the CPU."""
    return next((x.device for x in tree.leaves(model) if getattr(x, "on_cuda", False)), None)
