"""Attention by torch: FlashAttention, cuDNN and the memory-efficient kernels; the fastest of them on the
device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...problems.problem import Problem

_TRIALS = 5


Maker = Callable[[], Callable[[], Any]]


def fastest(makers: Sequence[Maker], otherwise: Maker) -> Callable[[], Any]:
    """Of calls that do the same, the fastest on the device; those that raise are left out.

    `otherwise` is what is left where all do: a way that keeps whole matrices of scores, which is never the
    fastest, and of long sequences would fill the device's memory only to be tried.
    """
    import torch

    event: Any = torch.cuda.Event
    timed: list[tuple[float, int, Callable[[], Any]]] = []
    errors = []
    for place, make in enumerate(makers):
        try:
            way = make()
            way()
            if not torch.cuda.is_available():
                return way
            begin, end = (event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(_TRIALS):
                way()
            end.record()
            end.synchronize()
            timed.append((begin.elapsed_time(end), place, way))
        except RuntimeError as error:
            errors.append(str(error))
    if timed:
        return min(timed)[-1]
    try:
        way = otherwise()
        way()
    except RuntimeError as error:
        raise RuntimeError(f"none of torch's kernels takes the call: {[*errors, str(error)]}") from None
    return way


def _attention(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    q, k, v, mask = tensors
    attrs = problem.complete
    how = {"is_causal": attrs["is_causal"], "scale": attrs["scale"], "enable_gqa": q.shape[-3] != k.shape[-3]}

    def way(backend: Any) -> Callable[[], Any]:
        def call() -> Any:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v, mask, **how)

        return call

    backends = SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION
    return fastest([partial(way, backend) for backend in backends], partial(way, SDPBackend.MATH))


def _gradient(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    q, k, v, _, _, _, dout, _ = tensors
    causal, scale = problem.complete["is_causal"], problem.complete["scale"]
    first, *rest = (partial(make, q, k, v, dout, causal, scale) for make in (_plain, *_BACKWARDS))
    return fastest(rest, first)


def _cudnn(q: Any, k: Any, v: Any, dout: Any, causal: bool, scale: float | None) -> Callable[[], Any]:
    import torch

    aten = torch.ops.aten
    forward = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, causal, False, scale=scale)
    out, total, cum_q, cum_k, most_q, most_k, seed, offset = forward[:8]
    backward = aten._scaled_dot_product_cudnn_attention_backward
    rest = (out, total, seed, offset, None, cum_q, cum_k, most_q, most_k, 0.0, causal)
    return lambda: backward(dout, q, k, v, *rest, scale=scale)


def _flash(q: Any, k: Any, v: Any, dout: Any, causal: bool, scale: float | None) -> Callable[[], Any]:
    import torch

    aten = torch.ops.aten
    forward = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    out, total, cum_q, cum_k, most_q, most_k, seed, offset = forward[:8]
    backward = aten._scaled_dot_product_flash_attention_backward
    rest = (out, total, cum_q, cum_k, most_q, most_k, 0.0, causal, seed, offset)
    return lambda: backward(dout, q, k, v, *rest, scale=scale)


def _efficient(q: Any, k: Any, v: Any, dout: Any, causal: bool, scale: float | None) -> Callable[[], Any]:
    import torch

    if q.shape[-3] != k.shape[-3]:
        raise NotImplementedError("takes as many heads of keys as of queries")
    aten = torch.ops.aten
    forward = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
    out, total, seed, offset = forward
    backward = aten._scaled_dot_product_efficient_attention_backward
    wanted = [True, True, True, False]
    return lambda: backward(
        dout, q, k, v, None, out, total, seed, offset, 0.0, wanted, causal, scale=scale
    )[:3]  # fmt: skip


def _plain(q: Any, k: Any, v: Any, dout: Any, causal: bool, scale: float | None) -> Callable[[], Any]:
    """Without a kernel: what float64 and the CPU have."""

    def call() -> Any:
        import torch

        group = q.shape[-3] // k.shape[-3]
        keys, values = (x.repeat_interleave(group, -3) for x in (k, v))
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        scores = q @ keys.transpose(-1, -2) * factor
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        p = scores.softmax(-1)
        dp = dout @ values.transpose(-1, -2)
        ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * factor
        dk, dv = (
            (x.transpose(-1, -2) @ y).unflatten(-3, (-1, group)).sum(-3) for x, y in ((ds, q), (p, dout))
        )
        return ds @ keys, dk, dv

    return call


_BACKWARDS = (_cudnn, _flash, _efficient)

NAMES = {
    "attention": "scaled_dot_product_attention",
    "attention_grad": "scaled_dot_product_attention_backward",
}
WAYS: dict[str, Callable[..., Any]] = {"attention": _attention, "attention_grad": _gradient}
