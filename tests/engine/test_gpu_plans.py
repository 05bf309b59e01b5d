"""Every network of the laboratory has a plan on a GPU with the real kernels. Nothing is run here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("torch", "triton", "cupy")

from triton_interpreter import standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.bench.whole.networks.network import get_network  # noqa: E402
from kernelwright.engine import passes, tree  # noqa: E402
from kernelwright.engine.compile import trace_tree  # noqa: E402
from kernelwright.engine.plan import make_plan  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402


def training_plan(name: str, dtype: str) -> tuple[Any, int]:
    """The plan of a training step with the updates in place, and the number of parameters."""
    net = get_network(name)
    model, optimizer = net.ours(0), net.our_optimizer(net.lr)
    x, y = net.draw(np.random.default_rng(0), net.batch)

    def step(model: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(m: Any) -> Any:
            m, given = kw.nn.cast(m, dtype), x.astype(dtype) if x.dtype.kind == "f" else x
            return kw.cross_entropy(m(given).astype("float32"), y)

        value, grads = kw.value_and_grad(loss)(model)
        return *optimizer.update(model, grads, state), value

    args = (model, optimizer.init(model), kw.array(x), kw.array(y))
    leaves, structure = tree.flatten((args, {}))
    specs = [TensorSpec(leaf.shape, leaf.spec.dtype, "cuda:0") for leaf in leaves]
    graph, _, _ = trace_tree(step, structure, specs, "step")
    given = sum(child.size for child in structure.children[0].children[:2])
    plan = make_plan(passes.run(graph, passes.Switches()), specs, range(given))
    return plan, len(kw.nn.partition(model)[0])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mlp", "bfloat16"), ("lenet", "float32"), ("resnet18", "bfloat16"), ("lstm", "float32"),
     ("lstm", "bfloat16"), ("transformer", "bfloat16")],
)  # fmt: skip
def test_a_network_trains_on_a_gpu(name: str, dtype: str) -> None:
    with standing_in():
        plan, parameters = training_plan(name, dtype)
        assert plan.graph.device == "cuda:0"
        assert all(call.choice.fallback is None for call in plan.calls)
        together = [len(step.calls) for step in plan.steps if len(step.calls) > 1]
        # The casts of all weights, and the updates: all but those that backward needs something of.
        most = parameters * (2 if dtype == "bfloat16" else 1)
        assert sum(together) >= most * (0.8 if name == "resnet18" else 0.95)
        new = sum(spec.nbytes for spec in plan.new_specs)
        assert new <= 1024  # the loss; whatever is a parameter or a state lies where it lay
        images = [call for call in plan.calls if "conv" in call.node.op.name]
        assert all(call.node.attrs["layout"] == "NHWC" for call in images)
        assert plan.arena_bytes <= 1.2 * plan.arena_lower_bound
