"""Images that convolutions would read through strides: copied first where the models say that it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine import lower

RNG = np.random.default_rng(0)
X = kw.array(RNG.standard_normal((2, 3, 10, 9)).astype(np.float32))
W, V = (kw.array(RNG.standard_normal((5, 3, 3, 3)).astype(np.float32)) for _ in range(2))


def _two(x: Any) -> Any:
    """Two convolutions of one image that lies channels-first, as they read it channels-last."""
    last = x.transpose(0, 2, 3, 1)
    return kw.conv2d(last, W, layout="NHWC"), kw.conv2d(last, V, layout="NHWC")


def _steps(monkeypatch: pytest.MonkeyPatch, strided: float | None, dense: float | None) -> list[str]:
    """The ops of the plan where these are the predictions; its results are checked."""

    def predicted(node: Any, specs: Any) -> float | None:
        return dense if all(spec.layout is None for spec in specs) else strided

    monkeypatch.setattr(lower, "_predicted", predicted)
    f = kw.compile(_two)
    for y, right in zip(f(X), (kw.conv2d(X, W), kw.conv2d(X, V)), strict=True):
        np.testing.assert_allclose(np.asarray(y).transpose(0, 3, 1, 2), np.asarray(right), rtol=0, atol=1e-5)
    return [call.node.op.name for call in f.plan.calls]


def test_an_image_is_copied_once_for_all_that_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _steps(monkeypatch, 1.0, 0.5) == ["transpose", "conv", "conv"]


@pytest.mark.parametrize(("strided", "dense"), [(1.0, 1.0), (1e-6, 0.999e-6), (None, 0.5), (1.0, None)])
def test_an_image_stays_where_a_copy_does_not_pay(
    monkeypatch: pytest.MonkeyPatch, strided: float | None, dense: float | None
) -> None:
    assert _steps(monkeypatch, strided, dense) == ["conv", "conv"]


def test_a_copy_lies_in_the_arena_beside_what_lives_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, "_predicted", lambda node, specs: float(specs[0].layout is not None))

    def f(x: Any) -> Any:
        last = kw.relu(x).transpose(0, 2, 3, 1)
        return kw.conv2d(last, W, layout="NHWC").sum() + last.sum()

    compiled = kw.compile(f)
    right = kw.conv2d(kw.relu(X), W).sum() + kw.relu(X).sum()
    assert abs(float(compiled(X)) - float(right)) <= 1e-5 * abs(float(right)) + 1e-3
    assert "transpose" in [call.node.op.name for call in compiled.plan.calls]
    assert compiled.plan.arena_bytes >= 2 * X.nbytes
