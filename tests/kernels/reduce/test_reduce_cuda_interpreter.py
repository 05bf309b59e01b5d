"""The reductions and scans for a GPU compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from cuda_lines import bits, broken, prove, prove_one  # noqa: E402
from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.op import Sample  # noqa: E402
from kernelwright.kernels.reduce.op import REDUCTIONS  # noqa: E402
from kernelwright.kernels.reduce.scan import SCANS  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

pytestmark = interpreted

# Tiles so small that the samples are cut into many, with lines in parts and without.
PARTS = {"tile": 0, "parts": True}
WHOLE = {"tile": 0, "parts": False}
OTHERS = {
    "bfloat16": ("sum", "mean", "amax", "var", "logsumexp", "argmax", "any", "cumsum"),
    "float16": ("prod", "amin", "std", "argmin", "cumprod"),
    "float64": tuple(REDUCTIONS | SCANS),
    "int64": ("sum", "prod", "amax", "amin", "argmin", "argmax", "all", "cumsum"),
    "int8": ("sum", "amin", "argmax", "count_nonzero", "cumsum"),
    "uint8": ("sum", "amax", "argmin"),
    "int32": ("sum", "amin", "argmax"),
    "bool": ("sum", "amax", "any", "all", "count_nonzero", "argmax", "cumsum"),
}


@pytest.mark.parametrize("op", [*REDUCTIONS, *SCANS])
def test_every_sample_in_float32(op: str) -> None:
    assert prove(op, "float32") >= 12


@pytest.mark.parametrize("dtype", OTHERS)
def test_every_other_dtype(dtype: str) -> None:
    for op in OTHERS[dtype]:
        prove(op, dtype, every={"float64": 4, "int64": 2, "float16": 2}.get(dtype, 1), ordered=True)


@pytest.mark.parametrize("op", [*REDUCTIONS, *SCANS])
def test_lines_in_parts_and_lines_of_many_tiles(op: str) -> None:
    every = 3 if op in ("sum", "var", "logsumexp", "argmax", "cumsum") else 5
    prove(op, "float32", PARTS, every, ordered=True, backwards=True)
    prove(op, "float32", WHOLE, 2 * every)


def test_parts_in_any_order_give_the_same_bits() -> None:
    x = np.random.default_rng(5).standard_normal((3, 300)).astype(np.float32)
    for op, file in (("sum", "cuda_triton"), ("var", "cuda_triton"), ("cumsum", "cuda_triton_scans")):
        name = f"{op}/{file}/{'scan' if op == 'cumsum' else 'lines'}"
        for axis in (0, 1):
            sample = Sample("long", (x if axis else x.T.copy(),), {"axis": axis})
            assert bits(name, sample, PARTS, False) == bits(name, sample, PARTS, True)


@pytest.mark.parametrize("config", [None, PARTS])
def test_the_first_of_equal_numbers_is_found(config: dict[str, Any] | None) -> None:
    """Through lanes, tiles and parts; a negative zero is as large as zero; NaN comes before all."""
    zeros = np.zeros((3, 400), np.float32)
    zeros[1] = -0.0
    zeros[1, 5:] = 0.0
    zeros[2, 300], zeros[2, 390] = np.nan, np.nan
    for op in ("argmax", "argmin"):
        for x in (zeros, zeros.T):
            axis = 1 if x is zeros else 0
            sample = Sample("equal", (x,), {"axis": axis})
            prove_one(f"{op}/cuda_triton/lines", sample, config, ordered=True)
        sample = Sample("equal anywhere", (zeros[:2].T,), {"axis": None})
        prove_one(f"{op}/cuda_triton/lines", sample, config, ordered=True)


def test_the_ends_of_integers_are_kept() -> None:
    for dtype in ("int32", "int64", "int8", "uint8"):
        info = np.iinfo(np_dtype(dtype))
        x = np.array([[info.min, info.min, info.min], [info.max, info.max, info.max]], dtype)
        for op in ("amax", "amin", "argmax", "argmin"):
            for axis in (0, 1):
                prove_one(f"{op}/cuda_triton/lines", Sample("ends", (x,), {"axis": axis}))


def test_a_variance_far_from_zero_does_not_cancel() -> None:
    draw = np.random.default_rng(6)
    x = (1000 + draw.standard_normal((3, 700))).astype(np.float32)
    for axis, given in ((1, x), (0, x.T.copy())):
        for config in (None, PARTS):
            sample = Sample("far", (given,), {"axis": axis})
            prove_one("var/cuda_triton/lines", sample, config, ordered=True)


def test_five_axes_that_do_not_join_are_refused() -> None:
    from triton_interpreter import kernel_by_id

    from kernelwright.kernels.cuda.check import cuda_specs

    x = np.zeros((2,) * 10, np.float32)
    kernel = kernel_by_id("sum/cuda_triton/lines")
    sample = Sample("ten axes", (x,), {"axis": (0, 2, 4, 6, 8), "keepdims": False})
    reason = kernel.why_not(cuda_specs(kernel, sample), sample.attrs)
    assert reason == "takes up to 4 axes that do not join, not 5"


def test_broken_kernels_are_caught() -> None:
    """A part left out, a line read past its end, and counters that stay."""
    x = np.random.default_rng(7).standard_normal((2, 700)).astype(np.float32)
    sample = Sample("two lines", (x,), {"axis": 1})
    name = "sum/cuda_triton/lines"
    short = check(broken(name, share=lambda tiles: tiles // 2), sample, {"tile": 0, "parts": False})
    assert short.ok  # a share says nothing of whole lines
    assert not check(broken(name, share=lambda tiles: tiles - 1), sample, PARTS, ordered=True).ok
    with pytest.raises(Exception, match="OutOfBoundsError"):
        check(broken(name, length=lambda length: length + 16), sample, PARTS, ordered=True)
    with pytest.raises(AssertionError, match="counts on zeros"):
        check(broken(name, parts=lambda parts: parts + 1), sample, PARTS, ordered=True)
    with pytest.raises(Exception, match="RaceError"):
        check(name, sample, PARTS)
