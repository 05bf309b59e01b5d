"""The generated kernels of pointwise ops, in Triton's interpreter."""

from __future__ import annotations

import linecache
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("triton", "torch")

from triton_interpreter import check, interpreted  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.cuda.check import untakeable  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.pointwise.cuda import flat, source  # noqa: E402
from kernelwright.kernels.pointwise.instructions import DTYPES, POINTWISE  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.spec import TensorSpec, np_dtype  # noqa: E402

pytestmark = interpreted

LAYOUTS = ("1", "3", "2 axes", "turned", "steps", "broadcast", "with a number", "one turned")


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
                # How axes are walked does not depend on the dtype: float32 shows that.
                if dtype not in ("float32", "int32") and sample.name in LAYOUTS:
                    continue
                if not untakeable(sample) and all(x.size for x in sample.inputs):
                    right(name, sample)
                    proven += 1
    assert proven > 50


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np_dtype(dtype))


def test_every_form_of_a_sum() -> None:
    """Broadcasts, gaps and turned operands of lengths that fill tiles and that do not."""
    x = numbers(5, 70, 130)
    cases = {
        "rows": (x, numbers(130)),
        "columns": (x, numbers(5, 70, 1)),
        "a number": (x, numbers()),
        "both": (numbers(70, 1), numbers(1, 130)),
        "planes": (x, numbers(5, 1, 130)),
        "short rows": (numbers(300, 3), numbers(3)),
        "many short axes": (numbers(3, 4, 5, 6, 7), numbers(3, 1, 5, 1, 7)),
        "turned": (numbers(96, 128), numbers(128, 96).T),
        "turned, ragged": (numbers(70, 33), numbers(33, 70).T),
        "turned both": (numbers(128, 96).T, numbers(128, 96, seed=1).T),
        "turned planes": (x, numbers(5, 130, 70).transpose(0, 2, 1)),
        "rows turned": (numbers(40, 50, 24), numbers(24, 40, 50).transpose(1, 2, 0)),
        "gaps": (numbers(60, 200)[:, :100], numbers(60, 300)[:, ::3]),
        "windows": (numbers(40, 32), np.lib.stride_tricks.sliding_window_view(numbers(71), 32)),
        "one row": (numbers(1, 2000), numbers(2000)),
    }
    for dtype in ("float32", "bfloat16"):
        for name, inputs in cases.items():
            given = inputs if dtype == "float32" else tuple(x.astype(np_dtype(dtype)) for x in inputs)
            right("add", Sample(name, given))
            right("add", Sample(name, given), backwards=True)


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


def test_a_kernel_without_its_mask_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    text_of = flat.text_of
    monkeypatch.setattr(flat, "text_of", lambda form: text_of(form).replace("at < count", "at < count + 1"))
    flat.function.cache_clear()
    with pytest.raises(Exception, match="OutOfBounds"):
        right("exp", Sample("1", (numbers(133),)))
    flat.function.cache_clear()
