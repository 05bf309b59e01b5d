"""Numba functions for other compiled code alone: typed and lowered once, optimised where they end up.

Numba treats each function that another one calls as if Python called it too: it links in all that the
function needs, optimises that, makes machine code of it and of two wrappers, and only then hands the
optimised form on, to be optimised again inside the caller. A kernel is a chain of a dozen functions with the
same micro-kernels at its end, so most of its compile time went into machine code that nobody runs. A part
keeps its own LLVM module and the list of what it calls. The function at the top, which has an entry, links
all of them once, and LLVM sees the whole call tree at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from llvmlite import binding
from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.typed_passes import NopythonRewrites
from numba.core.untyped_passes import InlineClosureLikes


class _NoEngine:
    """A code generator that gives no environment to functions: those of parts have no address."""

    def __init__(self, codegen: Any):
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, name: str, env: Any) -> None: ...


class PartLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The code of one part, as it was lowered."""

    @property
    def codegen(self) -> Any:
        return _NoEngine(self._codegen)

    def add_llvm_module(self, ll_module: Any) -> None:
        self._final_module.link_in(ll_module)

    def finalize(self) -> None:
        self._raise_if_finalized()
        for fn in self._final_module.functions:
            if not fn.is_declaration and fn.linkage == binding.Linkage.external:
                fn.linkage = "linkonce_odr"
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """0: there is no machine code."""
        self._ensure_finalized()
        return 0

    def _needed(self) -> list[Any]:
        """This library and all that it needs, each before those that it needs.

        LLVM links a `linkonce_odr` function only where something asks for it already.
        """
        order: list[Any] = []
        seen: set[int] = set()

        def visit(library: Any) -> None:
            if id(library) not in seen:
                seen.add(id(library))
                for other in library._linking_libraries if isinstance(library, PartLibrary) else ():
                    visit(other)
                order.append(library)

        visit(self)
        return order[::-1]

    def _get_module_for_linking(self) -> Any:
        """A module with all that the part needs."""
        self._ensure_finalized()
        module = self._final_module.clone()
        for library in self._needed()[1:]:
            if isinstance(library, PartLibrary):
                library._ensure_finalized()
                one = library._final_module
            else:
                one = library._get_module_for_linking()
            module.link_in(one, preserve=True)
        return module


# What looks for comprehensions and inner functions, and for array expressions: parts have neither.
_NEEDLESS = (InlineClosureLikes, NopythonRewrites)


class _PartCompiler(Compiler):  # type: ignore[misc]
    """Numba's compiler, with a `PartLibrary` for what it makes."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        if self.state.library is None:
            self.state.library = PartLibrary(self.state.targetctx.codegen(), "part")

    def define_pipelines(self) -> Any:
        (passes,) = super().define_pipelines()
        passes.passes = [one for one in passes.passes if one[0] not in _NEEDLESS]
        return [passes]


def made_part(fn: Callable[..., Any]) -> Any:
    """`fn` as a Numba function that only compiled code may call."""
    made = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_PartCompiler)(fn)

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{fn.__name__} is a part of kernels: compiled code can call it, Python can't.")

    # It has no wrapper that Python could go through: the dispatcher's table, which leads there, stays empty.
    made._insert = lambda *entry: None
    made._compile_for_args = refuse
    return made
