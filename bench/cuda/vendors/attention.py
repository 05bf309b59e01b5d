"""Attention by torch: FlashAttention, cuDNN and the memory-efficient kernels; the fastest of them on the
device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ...problems.problem import Problem
from ..cases.attention import chunks

_TRIALS = 5
_MOST_HEADS = 2  # of keys, in truths


def fastest(makers: Sequence[Callable[[], Callable[[], Any]]]) -> Callable[[], Any]:
    """Of calls that do the same, the fastest on the device; those that raise are left out."""
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
    if not timed:
        raise RuntimeError(f"none of torch's kernels takes the call: {errors}")
    return min(timed)[-1]


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

    backends = (
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    )
    return fastest([partial(way, backend) for backend in backends])


def _gradient(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    q, k, v, _, _, _, dout, _ = tensors
    causal, scale = problem.complete["is_causal"], problem.complete["scale"]
    return fastest([partial(make, q, k, v, dout, causal, scale) for make in _BACKWARDS])


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


_BACKWARDS = (_cudnn, _flash, _efficient, _plain)

Looked = list[tuple[Any, Any, Callable[[Any], Any]]]


def _heads(q: Any, k: Any, seed: int) -> list[tuple[int, int]]:
    """Some of (batch, head of keys), the first among them."""
    import torch

    count = k.shape[0] * k.shape[1]
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: _MOST_HEADS - 1].tolist()
    return [divmod(at, k.shape[1]) for at in sorted({0, *drawn})]


def _forward_truth(problem: Problem, tensors: Sequence[Any], seed: int) -> Looked:
    """Of some heads; the scales are those of `kernels.attention.reference.attention_magnitude`."""
    import torch

    q, k, v, _ = tensors
    group, at = q.shape[1] // k.shape[1], _heads(q, k, seed)
    rows = []
    for b, g in at:
        heads = slice(g * group, (g + 1) * group)
        rows.append(_of_heads(problem, q[b, heads], k[b, g], v[b, g]))
    exact, scale, sums, sums_scale = (torch.stack(one) for one in zip(*rows, strict=True))

    def looked_at(result: Any) -> Any:
        return torch.stack([result[b, g * group : (g + 1) * group] for b, g in at])

    return [(exact, scale, looked_at), (sums, sums_scale, looked_at)]


def _of_heads(problem: Problem, q: Any, k: Any, v: Any) -> tuple[Any, ...]:
    """(out, its scale, logsumexp, its scale) of heads that share k and v."""
    import torch

    factor = q.shape[-1] ** -0.5
    keys, values = (x.double().expand(q.shape[0], -1, -1) for x in (k, v))
    made: list[list[Any]] = [[], [], [], []]
    for rows, _, p, total in chunks(q, keys, values, problem.complete["is_causal"], factor, torch.float64):
        size = q[:, rows].double().abs() @ keys.abs().transpose(-1, -2) * factor
        mean = (p * size).sum(-1, keepdim=True)
        made[0].append(p @ values)
        made[1].append((p * (1 + size + mean)) @ values.abs())
        made[2].append(total)
        made[3].append(1 + total.abs() + mean[..., 0])
    return tuple(torch.cat(one, 1) for one in made)


def _gradient_truth(problem: Problem, tensors: Sequence[Any], seed: int) -> Looked:
    """Of some heads; the scales are those of `kernels.attention.reference.attention_grad_magnitude`."""
    import torch

    q, k, v, _, out, _, dout, _ = tensors
    group, at = q.shape[1] // k.shape[1], _heads(q, k, seed)
    rows = []
    for b, g in at:
        heads = slice(g * group, (g + 1) * group)
        rows.append(_slopes(problem, q[b, heads], k[b, g], v[b, g], out[b, heads], dout[b, heads]))
    dq, dq_scale, dk, dk_scale, dv, dv_scale = (torch.stack(one) for one in zip(*rows, strict=True))

    def of_queries(result: Any) -> Any:
        return torch.stack([result[b, g * group : (g + 1) * group] for b, g in at])

    def of_keys(result: Any) -> Any:
        return torch.stack([result[b, g] for b, g in at])

    return [(dq, dq_scale, of_queries), (dk, dk_scale, of_keys), (dv, dv_scale, of_keys)]


def _slopes(problem: Problem, q: Any, k: Any, v: Any, out: Any, dout: Any) -> tuple[Any, ...]:
    """(dq, its scale, dk, its scale, dv, its scale) of heads that share k and v."""
    import torch

    factor = q.shape[-1] ** -0.5
    keys, values = (x.double().expand(q.shape[0], -1, -1) for x in (k, v))
    made: list[list[Any]] = [[], []]
    sums = [torch.zeros_like(x, dtype=torch.float64) for x in (k, k, v, v)]
    for rows, _, p, total in chunks(q, keys, values, problem.complete["is_causal"], factor, torch.float64):
        x, y, o = (part[:, rows].double() for part in (q, dout, out))
        size = x.abs() @ keys.abs().transpose(-1, -2) * factor
        loose = torch.where(p > 0, 1 + size + total.abs()[..., None], 0.0)
        terms = (y * o).abs().sum(-1, keepdim=True) + y.abs() @ values.abs().transpose(-1, -2)
        ds = p * (y @ values.transpose(-1, -2) - (y * o).sum(-1, keepdim=True)) * factor
        ds_size = p * terms * loose * factor
        made[0].append(ds @ keys)
        made[1].append(ds_size @ keys.abs())
        for place, (a, b) in enumerate(((ds, x), (ds_size, x.abs()), (p, y), (p * loose, y.abs()))):
            sums[place] += (a.transpose(-1, -2) @ b).sum(0)
    dq, dq_scale = (torch.cat(one, 1) for one in made)
    return dq, dq_scale, *sums


NAMES = {
    "attention": "scaled_dot_product_attention",
    "attention_grad": "scaled_dot_product_attention_backward",
}
WAYS: dict[str, Callable[..., Any]] = {"attention": _attention, "attention_grad": _gradient}
TRUTHS: dict[str, Callable[..., Looked]] = {"attention": _forward_truth, "attention_grad": _gradient_truth}
