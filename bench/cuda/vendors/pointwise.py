"""Pointwise ops by torch's own kernels, chains of them by its compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _bias_gelu(x: Any, bias: Any) -> Any:
    from torch.nn.functional import gelu

    return gelu(x + bias)


def _swiglu(x: Any, gate: Any) -> Any:
    from torch.nn.functional import silu

    return silu(gate) * x


def _scale_shift_relu(x: Any, scale: Any, shift: Any, residual: Any) -> Any:
    return (x * scale + shift + residual).relu()


def _tanh_chain(x: Any, y: Any) -> Any:
    return x.tanh() * y.sigmoid() + x * 0.5


CHAINS: dict[str, Callable[..., Any]] = {
    "bias-gelu": _bias_gelu,
    "swiglu": _swiglu,
    "scale-shift-relu": _scale_shift_relu,
    "tanh-chain": _tanh_chain,
}


def _chain_of(problem: Problem) -> Callable[..., Any]:
    name = problem.name.removeprefix("pointwise-").removesuffix(f"-{problem.dtype}")
    return CHAINS[name]


def _compiled(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """A chain by torch.compile; as it stands on the CPU, where only tests call it."""
    import torch

    function = _chain_of(problem)
    if tensors[0].is_cuda:
        function = torch.compile(function)
    return lambda: function(*tensors)


def _truth(problem: Problem, tensors: Sequence[Any], seed: int) -> list[Any]:
    """A chain in float64; errors against the element, or the root mean square where it is smaller."""
    exact = _chain_of(problem)(*(tensor.double() for tensor in tensors))
    return [(exact, exact.abs().clamp_min(float(exact.square().mean().sqrt())), lambda result: result)]


def _by_name(name: str) -> Callable[..., Callable[[], Any]]:
    def way(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
        import torch

        function = getattr(torch, name)
        return lambda: function(*tensors)

    return way


def _cast(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    dtype = getattr(torch, problem.complete["dtype"])
    return lambda: tensors[0].to(dtype)


_FUSED = ("fused2", "fused4")
NAMES = dict.fromkeys(_FUSED, "torch.compile") | {"copy": "torch.clone", "cast": "Tensor.to"}
NAMES |= {op: f"torch.{op}" for op in ("add", "mul", "exp")}
WAYS: dict[str, Callable[..., Callable[[], Any]]] = dict.fromkeys(_FUSED, _compiled)
WAYS |= {"copy": _by_name("clone"), "cast": _cast}
WAYS |= {op: _by_name(op) for op in ("add", "mul", "exp")}
TRUTHS: dict[str, Callable[..., list[Any]]] = dict.fromkeys(_FUSED, _truth)
