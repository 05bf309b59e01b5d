"""Our side of a race: the public function that a user would call, on the operands of a problem."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import functional
from ..engine.eager import call, call_all
from ..kernels.op import Op, Specs
from ..kernels.prepack import Packed, prepack
from ..kernels.spec import TensorSpec
from .problems import Inputs, Problem
from .problems.training import SUFFIX, Training, training_op
from .timing import Call, Lane, Outputs, call_loop, closure_loop


@dataclass(frozen=True)
class Ours:
    """How this package computes a problem.

    Attributes:
        problem: what is computed.
    """

    problem: Problem

    @property
    def function(self) -> Callable[..., Any]:
        """The public function; where there is none, the eager call of the op."""
        problem = self.problem
        if training_op(problem.op) is not None:
            return _trained(Training(problem.op.removesuffix(SUFFIX)))
        name = f"conv{len(problem.operands[0].shape) - 2}d" if problem.op == "conv" else problem.op
        if name not in functional.MODULES:
            return _eager(problem.operation)
        return _FITTED.get(name, _as_it_is)(functional.get(name))

    @property
    def takes_out(self) -> bool:
        """Whether it writes into an array that it is given."""
        return "out" in inspect.signature(self.function).parameters

    def calls(self, inputs: Inputs) -> list[tuple[Op, Specs, Mapping[str, Any]]]:
        """Each op that is called, with the specs and attributes that `choose` gets."""
        problem = self.problem
        if training_op(problem.op) is None:
            return [(problem.operation, *self.seen_by_kernels(inputs))]
        seen: list[tuple[Op, Specs, Mapping[str, Any]]] = []

        def note(op: Op, specs: Specs, attrs: Mapping[str, Any]) -> Specs:
            seen.append((op, specs, attrs))
            return op.infer(specs, **op.complete(attrs))

        Training(problem.op.removesuffix(SUFFIX)).run(note, problem.specs, problem.attrs)
        return seen

    def prepacked(self, inputs: Inputs) -> tuple[Any, ...]:
        """The inputs with constant weights packed.

        Raises:
            DTypeError: the op takes no packed weights.
        """
        problem = self.problem
        # How a filter is packed depends on its convolution, and recurrent layers have several weights; a
        # matrix is packed the same for any call.
        attrs = problem.attrs if problem.op == "conv" else {}
        several = problem.operation.family == "recurrent"
        return tuple(
            prepack(problem.op, array, **({"name": name} if several else attrs))  # type: ignore[arg-type]
            if operand and operand.packed
            else array
            for name, operand, array in zip(problem.operation.inputs, problem.inputs, inputs, strict=True)
        )

    def seen_by_kernels(self, inputs: Inputs) -> tuple[Specs, Mapping[str, Any]]:
        """Specs and attributes as `choose` gets them: those of the packed weights where there are any."""
        problem = self.problem
        if not problem.packed:
            return problem.specs, problem.attrs
        specs, attrs = list(problem.specs), dict(problem.attrs)
        for place, value in enumerate(self.prepacked(inputs)):
            if isinstance(value, Packed):
                name = problem.operation.inputs[place]
                specs[place] = TensorSpec.of(value.data)
                attrs |= {f"{name}_format": value.format, f"{name}_shape": value.shape}
        return tuple(specs), attrs

    def lane(self, sets: Sequence[Inputs], in_place: bool) -> Lane:
        """The contestant on these operand sets.

        Args:
            sets: operands, one set for a warm cache or many for a cold one.
            in_place: write into outputs that were allocated before, if the function can; else each call
                allocates its own.
        """
        problem, function = self.problem, self.function
        in_place = in_place and self.takes_out
        plain = in_place and not problem.attrs

        def prepared(inputs: Inputs) -> Call:
            arguments = self.prepacked(inputs)
            if not in_place:
                return Call((closure(problem, function, arguments),))
            (output,) = problem.empty_outputs()
            if plain:
                return Call((*arguments, output), (output,))
            return Call((closure(problem, function, arguments, out=output),), (output,))

        run = call_loop(function, len(problem.inputs)) if plain else closure_loop
        spare = prepared(sets[0]) if in_place and len(sets) == 1 else None
        return Lane("kernelwright", run, [prepared(s) for s in sets], spare, None if in_place else arrays_of)


Function = Callable[..., Any]


def _as_it_is(function: Function) -> Function:
    return function


def _with_residual(function: Function) -> Function:
    """The residual is a keyword of kw.linear and kw.conv2d."""

    def fitted(x: Any, w: Any, b: Any, residual: Any, out: Any = None, **attrs: Any) -> Any:
        return function(x, w, b, residual=residual, out=out, **attrs)

    return fitted


def _paired(function: Function) -> Function:
    """The states of an LSTM are a pair, or None for zeros."""

    def fitted(x: Any, h: Any, c: Any, *rest: Any, **attrs: Any) -> Any:
        return function(x, None if h is None and c is None else (h, c), *rest, **attrs)

    return fitted


# Public functions whose arguments are not the op's inputs and then its attributes: what brings them there.
_FITTED: dict[str, Callable[[Function], Function]] = {
    "linear": _with_residual,
    "conv1d": _with_residual,
    "conv2d": _with_residual,
    "conv3d": _with_residual,
    "lstm": _paired,
    "lstm_cell": _paired,
}


def _eager(op: Op) -> Function:
    """The call of an op that has no public function; those of the family `recurrent` have several outputs."""

    def single(*inputs: Any, out: Any = None, **attrs: Any) -> Any:
        return call(op, inputs, attrs, out)

    def several(*inputs: Any, **attrs: Any) -> Any:
        return call_all(op, inputs, attrs)

    return several if op.family == "recurrent" else single


def _trained(training: Training) -> Function:
    def both(*inputs: Any, **attrs: Any) -> Any:
        return training.run(call_all, inputs, attrs)

    return both


def closure(
    problem: Problem, function: Callable[..., Any], arguments: tuple[Any, ...], **more: Any
) -> Callable[[], Any]:
    """The call as a function without arguments."""
    named = {**problem.attrs, **more}
    return lambda: function(*arguments, **named)


def arrays_of(result: Any) -> Outputs:
    """The NumPy arrays in what a function returned: an Array, or tuples of them in the order of the op."""
    if isinstance(result, tuple | list):
        return tuple(array for part in result for array in arrays_of(part))
    return (np.asarray(result),)
