"""Calls on a GPU that fail are told with the op, the user's line, the kernel and the arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from numpy_cuda import NumpyLaunch, numpy_kernels  # noqa: E402
from triton_interpreter import StandIn, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.kernels.errors import LaunchError, NonFiniteError, RegistrationError  # noqa: E402

LATE = RuntimeError("CUDA error: an illegal memory access was encountered")
WHERE = r"cumsum \(test_gpu_failures.py:\d+\) by cumsum/numpy_cuda/numpy: f32\[4\]@cuda:0 -> f32\[4\]@cuda:0"


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in() as runtime, numpy_kernels(over_real=True):
        yield runtime


def there(*shape: int) -> Any:
    return kw.array(np.ones(shape, "float32"), device="cuda:0")


def twice(x: Any) -> Any:
    return kw.sort(kw.cumsum(x, axis=0))


def test_a_kernel_that_cannot_be_bound_stops_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, op: Any, attrs: Any, specs: Any) -> None:
        if op.name == "cumsum":
            raise RegistrationError("no such tile")

    monkeypatch.setattr(NumpyLaunch, "__init__", broken)
    monkeypatch.setattr(NumpyLaunch, "steps", (1,), raising=False)
    with pytest.raises(
        LaunchError, match=WHERE + ": RegistrationError while it was made ready: no such tile"
    ):
        kw.compile(twice)(there(4))


def test_a_kernel_that_does_not_compile_fails_before_anything_is_launched(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: Any, tensors: Any, held: Any) -> None:
        if self.op.name == "cumsum":
            raise ValueError("ptxas fatal")

    monkeypatch.setattr(NumpyLaunch, "prepare", prepare, raising=False)
    f = kw.compile(lambda x: kw.cumsum(kw.sort(x)[0], axis=0) + x, donate=0)
    x = there(4)
    with pytest.raises(LaunchError, match=r"cumsum .*ValueError while it was made ready: ptxas fatal"):
        f(x)
    assert not gpu.steps
    assert x.tolist() == [1.0] * 4


def test_a_launch_that_the_driver_refuses_is_told(gpu: StandIn) -> None:
    f = kw.compile(twice)
    gpu.failing["cumsum"] = RuntimeError("Triton Error [CUDA]: invalid argument")
    with pytest.raises(LaunchError, match=WHERE + ": RuntimeError when it was launched: Triton Error"):
        f(there(4))
    gpu.failing.clear()
    f(there(4))


def test_an_error_that_shows_late_says_how_to_find_its_call(gpu: StandIn) -> None:
    f = kw.compile(twice)
    f(there(4))
    gpu.failing["sort"] = LATE
    with pytest.raises(
        LaunchError, match=r"(?s)sort .*may be the error of an earlier call.*KERNELWRIGHT_CUDA_SYNC=1"
    ):
        f(there(4))


def test_an_error_that_shows_in_a_replay_or_a_copy_says_so_too(
    gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, x = kw.compile(twice), there(4)
    for _ in range(3):
        made, _ = f(x)

    def fails(*args: Any) -> Any:
        raise LATE

    ((graph, _),) = f.plan.replays._graphs.values()
    graph.replay = fails
    with pytest.raises(LaunchError, match=r"(?s)replaying a compiled function's graph: CUDA error.*SYNC=1"):
        f(x)
    monkeypatch.setattr(torch.Tensor, "cpu", fails)
    for ask in (made.tolist, lambda: made.to("cpu"), lambda: repr(made)):
        with pytest.raises(LaunchError, match=r"(?s)copying an Array to the CPU: CUDA error.*cuda_sync=True"):
            ask()


@pytest.mark.parametrize("by", ["using", "variable"])
def test_waiting_after_each_call_names_the_one_that_failed(
    by: str, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernelwright.kernels import settings

    real = gpu.do

    def do(name: str, launch: Callable[[], None]) -> None:
        real(name, launch)
        if name == "cumsum":
            gpu.late = LATE

    gpu.do = do  # type: ignore[method-assign]
    f, x = kw.compile(twice), there(4)
    for _ in range(3):
        f(x)  # nobody asks
    if by == "variable":
        monkeypatch.setenv("KERNELWRIGHT_CUDA_SYNC", "1")
        monkeypatch.setattr(settings, "_default", None)
    with (
        kw.using(cuda_sync=True if by == "using" else None),
        pytest.raises(LaunchError, match=WHERE) as error,
    ):
        f(x)
    assert "earlier" not in str(error.value)
    assert "it waits after each call" in str(f.plan)


def test_numbers_that_are_not_finite_are_found_where_they_arise() -> None:
    f = kw.compile(lambda p, x: p - kw.cumsum(kw.log(kw.cumsum(x, axis=0)), axis=0), donate=0)
    p, x = there(3), kw.array(np.array([1.0, -2.0, 1.0], "float32"), device="cuda:0")
    with kw.debug_nans():
        with pytest.raises(
            NonFiniteError, match=r"log \(test_gpu_failures.py:\d+\) gave nan at \[1\] of f32\[3\]@cuda:0"
        ):
            f(p, x)
        assert p.tolist() == [1.0] * 3
        f(p, kw.array(np.ones(3, "float32"), device="cuda:0"))


def test_memory_that_launches_leave_zero_is_zero_again_after_one_that_failed(gpu: StandIn) -> None:
    from kernelwright.kernels.cuda.step import Workspace

    class Counter(NumpyLaunch):
        """Counts in memory that it wants zero, and leaves so."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.workspaces = (Workspace((3,), "int32", zero=True), Workspace((5,)))

        def within(self, tensors: Any, held: Any) -> None:
            zeros, rest = held
            assert rest.shape == (5,)
            assert not zeros.any()
            zeros += 1
            self(*tensors)
            zeros.zero_()

    import numpy_cuda

    f, x = kw.compile(twice), there(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_cuda, "NumpyLaunch", Counter)
        with kw.using(cuda_graphs=False):
            f(x)
            assert f.plan.scratch_bytes == 256
            gpu.failing["sort"] = RuntimeError("no")
            with pytest.raises(LaunchError):
                f(x)
            gpu.failing.clear()
            f(x)


def test_the_text_names_what_it_promises(gpu: StandIn) -> None:
    gpu.failing["matmul"] = RuntimeError("no")
    x = there(4, 4)
    with pytest.raises(LaunchError) as error:
        kw.compile(lambda x: kw.cumsum(x @ x, axis=0))(x)
    assert re.match(
        r"matmul \(test_gpu_failures.py:\d+\) by matmul/numpy_cuda/numpy: "
        r"f32\[4,4\]@cuda:0, f32\[4,4\]@cuda:0 -> f32\[4,4\]@cuda:0: RuntimeError when it was launched: no",
        str(error.value),
    )
