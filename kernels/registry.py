"""Which code computes an op: `@kernel`, `Kernel`, and how kernels are found.

Built-in kernels live in files `kernels/<family>/<device>_<language>*.py`, which are imported the first time
that a kernel for that op and device is asked for, never by `import kernelwright`. An extender's kernels come
from anywhere: a file that the program imports itself, `load_file(path)`, the environment variable
KERNELWRIGHT_KERNELS with paths of files, or an installed package's entry point in the group
`kernelwright.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from threading import RLock
from typing import Any, TypeVar

from . import discovery
from .errors import DTypeError, RegistrationError
from .kernel import Configs, ExtraError, Kernel, Model, Supports, make_kernel
from .op import get_op
from .settings import clear_memos
from .spec import FEW_OPS_NAMES, SHORT_NAMES, check_device

F = TypeVar("F", bound=Callable[..., Any])

_KERNELS: dict[tuple[str, str], tuple[Kernel, ...]] = {}
_LOCK = RLock()
# Apart from _LOCK: a thread that imports a kernel file by itself holds Python's lock of that module while it
# registers, and would wait for ever for a thread that holds _LOCK and imports the same module.
_DISCOVERY_LOCK = RLock()
_generation = 0


def kernel(
    op_name: str,
    *,
    device: str = "cpu",
    dtypes: str | Sequence[str] = ("float32",),
    name: str | None = None,
    language: str = "numba",
    supports: Supports | None = None,
    configs: Configs | Sequence[Mapping[str, Any]] | None = None,
    rank: int = 0,
    model: Model | None = None,
    binds: bool = False,
    error: ExtraError | None = None,
) -> Callable[[F], F]:
    """Declare that the decorated function computes an op. This decorator is all that a kernel needs.

    The function is `fn(*inputs, *outputs, *rest)`: NumPy arrays in, results written into the outputs, nothing
    allocated, inputs never touched. It is compiled with Numba at its first call, in the form in which it is
    written or as the `@numba.njit` dispatcher that it already is. `rest` are parameters named after entries
    of its configurations, attributes of the op, or `threads`; each gets that value. A function with the
    parameters `part` and `parts` computes part number `part` of `parts` of the outputs, and the thread team
    shares the parts; bfloat16 and float16 arrays reach it as uint16, the bits (see `cpu/entry.py`).

    With `binds=True` the function is instead `fn(specs, attrs, config, threads) -> launch`, is called once
    for each problem (specs: of the inputs, then of the outputs), and returns `launch(*inputs, *outputs)`.

    Args:
        op_name: the op that is computed, such as `"matmul"`.
        device: where: `"cpu"` or `"cuda"`.
        dtypes: the dtype or dtypes that the inputs may have, all the same one.
        name: the kernel's name, unique for an op and device; the function's name unless given.
        language: `"numba"`, `"triton"`, ...; what `kw.using(backend=...)` selects.
        supports: `supports(specs, attrs) -> None | str`: None, or the reason why the kernel cannot run that
            call.
        configs: the configurations that tuning may choose from, as dicts of str, int, float or bool; or a
            function `configs(specs, attrs, threads)` that returns them. The first is the default.
        rank: the order among kernels without a model, higher first. Above 0, the kernel goes before all of
            rank 0.
        model: `model(specs, attrs, config, threads) -> float | None`: predicted seconds. Kernels with a model
            go before those without one.
        binds: see above.
        error: an `ExtraError`, for a kernel whose errors may be larger than the standard budget: it is judged
            by what it declares, and does not run under `kw.using(extra_error=False)`, nor in float64 unless
            under `extra_error=True`.

    Returns:
        The function, unchanged.

    Raises:
        RegistrationError: when the declaration means nothing, or when another kernel makes the same claim:
            the same op, device and name, or the same op, device, dtype and rank without a model on either
            side.
    """
    op = get_op(op_name)
    names = (dtypes,) if isinstance(dtypes, str) else tuple(dtypes)
    for dtype in names:
        if dtype not in SHORT_NAMES and dtype not in FEW_OPS_NAMES:
            raise DTypeError(
                f"@kernel({op_name!r}, dtypes=...): {dtype!r} is none of {', '.join(SHORT_NAMES)}."
            )
    if not names:
        raise RegistrationError(f"@kernel({op_name!r}) names no dtype; write dtypes=('float32',).")
    check_device(device)

    def register(function: F) -> F:
        made = make_kernel(
            function,
            op=op,
            device=device,
            dtypes=names,
            name=name,
            language=language,
            supports=supports,
            configs=configs,
            rank=rank,
            model=model,
            binds=binds,
            error=error,
        )
        _add(made)
        return function

    return register


def _add(made: Kernel) -> None:
    with _LOCK:
        key = (made.op, made.device)
        kept = [old for old in _KERNELS.get(key, ()) if not made.replaces(old)]
        for old in kept:
            clash = made.clash(old)
            if clash:
                raise RegistrationError(
                    f"{made.id} ({made.where}) and {old.id} ({old.where}) are both {clash}"
                )
        _KERNELS[key] = (*kept, made)
        _changed()


def unregister(kernel: Kernel) -> None:
    """Take a kernel out again. Nothing happens when it is not there."""
    with _LOCK:
        key = (kernel.op, kernel.device)
        _KERNELS[key] = tuple(known for known in _KERNELS.get(key, ()) if known is not kernel)
        _changed()


def put_in_place(kernel: Kernel, **changes: Any) -> Kernel:
    """Register, in the place of a kernel, one that differs in some of its fields; it is returned."""
    made = replace(kernel, **changes)
    _add(made)
    return made


def _changed() -> None:
    global _generation
    _generation += 1
    clear_memos()


def generation() -> int:
    """A number that grows whenever kernels come or go; what was worked out under another one may be stale."""
    return _generation


def kernels_for(op_name: str, device: str = "cpu") -> tuple[Kernel, ...]:
    """Every kernel for the op on the device (`"cuda:1"` counts as `"cuda"`), in the order of registration.

    The first time, this imports the built-in files for that op and device and everything extenders have
    announced. An extender's file that fails is an ExtensionWarning; a built-in one whose framework is not
    installed is left out, and `missing(op, device)` tells.
    """
    kind = device.partition(":")[0]
    with _DISCOVERY_LOCK:
        discovery.discover(get_op(op_name), kind, _BOOK)
    return _KERNELS.get((op_name, kind), ())


def registered() -> set[Kernel]:
    """The kernels that are known by now; nothing is imported."""
    return {kernel for kernels in _KERNELS.values() for kernel in kernels}


def missing(op_name: str, device: str = "cpu") -> tuple[str, ...]:
    """Why built-in kernel files for the op and device could not be loaded: one sentence each."""
    return discovery.missing(get_op(op_name), device.partition(":")[0])


def load_file(path: str | PathLike[str]) -> tuple[Kernel, ...]:
    """Run a Python file, unless it ran before and is unchanged, and return the kernels it declares.

    Raises:
        RegistrationError: when there is no such file, or it is no Python file.
        Exception: whatever the file raises; its kernels are then not registered.
    """
    with _DISCOVERY_LOCK:
        source = discovery.load_file(path, _BOOK)
    return tuple(k for kernels in _KERNELS.values() for k in kernels if k.source_file == source)


def _restore(before: set[Kernel]) -> None:
    now = registered()
    for kernel in now - before:
        unregister(kernel)
    for kernel in before - now:
        _add(kernel)


def _forget(source_file: str) -> None:
    for kernel in registered():
        if kernel.source_file == source_file:
            unregister(kernel)


_BOOK = discovery.Book(registered, _restore, _forget)
