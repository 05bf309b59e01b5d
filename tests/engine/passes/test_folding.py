"""folding: norms by kept statistics become part of the weights before them, or stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pass_graphs import close, graph_of, only, ops_of

import kernelwright as kw

RNG = np.random.default_rng(5)


def _drawn(*shape: int, dtype: str = "float32") -> kw.Array:
    return kw.array(RNG.standard_normal(shape).astype(dtype))


def _norm(n: int, dtype: str = "float32") -> dict[str, Any]:
    var = kw.array(RNG.uniform(0.5, 2, n).astype(dtype))
    names = ("running_mean", "weight", "bias")
    return {**{name: _drawn(n, dtype=dtype) for name in names}, "running_var": var}


W, B, KEPT = _drawn(6, 4, 3, 3), _drawn(6), _norm(6)
IMAGES = "float32 2 4 7 8"


@pytest.mark.parametrize("bias", [None, B], ids=["no bias", "bias"])
@pytest.mark.parametrize("plain", [False, True], ids=["affine", "not affine"])
def test_a_norm_behind_a_convolution_is_folded(bias: Any, plain: bool) -> None:
    kept = {**KEPT, "weight": None, "bias": None} if plain else KEPT
    before = graph_of(lambda x: kw.batch_norm(kw.conv2d(x, W, bias, 2, 1), **kept), IMAGES)
    after = only(before, "folding")
    assert ops_of(after) == ["conv"]
    close(before, after)


def test_a_norm_behind_a_channels_last_convolution_in_groups_is_folded() -> None:
    w = _drawn(6, 2, 3, 3)

    def f(x: Any) -> Any:
        y = kw.conv2d(x, w, groups=2, layout="NHWC")
        return kw.batch_norm(y, channel_axis=-1, **KEPT)

    before = graph_of(f, "float32 2 7 8 4")
    after = only(before, "folding")
    assert ops_of(after) == ["conv"]
    close(before, after)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_norm_behind_a_linear_is_folded(dtype: str) -> None:
    w, kept = _drawn(6, 5, dtype=dtype), _norm(6, dtype)
    before = graph_of(lambda x: kw.batch_norm(kw.linear(x, w), **kept), f"{dtype} 3 5")
    after = only(before, "folding")
    assert ops_of(after) == ["linear"]
    close(before, after)


def test_a_block_with_a_way_past_it_is_two_convolutions() -> None:
    one, other, first, second = _drawn(4, 4, 3, 3), _drawn(4, 4, 3, 3), _norm(4), _norm(4)

    def f(x: Any) -> Any:
        y = kw.relu(kw.batch_norm(kw.conv2d(x, one, padding=1), **first))
        return kw.relu(kw.batch_norm(kw.conv2d(y, other, padding=1), **second) + x)

    before = graph_of(f, IMAGES)
    after = only(before, "folding", "epilogues")
    assert ops_of(after) == ["conv", "conv"]
    assert [node.attrs["activation"] for node in after.steps] == ["relu", "relu"]
    close(before, after)
    ended = only(only(before, "epilogues"), "folding")  # the norms have their endings already
    assert ops_of(ended) == ["conv", "conv"]
    close(before, ended)


def test_a_scale_of_zero_is_folded() -> None:
    kept = {**KEPT, "weight": kw.array(np.array([0, 1, -1, 0, 2, 0.5], np.float32))}
    before = graph_of(lambda x: kw.batch_norm(kw.conv2d(x, W), **kept), IMAGES)
    after = only(before, "folding")
    assert ops_of(after) == ["conv"]
    close(before, after)


def _read_twice(x: Any) -> Any:
    y = kw.conv2d(x, W)
    return kw.batch_norm(y, **KEPT), y


def _with_activation(x: Any) -> Any:
    return kw.batch_norm(kw.relu(kw.conv2d(x, W)), **KEPT)


def _other_channels(x: Any) -> Any:
    return kw.batch_norm(kw.conv2d(x, W), channel_axis=-1, **KEPT)


def _by_its_own_batch(x: Any) -> Any:
    return kw.batch_norm(kw.conv2d(x, W), None, None, training=True)


def _full(number: float) -> Any:
    return kw.array(np.full(6, number, np.float32))


def _huge(x: Any) -> Any:
    return kw.batch_norm(kw.conv2d(x, W), **{**KEPT, "weight": _full(1e20)})


def _no_number(x: Any) -> Any:
    return kw.batch_norm(kw.conv2d(x, W), **{**KEPT, "running_mean": _full(np.nan)})


@pytest.mark.parametrize(
    "function", [_read_twice, _with_activation, _other_channels, _by_its_own_batch, _huge, _no_number]
)
def test_other_norms_stay(function: Callable[[Any], Any]) -> None:
    assert len(ops_of(only(graph_of(function, IMAGES), "folding", "epilogues"))) == 2


def test_a_norm_stays_where_a_weight_or_a_statistic_comes_in() -> None:
    def f(x: Any, w: Any) -> Any:
        return kw.batch_norm(kw.conv2d(x, w), **KEPT)

    def g(x: Any, mean: Any) -> Any:
        return kw.batch_norm(kw.conv2d(x, W), **{**KEPT, "running_mean": mean})

    for function, spec in ((f, "float32 6 4 3 3"), (g, "float32 6")):
        assert ops_of(only(graph_of(function, IMAGES, spec), "folding")) == ["conv", "batch_norm_inference"]
