"""The functions conv1d to conv_transpose3d mean what PyTorch's mean, and refuse what means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import DTypeError, LayoutError, OverlapError, ShapeError


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


CALLS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("conv1d", (2, 6, 19), (8, 3, 4), {"stride": 2, "padding": 3, "dilation": 2, "groups": 2}),
    ("conv1d", (2, 6, 19), (5, 6, 4), {"padding": "same"}),
    ("conv2d", (2, 6, 9, 8), (4, 3, 3, 3), {"groups": 2}),
    ("conv2d", (2, 6, 9, 8), (4, 6, 3, 2), {"padding": (1, 2), "stride": (2, 1)}),
    ("conv2d", (2, 6, 9, 8), (4, 6, 4, 3), {"padding": "same", "dilation": (1, 2)}),
    ("conv2d", (2, 6, 9, 8), (4, 6, 4, 3), {"padding": "valid"}),
    ("conv3d", (1, 4, 5, 6, 7), (6, 2, 3, 2, 3), {"padding": (1, 0, 2), "groups": 2, "stride": (1, 2, 1)}),
    ("conv_transpose1d", (2, 6, 9), (6, 5, 4), {"stride": 3, "padding": 1, "output_padding": 2}),
    ("conv_transpose2d", (2, 6, 5, 4), (6, 2, 3, 2), {"stride": (3, 2), "groups": 2, "dilation": 2}),
    ("conv_transpose2d", (2, 6, 5, 4), (6, 4, 3, 3), {"padding": (1, 0), "stride": 2, "output_padding": 1}),
    ("conv_transpose1d", (2, 6, 9), (6, 5, 4), {"stride": 2, "output_padding": 3, "dilation": 4}),
    (
        "conv_transpose2d",
        (2, 6, 5, 4),
        (6, 4, 3, 2),
        {"stride": (3, 1), "padding": 1, "dilation": (5, 3), "output_padding": (4, 2)},
    ),
    ("conv_transpose3d", (1, 4, 3, 4, 2), (4, 3, 2, 3, 2), {"stride": (1, 2, 2), "padding": (1, 1, 0)}),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[3]}")
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_functions_mean_what_pytorch_means(call: Any, layout: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    name, x_shape, w_shape, options = call
    x, w = _normal(*x_shape), _normal(*w_shape)
    out = w_shape[1] * options.get("groups", 1) if "transpose" in name else w_shape[0]
    b = _normal(out)
    expected = getattr(torch.nn.functional, name)(*map(torch.from_numpy, (x, w, b)), **options).numpy()
    if layout == "NHWC":
        result = np.moveaxis(
            np.asarray(getattr(kw, name)(np.moveaxis(x, 1, -1), w, b, layout=layout, **options)), -1, 1
        )
    else:
        result = np.asarray(getattr(kw, name)(x, w, b, **options))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu"])
def test_activations_mean_what_pytorch_means(activation: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    functional = torch.nn.functional
    apply = (
        {
            "gelu": functional.gelu,
            "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
        }.get(activation)
        or getattr(torch, activation, None)
        or getattr(functional, activation)
    )
    shapes = (1, 3, 4, 5), (7, 3, 1, 1), (7,), (1, 7, 4, 5)
    x, w, b, residual = (_normal(*shape).astype("float32") for shape in shapes)
    z = functional.conv2d(*map(torch.from_numpy, (x, w, b))) + torch.from_numpy(residual)
    result = np.asarray(kw.conv2d(x, w, b, activation=activation, residual=residual))
    np.testing.assert_allclose(result, apply(z).numpy(), rtol=0, atol=1e-5)


def test_padding_may_differ_on_each_side() -> None:
    x, w = _normal(1, 2, 5, 6), _normal(3, 2, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 2), (1, 3)))
    np.testing.assert_allclose(
        np.asarray(kw.conv2d(x, w, padding=((0, 2), (1, 3)))), np.asarray(kw.conv2d(padded, w)), atol=1e-13
    )


X, W = _normal(2, 6, 9, 8), _normal(4, 6, 3, 3)
REFUSED: list[tuple[str, type[Exception], str, Any]] = [
    ("one image", ShapeError, r"x\[None\]", lambda: kw.conv2d(X[0], W)),
    ("another rank", ShapeError, "Write conv2d", lambda: kw.conv1d(X, W)),
    ("other channels", ShapeError, "6 channels", lambda: kw.conv2d(X, W[:, :4])),
    ("the other layout", ShapeError, "layout='NCHW'", lambda: kw.conv2d(X, W, layout="NHWC")),
    ("groups to be named", ShapeError, "groups=3", lambda: kw.conv2d(X, _normal(6, 2, 3, 3))),
    ("groups that do not divide", ShapeError, "groups=4", lambda: kw.conv2d(X, W, groups=4)),
    ("negative padding", ShapeError, "0 or more", lambda: kw.conv2d(X, W, padding=-1)),
    ("'same' with a stride", ShapeError, "stride of 1", lambda: kw.conv2d(X, W, padding="same", stride=2)),
    ("no stride", ShapeError, "1 or more", lambda: kw.conv2d(X, W, stride=0)),
    ("two paddings for one axis", ShapeError, "pair", lambda: kw.conv1d(X[0], W[0], padding=(0, 1))),
    (
        "a filter too large",
        ShapeError,
        "reaches over 11",
        lambda: kw.conv2d(X, _normal(4, 6, 11, 1)),
    ),
    ("a bias of another length", ShapeError, r"\[4\]", lambda: kw.conv2d(X, W, _normal(3))),
    ("a residual of another shape", ShapeError, "residual", lambda: kw.conv2d(X, W, residual=X)),
    ("an unknown layout", ShapeError, "NHWC", lambda: kw.conv2d(X, W, layout="NWHC")),
    ("an unknown activation", DTypeError, "'relu'", lambda: kw.conv2d(X, W, activation="rleu")),
    ("mixed dtypes", DTypeError, "converted", lambda: kw.conv2d(X, W.astype("f4"))),
    ("whole numbers", DTypeError, "float32", lambda: kw.conv2d(X.astype("i4"), W.astype("i4"))),
    ("a list", DTypeError, "kw.array", lambda: kw.conv2d(X, W.tolist())),
    (
        "output padding of a stride",
        ShapeError,
        "smaller than the stride",
        lambda: kw.conv_transpose2d(X, _normal(6, 4, 3, 3), stride=2, output_padding=2),
    ),
    ("an out of another shape", ShapeError, "np.empty", lambda: kw.conv2d(X, W, out=np.empty((2, 4, 7, 7)))),
    ("an out that is x", OverlapError, "shares memory", lambda: kw.conv2d(X, _normal(6, 6, 1, 1), out=X)),
    (
        "an out of one number",
        LayoutError,
        "stride of 0",
        lambda: kw.conv2d(X, W, out=np.lib.stride_tricks.as_strided(np.zeros(1), (2, 4, 7, 6), (0, 0, 0, 0))),
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_what_means_nothing_is_refused_with_a_word_of_advice(case: Any) -> None:
    _, kind, text, call = case
    with pytest.raises(kind, match=text):
        call()


def test_explain_takes_the_arguments_of_the_function() -> None:
    x, w = X.astype("float32"), W.astype("float32")
    text = str(kw.explain(kw.conv2d, x, w, padding=1))
    assert "conv/cpu_numba_planes/planes" in text
    assert "direct" in text
    assert "padding=((1, 1), (1, 1))" in text
