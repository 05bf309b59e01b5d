"""Matrix products of bfloat16 on the tile registers of AMX: `matmul`, and `linear` with its ending.

    tiles             B (w^T) is packed in blocks, into the panels of pairs that the vector kernels read too
    prepacked_tiles   w was packed before: the same format, `pairs64`

    32 rows of A x 64 columns of B, as twice 2 x 2 tiles of 16 x 16 sums        (kernels/cpu/amx.py)
    the loops around them, and what is copied where tiles would reach too far   (kernels/cpu/amx_gemm.py)

A step of the inner loop loads 4 tiles of 1 KB (64 lines, two of which a core reads a cycle: 32 cycles) and
multiplies 4 times (16 cycles each: 64), so that the arithmetic bounds it while A and B are near. The
instruction takes subnormal numbers for 0, as the vector instruction for pairs does; it adds up the even and
the odd numbers of 32 along k apart, and then adds both to the sum.

Nothing here was measured: no machine that this was written on has AMX. What holds it up instead is in
tests/kernels/matmul/test_amx.py. And where a machine has AMX, a proof runs there before any call does
(amx_proof.py).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..cpu.cycles import seconds
from ..kernel import Config, Launch
from ..op import Attrs, Specs
from ..registry import kernel
from . import amx_proof, ending
from .cpu_numba_linear import call_of
from .ending import Ending
from .geometry import geometry
from .prepack import format_for

CONFIGS: tuple[Config, ...] = (
    {"kc": 512, "nc": 512, "mc": 256},
    {"kc": 1024, "nc": 512, "mc": 256},
    {"kc": 256, "nc": 512, "mc": 256},
)
"""k in blocks. Of 512, 32 rows of A (32 KB) stay in an L1 cache of 48 KB for both halves of a panel, which
comes from L2; of 256, the panel (32 KB) stays there too, and sums are read and written twice as often; of
1024, half as often, and A comes from L2."""


@lru_cache(maxsize=1024)
def _matmul(specs: Specs) -> Ending:
    return Ending(geometry(specs), "pairs")


def _linear(specs: Specs, attrs: Attrs) -> Ending:
    return replace(call_of(specs, attrs["activation"], bool(attrs["w_format"])), compute="pairs")


# --- matmul -------------------------------------------------------------------------------------------------


def matmul_supports(specs: Specs, attrs: Attrs) -> str | None:
    return amx_proof.problem()


def matmul_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(ending.amx_split(_matmul(specs), config, threads).cycles)


@kernel(
    "matmul",
    dtypes="bfloat16",
    name="tiles",
    supports=matmul_supports,
    configs=CONFIGS,
    model=matmul_model,
    binds=True,
)
def matmul_tiles(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Tiles of 16 x 16 sums."""
    e = _matmul(specs)
    launch = ending.bind_amx(e, config, threads, "matmul")
    if e.g.swapped:
        return lambda a, b, out: launch(b, a, out, None, None)
    return lambda a, b, out: launch(a, b, out, None, None)


# --- linear -------------------------------------------------------------------------------------------------


def tiles_supports(specs: Specs, attrs: Attrs) -> str | None:
    if attrs["w_format"]:
        return "takes a weight that is not packed"
    return amx_proof.problem()


def prepacked_supports(specs: Specs, attrs: Attrs) -> str | None:
    if not attrs["w_format"]:
        return "takes a packed weight"
    reason = amx_proof.problem()
    if reason is None and attrs["w_format"] != format_for("bfloat16"):
        reason = f"reads {format_for('bfloat16')} here, and the weight is packed as {attrs['w_format']}"
    return reason


def linear_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(ending.amx_split(_linear(specs, attrs), config, threads).cycles)


def _bound(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    launch = ending.bind_amx(_linear(specs, attrs), config, threads, "linear")
    return lambda x, w, b, residual, y: launch(x, w, y, b, residual)


@kernel(
    "linear",
    dtypes="bfloat16",
    name="tiles",
    supports=tiles_supports,
    configs=CONFIGS,
    model=linear_model,
    binds=True,
)
def linear_tiles(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Blocks of w^T packed into panels."""
    return _bound(specs, attrs, config, threads)


@kernel(
    "linear",
    dtypes="bfloat16",
    name="prepacked_tiles",
    supports=prepacked_supports,
    configs=CONFIGS,
    model=linear_model,
    binds=True,
)
def linear_prepacked(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Panels that were packed before."""
    return _bound(specs, attrs, config, threads)
