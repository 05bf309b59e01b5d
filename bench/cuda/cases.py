"""What a run on a GPU does, as jobs with names: proofs, races and searches, the most telling ones first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...kernels.conv.geometry import output_size
from ...kernels.cuda.check import moved
from ...kernels.op import Specs
from ...kernels.spec import TensorSpec, row_major
from ..problems.problem import Operand, Problem, matmul

PROBLEMS = Path(__file__).parent.parent / "problems"
HALF = ("bfloat16", "float16")
FAMILIES = (
    *("matmul", "linear", "scaled_matmul"),
    *("conv", "conv_input_grad", "conv_weight_grad", "conv_bias_grad"),
)
"""Every op that has CUDA kernels; a test holds it to that."""
RESNET = "ResNet-50 (He et al. 2015), 224x224 images"
MOBILENET = "MobileNetV2 (Sandler et al. 2018), depthwise layers, 224x224 images"

# (filter, channels in, channels out, size of the image, stride)
_RESNET = (
    *((7, 3, 64, 224, 2), (1, 64, 64, 56, 1), (3, 64, 64, 56, 1), (1, 64, 256, 56, 1), (1, 256, 64, 56, 1)),
    *((3, 128, 128, 56, 2), (1, 128, 512, 28, 1), (1, 256, 512, 56, 2), (3, 128, 128, 28, 1)),
    *((3, 256, 256, 28, 2), (1, 256, 1024, 14, 1), (1, 512, 1024, 28, 2), (3, 256, 256, 14, 1)),
    *((3, 512, 512, 14, 2), (1, 512, 2048, 7, 1), (1, 1024, 2048, 14, 2), (3, 512, 512, 7, 1)),
)
_DEPTHWISE = ((32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 2), (384, 14, 1), (960, 7, 1))
# The linear layers of Llama 3 8B: width 4096, 14336 inside, 1024 keys and values.
_DECODE = ((4096, 4096), (14336, 4096), (4096, 14336), (4096, 1024))
LLAMA = "Llama 3 8B's linear layers (Dubey et al. 2024)"
_SUFFIXES = {"conv": "", "conv_input_grad": "-dx", "conv_weight_grad": "-dw"}
BERT = "BERT-base (Devlin et al. 2018) and GPT-2 XL (Radford et al. 2019), sequences of 512 and 1024"


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Attributes:
        kind: "proof", "wide", "race", "search" or "launch".
        name: unique.
        problem: of a race or a search.
        extra_error: what `kw.using(extra_error=...)` is for it: True for tf32.
        op, dtype: of a proof.
    """

    kind: str
    name: str
    problem: Problem | None = None
    extra_error: bool | None = None
    op: str = ""
    dtype: str = ""


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


@cache
def _deepbench(name: str) -> Any:
    return json.loads((PROBLEMS / name).read_text())


def deepbench_gemms() -> Iterator[Problem]:
    """DeepBench's training products in bfloat16, every fourth: the list is long and its shapes repeat."""
    data = _deepbench("deepbench_gemm.json")
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


