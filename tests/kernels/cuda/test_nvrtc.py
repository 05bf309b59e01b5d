"""CUDA C++ compiled by NVRTC: kept on disk, mended when damaged, launched with raw pointers on the caller's
stream."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpu_extra import need

need("cupy")

from kernelwright.kernels.cuda import launch, nvrtc  # noqa: E402
from kernelwright.kernels.cuda.code_launch import CodeLaunch, CodeStep  # noqa: E402
from kernelwright.kernels.cuda.source import DEVICE, Code  # noqa: E402
from kernelwright.kernels.errors import CacheWarning  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

if nvrtc.problem() is not None:
    pytest.skip(str(nvrtc.problem()), allow_module_level=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def code(tmp_path: Path) -> Code:
    source = tmp_path / "small.cu"
    source.write_text(
        "struct Small { float* x; i64 n; };\n"
        "KW_DEVICE void small(const Small& g, unsigned char* shared) { g.x[threadIdx.x] = float(g.n); }\n"
    )
    return Code("kw_small", (str(source),), "small", "Small", 32, 64)


def _only(folder: Path) -> Path:
    (found,) = (folder / "nvrtc").glob("*.bin")
    return found


def test_a_second_process_compiles_nothing(cache: Path, code: Code, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nvrtc.compiled(code, "sm_80")
    monkeypatch.setattr(nvrtc, "compile_now", lambda *_: pytest.fail("it was kept"))
    assert nvrtc.compiled(code, "sm_80") == first
    assert first.registers > 0
    assert first.cubin.startswith(b"\x7fELF")


def test_another_chip_or_another_source_is_another_kernel(cache: Path, code: Code) -> None:
    from dataclasses import replace

    made = {nvrtc.compiled(code, arch).digest for arch in ("sm_80", "sm_90a", "sm_100")}
    made.add(nvrtc.compiled(replace(code, blocks=2, threads=1024), "sm_80").digest)
    assert len(made) == 4
    assert len(list((cache / "nvrtc").glob("*.bin"))) == 4


@pytest.mark.parametrize("damage", ["a byte", "the end", "the head", "everything"])
def test_a_damaged_entry_is_set_aside_and_made_again(cache: Path, code: Code, damage: str) -> None:
    right = nvrtc.compiled(code, "sm_80")
    path = _only(cache)
    contents = bytearray(path.read_bytes())
    if damage == "a byte":
        contents[-100] ^= 1
    elif damage == "the end":
        del contents[-1:]
    elif damage == "the head":
        contents[0] = 0
    else:
        contents.clear()
    path.write_bytes(contents)
    with pytest.warns(CacheWarning, match="is damaged .*; the file is now .*corrupt"):
        assert nvrtc.compiled(code, "sm_80") == right
    assert nvrtc.compiled(code, "sm_80") == right
    (aside,) = (cache / "nvrtc").glob("*.corrupt-*")
    assert aside.read_bytes() == contents


def test_a_cache_that_cannot_be_written_is_told(
    code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(CacheWarning, match="KERNELWRIGHT_CACHE_DIR"):
        assert nvrtc.compiled(code, "sm_80").cubin


def test_what_does_not_compile_says_where(cache: Path, tmp_path: Path) -> None:
    source = tmp_path / "wrong.cu"
    source.write_text("\nKW_DEVICE void wrong(float x, unsigned char*) { return y; }\n")
    with pytest.raises(nvrtc.CompileError, match=r'wrong.cu.*\(2\): error: identifier "y" is undefined'):
        nvrtc.compiled(Code("kw_wrong", (str(source),), "wrong", "float", 32, 0), "sm_80")
    assert not (cache / "nvrtc").exists()


def test_a_chip_that_nvrtc_does_not_know_is_an_error(cache: Path, code: Code) -> None:
    with pytest.raises(nvrtc.CompileError, match="for sm_12345"):
        nvrtc.compiled(code, "sm_12345")


def test_the_machine_code_is_whole(cache: Path, code: Code) -> None:
    """CuPy drops the last byte of it; the program headers, which are last, say where it ends."""
    import struct

    cubin = nvrtc.compiled(code, "sm_90a").cubin
    offset, size, count = (*struct.unpack_from("<Q", cubin, 32), *struct.unpack_from("<HH", cubin, 54))
    assert len(cubin) >= offset + size * count


def test_a_compiler_that_reports_nothing_still_compiles(
    cache: Path, code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--std=c++17",))
    assert nvrtc.compiled(code, "sm_80").registers == nvrtc.NOT_TOLD


def test_the_text_needs_no_header(code: Code) -> None:
    assert "#include" not in code.text
    assert code.text.startswith(f'#line 1 "{DEVICE}"')


def test_without_cupy_the_kernels_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find(name))
    with pytest.raises(ModuleNotFoundError) as caught:
        nvrtc.require()
    assert caught.value.name == "cupy"


# --- launches, without a GPU: what would be handed to the driver --------------------------------------------


class Tensor:
    """What a launch asks of a tensor."""

    def __init__(self, address: int) -> None:
        self.address = address

    def data_ptr(self) -> int:
        return self.address


class Runtime:
    """Stands in for torch: two devices, of which the first is current."""

    def __init__(self) -> None:
        self.device = 0
        self.handle = 70

    def number(self, device: str) -> int:
        return int(device.partition(":")[2] or 0)

    def current(self) -> int:
        return self.device

    def capability(self, index: int) -> int:
        return 90

    def stream(self, index: int) -> int:
        assert index == self.device, "the device of the stream is the current one"
        return self.handle

    @contextlib.contextmanager
    def on(self, index: int) -> Iterator[None]:
        before, self.device = self.device, index
        yield
        self.device = before


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was launched: (code, device, grid, words of the argument, stream)."""
    import ctypes

    told: list[Any] = []

    class Function:
        def __init__(self, code: Code, index: int) -> None:
            self.code, self.index = code, index

        def launch(self, grid: int, argument: nvrtc.Argument, stream: int) -> None:
            pointer = ctypes.c_void_p.from_address(argument.parameters).value
            assert pointer is not None
            words = tuple((ctypes.c_int64 * 5).from_address(pointer))
            told.append((self.code.name, self.index, grid, words, stream))

    def loaded(code: Code, index: int, arch: str) -> Function:
        assert arch == "sm_90a"
        return Function(code, index)

    monkeypatch.setattr(nvrtc, "loaded", loaded)
    before = launch.set_runtime(Runtime())
    yield told
    launch.set_runtime(before)


