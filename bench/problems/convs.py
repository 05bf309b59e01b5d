"""Convolutions of known networks and of DeepBench (Apache-2.0, see LICENSES.md).

Weights of inference are constant, and packed before the timing starts; those of training are not. Names give
the network, the layer, the filter, channels in and out, the size of the image, the batch and the layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ...kernels.conv.geometry import shape_in
from .problem import Operand, Problem

DATA = Path(__file__).with_name("deepbench_conv.json")

RESNET = "ResNet-50 (He et al. 2015), 224x224 images"
MOBILENET = "MobileNetV2 (Sandler et al. 2018), depthwise layers, 224x224 images"
VGG = "VGG-16 (Simonyan and Zisserman 2014), 224x224 images"
UNET = "U-Net (Ronneberger et al. 2015), one 572x572 image"

# (stage, filter, channels in, channels out, size of the image, stride). The stride sits in the 3x3 layers.
_RESNET = (
    ("conv1", 7, 3, 64, 224, 2),
    ("conv2", 1, 64, 64, 56, 1),
    ("conv2", 3, 64, 64, 56, 1),
    ("conv2", 1, 64, 256, 56, 1),
    ("conv2", 1, 256, 64, 56, 1),
    ("conv3", 1, 256, 128, 56, 1),
    ("conv3", 3, 128, 128, 56, 2),
    ("conv3", 1, 128, 512, 28, 1),
    ("conv3-down", 1, 256, 512, 56, 2),
    ("conv3", 1, 512, 128, 28, 1),
    ("conv3", 3, 128, 128, 28, 1),
    ("conv4", 1, 512, 256, 28, 1),
    ("conv4", 3, 256, 256, 28, 2),
    ("conv4", 1, 256, 1024, 14, 1),
    ("conv4-down", 1, 512, 1024, 28, 2),
    ("conv4", 1, 1024, 256, 14, 1),
    ("conv4", 3, 256, 256, 14, 1),
    ("conv5", 1, 1024, 512, 14, 1),
    ("conv5", 3, 512, 512, 14, 2),
    ("conv5", 1, 512, 2048, 7, 1),
    ("conv5-down", 1, 1024, 2048, 14, 2),
    ("conv5", 1, 2048, 512, 7, 1),
    ("conv5", 3, 512, 512, 7, 1),
)
# (channels, size of the image, stride)
_MOBILENET = (
    (32, 112, 1),
    (96, 112, 2),
    (144, 56, 1),
    (144, 56, 2),
    (192, 28, 1),
    (192, 28, 2),
    (384, 14, 1),
    (576, 14, 1),
    (576, 14, 2),
    (960, 7, 1),
)
# (channels in, channels out, size of the image)
_VGG = (
    (3, 64, 224),
    (64, 64, 224),
    (64, 128, 112),
    (128, 128, 112),
    (128, 256, 56),
    (256, 256, 56),
    (256, 512, 28),
    (512, 512, 28),
    (512, 512, 14),
)
_UNET_3X3 = (
    ("down1", 1, 64, 572),
    ("down1", 64, 64, 570),
    ("down2", 64, 128, 284),
    ("down2", 128, 128, 282),
    ("down3", 128, 256, 140),
    ("down3", 256, 256, 138),
    ("down4", 256, 512, 68),
    ("down4", 512, 512, 66),
    ("bottom", 512, 1024, 32),
    ("bottom", 1024, 1024, 30),
    ("up4", 1024, 512, 56),
    ("up4", 512, 512, 54),
    ("up3", 512, 256, 104),
    ("up3", 256, 256, 102),
    ("up2", 256, 128, 200),
    ("up2", 128, 128, 198),
    ("up1", 128, 64, 392),
    ("up1", 64, 64, 390),
)
# The 2x2 transposed convolutions of stride 2: (channels in, channels out, size of the image)
_UNET_UP = ((1024, 512, 28), (512, 256, 52), (256, 128, 100), (128, 64, 196))


def conv(
    name: str,
    x: tuple[int, int, int, int],
    w: tuple[int, int, int],
    *,
    group: str,
    source: str,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    layout: str = "NCHW",
    packed: bool = False,
    bias: bool = False,
    activation: str | None = None,
    dtype: str = "float32",
    note: str = "",
) -> Problem:
    """A forward problem.

    Args:
        name, group, source, note: as in Problem.
        x: batch, channels, height, width, whatever the layout.
        w: channels out, height, width of the filter.
        stride, padding, groups, layout, activation: as the op has them; padding is the same on both sides.
        packed: the weight is constant.
        bias: add one.
        dtype: of all operands.
    """
    batch, channels, *size = x
    out, *taps = w
    attrs: dict[str, Any] = {"stride": stride, "padding": tuple((p, p) for p in padding), "layout": layout}
    if groups != 1:
        attrs["groups"] = groups
    if activation is not None:
        attrs["activation"] = activation
    inputs = (
        Operand(shape_in(layout, batch, channels, size), dtype),
        Operand((out, channels // groups, *taps), dtype, packed=packed),
        Operand((out,), dtype) if bias else None,
        None,
    )
    return Problem(name, "conv", inputs, group, source, note, attrs)


def gradients(forward: Problem, group: str, which: Sequence[str] = ("input", "weight")) -> Iterable[Problem]:
    """The gradients of a forward problem's convolution, for the images and for the weight."""
    x, w = forward.operands[:2]
    grad = Operand(forward.outputs[0].shape, x.dtype)
    attrs = {name: value for name, value in forward.attrs.items() if name != "activation"}
    size = x.shape[2:] if attrs["layout"] == "NCHW" else x.shape[1:-1]
    constant = Operand(w.shape, w.dtype)
    for what in which:
        if what == "input":
            inputs: tuple[Operand | None, ...] = (grad, constant, None)
            own: dict[str, Any] = {"input_size": tuple(size), **attrs}
        else:
            inputs = (Operand(x.shape, x.dtype), grad)
            own = {"kernel_size": w.shape[2:], **attrs}
        yield Problem(
            f"{forward.name}-{what}-grad",
            f"conv_{what}_grad",
            inputs,
            f"{group}-{what}-grad",
            forward.source,
            forward.note,
            own,
        )


