"""interpolate beside torch: every mode, sizes and factors, gradients; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, ShapeError

CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("nearest", 2, {"scale_factor": 2}),
    ("nearest", 1, {"size": 5}),
    ("nearest", 3, {"scale_factor": (1.5, 0.7, 2.0)}),
    ("nearest-exact", 2, {"size": (11, 4)}),
    ("nearest-exact", 2, {"scale_factor": 0.6}),
    ("linear", 1, {"size": 20}),
    ("bilinear", 2, {"size": (14, 21)}),
    ("bilinear", 2, {"scale_factor": 2.3, "align_corners": False}),
    ("bilinear", 2, {"scale_factor": 0.6, "recompute_scale_factor": True}),
    ("bilinear", 2, {"scale_factor": 0.6}),
    ("bilinear", 2, {"size": (3, 30), "align_corners": True}),
    ("bilinear", 2, {"size": 1, "align_corners": True}),
    ("bicubic", 2, {"size": (9, 17)}),
    ("bicubic", 2, {"scale_factor": 0.5, "align_corners": True}),
    ("trilinear", 3, {"scale_factor": 2}),
    ("area", 2, {"size": (3, 4)}),
]


@pytest.mark.parametrize(("mode", "axes", "how"), CASES, ids=[f"{m}{list(h)}" for m, _, h in CASES])
def test_results_and_gradients_are_torchs(mode: str, axes: int, how: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
    x = np.random.default_rng(0).standard_normal((2, 3, *(7, 8, 5)[:axes])).astype("f4")
    tensor = torch.from_numpy(x.copy()).requires_grad_()
    right = torch.nn.functional.interpolate(tensor, mode=mode, **how)
    found = kw.interpolate(x, mode=mode, **how)
    np.testing.assert_allclose(np.asarray(found), right.detach().numpy(), rtol=1e-5, atol=1e-5)
    weights = np.random.default_rng(1).standard_normal(right.shape).astype("f4")
    right.backward(torch.from_numpy(weights))
    gradient = kw.grad(lambda x: (kw.interpolate(x, mode=mode, **how) * weights).sum())(kw.array(x))
    np.testing.assert_allclose(np.asarray(gradient), tensor.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_threads_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((4, 8, 60, 50)).astype("f4")
    for mode in ("nearest", "bilinear"):
        with kw.using(threads=1):
            one = np.asarray(kw.interpolate(x, scale_factor=2, mode=mode))
        with kw.using(threads=3):
            np.testing.assert_array_equal(np.asarray(kw.interpolate(x, scale_factor=2, mode=mode)), one)


def test_what_does_not_fit_is_explained() -> None:
    x = np.zeros((1, 2, 4, 4), "f4")
    with pytest.raises(ConfigError, match="one of size and scale_factor"):
        kw.interpolate(x)
    with pytest.raises(ConfigError, match="align_corners means nothing in mode 'nearest'"):
        kw.interpolate(x, 8, align_corners=True)
    with pytest.raises(ShapeError, match="mode 'trilinear' takes arrays of 5 axes"):
        kw.interpolate(x, 8, mode="trilinear")
    with pytest.raises(ConfigError, match="mode is one of nearest"):
        kw.interpolate(x, 8, mode="lanczos")
    with pytest.raises(ShapeError, match=r"size .* needs one number for each"):
        kw.interpolate(x, (8, 8, 8))
    with pytest.raises(ShapeError, match="nothing to interpolate between"):
        kw.interpolate(x[:, :, :0], 8)
