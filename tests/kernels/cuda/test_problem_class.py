"""Times on a GPU are kept by class of call and by source: what shares a key, and what does not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kernelwright.kernels import tuning
from kernelwright.kernels.cuda import device, provenance
from kernelwright.kernels.cuda.problem_class import config_class, length_class, problem_class
from kernelwright.kernels.op import get_op
from kernelwright.kernels.spec import ABSENT, TensorSpec

KERNELS = Path(provenance.__file__).parents[1]


def _spec(*shape: int, dtype: str = "bfloat16", at: str = "cuda", layout: Any = None) -> TensorSpec:
    return TensorSpec(shape, dtype, at, layout)


def _matmul(a: TensorSpec, b: TensorSpec, chip: int = 90) -> str:
    op = get_op("matmul")
    with device.assume(chip):
        return problem_class(op, (a, b, *op.infer((a, b))), {})


@pytest.mark.parametrize(
    ("length", "found"),
    [
        *((0, "0"), (1, "1"), (16, "16"), (17, "20/1"), (20, "20/4"), (32, "32/16"), (33, "40/1")),
        *((3584, "3584/16"), (3600, "4096/16"), (4000, "4096/16"), (4096, "4096/16"), (4090, "4096/2")),
    ],
)
def test_a_length_above_16_counts_by_its_quarter_octave_and_what_divides_it(length: int, found: str) -> None:
    assert length_class(length) == found


def test_lengths_of_one_class_differ_by_less_than_a_quarter() -> None:
    lengths: dict[str, list[int]] = {}
    for n in range(17, 5000):
        lengths.setdefault(length_class(n).partition("/")[0], []).append(n)
    assert all(max(ns) < 1.25 * min(ns) for ns in lengths.values())


def test_a_batch_that_varies_shares_a_key() -> None:
    weight = _spec(4096, 4096)
    keys = {_matmul(_spec(m, 4096), weight) for m in range(912, 1025, 16)}
    assert keys == {
        "matmul(bf16[1024/16,4096/16]@cuda, bf16[4096/16,4096/16]@cuda, bf16[1024/16,4096/16]@cuda) "
        "on NVIDIA H200 (sm_90)"
    }


@pytest.mark.parametrize(
    ("a", "b", "chip"),
    [
        (_spec(1024, 4090), _spec(4090, 4096), 90),  # no 16 bytes at a time
        (_spec(2048, 4096), _spec(4096, 4096), 90),
        (_spec(1024, 4096, dtype="float16"), _spec(4096, 4096, dtype="float16"), 90),
        (_spec(1024, 4096, layout=(2, 2048)), _spec(4096, 4096), 90),
        (_spec(1024, 4096, layout=(0, 2)), _spec(4096, 4096), 90),
        (_spec(1024, 4096, layout=(2 * 4098, 2)), _spec(4096, 4096), 90),
        (_spec(1024, 4096), _spec(4096, 4096), 80),
    ],
)
def test_what_runs_other_code_or_takes_another_time_has_another_key(
    a: TensorSpec, b: TensorSpec, chip: int
) -> None:
    assert _matmul(a, b, chip) != _matmul(_spec(1024, 4096), _spec(4096, 4096))


def test_strides_count_by_their_order_and_not_by_how_long_they_are() -> None:
    b = _spec(4096, 4096)
    padded = [_matmul(_spec(1024, 4096, layout=(2 * step, 2)), b) for step in (4112, 8192)]
    assert padded[0] == padded[1] != _matmul(_spec(1024, 4096), b)


def test_which_of_several_gpus_makes_no_difference() -> None:
    here, there = (_matmul(_spec(32, 32, at=at), _spec(32, 32, at=at)) for at in ("cuda", "cuda:1"))
    assert here == there


def test_filters_count_exactly_and_images_by_class() -> None:
    op = get_op("conv_input_grad")

    def key(size: int, taps: int) -> str:
        pad = taps // 2
        attrs = {"input_size": (size,) * 2, "layout": "NHWC", "padding": ((pad, pad),) * 2}
        attrs = op.complete(attrs)
        specs: Sequence[TensorSpec] = (_spec(8, size, size, 64), _spec(64, 64, taps, taps), ABSENT)
        with device.assume(90):
            return problem_class(op, (*specs, *op.infer(specs, **attrs)), attrs)

    assert key(57, 3) == key(63, 3) != key(57, 5)
    assert '"64/1"' in key(57, 3)


def test_what_follows_from_the_lengths_is_no_part_of_what_a_time_is_found_by() -> None:
    assert config_class({"bm": 64, "splits": 3, "parts": 2}) == {"bm": 64}


def test_on_the_cpu_the_key_is_the_very_call() -> None:
    spec = TensorSpec((1000, 1000), "float32")
    assert tuning.key_of(get_op("matmul"), (spec, spec, spec), {}).startswith("matmul(f32[1000,1000]@cpu")


def test_the_files_behind_a_kernel_are_those_that_its_code_is_in() -> None:
    behind = {
        str(file.relative_to(KERNELS)) for file in provenance.files_of(KERNELS / "matmul/cuda_triton.py")
    }
    assert {"matmul/cuda/tile_kernels.py", "matmul/cuda/plans.py", "cuda/triton_activations.py"} <= behind
    assert not behind & {"cuda/ranking.py", "cuda/device.py", "cuda/launch.py", "conv/cuda/implicit.py"}
    assert {"conv/cuda/depthwise.cu", "cuda/device.cuh"} <= _behind("conv/cuda_cupy.py")


def _behind(name: str) -> set[str]:
    return {str(file.relative_to(KERNELS)) for file in provenance.files_of(KERNELS / name)}


def test_a_change_of_the_code_makes_times_old_and_a_comment_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("matmul", "cuda"):
        shutil.copytree(KERNELS / room, tmp_path / room)
    monkeypatch.setattr(provenance, "_KERNELS", tmp_path)
    monkeypatch.setattr(provenance, "_SHARED", tmp_path / "cuda")

    def digests() -> list[str]:
        provenance.digest.cache_clear()
        return [provenance.digest(tmp_path / "matmul" / name) for name in ("cuda_triton.py", "cuda_cupy.py")]

    first = digests()
    for name, mark in (("tile_kernels.py", "#"), ("simt.cu", "//")):
        path = tmp_path / "matmul/cuda" / name
        path.write_text(path.read_text() + f"\n{mark} a word\n")
    assert digests() == first
    path = tmp_path / "matmul/cuda/tile_kernels.py"
    path.write_text(path.read_text() + "\nMORE = 1\n")
    second = digests()
    assert second[0] != first[0]
    assert second[1] == first[1]
    path = tmp_path / "matmul/cuda/simt.cu"
    path.write_text(path.read_text() + "\nstruct More {};\n")
    assert digests()[1] != first[1]
    provenance.digest.cache_clear()