def _resnet(batch: int, layout: str, packed: bool, dtype: str = "float32") -> Iterable[Problem]:
    suffix = "" if dtype == "float32" else "-bf16"
    for stage, taps, channels, out, size, stride in _RESNET:
        yield conv(
            f"resnet50-{stage}-{taps}x{taps}s{stride}-{channels}-{out}-{size}-b{batch}-{layout.lower()}{suffix}",
            (batch, channels, size, size),
            (out, taps, taps),
            group=f"resnet50-{layout.lower()}-b{batch}{suffix}",
            source=RESNET,
            stride=(stride, stride),
            padding=(taps // 2, taps // 2),
            layout=layout,
            packed=packed,
            bias=packed,
            activation="relu" if packed else None,
            dtype=dtype,
        )


def resnet() -> Iterable[Problem]:
    """ResNet-50's layers in NHWC for inference: constant weights, bias and ReLU; batch 1 and 8."""
    for batch in (1, 8):
        yield from _resnet(batch, "NHWC", packed=True)


def resnet_nchw() -> Iterable[Problem]:
    """ResNet-50's layers in NCHW, the weight packed in the call; batch 1 and 8."""
    for batch in (1, 8):
        yield from _resnet(batch, "NCHW", packed=False)


def resnet_bf16() -> Iterable[Problem]:
    """ResNet-50's layers in NHWC and bfloat16 for inference, batch 1."""
    yield from _resnet(1, "NHWC", packed=True, dtype="bfloat16")


def resnet_gradients() -> Iterable[Problem]:
    """The gradients of ResNet-50's layers for images and weights, batch 8, in both layouts."""
    for layout in ("NHWC", "NCHW"):
        for forward in _resnet(8, layout, packed=False):
            yield from gradients(forward, f"resnet50-{layout.lower()}")


def mobilenet() -> Iterable[Problem]:
    """MobileNetV2's depthwise layers with bias, batch 1 and 8: constant weights in NHWC, others in NCHW."""
    for layout in ("NHWC", "NCHW"):
        for batch in (1, 8):
            for channels, size, stride in _MOBILENET:
                yield conv(
                    f"mobilenet-dw3x3s{stride}-{channels}-{size}-b{batch}-{layout.lower()}",
                    (batch, channels, size, size),
                    (channels, 3, 3),
                    group=f"depthwise-{layout.lower()}",
                    source=MOBILENET,
                    stride=(stride, stride),
                    padding=(1, 1),
                    groups=channels,
                    layout=layout,
                    packed=layout == "NHWC",
                    bias=True,
                )


def vgg() -> Iterable[Problem]:
    """VGG-16's layers for inference, batch 1, NHWC."""
    for channels, out, size in _VGG:
        yield conv(
            f"vgg16-3x3-{channels}-{out}-{size}-nhwc",
            (1, channels, size, size),
            (out, 3, 3),
            group="vgg16",
            source=VGG,
            padding=(1, 1),
            layout="NHWC",
            packed=True,
            bias=True,
            activation="relu",
        )


def unet() -> Iterable[Problem]:
    """U-Net's 3x3 layers without padding, its 2x2 transposed convolutions and the last 1x1; NCHW."""
    for stage, channels, out, size in _UNET_3X3:
        yield conv(
            f"unet-{stage}-3x3-{channels}-{out}-{size}",
            (1, channels, size, size),
            (out, 3, 3),
            group="unet",
            source=UNET,
            packed=True,
            bias=True,
            activation="relu",
        )
    for channels, out, size in _UNET_UP:
        inputs = (Operand((1, channels, size, size)), Operand((channels, out, 2, 2)), Operand((out,)))
        attrs = {"input_size": (2 * size, 2 * size), "stride": (2, 2)}
        yield Problem(
            f"unet-upconv-2x2s2-{channels}-{out}-{size}",
            "conv_input_grad",
            inputs,
            "unet-up",
            UNET,
            "",
            attrs,
        )
    yield conv(
        "unet-last-1x1-64-2-388",
        (1, 64, 388, 388),
        (2, 1, 1),
        group="unet",
        source=UNET,
        packed=True,
        bias=True,
    )


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DATA.read_text())
    return loaded


