"""The Triton kernels of matmul, linear and scaled_matmul, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from triton_interpreter import Guard, InterpreterRuntime, check, interpreted  # noqa: E402

from kernelwright.kernels import accuracy  # noqa: E402
from kernelwright.kernels.cuda import device, launch  # noqa: E402
from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.errors import NoKernelError  # noqa: E402
from kernelwright.kernels.matmul.cuda import launch as matmul_launch  # noqa: E402
from kernelwright.kernels.matmul.cuda import plans  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

pytestmark = interpreted

BF16 = np_dtype("bfloat16")
TILE = {"bm": 32, "bn": 32, "bk": 32, "warps": 4, "stages": 2, "splits": 1, "turned": False}
ROWS = {"bn": 16, "bk": 32, "warps": 4, "splits": 1}


def normal(*shape: int, dtype: Any = BF16, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def window(rows: int, columns: int, dtype: Any = BF16, seed: int = 0) -> Any:
    """A matrix of any lengths whose rows start 16 bytes apart, as the copy engine needs them."""
    return normal(rows, -(-columns // 16) * 16, dtype=dtype, seed=seed)[:, :columns]


def turned(rows: int, columns: int, dtype: Any = BF16, seed: int = 0) -> Any:
    return window(columns, rows, dtype, seed).T


def right(kernel: str, sample: Sample, config: dict[str, Any] | None = None, **how: Any) -> None:
    verdict = check(kernel, sample, config, ordered=True, **how)
    assert verdict.ok, f"{kernel} on {sample!r}: {verdict.text}"


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        *(("matmul", dtype) for dtype in ("bfloat16", "float32")),
        *(("linear", dtype) for dtype in ("float16", "float32")),
        ("scaled_matmul", "float8_e4m3fn"),
    ],
)
def test_each_kernel_survives_the_samples_of_its_op(op: str, dtype: str) -> None:
    kernels = [k for k in kernels_for(op, "cuda") if k.language == "triton" and k.name != "tf32_pointers"]
    judged = dict.fromkeys((k.name for k in kernels if dtype in k.dtypes), 0)
    for sample in get_op(op).samples(np.random.default_rng(3), dtype):
        specs = tuple(TensorSpec.of(x) for x in sample.inputs)
        outputs = get_op(op).infer(specs, **get_op(op).complete(sample.attrs))
        if untakeable(sample) or not outputs[0].size:
            continue
        taken = 0
        for kernel in kernels:
            try:
                right(kernel.id, sample)
            except NoKernelError:
                continue
            judged[kernel.name] += 1
            taken += 1
        assert taken or sample.attrs.get("w_format"), f"no kernel takes {sample!r}"
    assert all(judged.values()), judged


FORMS = {"k": window, "m": turned}


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("kernel", ["descriptors", "pointers"])
def test_tiles_of_every_form(kernel: str, turn: bool, splits: int) -> None:
    config = {**TILE, "turned": turn, "splits": splits}
    for of_a in FORMS.values():
        for of_b in FORMS.values():
            sample = Sample("forms", (of_a(37, 75, seed=1), of_b(75, 43, seed=2)))
            right(f"matmul/cuda_triton/{kernel}", sample, config, backwards=splits > 1)


@pytest.mark.parametrize("kernel", ["descriptors", "pointers"])
def test_batches_repeated_and_strided(kernel: str) -> None:
    for a, b in (
        (normal(3, 20, 40), normal(3, 40, 24)),
        (normal(3, 20, 40), np.broadcast_to(normal(40, 24), (3, 40, 24))),
        (normal(20, 40), normal(3, 40, 24)),
        (normal(3, 20, 40), normal(40, 24)),
        (normal(3, 24, 40).swapaxes(1, 2), normal(3, 24, 40)),
        (normal(20, 3, 40).swapaxes(0, 1), normal(3, 40, 24)),
    ):
        for splits in (1, 2):
            right(f"matmul/cuda_triton/{kernel}", Sample("batch", (a, b)), {**TILE, "splits": splits})


def test_batches_with_more_axes_than_a_launch_walks() -> None:
    a = normal(2, 1, 3, 1, 5, 16)
    b = normal(1, 2, 3, 2, 16, 8)
    right("matmul/cuda_triton/pointers", Sample("four axes", (a, b)), TILE)
    right("matmul/cuda_triton/rows", Sample("four axes", (a[..., :1, :], b)), ROWS)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu"])
def test_the_end_of_a_tile(activation: str | None) -> None:
    x, w, b, r = window(21, 48), window(40, 48, seed=1), normal(40, seed=2), window(21, 40, seed=3)
    for inputs in ((x, w, b, r), (x, w, None, r.copy(order="F")), (x, w, b[::2].repeat(2)[:40], None)):
        sample = Sample("end", inputs, {"activation": activation})
        for kernel in ("descriptors", "pointers"):
            right(f"linear/cuda_triton/{kernel}", sample, {**TILE, "splits": 2, "turned": True})
        right("linear/cuda_triton/descriptors", sample, TILE)


def test_wide_tiles_are_ended_by_halves() -> None:
    x, w, b, r = window(130, 32), window(140, 32, seed=1), normal(140, seed=2), window(130, 140, seed=3)
    config = {**TILE, "bm": 128, "bn": 128}
    for kernel in ("descriptors", "pointers"):
        right(f"linear/cuda_triton/{kernel}", Sample("halves", (x, w, b, r), {"activation": "silu"}), config)


@pytest.mark.parametrize("layout", ["columns", "padded"])
def test_results_of_other_layouts(layout: str) -> None:
    spec = TensorSpec((37, 43), "bfloat16", "cuda", (2, 74) if layout == "columns" else (96, 2))
    sample = Sample("out", (window(37, 40), window(40, 43, seed=1)))
    for kernel in ("descriptors", "pointers"):
        right(f"matmul/cuda_triton/{kernel}", sample, TILE, outputs=(spec,))
    right("matmul/cuda_triton/rows", Sample("out", (window(3, 40), window(40, 43))), ROWS)


@pytest.mark.parametrize("splits", [1, 3])
def test_few_rows_of_every_form(splits: int) -> None:
    for m in (1, 2, 3, 4):
        for of_b in (window, turned):
            sample = Sample("rows", (window(m, 150, seed=m), of_b(150, 37, seed=9)))
            right("matmul/cuda_triton/rows", sample, {**ROWS, "splits": splits}, backwards=splits > 1)
            other = Sample("columns", (of_b(37, 150, seed=9), turned(150, m, seed=m)))
            right("matmul/cuda_triton/rows", other, {**ROWS, "splits": splits})


@pytest.fixture
def few_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chip of two multiprocessors, so that each program computes many tiles."""
    small = replace(device.chip(90), multiprocessors=2)
    monkeypatch.setattr(matmul_launch, "facts", lambda name: small)


