"""The schedule on AMX tiles, carried out in NumPy as the manual has it, and the machine code that it becomes.

No machine that runs these tests needs AMX: the kernels themselves run in tests/kernels/matmul/test_amx.py.
"""

from __future__ import annotations

import platform
import re
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from amx_machine import TileError, TileMachine, dot, fused, tile_sums
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding

from kernelwright.kernels.cpu.amx import LINE, ROWS, SHAPES, STEP, configuration, module_of, product
from kernelwright.kernels.cpu.amx_gemm import B_RS, COLUMNS, LANES, PANEL
from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.cpu.pairs import pair_copies

BF16 = np.dtype(ml_dtypes.bfloat16)
X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="waits for a compiler that knows x86-64"
)


def panel_of(b: np.ndarray) -> np.ndarray:
    """[pairs, 64, 2]: a panel of pairs; k is even and there are 64 columns."""
    return np.ascontiguousarray(b.reshape(-1, 2, PANEL).transpose(0, 2, 1))


# --- the arithmetic, as the manual has it -------------------------------------------------------------------


def one_dot(c: float, a: list[float], b: list[float]) -> float:
    left, right = np.zeros((1, 32), BF16), np.zeros((16, 2), BF16)
    left[0, : len(a)], right.reshape(-1)[: len(b)] = a, b
    return float(dot(np.full((1, 1), c, np.float32), left.view(np.uint8), right.view(np.uint8))[0, 0])


def test_even_and_odd_products_are_added_up_apart_and_then_to_the_sum() -> None:
    big, half_a_bit = 2.0**24, 1.0
    # Even: 2^24 + 1 + 1, each 1 lost to rounding. Odd: 1 + 1 = 2, which together with 2^24 counts.
    assert one_dot(0.0, [big, 1, 1, 1, 1, 0], [1, 1, half_a_bit, 1, half_a_bit, 0]) == big + 2
    # Had they been added one after the other, all four would have been lost.
    in_order = np.float32(0)
    for term in (big, 1, 1, 1, 1):
        in_order += np.float32(term)
    assert float(in_order) == big


def test_subnormal_numbers_count_as_zero() -> None:
    tiny = 2.0**-130
    assert one_dot(0.0, [tiny], [2.0**100]) == 0.0, "an input"
    assert one_dot(0.0, [2.0**-70], [2.0**-65]) == 0.0, "a result"
    assert one_dot(tiny, [0.0], [1.0]) == 0.0, "the sum that was there"


