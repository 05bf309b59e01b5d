"""How a recurrence in CUDA C++ is divided among blocks (`team.cuh`): what fits, and how long a step takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...cpu.cycles import ceil_div
from ...cuda.device import Device

WARPS = (8, 4)  # of a block
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
TYPES = {"float32": "float", "bfloat16": "bf16", "float16": "f16"}
UNIT_GROUPS, TILES_OF_ROWS = (1, 2, 3, 4), (1, 2, 4)
# Registers of a thread beside weights, sums and numbers on their way: seen in NVRTC's reports for the kernels
# with gradients, which need most.
_OTHER_REGISTERS = {2: 78, 4: 66}  # by the bytes of a number
_ON_THE_WAY = 48
# Seconds. From the store of one block to the registers of another and through activations, by the L2 latency
# of about 270 cycles that Luo and others measured on an H100 ("Benchmarking and Dissecting the Nvidia Hopper
# GPU Architecture via Microbenchmarking", 2024), once for the store, one and a half times for the looks; and
# a launch in a row of several.
LOOK, ENDING, LAUNCH = 0.45e-6, 0.25e-6, 3e-6
TURN = 0.35e-6  # of a tile among several: addresses, activations and a barrier, which nothing else hides
_CLOCK = 1.7e9
_L2_BYTES = 64  # that a multiprocessor gets from the L2 in a cycle
_SHARED_BYTES = 128
_MMA_CYCLES = {
    80: 8,
    90: 6.5,
    100: 8,
}  # of one scheduler for m16n8k16: 1024 or 2048 x 63% multiply-adds a cycle
_LANES = 128


@dataclass(frozen=True)
class Shape:
    """A recurrence: what the blocks of a launch compute in each step.

    Attributes:
        kind: `"lstm"`, `"gru"` or `"rnn"`.
        dtype: of all arrays.
        backward: whether it is that of the gradients, from the gates' gradients to the states'.
        steps, batch, heads, units: lengths; units of a head.
    """

    kind: str
    dtype: str
    backward: bool
    steps: int
    batch: int
    heads: int
    units: int

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return 4 if self.dtype == "float32" else 2

    @property
    def gates(self) -> int:
        """Of a unit."""
        return GATES[self.kind]

    @property
    def sums(self) -> int:
        """Of a unit, that the product makes."""
        return 1 if self.backward else self.gates

    @property
    def apart(self) -> int:
        """Numbers from a gate to the next among those that blocks show: whole words."""
        return self.units + (self.units % 2 if self.size == 2 else 0)

    @property
    def used(self) -> int:
        """Numbers that the blocks of a head show in each step for one sequence."""
        return self.apart * (self.gates if self.backward else 1)

    @property
    def apart_from_shown(self) -> bool:
        """Backward: whether the gates' gradients are also needed in another order than they are shown in."""
        return self.kind == "gru" or self.heads > 1 or self.apart != self.units

    @property
    def lanes(self) -> int:
        """float32: how many lanes split a block of k.

        With few sums, more of them, so that each number that is loaded serves as many multiply-adds.
        """
        return 8 if self.sums > 1 else 32

    @property
    def block(self) -> int:
        """Numbers of a block of k."""
        return 32 if self.size == 2 else 4 * self.lanes

    @property
    def k(self) -> int:
        """The inner length of the product, in whole blocks."""
        return ceil_div(self.used, self.block) * self.block


