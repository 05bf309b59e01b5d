"""Whole networks beside torch: both definitions are one network; a contest is judged before it is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.store import dumps
from kernelwright.bench.whole.networks import get_network, networks
from kernelwright.bench.whole.networks.network import UnknownNetworkError
from kernelwright.engine import nn
from kernelwright.kernels.settings import using

pytest.importorskip("torch", reason="races torch: pip install 'kernelwright[torch]'")

from kernelwright.bench.whole import command as whole
from kernelwright.bench.whole import memory_use, overhead, rivals, steps


def test_parameters_of_both_definitions_have_the_same_names_and_shapes() -> None:
    for network in networks():
        theirs = {k: tuple(v.shape) for k, v in rivals.torch_model(network).state_dict().items()}
        ours = {k: v.shape for k, v in nn.state_dict(network.ours(0)).items()}
        assert ours == {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}


def test_losses_of_both_are_the_same_for_some_steps() -> None:
    network = get_network("mlp")
    batch = network.draw(np.random.default_rng(0), 8)
    with using(threads=1):
        ours, theirs = (
            [float(step()) for _ in range(4)]
            for step in (steps.our_step(network, batch, 1e-2), rivals.torch_step(network, batch, 1e-2))
        )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert ours[-1] < ours[0]


def test_outputs_of_both_are_the_same() -> None:
    network = get_network("lenet")
    x, _ = network.draw(np.random.default_rng(0), 2)
    with using(threads=1):
        np.testing.assert_allclose(
            np.asarray(steps.our_inference(network, x)()),
            rivals.torch_inference(network, x)().numpy(),
            rtol=1e-4,
            atol=1e-5,
        )


def contest(**found: Any) -> steps.Contest:
    return steps.Contest("mlp", "an MLP", "step", 32, 1, 5.0, **found)


def test_what_is_further_from_float64_than_torch_by_far_is_wrong() -> None:
    exact = np.array([1.0, 2.0])
    for error, right in ((1e-7, True), (5e-6, True), (1e-2, False)):
        one = contest()
        assert steps._judge(one, exact + error, exact + 1e-7, exact) == one.right == right


def test_a_contest_is_a_row_of_the_table_and_of_the_file(tmp_path: Path) -> None:
    rows = [contest(right=True, ratio=5.5, low=5.0, high=6.0, ours_s=1e-5, theirs_s=5.5e-5), contest()]
    table = whole._table(rows)
    assert table.row_count == 2
    assert '"ratio": 5.5' in dumps({"results": [row.to_json() for row in rows]})
    assert steps.mean_ratio(rows) == pytest.approx(5.5)


def test_an_unknown_network_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownNetworkError, match="resnet18"):
        get_network("resnet")


@pytest.mark.parametrize(
    "text", [overhead._COMPILE, memory_use._OURS, memory_use._THEIRS], ids=["compile", "ours", "theirs"]
)
def test_what_a_fresh_process_runs_finds_what_it_imports(text: str) -> None:
    lines = [line for line in text.splitlines() if line.startswith("from kernelwright")]
    assert lines
    exec("\n".join(lines), {})
