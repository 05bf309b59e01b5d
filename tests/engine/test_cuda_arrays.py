"""Arrays on a GPU and calls on them, in Triton's interpreter with torch's CPU tensors standing in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from gpu_extra import need

torch = need("torch", "triton")

import toy_cuda  # noqa: E402
from toy_op import TOY  # noqa: E402
from triton_interpreter import StandIn, interpreted, standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.cuda import CudaArray  # noqa: E402
from kernelwright.engine.eager import call  # noqa: E402
from kernelwright.kernels.errors import (  # noqa: E402
    DeviceError,
    DTypeError,
    LayoutError,
    NoKernelError,
    OverlapError,
    ShapeError,
)

pytestmark = interpreted


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandIn]:
    with standing_in() as runtime, toy_cuda.toy_on_cuda():
        yield runtime


def _pair(*shape: int) -> tuple[object, object]:
    torch.manual_seed(0)
    return torch.randn(shape), torch.randn(shape)


def test_a_call_takes_torch_tensors_and_returns_an_array_on_the_gpu(gpu: StandIn) -> None:
    x, y = _pair(7, 50)
    z = call(TOY, (x, y), {"scale": 3.0})
    assert isinstance(z, CudaArray)
    assert (z.device, z.shape, z.dtype, z.ndim, z.size) == ("cuda:0", (7, 50), np.float32, 2, 350)
    assert gpu.steps == ["add"]
    torch.testing.assert_close(torch.from_dlpack(z), x + 3 * y)
    assert torch.from_dlpack(z).data_ptr() == z._tensor.data_ptr()


def test_arrays_on_the_gpu_are_taken_too_and_come_back_to_the_cpu() -> None:
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = kw.array(numbers, device="cuda")
    assert isinstance(x, CudaArray)
    assert x.spec == kw.TensorSpec((2, 3), "float32", "cuda:0")
    z = call(TOY, (x, x), {"scale": 2.0})
    back = kw.array(z, device="cpu")
    assert not isinstance(back, CudaArray)
    np.testing.assert_array_equal(np.asarray(back), 3 * numbers)
    assert z.tolist() == (3 * numbers).tolist()
    assert kw.array([5.0], device="cuda").item() == 5.0
    assert kw.asarray(x) is x
    assert kw.array(x).device == "cuda:0"
    assert "f32[2,3]@cuda:0" in repr(x)
    assert kw.zeros(3, device="cuda:0").device == "cuda:0"


def test_bfloat16_keeps_its_bits_on_the_way() -> None:
    numbers = kw.array([1.0, -2.5, 3.0e-40, float("inf")], dtype="bfloat16")
    there = kw.array(numbers, device="cuda")
    assert there._tensor.dtype == torch.bfloat16
    back = kw.array(there, device="cpu")
    assert np.asarray(back).tobytes() == np.asarray(numbers).tobytes()


def test_views_are_views() -> None:
    x, _ = _pair(6, 4)
    a = kw.from_dlpack(x) if x.is_cuda else kw.asarray(x)
    for view, expected in (
        (a.T, x.T),
        (a.reshape(3, 8), x.reshape(3, 8)),
        (a.reshape(-1), x.reshape(-1)),
        (a.unsqueeze(1), x.unsqueeze(1)),
        (a.T.swapaxes(0, 1), x),
        (a.broadcast_to(2, 6, 4), x.expand(2, 6, 4)),
    ):
        got = torch.from_dlpack(view)
        assert got.data_ptr() == expected.data_ptr()
        torch.testing.assert_close(got, expected)


def test_out_is_written_and_returned() -> None:
    x, y = _pair(7, 50)
    for out in (torch.empty(7, 50), torch.empty(7, 64)[:, :50]):
        made = call(TOY, (x, y), {"scale": 3.0}, out)
        assert made._tensor is out or made._tensor.data_ptr() == out.data_ptr()
        if out.is_contiguous():  # the toy kernel knows no strides
            torch.testing.assert_close(out, x + 3 * y)
    z = kw.array(np.zeros((7, 50), np.float32), device="cuda")
    assert call(TOY, (x, y), {}, z) is z


def test_an_out_that_cannot_take_the_result_is_refused() -> None:
    x, y = _pair(4, 4)
    with pytest.raises(ShapeError, match=r"out has shape \(4, 3\)"):
        call(TOY, (x, y), {}, torch.empty(4, 3))
    with pytest.raises(DTypeError, match="out is float16"):
        call(TOY, (x, y), {}, torch.empty(4, 4, dtype=torch.float16))
    with pytest.raises(LayoutError, match="stride of 0"):
        call(TOY, (x, y), {}, torch.empty(4).expand(4, 4))
    for _ in range(2):  # also when the call is known
        with pytest.raises(OverlapError, match="out shares memory with x"):
            call(TOY, (x, y), {}, x)
    wide = torch.zeros(4, 8)
    call(TOY, (wide[:, :4], y), {}, wide[:, 4:])  # ends overlap, elements do not
    with pytest.raises(DeviceError, match="out is on the CPU"):
        call(TOY, (x, y), {}, np.empty((4, 4), np.float32))


def test_inputs_that_do_not_fit_are_refused_with_what_to_write() -> None:
    x, y = _pair(4, 4)
    with pytest.raises(DeviceError, match=r"y is on the CPU .*kw.array\(y, device='cuda'\)"):
        call(TOY, (kw.asarray(x), np.zeros((4, 4), np.float32)))
    with pytest.raises(DTypeError, match="y needs a gradient"):
        call(TOY, (x, y.requires_grad_()))
    with pytest.raises(DTypeError, match="x is float32 but y is float16"):
        call(TOY, (x, y.detach().half()))
    with pytest.raises(DTypeError, match="y must be an Array on a GPU or a torch CUDA tensor, got str"):
        call(TOY, (kw.asarray(x), "no"))
    with pytest.raises(DTypeError, match="complex64"):
        call(TOY, (x.to(torch.complex64), y.detach()))
    with pytest.raises(DeviceError, match="torch sees 1 CUDA devices"):
        kw.array([1.0], device="cuda:1")
    with pytest.raises(DeviceError, match="uses an Array on 'cuda:0', and its arguments are on 'cpu'"):
        kw.compile(lambda a: call(TOY, (a, kw.asarray(x))))(kw.array(np.zeros((4, 4), np.float32)))


def test_numpy_never_gets_the_numbers_unasked() -> None:
    x = kw.array([1.0, 2.0], device="cuda")
    with pytest.raises(DeviceError, match="NumPy sees memory of the CPU only"):
        np.asarray(x)


def test_what_no_cuda_kernel_computes_is_refused() -> None:
    x = torch.ones(3, dtype=torch.float64)
    with pytest.raises(NoKernelError, match=r"no CUDA kernel supports toy.*nothing is copied to the CPU"):
        call(TOY, (x, x))


def test_a_result_without_elements_launches_nothing(gpu: StandIn) -> None:
    z = call(TOY, (torch.empty(0, 3), torch.empty(0, 3)))
    assert z.shape == (0, 3)
    assert not gpu.steps


def test_explain_tells_device_and_candidates() -> None:
    x, y = _pair(4, 4)
    text = str(kw.explain(TOY, x, y))
    assert "runs toy/toy_cuda/add {block=64 warps=2}" in text
    assert "on NVIDIA H200 (sm_90, 132 multiprocessors), assumed" in text
    assert "not {block=128 warps=4}: no prediction" in text
