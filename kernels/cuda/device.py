"""What is known of a GPU: what limits a kernel on it, and what it can do at best.

Where torch sees a device, its figures are read from it. Where there is none, those of a chip stand in that
kernels are compiled for ahead of time: an H200, or what KERNELWRIGHT_CUDA_TARGET names (80, 90 or 100).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

from ..errors import ConfigError, DeviceError

TARGET_VARIABLE = "KERNELWRIGHT_CUDA_TARGET"


@dataclass(frozen=True)
class Device:
    """The facts about one GPU.

    Attributes:
        name: the model, as the driver gives it.
        capability: 10 times the major plus the minor compute capability: 90 for Hopper.
        multiprocessors: how many there are.
        shared_bytes: of shared memory, the most that one block may have.
        l2_bytes: of the second-level cache.
        bandwidth: bytes a second between the chip and its memory, by the vendor's datasheet.
        flops: FLOP a second by the datasheet, without sparsity, by what is multiplied: `"bfloat16"`,
            `"float16"`, `"tf32"`, `"float32"` (no tensor cores), `"float64"`, `"float8_e4m3fn"` where the
            chip has it.
        assumed: whether this is a stand-in for a device that is not there.
    """

    name: str
    capability: int
    multiprocessors: int
    shared_bytes: int
    l2_bytes: int
    bandwidth: float
    flops: Mapping[str, float]
    assumed: bool = False

    @property
    def has_tma(self) -> bool:
        """Whether the chip has the bulk tensor copy engine: Hopper and later."""
        return self.capability >= 90

    @property
    def register_limit(self) -> int:
        """The most registers that one thread may have: the same on every chip from compute capability 3.5."""
        return 255

    def __str__(self) -> str:
        text = f"{self.name} (sm_{self.capability}, {self.multiprocessors} multiprocessors)"
        return f"{text}, assumed: there is no GPU here" if self.assumed else text


def _rates(half: float, tf32: float, float32: float, float64: float, **others: float) -> dict[str, float]:
    """FLOP/s by dtype; bfloat16 and float16 are multiplied equally fast on every chip."""
    rates = {"bfloat16": half, "float16": half, "tf32": tf32, "float32": float32, "float64": float64}
    return rates | others


# Multiprocessors, L2, bandwidth and FLOP/s: NVIDIA's datasheets of the A100 80GB SXM, H200 SXM and HGX B200
# (an eighth of it), dense. Shared memory of one block: CUDA C++ Programming Guide, table "Technical
# Specifications per Compute Capability" (163 KB and 227 KB).
_A100 = Device(
    name="NVIDIA A100-SXM4-80GB",
    capability=80,
    multiprocessors=108,
    shared_bytes=163 * 1024,
    l2_bytes=40 * 1024**2,
    bandwidth=2.039e12,
    flops=_rates(312e12, 156e12, 19.5e12, 9.7e12),
)
_H200 = Device(
    name="NVIDIA H200",
    capability=90,
    multiprocessors=132,
    shared_bytes=227 * 1024,
    l2_bytes=50 * 1024**2,
    bandwidth=4.8e12,
    flops=_rates(989.5e12, 494.7e12, 67e12, 34e12, float8_e4m3fn=1979e12),
)
_B200 = Device(
    name="NVIDIA B200",
    capability=100,
    multiprocessors=148,
    shared_bytes=227 * 1024,
    l2_bytes=126 * 1024**2,
    bandwidth=8e12,
    flops=_rates(2250e12, 1125e12, 75e12, 37e12, float8_e4m3fn=4500e12),
)
_CHIPS = {chip.capability: chip for chip in (_A100, _H200, _B200)}
# Models whose memory is not that of the chip with their compute capability above; datasheets again.
_BANDWIDTHS = {
    "H100 PCIe": 2.0e12,
    "H100": 3.35e12,
    "H200": 4.8e12,
    "A100-SXM4-40GB": 1.555e12,
    "GH200": 4.0e12,
}

TARGETS = tuple(_CHIPS)
"""The compute capabilities that every shipped kernel is compiled for in the tests: 80, 90 and 100."""

_assumed: list[Device] = []


def chip(capability: int) -> Device:
    """The stand-in for a compute capability.

    Raises:
        ConfigError: when it is none of `TARGETS`.
    """
    if capability not in _CHIPS:
        raise ConfigError(f"compute capability {capability} is none of {', '.join(map(str, TARGETS))}.")
    return replace(_CHIPS[capability], assumed=True)


@contextmanager
def assume(capability: int) -> Iterator[Device]:
    """Take, inside the block, every CUDA device for the stand-in with that compute capability.

    For tests and for compiling ahead of time. It holds for all threads.
    """
    with taken_for(chip(capability)) as found:
        yield found


@contextmanager
def taken_for(device: Device) -> Iterator[Device]:
    """Take every CUDA device for this one inside the block, in all threads."""
    _assumed.append(device)
    try:
        yield device
    finally:
        _assumed.pop()


def facts(device: str = "cuda") -> Device:
    """What is known of a device.

    Args:
        device: `"cuda"` (torch's current device) or `"cuda:<number>"`.

    Raises:
        DeviceError: when there are GPUs, but not that one.
        ConfigError: when KERNELWRIGHT_CUDA_TARGET is needed and means nothing.
    """
    if _assumed:
        return _assumed[-1]
    if not available():
        return chip(_target_from_environment())
    return _read(number(device))


def available() -> bool:
    """Whether torch is installed and sees a GPU."""
    return _count() > 0


def preferred() -> str:
    """`"cuda"` where torch sees a GPU and Triton is installed, else `"cpu"`.

    Without NVIDIA's driver torch is not even loaded.
    """
    if not _has_driver() or find_spec("triton") is None:
        return "cpu"
    return "cuda" if available() else "cpu"


def _has_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def number(device: str) -> int:
    """The number of `"cuda:<number>"`; of `"cuda"`, that of torch's current device.

    Raises:
        DeviceError: when there is no such device.
    """
    count = _count()
    if count and not device.partition(":")[2]:
        import torch

        return int(torch.cuda.current_device())
    return counted(device, count)


def counted(device: str, count: int) -> int:
    """The number of `"cuda:<number>"` (0 of `"cuda"`) among `count` devices; DeviceError beyond them."""
    given = int(device.partition(":")[2] or 0)
    if not count:
        raise DeviceError(f"there is no {device!r} here: {missing_reason()}.")
    if given >= count:
        raise DeviceError(f"there is no {device!r} here; torch sees {count} CUDA devices, from 'cuda:0' on.")
    return given


def missing_reason() -> str:
    """Why no GPU can be used, as the end of a sentence."""
    try:
        import torch
    except ImportError:
        return "torch is not installed (pip install 'kernelwright[gpu]')"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA (pip install 'kernelwright[gpu]')"
    return f"torch {torch.__version__} sees no CUDA device"


@cache
def _count() -> int:
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


@cache
def _read(index: int) -> Device:
    import torch

    found: Any = torch.cuda.get_device_properties(index)
    capability = 10 * found.major + found.minor
    # A chip between those of the table counts as the older one; an older one than all, as the oldest.
    like = _CHIPS[max([known for known in TARGETS if known <= capability], default=TARGETS[0])]
    scale = found.multi_processor_count / like.multiprocessors
    bandwidth = next((rate for word, rate in _BANDWIDTHS.items() if word in found.name), like.bandwidth)
    return Device(
        name=found.name,
        capability=capability,
        multiprocessors=found.multi_processor_count,
        shared_bytes=getattr(found, "shared_memory_per_block_optin", like.shared_bytes),
        l2_bytes=getattr(found, "L2_cache_size", like.l2_bytes) or like.l2_bytes,
        bandwidth=bandwidth,
        flops={dtype: rate * scale for dtype, rate in like.flops.items()},
    )


def _target_from_environment() -> int:
    text = os.environ.get(TARGET_VARIABLE, "").strip() or "90"
    if not text.isdigit() or int(text) not in _CHIPS:
        raise ConfigError(
            f"the environment variable {TARGET_VARIABLE} is {text!r}; write one of "
            f"{', '.join(map(str, TARGETS))}."
        )
    return int(text)