def _launch(device: str = "cuda", made: list[bool] | None = None) -> CodeLaunch:
    x = TensorSpec((4, 4), "float32", device)

    def step(aligned: bool) -> CodeStep:
        if made is not None:
            made.append(aligned)
        name = "wide" if aligned else "narrow"
        return CodeStep(Code(name, (), "", "", 32, 0), 7, (0, 1, 2), (2**40, -3))

    return CodeLaunch((x, ABSENT, x), step)


def test_a_launch_hands_over_pointers_and_numbers(driver: list[Any]) -> None:
    _launch()(Tensor(4096), None, Tensor(8192))
    assert driver == [("wide", 0, 7, (4096, 0, 8192, 2**40, -3), 70)]


def test_unaligned_tensors_get_the_kernel_without_vectors(driver: list[Any]) -> None:
    made = _launch()
    made(Tensor(4096), None, Tensor(8196))
    made(Tensor(4096), None, Tensor(8192))
    assert [call[0] for call in driver] == ["narrow", "wide"]


def test_other_addresses_make_no_other_kernel(driver: list[Any]) -> None:
    made: list[bool] = []
    call = _launch(made=made)
    for address in (4096, 8192, 4096, 8192):
        call(Tensor(address), None, Tensor(1 << 20))
    assert made == [True]
    assert [words[0] for _, _, _, words, _ in driver] == [4096, 8192, 4096, 8192]


def test_the_stream_is_asked_for_at_every_call(driver: list[Any]) -> None:
    call = _launch()
    call(Tensor(4096), None, Tensor(8192))
    launch.runtime().handle = 71
    call(Tensor(4096), None, Tensor(8192))
    assert [stream for *_, stream in driver] == [70, 71]


def test_another_device_is_made_the_current_one(driver: list[Any]) -> None:
    _launch("cuda:1")(Tensor(4096), None, Tensor(8192))
    assert [(index, stream) for _, index, _, _, stream in driver] == [(1, 70)]
    assert launch.runtime().current() == 0


def test_explain_tells_the_grid() -> None:
    (step,) = _launch().steps
    assert (step.grid, step.warps) == ((7,), 1)