def conv(
    group: str,
    op: str,
    batch: int,
    layer: tuple[int, int, int, int, int],
    source: str,
    dtype: str = "bfloat16",
    groups: int = 1,
) -> Problem:
    """A layer, or one of its gradients, on NHWC images: (filter, channels in, out, size, stride)."""
    taps, cin, cout, size, stride = layer
    x, w = (batch, size, size, cin), (cout, cin // groups, taps, taps)
    name = f"{group}-{taps}x{taps}-{cin}-{cout}-{size}-s{stride}-b{batch}"
    return _conv(name, op, x, w, (stride, stride), (taps // 2, taps // 2), group, source, dtype, groups)


def _conv(
    name: str,
    op: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: tuple[int, int],
    pads: tuple[int, int],
    group: str,
    source: str,
    dtype: str = "bfloat16",
    groups: int = 1,
) -> Problem:
    """A convolution of x: [N, H, W, C] by w: [O, C / groups, R, S], or one of its gradients."""
    sizes = [output_size(x[i + 1], w[i + 2], stride[i], (pads[i], pads[i]), 1) for i in (0, 1)]
    grad = (x[0], *sizes, w[0])
    attrs: dict[str, Any] = {"stride": stride, "padding": tuple((p, p) for p in pads), "layout": "NHWC"}
    if groups > 1:
        attrs["groups"] = groups
    inputs: tuple[Operand | None, ...]
    if op == "conv":
        inputs = (Operand(x, dtype), Operand(w, dtype), None, None)
    elif op == "conv_input_grad":
        inputs, attrs["input_size"] = (Operand(grad, dtype), Operand(w, dtype), None), x[1:3]
    else:
        inputs, attrs["kernel_size"] = (Operand(x, dtype), Operand(grad, dtype)), w[2:]
    return Problem(name, op, inputs, group, source, attrs=attrs)


def deepbench_convs(op: str) -> Iterator[Problem]:
    """DeepBench's training convolutions on NHWC images, every sixth: the list repeats layers by batch."""
    data = _deepbench("deepbench_conv.json")
    source = f"DeepBench {data['file']} at {data['commit'][:12]}"
    group = "deepbench-conv" + _SUFFIXES[op]
    for n, c, h, w, k, r, s, *(ph, pw, sh, sw) in data["problems"]["deepbench-train"][::6]:
        if op != "conv_input_grad" or c > 3:
            name = f"{group}-{r}x{s}-{c}-{k}-{h}x{w}-s{sh}x{sw}-b{n}"
            yield _conv(name, op, (n, h, w, c), (k, c, r, s), (sh, sw), (ph, pw), group, source)


def weight_place(problem: Problem) -> int | None:
    """Which input is a weight that lies channels last, as torch has it beside NHWC images; None for none."""
    layout = problem.complete.get("layout")
    return 1 if problem.op in ("conv", "conv_input_grad") and layout == "NHWC" else None


def specs_on(problem: Problem, device: str = "cuda") -> Specs:
    """The inputs of a problem as they lie on a GPU: what `work.Place.inputs` draws."""
    found = [moved(spec, device) for spec in problem.specs]
    place = weight_place(problem)
    if place is not None:
        spec = found[place]
        outs, ins, *taps = spec.shape
        *last, step = row_major((outs, *taps, ins), spec.itemsize)
        found[place] = TensorSpec(spec.shape, spec.dtype, device, (last[0], step, *last[1:]))
    return tuple(found)


def resnet(op: str, batch: int) -> Iterator[Problem]:
    """ResNet-50's layers, those alike once. The stem's input is an image, which needs no gradient."""
    group = "resnet" + _SUFFIXES[op]
    for layer in _RESNET:
        if op != "conv_input_grad" or layer[1] > 3:
            yield conv(f"{group}-{batch}", op, batch, layer, RESNET)


def depthwise() -> Iterator[Problem]:
    """MobileNetV2's depthwise layers at batch 32."""
    for channels, size, stride in _DEPTHWISE:
        layer = (3, channels, channels, size, stride)
        yield conv("depthwise", "conv", 32, layer, MOBILENET, groups=channels)


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


def races(suite: str) -> Iterator[tuple[Problem, bool | None]]:
    """The problems of a suite with their `extra_error`, in the order in which time is spent on them."""
    small = suite == "quick"
    sizes = (1024, 4096) if small else (1024, 2048, 4096, 8192, 16384)
    for dtype, group in (("bfloat16", "bf16"), ("float16", "fp16")):
        yield from ((p, None) for p in squares(dtype, sizes, f"square-{group}"))
    yield from ((p, None) for p in list(decode())[:: 8 if small else 1])
    yield from ((p, None) for p in list(resnet("conv", 32))[:: 8 if small else 1])
    yield from ((p, True) for p in squares("float32", sizes[:4], "square-tf32"))
    yield from ((p, False) for p in squares("float32", sizes[:2], "square-fp32"))
    yield from ((p, None) for p in scaled(sizes[1:4]))
    yield from ((p, None) for p in list(transformers())[:: 4 if small else 1])
    yield from ((p, None) for p in list(depthwise())[:: 4 if small else 1])
    for op in ("conv_input_grad", "conv_weight_grad"):
        yield from ((p, None) for p in list(resnet(op, 32))[:: 8 if small else 1])
    if not small:
        yield from ((p, None) for p in deepbench_gemms())
        yield from ((p, None) for p in deepbench_convs("conv"))
        yield from ((p, None) for p in resnet("conv", 256))
        for op in ("conv_input_grad", "conv_weight_grad"):
            yield from ((p, None) for p in list(resnet(op, 256))[::2])
            yield from ((p, None) for p in deepbench_convs(op))


def jobs(suite: str, check: bool) -> list[Job]:
    """All jobs of a run.

    Args:
        suite: "all" or "quick".
        check: also prove every kernel over its op's samples and past 2^31 elements.
    """
    found = [Job("launch", "launch")]
    raced = [Job("race", f"race {p.name}", p, extra) for p, extra in races(suite)]
    proofs: list[Job] = []
    if check:
        proofs.append(Job("wide", "wide"))
        proofs += [
            Job("proof", f"proof {op} {dtype}", op=op, dtype=dtype) for dtype in DTYPES for op in FAMILIES
        ]
    tuned = [Job("search", f"search {p.name}", p, extra) for p, extra in searches(suite)]
    # The races that tell most, the proofs, some of the searches, and then what is left of both.
    found += [*raced[:_FIRST_RACES], *proofs, *tuned[:_FIRST_SEARCHES]]
    return [*found, *raced[_FIRST_RACES:], *tuned[_FIRST_SEARCHES:]]


def searches(suite: str) -> Iterator[tuple[Problem, bool | None]]:
    """The problems of a suite that are tuned, in the order in which time is spent on them.

    A third of some groups of races, and all of short ones: what is found for them is shipped, and says how
    far an untuned call is from a tuned one.
    """
    seen: dict[str, int] = {}
    later = []
    for problem, extra in races(suite):
        group = problem.group
        if group in _SEARCHED:
            seen[group] = place = seen.get(group, -1) + 1
            if place % _SEARCHED[group] == 0:
                later.append((place, problem, extra))
    # The first of each group before the second of any.
    yield from ((problem, extra) for _, problem, extra in sorted(later, key=lambda row: row[0]))


_FIRST_RACES, _FIRST_SEARCHES = 48, 14
DTYPES = ("bfloat16", "float16", "float32", "float64", "float8_e4m3fn")
# Every how many of a group's problems one is tuned.
_SEARCHED = {
    "square-bf16": 2,
    "square-fp16": 4,
    "square-tf32": 2,
    "fp8": 2,
    "decode": 3,
    "transformers": 3,
    "deepbench": 5,
    "resnet-32": 4,
    "resnet-dx-32": 4,
    "resnet-dw-32": 4,
    "depthwise": 3,
}
