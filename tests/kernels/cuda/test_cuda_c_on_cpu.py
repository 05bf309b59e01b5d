"""The CUDA C++ kernels, run on the CPU under several schedules, give what their ops define."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cuda_cpu import SCHEDULES, Case, judged, kernel_by_id, need_compiler, run
from gpu_extra import need
from odd_weights import odd_weights, truth_for

need("cupy")
need_compiler()

from kernelwright.kernels.accuracy import Verdict  # noqa: E402
from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402


def _small(sample: Sample) -> bool:
    """Not the longest sums: at a barrier, a fiber costs more here than a thread does on a GPU."""
    return max(max(array.shape, default=0) for array in sample.inputs if array is not None) <= 400


def _ends(sample: Sample) -> bool:
    """One sample with each epilogue, and those with odd strides: the products themselves are those of
    matmul."""
    words = ("bias", "residual", "everywhere", "turned", "repeated", "vector", "k = 0", "nothing")
    return any(word in sample.name for word in words)


def _everything(sample: Sample) -> bool:
    return True


Wanted = Callable[[Sample], bool]
RUNS: list[tuple[str, str, Wanted]] = [
    ("matmul/cuda_cupy/simt", "float32", _small),
    ("matmul/cuda_cupy/simt", "float64", lambda sample: _small(sample) and "repeated" in sample.name),
    ("matmul/cuda_cupy/tensor_cores", "bfloat16", _small),
    ("matmul/cuda_cupy/tensor_cores", "float16", lambda sample: "transposed" in sample.name),
    ("linear/cuda_cupy/simt", "float32", _ends),
    ("linear/cuda_cupy/tensor_cores", "bfloat16", _ends),
    ("conv/cuda_cupy/depthwise_channels", "float32", _everything),
    ("conv/cuda_cupy/depthwise_channels", "bfloat16", _everything),
    ("conv/cuda_cupy/depthwise_planes", "float32", _everything),
    ("conv/cuda_cupy/direct", "float32", _everything),
    ("conv/cuda_cupy/direct", "bfloat16", _everything),
]


def cases_of(name: str, dtype: str, wanted: Wanted) -> Iterator[Case]:
    """The samples that the kernel takes, its configurations in turn, some of them at unaligned addresses."""
    kernel, rng = kernel_by_id(name), np.random.default_rng(0)
    op, made = get_op(kernel.op), 0
    for sample in op.samples(rng, dtype):
        attrs = op.complete(sample.attrs)
        if untakeable(sample) or not wanted(sample):
            continue
        specs = cuda_specs(kernel, sample)
        if not specs[-1].size or kernel.why_not(specs, attrs) is not None:
            continue
        configs = kernel.configurations(specs, attrs, 1)
        yield Case.of(kernel, sample, configs[made % len(configs)], shifted=made % 4 == 3)
        made += 1


@pytest.mark.parametrize(
    ("name", "dtype", "wanted"), RUNS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_samples(name: str, dtype: str, wanted: Wanted) -> None:
    cases = list(cases_of(name, dtype, wanted))
    assert len(cases) >= 3
    wrong = [
        f"{case}: {verdict.text}"
        for case, verdict in zip(cases, judged(cases), strict=True)
        if not verdict.ok
    ]
    assert not wrong, "\n".join(wrong)


def _normal(dtype: str, *shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np_dtype(dtype))


def products_far_apart() -> Iterator[Case]:
    """Rows of A, columns of B and rows of C so far apart that no 32-bit offset reaches the last ones."""
    for kernel, dtype, tile in (("simt", "float32", (32, 64)), ("tensor_cores", "bfloat16", (64, 64))):
        size = np_dtype(dtype).itemsize
        far = (2**31 + 64) * size
        sample = Sample("far apart", (_normal(dtype, 5, 24), _normal(dtype, 24, 4)))
        config = {"bm": tile[0], "bn": tile[1]}
        layouts = {0: (far, size), 1: (size, far), 2: (far, size)}
        yield Case.of(f"matmul/cuda_cupy/{kernel}", sample, config, layouts=layouts)


def images_far_apart() -> Iterator[Case]:
    """Rows of the images so far apart that no 32-bit offset reaches the last ones, nor the second image."""
    far = 4 * (2**31 // 3)
    for kernel, layout, channels, out, groups in (
        ("depthwise_channels", "NHWC", 4, 4, 4),
        ("depthwise_planes", "NCHW", 4, 4, 4),
        ("direct", "NHWC", 3, 8, 1),
        ("direct", "NCHW", 3, 8, 1),
    ):
        x = _normal("float32", 2, *((channels, 5, 6) if layout == "NCHW" else (5, 6, channels)))
        w = _normal("float32", out, channels // groups, 3, 3)
        attrs = {"padding": ((1, 1), (1, 1)), "groups": groups, "layout": layout}
        layouts = {
            place: (6 * far, far, 4 * count, 4) if layout == "NHWC" else (6 * far, 64, far, 4)
            for place, count in ((0, channels), (4, out))
        }
        sample = Sample(f"far apart, {layout}", (x, w, None, None), attrs)
        yield Case.of(f"conv/cuda_cupy/{kernel}", sample, layouts=layouts)


def results_of_any_layout() -> Iterator[Case]:
    """C turned, with gaps between all elements, and with gaps between rows."""
    for kernel, dtype in (("simt", "float32"), ("tensor_cores", "bfloat16")):
        size = np_dtype(dtype).itemsize
        for strides in ((1, 40), (120, 2), (52, 1)):
            out = TensorSpec((40, 50), dtype, "cpu", (strides[0] * size, strides[1] * size))
            sample = Sample(f"steps {strides}", (_normal(dtype, 40, 30), _normal(dtype, 30, 50)))
            yield Case.of(f"matmul/cuda_cupy/{kernel}", sample, {"bm": 64, "bn": 64}, outputs=[out])
            # With a bias for each row of what is computed where the result lies column by column.
            inputs = (
                _normal(dtype, 40, 30),
                _normal(dtype, 50, 30),
                _normal(dtype, 50),
                _normal(dtype, 40, 50),
            )
            sample = Sample(f"linear, steps {strides}", inputs, {"activation": "silu"})
            yield Case.of(f"linear/cuda_cupy/{kernel}", sample, {"bm": 64, "bn": 64}, outputs=[out])


def blocks_with_many_tiles() -> Iterator[Case]:
    """Grids so small that a block goes from tile to tile."""
    a, b = _normal("float32", 70, 20), _normal("float32", 20, 140)
    yield Case.of("matmul/cuda_cupy/simt", Sample("2 blocks", (a, b)), {"bm": 32, "bn": 64}, grid=2)
    narrow = Sample("2 blocks", (a.astype(np_dtype("bfloat16")), b.astype(np_dtype("bfloat16"))))
    yield Case.of("matmul/cuda_cupy/tensor_cores", narrow, {"bm": 64, "bn": 64}, grid=2)
    for kernel, channels, out, groups in (
        ("depthwise_channels", 6, 6, 6),
        ("depthwise_planes", 6, 6, 6),
        ("direct", 3, 40, 1),
    ):
        x, w = _normal("float32", 2, 33, 35, channels), _normal("float32", out, channels // groups, 3, 3)
        sample = Sample("1 block", (x, w, None, None), {"groups": groups, "layout": "NHWC"})
        yield Case.of(f"conv/cuda_cupy/{kernel}", sample, grid=1)


SPECIAL = (products_far_apart, images_far_apart, results_of_any_layout, blocks_with_many_tiles)


@pytest.fixture(scope="module")
def special() -> dict[str, list[tuple[Case, Verdict]]]:
    """The verdicts on all of them, by one program."""
    made = {cases.__name__: list(cases()) for cases in SPECIAL}
    verdicts = iter(judged([case for cases in made.values() for case in cases]))
    return {name: [(case, next(verdicts)) for case in cases] for name, cases in made.items()}


@pytest.mark.parametrize("name", [cases.__name__ for cases in SPECIAL])
def test_special_memory(special: dict[str, list[tuple[Case, Verdict]]], name: str) -> None:
    wrong = [f"{case}: {verdict.text}" for case, verdict in special[name] if not verdict.ok]
    assert not wrong, "\n".join(wrong)


def test_weights_that_are_no_numbers_spoil_nothing_but_what_reaches_over_the_border() -> None:
    """Padding is zeros here, which they turn into NaN; inside, and in other channels, all is right."""
    cases = [
        Case.of(f"conv/cuda_cupy/{kernel}", sample)
        for kernel, dtype, layout, sizes in (
            ("depthwise_channels", "float32", "NHWC", (8, 8, 8)),
            ("depthwise_channels", "bfloat16", "NHWC", (8, 8, 8)),
            ("depthwise_planes", "float32", "NCHW", (6, 6, 6)),
            ("direct", "float32", "NHWC", (3, 8)),
            ("direct", "float16", "NCHW", (3, 8)),
        )
        for sample in odd_weights(layout, dtype, *sizes)
    ]
    wrong = []
    for case, runs in zip(cases, run([case.job() for case in cases]), strict=True):
        assert len(runs) == len(SCHEDULES)
        assert case.places[-1] is not None
        result = case.places[-1].array(runs[0][-1])
        assert np.isfinite(result.astype(np.float64)).any()
        verdict = case.judged(runs, truth_for(case.sample, result))
        if not verdict.ok:
            wrong.append(f"{case}: {verdict.text}")
    assert not wrong, "\n".join(wrong)
