"""Updates of parameters, one by one and many in one launch, in Triton's interpreter."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

import torch  # noqa: E402
from triton_interpreter import Guard, InterpreterRuntime, check, interpreted  # noqa: E402

from kernelwright.kernels.cuda import device, launch  # noqa: E402
from kernelwright.kernels.cuda.check import numpy_of, untakeable  # noqa: E402
from kernelwright.kernels.cuda.launch import CudaLaunch, torch_dtype  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.optimizer.programs import program_of  # noqa: E402
from kernelwright.kernels.pointwise.cuda.many import many, many_problem  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Writer  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

pytestmark = interpreted

SIZES = (1, 0, 7, 1024, 3000, 16, 5, 2048, 129)


def on_gpu(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(shape, dtype, "cuda")


def run(made: CudaLaunch, tensors: list[Any], outputs: int, backwards: bool = False) -> None:
    runtime = InterpreterRuntime(Guard(tensors, outputs), backwards)
    before = launch.set_runtime(runtime)
    try:
        with np.errstate(all="ignore"):
            made(*tensors)
    finally:
        launch.set_runtime(before)


def filled(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=draw).add(0.5).to(torch_dtype(dtype))


def empty(*shape: int, dtype: str = "float32") -> Any:
    return torch.full(shape, float("nan")).to(torch_dtype(dtype))


def adam(dtype: str) -> tuple[Program, int]:
    op = get_op("adam")
    wide = on_gpu(dtype="float32")
    specs = (*[on_gpu(4, dtype=dtype)] * 4, ABSENT, wide, wide, ABSENT)
    attrs = op.complete({})
    complete = (*specs, *op.infer(specs, **attrs))
    return program_of("adam", complete, attrs), 4


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adam_over_ragged_parameters_is_that_of_each(dtype: str, backwards: bool) -> None:
    program, own = adam(dtype)
    scalars = [torch.tensor(0.002), torch.tensor(1.7)]
    groups, tensors, wanted = [], list(scalars), []
    for place, size in enumerate(SIZES):
        spec = on_gpu(size, dtype=dtype)
        groups.append((*[spec] * own, on_gpu(), on_gpu(), *[spec] * 3))
        given = [filled(size, dtype=dtype, seed=10 * place + i) for i in range(own)]
        arrays = [numpy_of(x).astype(np.float64) for x in (*given, *scalars)]
        wanted += program.run(*arrays, shape=(size,))
        tensors += [*given, *(empty(size, dtype=dtype) for _ in range(3))]
    with device.assume(90):
        assert many_problem(program, groups, (4, 5)) is None
        made = many(program, groups, (4, 5))
    run(made, tensors, len(tensors) - 2, backwards)
    found = [tensors[2 + 7 * place + 4 + i] for place in range(len(SIZES)) for i in range(3)]
    for result, exact in zip(found, wanted, strict=True):
        np.testing.assert_allclose(
            numpy_of(result).astype(np.float64), exact, rtol=1e-6 if dtype == "float32" else 1e-2
        )


def test_a_program_without_shared_inputs_over_mixed_dtypes_and_unaligned_tensors() -> None:
    w = Writer()
    x, y = w.input("uint8"), w.input("bool")
    w.output(w.where(y, x * 3, x), w.cast(x, "bfloat16"))
    program = w.program()
    groups, tensors = [], []
    for size in (5, 40):
        groups.append((on_gpu(size, dtype="uint8"), on_gpu(size, dtype="bool"),
                       on_gpu(size, dtype="uint8"), on_gpu(size, dtype="bfloat16")))  # fmt: skip
        given = torch.arange(size + 1, dtype=torch.uint8)[1:]  # at an odd address
        tensors += [given, given % 2 == 0, torch.zeros_like(given), empty(size, dtype="bfloat16")]
    with device.assume(90):
        made = many(program, groups)
    assert made.steps[0].args["ALIGNED"]
    assert not made.chosen((False,) * len(tensors))[0].args["ALIGNED"]
    run(made, tensors, len(tensors))
    for place in (0, 4):
        x, y, first, second = tensors[place : place + 4]
        assert torch.equal(first, torch.where(y, x * 3, x))
        assert torch.equal(second.float(), x.float())


@pytest.mark.parametrize(
    ("op", "dtype"),
    [("adam", "bfloat16"), *((op, "float32") for op in ("sgd", "adam", "rmsprop", "adagrad"))],
)
def test_single_updates_survive_their_samples(op: str, dtype: str) -> None:
    for sample in get_op(op).samples(np.random.default_rng(3), dtype):
        if not untakeable(sample) and all(x is None or x.size for x in sample.inputs):
            verdict = check(f"{op}/register/program", sample)
            assert verdict.ok, f"{sample!r}: {verdict.text}"


def test_arrays_dense_in_another_order_and_gaps() -> None:
    w = Writer()
    x, y = w.inputs("float32", "float32")
    w.output(x * y)
    spec = partial(TensorSpec, (8, 6), "float32", "cuda")
    turned = spec((4, 32))
    assert many_problem(w.program(), [(turned,) * 3, (on_gpu(3),) * 3]) is None
    assert "dense" in str(many_problem(w.program(), [(turned, spec(), spec())]))
    assert "dense" in str(many_problem(w.program(), [(spec((48, 4)),) * 3]))
    assert "first output" in str(many_problem(w.program(), [(on_gpu(1), on_gpu(3), on_gpu(3))]))
    assert "no number" in str(many_problem(w.program(), [(on_gpu(3),) * 3], (1,)))
    assert "a call of" in str(many_problem(w.program(), [(on_gpu(3, dtype="int32"),) * 3]))
    with device.assume(90):
        nothing = many(w.program(), [(on_gpu(0),) * 3])
    assert not nothing.steps
    nothing(*[empty(0)] * 3)


def test_a_table_of_the_wrong_lines_is_caught() -> None:
    program, _ = adam("float32")
    spec = on_gpu(100)
    with device.assume(90):
        made = many(program, [(*[spec] * 4, on_gpu(), on_gpu(), *[spec] * 3)], (4, 5))
    tensors = [torch.tensor(0.1), torch.tensor(1.0), *(filled(100, seed=i) for i in range(4))]
    tensors += [empty(99), empty(100), empty(100)]
    with pytest.raises(Exception, match="OutOfBounds"):
        run(made, tensors, 3)
