"""What a kernel needs of a chip, read from its machine code, without a GPU.

Each variant of a kernel is compiled for a chip by the compiler that compiles it on a GPU, and its machine
code is read by the disassembler that comes with Triton: registers, shared memory, stack, and which
instructions are there. `problems` says what is wrong with it. What was read is kept on disk by all that it
depends on.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..atomic import write_atomically
from ..errors import KernelwrightError
from ..paths import cache_dir
from .build import compile_variant
from .device import Device
from .step import Variant

FORMAT = 1
_THREADS_OF_WARP = 32
_REGISTERS = 65536  # of one multiprocessor, on every chip since compute capability 3.5
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_.]+)?)")


class CodeError(KernelwrightError, RuntimeError):
    """Machine code that the tools cannot read, or that they find nothing in."""


@dataclass(frozen=True)
class Code:
    """What the machine code of one kernel needs and has.

    Attributes:
        kernel: the function's name.
        capability: of the chip it is for.
        registers: of each thread.
        shared: bytes of shared memory of a block.
        stack: bytes of stack of each thread.
        warps: of a block, those of warp specialisation included.
        instructions: how often each stands in the code, by its name up to the first dot: `{"HGMMA": 32}`.
        spills: how many loads and stores of registers to local memory there are (STL, LDL).
        narrow: how many computations of addresses add 32-bit offsets to 64-bit pointers.
        digest: of the instructions, registers and constants included.
        source: of the kernel's source, all that it calls, and the variant; without line numbers.
        scratch: bytes of global memory that Triton would allocate for a program.
    """

    kernel: str
    capability: int
    registers: int
    shared: int
    stack: int
    warps: int
    instructions: dict[str, int] = field(repr=False)
    spills: int
    narrow: int
    digest: str
    source: str
    scratch: int = 0

    def count(self, *names: str) -> int:
        """How many instructions begin with one of the names: `count("HGMMA")`, `count("UTC")`."""
        return sum(n for name, n in self.instructions.items() if name.startswith(names))

    def __str__(self) -> str:
        return (
            f"{self.kernel} on sm_{self.capability}: {self.registers} registers, {self.shared:,} bytes of "
            f"shared memory, {self.stack} of stack, {self.spills} spills"
        )


def problems(
    code: Code,
    chip: Device,
    *,
    expect: Sequence[str] = (),
    forbid: Sequence[str] = (),
    registers: int | None = None,
    wide: bool = False,
) -> list[str]:
    """What is wrong with a kernel's machine code; nothing when the list is empty.

    Args:
        code: what was read from it.
        chip: the chip that it is for.
        expect: instructions that must be there, by the beginnings of their names; `"A|B"` for either.
        forbid: instructions that must not.
        registers: the most that a thread may use; what the warps of one block leave each thread unless given.
        wide: whether all addresses must be computed with 64-bit offsets.
    """
    found = []
    if code.shared > chip.shared_bytes:
        found.append(f"{code.shared:,} bytes of shared memory; a block has at most {chip.shared_bytes:,}")
    ceiling = registers or min(255, _REGISTERS // (_THREADS_OF_WARP * code.warps))
    if code.registers > ceiling:
        found.append(f"{code.registers} registers, and at most {ceiling} are allowed")
    if code.stack:
        found.append(f"{code.stack} bytes of stack")
    if code.spills:
        found.append(f"{code.spills} loads and stores of spilled registers")
    if code.scratch:
        found.append(f"{code.scratch} bytes of scratch memory for each program")
    if wide and code.narrow:
        found.append(f"{code.narrow} addresses computed with 32-bit offsets")
    found += [f"no {names}" for names in expect if not code.count(*names.split("|"))]
    found += [f"{code.count(name)} {name}" for name in forbid if code.count(name)]
    return found


def read(variant: Variant, capability: int) -> Code:
    """Compile a variant of a Triton kernel for a chip and read its machine code, or what was kept of that.

    Raises:
        CodeError: when the machine code cannot be read.
        Exception: by Triton, when it does not compile.
    """
    kept = cache_dir() / "cuda-code" / f"{_key(variant, capability)}.json"
    try:
        return Code(**json.loads(kept.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    code = read_compiled(compile_variant(variant, capability), capability, source_digest(variant))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(asdict(code)))
    except OSError:
        pass  # the next process reads it again
    return code


def read_compiled(kernel: Any, capability: int, source: str) -> Code:
    """The same for a kernel that Triton has compiled."""
    metadata = kernel.metadata
    usage, sass = resource_usage(kernel.asm["cubin"]), disassembled(kernel.asm["cubin"])
    instructions = count_instructions(sass)
    return Code(
        kernel=str(metadata.name),
        capability=capability,
        registers=usage["REG"],
        # What Triton lays out itself is asked for at the launch, and not in the code's own figure.
        shared=max(int(metadata.shared), usage["SHARED"]),
        stack=usage["STACK"] + usage["LOCAL"],
        warps=int(metadata.num_warps),
        instructions=instructions,
        spills=sum(n for name, n in instructions.items() if name.split(".")[0] in ("STL", "LDL")),
        narrow=narrow_addresses(kernel.asm["ttgir"]),
        digest=digest_of(sass),
        source=source,
        scratch=int(getattr(metadata, "global_scratch_size", 0) or 0),
    )


def narrow_addresses(ttgir: str) -> int:
    """How many `tt.addptr` of Triton's IR add 32-bit (or narrower) offsets.

    The offset's type is the second one of the instruction: `tt.addptr %p, %o : <pointers>, <offsets>`.
    """
    count = 0
    for line in ttgir.splitlines():
        match = re.search(r"tt\.addptr .* : .*, (?:tensor<(?:\d+x)*)?i(\d+)", line)
        if match and int(match[1]) < 64:
            count += 1
    return count


def resource_usage(cubin: bytes) -> dict[str, int]:
    """`REG`, `STACK`, `SHARED` and `LOCAL` of the one kernel in a cubin, in registers and bytes."""
    text = _tool("cuobjdump", ["-res-usage"], cubin)
    found = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", text)
    if len(found) != 1:
        raise CodeError(
            f"cuobjdump -res-usage tells of {len(found)} kernels where one was compiled: {text[:200]}"
        )
    return dict(zip(("REG", "STACK", "SHARED", "LOCAL"), map(int, found[0]), strict=True))


def disassembled(cubin: bytes) -> str:
    """The machine code as text.

    Raises:
        CodeError: when the disassembler fails, or finds no instruction.
    """
    text = _tool("cuobjdump", ["-sass"], cubin)
    if not _INSTRUCTION.search(text):
        raise CodeError(f"cuobjdump -sass shows no instruction: {text[:200]!r}")
    return text


def count_instructions(sass: str) -> dict[str, int]:
    """How often each instruction stands in the text, by its name with everything after dots."""
    return dict(Counter(_INSTRUCTION.findall(sass)))


def digest_of(sass: str) -> str:
    """Sixteen hex digits of the instructions, without what depends on the place of a file."""
    lines = [line.split("*/", 1)[1].split(";")[0].strip() for line in sass.splitlines() if "*/  " in line]
    return sha256("\n".join(line for line in lines if line).encode()).hexdigest()[:16]


def source_digest(variant: Variant) -> str:
    """Sixteen hex digits of a kernel's source and what is compiled of it, the same wherever it stands.

    It covers the functions of ours that the kernel calls and the constants of their modules.
    """
    parts = [repr((variant.signature, variant.constants, variant.multiples, variant.options))]
    return sha256("\n".join([*parts, *_sources(variant.fn, set())]).encode()).hexdigest()[:16]


def _sources(fn: Any, seen: set[int]) -> Iterable[str]:
    """The text of a Triton function, of those that it calls, and the constants that they name."""
    if id(fn) in seen:
        return
    seen.add(id(fn))
    yield fn.src
    names = {node.id for node in ast.walk(ast.parse(fn.src)) if isinstance(node, ast.Name)}
    for name in sorted(names):
        value = fn.__globals__.get(name)
        if hasattr(value, "src") and not value.__module__.startswith("triton."):
            yield from _sources(value, seen)
        elif type(value).__name__ == "constexpr" or isinstance(value, int | float | str):
            yield f"{name}={getattr(value, 'value', value)!r}"


def _key(variant: Variant, capability: int) -> str:
    import triton

    facts = (FORMAT, _own_digest(), triton.__version__, capability, variant.fn.cache_key)
    parts = (variant.signature, variant.constants, variant.multiples, variant.options)
    return sha256(repr((facts, parts)).encode()).hexdigest()[:32]


@cache
def _own_digest() -> str:
    return sha256(Path(__file__).read_bytes()).hexdigest()


def _tool(name: str, options: list[str], cubin: bytes) -> str:
    """The output of one of NVIDIA's tools, from Triton's package, over a cubin."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    handle, file = tempfile.mkstemp(suffix=".cubin")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(cubin)
        done = subprocess.run([str(path), *options, file], capture_output=True, text=True, check=False)
    finally:
        os.unlink(file)
    if done.returncode:
        raise CodeError(f"{name} {' '.join(options)} failed: {(done.stderr or done.stdout).strip()[:300]}")
    return done.stdout
