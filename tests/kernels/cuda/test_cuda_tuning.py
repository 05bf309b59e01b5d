"""Tuning on a GPU, all but the device: the interpreter computes, and the test's own clock tells times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from gpu_extra import need

torch = need("torch", "triton")

import toy_cuda  # noqa: E402
from triton_interpreter import interpreted, standing_in  # noqa: E402

from kernelwright.kernels import registry  # noqa: E402
from kernelwright.kernels.cuda import truth  # noqa: E402
from kernelwright.kernels.cuda.clock import HostClock, count_for  # noqa: E402
from kernelwright.kernels.cuda.trial import CudaTrial, is_lost  # noqa: E402
from kernelwright.kernels.dispatch import choose  # noqa: E402
from kernelwright.kernels.errors import DeviceError  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402
from kernelwright.kernels.tuning import TuningResult, best, default_cache, tune  # noqa: E402

pytestmark = interpreted
SECONDS = {64: 3e-3, 128: 1e-3}


@pytest.fixture(autouse=True)
def on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path))
    with standing_in():
        yield


class ToldClock(HostClock):
    """Runs the calls, and tells the seconds that belong to their block."""

    def __init__(self) -> None:
        super().__init__()
        self.timed: list[int] = []

    def batch(self, calls: Sequence[Callable[[], Any]], count: int) -> Callable[[], None]:
        self.sets, self.count = len(calls), count
        launch = calls[0].func  # type: ignore[attr-defined]
        run = super().batch(calls, count)
        run.block = launch.steps[0].args["BLOCK"]  # type: ignore[attr-defined]
        return run

    def time(self, batches: Sequence[Any], rounds: int) -> list[list[float]]:
        self.timed += [batch.block for batch in batches]
        return [[SECONDS[batch.block] * self.count] * rounds for batch in batches]


def _tune(n: int = 200, **more: Any) -> TuningResult:
    op, spec = get_op("toy"), toy_cuda.spec(n)
    return tune(op, (spec, spec), more.pop("attrs", {"scale": 2.0}), **{"clock": ToldClock(), **more})


def _chosen(n: int, tuned: bool = True) -> Any:
    spec = toy_cuda.spec(n)
    return choose(get_op("toy"), (spec, spec), {"scale": 2.0}, tuned=tuned)


def test_the_fastest_is_found_kept_and_used_by_calls_of_its_class() -> None:
    with toy_cuda.toy_on_cuda():
        assert _chosen(200).config["block"] == 64  # the first of the list, without a model
        result = _tune()
        assert [(t.config["block"], t.seconds) for t in result.timings] == [(128, 1e-3), (64, 3e-3)]
        assert result.threads == 1
        assert result.problem.endswith("on NVIDIA H200 (sm_90)")
        assert not result.rejected
        assert len(result.entries) == len(default_cache().find(result.problem, 1)) == 2
        for n in (200, 216):  # of one class: up to 224, multiples of 8
            assert _chosen(n).config["block"] == 128
            assert "measured" in _chosen(n).why
        for n in (208, 201, 248):  # a multiple of 16, an odd one, one of the next class
            assert _chosen(n).config["block"] == 64
        assert _chosen(200, tuned=False).config["block"] == 64
        spec = toy_cuda.spec(200)
        found = best(get_op("toy"), (spec, spec), {"scale": 2.0})
        assert found is not None
        assert found.config["block"] == 128


def test_what_is_known_of_the_class_is_not_measured_again() -> None:
    with toy_cuda.toy_on_cuda():
        _tune(200)
        clock = ToldClock()
        again = _tune(216, clock=clock)
        assert all(timing.from_cache for timing in again.timings)
        assert not clock.timed
        _tune(216, clock=clock, force=True)
        assert clock.timed


def test_a_wrong_configuration_is_rejected_and_never_timed() -> None:
    with toy_cuda.toy_on_cuda(toy_cuda.bind_add(toy_cuda.add_without_the_last)):
        clock = ToldClock()
        result = _tune(clock=clock)
    assert not result.timings
    assert not clock.timed
    assert len(result.rejected) == 2
    assert all("nan where" in reason for _, _, reason in result.rejected)


def test_candidates_take_turns_and_the_clearly_slower_drop_out() -> None:
    with toy_cuda.toy_on_cuda():
        clock = ToldClock()
        result = _tune(clock=clock)
    assert clock.timed[2:8] == [64, 128] * 3  # the first two put the batches in place
    samples = {t.config["block"]: t.samples for t in result.timings}
    assert samples[64] == 3 < samples[128]


def test_calls_go_round_sets_of_tensors_that_outgrow_the_cache() -> None:
    with toy_cuda.toy_on_cuda():
        clock = ToldClock()
        _tune(clock=clock)
    assert clock.sets == 8
    assert clock.count % clock.sets == 0
    assert count_for(1.0, 8) == 8
    assert count_for(1e-6, 1) == 64


def test_another_timer_can_take_the_time() -> None:
    given: list[int] = []

    def timer(launch: Any, tensors: Sequence[Any]) -> float:
        given.append(len(tensors))
        return SECONDS[launch.steps[0].args["BLOCK"]]

    with toy_cuda.toy_on_cuda():
        assert _tune(timer=timer).timings[0].config["block"] == 128
    assert set(given) == {3}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("CUDA error: an illegal memory access")])
def test_an_interrupted_search_loses_nothing(error: BaseException) -> None:
    class Breaks(ToldClock):
        def time(self, batches: Sequence[Any], rounds: int) -> list[list[float]]:
            if len(self.timed) == 5:  # both were measured once, one of them twice
                raise error
            return super().time(batches, rounds)

    with toy_cuda.toy_on_cuda():
        with pytest.raises((KeyboardInterrupt, DeviceError)):
            _tune(clock=Breaks())
        assert _chosen(200).config["block"] == 128
        assert all(timing.from_cache for timing in _tune().timings)


def test_a_process_that_is_killed_loses_little() -> None:
    seen: list[int] = []

    class Looks(ToldClock):
        def time(self, batches: Sequence[Any], rounds: int) -> list[list[float]]:
            seen.append(len(default_cache()))
            return super().time(batches, rounds)

    with toy_cuda.toy_on_cuda():
        _tune(clock=Looks())
    assert seen[:4] == [0, 0, 0, 0]
    assert seen[4] == 2  # after the first round


def test_errors_after_which_nothing_works_are_told_from_others() -> None:
    assert is_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert is_lost(RuntimeError("Triton Error [CUDA]: unspecified launch failure"))
    assert is_lost(RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"))
    assert not is_lost(RuntimeError("out of resource: shared memory, Required: 300000"))
    assert not is_lost(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))


# What is judged on the device.


def _specs(*inputs: TensorSpec, op: str, **attrs: Any) -> tuple[Any, tuple[TensorSpec, ...], dict[str, Any]]:
    found = get_op(op)
    complete = found.complete(attrs)
    return found, (*inputs, *found.infer(inputs, **complete)), complete


def _cuda(*shape: int, dtype: str = "bfloat16", layout: Any = None) -> TensorSpec:
    return TensorSpec(shape, dtype, "cuda", layout)


CALLS = {
    "matmul": _specs(_cuda(20, 24), _cuda(24, 8, layout=(2, 48)), op="matmul"),
    "repeated": _specs(_cuda(3, 20, 24, layout=(0, 48, 2)), _cuda(24, 8), op="matmul"),
    "linear": _specs(
        _cuda(20, 24), _cuda(16, 24), _cuda(16), _cuda(20, 16), op="linear", activation="gelu_tanh"
    ),
    "conv": _specs(
        _cuda(2, 6, 6, 8),
        _cuda(8, 8, 3, 3),
        ABSENT,
        ABSENT,
        op="conv",
        layout="NHWC",
        padding=((1, 1), (1, 1)),
    ),
    "unevenly padded": _specs(
        _cuda(2, 6, 6, 8),
        _cuda(8, 8, 3, 3),
        ABSENT,
        ABSENT,
        op="conv",
        layout="NHWC",
        padding=((0, 1), (1, 0)),
    ),
    "transposed conv": _specs(
        _cuda(2, 6, 6, 8),
        _cuda(8, 8, 3, 3),
        _cuda(8),
        op="conv_input_grad",
        layout="NHWC",
        padding=((1, 1), (0, 0)),
        input_size=(6, 8),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_judged_where_they_are_or_by_the_reference(name: str) -> None:
    op, specs, attrs = CALLS[name]
    assert truth.known(op, attrs) == (name != "unevenly padded")
    trial = CudaTrial(op, specs, attrs, seed=3)
    for tensor, spec in zip(trial.inputs, specs, strict=False):
        if tensor is not None:
            assert tuple(stride * tensor.element_size() for stride in tensor.stride()) == spec.strides
    kernel = next(
        k for k in registry.kernels_for(op.name, "cuda")
        if k.language == "triton" and k.why_not(specs, attrs) is None
    )  # fmt: skip
    trial.run(kernel.bind(specs, attrs, kernel.configurations(specs, attrs, 1)[0], 1))
    right, text = trial.judge(kernel)
    assert right, text
    trial.outputs[0].reshape(-1)[-1] += 1
    assert not trial.judge(kernel)[0]


def test_a_result_with_a_hole_is_wrong() -> None:
    op, specs, attrs = CALLS["matmul"]
    trial = CudaTrial(op, specs, attrs)
    trial.run(lambda *tensors: None)
    (kernel, *_) = registry.kernels_for("matmul", "cuda")
    assert not trial.judge(kernel)[0]


def test_copies_of_the_tensors_lie_elsewhere_in_the_same_way() -> None:
    op, specs, attrs = CALLS["repeated"]
    trial = CudaTrial(op, specs, attrs)
    first, second, *_ = trial._rotated()
    for one, other in zip(first, second, strict=True):
        assert one.stride() == other.stride()
        assert one.data_ptr() != other.data_ptr()
    assert torch.equal(first[0], second[0])


def test_a_matmul_is_tuned_by_all_its_kernels_and_then_runs_the_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kernelwright.kernels.search._MOST_ROUNDS", 1)
    monkeypatch.setattr("kernelwright.kernels.cuda.trial.sets_for", lambda footprint, cache: 1)
    monkeypatch.setattr("kernelwright.kernels.matmul.cuda.choices.MOST_OFFERED", 2)
    for kernel in registry.kernels_for("matmul", "cuda"):
        if kernel.language != "triton":  # CUDA C is compiled, and does not run here
            registry.unregister(kernel)
    op, specs, attrs = _specs(_cuda(17, 32), _cuda(32, 16), op="matmul")
    result = tune(op, specs, attrs, budget_s=100.0)
    assert result.timings, result.rejected
    choice = choose(op, specs, attrs)
    times = {(t.kernel, str(t.config)): t.seconds for t in result.timings}
    assert choice.kernel is not None
    assert times[choice.kernel, str(choice.config)] == min(times.values())
    assert "measured here; no table is shipped for this GPU" in str(_explained(op, specs, attrs))


def _explained(op: Any, specs: Any, attrs: Any) -> Any:
    from kernelwright.kernels.dispatch import explain

    return explain(op, specs, attrs)
