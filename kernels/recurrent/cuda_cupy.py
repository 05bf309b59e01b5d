"""LSTM, GRU and RNN over whole sequences on NVIDIA GPUs in CUDA C++, and their gradients. Compiled by NVRTC.

    team   all steps in one cooperative launch; recurrent weights in registers, the rest of them in shared
           memory, what is left from the L2; bfloat16, float16 by mma.sync, float32 by multiply-adds

    blocks   8 to 32 units with all their gates x 8 to 32 sequences; those of one head and tile work together
    step     look for the states (gradients of gates) of the step before, in the L2
             product, k split among the warps | parts added up, activations | show the own numbers

The product of the input for all steps comes before, those for the gradients of x and of the weights after, by
our matmul (`cuda/calls.py`). What bounds a step is the way of a number from block to block, store to load
through the L2, then the bytes that a block takes in (8 NT x k numbers at 64 bytes a cycle), then the product;
`cuda/teams.py` adds that up and chooses the division. LSTM of 768 units, 16 sequences, bfloat16: 96 blocks of
16 units and 8 sequences, each with 98 KB of weights in registers, 12 KB taken in a step, 1.2 us by that sum;
float32, whose products alone are 1.1 us at the rate of the ordinary cores, 2.7 us. No record has measured
either yet.
"""

from __future__ import annotations

from typing import Any

from ..cuda import nvrtc
from ..cuda.chain import ChainLaunch
from ..cuda.device import facts
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda.calls import MAKERS, Call
from .cuda.teams import Team, teams

nvrtc.require()

DTYPES = ("float32", "bfloat16", "float16")
MOST_OFFERED = 8  # divisions to tune among, the fastest by the model: each is compiled for seconds
MOST_RANKED = 8192  # sequences that are ranked by their lengths, each compared with each
_PRODUCT_SHARE = (
    0.6  # of the rate of the unit, by products of such sizes: an assumption until a GPU is measured
)


def _problem(call: Call) -> str | None:
    """Why no team can take a call; None when some can."""
    x, w_ih, w_hh = (call.spec(name) for name in ("x", "w_ih", "w_hh"))
    if any(call.attrs.get(f"{name}_format") for name in ("w_ih", "w_hh")):
        return "takes weights that are not packed"
    if {w_ih.dtype, w_hh.dtype} != {x.dtype}:
        return f"takes weights of the dtype of x, {x.dtype}, not {w_ih.dtype}"
    if call.kind == "gru" and not call.attrs["reset_after"]:
        return "takes a GRU that resets after the product (reset_after=True), as cuDNN does"
    shape = call.shape
    if not shape.units or not shape.heads:
        return "takes one hidden unit or more"
    if max(shape.batch, shape.steps, shape.heads * shape.units) >= 2**31:
        return "takes axes of less than 2^31 elements"
    if call.place("lengths") is not None and shape.batch > MOST_RANKED:
        return f"ranks at most {MOST_RANKED} sequences by their lengths, not {shape.batch}"
    return None


def supports(call: Call) -> str | None:
    """For `@kernel`."""
    reason = _problem(call)
    if reason is not None:
        return reason
    chip = facts(call.specs[0].device)
    if chip.capability < 80:
        return "needs mma.sync for bfloat16 and 16-byte looks at 64-bit addresses: compute capability 8.0"
    if not teams(call.shape, chip):
        return f"finds no division of {call.shape.units} units among blocks that all run at one time here"
    return None


def _team(call: Call, config: Config) -> Team:
    team = Team.of(
        call.shape, config["ug"], config["nt"], config["warps"], config["many"], facts(call.specs[0].device)
    )
    assert team is not None
    return team


def _register(op: str) -> None:
    backward = op.endswith("_grad")

    def why_not(specs: Specs, attrs: Attrs) -> str | None:
        return supports(Call(op, specs, attrs))

    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        found = teams(Call(op, specs, attrs).shape, facts(specs[0].device))[:MOST_OFFERED]
        return [{"ug": team.ug, "nt": team.nt, "warps": team.warps, "many": team.turns > 1} for team in found]

    def model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
        """The steps alone: the products before and after them are the same for all kernels of the op."""
        return _team(Call(op, specs, attrs), config).seconds(facts(specs[0].device))

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> ChainLaunch:
        call = Call(op, specs, attrs)
        return MAKERS[backward](call, _team(call, config))

    made: Any = kernel(
        op, device="cuda", language="cupy", name="team", dtypes=DTYPES, supports=why_not, configs=configs,
        model=model, binds=True,
    )  # fmt: skip
    made(bind)


for _kind in ("lstm", "gru", "rnn"):
    _register(_kind)
    _register(f"{_kind}_grad")
