"""The runs of recurrences on the CPU find what is wrong: ours with a line taken out or changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_chain import Chain, judged
from cuda_cpu import RunError, kernel_by_id, need_compiler
from gpu_extra import need

need("cupy")
need_compiler()

from kernelwright.kernels.cuda.source import KERNELS  # noqa: E402
from kernelwright.kernels.op import Sample, get_op  # noqa: E402
from kernelwright.kernels.paths import cache_dir  # noqa: E402

ROOM = "recurrent/cuda/"
CONFIG = {"ug": 1, "nt": 1, "warps": 4, "many": False}
SAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "lengths": ("lengths", {"reverse": False}),
    "reverse": ("lengths", {"reverse": True}),
    "resets": ("reset", {"reverse": False}),
    "9x7x3x40": ("9x7x3x40", {}),
    "2x5x8x65": ("2x5x8x65", {}),
    "4x2x33x17": ("4x2x33x17", {}),
    "relu": ("9x7x3x40", {"nonlinearity": "relu"}),
}


@dataclass(frozen=True)
class Mutant:
    """One of our files with a text replaced, the nth time that it stands there.

    Attributes:
        sample: of the op's, by a name of `SAMPLES`.
    """

    op: str
    sample: str
    file: str
    old: str
    new: str
    nth: int = 0
    dtype: str = "bfloat16"

    def __str__(self) -> str:
        return f"{self.op}-{self.old.strip('; ()')}-{self.nth}"

    def path(self, place: int) -> Path:
        """The changed file, kept where its name does not change from run to run."""
        pieces = (KERNELS / ROOM / self.file).read_text().split(self.old)
        assert len(pieces) > self.nth + 1, f"{self.file} has {self.old!r} only {len(pieces) - 1} times"
        before, after = self.old.join(pieces[: self.nth + 1]), self.old.join(pieces[self.nth + 1 :])
        text = before + self.new + after
        made = cache_dir() / "cuda-mutants" / f"recurrent-{place}-{self.file}"
        made.parent.mkdir(parents=True, exist_ok=True)
        if not made.exists() or made.read_text() != text:
            made.write_text(text)
        return made

    def case(self, place: int) -> Chain:
        """A call that the change matters to."""
        files = {ROOM + self.file: str(self.path(place))}
        kernel = kernel_by_id(f"{self.op}/cuda_cupy/team")
        return Chain.of(kernel, _sample(self.op, self.sample, self.dtype), CONFIG, files=files)


def _sample(op: str, name: str, dtype: str) -> Sample:
    text, wanted = SAMPLES[name]
    for sample in get_op(op).samples(np.random.default_rng(0), dtype):
        attrs = get_op(op).complete(sample.attrs)
        if text in sample.name and all(attrs[key] == value for key, value in wanted.items()):
            return sample
    raise AssertionError(f"{op} has no sample {name}")


def mutants() -> Iterator[Mutant]:
    """The look without a wait, slots that serve twice, words that look like none, each barrier, each edge."""
    wait = "if (all_lanes(there)) break;"
    yield Mutant("lstm", "9x7x3x40", "team.cuh", wait, "break;")
    yield Mutant("gru_grad", "9x7x3x40", "team.cuh", wait, "break;", dtype="float32")
    yield Mutant("lstm", "9x7x3x40", "team.cuh", "missing(v[i][r]);", "!v[i][r][0];")
    yield Mutant("lstm", "9x7x3x40", "forward.cu", "me.shown += g.shown_t;", ";")
    yield Mutant("rnn", "relu", "team.cuh", "return bits ? bits :", "return true ? bits :", dtype="float32")
    yield Mutant("gru_grad", "4x2x33x17", "backward.cu", "gate == 2 && Kind::SUMS > GATES ? 3 : gate", "gate")
    yield Mutant("lstm", "lengths", "forward.cu", "i < now &&", "", dtype="float32")
    yield Mutant("lstm", "lengths", "team.cuh", "__syncthreads();", ";", 0)
    yield Mutant("lstm", "lengths", "team.cuh", "__syncthreads();", ";", 1)
    yield Mutant("lstm", "9x7x3x40", "forward.cu", "__syncthreads();", ";", 0)
    yield Mutant("lstm", "9x7x3x40", "forward.cu", "__syncthreads();", ";", 1)
    yield Mutant("lstm", "9x7x3x40", "forward.cu", "side ^= 1;", ";")
    yield Mutant("lstm", "resets", "forward.cu", "rows.skip[turn ^ 1][thread]", "rows.skip[turn][thread]")
    yield Mutant("lstm", "reverse", "forward.cu", "g.reverse ? -g.x_t : g.x_t", "g.x_t")
    # With an even number of steps the last parts lie where the sums for the biases go.
    yield Mutant("lstm_grad", "4x2x33x17", "backward.cu", "__syncthreads();", ";", 0)
    yield Mutant("lstm_grad", "9x7x3x40", "backward.cu", "__syncthreads();", ";", 1)
    yield Mutant("lstm_grad", "9x7x3x40", "backward.cu", "__syncthreads();", ";", 2)
    yield Mutant("gru_grad", "resets", "backward.cu", "if (fresh) me.dc = me.carried = 0;", ";")
    yield Mutant("lstm", "2x5x8x65", "team.cuh", "unit < units && i < part.count", "i < part.count")
    yield Mutant("lstm", "2x5x8x65", "forward.cu", "me.length = unit < g.units &&", "me.length =")
    yield Mutant("lstm", "9x7x3x40", "prepare.cu", "row >= g.first * g.batch;", "true;")


MUTANTS = list(mutants())


@pytest.mark.parametrize("place", range(len(MUTANTS)), ids=lambda place: str(MUTANTS[place]))
def test_what_is_changed_in_a_recurrence_is_missed(place: int) -> None:
    codes = [code for i, mutant in enumerate(MUTANTS) for code in mutant.case(i).codes()]
    try:
        (verdict,) = judged([MUTANTS[place].case(place)], codes=codes)
    except RunError:
        return
    assert not verdict.ok, f"{MUTANTS[place]} changes nothing that is looked at"
