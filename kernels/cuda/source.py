"""Code: one CUDA C++ kernel as it is compiled: files of templates, put one after the other, and one instance.

The files lie beside the kernels (`*.cuh`, `*.cu`) and include nothing: all that they ask of the device is in
`device.cuh`, which always comes first. So NVRTC needs no toolkit's headers, and the tests compile the same
text for the CPU with another first file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

KERNELS = Path(__file__).parent.parent
DEVICE = "cuda/device.cuh"
COMMON = ("cuda/elements.cuh",)


@dataclass(frozen=True)
class Code:
    """A kernel `<argument> -> call` in CUDA C++.

    Attributes:
        name: what the compiled kernel is called, and its files in the cache.
        files: relative to kernels/, in the order in which they are compiled, behind those of every kernel.
        call: the template and its arguments, `simt_matmul<float, 128, ...>`; it takes the argument and the
            shared memory.
        argument: the struct that a launch hands over, by value.
        threads: of a block.
        shared: bytes of dynamic shared memory of a block.
        blocks: of a multiprocessor that the registers must leave room for.
        together: whether the blocks wait for each other, so that all of them must be running at one time: a
            cooperative launch.
    """

    name: str
    files: tuple[str, ...]
    call: str
    argument: str
    threads: int
    shared: int
    blocks: int = 1
    together: bool = False

    @property
    def entry(self) -> str:
        """The kernel itself, which calls the template."""
        return (
            f'extern "C" __global__ void __launch_bounds__({self.threads}, {self.blocks})\n'
            f"{self.name}(KW_PARAMETER {self.argument} argument) {{\n"
            f"  KW_SHARED(shared);\n  {self.call}(argument, shared);\n}}\n"
        )

    @cached_property
    def text(self) -> str:
        """All that the compiler sees."""
        return joined((DEVICE, *COMMON, *self.files)) + self.entry

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return sha256(self.text.encode()).hexdigest()


def joined(files: tuple[str, ...]) -> str:
    """The files one after the other; the compiler's messages name them."""
    return "".join(f'#line 1 "{name}"\n{_read(name)}' for name in files) + '#line 1 "entry"\n'


@lru_cache(maxsize=64)
def _read(name: str) -> str:
    return (KERNELS / name).read_text(encoding="utf-8").replace("#pragma once\n", "\n")