def test_products_round_once() -> None:
    """Against exact integers: 53 bits are too few for a sum in float64 to be rounded to float32 after."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(129, 256, 4000).astype(np.float32) for _ in range(2))
    c = np.ldexp(rng.integers(2**23, 2**24, 4000).astype(np.float32), rng.integers(-50, 12, 4000))
    c *= rng.choice(np.float32([-1, 1]), 4000)
    got = fused(a, b, c)
    for x, y, z, result in zip(a, b, c, got, strict=True):
        scaled = int(x) * int(y) * 2**60 + int(np.ldexp(float(z), 60))
        assert float(result) == rounded_to_single(scaled) / 2**60


def rounded_to_single(value: int) -> float:
    """A whole number rounded to 24 bits, to nearest even."""
    shift = max(abs(value).bit_length() - 24, 0)
    low, rest = divmod(abs(value), 2**shift)
    low += 2 * rest > 2**shift or (2 * rest == 2**shift and low % 2 == 1)
    return float(low * 2**shift) * (-1 if value < 0 else 1)


def test_the_machine_refuses_what_a_cpu_would() -> None:
    good = bytearray(configuration())
    for place, value in ((0, 2), (1, 1), (5, 1), (16, 65), (48, 17), (48, 0), (40, 1), (60, 1)):
        bad = bytearray(good)
        bad[place] = value
        with pytest.raises(TileError):
            TileMachine(bytes(bad))
    machine = TileMachine(bytes(good))
    at = machine.place(np.zeros(1024, np.uint8))
    with pytest.raises(TileError, match="reads 64 bytes"):
        machine.load(4, at + 1, 64)
    with pytest.raises(TileError, match="writes"):
        machine.store(0, at, 64)
    with pytest.raises(TileError, match="differ"):
        machine.dot(0, 4, 4)


# --- the schedule -------------------------------------------------------------------------------------------


@settings(max_examples=120)
@given(
    st.sampled_from(SHAPES),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_a_product_is_right_and_reads_nothing_else(
    shape: tuple[int, int], steps: int, tail: bool, add: bool, apart: bool, seed: int
) -> None:
    """Memory holds just what the call describes: any other access is an error of the machine."""
    rng = np.random.default_rng(seed)
    down, across = shape
    m, k, n = ROWS * down, STEP * (steps + tail), ROWS * across
    a, b = rng.standard_normal((m, k)).astype(BF16), rng.standard_normal((k, n)).astype(BF16)
    c = rng.standard_normal((m, n)).astype(np.float32)
    machine = TileMachine(configuration())
    # Rows of A with something in between, and its lower half in another place, if apart.
    gap = int(rng.integers(0, 3)) * 5
    rows = np.full((m, STEP * steps + gap), np.nan, BF16)
    rows[:, : STEP * steps] = a[:, : STEP * steps]
    a_rs = rows.shape[1] * 2

    def without_last_gap(part: np.ndarray) -> np.ndarray:
        return part.reshape(-1)[: part.size - gap] if gap else part

    first = machine.place(without_last_gap(rows[:ROWS] if apart else rows))
    below = machine.place(without_last_gap(rows[ROWS:])) if apart else first + ROWS * a_rs
    a_tail = machine.place(a[:, STEP * steps :]) if tail else -1
    wide = np.zeros((k, PANEL), BF16)
    wide[:, :n] = b
    words = panel_of(wide)[:, :n]  # half a panel, or all of it
    held = np.full((words.shape[0], PANEL, 2), np.nan, BF16)
    held[:, :n] = words
    end = held[: ROWS * steps].size - 2 * (PANEL - n) if steps else 0
    b_at = machine.place(held[: ROWS * steps].reshape(-1)[:end])
    b_tail = (
        machine.place(held[ROWS * steps :].reshape(-1)[: ROWS * PANEL * 2 - 2 * (PANEL - n)]) if tail else -1
    )
    c_at = machine.place(c if add else np.full_like(c, np.nan), writable=True)
    call = (steps, first, a_rs, below, a_rs, a_tail, b_at, B_RS, b_tail, int(tail), c_at, 4 * n, int(add))
    product(machine, shape, call)
    result = machine.read(c_at, np.float32, (m, n))
    exact = a.astype(np.float64) @ b.astype(np.float64) + (c if add else 0)
    np.testing.assert_allclose(result, exact, rtol=1e-5, atol=1e-4)
    if not add:
        np.testing.assert_array_equal(result, tile_sums(a, b))
    assert machine.products == 4 * (steps + tail)
    assert machine.stores == 4
    loads = {(2, 2): 4, (1, 4): 5}[shape]
    assert machine.loads == loads * (steps + tail) + 4 * add


def test_half_a_packed_panel_is_a_tile_of_b() -> None:
    """The panels that the vector kernels pack: 16 rows of them, 16 columns wide, are tiles as they are."""
    packed = pair_copies(LANES, COLUMNS).panels
    rng = np.random.default_rng(1)
    b = rng.standard_normal((STEP, 100)).astype(BF16)
    panels = np.zeros((2, ROWS, PANEL, 2), BF16)

    def pack(dst, src, src_rs, src_cs, k, n):  # type: ignore[no-untyped-def]
        packed(dst, src, src_rs, src_cs, k, n)

    entry = compiled(pack, name="packing for a test", key=(LANES, COLUMNS)).entry((np.int64,) * 6)
    entry(panels.ctypes.data, b.ctypes.data, *b.strides, *b.shape)
    assert panels.strides[1] == B_RS
    a = rng.standard_normal((ROWS, STEP)).astype(BF16)
    for column in range(0, 100, ROWS):
        machine = TileMachine(configuration())
        a_at, b_at = machine.place(a), machine.place(panels[column // PANEL])
        machine.load(4, a_at, a.strides[0])
        machine.load(6, b_at + column % PANEL * 4, B_RS)
        machine.zero(0)
        machine.dot(0, 4, 6)
        sums = machine.tiles[0].view(np.float32)
        width = min(ROWS, 100 - column)
        expected = tile_sums(a, b[:, column : column + width])
        np.testing.assert_array_equal(sums[:, :width], expected)
        assert not sums[:, width:].any(), "columns after the last are zeros"


class Mistaken(TileMachine):
    """A machine on which a schedule goes wrong in one way, to see that the test above would notice."""

    def __init__(self, mistake: str):
        super().__init__(configuration())
        self.mistake = mistake

    def dot(self, sums: int, a: int, b: int) -> None:
        super().dot(sums ^ (self.mistake == "swaps tiles of sums"), a, b)

    def zero(self, tile: int) -> None:
        if self.mistake != "leaves out the zeros":
            super().zero(tile)

    def load(self, tile: int, address: int, stride: int) -> None:
        late = self.mistake == "keeps a tile of A" and tile == 4 and self.loads > 4
        if not late:
            super().load(tile, address, stride)
        else:
            self.loads += 1


@pytest.mark.parametrize("mistake", ["swaps tiles of sums", "leaves out the zeros", "keeps a tile of A"])
def test_mistakes_in_a_schedule_show(mistake: str) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((32, 64)).astype(BF16), rng.standard_normal((64, PANEL)).astype(BF16)
    machine = Mistaken(mistake)
    machine.tiles[:4] = 63  # what was there before
    a_at, b_at = machine.place(a), machine.place(panel_of(b))
    c_at = machine.place(np.zeros((32, 32), np.float32), writable=True)
    product(machine, (2, 2), (2, a_at, 128, a_at + 2048, 128, 0, b_at, B_RS, 0, 0, c_at, 128, 0))
    result = machine.read(c_at, np.float32, (32, 32))
    assert not np.allclose(result, a.astype(np.float64) @ b[:, :32].astype(np.float64), atol=1e-3)


# --- the machine code ---------------------------------------------------------------------------------------

_TILE = re.compile(r"^\s*(ldtilecfg|tileloadd|tilestored|tilezero|tdpbf16ps|tilerelease)\b(.*)$")


@cache
def assembly(shape: tuple[int, int]) -> tuple[str, ...]:
    """The lines of a product compiled for the first CPU that has AMX, whatever this one is."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    module = binding.parse_assembly(module_of(shape))
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu="sapphirerapids", opt=3)
    options = binding.create_pipeline_tuning_options(speed_level=3)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return tuple(machine.emit_assembly(module).splitlines())


