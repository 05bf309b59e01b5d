"""Every CUDA kernel answers `explain` with device, configuration, registers and shared memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from gpu_extra import need

need("triton", "cupy")

from kernelwright.kernels import dispatch  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.cuda.aot import Code  # noqa: E402
from kernelwright.kernels.cuda.code_launch import CodeLaunch  # noqa: E402
from kernelwright.kernels.cuda.launch import CudaLaunch  # noqa: E402
from kernelwright.kernels.explain import _behind  # noqa: E402
from kernelwright.kernels.kernel import Kernel  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.registry import kernels_for  # noqa: E402
from kernelwright.kernels.settings import using  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

OPS = ("matmul", "linear", "scaled_matmul", "conv", "conv_input_grad", "conv_weight_grad", "conv_bias_grad")
NHWC: dict[str, Any] = {"layout": "NHWC", "padding": ((1, 1), (1, 1)), "stride": (1, 1)}
ONE: dict[str, Any] = {"layout": "NHWC", "padding": ((0, 0), (0, 0)), "stride": (1, 1)}


def _calls(op: str, dtype: str) -> Iterator[tuple[list[TensorSpec], Mapping[str, Any]]]:
    """Calls of an op of which each kernel takes one."""

    def spec(*shape: int, kind: str = dtype) -> TensorSpec:
        return TensorSpec(shape, kind, "cuda")

    if op == "matmul":
        yield from (([spec(m, 512), spec(512, 512)], {}) for m in (512, 1))
    elif op == "linear":
        yield from (([spec(m, 512), spec(512, 512), ABSENT, ABSENT], {}) for m in (512, 1))
    elif op == "scaled_matmul":
        one = spec(1, kind="float32")
        b = TensorSpec((512, 512), dtype, "cuda", (1, 512))
        for out in ("bfloat16", "float32"):
            yield from (([spec(m, 512), b, one, one, ABSENT], {"out_dtype": out}) for m in (512, 1))
    elif op == "conv_bias_grad":
        yield [spec(8, 28, 28, 64)], {"layout": "NHWC"}
    else:
        for layout in ("NHWC", "NCHW"):
            for cin, cout, taps, groups in ((64, 64, 3, 1), (3, 64, 3, 1), (64, 64, 1, 1), (64, 64, 3, 64)):
                attrs = {**(NHWC if taps == 3 else ONE), "layout": layout, "groups": groups}
                x, y = ((8, 28, 28, c) if layout == "NHWC" else (8, c, 28, 28) for c in (cin, cout))
                w = spec(cout, cin // groups, taps, taps)
                if op == "conv":
                    yield [spec(*x), w, ABSENT, ABSENT], attrs
                elif op == "conv_input_grad":
                    yield [spec(*y), w, ABSENT], {**attrs, "input_size": (28, 28)}
                else:
                    yield [spec(*x), spec(*y)], {**attrs, "kernel_size": (taps, taps)}


def _taken(kernel: Kernel) -> tuple[list[TensorSpec], Mapping[str, Any]] | None:
    op = get_op(kernel.op)
    for dtype in kernel.dtypes:
        for specs, attrs in _calls(kernel.op, dtype):
            complete = op.complete(attrs)
            if kernel.why_not((*specs, *op.infer(tuple(specs), **complete)), complete) is None:
                return specs, attrs
    return None


KERNELS = [kernel for op in OPS for kernel in kernels_for(op, "cuda")]


# Of each file and op one kernel is compiled for this; what the others need is read in their own proofs.
COMPILED = {(kernel.op, kernel.source_file): kernel for kernel in reversed(KERNELS)}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.id)
def test_explain_tells_what_runs_and_what_it_needs(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    if COMPILED[kernel.op, kernel.source_file] is not kernel:
        monkeypatch.setattr(CudaLaunch, "codes", lambda self, capability: [READ])
        monkeypatch.setattr(CodeLaunch, "codes", lambda self, capability: [READ])
    with device.assume(90), using(backend=kernel.id, extra_error=True):
        found = _taken(kernel)
        assert found is not None, f"no call here is one for {kernel.id}"
        explained = dispatch.explain(get_op(kernel.op), *found)
        text, choice = str(explained), explained.choice
    assert f"runs {kernel.id}" in text
    assert "on NVIDIA H200 (sm_90, 132 multiprocessors), assumed: there is no GPU here" in text
    assert " registers, " in text, text
    assert "bytes of shared memory" in text
    for other in choice.candidates:
        if other.kernel is not kernel:
            why = other.reason_not or _behind(other, choice)
            assert why, f"nothing says why {other.kernel.id} was not chosen"
            assert why in text


READ = Code("read", 90, 128, 1024, 0, 4, {}, 0, 0, "", "")
