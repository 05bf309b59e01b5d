"""Attention: FlashAttention's sizes, the heads of Llama 3 in training and decoding, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ....kernels.attention.cuda.truth import scores_by_rows
from ...problems.problem import Operand, Problem
from .job import Race

# 16,384 tokens in batches of sequences of these lengths, 2048 features in heads of 64 or 128.
FLASH = "Dao, FlashAttention-2 (2023), section 4.1"
LLAMA = "Llama 3 8B (Dubey et al. 2024): 32 heads of 128, which share 8 of keys and values"
_TOKENS, _FEATURES = 16384, 2048
_LENGTHS = (4096, 1024, 16384, 512, 2048, 8192)


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    for length in (2048,) if small else _LENGTHS:
        for e in (128, 64):
            for op in ("attention", "attention_grad"):
                yield from ((flash(op, length, e, causal), None) for causal in (True, False))
    yield from ((p, None) for p in list(decode())[:: 4 if small else 1])
    yield from ((p, None) for p in list(llama())[:: 2 if small else 1])


def flash(op: str, length: int, e: int, causal: bool) -> Problem:
    """As many sequences as make 16,384 tokens."""
    shape = (_TOKENS // length, _FEATURES // e, length, e)
    name = f"{'causal' if causal else 'full'}-{length}x{e}"
    return _problem(op, name, shape, shape, causal, "flash", FLASH)


def llama() -> Iterator[Problem]:
    """Heads that share keys and values."""
    for length, batch in ((8192, 1), (2048, 4)):
        for op in ("attention", "attention_grad"):
            q, k = (batch, 32, length, 128), (batch, 8, length, 128)
            yield _problem(op, f"{length}-b{batch}", q, k, True, "shared", LLAMA)


def decode() -> Iterator[Problem]:
    """One query for each of a batch of sequences."""
    for length, batch in ((8192, 16), (2048, 64), (32768, 4), (8192, 1)):
        q, k = (batch, 32, 1, 128), (batch, 8, length, 128)
        yield _problem("attention", f"{length}-b{batch}", q, k, False, "decode", LLAMA)


def _problem(
    op: str, name: str, q: tuple[int, ...], k: tuple[int, ...], causal: bool, group: str, source: str
) -> Problem:
    half, out, total = "bfloat16", (*q[:-1], k[-1]), Operand(q[:-1], "float32")
    inputs: list[Operand | None] = [Operand(q, half), Operand(k, half), Operand(k, half), None]
    group = f"attention-{group}"
    if op == "attention_grad":
        inputs += [Operand(out, half), total, Operand(out, half), None]
        group += "-grad"
    attrs = {"is_causal": True} if causal else {}
    return Problem(f"{group}-{name}", op, tuple(inputs), group, source, attrs=attrs)


def _forward(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> Sequence[Any]:
    return [draw(operand, place) for place, operand in enumerate(problem.inputs)]


def _backward(problem: Problem, draw: Callable[[Operand | None, int], Any]) -> Sequence[Any]:
    """Inputs with the results of the forward call: probabilities must be such."""
    import torch

    q, k, v = (draw(problem.inputs[place], place) for place in range(3))
    out, dout = q.new_empty((*q.shape[:-1], v.shape[-1])), draw(problem.inputs[6], 6)
    total = torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
    group = q.shape[1] // k.shape[1]
    causal, scale = problem.complete["is_causal"], q.shape[-1] ** -0.5
    for b in range(q.shape[0]):
        for g in range(k.shape[1]):
            heads = slice(g * group, (g + 1) * group)
            for rows, p, sums in scores_by_rows(q[b, heads], k[b, g], None, causal, scale, torch.float32):
                out[b, heads, rows] = (p @ v[b, g].float()).to(out.dtype)
                total[b, heads, rows] = sums
    return [q, k, v, None, out, total, dout, None]


DRAWN = {"attention": _forward, "attention_grad": _backward}
