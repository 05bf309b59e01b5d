"""Suites by name. A suite is built when it is first asked for, never at import."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ...kernels.errors import ConfigError, KernelwrightError, did_you_mean
from . import convs, deepbench, kernelbench, linears, networks, recurrents, synthetic
from .problem import Problem

ROOF_GFLOP = 5.0
# Half a second or so on one core: what a recurrent layer of a large network takes at batch 1.
LONG_GFLOP = 50.0


class UnknownSuiteError(KernelwrightError, LookupError):
    """No suite, or no problem in it, has that name; the text says which there are."""


# One pass over a matrix of weights: its time depends on the pages that a process happened to get, by several
# percent from one process to the next (`kernelwright compare . . quick`).
MEMORY_BOUND = {"skinny-1x*": 0.10, "lstm-cell-b1-*": 0.10}


@dataclass(frozen=True)
class Selection:
    """Problems to run, and those left out with the reason: {name: reason}."""

    problems: tuple[Problem, ...]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A named list of problems.

    Attributes:
        build: makes the problems, given the GFLOP limit.
        most_gflop: larger problems are left out unless the caller raises the limit; None keeps all.
        excluded: problems of the source that never run, with reasons.
        threshold: how much longer a changed kernel may take before that counts in a comparison; None for
            what is usual there.
        thresholds: {pattern of names: share} of problems that can't be told apart as well.
    """

    name: str
    doc: str
    build: Callable[[float], Iterable[Problem]]
    most_gflop: float | None = None
    excluded: Callable[[], dict[str, str]] = dict
    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def select(self, most_gflop: float | None = None) -> Selection:
        """The problems up to `most_gflop` (default: the suite's own limit) and what was left out.

        Raises:
            ConfigError: `most_gflop` is not positive.
        """
        if most_gflop is not None and not most_gflop > 0:
            raise ConfigError(f"the largest problem must have more than 0 GFLOP, not {most_gflop:g}")
        limit = most_gflop if most_gflop is not None else self.most_gflop
        chosen, left_out = [], self.excluded()
        for problem in self.build(limit or ROOF_GFLOP):
            gflop = problem.cost.flops / 1e9
            if limit is not None and gflop > limit:
                left_out[problem.name] = f"{gflop:.1f} GFLOP is over the limit of {limit:g} (--max-gflop)"
            else:
                chosen.append(problem)
        return Selection(tuple(chosen), left_out)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.select().problems


def _always(build: Callable[[], Iterable[Problem]]) -> Callable[[float], Iterable[Problem]]:
    return lambda most_gflop: build()


def _quick(most_gflop: float) -> Iterable[Problem]:
    parts = (
        *(synthetic.squares, synthetic.skinny, synthetic.layouts),
        *(linears.bf16, linears.batched, linears.gradients, linears.gelu, linears.skinny_packed),
        *(convs.resnet, convs.resnet_nchw, convs.resnet_gradients, convs.mobilenet),
        *(recurrents.lstm, recurrents.gru, recurrents.lengths, recurrents.cells),
    )
    known = {p.name: p for part in parts for p in part()}
    return [known[name] for name in synthetic.QUICK]


def _all(most_gflop: float) -> Iterable[Problem]:
    for suite in _SUITES.values():
        if suite.name not in ("all", "quick"):
            yield from suite.build(most_gflop)


_SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "quick",
            "one or two of each kind, about two minutes on two cores",
            _quick,
            thresholds=MEMORY_BOUND,
        ),
        Suite("squares", "n x n x n, n from 64 to 4096, float32 and float64", _always(synthetic.squares)),
        Suite("skinny", "m in 1, 4, 16, 64 by k, n in 1024, 2048, 4096", _always(synthetic.skinny)),
        Suite("layouts", "tall, deep, odd, transposed, batched, broadcast", _always(synthetic.layouts)),
        Suite("tiny", "1x1 to 32x32: the cost of a call", _always(synthetic.tiny)),
        Suite("deepbench-train", "DeepBench's 160 training GEMMs", _always(deepbench.train), ROOF_GFLOP),
        Suite("deepbench-inference", "DeepBench's inference GEMMs", _always(deepbench.inference), ROOF_GFLOP),
        Suite("kernelbench", "KernelBench level 1, scaled", kernelbench.level1, None, kernelbench.left_out),
        Suite("networks", "layers of ResNet-50, BERT, GPT-2, VGG ...", _always(networks.networks)),
        Suite("bf16", "bfloat16 squares 32 to 4096, packed and not", _always(linears.bf16)),
        Suite("batched", "32 to 512 products of 16x16 to 128x128", _always(linears.batched)),
        Suite("linear-grads", "the two gradients of linear, 256 to 2048", _always(linears.gradients)),
        Suite("linear-gelu", "linear with bias and GELU fused", _always(linears.gelu)),
        Suite("skinny-packed", "1 to 64 rows by a constant weight", _always(linears.skinny_packed)),
        Suite("transformers", "BERT-base's and GPT-2's linear layers", _always(linears.transformers)),
        Suite("resnet50", "ResNet-50's layers, NHWC, inference, batch 1 and 8", _always(convs.resnet)),
        Suite("resnet50-nchw", "the same in NCHW, packing in the call", _always(convs.resnet_nchw)),
        Suite("resnet50-bf16", "the same in NHWC and bfloat16, batch 1", _always(convs.resnet_bf16)),
        Suite("resnet50-grads", "their input and weight gradients", _always(convs.resnet_gradients)),
        Suite("mobilenetv2", "MobileNetV2's depthwise layers, both layouts", _always(convs.mobilenet)),
        Suite("vgg16", "VGG-16's 3x3 layers, NHWC, inference", _always(convs.vgg)),
        Suite("unet", "U-Net's layers, transposed ones too", _always(convs.unet)),
        Suite("deepbench-conv-train", "DeepBench's training convolutions", _always(convs.deepbench_train)),
        Suite("deepbench-conv-grads", "their input and weight gradients", _always(convs.deepbench_gradients)),
        Suite(
            "deepbench-conv-inference",
            "DeepBench's inference convolutions",
            _always(convs.deepbench_inference),
        ),
        Suite(
            "lstm",
            "T 50, batch 1 to 64, hidden 128 to 1024; forward, with backward",
            _always(recurrents.lstm),
        ),
        Suite("gru", "the same for GRU", _always(recurrents.gru)),
        Suite("rnn", "the same for the plain layer", _always(recurrents.rnn)),
        Suite("lengths", "sequences of 1 to 50 steps in one batch", _always(recurrents.lengths)),
        Suite("cells", "one step of LSTM, GRU and RNN", _always(recurrents.cells)),
        Suite("recurrent-models", "language and acoustic models", _always(recurrents.models)),
        Suite(
            "deepbench-rnn-train",
            "DeepBench's recurrent layers, with backward",
            _always(recurrents.deepbench_train),
            LONG_GFLOP,
        ),
        Suite(
            "deepbench-rnn-inference",
            "DeepBench's recurrent inference",
            _always(recurrents.deepbench_inference),
            LONG_GFLOP,
        ),
        Suite("all", "every suite above", _all, ROOF_GFLOP, kernelbench.left_out),
    )
}


def suites() -> tuple[Suite, ...]:
    """Every suite, in the order in which a reader meets them."""
    return tuple(_SUITES.values())


def get_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        UnknownSuiteError: there is none; the text lists the suites and suggests close spelling.
    """
    if name in _SUITES:
        return _SUITES[name]
    hint = did_you_mean(name, _SUITES)
    raise UnknownSuiteError(f"no suite is called {name!r}.{hint} Suites: {', '.join(_SUITES)}.")


def select(
    suite: str | None = None,
    *,
    problem: str | None = None,
    op: str | None = None,
    dtype: str | None = None,
    most_gflop: float | None = None,
) -> Selection:
    """The problems of a suite that match; with a `problem` pattern and no suite, of all suites.

    Args:
        suite: a suite's name; default "quick", or "all" when `problem` is given.
        problem: a name, or a pattern such as `square-*`.
        op: keep this operation only.
        dtype: keep this dtype of inputs only.
        most_gflop: the largest problem in GFLOP; default the suite's own limit.

    Raises:
        UnknownSuiteError: no such suite, or nothing in it matches; the text says what would.
    """
    name = suite or ("all" if problem else "quick")
    found = get_suite(name).select(most_gflop)
    problems, left_out = list(found.problems), dict(found.left_out)
    if problem is not None:
        matching = [p for p in problems if fnmatch.fnmatchcase(p.name, problem)]
        if not matching:
            raise UnknownSuiteError(_no_match(problem, name, problems, left_out))
        problems = matching
        left_out = {n: why for n, why in left_out.items() if fnmatch.fnmatchcase(n, problem)}
    for what, wanted in (("op", op), ("dtype", dtype)):
        if wanted is not None and problems:
            there = sorted({str(getattr(p, what)) for p in problems})
            problems = [p for p in problems if getattr(p, what) == wanted]
            if not problems:
                raise UnknownSuiteError(
                    f"suite {name!r} has no problem with {what} {wanted!r}; it has {', '.join(there)}."
                )
    return Selection(tuple(problems), left_out)


def _no_match(pattern: str, suite: str, problems: Iterable[Problem], left_out: dict[str, str]) -> str:
    over = [name for name in left_out if fnmatch.fnmatchcase(name, pattern)]
    if over:
        return f"problem {over[0]!r} is left out of suite {suite!r}: {left_out[over[0]]}."
    names = [p.name for p in problems]
    close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
    hint = f" Close: {', '.join(close)}." if close else ""
    return f"no problem of suite {suite!r} matches {pattern!r}.{hint} `kernelwright list {suite}` shows all."
