"""The interpreter harness: it lets a right kernel pass, and catches each kind of wrong one."""

from __future__ import annotations

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import toy_cuda  # noqa: E402
from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.op import Sample  # noqa: E402

pytestmark = interpreted


def _sample(*shape: int) -> Sample:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, *shape), dtype=np.float32)
    return Sample("random", (x, y), {"scale": 3.0})


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("shape", [(1,), (63,), (64,), (7, 50)])
@pytest.mark.parametrize("bind", [None, toy_cuda.bind_in_two_steps])
def test_a_right_kernel_passes(bind: object, shape: tuple[int, ...], backwards: bool) -> None:
    with toy_cuda.toy_on_cuda(bind) as kernel:
        for config in toy_cuda.CONFIGS:
            verdict = check(kernel, _sample(*shape), config, backwards=backwards)
            assert verdict.ok, verdict.text


@pytest.mark.parametrize(
    ("fn", "caught"),
    [
        (toy_cuda.add_past_the_end, "OutOfBoundsError.*0 bytes behind the end of tensor 0"),
        (toy_cuda.add_into_x, "OutOfBoundsError.*may write"),
        (toy_cuda.add_in_turns, "RaceError"),
    ],
)
def test_a_kernel_that_touches_what_is_not_its_own_is_caught(fn: object, caught: str) -> None:
    with toy_cuda.toy_on_cuda(toy_cuda.bind_add(fn)) as kernel, pytest.raises(Exception, match=caught):
        check(kernel, _sample(7, 50))


def test_an_element_that_was_left_out_is_caught() -> None:
    with toy_cuda.toy_on_cuda(toy_cuda.bind_add(toy_cuda.add_without_the_last)) as kernel:
        verdict = check(kernel, _sample(7, 50))
    assert not verdict.ok
    assert "nan where" in verdict.text
