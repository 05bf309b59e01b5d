"""Small networks on a GPU in Triton's interpreter, with the kernels that there are: the CPU's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

from triton_interpreter import StandIn, interpreted, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine import tree  # noqa: E402

pytestmark = interpreted
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in() as runtime, kw.using(backend="triton"):  # CUDA C++ has no interpreter
        yield runtime


def some(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype("float32")


def numbers(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(kw.array(x, device="cpu"))


def trained(step: Any, params: Any, optimizer: Any, device: str, data: Any, count: int) -> tuple[Any, Any]:
    """A compiled step after `count` runs: (parameters, states, the last loss), and its plan."""
    f = kw.compile(step, donate=(0, 1))
    params = tree.map(lambda x: kw.array(x, device=device), params)
    state = optimizer.init(params)
    batch = [kw.array(x, device=device) for x in data]
    for _ in range(count):
        params, state, loss = f(params, state, *batch)
    return (params, state, loss), f.plan


def compare(here: Any, there: Any, rtol: float, atol: float) -> None:
    assert tree.flatten(here)[1] == tree.flatten(there)[1]
    for a, b in zip(tree.leaves(here), tree.leaves(there), strict=True):
        assert b.device == "cuda:0"
        np.testing.assert_allclose(numbers(b), numbers(a), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_mlp_trains_as_on_the_cpu(name: str, gpu: StandIn) -> None:
    optimizer = kw.optim.sgd(0.05, momentum=0.9) if name == "sgd" else kw.optim.adam(1e-2)
    params = {"a": some(12, 16), "b": some(16), "c": some(16, 5)}

    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((kw.relu(x @ p["a"] + p["b"]) @ p["c"] - y) ** 2).mean()

    def step(p: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = kw.value_and_grad(loss)(p, x, y)
        return *optimizer.update(p, grads, state), value

    data = some(9, 12), some(9, 5)
    here, _ = trained(step, params, optimizer, "cpu", data, 4)
    there, plan = trained(step, params, optimizer, "cuda:0", data, 4)
    compare(here, there, 2e-3, 2e-4)
    assert plan.replays.replayed == 3
    with kw.using(cuda_graphs=False):
        direct, _ = trained(step, params, optimizer, "cuda:0", data, 4)
    for a, b in zip(tree.leaves(direct), tree.leaves(there), strict=True):
        assert numbers(a).tobytes() == numbers(b).tobytes()


def test_a_convolution_its_gradients_and_an_update() -> None:
    params = {"w": 0.3 * some(8, 3, 3, 3), "b": some(8), "h": 0.1 * some(8, 4)}
    optimizer = kw.optim.sgd(0.05)

    def loss(p: Any, x: Any, y: Any) -> Any:
        z = kw.relu(kw.conv2d(x, p["w"], p["b"], padding=1, stride=2))
        return ((z.mean(axis=(2, 3)) @ p["h"] - y) ** 2).sum()

    def step(p: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = kw.value_and_grad(loss)(p, x, y)
        return *optimizer.update(p, grads, state), value

    data = some(2, 3, 8, 8), some(2, 4)
    here, _ = trained(step, params, optimizer, "cpu", data, 3)
    there, plan = trained(step, params, optimizer, "cuda:0", data, 3)
    compare(here, there, 2e-3, 2e-4)
    layouts = {call.node.attrs["layout"] for call in plan.calls if "conv" in call.node.op.name}
    assert layouts == {"NHWC"}


def test_operators_run_as_kernels_on_the_gpu(gpu: StandIn) -> None:
    x = some(5, 7)
    a = kw.array(x, device="cuda:0")
    made = (a * 2.0 + 1) / (abs(a) + 0.5) - a.mean()
    np.testing.assert_allclose(numbers(made), (x * 2 + 1) / (abs(x) + 0.5) - x.mean(), rtol=1e-5, atol=1e-6)
    assert len(gpu.steps) >= 5
    assert (a > 0).dtype == np.bool_
    np.testing.assert_array_equal(numbers(a.astype("float64")), x.astype("float64"))
    np.testing.assert_array_equal(numbers(a[1:, ::2].copy()), x[1:, ::2])
