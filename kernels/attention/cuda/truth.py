"""What attention should give, in float64 on the device, of some heads: for tuning, and for races.

The scales are those of `reference.attention_magnitude` and `attention_grad_magnitude`. Scores are worked out
some rows at a time, so that long sequences need little memory. Needs torch, and no triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...op import Attrs
from .problem import factor_of

CHUNK = 256
"""Rows of scores that are in memory at one time, of the heads that share keys."""
MOST_HEADS = 2
"""Heads of keys, with those of queries that share them, that are looked at: the first and another."""
_FLOOR = -1e30  # what stands for the logsumexp of a row that sees nothing
Looked = tuple[Any, Any, Callable[[Any], Any]]


def scores_by_rows(
    q: Any, k: Any, mask: Any, causal: bool, scale: float, wide: Any
) -> Iterator[tuple[slice, Any, Any]]:
    """(rows, probabilities, logsumexp) of some rows after the others, in the dtype `wide`.

    q: [heads, L, E], k: [S, E], mask: [heads, L, S] or None. Rows that see nothing have zeros, and -inf.
    """
    import torch

    turned = k.to(wide).transpose(-1, -2)
    for first in range(0, q.shape[-2], CHUNK):
        rows = slice(first, min(first + CHUNK, q.shape[-2]))
        scores = q[:, rows].to(wide) @ turned * scale
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask[:, rows], float("-inf"))
        elif mask is not None:
            scores += mask[:, rows].to(wide)
        if causal:
            at = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
            scores.masked_fill_(torch.arange(k.shape[-2], device=q.device) > at, float("-inf"))
        total = scores.logsumexp(-1)
        shift = torch.where(total == float("-inf"), float("inf"), total)
        yield rows, scores.sub_(shift[..., None]).exp_(), total


class _Call:
    """A call's tensors with one axis before that of heads, and the heads that are looked at."""

    def __init__(self, attrs: Attrs, tensors: Sequence[Any], seed: int) -> None:
        import torch

        q, k = tensors[:2]
        self.causal, self.scale = bool(attrs["is_causal"]), factor_of(q.shape[-1], attrs["scale"])
        mask = tensors[3]
        if mask is not None:
            mask = mask.expand(*q.shape[:-1], k.shape[-2])
        self.q, self.k, self.v = (self._flat(x, 2) for x in tensors[:3])
        self.mask = None if mask is None else self._flat(mask, 2)
        self.group = self.q.shape[1] // self.k.shape[1]
        count = self.k.shape[0] * self.k.shape[1]
        drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: MOST_HEADS - 1]
        self.at = [divmod(at, self.k.shape[1]) for at in sorted({0, *drawn.tolist()})]

    @staticmethod
    def _flat(x: Any, trailing: int) -> Any:
        """[batch, heads, ...], the batch being all axes before."""
        while x.ndim < trailing + 2:
            x = x[None]
        return x.flatten(0, x.ndim - trailing - 2) if x.ndim > trailing + 2 else x

    def of_queries(self, x: Any, trailing: int = 2) -> Any:
        """What is looked at of an array with the heads of q: [looked at, group, ...]."""
        import torch

        flat = self._flat(x, trailing)
        return torch.stack([flat[b, g * self.group : (g + 1) * self.group] for b, g in self.at])

    def of_keys(self, x: Any) -> Any:
        """The same of an array with the heads of k: [looked at, ...]."""
        import torch

        flat = self._flat(x, 2)
        return torch.stack([flat[b, g] for b, g in self.at])

    def rows(self, place: int) -> Iterator[tuple[Any, ...]]:
        """(rows, p, logsumexp, sums of the scores' absolute terms, [.., S] each) of the heads at a place."""
        import torch

        b, g = self.at[place]
        heads = slice(g * self.group, (g + 1) * self.group)
        mask = None if self.mask is None else self.mask[b, heads]
        q, k = self.q[b, heads], self.k[b, g]
        for rows, p, total in scores_by_rows(q, k, mask, self.causal, self.scale, torch.float64):
            size = q[:, rows].double().abs() @ k.double().abs().transpose(-1, -2) * abs(self.scale)
            if mask is not None and mask.dtype != torch.bool:
                size += mask[:, rows].double().abs().nan_to_num(posinf=0.0)
            yield rows, p, total, torch.where(p > 0, size, 0.0)


