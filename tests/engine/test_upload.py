"""Batches on their way to a GPU, and numbers on their way back, over transfers that really are late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch")

from late_transfers import LateTransfers  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.training.means import LAG, Means  # noqa: E402
from kernelwright.engine.training.upload import Reading, on_device  # noqa: E402
from kernelwright.kernels.cuda import launch  # noqa: E402
from kernelwright.kernels.cuda.transfers import host_array, host_tensor  # noqa: E402
from kernelwright.kernels.errors import DeviceError  # noqa: E402


class Runtime:
    """torch's CPU tensors count as tensors on the one GPU."""

    def __init__(self) -> None:
        self.made = LateTransfers()

    def place(self, tensor: Any) -> str:
        return "cuda:0"

    def number(self, device: str) -> int:
        if device not in ("cuda", "cuda:0"):
            raise DeviceError(f"there is no {device!r} here.")
        return 0

    def transfers(self, index: int) -> LateTransfers:
        assert index == 0
        return self.made


@pytest.fixture(autouse=True)
def late() -> Iterator[LateTransfers]:
    runtime = Runtime()
    before = launch.set_runtime(runtime)
    try:
        yield runtime.made
    finally:
        launch.set_runtime(before)


def _numbers(count: int) -> list[tuple[Any, ...]]:
    return [(kw.array(np.full((2, 3), n, "f4")), np.arange(2) + n) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_next_batch_is_on_its_way_before_one_is_used(count: int, late: LateTransfers) -> None:
    seen = []
    for number, (x, labels) in enumerate(on_device(_numbers(count), "cuda")):
        late.log.append(f"step {number}")
        assert x.device == labels.device == "cuda:0"
        seen.append((x.tolist()[0][0], labels.tolist()))
    assert seen == [(n, [n, n + 1]) for n in range(count)]
    for number in range(count - 1):
        assert late.log.index(f"send {number + 1}") < late.log.index(f"step {number}")
    for number in range(count):
        assert late.log.index(f"receive {number}") < late.log.index(f"step {number}")


def test_what_is_on_the_gpu_stays_there(late: LateTransfers) -> None:
    here = kw.array(torch.ones(3))
    ((x, y),) = on_device([(here, np.ones(2))], "cuda:0")
    assert x is here
    assert y.device == "cuda:0"


@pytest.mark.parametrize("device", [None, "cpu"])
def test_without_a_gpu_nothing_is_copied(device: str | None, late: LateTransfers) -> None:
    batches = _numbers(3)
    assert list(on_device(batches, device)) == batches
    assert late.log == []


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="cuda:3"):
        list(on_device(_numbers(1), "cuda:3"))
    with pytest.raises(DeviceError, match="unknown"):
        list(on_device(_numbers(1), "gpu"))


def test_numbers_are_looked_at_when_others_are_on_their_way(late: LateTransfers) -> None:
    told: list[tuple[int, float]] = []
    means = Means(lambda number, loss: told.append((number, loss)))
    for number in range(5):
        means.add({"loss": kw.array(torch.tensor(float(number))), "rate": kw.array(torch.tensor(0.5))}, 2)
        assert len(told) == max(0, number + 1 - LAG)
    found = means.means("data")
    assert told == [(number, float(number)) for number in range(5)]
    assert found == {"loss": 2.0, "rate": 0.5}


def test_numbers_of_the_cpu_are_known_at_once() -> None:
    reading = Reading({"loss": kw.array(np.float32(2.5))})
    assert not reading.is_late
    assert reading.values() == {"loss": 2.5}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int64", "uint8", "bool"])
def test_bits_are_the_same_on_either_side(dtype: str) -> None:
    from kernelwright.kernels.spec import np_dtype

    array = (np.arange(12).reshape(3, 4) % 5).astype(np_dtype(dtype))
    for given in (array, array.T, array[:, ::2], array[:0], array[0, 0].reshape(())):
        tensor = host_tensor(given)
        assert str(tensor.dtype) == f"torch.{dtype}"
        np.testing.assert_array_equal(host_array(tensor), given)
        assert host_array(tensor).dtype == given.dtype
