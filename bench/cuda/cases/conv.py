"""Convolutions and their gradients: ResNet-50's layers, MobileNetV2's depthwise ones, DeepBench's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....kernels.conv.geometry import output_size
from ...problems.problem import Operand, Problem
from .job import Race, deepbench

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
_SUFFIXES = {"conv": "", "conv_input_grad": "-dx", "conv_weight_grad": "-dw"}


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    yield from ((p, None) for p in list(resnet("conv", 32))[:: 8 if small else 1])
    yield from ((p, None) for p in list(depthwise())[:: 4 if small else 1])
    for op in ("conv_input_grad", "conv_weight_grad"):
        yield from ((p, None) for p in list(resnet(op, 32))[:: 8 if small else 1])
    if not small:
        yield from ((p, None) for p in deepbench_convs("conv"))
        yield from ((p, None) for p in resnet("conv", 256))
        for op in ("conv_input_grad", "conv_weight_grad"):
            yield from ((p, None) for p in list(resnet(op, 256))[::2])
            yield from ((p, None) for p in deepbench_convs(op))


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


def deepbench_convs(op: str) -> Iterator[Problem]:
    """DeepBench's training convolutions on NHWC images, every sixth: the list repeats layers by batch."""
    data = deepbench("deepbench_conv.json")
    source = f"DeepBench {data['file']} at {data['commit'][:12]}"
    group = "deepbench-conv" + _SUFFIXES[op]
    for n, c, h, w, k, r, s, *(ph, pw, sh, sw) in data["problems"]["deepbench-train"][::6]:
        if op != "conv_input_grad" or c > 3:
            name = f"{group}-{r}x{s}-{c}-{k}-{h}x{w}-s{sh}x{sw}-b{n}"
            yield _conv(name, op, (n, h, w, c), (k, c, r, s), (sh, sw), (ph, pw), group, source)
