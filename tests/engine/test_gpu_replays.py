"""Plans on a GPU: fixed memory, and graphs that are captured and replayed, on a stand-in."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from numpy_cuda import NumpyLaunch, numpy_kernels  # noqa: E402
from triton_interpreter import StandIn, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.gpu import replay  # noqa: E402
from kernelwright.kernels import dispatch  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in() as runtime, numpy_kernels(over_real=True):
        yield runtime


def there(*shape: int) -> Any:
    return kw.array(RNG.standard_normal(shape).astype("float32"), device="cuda:0")


def bits(x: Any) -> bytes:
    return np.asarray(x.to("cpu")).tobytes()


def training() -> tuple[Any, Any, Any]:
    """A compiled step, its parameters, and what makes a batch."""

    def loss(w: Any, x: Any, y: Any) -> Any:
        return ((kw.tanh(x @ w["a"]) @ w["b"] - y) ** 2).mean()

    optimizer = kw.optim.adam(1e-2)

    def step(w: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = kw.value_and_grad(loss)(w, x, y)
        return *optimizer.update(w, grads, state), value

    w = {"a": there(4, 6), "b": there(6, 3)}
    return kw.compile(step, donate=(0, 1)), (w, optimizer.init(w)), lambda: (there(5, 4), there(5, 3))


def copied(tree: Any) -> Any:
    from kernelwright.engine import tree as trees

    return trees.map(lambda x: x.copy(), tree)


def leaves(tree: Any) -> list[Any]:
    from kernelwright.engine import tree as trees

    return trees.leaves(tree)


# --- replays ------------------------------------------------------------------------------------------------


def test_replays_give_the_bits_of_the_first_run_and_of_direct_launches() -> None:
    f = kw.compile(lambda x, w: (kw.softmax(x @ w, axis=1) * 2.0).sum(axis=0))
    x, w = there(5, 4), there(4, 6)
    with kw.using(cuda_graphs=False):
        direct = bits(f(x, w))
        assert "graphs are turned off" in str(f.plan)
    found = {bits(f(x, w)) for _ in range(6)}
    assert found == {direct}
    replays = f.plan.replays
    assert (replays.captures, replays.replayed, replays.launched) == (1, 5, 1)


def test_training_replays_the_bits_of_direct_launches() -> None:
    step, (w, state), batch = training()
    x, y = batch()
    with kw.using(cuda_graphs=False):
        one = copied((w, state))
        for _ in range(8):
            *one, loss = step(*one, x, y)
    other = w, state
    for _ in range(8):
        *other, again = step(*other, x, y)
    assert step.plan.replays.replayed == 7
    assert bits(loss) == bits(again)
    assert [bits(a) for a in leaves(one)] == [bits(a) for a in leaves(other)]


def test_parameters_stay_where_they_are_and_are_never_copied(gpu: StandIn) -> None:
    step, (w, state), batch = training()
    at = [leaf._tensor.data_ptr() for leaf in leaves((w, state))]
    x, y = batch()
    for _ in range(6):
        w, state, _ = step(w, state, x, y)
    assert [leaf._tensor.data_ptr() for leaf in leaves((w, state))] == at
    assert gpu.copies == 0


def test_small_states_that_are_made_beside_the_old_ones_stay_where_they_are_too(gpu: StandIn) -> None:
    def f(stats: Any, x: Any) -> Any:
        return [kw.roll(s, 1) * 0.9 for s in stats[:2]] + [kw.roll(s, 1) for s in stats[2:]], x.sum()

    step = kw.compile(f, donate=0)
    stats, x = [there(5), there(5), there(5), there(2, 3), there(5)], there(4)
    with kw.using(cuda_graphs=False):
        expected, _ = step(copied(stats), x)
        for _ in range(5):
            expected, _ = step(expected, x)
    at = [s._tensor.data_ptr() for s in stats]
    for _ in range(6):
        stats, _ = step(stats, x)
        assert [s._tensor.data_ptr() for s in stats] == at
    assert step.plan.replays.replayed == 5
    assert gpu.copies == 0
    assert [bits(s) for s in stats] == [bits(s) for s in expected]


def test_results_that_are_arguments_in_another_order_keep_their_numbers() -> None:
    def f(stats: Any) -> Any:
        a, b, c = stats
        return [kw.roll(c, 1), a, b[::-1]]

    step = kw.compile(f, donate=0)
    stats = [there(5), there(5), there(5)]
    wanted = [np.asarray(s.to("cpu")) for s in stats]
    for _ in range(6):
        stats = step(stats)
        a, b, c = wanted
        wanted = [np.roll(c, 1), a, b[::-1]]
        for s, right in zip(stats, wanted, strict=True):
            np.testing.assert_array_equal(np.asarray(s.to("cpu")), right)


def test_batches_that_keep_moving_are_copied_and_nothing_else(gpu: StandIn) -> None:
    step, (w, state), batch = training()
    held = [batch() for _ in range(30)]  # all alive: no address comes twice
    losses = []
    with kw.using(cuda_graphs=False):
        one = copied((w, state))
        for x, y in held:
            *one, loss = step(*one, x, y)
            losses.append(bits(loss))
    for (x, y), expected in zip(held, losses, strict=True):
        w, state, loss = step(w, state, x, y)
        assert bits(loss) == expected
    replays = step.plan.replays
    assert [slot - len(leaves((w, state))) for slot in replays._in] == [0, 1]
    assert replays.captures == 1
    assert replays.replayed == 30 - replay.PATIENCE - 1
    assert gpu.copies == 2 * (30 - replay.PATIENCE)


def test_batches_that_come_back_are_not_copied(gpu: StandIn) -> None:
    step, (w, state), batch = training()
    held = [batch() for _ in range(3)]
    for number in range(12):
        w, state, _ = step(w, state, *held[number % 3])
    replays = step.plan.replays
    assert (replays.captures, replays.replayed, gpu.copies) == (3, 9, 0)


def test_results_belong_to_the_caller() -> None:
    f = kw.compile(lambda x: (kw.exp(x @ x), (x @ x).sum()))
    x = there(200, 200)  # the first result is large, and made in place
    kept, first = [], None
    for _ in range(8):
        made = f(x)
        first = first or [bits(part) for part in made]
        kept.append(made)
        assert [[bits(part) for part in each] for each in kept] == [first] * len(kept)
    places = [part._tensor.data_ptr() for each in kept for part in each]
    assert len(set(places)) == len(places)


def test_a_large_result_is_written_where_the_allocator_puts_it(gpu: StandIn) -> None:
    f = kw.compile(lambda x: kw.exp(kw.cumsum(x @ x, axis=0)))
    x = there(200, 200)
    ring, calls = [torch.empty(200, 200) for _ in range(2)], 0
    real = gpu.empty

    def empty(shape: Any, dtype: Any, device: str) -> Any:
        nonlocal calls
        if tuple(shape) != (200, 200):
            return real(shape, dtype, device)
        calls += 1
        return ring[calls % 2]

    gpu.empty = empty  # type: ignore[method-assign]
    for _ in range(10):
        f(x)
    replays = f.plan.replays
    assert (replays.captures, replays.replayed, replays.copied, gpu.copies) == (2, 8, set(), 0)


def test_large_arrays_that_keep_moving_are_launched_directly(gpu: StandIn) -> None:
    """Copying 64 MB costs more than launching three kernels."""
    f = kw.compile(lambda x: kw.cumsum(kw.cumsum(x, axis=0), axis=0))
    specs = kw.TensorSpec((1 << 24,), "float32", "cuda:0")
    f(there(8))
    replays = f.plan.replays
    replays.plan.specs = replays.plan.new_specs = (specs,)
    replays.plan.launches = 3
    assert not replays._pays({0})
    replays.plan.launches = 100
    assert replays._pays({0})


def test_one_kernel_is_not_worth_a_graph() -> None:
    f = kw.compile(lambda x: kw.exp(x) * 2.0)
    x = there(3)
    for _ in range(4):
        f(x)
    assert f.plan.replays.launched == 4
    assert "one launch is no slower" in str(f.plan)


def long_chain(x: Any) -> Any:
    for _ in range(6):
        x = kw.cumsum(x * 0.5, axis=0)
    return x


def test_donated_arrays_that_keep_moving_are_copied_there_and_back(gpu: StandIn) -> None:
    f = kw.compile(lambda x: x - long_chain(x), donate=0)
    held = [there(40) for _ in range(12)]
    with kw.using(cuda_graphs=False):
        expected = [bits(f(x.copy())) for x in held]
    for x, right in zip(held, expected, strict=True):
        at = x._tensor.data_ptr()
        made = f(x)
        assert made._tensor.data_ptr() == at
        assert bits(made) == right
    assert f.plan.replays._in == [0]
    assert f.plan.replays.replayed == 12 - replay.PATIENCE - 1
    assert gpu.copies == 2 * (12 - replay.PATIENCE)


def test_where_copies_are_more_than_the_launches_nothing_is_copied(gpu: StandIn) -> None:
    step, (w, state), batch = training()
    x, y = batch()
    with kw.using(cuda_graphs=False):
        one = copied((w, state))
        for _ in range(12):
            *one, _ = step(*one, x, y)
    other, held = (w, state), []
    for _ in range(12):
        held.append(other)
        *other, _ = step(*copied(tuple(other)), x, y)
    assert (step.plan.replays.replayed, gpu.copies) == (0, 0)
    assert [bits(a) for a in leaves(one)] == [bits(a) for a in leaves(other)]


def test_strided_arguments_are_copied_with_their_strides() -> None:
    f = kw.compile(long_chain)
    wide = [there(6, 4, 10) for _ in range(8)]
    for x in wide:
        view = x[:, 1, ::2].T
        with kw.using(cuda_graphs=False):
            expected = bits(f(view))
        assert bits(f(view)) == expected
    assert f.plan.replays._in == [0]
    for x in wide:
        f(kw.broadcast_to(x[0, 0], (3, 10)))
    assert not f.plan.replays._in  # its elements are at the same places


def test_a_capture_that_fails_is_told_and_counted(gpu: StandIn) -> None:
    def broken(index: int, work: Callable[[], None]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    gpu.captured = broken  # type: ignore[method-assign]
    f = kw.compile(
        lambda x: kw.cumsum(kw.cumsum(x, axis=0) + 1.0, axis=0),
    )
    x = there(4)
    found = {bits(f(x)) for _ in range(4)}
    assert len(found) == 1
    assert "no graph: it could not be captured: operation not permitted when stream is capturing" in str(
        f.plan
    )
    assert dispatch.fallbacks()["plan of <lambda>: graph -> launches"] == 1


def test_while_somebody_else_captures_the_launches_are_theirs(gpu: StandIn) -> None:
    f = kw.compile(lambda x: kw.cumsum(kw.cumsum(x, axis=0), axis=0))
    x = there(4)
    f(x)
    gpu.capturing = lambda: True  # type: ignore[method-assign]
    before = f.plan.replays.launched
    for _ in range(3):
        f(x)
    assert f.plan.replays.launched == before + 3
    assert f.plan.replays.captures == 0


def test_a_capture_on_another_stream_waits_for_nothing_outside_of_it(gpu: StandIn) -> None:
    f = kw.compile(lambda x: kw.cumsum(kw.cumsum(x, axis=0), axis=0))
    x = there(4)
    f(x)
    gpu.capturing = lambda: True  # type: ignore[method-assign]
    gpu.handle = 11
    f(x)
    assert not gpu.waits
    gpu.capturing = lambda: False  # type: ignore[method-assign]
    gpu.handle = 7
    f(x)
    assert not gpu.waits


def test_plans_on_two_streams_do_not_meet_in_the_arena(gpu: StandIn) -> None:
    f, g = (kw.compile(lambda x: kw.cumsum(kw.cumsum(x, axis=0) * 2.0, axis=0)) for _ in range(2))
    x = there(4)
    f(x), f(x), g(x)
    assert not gpu.waits
    gpu.handle = 11
    f(x), f(x)
    assert gpu.waits == [7]
    gpu.handle = 7
    g(x)
    assert gpu.waits == [7]
    f(x)
    assert gpu.waits == [7, 11]


def test_the_plan_tells_device_memory_and_graph() -> None:
    f = kw.compile(lambda x, w: (x @ w) @ w.T)
    x, w = there(50, 40), there(40, 60)
    for _ in range(3):
        f(x, w)
    text = str(f.plan)
    assert "matmul/numpy_cuda/numpy" in text
    assert "test_gpu_replays.py:" in text
    last = text.splitlines()[-1]
    assert "kernels on cuda:0; arena 12,032 bytes (at least 12,032 live at once)" in last
    assert (
        "1 of 1 captured graphs kept, 0 arguments and 1 results copied; 2 replays, 1 runs launch by" in last
    )


def test_buffers_of_the_arena_start_at_whole_lines() -> None:
    f = kw.compile(lambda x: [kw.cumsum(kw.cumsum(x[i : i + 3], axis=0), axis=0) for i in range(3)])
    f(there(7, 5))
    assert all(buffer.offset % 256 == 0 for buffer in f.plan.low.buffers)
    assert f.plan._arena.tensor.numel() % 256 == 0


def test_what_no_kernel_takes_through_its_strides_is_copied_first() -> None:
    def f(x: Any, y: Any) -> Any:
        return kw.sort(x.T + y)[0], kw.cumsum(x.T, axis=0), kw.cumsum(x.T, axis=1), kw.roll(x.T, 1)

    x, y = there(4, 5), there(5, 4)
    expected = [bits(part) for part in kw.compile(f)(x, y)]
    with numpy_kernels(over_real=True, row_major=("cumsum", "roll")):
        strict = kw.compile(f)
        for _ in range(3):
            assert [bits(part) for part in strict(x, y)] == expected
        names = [call.node.op.name for call in strict.plan.calls]
    assert names.count("transpose") == 1  # one copy serves all that read it


def test_a_timed_plan_tells_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernelwright.engine import profile

    monkeypatch.setattr(profile, "wanted", lambda: True)
    f = kw.compile(long_chain)
    x = there(4)
    assert bits(f(x)) == bits(f(x))
    text = str(f.plan)
    assert " us " in text.splitlines()[0]
    assert "the fastest of each step add up to" in text


# --- memory -------------------------------------------------------------------------------------------------


class Counting(StandIn):
    """A stand-in that counts what is allocated, and computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated = 0

    def empty(self, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        self.allocated += 1
        return super().empty(shape, dtype, device)


def test_a_replay_allocates_results_alone(gpu: StandIn) -> None:
    step, (w, state), batch = training()
    x, y = batch()
    counting = Counting()
    gpu.empty = counting.empty  # type: ignore[method-assign]
    w, state, _ = step(w, state, x, y)
    made = counting.allocated
    for _ in range(5):
        w, state, _ = step(w, state, x, y)
    assert counting.allocated == made  # the loss is a copy


def test_ten_thousand_steps_leave_nothing_behind(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyLaunch, "compute", lambda self, tensors: None)
    step, (w, state), batch = training()

    def live() -> tuple[int, int]:
        gc.collect()
        found = [x for x in gc.get_objects() if type(x) is torch.Tensor]
        return len(found), sum(x.untyped_storage().nbytes() for x in found)

    def run(count: int) -> None:
        nonlocal w, state
        for number in range(count):
            w, state, loss = step(w, state, *batches[number % len(batches)])
            if not number % 1000:
                _, loss = loss.item(), None

    batches = [batch() for _ in range(7)]
    run(100)
    gpu.steps.clear()
    before = live()
    run(10_000)
    steps, after = len(gpu.steps), live()
    assert after == before
    replays = step.plan.replays
    assert replays.replayed >= 10_000
    assert steps == 10_000 * step.plan.launches
    assert (len(replays._graphs), len(replays._seen)) == (1, 1)


def test_a_function_that_goes_takes_its_plan_along() -> None:
    def live() -> int:
        gc.collect()
        return sum(type(x) is torch.Tensor for x in gc.get_objects())

    x = there(4)
    before = live()
    for _ in range(3):
        f = kw.compile(lambda x: kw.cumsum(kw.cumsum(x, axis=0) + np.ones(4, "float32"), axis=0))
        f(x), f(x), f(x)
        del f
    assert live() <= before + 1


def test_a_plan_that_was_made_in_inference_mode_serves_outside_of_it_too() -> None:
    f = kw.compile(lambda x: (kw.tanh(x * 2.5) @ x).sum())
    with torch.inference_mode():
        f(there(4, 4))
    x = there(4, 4)
    numbers = np.asarray(x.to("cpu"), np.float64)
    for _ in range(4):
        assert f(x).item() == pytest.approx((np.tanh(numbers * 2.5) @ numbers).sum(), rel=1e-4)
    assert f.plan.replays.replayed
    assert (there(2, 2) * 2.5).shape == (2, 2)
