"""CTC on the GPU, in Triton (`cuda/path_kernels.py`): a program a sequence, states along threads.

loss        one walk through time; states never leave the registers
gradient    two walks beside each other, forwards and backwards, all of both kept; then a program for each
            time of each sequence
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..cuda.launch import launcher
from ..cuda.step import Arg, Step, Workspace, element_strides
from ..kernel import Launch
from ..op import Attrs, Specs
from ..registry import kernel
from .ctc import state_count
from .cuda import path_kernels
from .cuda.rows import power_of_two

MOST_STATES = 8192
"""States of one program, 8 of each of its 1024 threads: what registers hold of them."""


def _supports(specs: Specs, attrs: Attrs) -> str | None:
    """Specs of log_probs and what follows."""
    states, most = state_count(specs[1], attrs["longest"]), (MOST_STATES - 1) // 2
    if states > MOST_STATES:
        return f"takes targets of up to {most} labels, and the longest may have {states // 2}"
    return None


def _arguments(specs: Specs, attrs: Attrs, first: int) -> tuple[dict[str, Any], int]:
    """(what both kernels are told, warps); `first` is the place of log_probs."""
    probs, targets, inputs_n, targets_n = specs[first : first + 4]
    t, n, classes = probs.shape
    row = state_count(targets, attrs["longest"])
    states = max(power_of_two(row), 32)
    names = ("probs", "targets", "steps", "lengths")
    args: dict[str, Any] = {name: Arg(first + place) for place, name in enumerate(names)}
    args |= {"times": t, "n": n, "classes": classes, "blank": attrs["blank"], "row": row}
    args |= {"most": targets.shape[-1], "longest": (row - 1) // 2}
    args |= dict(zip(("probs_t", "probs_n", "probs_c"), element_strides(probs), strict=True))
    steps = element_strides(targets)
    args |= {"targets_n": steps[0] if targets.ndim == 2 else 0, "targets_s": steps[-1]}
    args |= {"steps_n": element_strides(inputs_n)[0], "lengths_n": element_strides(targets_n)[0]}
    args |= {"IN_A_ROW": targets.ndim == 1, "STATES": states, "BLOCK": 128}
    return args, max(1, min(32, states // 64))


@kernel(
    "ctc_loss",
    device="cuda",
    language="triton",
    dtypes=("float32", "float64"),
    supports=lambda specs, attrs: _supports(specs[:4], attrs),
    binds=True,
    name="paths",
)
def ctc_loss(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """One walk through time."""
    args, warps = _arguments(specs, attrs, 0)
    args |= {"losses": Arg(4), "losses_n": element_strides(specs[4])[0], "rows": None, "links": None}
    args |= {"leads": None, "KEEP": False, "ZERO_INFINITY": bool(attrs["zero_infinity"])}
    n = specs[0].shape[1]
    return launcher(specs, Step(path_kernels.walk, (n,), args, warps=warps, any_int=True))


@kernel(
    "ctc_loss_grad",
    device="cuda",
    language="triton",
    dtypes=("float32", "float64"),
    supports=lambda specs, attrs: _supports(specs[1:5], attrs),
    binds=True,
    name="paths",
)
def ctc_loss_grad(specs: Specs, attrs: Attrs, config: Mapping[str, Any], threads: int) -> Launch:
    """A walk in each direction, then all times at once."""
    args, warps = _arguments(specs, attrs, 1)
    t, n, _ = specs[1].shape
    row = args["row"]
    kept = {
        "losses": Workspace((n,), specs[1].dtype),
        "rows": Workspace((2, n, t, row), specs[1].dtype),
        "links": Workspace((n, row), "int32"),
        "leads": Workspace((n, row), "int32"),
    }
    first = {**args, **kept, "losses_n": 1, "KEEP": True, "ZERO_INFINITY": False}
    last = {**args, **kept, "dloss": Arg(0), "out": Arg(5), "dloss_n": element_strides(specs[0])[0]}
    last |= dict(zip(("out_t", "out_n", "out_c"), element_strides(specs[5]), strict=True))
    last |= {"ZERO_INFINITY": bool(attrs["zero_infinity"])}
    walks = Step(path_kernels.walk, (2 * n,), first, warps=warps, any_int=True)
    return launcher(
        specs, walks, Step(path_kernels.shares, (n * t,), last, warps=min(warps, 8), any_int=True)
    )
