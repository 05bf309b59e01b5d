"""From what a step needs compiled to Triton's compiled kernel, for a GPU that is there or one that is not.

Triton keeps what it compiles on disk (under `TRITON_CACHE_DIR`, by default `~/.triton/cache`), keyed by the
source of the kernel and all that it calls, the variant, the chip and Triton's version.
"""

from __future__ import annotations

from typing import Any

from ..compiling import compiling
from .step import ALIGNMENT, Variant


def compile_variant(variant: Variant, capability: int) -> Any:
    """Triton's `CompiledKernel` for a chip. Needs no GPU, and no driver."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        fn=variant.fn,
        signature=dict(variant.signature),
        constexprs={(place,): value for place, value in variant.constants},
        attrs={(place,): [["tt.divisibility", ALIGNMENT]] for place in variant.multiples},
    )
    with compiling():  # or loading, which Triton does not tell apart
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(variant.options))


def build_launcher(kernel: Any) -> None:
    """Compile what launches a kernel into Triton's cache on disk, where that is C made for its signature.

    So it is in Triton 3.6, whose every new signature takes the C compiler a good part of a second when the
    kernel is loaded. Later ones have one launcher for all: nothing is to be done. Needs the driver's library,
    and no context on the device.
    """
    from triton.backends.nvidia import driver

    if hasattr(driver, "make_launcher"):
        driver.CudaLauncher(kernel.src, kernel.metadata)


def is_interpreted(fn: Any) -> bool:
    """Whether Triton's interpreter runs the function: TRITON_INTERPRET was set when it was made."""
    return type(fn).__name__ == "InterpretedFunction"
