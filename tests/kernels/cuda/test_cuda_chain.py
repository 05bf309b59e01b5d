"""A chain of launches hands each part the memory of its tensors, and takes what an unaligned call needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from gpu_extra import need

need("cupy")

from kernelwright.kernels.cuda import launch, nvrtc  # noqa: E402
from kernelwright.kernels.cuda.chain import ChainLaunch, Part, product  # noqa: E402
from kernelwright.kernels.cuda.code_launch import CodeLaunch, CodeStep  # noqa: E402
from kernelwright.kernels.cuda.source import Code  # noqa: E402
from kernelwright.kernels.cuda.step import Workspace  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

X = TensorSpec((4, 4), "float32", "cuda")


class Tensor:
    """What a launch asks of a tensor."""

    def __init__(self, address: int) -> None:
        self.address = address

    def data_ptr(self) -> int:
        return self.address


class Runtime:
    """Stands in for torch: each workspace is memory at the next address."""

    def __init__(self) -> None:
        self.device, self.next = 0, 1 << 20
        self.asked: list[tuple[Workspace, int]] = []

    def number(self, device: str) -> int:
        return int(device.partition(":")[2] or 0)

    def current(self) -> int:
        return self.device

    def capability(self, index: int) -> int:
        return 90

    def stream(self, index: int) -> int:
        assert index == self.device
        return 70

    def workspace(self, piece: Workspace, index: int) -> Tensor:
        assert index == self.device
        self.asked.append((piece, index))
        self.next += 4096
        return Tensor(self.next)

    @contextmanager
    def on(self, index: int) -> Iterator[None]:
        before, self.device = self.device, index
        yield
        self.device = before


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """What was launched: the kernel's name and the words of its argument."""
    import ctypes

    launched: list[tuple[str, tuple[int, ...]]] = []

    class Function:
        def __init__(self, code: Code) -> None:
            self.code = code

        def launch(self, grid: int, argument: Any, stream: int) -> None:
            pointer = ctypes.c_void_p.from_address(argument.parameters).value
            assert pointer is not None
            launched.append((self.code.name, tuple((ctypes.c_int64 * 3).from_address(pointer))))

    monkeypatch.setattr(nvrtc, "loaded", lambda code, index, arch: Function(code))
    before = launch.set_runtime(Runtime())
    yield launched
    launch.set_runtime(before)


def _part(name: str, places: Sequence[Any], device: str = "cuda") -> Part:
    step = CodeStep(Code(name, (), "", "", 32, 0), 1, (0, 1), (7,))
    spec = TensorSpec((4, 4), "float32", device)
    return Part(CodeLaunch((spec, ABSENT), lambda aligned: step), tuple(places))


def _chain(device: str = "cuda") -> tuple[ChainLaunch, Workspace]:
    between = Workspace((16,))

    def make(aligned: bool) -> list[Part]:
        first = _part("wide" if aligned else "narrow", (0, between), device)
        return [first, _part("second", (between, 1), device)]

    spec = TensorSpec((4, 4), "float32", device)
    return ChainLaunch((spec, spec), make), between


def test_parts_share_the_memory_between_them(told: list[Any]) -> None:
    _chain()[0](Tensor(4096), Tensor(8192))
    memory = (1 << 20) + 4096
    assert told == [("wide", (4096, memory, 7)), ("second", (memory, 8192, 7))]


def test_memory_is_asked_for_once_a_call(told: list[Any]) -> None:
    chain, between = _chain()
    for _ in range(2):
        chain(Tensor(4096), Tensor(8192))
    assert launch.runtime().asked == [(between, 0)] * 2


def test_unaligned_tensors_get_other_parts(told: list[Any]) -> None:
    _chain()[0](Tensor(4096), Tensor(8196))
    assert [name for name, _ in told] == ["narrow", "second"]


def test_a_plan_gives_the_memory(told: list[Any]) -> None:
    chain, between = _chain()
    assert chain.workspaces == (between,)
    chain.prepare([Tensor(4096), Tensor(8192)], [Tensor(256)])
    assert told == []
    chain.within([Tensor(4096), Tensor(8192)], [Tensor(256)])
    assert told == [("wide", (4096, 256, 7)), ("second", (256, 8192, 7))]
    assert launch.runtime().asked == []


def test_a_plan_with_unaligned_tensors_runs_what_they_need(told: list[Any]) -> None:
    _chain()[0].within([Tensor(4100), Tensor(8192)], [Tensor(256)])
    assert [name for name, _ in told] == ["narrow", "second"]


def test_another_device_is_made_the_current_one(told: list[Any]) -> None:
    _chain("cuda:1")[0](Tensor(4096), Tensor(8192))
    assert [index for _, index in launch.runtime().asked] == [1]
    assert launch.runtime().current() == 0


def test_all_launches_are_told() -> None:
    assert [step.code.name for step in _chain()[0].steps] == ["wide", "second"]


def test_a_product_is_the_kernel_that_its_op_would_choose() -> None:
    part = product("matmul", (X, X, X), {}, (0, 1, 2))
    assert part.op == "matmul"
    assert part.launch.specs == (X, X, X)
