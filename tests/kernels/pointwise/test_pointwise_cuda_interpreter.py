"""The generated kernels of pointwise ops, in Triton's interpreter."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need
from hypothesis import given, settings
from hypothesis import strategies as st

need("triton", "torch")

import torch  # noqa: E402
from triton_interpreter import Guard, InterpreterRuntime, check, interpreted  # noqa: E402

from kernelwright.kernels.cuda import device, launch  # noqa: E402
from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.pointwise import samples  # noqa: E402
from kernelwright.kernels.pointwise.cuda import flat, source  # noqa: E402
from kernelwright.kernels.pointwise.instructions import DTYPES, POINTWISE, TABLE  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Value, Writer  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

pytestmark = interpreted

# How axes are walked depends on neither the instruction nor the dtype: some show it for all.
WALKED = ("add", "where", "clip", "cast", "exp")
EVERYWHERE = ("133", "special numbers", "limits to int8", "limits to uint32")


def right(op: str, sample: Sample, **how: Any) -> None:
    (kernel,) = [k for k in kernels_for(op, "cuda") if k.language == "triton"]
    verdict = check(kernel, sample, **how)
    assert verdict.ok, f"{op} on {sample!r}: {verdict.text}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_survives_its_samples(dtype: str) -> None:
    proven = 0
    for name in POINTWISE:
        if dtype in get_op(name).dtypes:
            for sample in get_op(name).samples(np.random.default_rng(3), dtype):
                walked = name in WALKED and dtype in ("float32", "bool")
                if not walked and sample.name not in EVERYWHERE and not sample.name.startswith("to "):
                    continue
                if not untakeable(sample) and all(x.size for x in sample.inputs):
                    right(name, sample)
                    proven += 1
    assert proven > 40


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np_dtype(dtype))


def test_every_form_of_a_sum() -> None:
    """Broadcasts, gaps and turned operands of lengths that fill tiles and that do not."""
    x = numbers(3, 20, 130)
    cases = {
        "rows": (x, numbers(130)),
        "columns": (x, numbers(3, 20, 1)),
        "a number": (x, numbers()),
        "both": (numbers(70, 1), numbers(1, 130)),
        "planes": (x, numbers(3, 1, 130)),
        "short rows": (numbers(300, 3), numbers(3)),
        "many short axes": (numbers(3, 4, 5, 6, 7), numbers(3, 1, 5, 1, 7)),
        "turned": (numbers(96, 128), numbers(128, 96).T),
        "turned, ragged": (numbers(70, 33), numbers(33, 70).T),
        "turned both": (numbers(128, 96).T, numbers(128, 96, seed=1).T),
        "turned planes": (x, numbers(3, 130, 20).transpose(0, 2, 1)),
        "rows turned": (numbers(40, 50, 24), numbers(24, 40, 50).transpose(1, 2, 0)),
        "gaps": (numbers(60, 200)[:, :100], numbers(60, 300)[:, ::3]),
        "windows": (numbers(40, 32), np.lib.stride_tricks.sliding_window_view(numbers(71), 32)),
        "one row": (numbers(1, 2000), numbers(2000)),
    }
    for dtype in ("float32", "bfloat16"):
        for name, inputs in cases.items():
            given = inputs if dtype == "float32" else tuple(x.astype(np_dtype(dtype)) for x in inputs)
            right("add", Sample(name, given), backwards=dtype == "bfloat16")


def test_every_configuration_gives_the_same() -> None:
    (kernel,) = kernels_for("add", "cuda")
    for inputs in ((numbers(70, 33), numbers(70, 33)), (numbers(70, 33), numbers(33, 70).T)):
        specs = tuple(TensorSpec.of(x) for x in (*inputs, inputs[0]))
        configs = kernel.configurations(specs, {}, 1)
        assert len({tuple(config.values()) for config in configs}) == 7
        for config in configs:
            right("add", Sample("configured", inputs), config=config)


def test_outputs_in_other_layouts() -> None:
    x, y = numbers(24, 40), numbers(24, 40, seed=1)
    for layout in ((4, 96), (160 * 2, 8), (4 * 48, 4)):
        right("sub", Sample("out", (x, y)), outputs=[TensorSpec((24, 40), "float32", "cuda", layout)])
    for shape in ((4, 6, 10, 8), (4, 6, 10, 7)):
        nhwc = numbers(shape[0], *shape[2:], shape[1]).transpose(0, 3, 1, 2)
        _, c, h, w = shape
        layout = (4 * c * h * w, 4, 4 * c * w, 4 * c)
        out = TensorSpec(shape, "float32", "cuda", layout)
        right("exp", Sample("channels last", (nhwc,)), outputs=[out])
        right("add", Sample("channels last, bias", (nhwc, numbers(c, 1, 1))), outputs=[out])
        right("add", Sample("mixed", (nhwc, numbers(*shape))), outputs=[out])


def test_equal_programs_have_equal_sources() -> None:
    (kernel,) = kernels_for("gelu", "cuda")
    spec = TensorSpec((1000,), "float32", "cuda")
    with device.assume(90):
        first, second = (kernel.bind((spec, spec), {}, {}, 1).steps[0].fn for _ in range(2))
    assert first is second
    assert first.__name__.startswith("flat_gelu_")
    file = f"<kernelwright {first.__name__}>"
    assert f"def {first.__name__}(" in "".join(linecache.getlines(file))
    assert source.compiled.cache_info().currsize >= 1
    assert flat.function.cache_info().currsize >= 1


def test_only_what_ends_in_16_bits_is_computed_roughly() -> None:
    w = Writer()
    x, y = w.input("bfloat16"), w.input("float32")
    wide = w.cast(x, "float32")
    root, quotient, exact = w.sqrt(wide), wide / y, w.exp(y)
    w.output(w.cast(root + quotient, "bfloat16"), exact, w.less(w.sqrt(y), y))
    program = w.program()
    rough = {program.instructions[n - 2][0] for n in source.roughly(program)}
    assert rough == {"cast", "sqrt", "div", "add"}
    names = {0: "v0", 1: "v1"}
    text = "\n".join(source.instructions(program, names))
    assert text.count("tl.sqrt(") == 1
    assert text.count("root(") == 1
    assert "exact_quotient" not in text
    assert "tl.exp(" not in text


def test_a_kernel_without_its_mask_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    text_of = flat.text_of
    monkeypatch.setattr(flat, "text_of", lambda form: text_of(form).replace("at < count", "at < count + 1"))
    flat.function.cache_clear()
    with pytest.raises(Exception, match="OutOfBounds"):
        right("exp", Sample("1", (numbers(133),)))
    flat.function.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "int64"])
@pytest.mark.parametrize("op", ["reshape", "transpose", "broadcast_to", "slice"])
def test_views_are_copied(op: str, dtype: str) -> None:
    proven = 0
    for sample in get_op(op).samples(np.random.default_rng(3), dtype):
        specs = tuple(TensorSpec.of(x) for x in sample.inputs)
        (out,) = get_op(op).infer(specs, **get_op(op).complete(sample.attrs))
        if out.size and not untakeable(sample):
            verdict = check(f"{op}/cuda_triton/copy", sample)
            assert verdict.ok, f"{sample!r}: {verdict.text}"
            proven += 1
    assert proven


def test_no_bit_of_a_copy_changes() -> None:
    """Also of numbers that are NaN."""
    bits = np.arange(0, 1 << 16, 7, dtype=np.uint16).reshape(-1, 3)
    op, (kernel,) = get_op("transpose"), kernels_for("transpose", "cuda")
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.from_numpy(bits.view(np.int16).copy()).view(dtype)
        spec = TensorSpec(tuple(x.shape), str(dtype).removeprefix("torch."), "cuda")
        attrs = op.complete({"axes": (1, 0)})
        with device.assume(90):
            (out,) = op.infer((spec,), **attrs)
            out = TensorSpec(out.shape, out.dtype, "cuda")
            made = kernel.bind((spec, out), attrs, {}, 1)
        result = torch.zeros(out.shape, dtype=dtype)
        before = launch.set_runtime(InterpreterRuntime(Guard([x, result], 1), True))
        try:
            made(x, result)
        finally:
            launch.set_runtime(before)
        assert torch.equal(result.view(torch.int16), x.view(torch.int16).T)


# --- random programs ----------------------------------------------------------------------------------------

# Of one value of any size near 1, what stays so: errors are judged by the slopes of the whole.
FLOATS = ("add", "sub", "mul", "fma", "neg", "abs", "maximum", "minimum", "sigmoid", "tanh", "erf", "relu")
WHOLES = ("add", "sub", "mul", "maximum", "minimum", "neg", "square", "floor_divide", "remainder")
REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min")


@st.composite
def programs(draw: Any, reduces: bool) -> Program:
    """A few instructions over one to four inputs; the last values are outputs."""
    dtype = draw(st.sampled_from(("float32", "bfloat16", "float64", "int32", "int8", "uint16")))
    w = Writer()
    values: list[Value] = [w.input(dtype) for _ in range(draw(st.integers(1, 4)))]
    names = list(FLOATS if np_dtype(dtype).kind in "fV" else WHOLES)
    if np_dtype(dtype).kind == "u":
        names.remove("neg")
    if reduces:
        names += [n for n in REDUCTIONS if dtype in TABLE[n].dtypes]
        made = w.write(draw(st.sampled_from(names[-2:])), values[0])
        values.append(w.write("sub", values[0], made))
    for _ in range(draw(st.integers(1, 8))):
        name = draw(st.sampled_from(names))
        operands = [draw(st.sampled_from(values)) for _ in TABLE[name].operands]
        values.append(w.write(name, *operands))
        if draw(st.booleans()):
            values.append(w.where(w.less(values[-1], draw(st.sampled_from(values))), values[-1], operands[0]))
    w.output(values[-1], *values[-1 - draw(st.integers(0, 1)) : -1])
    return w.program()


@st.composite
def calls(draw: Any, reduces: bool = False) -> Sample:
    """A program and inputs that broadcast to one shape, turned and with gaps."""
    program = draw(programs(reduces))
    rank = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(1, (200, 40, 12, 7)[rank - 1])) for _ in range(rank))
    axes = draw(st.sets(st.integers(0, rank - 1), min_size=1)) if reduces else ()
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    inputs = []
    for place, dtype in enumerate(program.inputs):
        own = shape if place == 0 else tuple(draw(st.sampled_from((n, n, 1))) for n in shape)
        order = draw(st.permutations(range(rank)))
        whole = samples.drawn(TABLE["mul"], rng, tuple(own[i] for i in order), dtype, 0)
        array = whole.transpose(np.argsort(order))
        if draw(st.booleans()) and own[-1] > 1 and place:
            array = np.repeat(array, 2, axis=-1)[..., ::2]
        inputs.append(array)
    attrs: dict[str, Any] = {"program": program}
    if program.by_rows:
        attrs |= {"shape": shape, "axes": tuple(sorted(axes))}
    return Sample("random", tuple(inputs), attrs)


@settings(max_examples=30)
@given(calls(), st.booleans())
def test_random_pointwise_programs(sample: Sample, backwards: bool) -> None:
    right(f"fused{len(sample.inputs)}", sample, backwards=backwards)


@settings(max_examples=30)
@given(calls(reduces=True), st.booleans())
def test_random_row_programs(sample: Sample, backwards: bool) -> None:
    right(f"fused{len(sample.inputs)}", sample, backwards=backwards)
