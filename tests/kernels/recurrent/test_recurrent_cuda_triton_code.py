"""The machine code of the recurrent Triton kernels: weights are read once, nothing is spilled, and a state
comes and goes as the exchange needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpu_extra import need

need("triton")

from cuda_code import Case, Proof  # noqa: E402

from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.cuda.launch import CudaLaunch, launcher  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.recurrent.cuda import choices  # noqa: E402
from kernelwright.kernels.recurrent.cuda.launch import (  # noqa: E402
    bind_backward,
    bind_cell,
    bind_forward,
)
from kernelwright.kernels.recurrent.cuda.problem import call_of  # noqa: E402
from kernelwright.kernels.spec import ABSENT, TensorSpec  # noqa: E402

T, B, H = 1024, 16, 768
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
TOGETHER = ("forward", "backward", "cell")


def own(launch: CudaLaunch, specs: Any) -> CudaLaunch:
    """The recurrence alone: products are proven with matmul."""
    return launcher(specs, *(step for step in launch.steps if step.name in TOGETHER))


def lstm(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return own(bind_forward("lstm", specs, attrs, config), specs)


def gru(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return own(bind_forward("gru", specs, attrs, config), specs)


def rnn(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return own(bind_forward("rnn", specs, attrs, config), specs)


def lstm_grad(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return own(bind_backward("lstm_grad", specs, attrs, config), specs)


def gru_grad(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return own(bind_backward("gru_grad", specs, attrs, config), specs)


def lstm_cell(specs: Any, attrs: Any, config: Any, threads: int) -> CudaLaunch:
    return bind_cell("lstm_cell", specs, attrs, config)


BINDS = {"lstm": lstm, "gru": gru, "rnn": rnn, "lstm_grad": lstm_grad, "gru_grad": gru_grad}


def specs_of(op_name: str, t: int, b: int, h: int, dtype: str, attrs: Any, *more: str) -> Any:
    """The specs of a call on a GPU; `more`: lengths, resets."""
    op, rows = get_op(op_name), GATES[op_name.partition("_")[0]] * h
    states, seq = ("h0", "c0", "dh_n", "dc_n", "h", "c"), ("x", "y", "dy", "cells")

    def spec(name: str) -> TensorSpec:
        if name in ("lengths", "resets"):
            kind = ("int64", (b,)) if name == "lengths" else ("bool", (t, b))
            return TensorSpec(kind[1], kind[0], "cuda") if name in more else ABSENT
        shape: tuple[int, ...] = (rows,)
        if name in states:
            shape = (b, h)
        elif name in seq:
            shape = (b, h) if op_name.endswith("_cell") else (t, b, h)
        elif name.startswith("w_"):
            shape = (rows, h)
        elif name == "gates":
            shape = (t, b, 4 * h)
        return TensorSpec(shape, dtype, "cuda")

    given = tuple(spec(name) for name in op.inputs)
    return (*given, *op.infer(given, **attrs))


def case(
    op: str, config: dict[str, Any], chip: int, *more: str, h: int = H, b: int = B, dtype: str = "bfloat16",
    t: int = T, **how: Any,
) -> Case:  # fmt: skip
    attrs = get_op(op).complete({"train": True} if op in ("lstm", "gru") else {})
    with device.assume(chip):
        specs = specs_of(op, t, b, h, dtype, attrs, *more)
    return Case(BINDS[op], specs, attrs, config, chip, note=op, **how)


def first(op: str, resident: bool, chip: int, *more: str) -> dict[str, Any]:
    """The configuration that runs untuned, of those that keep their weights or not."""
    attrs = get_op(op).complete({"train": True} if op in ("lstm", "gru") else {})
    with device.assume(chip):
        call = call_of(op, specs_of(op, T, B, H, "bfloat16", attrs, *more), attrs)
        found = choices.candidates(call, op.endswith("_grad"), device.chip(chip))
    return next(config for config in found if config["resident"] is resident and not config["solo"])


POLLS = ("LDG.E.128.STRONG.SYS", "ATOMG.E.EXCH", "HMMA")


def cases() -> Iterator[Case]:
    for chip in device.TARGETS:
        for op in ("lstm", "lstm_grad"):
            yield case(op, first(op, True, chip), chip, expect=POLLS)
    both = ("lengths", "resets")
    yield case("gru", first("gru", True, 90, *both), 90, *both, expect=POLLS)
    yield case("gru_grad", first("gru_grad", True, 90, *both), 90, *both, expect=POLLS)
    yield case("rnn", first("rnn", True, 90), 90, expect=POLLS)
    for op in ("lstm", "gru_grad"):  # heads of 32 units
        rows = 4 if op.endswith("_grad") else 8
        config = {"units": 32, "rows": rows, "warps": 2, "kc": 32, "tiles": 1, "resident": True, "solo": True}
        yield case(op, config, 90, *both, h=32, expect=("HMMA",), forbid=("ATOMG", "LDG.E.128.STRONG"))
    for (item, back), cuts in choices._STREAMED.items():
        units, rows, warps = cuts[-1]
        kc, dtype = (64, "bfloat16") if item == 2 else (32, "float32")
        config = {"units": units, "rows": rows, "warps": warps, "kc": kc, "tiles": 0, "resident": False}
        config["solo"] = False
        op = "lstm_grad" if back else "lstm"
        yield case(op, config, 90, h=2048, b=64, t=50, dtype=dtype, expect=("LDGSTS",))


CASES = list(cases())
CELLS = [
    Case(
        lstm_cell,
        specs_of("lstm_cell", 1, 16, 1024, dtype, {}),
        {},
        {"units": 16, "rows": 16, "warps": 4, "kc": 64},
        90,
        expect=("HMMA", "LDGSTS"),
    )
    for dtype in ("bfloat16",)
]
FAR = case("lstm", first("lstm", True, 90), 90, t=2**16)
PROOF = Proof([*CASES, *CELLS, FAR])


@pytest.mark.parametrize("one", [*CASES, *CELLS], ids=str)
def test_the_code_fits_its_chip(one: Case) -> None:
    assert not PROOF.problems(one)


def test_weights_are_read_once_and_not_in_a_step() -> None:
    """As many 16-byte loads as a thread's share of them has, all before the loop."""
    (one,) = [
        c
        for c in CASES
        if c.kernel is lstm and c.capability == 90 and c.config["resident"] and not c.config["solo"]
    ]
    (code,) = PROOF.codes(one)
    weights = 4 * one.config["units"] * one.config["kc"] * one.config["tiles"] * 2
    assert code.instructions["LDG.E.128"] * 16 * 32 * one.config["warps"] == weights
    # The state of the first step, that of the next, and the same asked for again while it is missing.
    state = one.config["rows"] * one.config["kc"] * one.config["tiles"] * 2
    assert code.instructions["LDG.E.128.STRONG.SYS"] * 16 * 32 * one.config["warps"] == 3 * state


