"""Interpolation to twice the size and back, as segmentation networks and decoders do it."""

from __future__ import annotations

from collections.abc import Iterator

from ...problems.problem import Operand, Problem
from .job import Race

SOURCE = "FPN (Lin et al. 2017) and U-Net decoders: maps of 256 channels to twice their size"


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    modes = ("bilinear",) if small else ("bilinear", "nearest", "bicubic")
    for mode in modes:
        scale = (0.0, 0.0)
        attrs = {"size": (128, 128), "mode": mode, "align_corners": False, "scales": scale}
        x, dy = Operand((16, 256, 64, 64), "bfloat16"), Operand((16, 256, 128, 128), "bfloat16")
        yield Problem(f"resize-{mode}-64-128", "interpolate", (x,), "resize", SOURCE, attrs=attrs), None
        back = {**attrs, "before": (64, 64)}
        yield (
            Problem(f"resize-{mode}-grad-64-128", "interpolate_grad", (dy,), "resize", SOURCE, attrs=back),
            None,
        )
