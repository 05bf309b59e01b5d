"""Matrix products of bfloat16 and float16: C[m, n] = A[m, k] B[k, n], batched, added up in float32.

    pairs     bfloat16, on CPUs with AVX-512 BF16: one instruction multiplies 32 numbers by 32 and adds the
              products, two neighbours along k each, to 16 sums. B is packed into panels of such pairs; A is
              read in place where its rows are contiguous and k is even
    widened   both dtypes, on every CPU: operands become float32 while they are packed, and the tile is that
              of float32

    for i0 in m by 1024                sums of these rows in scratch, when k takes several blocks
      for jc in n by NC
        for k0 in k by KC              panels of B[k0:k0+KC, jc:jc+NC]
          for ic in the rows by MC
            for j by nr, for i by mr   register tile; after the last k0, rounded once into C (cpu/epilogue.py)

The pairs' instruction takes subnormal numbers for 0, and rounds after each of the two products; the sums stay
within the budget of `accuracy`. Results are rounded to nearest even, and subnormal ones are kept.
`kernelwright bench bf16` shows the share of the roof of such instructions.
"""

from __future__ import annotations

from functools import lru_cache

from ..cpu.cycles import seconds
from ..kernel import Config, Launch
from ..machine import machine, many_registers
from ..op import Attrs, Specs
from ..registry import kernel
from . import ending
from .ending import Ending
from .geometry import geometry
from .registers import pairs_problem, widening_problem


def tiles() -> list[tuple[int, int]]:
    """(rows, vectors of columns): two are enough, as each has to be compiled."""
    return [(6, 4), (12, 2)] if many_registers() else [(6, 2), (12, 1)]


@lru_cache(maxsize=1024)
def _ending(specs: Specs, compute: str) -> Ending:
    return Ending(geometry(specs), compute)


def _configs(group: int) -> list[Config]:
    return [
        {"mr": mr, "nv": nv, "kc": kc * group, "nc": 512, "mc": 192}
        for mr, nv in tiles()
        for kc in (256, 512)
    ]


def _bound(e: Ending, config: Config, threads: int) -> Launch:
    launch = ending.bind_panels(e, config, threads, "matmul")
    if e.g.swapped:
        return lambda a, b, out: launch(b, a, out, None, None)
    return lambda a, b, out: launch(a, b, out, None, None)


# --- pairs --------------------------------------------------------------------------------------------------


def pairs_supports(specs: Specs, attrs: Attrs) -> str | None:
    return pairs_problem(machine())


def pairs_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and k in blocks."""
    return _configs(2)


def pairs_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(ending.split_of(_ending(specs, "pairs"), config, threads).cycles)


@kernel(
    "matmul", dtypes="bfloat16", supports=pairs_supports, configs=pairs_configs, model=pairs_model, binds=True
)
def pairs(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The register tile over pairs of bfloat16."""
    return _bound(_ending(specs, "pairs"), config, threads)


# --- widened ------------------------------------------------------------------------------------------------


def widened_supports(specs: Specs, attrs: Attrs) -> str | None:
    return widening_problem(machine(), specs[0].dtype)


def widened_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and k in blocks."""
    return _configs(1)


def widened_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(ending.split_of(_ending(specs, "float32"), config, threads).cycles)


@kernel(
    "matmul",
    dtypes=("bfloat16", "float16"),
    supports=widened_supports,
    configs=widened_configs,
    model=widened_model,
    binds=True,
)
def widened(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The register tile of float32 over operands that are widened while they are packed."""
    return _bound(_ending(specs, "float32"), config, threads)
