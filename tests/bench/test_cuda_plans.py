"""The networks of the race on a GPU, lowered without one: what a training step launches."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from gpu_extra import need

need("torch", "triton", "cupy")

from kernelwright.bench.cuda import plans  # noqa: E402
from kernelwright.bench.whole.networks.network import GPU_NAMES, get_network  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402

# The kernels that a step may launch. Each launch is about 1.5 us of a graph, whatever it does.
MOST = {
    # 3 products forward and 5 backward, 3 sums for biases, 2 masks, 3 for the loss, the number of the step,
    # an update.
    "mlp_gpu": 18,
    # Of each LSTM 3 launches forward and 7 backward, 5 for the slope of the embedding, 3 products, the loss
    # with its two conversions, a sum, all weights' casts in one, all updates in one.
    "lstm_gpu": 38,
    # Of each of 6 layers 7 forward, and backward 8 products, 4 sums for biases, 2 x 2 for norms, 2 sums of
    # branches, a mask and 2 for attention; the embedding's slope is most of the rest.
    "transformer_gpu": 200,
    # Of each of 53 convolutions with its norm 3 forward and 4 backward, 32 times weights laid out anew, 27
    # times sums of parts of a weight's slope, 15 masks of blocks.
    "resnet50": 465,
}


@cache
def planned(name: str) -> plans.Planned:
    with device.assume(90):
        return plans.planned(get_network(name))


@pytest.mark.parametrize("name", GPU_NAMES)
def test_every_call_has_a_kernel_and_launches_are_few(name: str) -> None:
    plan = planned(name)
    calls = [call for unit in plan.units for call in unit.calls]
    assert Counter(map(id, calls)) == Counter(map(id, plan.low.calls))
    assert all(call.choice.kernel is not None and call.choice.fallback is None for call in calls)
    assert plan.launches <= MOST[name], plans.told(plan, device.chip(90))
    assert plan.moved >= plan.least > 0


def test_the_images_of_resnet_are_channels_last_throughout() -> None:
    plan = planned("resnet50")
    convs = [call.node for call in plan.low.calls if call.node.op.name.startswith("conv")]
    assert {node.attrs["layout"] for node in convs} == {"NHWC"}
    slow = plans.slow(plan)
    assert "copies" not in slow
    # The mask of a block's end is read by both of its branches; that of the others is in a norm's gradient.
    assert len(slow["unfused"]) == 16


@pytest.mark.parametrize("name", GPU_NAMES)
def test_running_statistics_and_parameters_stay_where_they_are(name: str) -> None:
    """Else no captured graph would serve the step after it."""
    plan = planned(name)
    outputs = Counter(place.buffer.kind for place in plan.low.outputs)
    assert outputs["output"] == 1  # the loss


def test_heads_are_never_copied() -> None:
    assert "copies" not in plans.slow(planned("transformer_gpu"))


def test_the_command_tells_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert plans.main(False, names=["mlp_gpu"]) == 0
    out = capsys.readouterr().out
    assert "mlp_gpu: 23 calls, 18 launches, 1 MB moved" in out
    assert "adam/register/program" in out
