"""What attention and recurrent layers are raced against: torch's fastest way, in what it takes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_extra import need

need("torch")

import torch  # noqa: E402

from kernelwright.bench.cuda.cases import attention as cases  # noqa: E402
from kernelwright.bench.cuda.vendors.attention import fastest  # noqa: E402
from kernelwright.bench.cuda.vendors.recurrent import _for_cudnn  # noqa: E402
from kernelwright.bench.cuda.vendors.ways import settings, vendor  # noqa: E402
from kernelwright.bench.problems.problem import Operand  # noqa: E402
from kernelwright.kernels.cuda.launch import torch_dtype  # noqa: E402


def refused() -> Callable[[], Any]:
    raise RuntimeError("no kernel")


def test_whole_scores_are_only_kept_where_no_kernel_runs() -> None:
    assert fastest([refused, lambda: lambda: "kernel"], lambda: lambda: "scores")() == "kernel"
    assert fastest([refused, lambda: refused], lambda: lambda: "scores")() == "scores"
    with pytest.raises(RuntimeError, match="none of torch's kernels takes the call"):
        fastest([refused], lambda: refused)


@pytest.mark.parametrize("op", ["attention", "attention_grad"])
def test_heads_share_keys_in_torchs_attention_too(op: str) -> None:
    problem = cases._problem(op, "small", (1, 4, 16, 32), (1, 2, 16, 32), True, "g", "s")
    generator = torch.Generator().manual_seed(1)

    def draw(operand: Operand | None, place: int) -> Any:
        if operand is None:
            return None
        return torch.randn(operand.shape, generator=generator).to(torch_dtype(operand.dtype))

    with settings(tf32=False):
        theirs = vendor(problem, list(cases.DRAWN[op](problem, draw)))()
    given = theirs if isinstance(theirs, tuple) else (theirs,)
    assert [tuple(one.shape) for one in given] == [out.shape for out in problem.outputs[: len(given)]]


def test_cudnn_is_given_float16_in_the_place_of_bfloat16() -> None:
    there = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16, device=torch.device("cuda"))
    there.half = lambda: "float16"
    assert _for_cudnn(there) == "float16"
    for dtype in (torch.float32, torch.bfloat16):  # on the CPU all stay as they are
        assert _for_cudnn(torch.zeros(2, dtype=dtype)).dtype == dtype
    assert _for_cudnn(None) is None
