"""The Triton kernels of attention compute what their ops define, in Triton's interpreter."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from triton_interpreter import check, interpreted, kernel_by_id, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.kernels.attention.cuda import launch  # noqa: E402
from kernelwright.kernels.attention.reference import forward_in_float64  # noqa: E402
from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

pytestmark = interpreted

FORWARD, BACKWARD = "attention/cuda_triton/", "attention_grad/cuda_triton/"
# Small tiles: many of them where the samples' sizes would fill but one.
TILE = {"bm": 16, "bn": 32, "warps": 4, "stages": 2, "splits": 1}
PAIR = {"bm": 32, "bn": 16, "warps": 4, "stages": 2, "kbm": 16, "kbn": 32, "kwarps": 4, "kstages": 2}


def right(kernel: str, sample: Sample, config: dict[str, Any], **how: Any) -> None:
    verdict = check(kernel, sample, config, **how)
    assert verdict.ok, f"{kernel} on {sample!r}: {verdict.text}"


@cache
def samples(op: str, dtype: str) -> dict[str, Sample]:
    found = get_op(op).samples(np.random.default_rng(0), dtype)
    return {sample.name: sample for sample in found if not untakeable(sample)}


# Each stands for what no other does.
NAMES = (
    "3/3 heads, 17x33, 8 and 5 features, causal",
    "2/1 heads, 5x70, 19 and 35 features",
    "6/2 heads, 65x9, 16 and 16 features, causal",
    "2/2 heads, 1x129, 64 and 64 features",
    "2/2 heads, 3x0, 4 and 4 features",
    "2/2 heads, 3x5, 0 and 4 features, causal",
    "2/2 heads, 3x5, 4 and 0 features",
    "negative scale, causal",
    "without heads",
    "three leading axes",
    "bool mask",
    "bool mask, causal",
    "bool mask of keys",
    "bool mask with steps",
    "float mask with -inf",
    "float mask of keys, causal",
    "float mask turned",
    "large scores",
    "heads behind lengths",
    "features far apart",
    "repeated",
    "infinity and NaN",
)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_computed_right(name: str) -> None:
    right(f"{FORWARD}pointers", samples("attention", "float32")[name], TILE)


SLOW_OR_LIKE_OTHERS = (
    "2/2 heads, 1x129",
    "large",
    "without",
    "three leading",
    "bool mask,",
    "float mask turned",
)


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in NAMES if not name.startswith(SLOW_OR_LIKE_OTHERS)),
        "2/2 heads, 0x5, 4 and 4 features",
        "gradients all 1",
    ],
)
def test_gradients_of_float32_are_computed_right(name: str) -> None:
    right(f"{BACKWARD}pointers", samples("attention_grad", "float32")[name], PAIR)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_computed_right(dtype: str) -> None:
    for op, config in (("attention", TILE), ("attention_grad", PAIR)):
        found = [s for s in samples(op, dtype).values() if all(x is None or x.size for x in s.inputs)]
        for sample in found[::3]:
            right(f"{op}/cuda_triton/pointers", sample, config)


def drawn(*shapes: tuple[int, ...], dtype: str = "bfloat16") -> list[Any]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(shape).astype(np_dtype(dtype)) for shape in shapes]


def behind(x: Any) -> Any:
    """[batch, length, heads, features] as [batch, heads, length, features]."""
    return x.swapaxes(1, 2)


def boxed() -> list[Sample]:
    """Calls whose rows are multiples of 16 bytes."""
    q, k, v = drawn((2, 37, 4, 24), (2, 70, 2, 24), (2, 70, 2, 16))
    alone = drawn((1, 1, 33, 16), (1, 1, 65, 16), (1, 1, 65, 8))
    shared = [np.broadcast_to(x, (2, 3, *x.shape)) for x in drawn((19, 8), (40, 8), (40, 8))]
    allowed = np.random.default_rng(6).random((2, 1, 1, 70)) < 0.6
    (bias,) = drawn((37, 70))
    turned = [behind(x) for x in (q, k, v)]
    return [
        Sample("heads behind lengths", (*turned, None), {"is_causal": True}),
        Sample("mask of keys", (*turned, allowed)),
        Sample("added mask, causal", (*turned, bias), {"is_causal": True, "scale": 0.3}),
        Sample("one head", (*alone, None), {}),
        Sample("heads that are one", (*shared, None), {"is_causal": True}),
    ]


def with_gradients(sample: Sample) -> Sample:
    """The call of `attention_grad` after a call of `attention`."""
    attrs = get_op("attention").complete(sample.attrs)
    out, total = forward_in_float64(sample.inputs, **attrs)
    kind = sample.inputs[0].dtype  # type: ignore[union-attr]
    dout = np.random.default_rng(7).standard_normal(out.shape).astype(kind)
    dtotal = np.random.default_rng(8).standard_normal(total.shape).astype(np.float32)
    given = (*sample.inputs, out.astype(kind), total.astype(np.float32), dout, dtotal)
    return Sample(sample.name, given, sample.attrs)


@pytest.mark.parametrize("sample", boxed(), ids=lambda s: s.name)
def test_boxes_bring_what_pointers_do(sample: Sample) -> None:
    right(f"{FORWARD}descriptors", sample, {**TILE, "bm": 32})
    if not sample.name.startswith("heads that"):
        right(f"{BACKWARD}descriptors", with_gradients(sample), PAIR)


def test_a_gradient_that_is_repeated_comes_by_pointers() -> None:
    made = with_gradients(boxed()[3])
    dout = np.broadcast_to(np.asarray(1.0, made.inputs[0].dtype), made.inputs[6].shape)  # type: ignore[union-attr]
    given = Sample("all 1", (*made.inputs[:6], dout, None))
    reason = kernel_by_id(f"{BACKWARD}descriptors").supports
    assert reason is not None
    right(f"{BACKWARD}pointers", given, PAIR)


def few_queries(dtype: str, kind: str) -> Sample:
    q, k, v = drawn((2, 6, 3, 16), (2, 2, 150, 16), (2, 2, 150, 24), dtype=dtype)
    masks = {"bool": np.random.default_rng(9).random((1, 6, 1, 150)) < 0.5, "none": None, "causal": None}
    return Sample(f"few queries, {kind}", (q, k, v, masks[kind]), {"is_causal": kind == "causal"})


@pytest.mark.parametrize("kind", ["none", "causal", "bool"])
@pytest.mark.parametrize("backwards", [False, True])
def test_parts_of_the_keys_add_up_whoever_is_last(kind: str, backwards: bool) -> None:
    """Heads that share keys are rows of one tile; two programs for each, of three blocks and of two."""
    for dtype, kernel in (("bfloat16", "descriptors"), ("float32", "pointers")):
        config = {**TILE, "splits": 2, "bm": 16}
        right(f"{FORWARD}{kernel}", few_queries(dtype, kind), config, ordered=True, backwards=backwards)


def test_rows_that_see_nothing_are_zero_even_beside_parts() -> None:
    q, k, v = drawn((1, 2, 3, 16), (1, 2, 70, 16), (1, 2, 70, 16), dtype="float32")
    mask = np.ones((3, 70), bool)
    mask[1], mask[2, :50] = False, False
    right(f"{FORWARD}pointers", Sample("hidden", (q, k, v, mask)), {**TILE, "splits": 3}, ordered=True)
    lowest = np.where(mask, 0, np.finfo(np.float32).min).astype(np.float32)
    right(f"{FORWARD}pointers", Sample("lowest", (q, k, v, lowest)), {**TILE, "splits": 3}, ordered=True)


def test_two_axes_before_the_heads_that_no_one_step_walks() -> None:
    x = drawn((3, 2, 2, 9, 16), (3, 2, 2, 20, 16), (3, 2, 2, 20, 16), dtype="float32")
    turned = [a.swapaxes(0, 1) for a in x]
    right(f"{FORWARD}pointers", Sample("two axes", (*turned, None)), TILE)
    right(f"{BACKWARD}pointers", with_gradients(Sample("two axes", (*turned, None))), PAIR)


def test_parts_without_an_order_are_a_race() -> None:
    with pytest.raises(Exception, match="RaceError"):
        check(f"{FORWARD}pointers", few_queries("float32", "none"), {**TILE, "splits": 2})


@pytest.mark.parametrize("change", [{"keys": 34}, {"c": 0.1}, {"group": 2}, {"CAUSAL": True}])
def test_a_launch_with_a_wrong_number_is_caught(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls: one key too many, another scale, other heads of k, a diagonal that is not there."""
    real = launch.Step

    def changed(fn: Any, grid: Any, args: Any, **how: Any) -> Any:
        return real(fn, grid, {**args, **change}, **how)

    monkeypatch.setattr(launch, "Step", changed)
    sample = samples("attention", "float32")["3/3 heads, 17x33, 8 and 5 features"]
    if "keys" in change:
        with pytest.raises(Exception, match="OutOfBounds"):
            check(f"{FORWARD}pointers", sample, TILE)
    else:
        assert not check(f"{FORWARD}pointers", sample, TILE).ok


def test_the_public_function_runs_on_tensors_of_a_gpu() -> None:
    import torch

    q, k, v = (
        torch.from_numpy(x) for x in drawn((1, 4, 5, 16), (1, 2, 9, 16), (1, 2, 9, 16), dtype="float32")
    )
    with standing_in() as gpu:
        mine = kw.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        found = torch.from_dlpack(mine)
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    assert gpu.steps == ["attend"]
    torch.testing.assert_close(found, theirs, rtol=2e-5, atol=2e-6)
