"""Pooling: narrow vectors, random windows, beside torch, threads, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError
from kernelwright.kernels.op import Sample, TensorSpec, get_op
from kernelwright.kernels.pool.windows import output_size
from kernelwright.kernels.registry import kernels_for


def checked(name: str, sample: Sample, threads: int = 1) -> None:
    (kernel,) = kernels_for(name)
    verdict = check_kernel(kernel, sample, threads=threads)
    assert verdict.ok, f"{name} {sample}: {verdict.text}"


@pytest.mark.parametrize("vector_bytes", ["16", "32"])
@pytest.mark.parametrize("name", ["max_pool", "max_pool_grad", "avg_pool"])
def test_narrower_vectors_are_right(name: str, vector_bytes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", vector_bytes)
    for sample in list(get_op(name).samples(np.random.default_rng(1), "float32"))[::2]:
        checked(name, sample)


@st.composite
def calls(draw: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Images and windows that fit them."""
    axes = draw(st.integers(1, 3))
    whole = st.integers
    size = tuple(draw(whole(1, 40 if axis == axes - 1 else 9)) for axis in range(axes))
    kernel = tuple(draw(whole(1, 5)) for _ in size)
    stride = tuple(draw(whole(1, 5)) for _ in size)
    dilation = tuple(draw(whole(1, 2)) for _ in size)
    padding = tuple(
        (draw(whole(0, ((k - 1) * d + 1) // 2)), draw(whole(0, ((k - 1) * d + 1) // 2)))
        for k, d in zip(kernel, dilation, strict=True)
    )
    ceil = draw(st.booleans())
    for n, k, s, pair, d in zip(size, kernel, stride, padding, dilation, strict=True):
        assume(output_size(n, k, s, pair, d, ceil) >= 1)
    attrs = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    attrs |= {"layout": draw(st.sampled_from(["NCHW", "NHWC"])), "dilation": dilation}
    batch, channels = draw(whole(1, 2)), draw(st.sampled_from([1, 2, 3, 17]))
    shape = (batch, channels, *size) if attrs["layout"] == "NCHW" else (batch, *size, channels)
    return shape, attrs


# A window that lies between the elements: nothing but padding.
BETWEEN = {
    "kernel_size": (1, 2, 2),
    "stride": (1, 1, 2),
    "padding": ((0, 0), (1, 0), (1, 0)),
    "ceil_mode": True,
}
BETWEEN |= {"layout": "NCHW", "dilation": (1, 1, 2)}


@settings(max_examples=60)
@example(((1, 1, 1, 1, 1), BETWEEN), 0)
@given(calls(), st.integers(0, 2**32))
def test_random_windows_are_right(call: tuple[tuple[int, ...], dict[str, Any]], seed: int) -> None:
    shape, attrs = call
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal(shape), -0.5).astype("f4")  # with equal elements
    checked("max_pool", Sample("x", (x,), attrs))
    y, taps = get_op("max_pool").reference(x.astype("f8"), **get_op("max_pool").complete(attrs))
    size = shape[2:] if attrs["layout"] == "NCHW" else shape[1:-1]
    kind = "uint8" if np.prod(attrs["kernel_size"]) <= 256 else "int32"
    dy = rng.standard_normal(y.shape).astype("f4")
    back = Sample("dy", (dy, np.ascontiguousarray(taps).astype(kind)), {**attrs, "input_size": size})
    checked("max_pool_grad", back)
    if max(attrs["dilation"]) == 1 and all(
        2 * max(pair) <= k for pair, k in zip(attrs["padding"], attrs["kernel_size"], strict=True)
    ):
        means = {key: value for key, value in attrs.items() if key != "dilation"}
        means["count_include_pad"] = bool(seed % 2)
        checked("avg_pool", Sample("x", (x,), means))
        checked("avg_pool_grad", Sample("dy", (dy,), {**means, "input_size": size}))


# --- beside torch -------------------------------------------------------------------------------------------


def _torch() -> Any:
    return pytest.importorskip("torch", reason="compares with torch.nn.functional")


def images(axes: int, seed: int = 0) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(seed).standard_normal((2, 3, 9, 12, 11)[: axes + 2])
    return np.maximum(x, -0.3).astype("f4")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_max_pool_and_its_indices_are_those_of_torch(axes: int) -> None:
    torch = _torch()
    ours, theirs = getattr(kw, f"max_pool{axes}d"), getattr(torch.nn.functional, f"max_pool{axes}d")
    x = images(axes)
    x.flat[5] = np.nan
    for args, ceil in product(((2,), (3, 2, 1), (3, 1, 1, 2), (2, 3)), (False, True)):
        y, at = theirs(torch.from_numpy(x), *args, ceil_mode=ceil, return_indices=True)
        mine, places = ours(x, *args, ceil_mode=ceil, return_indices=True)
        np.testing.assert_array_equal(np.asarray(mine), y.numpy())
        np.testing.assert_array_equal(np.asarray(places), at.numpy())
        assert places.dtype == np.int64
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        mine, places = ours(last, *args, ceil_mode=ceil, return_indices=True, layout="NHWC")
        np.testing.assert_array_equal(np.moveaxis(np.asarray(mine), -1, 1), y.numpy())
        np.testing.assert_array_equal(np.moveaxis(np.asarray(places), -1, 1), at.numpy())


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_avg_pool_is_that_of_torch(axes: int) -> None:
    torch = _torch()
    ours, theirs = getattr(kw, f"avg_pool{axes}d"), getattr(torch.nn.functional, f"avg_pool{axes}d")
    x = images(axes)
    for args, ceil, include in product(((2,), (3, 2, 1), (3, 1, 1)), (False, True), (False, True)):
        how = {"ceil_mode": ceil, "count_include_pad": include}
        y = theirs(torch.from_numpy(x), *args, **how)
        np.testing.assert_allclose(np.asarray(ours(x, *args, **how)), y.numpy(), rtol=1e-6, atol=1e-6)
    if axes > 1:
        y = theirs(torch.from_numpy(x), 3, 2, 1, divisor_override=-4)
        mine = ours(x, 3, 2, 1, divisor_override=-4)
        np.testing.assert_allclose(np.asarray(mine), y.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_adaptive_pools_are_those_of_torch(axes: int) -> None:
    torch = _torch()
    x = images(axes)
    sizes: list[Any] = [1, 5, 13, (3, 4, 2)[:axes]] + ([(None, *(2, 3)[: axes - 1])] if axes > 1 else [])
    for size in sizes:
        for kind in ("avg", "max"):
            name = f"adaptive_{kind}_pool{axes}d"
            y = getattr(torch.nn.functional, name)(torch.from_numpy(x), size)
            np.testing.assert_allclose(
                np.asarray(getattr(kw, name)(x, size)), y.numpy(), rtol=1e-6, atol=1e-6
            )
        name = f"adaptive_max_pool{axes}d"
        _, at = getattr(torch.nn.functional, name)(torch.from_numpy(x), size, return_indices=True)
        np.testing.assert_array_equal(np.asarray(getattr(kw, name)(x, size, True)[1]), at.numpy())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_gradients_are_those_of_torch(name: str, layout: str) -> None:
    torch = _torch()
    x = images(2)
    for args in ((5,), (3,)) if "adaptive" in name else ((2,), (3, 2, 1), (3, 1, 1), (2, 3), (5, 6)):
        leaf = torch.from_numpy(x).clone().requires_grad_()
        y = getattr(torch.nn.functional, name)(leaf, *args)
        dy = np.random.default_rng(1).standard_normal(y.shape).astype("f4")
        y.backward(torch.from_numpy(dy))
        mine, weights = x, dy
        if layout == "NHWC":
            mine, weights = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy))

        def loss(a: Any, w: Any = weights, args: Any = args) -> Any:
            return (getattr(kw, name)(a, *args, layout=layout) * w).sum()

        found = np.asarray(kw.grad(loss)(kw.array(mine)))
        if layout == "NHWC":
            found = np.moveaxis(found, -1, 1)
        np.testing.assert_allclose(found, leaf.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_lp_pool_is_that_of_torch(axes: int) -> None:
    torch = _torch()
    x = np.abs(images(axes))
    for norm, args in ((2, (2,)), (3.0, (3, 2)), (1.5, (2, 1, True))):
        y = getattr(torch.nn.functional, f"lp_pool{axes}d")(torch.from_numpy(x), norm, *args)
        mine = getattr(kw, f"lp_pool{axes}d")(x, norm, *args)
        np.testing.assert_allclose(np.asarray(mine), y.numpy(), rtol=1e-5, atol=1e-6)


def test_one_image_without_a_batch_axis_works() -> None:
    x = images(2)
    both, single = kw.max_pool2d(x, 2), kw.max_pool2d(x[0], 2)
    np.testing.assert_array_equal(np.asarray(single), np.asarray(both)[0])
    np.testing.assert_array_equal(np.asarray(kw.avg_pool2d(x[1], 3)), np.asarray(kw.avg_pool2d(x, 3))[1])
    out = kw.zeros(3, 3, 4)
    assert kw.avg_pool2d(x[1], 3, out=out) is out
    np.testing.assert_array_equal(np.asarray(out), np.asarray(kw.avg_pool2d(x, 3))[1])


def test_equal_bits_for_any_number_of_threads() -> None:
    x = np.random.default_rng(0).standard_normal((4, 16, 50, 66)).astype("f4")
    results = []
    for threads in (1, 2, 5):
        with kw.using(threads=threads):
            y, at = kw.max_pool2d(x, 3, 2, 1, return_indices=True)
            results.append((np.asarray(y), np.asarray(at), np.asarray(kw.avg_pool2d(x, 3, 2, 1))))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# --- bad input ----------------------------------------------------------------------------------------------


def test_bad_windows_are_refused_with_the_values() -> None:
    x = np.zeros((1, 2, 6, 6), "f4")
    with pytest.raises(ShapeError, match=r"padding \(\(2, 2\), \(2, 2\)\) is more than half of the kernel"):
        kw.max_pool2d(x, 3, padding=2)
    with pytest.raises(ShapeError, match=r"a kernel of \(7, 7\).* does not fit into images of \(6, 6\)"):
        kw.avg_pool2d(x, 7)
    with pytest.raises(ShapeError, match="kernel_size is a whole number of 1 or more"):
        kw.max_pool2d(x, 0)
    with pytest.raises(ShapeError, match=r"x must have 4 axes.*got shape \(6, 6\)"):
        kw.max_pool2d(x[0, 0], 2)
    with pytest.raises(ShapeError, match="Write max_pool1d"):
        kw.max_pool3d(x[0], 2)
    with pytest.raises(ConfigError, match="layout is 'NCHW' or 'NHWC', got 'CHW'"):
        kw.avg_pool2d(x, 2, layout="CHW")
    with pytest.raises(ConfigError, match="divisor_override is a whole number other than 0"):
        kw.avg_pool2d(x, 2, divisor_override=0)
    with pytest.raises(DTypeError, match="max_pool takes float32"):
        kw.max_pool2d(x.astype("i4"), 2)
    with pytest.raises(ShapeError, match="output_size is a whole number"):
        kw.adaptive_avg_pool2d(x, -1)
    op = get_op("max_pool_grad")
    specs = TensorSpec((1, 2, 3, 3), "float32"), TensorSpec((1, 2, 3, 3), "int64")
    attrs = op.complete({"kernel_size": (2, 2), "input_size": (6, 6)})
    with pytest.raises(DTypeError, match="taps are what max_pool gives"):
        op.infer(specs, **attrs)


def test_explain_tells_the_kernel() -> None:
    x = np.zeros((1, 2, 6, 6), "f4")
    assert "max_pool/cpu_llvm/max_pool" in str(kw.explain(kw.max_pool2d, x, 2))
    assert "avg_pool/cpu_llvm/avg_pool" in str(kw.explain(kw.avg_pool2d, x, 3, 2, 1))