@pytest.mark.usefixtures("few_multiprocessors")
def test_a_program_goes_on_with_its_next_tile() -> None:
    # 95 tiles of 32 x 32, in whole groups of eight rows and in less than one, over at most 64 programs.
    sample = Sample("many tiles", (window(19 * 32 - 5, 40), window(40, 160, seed=1)))
    right("matmul/cuda_triton/descriptors", sample, TILE)


def test_addresses_that_are_no_multiples_of_16_bytes() -> None:
    strided = np.lib.stride_tricks.as_strided
    a = strided(normal(40 * 80 + 1)[1:], (37, 64), (160, 2))
    b = strided(normal(64 * 48 + 1, seed=1)[1:], (64, 41), (96, 2))
    right("matmul/cuda_triton/descriptors", Sample("odd", (a, b)), TILE)
    right("matmul/cuda_triton/pointers", Sample("odd", (a, b)), TILE)


def _result_of(kernel: str, sample: Sample, config: dict[str, Any], backwards: bool) -> Any:
    """The very bits that a kernel computes."""
    kept = []
    judge = accuracy.Truth.judge

    def keeping(self: Any, results: Any, *rest: Any) -> Any:
        kept.append(results[0].copy())
        return judge(self, results, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy.Truth, "judge", keeping)
        right(kernel, sample, config, backwards=backwards)
    return kept[0]


