"""Launches in memory that somebody else holds for their workspaces, as plans do, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_extra import need

torch = need("torch", "triton")

import toy_cuda  # noqa: E402
from toy_op import TOY  # noqa: E402
from triton_interpreter import StandIn, interpreted, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.eager import call  # noqa: E402
from kernelwright.kernels.cuda.chain import ChainLaunch, Part  # noqa: E402
from kernelwright.kernels.cuda.launch import launcher  # noqa: E402
from kernelwright.kernels.cuda.step import Workspace  # noqa: E402

pytestmark = interpreted


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in() as runtime:
        yield runtime


def bind_chain(specs: Any, attrs: Any, config: Any, threads: int) -> ChainLaunch:
    """(x + scale y) + scale y, of which the second part has a workspace of its own."""

    def parts(aligned: bool) -> list[Part]:
        middle = Workspace((specs[0].size,))
        once = toy_cuda.bind_plain_add(specs, attrs, config, threads)
        again = toy_cuda.bind_in_two_steps(specs, attrs, config, threads)
        return [Part(once, (0, 1, middle)), Part(again, (middle, 1, 2))]

    return ChainLaunch(specs, parts)


def test_a_launch_runs_in_the_memory_that_it_is_given(gpu: StandIn) -> None:
    specs = (toy_cuda.spec(70),) * 3
    x, y, out, held = torch.randn(70), torch.randn(70), torch.empty(70), torch.empty(70)
    launch = toy_cuda.bind_in_two_steps(specs, {"scale": 2.0}, {"block": 64}, 1)
    gpu.workspace = None  # type: ignore[assignment, method-assign]
    launch.prepare((x, y, out), (held,))
    launch.within((x, y, out), (held,))
    torch.testing.assert_close(out, x + 2 * y)
    torch.testing.assert_close(held, 2 * y)


def test_a_chain_shares_it_out(gpu: StandIn) -> None:
    specs = (toy_cuda.spec(70),) * 3
    x, y, out = torch.randn(70), torch.randn(70), torch.empty(70)
    chain = bind_chain(specs, {"scale": 2.0}, {"block": 64, "warps": 2}, 1)
    assert [piece.shape for piece in chain.workspaces] == [(70,), (70,)]
    held = [torch.empty(piece.shape) for piece in chain.workspaces]
    real, gpu.workspace = gpu.workspace, None  # type: ignore[assignment, method-assign]
    chain.prepare((x, y, out), held)
    chain.within((x, y, out), held)
    torch.testing.assert_close(out, x + 4 * y)
    torch.testing.assert_close(held[0], x + 2 * y)
    torch.testing.assert_close(held[1], 2 * y)
    gpu.workspace = real  # type: ignore[method-assign]
    odd = torch.randn(71)[1:]
    chain.within((odd, y, out), held)  # parts for unaligned tensors have other pieces
    torch.testing.assert_close(out, odd + 4 * y)


@pytest.mark.parametrize("bind", [toy_cuda.bind_in_two_steps, bind_chain])
def test_a_plan_takes_scratch_once_for_all_its_calls(bind: Any, gpu: StandIn) -> None:
    with toy_cuda.toy_on_cuda(bind):
        f = kw.compile(lambda x, y: call(TOY, (call(TOY, (x, y), {"scale": 2.0}), y), {"scale": 3.0}))
        x, y = torch.randn(70), torch.randn(70)
        with kw.using(cuda_graphs=False):
            for _ in range(2):
                made = f(x, y)
                gpu.workspace = None  # type: ignore[assignment, method-assign]
        times = 2 if bind is bind_chain else 1
        torch.testing.assert_close(torch.from_dlpack(made), x + times * 5 * y)
        assert f.plan.scratch_bytes == 512 * times


def test_a_launch_without_steps_does_nothing() -> None:
    launcher((toy_cuda.spec(0),)).within((torch.empty(0),), ())
