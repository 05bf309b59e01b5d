"""Vector code straight through LLVM: a task from an emitter, in milliseconds, and kept on disk.

    emit(builder, block, index, *key)  ->  IR  ->  optimised, O2  ->  object code, kept  ->  an address

What is emitted is the body of `void task(i64 block, i64 index)`, the form of task that `launch.bind_phases`
runs. Numba has no part in it: there is nothing to type, and vectors stay as they were written.

An object file's name is a digest of the source of the emitter's file and of all that it imports, of the key,
of the CPU and of the versions of Python and llvmlite, so that a change of any is another file
(`kept.py`, `provenance.py`). Emitters therefore depend on nothing but their source and their key.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from typing import Any

from llvmlite import binding, ir

from .. import compiling
from ..collection import paused_collection
from ..errors import ConfigError
from ..machine import vector_bytes
from . import kept
from .provenance import source_digest, stable
from .vector_ir import I64

TASK = ir.FunctionType(ir.VoidType(), [I64, I64])
Emit = Callable[..., None]

# Held while LLVM works, and by whoever forks: a child never starts in the middle of it.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
# By emitter, key and effort, which are at hand; and by symbol: nothing is loaded twice.
_addresses: dict[tuple[Emit, str, bool] | str, int] = {}
counts = {"loaded": 0, "compiled": 0}
"""How many tasks this process has loaded, and how many it has compiled."""


class _Host:
    """LLVM for this machine: what compiles, and the engine that holds what is loaded until the end."""

    def __init__(self) -> None:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self.triple = binding.get_process_triple()
        # As with Numba, one may have code made for another CPU than this.
        self.cpu = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
        self.features = os.environ.get("NUMBA_CPU_FEATURES") or _features()
        self.machine = binding.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=3,
            # As Numba's: MCJIT on x86 wants code that is not position-independent.
            reloc="static" if platform.machine() in ("x86_64", "AMD64", "i686") else "default",
            codemodel="jitdefault",
            jit=True,
        )
        self.engine = binding.create_mcjit_compiler(
            binding.parse_assembly("", binding.create_context()), self.machine
        )

    def compiled(self, text: str, effort: str) -> bytes:
        """The object code of a module."""
        module = binding.parse_assembly(text, binding.create_context())
        options = binding.create_pipeline_tuning_options(speed_level=2)
        # Emitters write the vectors, and unroll by themselves.
        options.loop_vectorization = options.loop_unrolling = effort == "loops"
        options.slp_vectorization = False
        builder = binding.create_pass_builder(self.machine, options)
        if effort == "light":
            passes = binding.create_new_function_pass_manager()
            passes.add_new_gvn_pass()
            passes.add_instruction_combine_pass()
            passes.add_simplify_cfg_pass()
            for function in module.functions:
                if not function.is_declaration:
                    passes.run(function, builder)
        else:
            builder.getModulePassManager().run(module, builder)
        return bytes(self.machine.emit_object(module))

    def load(self, code: bytes, symbol: str) -> int:
        """The address of a function in object code, which stays loaded.

        Raises:
            ValueError: when it is not there.
        """
        self.engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self.engine.finalize_object()
        address = int(self.engine.get_function_address(symbol))
        if not address:
            raise ValueError(f"it holds no function {symbol}")
        return address


def _features() -> str:
    """What this CPU can do, in LLVM's words."""
    try:
        return str(binding.get_host_cpu_features().flatten())
    except RuntimeError:  # where LLVM can't tell, the CPU's name has to do
        return ""


@cache
def _host() -> _Host:
    return _Host()


def address_of(emit: Emit, key: tuple[Any, ...], name: str, light: bool = False) -> int:
    """The C address of the task that `emit` writes for `key`; compiled, loaded from disk, or known already.

    Args:
        emit: `emit(builder, block, index, *key)`, a function of a module; it emits the body of a task at the
            builder's place, up to the end: the return is added. `block` and `index` are i64.
        key: its further arguments: strings, numbers, and tuples of these. All that tells a task from others.
        name: for people: in file names, and for profilers.
        light: for code that leaves little to do, as nothing in its loops stays the same from round to round:
            only values that are there already, and operations that fit together, are found. Half the time.

    Raises:
        ConfigError: for a key whose meaning is this process's own.
    """
    text = stable(key)  # tells 0.0 from -0.0, and 1 from 1.0 and True
    if text is None:
        raise ConfigError(f"the key of generated code is strings, numbers and tuples of these, got {key!r}.")
    known = _addresses.get((emit, text, light))
    if known is not None:
        return known
    with _lock, paused_collection():
        known = _addresses.get((emit, text, light))
        if known is None:
            known = _addresses[emit, text, light] = _find(emit, key, text, name, light)
    return known


def _find(emit: Emit, key: tuple[Any, ...], text: str, name: str, light: bool) -> int:
    source = source_digest(emit)
    made_of = (emit.__module__, emit.__qualname__, source, text, light)
    effort = "light" if light else "vectors"
    return found(made_of, name, effort, lambda symbol: assembly(emit, key, symbol), source is not None)


def found(
    made_of: tuple[Any, ...], name: str, effort: str, write: Callable[[str], str], keep: bool = True
) -> int:
    """The address of a C function, loaded from disk or compiled.

    Args:
        made_of: tells it from all others, in any process.
        name: for people.
        effort: what is left to LLVM: "light", as `address_of` has it; "vectors", where these are written
            already; "loops", for code that leaves all to it.
        write: gives the assembly in which the function has the symbol that it is told.
        keep: whether to keep the code on disk.
    """
    import llvmlite

    with _lock, paused_collection():
        host = _host()
        versions = (platform.python_version(), llvmlite.__version__)
        cpu = (host.triple, host.cpu, host.features, vector_bytes())
        identity = repr((*made_of, versions, cpu))
        symbol = f"kernelwright_{sha256(identity.encode()).hexdigest()[:32]}"
        if keep and symbol in _addresses:
            return _addresses[symbol]
        path = kept.file_for(name, identity, ".o")
        try:
            code = kept.read(path) if keep else None
            if code is not None:
                with compiling.loading():
                    address = _addresses[symbol] = host.load(code, symbol)
                counts["loaded"] += 1
                return address
        except (ValueError, RuntimeError) as problem:
            kept.set_aside(path, problem)
        with compiling.compiling():
            code = host.compiled(write(symbol), effort)
        counts["compiled"] += 1
        if keep:  # what was typed at a prompt has no name that would hold in another process
            kept.keep(path, code)
        address = _addresses[symbol] = host.load(code, symbol)
        return address


def assembly(emit: Emit, key: tuple[Any, ...], symbol: str = "task") -> str:
    """The LLVM assembly that an emitter writes, before any optimisation."""
    module = ir.Module(name=symbol)
    module.triple = binding.get_process_triple()
    function = ir.Function(module, TASK, symbol)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, *function.args, *key)
    builder.ret_void()
    return str(module)
