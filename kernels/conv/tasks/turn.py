"""Images from [channels, pixels] to [pixels, channels] and back: the compiled task.

Units are runs of pixels of an image, all channels; tasks take units each and share nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...cpu.compile import part
from ...cpu.copies import copies
from ...cpu.memory import load_word
from ...cpu.vector_ir import FLOATS

# The words of a block: two arrays, the scratch (none), strides in bytes.
(SOURCE, TARGET, SCRATCH, PIXELS, CHANNELS, RUNS, UNITS, TASKS, FIRST_N, FIRST_C, LAST_N, LAST_P) = range(12)
WORDS = 12
PIXELS_AT_ONCE = 128
WORTH = 50_000  # elements that another thread is worth starting for


@cache
def turn_task(dtype: str, lanes: int, back: bool) -> Any:
    """`task(block, index)`: SOURCE has contiguous pixels, TARGET contiguous channels; `back`: reversed."""
    rows, size = copies(dtype, lanes, 1).rows, FLOATS[dtype][1]

    @part(dtype, lanes, back)
    def task(block, index):
        runs, units, tasks = load_word(block, RUNS), load_word(block, UNITS), load_word(block, TASKS)
        pixels, channels = load_word(block, PIXELS), load_word(block, CHANNELS)
        source, target = load_word(block, SOURCE), load_word(block, TARGET)
        plane, pixel = load_word(block, FIRST_C), load_word(block, LAST_P)
        for unit in range(index * units // tasks, (index + 1) * units // tasks):
            image, start = unit // runs, unit % runs * PIXELS_AT_ONCE
            count = min(PIXELS_AT_ONCE, pixels - start)
            first = image * load_word(block, FIRST_N) + start * size
            last = image * load_word(block, LAST_N) + start * pixel
            if back:
                rows(target + first, plane, source + last, size, pixel, channels, count)
            else:
                rows(target + last, pixel, source + first, size, plane, count, channels)

    return task
