"""Pointwise ops and chains of them that a compiler fuses, at 64 MB and more of each array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ....kernels.pointwise.op import fused_op
from ....kernels.pointwise.program import Program, Value, Writer
from ...problems.problem import Operand, Problem
from .job import Race

BERT = "BERT-large's feed-forward (Devlin et al. 2018): 32 sequences of 512, width 4096 inside"
LLAMA = "Llama 3 8B (Dubey et al. 2024): 8192 tokens, 14336 inside"
RESNET = "ResNet-50 (He et al. 2015): 64 images after the second stage, channels last"
SYNTHETIC = "synthetic"

Chain = Callable[..., Value]


def _bias_gelu(w: Writer, x: Value, bias: Value) -> Value:
    return w.gelu(x + bias)


def _swiglu(w: Writer, x: Value, gate: Value) -> Value:
    return w.silu(gate) * x


def _scale_shift_relu(w: Writer, x: Value, scale: Value, shift: Value, residual: Value) -> Value:
    return w.relu(x * scale + shift + residual)


def _tanh_chain(w: Writer, x: Value, y: Value) -> Value:
    return w.tanh(x) * w.sigmoid(y) + x * 0.5


CHAINS: dict[str, tuple[Chain, str, tuple[tuple[int, ...], ...]]] = {
    "bias-gelu": (_bias_gelu, BERT, ((16384, 4096), (4096,))),
    "swiglu": (_swiglu, LLAMA, ((8192, 14336), (8192, 14336))),
    "scale-shift-relu": (
        _scale_shift_relu,
        RESNET,
        ((64, 28, 28, 1024), (1024,), (1024,), (64, 28, 28, 1024)),
    ),
    "tanh-chain": (_tanh_chain, SYNTHETIC, ((1 << 26,), (1 << 26,))),
}
"""name -> (what it computes, source, shapes of the inputs); `vendors/pointwise.py` has torch's."""


def races(small: bool) -> Iterator[Race]:
    """The most telling ones first; see `jobs.races`."""
    found = [chain("bias-gelu", "bfloat16"), chain("tanh-chain", "float32"), *_streams()]
    if not small:
        found += [chain(name, "bfloat16") for name in ("swiglu", "scale-shift-relu", "tanh-chain")]
        found += [*_broadcasts(), *_turned(), chain("bias-gelu", "float32")]
    yield from ((problem, None) for problem in found)


def program_of(name: str, dtype: str) -> Program:
    """The program of a chain."""
    function, _, shapes = CHAINS[name]
    w = Writer()
    given = w.inputs(*[dtype] * len(shapes))
    w.output(function(w, *given))
    return w.program()


def chain(name: str, dtype: str) -> Problem:
    """A chain as one program."""
    _, source, shapes = CHAINS[name]
    program = program_of(name, dtype)
    inputs = tuple(Operand(shape, dtype) for shape in shapes)
    return _problem(f"{name}-{dtype}", fused_op(program).name, inputs, source, {"program": program})


def _streams() -> Iterator[Problem]:
    """One op over arrays that lie densely."""
    for dtype in ("float32", "bfloat16"):
        x = Operand((8192, 8192), dtype)
        yield _problem(f"copy-{dtype}", "copy", (x,))
        yield _problem(f"add-{dtype}", "add", (x, x))
    yield _problem("exp-float32", "exp", (Operand((1 << 26,)),))
    yield _problem("cast-bfloat16", "cast", (Operand((1 << 26,)),), attrs={"dtype": "bfloat16"})
    yield _problem("cast-float32", "cast", (Operand((1 << 26,), "bfloat16"),), attrs={"dtype": "float32"})


def _broadcasts() -> Iterator[Problem]:
    x = Operand((16384, 4096), "bfloat16")
    yield _problem("add-row", "add", (x, Operand((4096,), "bfloat16")), BERT)
    yield _problem("mul-column", "mul", (x, Operand((16384, 1), "bfloat16")), BERT)
    yield _problem("add-odd-rows", "add", (Operand((32768, 1003)), Operand((1003,))))


def _turned() -> Iterator[Problem]:
    for dtype in ("float32", "bfloat16"):
        x, y = Operand((8192, 8192), dtype), Operand((8192, 8192), dtype, transposed=True)
        yield _problem(f"add-turned-{dtype}", "add", (x, y))


def _problem(
    name: str,
    op: str,
    inputs: tuple[Operand | None, ...],
    source: str = SYNTHETIC,
    attrs: dict[str, Any] | None = None,
) -> Problem:
    return Problem(f"pointwise-{name}", op, inputs, "pointwise", source, attrs=attrs or {})
