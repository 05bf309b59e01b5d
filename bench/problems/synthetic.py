"""Suites of chosen shapes: squares, skinny, tiny, and the layouts that trip a matmul up."""

from __future__ import annotations

from collections.abc import Iterable

from .problem import Problem, matmul

SQUARES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
SKINNY_M = (1, 4, 16, 64)
SKINNY_KN = (1024, 2048, 4096)
TINY = (1, 2, 4, 8, 16, 32)
_SUFFIX = {"float32": "", "float64": "-f64"}


def squares() -> Iterable[Problem]:
    """n x n by n x n, n from 64 to 2048, float32 to 4096: a block in L1 up to far beyond L2."""
    for dtype, suffix in _SUFFIX.items():
        for n in (*SQUARES, 4096) if dtype == "float32" else SQUARES:
            yield matmul(
                f"square-{n}{suffix}", (n, n), (n, n), group=f"squares{suffix}", source="squares", dtype=dtype
            )


def skinny() -> Iterable[Problem]:
    """A few rows times a weight matrix: inference with a small batch. Bound by memory for the smallest m."""
    for m in SKINNY_M:
        for k in SKINNY_KN:
            for n in SKINNY_KN:
                yield matmul(
                    f"skinny-{m}x{n}x{k}", (m, k), (k, n), group="skinny", source="small-batch inference"
                )


def tiny() -> Iterable[Problem]:
    """Where the call costs more than the arithmetic."""
    for dtype, suffix in _SUFFIX.items():
        for n in TINY:
            yield matmul(
                f"tiny-{n}{suffix}",
                (n, n),
                (n, n),
                group=f"tiny{suffix}",
                source="call overhead",
                dtype=dtype,
            )


def layouts() -> Iterable[Problem]:
    """Tall, deep, odd, transposed, batched and broadcast. Names give m x n x k."""

    def case(name: str, a: tuple[int, ...], b: tuple[int, ...], group: str, **more: bool) -> Problem:
        return matmul(name, a, b, group=group, source="layouts", **more)  # type: ignore[arg-type]

    yield case("tall-8192x64x64", (8192, 64), (64, 64), "tall")
    yield case("tall-8192x256x128", (8192, 128), (128, 256), "tall")
    yield case("tall-16384x16x256", (16384, 256), (256, 16), "tall")
    yield case("deep-64x64x16384", (64, 16384), (16384, 64), "deep")
    yield case("deep-256x256x8192", (256, 8192), (8192, 256), "deep")
    yield case("outer-2048x2048x16", (2048, 16), (16, 2048), "outer")
    yield case("odd-127x129x131", (127, 131), (131, 129), "odd")
    yield case("odd-511x513x509", (511, 509), (509, 513), "odd")
    yield case("odd-1025x1023x1021", (1025, 1021), (1021, 1023), "odd")
    for n in (128, 512, 1024):
        yield case(f"transposed-ta-{n}", (n, n), (n, n), "transposed", trans_a=True)
        yield case(f"transposed-tb-{n}", (n, n), (n, n), "transposed", trans_b=True)
        yield case(f"transposed-tatb-{n}", (n, n), (n, n), "transposed", trans_a=True, trans_b=True)
    yield case("batched-64x32x32x32", (64, 32, 32), (64, 32, 32), "batched")
    yield case("batched-32x128x128x128", (32, 128, 128), (32, 128, 128), "batched")
    yield case("batched-8x256x256x256", (8, 256, 256), (8, 256, 256), "batched")
    yield case("batched-broadcast-16x64x256x256", (16, 64, 256), (256, 256), "batched")
    yield case("batched-heads-12x128x128x64-tb", (12, 128, 64), (12, 64, 128), "batched", trans_b=True)


# Chosen so that 1 and 2 threads against the vendors take about two minutes on a 2-core machine: one or two of
# each kind, the sizes that differ most in character, and shapes on which kernels are known to lose.
QUICK = (
    "square-64",
    "square-256",
    "square-1024",
    "square-512-f64",
    "square-512-bf16",
    "skinny-1x1024x1024",
    "skinny-packed-16x1024x1024",
    "transposed-ta-512",
    "batch-128x32x32x32",
    "linear-gelu-512x3072x768",
    "resnet50-conv2-3x3s1-64-64-56-b1-nhwc",
    "resnet50-conv3-3x3s1-128-128-28-b1-nchw",
    "mobilenet-dw3x3s1-144-56-b1-nhwc",
    "resnet50-conv3-3x3s1-128-128-28-b8-nhwc-input-grad",
    "resnet50-conv3-3x3s1-128-128-28-b8-nhwc-weight-grad",
    "lstm-t50-b16-h256",
    "lstm-training-t50-b16-h256",
    "gru-t50-b16-h256",
    "lstm-cell-b1-h256",
)