@dataclass(frozen=True)
class Team:
    """How a shape is divided.

    Attributes:
        shape: what is divided.
        ug: groups of 8 units that a block has.
        nt: groups of 8 sequences.
        warps: of a block.
        kept: blocks of k whose weights a warp keeps in registers.
        shared_blocks: blocks of k whose weights it keeps in shared memory.
        turns: tiles of sequences that a block computes by turns in each step.
    """

    shape: Shape
    ug: int
    nt: int
    warps: int
    kept: int
    shared_blocks: int
    turns: int = 1

    @classmethod
    def of(cls, shape: Shape, ug: int, nt: int, warps: int, many: bool, chip: Device) -> Team | None:
        """The team with blocks of that size; None when a block does not fit the chip.

        Args:
            shape: what is divided.
            ug, nt, warps: see there.
            many: whether a block has several tiles of sequences, as many as make one round of all teams.
            chip: where.
        """
        if shape.size == 4 and (
            ug not in (1, 2, 4) or (shape.backward and shape.apart_from_shown and ug > nt)
        ):
            return None  # no such groups of lanes; registers that the compiler was seen to spill
        draft = cls(shape, ug, nt, warps, 1, 0)
        teams_at_once = chip.multiprocessors // draft.unit_blocks
        if not teams_at_once:
            return None
        if many:
            draft = replace(draft, turns=ceil_div(draft.tiles, max(1, teams_at_once // shape.heads)))
            if draft.turns == 1:
                return None
        room = chip.register_limit - _OTHER_REGISTERS[shape.size] - draft._sum_registers - _ON_THE_WAY
        kept = min(draft.blocks, room // draft._block_registers)
        if kept < 1:
            return None
        left = chip.shared_bytes - draft.fixed_shared
        if left < 0:
            return None
        shared = min(draft.blocks - kept, left // draft._shared_block)
        return replace(draft, kept=kept, shared_blocks=shared)

    @property
    def _sum_registers(self) -> int:
        """And the states of the units that a thread has."""
        each = ceil_div(self.pairs, 32 * self.warps)
        written = 0
        if self.shape.backward and self.shape.apart_from_shown:
            written = 38 if self.shape.kind == "lstm" else 28
            written += 10 if self.nt == 2 and self.shape.size == 2 else 0
        written += 14 if self.turns > 1 else 0
        mine = written + each * (34 if self.shape.backward else 12 + 4 * self.shape.gates) - 24
        if self.shape.size == 4:
            mine += 16 if each > 1 else 0
            return self.shape.lanes * self.shape.sums + max(mine, 12 * (self.ug - 2))
        mine += 18 if each > 1 and self.warps == 4 else 0
        # Half a tile of zeros is kept too, and the compiler makes less of the rest.
        odd = 40 + 2 * self.nt if self.ug == 1 and self.shape.sums % 2 else 0
        many = (10 if self.turns == 1 else 40) if self._tiles > 5 else 0  # tiles of weights
        return 4 * self._tiles * self.nt + max(mine, 0) + odd + many

    @property
    def _tiles(self) -> int:
        """Of 16 rows of weights."""
        return ceil_div(self.ug * self.shape.sums, 2)

    @property
    def _block_registers(self) -> int:
        """Of a thread, for the weights of a block of k."""
        if self.shape.size == 4:
            return 8 * self.ug * self.shape.lanes // 32 * self.shape.sums * 4
        return 8 * self._tiles

    @property
    def _shared_block(self) -> int:
        """Bytes of all warps, for a block of k of each."""
        return self._block_registers * 4 * 32 * self.warps

    @property
    def pairs(self) -> int:
        """Units times sequences of a block."""
        return 64 * self.ug * self.nt

    @property
    def parts_bytes(self) -> int:
        """Of one set of parts of sums."""
        return 4 * self.warps * self.pairs * self.shape.sums

    @property
    def fixed_shared(self) -> int:
        """Bytes of shared memory beside weights: `Rows`, states of each tile, two sets of parts of sums."""
        states = 8 * ceil_div(self.pairs, 32 * self.warps) * 32 * self.warps if self.turns > 1 else 0
        return self.turns * (24 * 8 * self.nt + states) + 2 * self.parts_bytes

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return self.fixed_shared + self.shared_blocks * self._shared_block

    @property
    def unit_blocks(self) -> int:
        """Blocks that work together on the units of a head."""
        return ceil_div(self.shape.units, 8 * self.ug)

    @property
    def tiles(self) -> int:
        """Of sequences."""
        return max(1, ceil_div(self.shape.batch, 8 * self.nt))

    @property
    def groups(self) -> int:
        """Of tiles, each by one team."""
        return ceil_div(self.tiles, self.turns)

    def rounds(self, chip: Device) -> list[tuple[int, int]]:
        """(first team, teams) of each launch: as many as all run at one time."""
        teams, most = self.shape.heads * self.groups, chip.multiprocessors // self.unit_blocks
        return [(first, min(most, teams - first)) for first in range(0, teams, most)]

    @property
    def blocks(self) -> int:
        """Of k, that a warp has."""
        return ceil_div(self.shape.k // self.shape.block, self.warps)

    @property
    def product_vectors(self) -> int:
        """Of 16 bytes, that a lane has of the weights of a block of k."""
        return self._block_registers // 4

    def product(self) -> str:
        """The template of the product."""
        s = self.shape
        more = "true" if self.blocks > self.kept else "false"
        sizes, rest = f"{s.sums}, {self.ug}, {self.nt}", f"{self.kept}, {more}, {self.warps}"
        if s.size == 4:
            return f"PlainProduct<{sizes}, {s.lanes}, {rest}>"
        return f"TensorProduct<{TYPES[s.dtype]}, {sizes}, {rest}>"

    def step_seconds(self, chip: Device) -> float:
        """Predicted seconds of a step of one round."""
        s = self.shape
        rows = min(8 * self.nt, s.batch)
        streamed = self.blocks - self.kept - self.shared_blocks
        cycles = rows * s.k * s.size / _L2_BYTES
        if s.size == 2:
            mma = 2 * self.blocks * self._tiles * self.nt * self.warps / 4
            cycles += mma * _MMA_CYCLES[chip.capability // 10 * 10 if chip.capability >= 80 else 80]
        else:
            cycles = max(cycles, 8 * self.ug * s.sums * s.k * rows / _LANES)
        cycles += (2 * self.parts_bytes + self.shared_blocks * self._shared_block) / _SHARED_BYTES
        # What is streamed comes to all multiprocessors at once, each block of k after the one before.
        each = streamed * self._shared_block / _L2_BYTES
        mine = (cycles + 2 * each) / _CLOCK
        return max(LOOK + ENDING + mine, self.turns * (mine + TURN))

    def seconds(self, chip: Device) -> float:
        """Predicted seconds of all steps, with what is prepared before."""
        s = self.shape
        moved = s.size * s.heads * (s.steps * s.batch * s.k + 2 * self.shape.gates * s.units * s.units)
        rounds = len(self.rounds(chip))
        return (rounds + 1) * LAUNCH + moved / chip.bandwidth + rounds * s.steps * self.step_seconds(chip)


def teams(shape: Shape, chip: Device) -> list[Team]:
    """Those that fit, the fastest by the model first."""
    found = [
        team
        for ug in UNIT_GROUPS
        for nt in TILES_OF_ROWS
        for warps in WARPS
        # No tile of sequences that is half empty; float32 computes only those that are there.
        if nt == 1 or 4 * nt < shape.batch or (shape.size == 4 and nt == 2)
        for many in (False, True)
        if (team := Team.of(shape, ug, nt, warps, many, chip)) is not None
    ]
    return sorted(found, key=lambda team: team.seconds(chip))
