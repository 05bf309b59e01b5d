"""Random programs over random layouts on the GPU, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from gpu_extra import need
from hypothesis import given, settings
from hypothesis import strategies as st

need("triton", "torch")

from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.op import Sample  # noqa: E402
from kernelwright.kernels.pointwise import samples  # noqa: E402
from kernelwright.kernels.pointwise.instructions import TABLE  # noqa: E402
from kernelwright.kernels.pointwise.program import Program, Value, Writer  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

pytestmark = interpreted

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


def right(sample: Sample, backwards: bool) -> None:
    verdict = check(f"fused{len(sample.inputs)}/register/program", sample, backwards=backwards)
    assert verdict.ok, f"{sample!r}: {verdict.text}"


@settings(max_examples=60)
@given(calls(), st.booleans())
def test_random_pointwise_programs(sample: Sample, backwards: bool) -> None:
    right(sample, backwards)


@settings(max_examples=60)
@given(calls(reduces=True), st.booleans())
def test_random_row_programs(sample: Sample, backwards: bool) -> None:
    right(sample, backwards)