def _deepbench(key: str, prefix: str, packed: bool) -> Iterable[Problem]:
    data = _data()
    # Some lines are there twice.
    for n, c, h, w, k, r, s, pad_h, pad_w, stride_h, stride_w in dict.fromkeys(
        map(tuple, data["problems"][key])
    ):
        stride = (
            ""
            if stride_h == stride_w == 1
            else f"s{stride_h}"
            if stride_h == stride_w
            else f"s{stride_h}x{stride_w}"
        )
        pad = f"-p{pad_h}x{pad_w}" if pad_h or pad_w else ""
        yield conv(
            f"{prefix}-{r}x{s}{stride}-{c}-{k}-{h}x{w}-b{n}{pad}",
            (n, c, h, w),
            (k, r, s),
            group=prefix,
            source=f"DeepBench {data['file']} at {data['commit'][:12]}",
            stride=(stride_h, stride_w),
            padding=(pad_h, pad_w),
            packed=packed,
        )


def deepbench_train() -> Iterable[Problem]:
    """DeepBench's 94 training convolutions, of which 90 differ, forward; the weight packed in the call."""
    return _deepbench("deepbench-train", "deepbench-conv-train", packed=False)


def deepbench_gradients() -> Iterable[Problem]:
    """The gradients of DeepBench's training convolutions for images and weights."""
    for forward in deepbench_train():
        yield from gradients(forward, "deepbench-conv-train")


def deepbench_inference() -> Iterable[Problem]:
    """DeepBench's inference convolutions, 103 for servers and 15 for devices; constant weights."""
    yield from _deepbench("deepbench-inference-server", "deepbench-conv-server", packed=True)
    yield from _deepbench("deepbench-inference-device", "deepbench-conv-device", packed=True)
