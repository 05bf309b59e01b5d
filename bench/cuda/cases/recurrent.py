"""Recurrent layers over whole sequences and their gradients: one large layer, DeepBench's problems, sequences
of many lengths, sequences that start afresh every hundred steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ....kernels.op import get_op
from ...problems.problem import Operand, Problem
from .job import Race, deepbench

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
LARGE = "a layer of 768 cells over 1,024 steps, batch 16"
SPLIT = "every 7th of DeepBench's recurrent training problems"
# T, B, H of the large layer.
_LARGE = (1024, 16, 768)
_EVERY = 7


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    for dtype in ("bfloat16", "float32"):
        for op in ("lstm", "lstm_grad"):
            yield layer(f"{op}-large-{dtype}", op, *_LARGE, LARGE, dtype), None
    yield layer("lstm-lengths", "lstm", *_LARGE, "lengths uniform in 1 to 1,024", lengths=True), None
    yield layer("lstm-resets", "lstm", *_LARGE, "a reset every 100 steps", resets=True), None
    if small:
        return
    yield (
        layer("lstm-grad-lengths", "lstm_grad", *_LARGE, "lengths uniform in 1 to 1,024", lengths=True),
        None,
    )
    for op in ("gru", "gru_grad", "rnn"):
        yield layer(f"{op}-large-bfloat16", op, *_LARGE, LARGE), None
    yield layer("lstm-one", "lstm", 1024, 1, 768, "one sequence"), None
    yield from ((problem, None) for problem in deepbench_layers())


def layer(
    name: str, op: str, t: int, b: int, h: int, source: str, dtype: str = "bfloat16",
    lengths: bool = False, resets: bool = False, group: str = "",
) -> Problem:  # fmt: skip
    """A layer, or its gradient, of h units over inputs of h."""
    kind, _, what = op.partition("_")
    rows = GATES[kind] * h
    state, seq = Operand((b, h), dtype), Operand((t, b, h), dtype)
    states = [state] * (2 if kind == "lstm" else 1)
    weights = [Operand((rows, h), dtype), Operand((rows, h), dtype)]
    ends = [Operand((b,), "int64") if lengths else None, Operand((t, b), "bool") if resets else None]
    if not what:
        bias = Operand((rows,), dtype)
        inputs = [seq, *states, *weights, bias, bias, *ends]
    else:
        kept = [] if kind == "rnn" else [Operand((t, b, 4 * h), dtype)]
        kept += [seq] if kind == "lstm" else []
        inputs = [seq, *states, *weights, seq, *kept, seq, *states, *ends]
    return Problem(name, op, tuple(inputs), group or f"recurrent-{op}", source)


def deepbench_layers() -> Iterator[Problem]:
    """LSTM and GRU forward and backward."""
    data = deepbench("deepbench_rnn.json")
    source = f"DeepBench {data['file']} at {data['commit'][:12]}: {SPLIT}"
    found = [p for p in data["problems"]["deepbench-train"] if p[0] in ("lstm", "gru")]
    for kind, hidden, batch, steps in found[::_EVERY]:
        for op in (kind, f"{kind}_grad"):
            name = f"deepbench-{op}-t{steps}-b{batch}-h{hidden}"
            yield layer(name, op, steps, batch, hidden, source, group=f"deepbench-{op}")


def _drawn(problem: Problem, draw: Callable[[Any, int], Any]) -> list[Any]:
    """What belongs together: what forward keeps is that of the other inputs; biases are zeros.

    Weights are uniform in +-1/sqrt(H), as layers start.
    """
    import torch

    from ....engine.cuda import run

    op = problem.operation
    given = dict(zip(op.inputs, problem.inputs, strict=True))
    made: dict[str, Any] = {}
    for place, (name, operand) in enumerate(given.items()):
        if operand is None or name in ("gates", "cells", "y"):
            made[name] = None
        elif name in ("lengths", "resets"):
            steps = problem.inputs[0].shape[0]  # type: ignore[union-attr]
            most = steps if name == "lengths" else 100
            # The share of normal numbers that are smaller is uniform in 0 to 1.
            numbers = draw(Operand((*operand.shape, 1), "float32"), place)[..., 0].double().abs()
            whole = (torch.special.erf(numbers / 2**0.5) * most).long()
            made[name] = whole.clamp_max(most - 1) + 1 if name == "lengths" else whole == 0
        else:
            made[name] = draw(operand, place)
            if name.startswith(("w_", "b_")):
                bound = (3 * problem.inputs[1].shape[-1]) ** -0.5  # type: ignore[union-attr]
                made[name] = made[name] * bound
    if not problem.op.endswith("_grad"):
        return list(made.values())
    kind = problem.op.partition("_")[0]
    forward = get_op(kind)
    first = [made.get(name) for name in forward.inputs]
    train = {"train": True} if "train" in forward.attrs else {}
    y, *rest = [out._tensor for out in run(forward, first, train)]
    kept = rest[2 if kind == "lstm" else 1 :]
    made |= {"y": y, **dict(zip(("gates", "cells"), kept, strict=False))}
    return [made[name] for name in op.inputs]


DRAWN = {f"{kind}{what}": _drawn for kind in GATES for what in ("", "_grad")}
"""Operands that are no plain normal numbers; see `work.Place.inputs`."""