def forward(attrs: Attrs, tensors: Sequence[Any], seed: int) -> list[Looked]:
    """(exact, scale, what of a result is looked at) of out and of the logsumexp."""
    import torch

    call = _Call(attrs, tensors, seed)
    made: list[list[Any]] = [[], [], [], []]
    for place, (b, g) in enumerate(call.at):
        values = call.v[b, g].double()
        parts: list[list[Any]] = [[], [], [], []]
        for _, p, total, size in call.rows(place):
            mean = (p * size).sum(-1, keepdim=True)
            scale = (p * (1 + size + mean)) @ values.abs()
            for part, found in zip(
                parts, (p @ values, scale, total, 1 + total.abs() + mean[..., 0]), strict=True
            ):
                part.append(found)
        for all_of, part in zip(made, parts, strict=True):
            all_of.append(torch.cat(part, 1))
    out, out_scale, total, total_scale = (torch.stack(one) for one in made)
    sums = (total.clamp_min(_FLOOR), total_scale.clamp_max(-_FLOOR))
    return [
        (out, out_scale, call.of_queries),
        (*sums, lambda x: call.of_queries(x, 1).clamp_min(_FLOOR)),
    ]


def backward(attrs: Attrs, tensors: Sequence[Any], seed: int) -> list[Looked]:
    """The same of the gradients of query, key and value."""
    import torch

    call = _Call(attrs, tensors, seed)
    out, given, dout, dtotal = tensors[4:8]
    logsumexp = call.of_queries(given, 1).double()
    outs, slopes = call.of_queries(out).double(), call.of_queries(dout).double()
    totals = None if dtotal is None else call.of_queries(dtotal, 1).double()
    queries = call.of_queries(call.q).double()
    made: list[list[Any]] = [[], [], [], [], [], []]
    for place, (b, g) in enumerate(call.at):
        keys, values = call.k[b, g].double(), call.v[b, g].double()
        of_q: list[list[Any]] = [[], []]
        sums = [torch.zeros_like(x) for x in (keys, keys, values, values)]
        for rows, p, total, size in call.rows(place):
            x, y, o = (part[place][:, rows] for part in (queries, slopes, outs))
            # Probabilities by the logsumexp that was given, which is rounded.
            told = torch.where(total == float("-inf"), total, logsumexp[place][:, rows])[..., None]
            p = torch.where(p > 0, p * (total[..., None] - told).exp(), 0.0)
            loose = torch.where(p > 0, 1 + size + told.abs(), 0.0)
            rest = (y * o).sum(-1, keepdim=True)
            terms = (y * o).abs().sum(-1, keepdim=True) + y.abs() @ values.abs().transpose(-1, -2)
            if totals is not None:
                rest, terms = rest - totals[place][:, rows, None], terms + totals[place][:, rows, None].abs()
            ds = p * (y @ values.transpose(-1, -2) - rest) * call.scale
            ds_size = p * terms * loose * abs(call.scale)
            of_q[0].append(ds @ keys)
            of_q[1].append(ds_size @ keys.abs())
            pairs = ((ds, x), (ds_size, x.abs()), (p, y), (p * loose, y.abs()))
            for at, (left, right) in enumerate(pairs):
                sums[at] += (left.transpose(-1, -2) @ right).sum(0)
        for all_of, found in zip(made, (*(torch.cat(one, 1) for one in of_q), *sums), strict=True):
            all_of.append(found)
    dq, dq_scale, dk, dk_scale, dv, dv_scale = (torch.stack(one) for one in made)
    return [(dq, dq_scale, call.of_queries), (dk, dk_scale, call.of_keys), (dv, dv_scale, call.of_keys)]
