"""Calls of one program that need nothing of each other become one launch, and the results stay the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from numpy_cuda import NumpyMany, numpy_kernels  # noqa: E402
from triton_interpreter import StandIn, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.gpu import many  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(many, "KERNEL", "numpy")
    monkeypatch.setattr(many, "launch", NumpyMany)
    monkeypatch.setattr(many, "problem", lambda program, groups, shared: None)
    with standing_in() as runtime, numpy_kernels(over_real=True):
        yield runtime


def there(*shape: int, dtype: str = "float32") -> Any:
    return kw.array(RNG.standard_normal(shape), dtype, "cuda:0")


def bits(x: Any) -> bytes:
    return np.asarray(x.to("cpu")).tobytes()


def both(function: Any, *args: Any, donate: Any = ()) -> tuple[list[bytes], list[bytes], Any]:
    """The bits of the results on the CPU's order of steps, and grouped; and the plan of the latter."""
    from kernelwright.engine import tree

    plain = kw.compile(function, donate=donate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "_groups", lambda graph, base: [])
        one = [bits(x) for x in tree.leaves(plain(*tree.map(lambda x: x.copy(), args)))]
    grouped = kw.compile(function, donate=donate)
    return one, [bits(x) for x in tree.leaves(grouped(*args))], grouped.plan


def groups_of(plan: Any) -> list[int]:
    return [len(step.calls) for step in plan.steps if len(step.calls) > 1]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
def test_the_updates_of_all_parameters_are_one_launch(name: str, gpu: StandIn) -> None:
    optimizer = getattr(kw.optim, name)(1e-2)
    params = {"a": there(4, 3), "b": there(3), "c": [there(3, 5), there(5)]}

    def step(params: Any, state: Any, x: Any) -> Any:
        def loss(p: Any) -> Any:
            return (kw.relu(x @ p["a"] + p["b"]) @ p["c"][0] + p["c"][1]).sum()

        grads = kw.grad(loss)(params)
        return optimizer.update(params, grads, state)

    one, other, plan = both(step, params, optimizer.init(params), there(6, 4), donate=(0, 1))
    assert one == other
    assert 4 in groups_of(plan)
    updates = next(step for step in plan.steps if len(step.calls) == 4)
    assert all(place.buffer.kind == "input" for call in updates.calls for place in call.outputs)
    assert gpu.steps.count("many") >= 1


def test_casts_of_weights_are_one_launch_before_the_first_that_reads_one() -> None:
    def f(ws: Any, x: Any) -> Any:
        for w in ws:
            x = kw.tanh(x @ w.astype("float64"))
        return x

    one, other, plan = both(f, [there(4, 4) for _ in range(5)], there(2, 4, dtype="float64"))
    assert one == other
    assert groups_of(plan) == [5]
    assert [len(step.calls) for step in plan.steps].index(5) == 0


def test_calls_that_need_each_other_stay_apart() -> None:
    def f(a: Any, b: Any) -> Any:
        first = kw.cumsum(a, axis=0)
        second = kw.tanh(first)
        third = kw.tanh(kw.cumsum(second, axis=0))
        return second, third, kw.tanh(kw.cumsum(b, axis=0))

    one, other, plan = both(f, there(4), there(4))
    assert one == other
    assert groups_of(plan) == [2]


def test_what_another_call_of_the_launch_reads_is_not_written_in_it() -> None:
    def swap(a: Any, b: Any, g: Any) -> Any:
        g = kw.cumsum(g, axis=0)
        return a - g * b, b - g * a

    one, other, plan = both(swap, there(4), there(4), there(4), donate=(0, 1))
    assert one == other
    pair, copies = [step for step in plan.steps if len(step.calls) == 2]
    assert copies.calls[0].node.op.name == "copy"
    written = [place.buffer for call in pair.calls for place in call.outputs]
    read = [place.buffer for call in pair.calls for place in call.inputs if place is not None]
    for call in pair.calls:
        own = [p.buffer for p in call.inputs if p is not None]
        for place in call.outputs:
            assert written.count(place.buffer) == 1
            assert read.count(place.buffer) == own.count(place.buffer)


def test_memory_that_ends_with_one_call_is_not_the_next_ones_result() -> None:
    def f(xs: Any) -> Any:
        made = []
        for x in xs:
            t = kw.tanh(kw.cumsum(x, axis=0)).astype("float64")
            made += [t, kw.concat([t * 3.0, t * 3.0])]
        return made

    one, other, plan = both(f, [there(64) for _ in range(4)])
    assert one == other
    (group,) = [step for step in plan.steps if len(step.calls) == 4]
    written = [p.buffer for c in group.calls for p in c.outputs]
    read = [p.buffer for c in group.calls for p in c.inputs if p is not None]
    spans = [(b.offset, b.offset + b.size(256)) for b in (*written, *read) if b.kind == "arena"]
    assert len(spans) >= 8
    for i, (low, high) in enumerate(spans):
        assert all(high <= start or end <= low for start, end in spans[i + 1 :])


def test_numbers_that_differ_make_different_launches() -> None:
    def f(xs: Any, a: Any, b: Any) -> Any:
        xs = [kw.cumsum(x, axis=0) for x in xs]
        return [xs[0] * a, xs[1] * a, xs[2] * b, xs[3] * b]

    one, other, plan = both(f, [there(3) for _ in range(4)], there(), there())
    assert one == other
    assert groups_of(plan) == [2, 2]


def test_calls_that_the_kernel_does_not_take_are_launched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        many, "problem", lambda program, groups, shared: "odd" if groups[0][-1].size == 3 else None
    )

    def f(xs: Any) -> Any:
        return [kw.cumsum(x, axis=0) * 2.0 for x in xs]

    one, other, plan = both(f, [there(n) for n in (3, 4, 5, 3)])
    assert one == other
    assert groups_of(plan) == [2]
    assert len(plan.steps) == 4 + 1 + 2


def test_a_launch_of_many_that_fails_names_the_first_and_their_number(gpu: StandIn) -> None:
    from kernelwright.kernels.errors import LaunchError

    gpu.failing["many"] = RuntimeError("no")
    with pytest.raises(LaunchError, match=r"fused1 .*test_gpu_many.py:\d+.* and 2 more in the same launch"):
        kw.compile(lambda xs: [kw.cumsum(x, axis=0) * 2.0 + 1.0 for x in xs])([there(3) for _ in range(3)])


def test_debugging_sees_each_call_of_a_launch() -> None:
    f = kw.compile(lambda xs: [kw.log(kw.cumsum(x, axis=0)) * 2.0 for x in xs])
    good, bad = kw.array([1.0], "float32", "cuda:0"), kw.array([-1.0], "float32", "cuda:0")
    from kernelwright.kernels.errors import NonFiniteError

    with kw.debug_nans():
        f([good, good])
        with pytest.raises(NonFiniteError, match=r"gave nan at \[0\]"):
            f([good, bad])
