"""Products: squares, few rows by a weight, the layers of transformers, DeepBench's, float8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...problems.problem import Operand, Problem, matmul
from .job import Race, deepbench

# The linear layers of Llama 3 8B: width 4096, 14336 inside, 1024 keys and values.
_DECODE = ((4096, 4096), (14336, 4096), (4096, 14336), (4096, 1024))
LLAMA = "Llama 3 8B's linear layers (Dubey et al. 2024)"
BERT = "BERT-base (Devlin et al. 2018) and GPT-2 XL (Radford et al. 2019), sequences of 512 and 1024"


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    sizes = (1024, 4096) if small else (1024, 2048, 4096, 8192, 16384)
    for dtype, group in (("bfloat16", "bf16"), ("float16", "fp16")):
        yield from ((p, None) for p in squares(dtype, sizes, f"square-{group}"))
    yield from ((p, None) for p in list(decode())[:: 8 if small else 1])
    yield from ((p, True) for p in squares("float32", sizes[:4], "square-tf32"))
    yield from ((p, False) for p in squares("float32", sizes[:2], "square-fp32"))
    yield from ((p, None) for p in scaled(sizes[1:4]))
    yield from ((p, None) for p in list(transformers())[:: 4 if small else 1])
    if not small:
        yield from ((p, None) for p in deepbench_gemms())


def squares(dtype: str, sizes: Iterable[int], group: str) -> Iterator[Problem]:
    """n x n x n."""
    for n in sizes:
        yield matmul(f"{group}-{n}", (n, n), (n, n), group=group, source="synthetic", dtype=dtype)


def decode() -> Iterator[Problem]:
    """Few rows by a weight: what a language model does for each new token."""
    for n, k in _DECODE:
        for m in (1, 4, 16, 64):
            yield matmul(
                f"decode-{m}x{n}x{k}",
                (m, k),
                (k, n),
                trans_b=True,
                group="decode",
                source=LLAMA,
                dtype="bfloat16",
            )


def transformers() -> Iterator[Problem]:
    """Linear layers over a batch of tokens, the ones inside with bias and GELU."""
    for tokens, width in ((4096, 768), (8192, 1600)):
        for label, n, k in (("qkv", 3 * width, width), ("up", 4 * width, width), ("down", width, 4 * width)):
            inputs = (
                Operand((tokens, k), "bfloat16"),
                Operand((n, k), "bfloat16"),
                Operand((n,), "bfloat16"),
                None,
            )
            attrs = {"activation": "gelu_tanh"} if label == "up" else {}
            name = f"transformer-{label}-{tokens}x{n}x{k}"
            yield Problem(name, "linear", inputs, "transformers", BERT, attrs=attrs)


def deepbench_gemms() -> Iterator[Problem]:
    """DeepBench's training products in bfloat16, every fourth: the list is long and its shapes repeat."""
    data = deepbench("deepbench_gemm.json")
    source = f"DeepBench {data['file']} at {data['commit'][:12]}"
    for m, n, k, trans_a, trans_b in data["problems"]["deepbench-train"][::4]:
        name = f"deepbench-bf16-{m}x{n}x{k}{'-ta' if trans_a else ''}{'-tb' if trans_b else ''}"
        yield matmul(
            name,
            (m, k),
            (k, n),
            group="deepbench",
            source=source,
            dtype="bfloat16",
            trans_a=trans_a,
            trans_b=trans_b,
        )


def scaled(sizes: Iterable[int]) -> Iterator[Problem]:
    """float8 squares with one scale for each matrix, b transposed in memory as torch's own takes it."""
    for n in sizes:
        f8 = "float8_e4m3fn"
        inputs = (
            Operand((n, n), f8),
            Operand((n, n), f8, transposed=True),
            Operand((1,), "float32"),
            Operand((1,), "float32"),
            None,
        )
        name, attrs = f"fp8-{n}", {"out_dtype": "bfloat16"}
        yield Problem(name, "scaled_matmul", inputs, "fp8", "synthetic", attrs=attrs)
