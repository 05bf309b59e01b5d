"""The launch path down to the driver's function: arguments, descriptors, streams, devices, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from gpu_extra import need

torch = need("torch", "triton")

import toy_cuda  # noqa: E402
from stub_driver import Runtime, last, library, stub_in_force, without_gpu  # noqa: E402

from kernelwright.kernels.cuda import launch as launching  # noqa: E402
from kernelwright.kernels.cuda.launch import launcher  # noqa: E402
from kernelwright.kernels.cuda.step import (  # noqa: E402
    Arg,
    Descriptor,
    Step,
    Workspace,
    element_strides,
    is_wide,
    variant,
)
from kernelwright.kernels.errors import LayoutError, RegistrationError  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

pytestmark = without_gpu
SPECS = (toy_cuda.spec(1000),) * 3


@pytest.fixture(autouse=True)
def driver() -> Iterator[Runtime]:
    with stub_in_force() as runtime:
        library().stub_expect(5)
        yield runtime


def _bits(value: float) -> int:
    import struct

    return struct.unpack("<I", struct.pack("<f", value))[0]


def _tensors(count: int = 3, n: int = 1000) -> list[object]:
    return [torch.zeros(n) for _ in range(count)]


def test_a_launch_hands_over_addresses_numbers_and_the_grid() -> None:
    launch = toy_cuda.bind_plain_add(SPECS, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    tensors = _tensors()
    before = last().launches
    launch(*tensors)
    seen = last()
    assert (seen.launches, list(seen.grid), seen.block) == (before + 1, [16, 1, 1], 64)
    assert list(seen.params[:3]) == [t.data_ptr() for t in tensors]
    assert seen.params[3] & 0xFFFFFFFF == 1000
    assert seen.params[4] & 0xFFFFFFFF == _bits(3.0)


def test_the_stream_is_asked_for_in_each_call(driver: Runtime) -> None:
    launch = toy_cuda.bind_plain_add(SPECS, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    tensors = _tensors()
    for stream in (0x10, 0x20, 0x10):
        driver.streams[0] = stream
        launch(*tensors)
        assert last().stream == stream


def test_programs_that_wait_for_each_other_are_launched_together() -> None:
    plain = toy_cuda.bind_plain_add(SPECS, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    tensors = _tensors()
    for together in (False, True, False):
        launcher(SPECS, *(replace(step, together=together) for step in plain.steps))(*tensors)
        assert last().together == together


def test_tensors_of_another_device_are_launched_there(driver: Runtime) -> None:
    specs = tuple(TensorSpec(s.shape, s.dtype, "cuda:1") for s in SPECS)
    launch = toy_cuda.bind_plain_add(specs, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    tensors = _tensors()
    here = toy_cuda.bind_plain_add(SPECS, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    here(*tensors)
    function = last().function
    launch(*tensors)
    assert last().stream == driver.streams[1]
    assert last().function != function  # loaded on that device too
    assert (driver.device, driver.switches) == (0, 1)


def test_a_known_call_compiles_and_encodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = (toy_cuda.spec(128, 256, dtype="bfloat16"), toy_cuda.spec(128, 64, dtype="bfloat16"))
    launch = toy_cuda.bind_squared(specs, {}, {"bm": 64, "bk": 64, "warps": 4, "stages": 2}, 1)
    x, out = torch.zeros(128, 256, dtype=torch.bfloat16), torch.zeros(128, 64, dtype=torch.bfloat16)
    library().stub_expect(1)
    launch(x, out)
    maps, launches = last().maps, last().launches
    assert last().params[0] == x.data_ptr()  # the tensor map, by value
    monkeypatch.setattr(launching, "compile_variant", None)
    for _ in range(3):
        launch(x, out)
    assert (last().maps, last().launches) == (maps, launches + 3)
    launch(x.clone(), out)  # at another address: other descriptors, the same code
    assert last().maps == maps + 2


def test_calls_of_other_lengths_share_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(n: int) -> int:
        specs = (toy_cuda.spec(n),) * 3
        toy_cuda.bind_plain_add(specs, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)(*_tensors(3, n))
        return int(last().function)

    first = launch(1000)
    odd, even = launch(1001), launch(1024)
    assert first == odd != even  # 1000 and 1001 are no multiples of 16
    monkeypatch.setattr(launching, "compile_variant", None)
    assert [launch(n) for n in (7, 123, 4096, 16)] == [odd, odd, even, even]


def test_unaligned_tensors_get_code_of_their_own() -> None:
    launch = toy_cuda.bind_plain_add((toy_cuda.spec(1024),) * 3, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    launch(*_tensors(3, 1024))
    aligned = last().function
    launch(*_tensors(2, 1024), torch.zeros(1025)[1:])
    assert last().function != aligned


def test_descriptors_need_aligned_tensors_or_other_steps() -> None:
    specs = (toy_cuda.spec(64, 64, dtype="bfloat16"), toy_cuda.spec(64, 64, dtype="bfloat16"))
    step = toy_cuda.bind_squared(specs, {}, {"bm": 64, "bk": 64, "warps": 4, "stages": 2}, 1).steps[0]
    x, out = torch.zeros(64 * 64 + 1, dtype=torch.bfloat16)[1:].view(64, 64), torch.zeros(64, 64)
    with pytest.raises(LayoutError, match=r"tensor 0 .* no multiple of 16 bytes; write x\.clone\(\)"):
        launcher(specs, step)(x, out)
    plain = Step(toy_cuda.gathered, (1,), {"x": Arg(0), "out": Arg(1), "stride": 64, "BM": 64})
    launch = launcher(specs, step, otherwise=lambda: [plain])
    library().stub_expect(3)
    launch(x, out)
    assert list(last().params[:2]) == [x.data_ptr(), out.data_ptr()]
    assert last().params[2] & 0xFFFFFFFF == 64


def test_steps_run_in_order_and_share_their_workspace() -> None:
    launch = toy_cuda.bind_in_two_steps(SPECS, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    before = last().launches
    launch(*_tensors())
    assert last().launches == before + 2
    assert len(launch.workspaces) == 1


class OnCpu(launching.TorchRuntime):
    """torch's runtime with zeros on the CPU, on the stream and in the capture that a test names."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.captured, self.made = 1, False, 0
        self._stream = lambda index: self.now
        self._capturing = lambda: self.captured

    def _new_zeros(self, shape: tuple[int, ...], dtype: str, index: int) -> torch.Tensor:
        self.made += 1
        return torch.zeros(shape, dtype=launching.torch_dtype(dtype))


