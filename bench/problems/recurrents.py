"""LSTM, GRU and plain RNN: grids of sizes, language and acoustic models, and DeepBench's (Apache-2.0, see
LICENSES.md).

Weights of forward calls are constant, and packed before the timing starts; those of training and of cells are
not. The grids have forward calls of both kinds: "packed" in a name says that the weights are constant. Names
give the kind, T time steps, batch b, hidden size h, and the input size i where it is another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from .problem import Operand, Problem

DATA = Path(__file__).with_name("deepbench_rnn.json")

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
BATCHES = (1, 4, 16, 64)
HIDDEN = (128, 256, 512, 1024)
STEPS = 50
GRID = "grid: T 50, input size = hidden size"

# A core does 150 GFLOP/s or more in the products of a recurrent layer; beyond 10 s the batch is halved.
MOST_GFLOP = 1500.0

# (name, kind, T, batch, input, hidden, source)
_MODELS = (
    ("lm-medium", "lstm", 35, 20, 650, 650, "Zaremba et al. 2014, medium language model"),
    ("lm-large", "lstm", 35, 20, 1500, 1500, "Zaremba et al. 2014, large language model"),
    ("awd-lm", "lstm", 70, 40, 1150, 1150, "AWD-LSTM (Merity et al. 2017), middle layer, half its batch"),
    ("lm-sampling", "lstm", 1, 1, 1500, 1500, "Zaremba et al. 2014, one token of the large language model"),
    ("seq2seq", "lstm", 30, 16, 1000, 1000, "Sutskever et al. 2014, sentences of 30 words, batch 16"),
    ("speech-frames", "lstm", 200, 4, 40, 512, "acoustic model: 2 s of 40 filter banks, 512 cells"),
    ("deep-speech2", "gru", 100, 8, 1280, 800, "Deep Speech 2 (Amodei et al. 2015), a GRU layer of 800"),
)


def recurrent(
    name: str,
    kind: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    *,
    group: str,
    source: str,
    lengths: bool = False,
    training: bool = False,
    constant: bool = True,
    note: str = "",
    attrs: dict[str, Any] | None = None,
    dtype: str = "float32",
) -> Problem:
    """One layer over sequences, x: [steps, batch, inputs]; forward, its weights constant or not, or with
    `training`, where they are not, backward too."""

    def operand(*shape: int) -> Operand:
        return Operand(shape, dtype)

    def weight(*shape: int) -> Operand:
        return Operand(shape, dtype, packed=constant and not training)

    rows = GATES[kind] * hidden
    states = [operand(batch, hidden)] * (2 if kind == "lstm" else 1)
    parts: list[Operand | None] = [
        operand(steps, batch, inputs),
        *states,
        weight(rows, inputs),
        weight(rows, hidden),
        operand(rows),
        operand(rows),
        Operand((batch,), "int64") if lengths else None,
        None,  # resets
    ]
    if training:
        parts += [operand(steps, batch, hidden), *states]
    op = f"{kind}_training" if training else kind
    return Problem(name, op, tuple(parts), group, source, note, attrs or {})


def cell(kind: str, batch: int, hidden: int) -> Problem:
    """One step: x: [batch, hidden]."""
    rows = GATES[kind] * hidden
    states = [Operand((batch, hidden))] * (2 if kind == "lstm" else 1)
    weights = (Operand((rows, hidden)), Operand((rows, hidden)), Operand((rows,)), Operand((rows,)))
    inputs = (Operand((batch, hidden)), *states, *weights)
    name = f"{kind}-cell-b{batch}-h{hidden}"
    return Problem(
        name, f"{kind}_cell", inputs, f"{kind}-cell-b{batch}", "one step, input size = hidden size"
    )


def _grid(kind: str) -> Iterable[Problem]:
    """Forward, packing in the call and ahead of it; then forward and backward."""
    for what, constant, training in (
        ("", False, False),
        ("-packed", True, False),
        ("-training", False, True),
    ):
        for batch in BATCHES:
            for hidden in HIDDEN:
                yield recurrent(
                    f"{kind}{what}-t{STEPS}-b{batch}-h{hidden}",
                    kind,
                    STEPS,
                    batch,
                    hidden,
                    hidden,
                    group=f"{kind}{what}",
                    source=GRID,
                    training=training,
                    constant=constant,
                )


def lstm() -> Iterable[Problem]:
    """T 50, batch 1 to 64, hidden size 128 to 1024, forward, packing in the call and ahead; with backward."""
    return _grid("lstm")


def gru() -> Iterable[Problem]:
    """As `lstm`, for GRU."""
    return _grid("gru")


def rnn() -> Iterable[Problem]:
    """As `lstm`, for the plain layer with tanh."""
    return _grid("rnn")


def lengths() -> Iterable[Problem]:
    """Sequences of 1 to T steps, uniformly drawn, in one batch. FLOP are counted as if all had T."""
    for kind in GATES:
        for batch in (16, 64):
            for hidden in (256, 512):
                for training in (False, True):
                    what = "-training" if training else ""
                    yield recurrent(
                        f"{kind}-lengths{what}-t{STEPS}-b{batch}-h{hidden}",
                        kind,
                        STEPS,
                        batch,
                        hidden,
                        hidden,
                        group=f"{kind}-lengths{what}",
                        source="lengths uniform from 1 to 50",
                        lengths=True,
                        training=training,
                    )


def cells() -> Iterable[Problem]:
    """One step of LSTM, GRU and RNN, batch 1 and 16."""
    for kind in GATES:
        for batch in (1, 16):
            for hidden in HIDDEN:
                yield cell(kind, batch, hidden)


def models() -> Iterable[Problem]:
    """Layers of language and acoustic models, forward; then forward and backward where they are trained."""
    for training in (False, True):
        for name, kind, steps, batch, inputs, hidden, source in _MODELS:
            if training and steps == 1:
                continue
            what = "-training" if training else ""
            yield recurrent(
                f"{name}{what}-{kind}-t{steps}-b{batch}-i{inputs}-h{hidden}",
                kind,
                steps,
                batch,
                inputs,
                hidden,
                group=f"recurrent-models{what}",
                source=source,
                training=training,
            )


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DATA.read_text())
    return loaded


def _deepbench(key: str, prefix: str, training: bool) -> Iterable[Problem]:
    data = _data()
    for kind, hidden, batch, steps in data["problems"][key]:
        kind = "rnn" if kind == "vanilla" else kind
        gflop = 4e-9 * GATES[kind] * hidden * hidden * steps * (3 if training else 1)
        scaled = batch
        while scaled > 1 and gflop * scaled > MOST_GFLOP:
            scaled //= 2
        note = (
            "" if scaled == batch else f"batch {scaled} for {batch}, which would take over 10 s on one core"
        )
        yield recurrent(
            f"{prefix}-{kind}-t{steps}-b{batch}-h{hidden}",
            kind,
            steps,
            scaled,
            hidden,
            hidden,
            group=f"{prefix}-{kind}",
            source=f"DeepBench {data['file']} at {data['commit'][:12]}",
            training=training,
            note=note,
            attrs={"nonlinearity": "relu"} if kind == "rnn" else {},
        )


def deepbench_train() -> Iterable[Problem]:
    """DeepBench's 53 recurrent training problems, forward and backward, with the product of the inputs."""
    return _deepbench("deepbench-train", "deepbench-rnn-train", training=True)


def deepbench_inference() -> Iterable[Problem]:
    """DeepBench's recurrent inference problems, 69 for servers and 3 for devices."""
    yield from _deepbench("deepbench-inference-server", "deepbench-rnn-server", training=False)
    yield from _deepbench("deepbench-inference-device", "deepbench-rnn-device", training=False)