def tile_lines(shape: tuple[int, int]) -> list[tuple[str, str]]:
    found = (_TILE.match(line) for line in assembly(shape))
    return [(match[1], match[2]) for match in found if match]


@X86
@pytest.mark.parametrize("shape", SHAPES)
def test_all_tile_instructions_are_there_and_no_tile_is_spilled(shape: tuple[int, int]) -> None:
    lines = tile_lines(shape)
    names = [name for name, _ in lines]
    assert names[0] == "ldtilecfg"
    assert names[-1] == "tilerelease"
    assert names.count("ldtilecfg") == names.count("tilerelease") == 1
    assert names.count("tilezero") == names.count("tilestored") == 4, "stores are those of the sums alone"
    assert not any("%rsp" in operands for _, operands in lines[1:]), "a tile on the stack"


@X86
@pytest.mark.parametrize(("shape", "loads"), [((2, 2), 4), ((1, 4), 5)])
def test_a_step_of_the_inner_loop_has_four_products_and_its_loads(shape: tuple[int, int], loads: int) -> None:
    """The loop may be unrolled: per four products there are as many loads as the tiling says."""
    blocks: list[list[str]] = [[]]
    loops = []
    for line in assembly(shape):
        label = re.match(r"^(\.\w+):", line)
        if label:
            blocks.append([label[1]])
            continue
        blocks[-1].append(line)
        jump = re.match(r"^\s*j\w+\s+(\.\w+)", line)
        if jump and blocks[-1][0] == jump[1]:
            loops.append("\n".join(blocks[-1]))
    (loop,) = [body for body in loops if "tdpbf16ps" in body]
    products = len(re.findall(r"\btdpbf16ps\b", loop))
    assert products >= 4
    assert products % 4 == 0
    assert len(re.findall(r"\btileloadd\b", loop)) == products // 4 * loads
    others = re.findall(r"\b(tilestored|tilezero|ldtilecfg|tilerelease)\b", loop)
    assert not others
    # Besides, the loop only moves its pointers.
    plain = [line for line in loop.splitlines()[1:] if line.strip() and not _TILE.match(line)]
    assert len(plain) <= 4 * products, loop


@X86
def test_each_product_takes_a_from_4_and_5_and_b_from_6_and_7() -> None:
    """In the assembler's order: B, A, sums. That order is the manual's turned round."""
    seen = {
        tuple(re.findall(r"%tmm(\d)", operands))
        for name, operands in tile_lines((2, 2))
        if name == "tdpbf16ps"
    }
    assert seen == {("6", "4", "0"), ("6", "5", "2"), ("7", "4", "1"), ("7", "5", "3")}


def test_the_configuration_is_that_of_eight_full_tiles() -> None:
    text = configuration()
    assert len(text) == LINE
    assert text[:16] == bytes([1]) + bytes(15)
    assert text[16:32] == b"\x40\x00" * 8
    assert text[48:56] == b"\x10" * 8
    assert not any(text[32:48] + text[56:])
