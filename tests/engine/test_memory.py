"""The arena: buffers that live at the same time never overlap, and little is wasted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.engine.memory import Buffer, lower_bound, place_buffers

lives = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 40), st.integers(0, 15)), max_size=40)


@pytest.mark.parametrize("line", [64, 256])
@given(lives)
@settings(max_examples=100, deadline=None)
def test_buffers_that_live_together_lie_apart(line: int, drawn: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer("arena", nbytes, first=first, last=first + more) for nbytes, first, more in drawn]
    total = place_buffers(buffers, line)
    for i, a in enumerate(buffers):
        assert a.offset % line == 0
        assert a.offset + a.size(line) <= total
        for b in buffers[i + 1 :]:
            together = a.first <= b.last and b.first <= a.last
            apart = a.offset + a.size(line) <= b.offset or b.offset + b.size(line) <= a.offset
            assert apart or not together
    assert total >= lower_bound(buffers, line)


def test_a_chain_takes_two_buffers() -> None:
    chain = [Buffer("arena", 640, first=i, last=i + 1) for i in range(50)]
    assert place_buffers(chain) == lower_bound(chain) == 1280
