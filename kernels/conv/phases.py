"""Which taps of a convolution reach which elements of x: phases and segments, axis by axis.

Element h of x meets tap k at the place p of the output where p * stride + k * dilation - pad = h. So the
elements r, r + stride, r + 2 stride, ... (phase r) meet the same taps: element r + i * stride meets tap k at
place i + off, off = (r + pad - k * dilation) / stride, for the taps where that is whole. Near the borders
i + off is no place: a segment is a run of i for which the same taps are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Segment:
    """The elements first + i * stride for low <= i < high, and what they meet: pairs (tap, off)."""

    first: int
    low: int
    high: int
    taps: tuple[tuple[int, int], ...]

    @property
    def steps(self) -> int:
        """How many elements."""
        return self.high - self.low


def segments(size: int, places: int, taps: int, stride: int, dilation: int, pad: int) -> list[Segment]:
    """All segments of an axis; each element is in one of them.

    Args:
        size: elements of x.
        places: of the output.
        taps, stride, dilation, pad: of the convolution; pad is what comes before the first element.
    """
    found = []
    for first in range(min(stride, size)):
        steps = (size - first + stride - 1) // stride
        met = [
            (tap, (first + pad - tap * dilation) // stride)
            for tap in range(taps)
            if (first + pad - tap * dilation) % stride == 0
        ]
        cuts = {0, steps}
        for _, off in met:
            cuts |= {min(max(cut, 0), steps) for cut in (-off, places - off)}
        edges = sorted(cuts)
        for low, high in pairwise(edges):
            left = tuple((tap, off) for tap, off in met if 0 <= low + off < places)
            found.append(Segment(first, low, high, left))
    return found
