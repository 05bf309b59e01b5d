"""Whole training steps on a GPU: the networks are the same in both libraries, and a record tells of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch")

from kernelwright.bench.cuda import endurance, record, steps  # noqa: E402
from kernelwright.bench.cuda.cases.jobs import jobs  # noqa: E402
from kernelwright.bench.cuda.cases.jobs import steps as step_jobs  # noqa: E402
from kernelwright.bench.cuda.record import Record  # noqa: E402
from kernelwright.bench.whole.networks import get_network  # noqa: E402
from kernelwright.bench.whole.networks.network import GPU_NAMES  # noqa: E402
from kernelwright.bench.whole.rivals import torch_model  # noqa: E402
from kernelwright.engine import nn  # noqa: E402


def test_the_suite_steps_has_the_networks_that_speed_is_promised_for() -> None:
    names = [job.name for job in jobs("steps", True)]
    assert {f"step {name}" for name in GPU_NAMES} <= set(names)
    assert {"leaks mlp_gpu", "digits"} <= set(names)
    assert [job.name for job in step_jobs()] == names


@pytest.mark.parametrize("name", ["lstm_gpu", "mlp_gpu"])
def test_a_network_on_the_gpu_is_the_same_in_both_libraries(name: str) -> None:
    """One forward pass of equal parameters, on the CPU; ResNet-50's parameters alone are compared below."""
    network = get_network(name)
    theirs = torch_model(network)
    ours = nn.from_torch_state_dict(network.ours(0), theirs.state_dict())
    x, _ = network.draw(np.random.default_rng(0), 2)
    with torch.no_grad():
        wanted = theirs.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.asarray(ours(x)), wanted, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", ["resnet50", "transformer_gpu"])
def test_a_large_network_has_the_same_parameters(name: str) -> None:
    network = get_network(name)
    with torch.device("meta"):
        theirs = network.theirs().state_dict()
    shapes = {key: tuple(t.shape) for key, t in theirs.items() if not key.endswith("num_batches_tracked")}
    assert {key: a.shape for key, a in nn.state_dict(network.ours(0)).items()} == shapes


def test_a_step_is_compared_and_raced() -> None:
    """On the CPU, with torch as it is: all but the device."""
    found = steps.raced(get_network("mlp_gpu"), "cpu", compile_theirs=False)
    assert found["status"] == "right", found
    assert found["ratio"] > 0
    assert found["baseline"] == "torch"
    made = Record({**HEAD, "suite": "steps"}, {"step mlp_gpu": found})
    assert "| MLP 64-128-128-10, batch 32, Adam | " in record.table([made])


def test_a_step_that_learns_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = steps.our_step

    def wrong(network: Any, batch: Any, lr: float, device: str | None = None) -> Any:
        return right(network, batch, 2 * lr, device)

    monkeypatch.setattr(steps, "our_step", wrong)
    found = steps.raced(get_network("mlp_gpu"), "cpu", compile_theirs=False)
    assert found["status"] == "wrong"
    assert "ratio" not in found


def test_equal_runs_have_equal_bits() -> None:
    assert endurance.same_bits("mlp_gpu", "cpu", steps=5)["status"] == "right"


HEAD = {
    "device": "NVIDIA H200",
    "capability": 90,
    "driver": "580",
    "versions": {"torch": "2.11"},
    "commit": "0" * 40,
    "started": "2026-01-01T00:00:00+00:00",
    "suite": "all",
    "check": False,
}
