"""The recurrences in CUDA C++, run on the CPU under several schedules, give what their ops define."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_chain import Chain, judged
from cuda_cpu import kernel_by_id, need_compiler
from gpu_extra import need

need("cupy")
need_compiler()

from kernelwright.kernels.cuda.check import cuda_specs, untakeable  # noqa: E402
from kernelwright.kernels.cuda.device import chip, facts, taken_for  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.recurrent import samples  # noqa: E402
from kernelwright.kernels.recurrent.cuda.calls import MAKERS, Call  # noqa: E402
from kernelwright.kernels.recurrent.cuda.teams import Team  # noqa: E402
from kernelwright.kernels.spec import np_dtype  # noqa: E402

Wanted = Callable[[Sample], bool]


def _everything(sample: Sample) -> bool:
    return True


def _telling(sample: Sample) -> bool:
    """What the steps treat in ways of their own, and one odd size; the rest is the same in every dtype."""
    words = ("lengths", "reset", "head", "no states", "batch first", "4x2x33x17", "9x7x3x40")
    return any(word in sample.name for word in words)


def _relu(sample: Sample) -> bool:
    return sample.attrs.get("nonlinearity") == "relu" and _telling(sample)


SMALL, WIDE = {"ug": 1, "nt": 1, "warps": 4, "many": False}, {"ug": 2, "nt": 2, "warps": 8, "many": False}
RUNS: list[tuple[str, str, Wanted, dict[str, Any]]] = [
    ("lstm", "bfloat16", _everything, SMALL),
    ("lstm", "float32", _telling, SMALL),
    ("gru", "float16", _telling, SMALL),
    ("rnn", "float32", _relu, SMALL),
    ("lstm_grad", "bfloat16", _everything, {"ug": 2, "nt": 1, "warps": 4, "many": False}),
    ("lstm_grad", "float32", _telling, SMALL),
    ("gru_grad", "float32", _telling, {"ug": 1, "nt": 2, "warps": 4, "many": False}),
    ("gru_grad", "bfloat16", _telling, WIDE),
    ("rnn_grad", "float16", _telling, SMALL),
]


def cases_of(op: str, dtype: str, wanted: Wanted, config: dict[str, Any]) -> Iterator[Chain]:
    """The samples that the kernel takes; some of them at unaligned addresses."""
    kernel, made = kernel_by_id(f"{op}/cuda_cupy/team"), 0
    for sample in get_op(op).samples(np.random.default_rng(0), dtype):
        if untakeable(sample) or not wanted(sample):
            continue
        specs = cuda_specs(kernel, sample)
        empty = not any(spec.size for spec in specs[len(sample.inputs) :])
        if empty or kernel.why_not(specs, get_op(op).complete(sample.attrs)) is not None:
            continue
        yield Chain.of(kernel, sample, config, shifted=made % 4 == 3)
        made += 1


def _wrong(cases: list[Chain]) -> list[str]:
    verdicts = judged(cases)
    return [f"{c}: {v.text}" for c, v in zip(cases, verdicts, strict=True) if not v.ok]


@pytest.mark.parametrize(
    ("op", "dtype", "wanted", "config"), RUNS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_samples(op: str, dtype: str, wanted: Wanted, config: dict[str, Any]) -> None:
    cases = list(cases_of(op, dtype, wanted, config))
    assert len(cases) >= 8
    wrong = _wrong(cases)
    assert not wrong, "\n".join(wrong)


# --- teams of other shapes ----------------------------------------------------------------------------------


def _sample(op: str, dtype: str, t: int, b: int, h: int, name: str) -> Sample:
    """A call of an op, from the samples' own contents; lengths of any order."""
    kind = op.partition("_")[0]
    rng = np.random.default_rng(t + b + h)
    made = samples.contents(kind, rng, t, b, 3, h, "float32")
    lengths = rng.integers(0, t + 1, b).astype(np.int64)
    inputs = samples._inputs({n: a.astype(np_dtype(dtype)) for n, a in made.items()}, lengths=lengths)
    own = {
        "lstm": {"train": True},
        "gru": {"train": True, "reset_after": True},
        "rnn": {"nonlinearity": "tanh"},
    }
    attrs = own[kind]
    inputs = (*inputs, *(None for _ in range(len(get_op(kind).inputs) - len(inputs))))
    if op == kind:
        return Sample(name, inputs, attrs)
    return Sample(name, *samples._gradient_call(kind, rng, Sample(name, inputs, attrs), dtype, ()))


