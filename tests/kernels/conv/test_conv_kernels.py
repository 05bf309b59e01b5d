"""Every conv kernel computes every call that it takes: samples, random problems, other configurations."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from conv_calls import CONV, NAMES, configs, kernel_called, random_calls, specs_of, taken, verdicts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_weights import odd_weights, truth_for
from problem_count import problem_count

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.conv.prepack import unpack
from kernelwright.kernels.prepack import prepack
from kernelwright.kernels.settings import clear_memos
from kernelwright.kernels.spec import np_dtype

# How many samples each kernel must take, so that none is passed by refusing.
LEAST = {"direct": 90, "planes": 90, "depthwise": 10, "depthwise_planes": 8}
_FEW = settings(
    max_examples=problem_count(120),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_compute_every_sample_that_they_take(name: str, dtype: str) -> None:
    count = 0
    for sample, verdict in verdicts(kernel_called(name), dtype):
        assert verdict.ok, f"{sample}: {verdict.text}"
        count += 1
    assert count >= LEAST[name]


def test_every_sample_has_a_kernel() -> None:
    kernels = list(map(kernel_called, NAMES))
    for sample in CONV.samples(np.random.default_rng(0), "float32"):
        if specs_of(sample)[0][-1].size:
            assert any(taken(kernel, sample) for kernel in kernels), sample


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@given(data=st.data())
@_FEW
def test_random_problems_are_right_in_every_kernel(dtype: str, data: st.DataObject) -> None:
    sample = data.draw(random_calls(dtype))
    threads = data.draw(st.integers(1, 3))
    takers = [kernel for kernel in map(kernel_called, NAMES) if taken(kernel, sample)]
    assert takers, sample
    for kernel in takers:
        verdict = check_kernel(kernel, sample, threads=threads)
        assert verdict.ok, f"{kernel.id} {sample}: {verdict.text}"


@pytest.mark.parametrize("name", ["direct", "planes"])
def test_every_configuration_computes_the_same_convolution(name: str) -> None:
    kernel = kernel_called(name)
    wanted = ("3x3, padded", "7x7, stride 2, 3 channels", "long sums", "two groups", "3-D, uneven")
    for sample in CONV.samples(np.random.default_rng(0), "float32"):
        if sample.name.rpartition(",")[0] in wanted and taken(kernel, sample):
            for config in configs(kernel, sample):
                for kc in (config["kc"], 20):
                    verdict = check_kernel(kernel, sample, {**config, "kc": kc}, threads=2)
                    assert verdict.ok, f"{sample} {config}: {verdict.text}"


@pytest.mark.parametrize("nbytes", ["16", "32"])
def test_narrow_vectors_compute_the_same(nbytes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", nbytes)
    clear_memos()
    wanted = ("3x3, padded", "depthwise", "one of everything", "3-D")
    for name in NAMES:
        kernel = kernel_called(name)
        for sample in CONV.samples(np.random.default_rng(0), "float32"):
            if sample.name.rpartition(",")[0] in wanted and taken(kernel, sample):
                verdict = check_kernel(kernel, sample)
                assert verdict.ok, f"{kernel.id} {sample}: {verdict.text}"
    clear_memos()


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("channels", "out", "groups"), [(5, 70, 1), (6, 8, 2), (9, 9, 9)])
def test_packed_weights_give_the_same_bits(channels: int, out: int, groups: int, layout: str) -> None:
    rng = np.random.default_rng(0)
    shape = (2, channels, 7, 6) if layout == "NCHW" else (2, 7, 6, channels)
    x = rng.standard_normal(shape).astype("float32")
    w = rng.standard_normal((out, channels // groups, 3, 3)).astype("float32")
    options = {"padding": 1, "groups": groups, "layout": layout}
    plain = np.asarray(kw.conv2d(x, w, **options))
    attrs = CONV.complete({"groups": groups, "layout": layout, "padding": ((1, 1), (1, 1))})
    exact = CONV.reference(x.astype("f8"), w.astype("f8"), None, None, **attrs)[0]
    for meant in ("", "NCHW", "NHWC"):
        packed = prepack("conv", w, groups=groups, layout=meant)
        np.testing.assert_array_equal(unpack(packed.data, packed.format, packed.shape, groups), w)
        again = np.asarray(kw.conv2d(x, packed, **options))
        np.testing.assert_allclose(again, exact, rtol=0, atol=1e-4)
        np.testing.assert_allclose(again, plain, rtol=0, atol=1e-5)


def test_repeated_calls_give_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 13, 11, 40)).astype("float32")
    w = rng.standard_normal((70, 40, 3, 3)).astype("float32")
    with kw.using(threads=2):
        first = np.asarray(kw.conv2d(x, w, padding=1, layout="NHWC"))
        for _ in range(5):
            np.testing.assert_array_equal(np.asarray(kw.conv2d(x, w, padding=1, layout="NHWC")), first)


def test_several_python_threads_compute_at_once() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 20, 9, 9)).astype("float32")
    w = rng.standard_normal((30, 20, 3, 3)).astype("float32")
    right = np.asarray(kw.conv2d(x, w, padding=1))
    wrong: list[int] = []

    def work(number: int) -> None:
        with kw.using(threads=2):
            results = [np.asarray(kw.conv2d(x, w, padding=1)) for _ in range(40)]
        wrong.extend(number for result in results if not np.allclose(result, right, atol=1e-4))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_the_result_can_go_to_a_window_of_a_larger_array() -> None:
    rng = np.random.default_rng(0)
    for layout in ("NHWC", "NCHW"):
        shape = (2, 6, 5, 8) if layout == "NHWC" else (2, 8, 6, 5)
        x, w = rng.standard_normal(shape), rng.standard_normal((3, 8, 3, 3))
        plain = np.asarray(kw.conv2d(x, w, padding=1, layout=layout))
        room = np.zeros(tuple(length + 4 for length in plain.shape))
        out = room[tuple(slice(2, 2 + length) for length in plain.shape)]
        kw.conv2d(x, w, padding=1, layout=layout, out=out)
        np.testing.assert_allclose(out, plain, rtol=0, atol=1e-13)
        out[...] = 0
        assert not room.any()


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_no_numbers_spoil_nothing_but_what_reaches_over_the_border(name: str) -> None:
    kernel, tried = kernel_called(name), 0
    for layout in ("NHWC", "NCHW"):
        for sizes in ((5, 33), (32, 32, 32)):
            for sample in odd_weights(layout, "float32", *sizes):
                if not taken(kernel, sample):
                    continue
                specs, attrs = specs_of(sample)
                y = np.zeros(specs[-1].shape, np.float32)
                kernel.bind(specs, attrs, configs(kernel, sample)[0], 1)(*sample.inputs, y)
                assert np.isfinite(y).any()
                verdict = truth_for(sample, y).judge([y], specs, None, kernel.error)
                assert verdict.ok, f"{sample}: {verdict.text}"
                tried += 1
    assert tried


# --- controls: a wrong kernel must be caught ----------------------------------------------------------------


def _passes(damage: str) -> bool:
    """Whether `check_kernel` finds `direct` right with something wrong built in."""
    kernel = kernel_called("direct")
    (sample,) = [
        s for s in CONV.samples(np.random.default_rng(0), "float32") if s.name == "3x3, padded, NHWC"
    ]
    bind = kernel.function

    def wrong(specs, attrs, config, threads):  # type: ignore[no-untyped-def]
        launch = bind(specs, attrs, config, threads)

        def run(x, w, b, residual, y):  # type: ignore[no-untyped-def]
            launch(x, w, b, residual, y)
            if damage == "border tap":
                y[:, 0, 0] -= x[:, 0, 0] @ w[:, :, 1, 1].T
            elif damage == "last column":
                y[..., -1] = np.nan
            elif damage == "last channel":
                y -= x[:, :, :, -1:] * w[:, -1, 1, 1]
            elif damage == "input":
                x[0, 0, 0, 0] += 1

        return run

    return check_kernel(replace(kernel, function=wrong), sample).ok


def test_the_control_without_damage_passes() -> None:
    assert _passes("none")


@pytest.mark.parametrize("damage", ["border tap", "last column", "last channel", "input"])
def test_damaged_kernels_are_caught(damage: str) -> None:
    assert not _passes(damage)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channels", [5, 6, 32])
def test_packed_bfloat16_weights_are_computed_with(channels: int, layout: str) -> None:
    rng = np.random.default_rng(0)
    bfloat16 = np_dtype("bfloat16")
    shape = (2, channels, 7, 6) if layout == "NCHW" else (2, 7, 6, channels)
    x = rng.standard_normal(shape).astype(bfloat16)
    w = rng.standard_normal((19, channels, 3, 3)).astype(bfloat16)
    packed = prepack("conv", w)
    y = np.asarray(kw.conv2d(x, packed, padding=1, layout=layout)).astype("f8")
    attrs = CONV.complete({"layout": layout, "padding": ((1, 1), (1, 1))})
    exact = CONV.reference(x.astype("f8"), w.astype("f8"), None, None, **attrs)[0]
    np.testing.assert_allclose(y, exact, rtol=2**-7, atol=0.02)
    np.testing.assert_array_equal(
        unpack(packed.data, packed.format, packed.shape, 1).astype("f4"), w.astype("f4")
    )
