"""Matrix products that end with an epilogue: what `linear` and the 16-bit matmul kernels share.

    C = activation(A B + bias + residual)       sums in float32 or float64, C in the dtype of A and B

The tasks are those of `gemm`, `amx_gemm` and `thin` with `ends`; here a call is turned into their argument
block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cpu import gemm as words
from ..cpu.cycles import ceil_div
from ..kernel import Config, Launch
from ..machine import vector_bytes
from . import model
from .geometry import Geometry
from .split import Split, best_split

PAGE = 4096
ROWS_HELD = 1024
"""Rows whose sums are kept in scratch while k is done in several blocks: B is packed again for the next."""

_FACTS = (
    *("M", "N", "K", "BATCH", "A_RS", "A_CS", "B_RS", "B_CS"),
    *("C_RS", "C_CS", "A_BS", "B_BS", "C_BS"),
)


@dataclass(frozen=True)
class Ending:
    """A matrix product and what follows it.

    Attributes:
        g: the product.
        compute: what is computed with: "float32", "float64" or "pairs" of bfloat16.
        activation: one of `kernels.activations`, or "".
        terms: whether there is a bias or a residual.
        bias_cs: bytes from element to element of the bias.
        residual: bytes from row to row, from column to column and from matrix to matrix of the residual.
        table: offsets of A, B, C and the residual, for a batch without one step.
        panels: B was packed before.
    """

    g: Geometry
    compute: str
    activation: str = ""
    terms: bool = False
    bias_cs: int = 0
    residual: tuple[int, int, int] = (0, 0, 0)
    table: NDArray[np.int64] | None = None
    panels: bool = False

    @property
    def lanes(self) -> int:
        """Elements in a vector of sums."""
        return vector_bytes() // self.size

    @property
    def size(self) -> int:
        """Bytes of a sum, and of an element of the packed operands."""
        return 8 if self.compute == "float64" else 4

    @property
    def group(self) -> int:
        """How many of k an element of the packed operands holds."""
        return 2 if self.compute == "pairs" else 1

    @property
    def loaded(self) -> str:
        """The dtype of an element of the operands where it is read in place."""
        return self.compute if self.group > 1 else self.g.dtype

    @property
    def widens(self) -> bool:
        """Whether 16-bit operands are made 32-bit ones."""
        return self.group * self.g.itemsize < self.size

    def computed(self) -> Geometry:
        """The product in elements of packed operands, for the models of time."""
        g, stored = self.g, self.g.itemsize

        def stride(step: int) -> int:
            return self.size if step == stored else self.size + max(step // self.group, 1)

        b_cs = self.size if self.panels else stride(g.b_cs)
        k = ceil_div(g.k, self.group)
        return replace(g, itemsize=self.size, k=k, a_cs=stride(g.a_cs), b_cs=b_cs, b_rs=stride(g.b_rs))


def split_of(e: Ending, config: Config, threads: int) -> Split:
    """How a call in register tiles is cut into tasks, and the cycles that are expected."""

    def cycles(g: Geometry, m: int, n: int, lanes: int, config: Config) -> float:
        return model.ending_cycles(e.computed(), m, n, lanes, config, panels=e.panels, widens=e.widens)

    inner = {**config, "kc": ceil_div(config["kc"], e.group), "low": words.low_tile(config["mr"], True)}
    return best_split(e.g, threads, (config["mr"], config["nv"] * e.lanes), cycles, e.lanes, inner)


def dots_split(e: Ending, config: Config, threads: int) -> Split:
    """The same for inner products."""

    def cycles(g: Geometry, m: int, n: int, lanes: int, config: Config) -> float:
        ends = m * ceil_div(n, lanes) * model.FINISH
        return model.dots_cycles(e.computed(), m, n, lanes, config) * (1.5 if e.widens else 1.0) + ends

    return best_split(e.g, threads, (config["mr"], config["nr"]), cycles, e.lanes, config)


def bind_panels(e: Ending, config: Config, threads: int, name: str) -> Callable[..., None]:
    """A launch(A, B, C, bias, residual) of the register tile `config["mr"]` x `config["nv"]` vectors."""
    g, mr, nr = e.g, config["mr"], config["nv"] * e.lanes
    split = split_of(e, config, threads)
    kc = max(e.group, min(config["kc"], ceil_div(g.k, e.group) * e.group))
    steps = ceil_div(kc, e.group)
    mc = ceil_div(min(config["mc"], max(g.m, 1)), mr) * mr
    nc = ceil_div(min(config["nc"], max(split.n, 1)), nr) * nr
    in_place = g.a_cs == g.itemsize and not e.widens and g.k % e.group == 0
    # One panel after the other would have A packed for each.
    pack_a = int(not in_place or (nc > nr and model.packs_a(g, split.n)))
    in_c = g.c_cs == g.itemsize == e.size
    # Sums go to C where they can stay there, to a buffer of one tile where they are complete at once.
    sums = words.IN_C if in_c else words.IN_TILE if kc >= g.k else words.IN_ROWS
    ms = ceil_div(min(ROWS_HELD, max(split.m, 1)), mr) * mr if sums == words.IN_ROWS else max(g.m, 1)
    held = _lines(nc * steps * e.size) + _lines(pack_a * mc * (steps * e.size + words.ROW_PAD))
    room = {words.IN_C: 0, words.IN_TILE: mr * nr, words.IN_ROWS: ms * nc}[sums] * e.size
    values = {
        "KC": kc,
        "MC": mc,
        "NC": nc,
        "MS": ms,
        "PACK_A": pack_a,
        "SUMS": sums,
        "HELD": held,
    }
    task = words.gemm_task(e.compute, e.lanes, mr, config["nv"], pack_b=True, stored=g.dtype, ends=True)
    key = ("ends", e.compute, g.dtype, e.lanes, mr, config["nv"])
    # Nothing is left to do for sums in C; those of pairs are rounded by the register tile.
    bare = not e.terms and not e.activation and g.c_cs == g.itemsize
    ends_itself = bare and (in_c or e.compute == "pairs")
    return _bind(e, split, (task, key), name, held + room, values, ends_itself)


def amx_split(e: Ending, config: Config, threads: int) -> Split:
    """The same on AMX tiles."""

    def cycles(g: Geometry, m: int, n: int, lanes: int, config: Config) -> float:
        packs = _amx_packs(e, n)
        return model.amx_cycles(e.computed(), m, n, lanes, config, panels=e.panels, packs=packs)

    return best_split(e.g, threads, (32, 64), cycles, e.lanes, config)


def _amx_packs(e: Ending, n: int) -> bool:
    """Whether A is copied: tiles read rows that are contiguous along k, wherever they are."""
    return e.g.a_cs != e.g.itemsize or model.packs_a(e.g, n)


def bind_amx(e: Ending, config: Config, threads: int, name: str) -> Callable[..., None]:
    """A launch(A, B, C, bias, residual) on AMX tiles, of bfloat16 in pairs."""
    from ..cpu import amx_gemm

    g, height, panel = e.g, amx_gemm.HEIGHT, amx_gemm.PANEL
    split = amx_split(e, config, threads)
    kc = max(1, min(config["kc"], g.k))
    mc = ceil_div(min(config["mc"], max(g.m, 1)), height) * height
    nc = ceil_div(min(config["nc"], max(split.n, 1)), panel) * panel
    sums = words.IN_TILE if kc >= g.k else words.IN_ROWS
    ms = ceil_div(min(ROWS_HELD, max(split.m, 1)), height) * height if kc < g.k else max(g.m, 1)
    held = amx_gemm.scratch_words(kc, mc, nc)["sums"]
    room = (height * panel if sums == words.IN_TILE else ms * nc) * e.size
    values = {
        "KC": kc,
        "MC": mc,
        "NC": nc,
        "MS": ms,
        "PACK_A": int(_amx_packs(e, split.n)),
        "SUMS": sums,
        "HELD": held,
    }
    return _bind(e, split, (amx_gemm.amx_task(), ("amx",)), name, held + room, values)


def bind_dots(e: Ending, config: Config, threads: int, name: str) -> Callable[..., None]:
    """A launch(A, B, C, bias, residual) by inner products, `config["mr"]` x `config["nr"]` at a time."""
    from ..cpu.thin import dots_task

    g, mr, nr = e.g, config["mr"], config["nr"]
    split = dots_split(e, config, threads)
    sums = words.IN_C if g.c_cs == g.itemsize == e.size else words.IN_ROWS
    k = g.k // e.group
    values = {"K": k, "KC": max(1, min(config["kc"], k)), "SUMS": sums}
    room = 0 if sums == words.IN_C else split.m * split.n * e.size
    task = dots_task(e.compute, e.lanes, mr, nr, stored=e.loaded, ends=True)
    return _bind(e, split, (task, ("ends", e.compute, g.dtype, e.lanes, mr, nr)), name, room, values)


def _bind(
    e: Ending,
    split: Split,
    code: tuple[Any, tuple[Any, ...]],
    name: str,
    nbytes: int,
    values: dict[str, int],
    ends_itself: bool = False,
) -> Launch:
    """The argument block written, the task and the epilogue compiled or loaded.

    With `ends_itself` there is no epilogue: the task leaves C as it is to be.
    """
    from ..cpu.epilogue import finish_task
    from ..cpu.launch import address_of_task, bind_phases

    g, stored = e.g, e.g.dtype
    sums = "float64" if e.compute == "float64" else "float32"
    ending = (sums, e.lanes, stored, e.activation, e.terms)
    stride = ceil_div(nbytes + 2 * words.ROW_PAD, PAGE) * PAGE
    facts = {fact: getattr(g, fact.lower()) for fact in _FACTS}
    facts |= {"SPLIT": split.runs, "GM": split.gm, "GN": split.gn, "SCRATCH_STRIDE": stride, **values}
    facts |= dict(zip(("R_RS", "R_CS", "R_BS"), e.residual, strict=True))
    facts |= {"BIAS_CS": e.bias_cs, "PANELS": int(e.panels)}
    if not ends_itself:
        facts["FINISH"] = address_of_task(finish_task(*ending), ending, f"the end of {name} for {stored}")
    table = g.table if e.table is None else e.table
    facts["TABLE"] = 0 if table is None else table.ctypes.data
    block = np.zeros(words.ENDING_WORDS, np.int64)
    for fact, value in facts.items():
        block[words.ENDING // 8 + getattr(words, fact)] = value
    task, key = code
    phases = [(address_of_task(task, key, f"{name} for {stored}"), split.tasks)]
    return bind_phases(block, 5, phases, split.tasks * stride, keep=table)


def _lines(nbytes: int) -> int:
    """Bytes in whole cache lines."""
    return ceil_div(nbytes, 64) * 64
