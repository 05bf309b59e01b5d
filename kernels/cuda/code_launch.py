"""Launches of CUDA C++ kernels: `CodeLaunch`, which a binding function returns.

A call looks up the addresses of its tensors and hands the driver what was made for them: the compiled kernel
and its argument. Only calls with tensors at new addresses make something, and only the first one compiles.
Everything runs on torch's current stream of the tensors' device; nothing waits for it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..atomic import write_atomically
from ..op import Specs
from ..paths import cache_dir
from . import nvrtc
from .launch import runtime
from .source import Code

if TYPE_CHECKING:
    from .aot import Code as MachineCode

ALIGNMENT = 16
_MOST_READY = 64  # arguments kept by one launch: addresses alternate in loops, and rarely among more


@dataclass(frozen=True)
class CodeStep:
    """One launch of a kernel.

    Attributes:
        code: the kernel.
        blocks: how many.
        pointers: for each of the argument's pointers, which of the call's tensors it is; None for no tensor.
        values: the whole numbers that follow them in the argument, of 64 bits each.
    """

    code: Code
    blocks: int
    pointers: tuple[int | None, ...]
    values: tuple[int, ...]

    @property
    def grid(self) -> tuple[int]:
        """How many blocks, as `explain` tells it."""
        return (self.blocks,)

    @property
    def warps(self) -> int:
        """Of a block."""
        return self.code.threads // 32


class CodeLaunch:
    """A call of known specs, ready for its tensors: `launch(*inputs, *outputs)`, torch tensors on the device.

    Attributes:
        specs: of the tensors.
        step: makes the launch, given whether all tensors are at addresses that are multiples of 16 bytes.
    """

    def __init__(self, specs: Specs, step: Callable[[bool], CodeStep]) -> None:
        self.specs = specs
        self.step = step
        self._ready: dict[tuple[int, ...], tuple[nvrtc.Function, nvrtc.Argument, int]] = {}
        self._compiled: dict[bool, tuple[CodeStep, nvrtc.Function]] = {}
        self._index: int | None = None

    def prepare(self, tensors: Sequence[Any], held: Sequence[Any]) -> None:
        """All of a call but the launch: compile and load what is missing. The device is current."""
        index = runtime().number(next(spec.device for spec in self.specs if spec.present))
        addresses = tuple([0 if tensor is None else tensor.data_ptr() for tensor in tensors])
        if addresses not in self._ready:
            self._prepare(addresses, index)

    def __call__(self, *tensors: Any) -> None:
        run = runtime()
        index = self._index
        if index is None:
            index = self._index = run.number(next(spec.device for spec in self.specs if spec.present))
        addresses = tuple([0 if tensor is None else tensor.data_ptr() for tensor in tensors])
        ready = self._ready.get(addresses)
        if ready is None:
            ready = self._prepare(addresses, index)
        function, argument, grid = ready
        if run.current() == index:
            function.launch(grid, argument, run.stream(index))
        else:
            with run.on(index):
                function.launch(grid, argument, run.stream(index))

    def _prepare(self, addresses: tuple[int, ...], index: int) -> tuple[nvrtc.Function, nvrtc.Argument, int]:
        aligned = all(address % ALIGNMENT == 0 for address in addresses)
        if aligned not in self._compiled:
            step = self.step(aligned)
            arch = nvrtc.arch_of(runtime().capability(index))
            self._compiled[aligned] = step, nvrtc.loaded(step.code, index, arch)
        step, function = self._compiled[aligned]
        pointers = [0 if place is None else addresses[place] for place in step.pointers]
        made = function, nvrtc.Argument((*pointers, *step.values)), step.blocks
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        self._ready[addresses] = made
        return made

    @property
    def steps(self) -> tuple[CodeStep, ...]:
        """What it launches when all tensors are aligned."""
        return (self.step(True),)

    def codes(self, capability: int, aligned: bool = True) -> list[MachineCode]:
        """What its machine code needs of a chip and has, for reports; compiled now unless it is kept."""
        return [machine_code(self.step(aligned).code, capability)]

    def sources(self) -> list[str]:
        """The digest of the source of its kernel."""
        return [self.step(True).code.digest[:16]]


def machine_code(code: Code, capability: int) -> MachineCode:
    """A kernel compiled for a chip, and read: registers, shared memory, instructions; kept on disk.

    Raises:
        CompileError: when it does not compile.
        CodeError: when its machine code cannot be read.
    """
    from . import aot

    binary = nvrtc.compiled(code, nvrtc.arch_of(capability))
    kept = cache_dir() / "cuda-code" / f"nvrtc-{aot.FORMAT}-{binary.digest[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return aot.Code(**json.loads(kept.read_text("utf-8")))
    usage, sass = aot.resource_usage(binary.cubin), aot.disassembled(binary.cubin)
    instructions = aot.count_instructions(sass)
    found = aot.Code(
        kernel=code.name,
        capability=capability,
        registers=usage["REG"],
        shared=usage["SHARED"] + code.shared,
        stack=usage["STACK"] + usage["LOCAL"],
        warps=code.threads // 32,
        instructions=instructions,
        spills=sum(n for name, n in instructions.items() if name.split(".")[0] in ("STL", "LDL")),
        narrow=0,
        digest=aot.digest_of(sass),
        source=code.digest[:16],
    )
    with contextlib.suppress(OSError):  # the next process reads it again
        write_atomically(kept, json.dumps(asdict(found)))
    return found