def _with_team(op: str, sample: Sample, ug: int, nt: int, warps: int, kept: int, in_shared: int) -> Chain:
    """The call by a team whose warps keep no more blocks of k than that in registers and in shared memory."""
    kernel = kernel_by_id(f"{op}/cuda_cupy/team")
    call = Call(op, cuda_specs(kernel, sample), get_op(op).complete(sample.attrs))
    team = Team.of(call.shape, ug, nt, warps, False, facts("cuda"))
    assert team is not None
    blocks = -(-(call.shape.k // call.shape.block) // warps)
    assert blocks > kept + in_shared
    launch = MAKERS[op.endswith("_grad")](call, replace(team, kept=kept, shared_blocks=in_shared))
    return Chain.of(kernel, sample, {"ug": ug, "nt": nt, "warps": warps}, launch=launch)


def test_weights_that_do_not_fit_into_registers_come_from_shared_memory_and_from_l2() -> None:
    """With few warps, so that a small k has many blocks: some kept, some in shared memory, some neither."""
    shapes = [
        ("lstm", "bfloat16", 170, (2, 1, 2, 1, 1)),
        ("gru", "float32", 170, (1, 1, 2, 1, 1)),
        ("gru_grad", "bfloat16", 70, (2, 1, 2, 2, 1)),
        ("lstm_grad", "float32", 130, (1, 1, 2, 1, 1)),
    ]
    cases = [
        _with_team(op, _sample(op, dtype, 3, 5, h, "many blocks of k"), *team)
        for op, dtype, h, team in shapes
    ]
    wrong = _wrong(cases)
    assert not wrong, "\n".join(wrong)


def test_large_teams_and_several_rounds_of_them() -> None:
    """Blocks of 32 units and 32 sequences; a chip with so few multiprocessors that teams take turns."""
    cases = [
        Chain.of(f"{op}/cuda_cupy/team", _sample(op, "bfloat16", 3, b, h, "wide"), config)
        for op, b, h, config in (
            ("rnn", 37, 40, {"ug": 4, "nt": 4, "warps": 8, "many": False}),
            ("lstm", 19, 20, {"ug": 3, "nt": 1, "warps": 8, "many": False}),
        )
    ]
    with taken_for(replace(chip(90), multiprocessors=3)):
        for op, config in (("gru", SMALL), ("rnn_grad", SMALL)):
            case = Chain.of(f"{op}/cuda_cupy/team", _sample(op, "bfloat16", 3, 20, 23, "rounds"), config)
            assert sum(code.together for code in case.codes()) == 3
            cases.append(case)
    wrong = _wrong(cases)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("op", ["lstm", "gru_grad", "rnn_grad"])
def test_several_tiles_of_sequences_by_turns(op: str) -> None:
    """Four tiles on a chip that has room for two teams: two turns each, with lengths, and with resets."""
    kernel = kernel_by_id(f"{op}/cuda_cupy/team")
    dtype = "float32" if op == "gru_grad" else "bfloat16"
    whole = _sample(op, dtype, 4, 27, 19, "by turns")
    names = get_op(op).inputs
    resets = np.random.default_rng(0).random((4, 27)) < 0.2
    lengths, reset = names.index("lengths"), names.index("resets")
    inputs = list(whole.inputs)
    inputs[lengths], inputs[reset] = None, resets
    both = [whole]
    if not op.endswith("_grad"):  # what the forward pass saved goes with the lengths
        both.append(Sample("resets, by turns", tuple(inputs), whole.attrs))
    cases = []
    with taken_for(replace(chip(90), multiprocessors=6)):
        for sample in both:
            case = Chain.of(kernel, sample, {"ug": 1, "nt": 1, "warps": 4, "many": True})
            (step,) = [code for code in case.codes() if code.together]
            assert "true, " in step.call
            cases.append(case)
    wrong = _wrong(cases)
    assert not wrong, "\n".join(wrong)


def test_nan_and_infinity_pass_from_block_to_block() -> None:
    """A number is missing when its word is zero, whatever else it is: nothing waits for ever or is lost."""
    sample = _sample("rnn", "bfloat16", 4, 3, 40, "NaN")
    inputs = list(sample.inputs)
    x = np.array(inputs[0])
    x[1, 0, 0], x[1, 1, 0] = np.nan, np.inf
    inputs[0] = x
    lengths = np.full(3, 4, np.int64)
    index = get_op("rnn").inputs.index("lengths")
    inputs[index] = lengths
    wild = Sample("NaN", tuple(inputs), {"nonlinearity": "relu"})
    (verdict,) = judged([Chain.of("rnn/cuda_cupy/team", wild, SMALL)])
    assert verdict.ok, verdict.text


def test_what_no_team_takes_is_refused_with_the_reason() -> None:
    kernel = kernel_by_id("gru/cuda_cupy/team")
    sample = _sample("gru", "float32", 2, 2, 8, "reset before")
    attrs = get_op("gru").complete({"reset_after": False})
    assert "reset_after=True" in str(kernel.why_not(cuda_specs(kernel, sample), attrs))
    with taken_for(replace(chip(90), multiprocessors=1)):
        big = _sample("gru", "float32", 1, 1, 300, "big")
        specs = cuda_specs(kernel, big)
        assert "300 units" in str(kernel.why_not(specs, get_op("gru").complete(big.attrs)))
