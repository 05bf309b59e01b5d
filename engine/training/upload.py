"""Between the host and a GPU while a loop trains: batches there, numbers back, neither waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ...kernels.cuda.launch import runtime
from ...kernels.spec import check_device
from ..array import Array, array
from .batches import Batch


def on_device(batches: Iterable[Batch], device: str | None) -> Iterator[Batch]:
    """The batches as they are, or, given a GPU, on it: the copies of one go on beside the step before it.

    Args:
        batches: tuples of arrays.
        device: `"cuda"`, `"cuda:1"`; None or `"cpu"` for no copies.

    Raises:
        DeviceError: when there is no such device.
    """
    if device is None or device == "cpu":
        yield from batches
        return
    check_device(device)
    transfers = runtime().transfers(runtime().number(device))
    ahead: Any = None
    for batch in batches:
        coming = _sent(transfers, batch)
        if ahead is not None:
            yield _received(transfers, ahead)
        ahead = coming
    if ahead is not None:
        yield _received(transfers, ahead)


def _sent(transfers: Any, batch: Batch) -> Any:
    """What of a batch is on the host goes on its way: the batch, which parts those are, and their sending."""
    places = [place for place, part in enumerate(batch) if not _on_gpu(part)]
    arrays = [np.asarray(batch[place]) for place in places]
    return batch, places, transfers.send(arrays)


def _received(transfers: Any, sent: Any) -> Batch:
    from ..cuda import CudaArray

    batch, places, going = sent
    made = list(batch)
    for place, tensor in zip(places, transfers.receive(going), strict=True):
        made[place] = CudaArray(tensor)
    return tuple(made)


def _on_gpu(part: Any) -> bool:
    return bool(getattr(part, "on_cuda", False) or getattr(part, "is_cuda", False))


class Reading:
    """The numbers of a step on their way to the host.

    Args:
        numbers: 0-d Arrays by name, all on one device.

    Attributes:
        is_late: whether they come from a GPU, and are worth waiting for later.
    """

    def __init__(self, numbers: Mapping[str, Any]) -> None:
        self._numbers = dict(numbers)
        self.is_late = any(_on_gpu(value) for value in self._numbers.values())
        if self.is_late:
            there = {name: value for name, value in self._numbers.items() if _on_gpu(value)}
            first: Array = next(iter(there.values()))
            self._transfers = runtime().transfers(runtime().number(first.device))
            self._names = list(there)
            self._asked = self._transfers.ask([array(value)._tensor for value in there.values()])  # type: ignore[attr-defined]

    def values(self) -> dict[str, float]:
        """The numbers; waits for them."""
        found = dict(self._numbers)
        if self.is_late:
            found |= dict(zip(self._names, self._transfers.answer(self._asked), strict=True))
        return {name: float(value) for name, value in found.items()}