@pytest.mark.parametrize("kernel", ["descriptors", "pointers", "rows"])
def test_the_order_of_arrival_changes_no_bit(kernel: str) -> None:
    sample = Sample("long", (window(3, 800, seed=5), window(800, 40, seed=6)))
    config = {**(ROWS if kernel == "rows" else TILE), "splits": 5}
    one, other = (_result_of(f"matmul/cuda_triton/{kernel}", sample, config, back) for back in (False, True))
    assert np.array_equal(one.view(np.uint16), other.view(np.uint16))


# --- what must be found -------------------------------------------------------------------------------------


def test_a_loop_that_reads_past_the_end_of_k_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plans._plan

    def careless(*args: Any) -> Any:
        made = plan(*args)
        return replace(made, constants={**made.constants, "WHOLE_K": True})

    monkeypatch.setattr(plans, "_plan", careless)
    sample = Sample("ragged", (normal(33, 50), normal(50, 40)))
    with pytest.raises(Exception, match=r"OutOfBoundsError|outside") as caught:
        right("matmul/cuda_triton/pointers", sample, TILE)
    assert caught.type is not NoKernelError


@pytest.mark.parametrize(
    ("name", "change"), [("steps_of_part", -1), ("splits", -1), ("a_ks", 1), ("c_ms", 8)]
)
def test_a_wrong_number_is_found(name: str, change: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plans._plan

    def wrong(*args: Any) -> Any:
        made = plan(*args)
        constants = {**made.constants, **({"A_FORM": ""} if name == "a_ks" else {})}
        return replace(
            made, integers={**made.integers, name: made.integers[name] + change}, constants=constants
        )

    monkeypatch.setattr(plans, "_plan", wrong)
    sample = Sample("split", (normal(33, 96), normal(96, 40)))
    with pytest.raises(Exception, match=r"wrong|OutOfBoundsError|outside|lie") as caught:
        right("matmul/cuda_triton/pointers", sample, {**TILE, "splits": 3})
    assert caught.type is not NoKernelError


# --- past 2^31 ----------------------------------------------------------------------------------------------


def _far_apart(rows: int, columns: int, step: int, seed: int) -> tuple[Any, Any]:
    """A float16 tensor whose rows are `step` elements apart; memory is only touched where they lie."""
    import mmap
    import tempfile

    import torch

    length = 2 * ((rows - 1) * step + columns)
    with tempfile.TemporaryFile() as file:  # of which only the blocks that are written take room
        file.truncate(length)
        there = torch.frombuffer(mmap.mmap(file.fileno(), length), dtype=torch.float16)
    far = torch.as_strided(there, (rows, columns), (step, 1))
    near = torch.from_numpy(normal(rows, columns, dtype=np.float16, seed=seed))
    far.copy_(near)
    return far, near


@pytest.mark.parametrize("kernel", ["descriptors", "pointers", "rows"])
@pytest.mark.parametrize("turn", [False, True])
def test_steps_past_2_to_the_31(kernel: str, turn: bool) -> None:
    import torch

    step = 2**30 + 16  # the fourth row starts past 2^31 elements
    (far, near), other = _far_apart(4, 64, step, 7), normal(64, 8, dtype=np.float16, seed=8)
    b = torch.from_numpy(other)
    a, expected = (b.T, other.T.astype(np.float64) @ near.numpy().T) if turn else (far, near.numpy() @ other)
    b = far.T if turn else b
    out = torch.full(expected.shape, float("nan"), dtype=torch.float16)
    specs = tuple(
        TensorSpec(tuple(t.shape), "float16", "cuda", tuple(2 * s for s in t.stride())) for t in (a, b, out)
    )
    (found,) = [k for k in kernels_for("matmul", "cuda") if k.id == f"matmul/cuda_triton/{kernel}"]
    guard = Guard((a, b, out), 1, ordered=True)
    before = launch.set_runtime(InterpreterRuntime(guard, backwards=False))
    try:
        with device.assume(90):
            assert found.why_not(specs, {}) is None
            found.bind(specs, {}, ROWS if kernel == "rows" else TILE, 1)(a, b, out)
    finally:
        launch.set_runtime(before)
    assert np.allclose(out.numpy(), expected, rtol=1e-2, atol=1e-2)
