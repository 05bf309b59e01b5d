"""torch's LSTM, GRU and plain RNN: the functions behind `torch.nn.LSTM`, for sequences, with their gradients,
and for single steps.

A sequence with lengths is packed and padded again in the call, as a user of padded batches has to. Gradients
go through autograd: `torch.autograd.grad` of the outputs, with the gradients that the problem gives. Constant
weights of an LSTM are brought into oneDNN's order before the timing starts, as torch.compile does when it
freezes a model; there is no such op for GRU and RNN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problems import Inputs, Problem
from .base import register
from .torch_base import TorchBaseline, tensor

KINDS = ("lstm", "gru", "rnn")
STATES = {"lstm": ("h0", "c0"), "gru": ("h0",), "rnn": ("h0",)}


def attributes(problem: Problem) -> dict[str, Any]:
    """All attributes of a recurrent problem."""
    return problem.complete


def given(problem: Problem, inputs: Inputs) -> dict[str, Any]:
    """The tensors by the names of the inputs; None for one that was left out."""
    return dict(zip(problem.operation.inputs, map(tensor, inputs), strict=True))


def reason_against(problem: Problem) -> str | None:
    """What torch has no call for."""
    attrs = attributes(problem)
    if len({operand.dtype for operand in problem.operands if operand.dtype != "int64"}) > 1:
        return "torch has no weights of another dtype than the states"
    if not attrs.get("reset_after", True):
        return "torch's GRU resets after the product only"
    if "resets" in problem.operation.inputs and problem.input("resets"):
        return "torch starts a sequence once, and there are resets"
    w_hh = problem.input("w_hh")
    if w_hh is not None and len(w_hh.shape) == 3:
        return "torch has one recurrence over all units, and w_hh is of heads"
    if attrs.get("reverse") and "lengths" in problem.operation.inputs and problem.input("lengths"):
        return "torch has no reverse direction alone, and lengths cannot be flipped"
    return None


class Layer:
    """One layer as torch calls it: `run(x, states) -> (y, *last states)`.

    Args:
        problem: of one of the sequence ops.
        parts: the tensors by name.
    """

    def __init__(self, problem: Problem, parts: dict[str, Any]):
        import torch

        attrs = attributes(problem)
        self.kind = problem.op.partition("_")[0]
        self.batch_first = bool(attrs["batch_first"])
        self.reverse = bool(attrs["reverse"])
        name = f"rnn_{attrs['nonlinearity']}" if self.kind == "rnn" else self.kind
        self.function = getattr(torch, name)
        self.time = 1 if self.batch_first else 0
        x, w_hh = parts["x"], parts["w_hh"]
        zeros = torch.zeros(x.shape[1 - self.time], w_hh.shape[1], dtype=x.dtype)
        self.states = [zeros if parts[n] is None else parts[n] for n in STATES[self.kind]]
        biases = (parts["b_ih"], parts["b_hh"])
        self.has_biases = any(b is not None for b in biases)
        none = torch.zeros(w_hh.shape[0], dtype=x.dtype)
        self.weights = [parts["w_ih"], w_hh]
        if self.has_biases:
            self.weights += [none if b is None else b for b in biases]
        self.lengths = parts["lengths"]
        self.steps = x.shape[self.time]
        # Without gradients nn.LSTM passes train=False, which lets oneDNN skip what backward would need.
        self.rest = (self.has_biases, 1, 0.0)

    def run(self, x: Any, states: list[Any], weights: list[Any], train: bool = False) -> tuple[Any, ...]:
        """y and the last states, [B, H]."""
        from torch.nn.utils import rnn

        first = [state.unsqueeze(0) for state in states]
        hx = first if self.kind == "lstm" else first[0]
        if self.lengths is not None:
            packed = rnn.pack_padded_sequence(
                x, self.lengths, batch_first=self.batch_first, enforce_sorted=False
            )
            order, back = packed.sorted_indices, packed.unsorted_indices
            ordered = [state.index_select(1, order) for state in first]
            hx = ordered if self.kind == "lstm" else ordered[0]
            data, *last = self.function(
                packed.data, packed.batch_sizes, hx, weights, *self.rest, train, False
            )
            again = rnn.PackedSequence(data, packed.batch_sizes, order, back)
            y, _ = rnn.pad_packed_sequence(again, batch_first=self.batch_first, total_length=self.steps)
            return (y, *(state.index_select(1, back).squeeze(0) for state in last))
        if self.reverse:
            x = x.flip(self.time)
        y, *last = self.function(x, hx, weights, *self.rest, train, False, self.batch_first)
        if self.reverse:
            y = y.flip(self.time)
        return (y, *(state.squeeze(0) for state in last))

    def packed(self, x: Any, states: list[Any]) -> Callable[[], Any] | None:
        """The call without gradients, its weights reordered now; None where torch cannot do that."""
        import torch

        reorder = getattr(torch.ops.mkldnn, "_reorder_mkldnn_rnn_layer_weight", None)
        if reorder is None or self.kind != "lstm" or self.lengths is not None or self.reverse:
            return None
        # Of weights reordered for batch_first, torch 2.13 makes an abort.
        if x.dtype != torch.float32 or 0 in x.shape or not self.has_biases or self.batch_first:
            return None
        (w_ih, w_hh, *biases), hidden = self.weights, self.weights[1].shape[1]
        first = [state.unsqueeze(0) for state in states]
        weights = reorder(w_ih, w_hh, hidden, False, True, False, list(x.shape))
        lstm, layer = 2, torch.ops.aten.mkldnn_rnn_layer
        rest: tuple[Any, ...] = (False, [], lstm, hidden, 1, True, False, False, False)

        def call() -> Any:
            y, h, c, _ = layer(x, *weights, *biases, *first, *rest)
            return y, h.squeeze(0), c.squeeze(0)

        return call


class TorchRecurrent(TorchBaseline):
    """Whole sequences, without gradients."""

    name = "torch"
    ops = KINDS

    def why_not(self, problem: Problem) -> str | None:
        if problem.attrs.get("train"):
            return "what is kept for the gradient is each library's own"
        return reason_against(problem)

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        parts = given(problem, inputs)
        layer, x = Layer(problem, parts), parts["x"]
        states, weights = layer.states, layer.weights
        if problem.packed and (call := layer.packed(x, states)) is not None:
            return call
        return lambda: layer.run(x, states, weights)


class TorchTraining(TorchBaseline):
    """Whole sequences forward, then backward through autograd."""

    name = "torch"
    ops = tuple(f"{kind}_training" for kind in KINDS)
    differentiates = True

    def why_not(self, problem: Problem) -> str | None:
        names = (*STATES[problem.op.partition("_")[0]], "b_ih", "b_hh", "dy")
        absent = [name for name in names if problem.input(name) is None]
        if absent:
            return f"{', '.join(absent)} left out: nothing to ask autograd for"
        return reason_against(problem)

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch

        parts = given(problem, inputs)
        layer = Layer(problem, parts)
        with torch.inference_mode(False):
            x, *states = (part.detach().requires_grad_() for part in (parts["x"], *layer.states))
            weights = [weight.detach().requires_grad_() for weight in layer.weights]
        names = ("dy", "dh_n", "dc_n")[: 1 + len(states)]
        wanted = [place for place, name in enumerate(names) if parts[name] is not None]
        grads = [parts[names[place]] for place in wanted]
        variables = [x, *states, *weights]

        def call() -> Any:
            outputs = layer.run(x, states, weights, train=True)
            found = torch.autograd.grad([outputs[place] for place in wanted], variables, grads)
            return (*outputs, *found)

        return call


class TorchCell(TorchBaseline):
    """One step."""

    name = "torch"
    ops = tuple(f"{kind}_cell" for kind in KINDS)

    def why_not(self, problem: Problem) -> str | None:
        return reason_against(problem)

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch

        parts, attrs = given(problem, inputs), attributes(problem)
        kind = problem.op.partition("_")[0]
        x, w_hh = parts["x"], parts["w_hh"]
        zeros = torch.zeros(x.shape[0], w_hh.shape[1], dtype=x.dtype)
        states = [zeros if parts[n[0]] is None else parts[n[0]] for n in STATES[kind]]
        none = torch.zeros(w_hh.shape[0], dtype=x.dtype)
        biases = [parts["b_ih"], parts["b_hh"]]
        if any(b is not None for b in biases):
            biases = [none if b is None else b for b in biases]
        rest = (parts["w_ih"], w_hh, *biases)
        if kind == "lstm":
            return lambda: torch.lstm_cell(x, states, *rest)
        function = torch.gru_cell if kind == "gru" else getattr(torch, f"rnn_{attrs['nonlinearity']}_cell")
        return lambda: function(x, states[0], *rest)


register(TorchRecurrent())
register(TorchTraining())
register(TorchCell())
