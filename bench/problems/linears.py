"""Linear layers, y = activation(x @ w.T + b) with w: [out, in]: those of transformers, and chosen shapes.

"packed" in a name: the weight is constant, and every contestant may reorder it before the timing starts.
"""

from __future__ import annotations

from collections.abc import Iterable

from .problem import Operand, Problem, matmul

BERT = "BERT-base (Devlin et al. 2018), 128 tokens"
GPT2 = "GPT-2 small (Radford et al. 2019)"
# (layer, out, in, activation)
_TRANSFORMER = (
    ("qkv", 2304, 768, None),
    ("attention-out", 768, 768, None),
    ("ffn-up", 3072, 768, "gelu"),
    ("ffn-down", 768, 3072, None),
)
BF16_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
BATCH_COUNTS = (32, 128, 512)
BATCH_SIZES = (16, 32, 64, 128)


def linear(
    name: str,
    rows: int,
    out: int,
    inputs: int,
    *,
    group: str,
    source: str,
    activation: str | None = None,
    bias: bool = True,
    packed: bool = False,
    dtype: str = "float32",
) -> Problem:
    """A linear problem: x: [rows, inputs], w: [out, inputs]."""
    operands = (
        Operand((rows, inputs), dtype),
        Operand((out, inputs), dtype, packed=packed),
        Operand((out,), dtype) if bias else None,
        None,
    )
    attrs = {} if activation is None else {"activation": activation}
    return Problem(name, "linear", operands, group, source, "", attrs)


def transformers() -> Iterable[Problem]:
    """BERT-base's layers for 128 tokens and GPT-2's for a prompt of 512 and for one token, packed and not."""
    for network, tokens, source in (("bert", 128, BERT), ("gpt2-prompt", 512, GPT2), ("gpt2-token", 1, GPT2)):
        for layer, out, inputs, activation in _TRANSFORMER:
            # GPT-2 has the approximate form.
            act = "gelu_tanh" if activation and network != "bert" else activation
            for packed in (False, True):
                what = "-packed" if packed else ""
                yield linear(
                    f"linear-{network}-{layer}-{tokens}x{out}x{inputs}{what}",
                    tokens,
                    out,
                    inputs,
                    group=f"transformers{what}",
                    source=source,
                    activation=act,
                    packed=packed,
                )


def gelu() -> Iterable[Problem]:
    """Linear with bias and GELU, against the vendor's linear followed by gelu."""
    for rows, out, inputs in (
        (128, 3072, 768),
        (512, 3072, 768),
        (64, 4096, 1024),
        (1024, 1024, 1024),
        (256, 256, 256),
    ):
        yield linear(
            f"linear-gelu-{rows}x{out}x{inputs}",
            rows,
            out,
            inputs,
            group="linear-gelu",
            source="a feed-forward layer's first half",
            activation="gelu",
        )


def skinny_packed() -> Iterable[Problem]:
    """A few rows times a constant weight: inference with a small batch."""
    for rows in (1, 4, 16, 64):
        for inputs in (1024, 4096):
            for out in (1024, 4096):
                yield linear(
                    f"skinny-packed-{rows}x{out}x{inputs}",
                    rows,
                    out,
                    inputs,
                    group="skinny-packed",
                    source="small-batch inference",
                    bias=False,
                    packed=True,
                )


def gradients() -> Iterable[Problem]:
    """The two gradients of a linear layer n x n for n rows: dy @ w, and dy.T @ x, dy read transposed."""
    for n in (256, 512, 1024, 2048):
        yield matmul(f"linear-grad-x-{n}", (n, n), (n, n), group="linear-grad", source="dx = dy @ w")
        yield matmul(
            f"linear-grad-w-{n}",
            (n, n),
            (n, n),
            group="linear-grad",
            source="dw = dy.T @ x",
            trans_a=True,
        )
    for rows, out, inputs in ((128, 3072, 768), (64, 1024, 1024)):
        yield matmul(
            f"linear-grad-x-{rows}x{inputs}x{out}",
            (rows, out),
            (out, inputs),
            group="linear-grad",
            source="dx = dy @ w",
        )
        yield matmul(
            f"linear-grad-w-{out}x{inputs}x{rows}",
            (out, rows),
            (rows, inputs),
            group="linear-grad",
            source="dw = dy.T @ x",
            trans_a=True,
        )


def bf16() -> Iterable[Problem]:
    """bfloat16: n x n x n as a matmul, and as a linear layer with a constant weight."""
    for n in BF16_SIZES:
        yield matmul(
            f"square-{n}-bf16", (n, n), (n, n), group="squares-bf16", source="squares", dtype="bfloat16"
        )
    for n in BF16_SIZES:
        yield linear(
            f"square-packed-{n}-bf16",
            n,
            n,
            n,
            group="squares-packed-bf16",
            source="squares",
            bias=False,
            packed=True,
            dtype="bfloat16",
        )


def batched() -> Iterable[Problem]:
    """Many small products: 32 to 512 pairs of matrices of 16 to 128."""
    for count in BATCH_COUNTS:
        for n in BATCH_SIZES:
            yield matmul(
                f"batch-{count}x{n}x{n}x{n}",
                (count, n, n),
                (count, n, n),
                group="batched-small",
                source="batched products",
            )
