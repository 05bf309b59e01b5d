"""The vendor's way of computing a problem, found by the op's family.

What an expert sets once is set here: tf32 where ours may use it, channels-last for NHWC images, weights in
the layout that suits them before the timing starts. A family's file has

    NAMES   op -> what the vendor calls it
    WAYS    op -> `way(problem, tensors)`: the call as a function without arguments, over tensors that lie as
            the problem says. It gives a tensor, or one for each of the op's outputs, None for those that the
            vendor does not give
    TRUTHS  op -> `truth(problem, tensors, seed)`, see `judging.py`; optional

Gradients are called as such, outside of autograd, wherever torch has a name for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ....kernels.op import get_op
from ...problems.problem import Problem


@contextmanager
def settings(tf32: bool) -> Iterator[None]:
    """cuDNN chooses by measuring; float32 products go through tf32 where that is allowed."""
    import torch

    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = tf32
    try:
        # In brackets: where torch's own test helpers are loaded, it refuses to have these set for good.
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32),
            torch.inference_mode(),
        ):
            yield
    finally:
        matmul.allow_tf32 = before


def of_family(op: str) -> Any:
    """The file of an op's family."""
    return import_module(f".{get_op(op).family}", __package__)


def name_of(problem: Problem) -> str:
    """What the vendor calls it."""
    name: str = of_family(problem.op).NAMES[problem.op]
    return name


def vendor(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """The call as a function without arguments, over tensors laid out as the problem says."""
    made: Callable[[], Any] = of_family(problem.op).WAYS[problem.op](problem, tensors)
    return made
