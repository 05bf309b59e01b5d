"""What torch is asked when launches are captured, and when a stream waits, by a torch that notes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_extra import need

need("torch")

from kernelwright.kernels.cuda.launch import TorchRuntime  # noqa: E402


class Noted:
    """torch.cuda as far as it is asked here."""

    def __init__(self, error: Exception | None = None) -> None:
        self.notes: list[Any] = []
        self.error = error

    def CUDAGraph(self) -> Any:
        def end() -> None:
            self.notes.append("end")
            if self.error is not None:
                raise self.error

        begin = lambda **how: self.notes.append(("begin", how))  # noqa: E731
        return SimpleNamespace(capture_begin=begin, capture_end=end)

    def Stream(self, index: int) -> Any:
        return ("stream", index)

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.notes.append(stream)
        yield
        self.notes.append("left")

    def current_stream(self, index: int) -> Any:
        return SimpleNamespace(wait_stream=lambda other: self.notes.append(("wait", other)))


def runtime(cuda: Noted) -> TorchRuntime:
    made = TorchRuntime()
    made._torch = SimpleNamespace(cuda=cuda)
    return made


def test_launches_are_captured_on_a_stream_of_their_own_by_this_thread_alone() -> None:
    cuda = Noted()
    graph = runtime(cuda).captured(1, lambda: cuda.notes.append("work"))
    begin = ("begin", {"capture_error_mode": "thread_local"})
    assert cuda.notes == [("stream", 1), begin, "work", "end", "left"]
    assert graph.capture_end


def test_a_capture_that_breaks_off_is_ended_and_tells_its_own_error() -> None:
    cuda = Noted(RuntimeError("capture was invalidated"))

    def work() -> None:
        raise ValueError("the first error")

    with pytest.raises(ValueError, match="the first error"):
        runtime(cuda).captured(0, work)
    assert cuda.notes[-1] == "end"
    with pytest.raises(RuntimeError, match="invalidated"):
        runtime(cuda).captured(0, lambda: None)


def test_a_stream_waits_for_another_and_its_memory_is_known_there() -> None:
    cuda, used = Noted(), []
    tensor = SimpleNamespace(record_stream=used.append)
    runtime(cuda).wait(0, "earlier", tensor, tensor)
    assert cuda.notes == [("wait", "earlier")]
    assert len(used) == 2