def test_the_model_knows_the_shared_memory() -> None:
    for one in CASES:
        if not one.config["resident"] or one.config["solo"]:
            continue
        op = one.note
        call = call_of(op, one.specs, one.attrs)
        (code,) = PROOF.codes(one)
        assert code.shared <= choices.shared_bytes(call, one.config, op.endswith("_grad"))


def test_launches_are_cooperative_and_fit_the_device() -> None:
    for one in CASES:
        with device.assume(one.capability):
            chip = device.chip(one.capability)
            launch = one.kernel(one.specs, one.attrs, one.config, 1)  # type: ignore[operator]
            for step, variant in zip(launch.steps, launch.variants(), strict=True):
                if not one.config["solo"]:
                    assert ("launch_cooperative_grid", True) in variant.options
                    assert step.grid[0] <= chip.multiprocessors


def test_offsets_past_2_to_the_31_are_counted_in_64_bits() -> None:
    """y, gates and what comes from the inputs are further apart than 32 bits count."""
    assert not PROOF.problems(FAR)
    (code,) = PROOF.codes(FAR)
    (near,) = [
        c
        for c in CASES
        if c.kernel is lstm and c.capability == 90 and c.config["resident"] and not c.config["solo"]
    ]
    (other,) = PROOF.codes(near)
    assert code.narrow < other.narrow