def test_zeros_are_set_once_a_stream_and_by_every_graph() -> None:
    runtime, piece = OnCpu(), Workspace((8,), "int32", zero=True)
    first = runtime.workspace(piece, 0)
    assert runtime.workspace(Workspace((5,), "int32", zero=True), 0) is first
    assert runtime.made == 1
    assert runtime.workspace(Workspace((9,), "int32", zero=True), 0).numel() >= 9
    runtime.now = 2
    assert runtime.workspace(piece, 0) is not first
    runtime.captured, before = True, runtime.made
    graphs = [runtime.workspace(piece, 0) for _ in range(2)]
    assert graphs[0] is not graphs[1]
    assert runtime.made == before + 2


def test_calls_in_turn_share_the_zeros_of_their_graph() -> None:
    """Else a batch of calls that is timed has a launch more for each of them than the calls have outside."""
    runtime, piece = OnCpu(), Workspace((8,), "int32", zero=True)
    outside = runtime.workspace(piece, 0)
    runtime.captured, graphs = True, list[torch.Tensor]()
    for _ in range(2):
        with runtime.in_turn():
            graphs.append(runtime.workspace(piece, 0))
            assert runtime.workspace(Workspace((5,), "int32", zero=True), 0) is graphs[-1]
    assert graphs[0] is not graphs[1]
    assert runtime.made == 3
    assert runtime.workspace(piece, 0) is not graphs[1]
    runtime.captured = False
    assert runtime.workspace(piece, 0) is outside


def test_only_so_many_argument_lists_are_kept() -> None:
    launch = toy_cuda.bind_plain_add(SPECS, {"scale": 3.0}, {"block": 64, "warps": 2}, 1)
    held = [_tensors() for _ in range(100)]
    for tensors in held:
        launch(*tensors)
    assert 0 < len(launch._ready) <= launching._MOST_READY


def test_a_step_says_what_its_arguments_lack() -> None:
    with pytest.raises(
        RegistrationError, match="a step of gathered has no BM, an unknown BN; the kernel takes x"
    ):
        Step(toy_cuda.gathered, (1,), {"x": Arg(0), "out": Arg(1), "stride": 1, "BN": 64})
    step = Step(toy_cuda.gathered, (1,), {"x": Arg(0), "out": Arg(1), "stride": "s", "BM": 64})
    with pytest.raises(RegistrationError, match=r"gathered: stride is 's' \(str\)"):
        variant(step, SPECS[:2], (True, True))


def test_an_input_that_was_left_out_is_a_constant_none() -> None:
    step = Step(toy_cuda.gathered, (1,), {"x": Arg(0), "out": Arg(1), "stride": 16, "BM": 64})
    made = variant(step, (ABSENT, SPECS[0]), (True, True))
    assert made.signature[0] == ("x", "constexpr")
    assert (0, None) in made.constants
    assert made.multiples == (1, 2)


def test_wide_arrays_are_told_by_their_last_offset() -> None:
    assert not is_wide(toy_cuda.spec(2**15, 2**15), ABSENT)
    assert is_wide(toy_cuda.spec(2**16, 2**16))
    assert is_wide(toy_cuda.spec(4), TensorSpec((2, 4), "float16", "cuda", (2**33, 2)))
    assert element_strides(TensorSpec((2, 4), "float16", "cuda", (2**33, 2))) == (2**32, 1)
    assert Descriptor(0, (8, 8)).extent(SPECS) == ((1000,), (1,))
