"""Recurrent layers by cuDNN: `torch.nn.LSTM`, GRU and RNN, their weights in one piece of memory.

Sequences of many lengths are packed and padded again in the call, as a user of padded batches has to. Where
sequences start afresh, cuDNN knows no way: a loop calls it for each piece of time in which none does, and
sets the states to zeros between them. Gradients are those of autograd, of a forward pass made before.

In bfloat16, torch keeps no weights in one piece for cuDNN (`torch.backends.cudnn.is_acceptable`), and its
versions differ in whether they call cuDNN at all or kernels of their own, step by step. An expert takes
float16 then, of the same bytes and the same rate: that is what ours in bfloat16 is raced against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...problems.problem import Problem

_STATES = {"lstm": 2, "gru": 1, "rnn": 1}


def _for_cudnn(tensor: Any) -> Any:
    """A tensor in the dtype that cuDNN is given: float16 in the place of bfloat16."""
    import torch

    if tensor is None or not tensor.is_cuda or tensor.dtype != torch.bfloat16:
        return tensor
    cudnn: Any = torch.backends.cudnn
    return tensor if cudnn.is_acceptable(tensor) else tensor.half()


def _module(kind: str, x: Any, weights: Sequence[Any], biases: Sequence[Any], attrs: Any) -> Any:
    """torch's layer with these weights."""
    import torch

    w_ih, w_hh = weights
    own = {"nonlinearity": attrs["nonlinearity"]} if kind == "rnn" else {}
    name = kind.upper()
    bias = any(b is not None for b in biases)
    made = getattr(torch.nn, name)(
        w_ih.shape[1], w_hh.shape[1], bias=bias, device=x.device, dtype=x.dtype, **own
    )
    with torch.no_grad():
        made.weight_ih_l0.copy_(w_ih)
        made.weight_hh_l0.copy_(w_hh)
        for name, value in zip(("bias_ih_l0", "bias_hh_l0"), biases, strict=True):
            if bias:
                getattr(made, name).copy_(0 if value is None else value)
    made.flatten_parameters()
    return made


def _called(kind: str, module: Any, x: Any, states: Sequence[Any], lengths: Any) -> tuple[Any, ...]:
    """y and the last states [B, H] of a layer."""
    from torch.nn.utils import rnn

    first = [state[None] for state in states]
    hx = tuple(first) if kind == "lstm" else first[0]
    if lengths is None:
        y, last = module(x, hx)
    else:
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        found, last = module(packed, hx)
        y, _ = rnn.pad_packed_sequence(found, total_length=x.shape[0])
    return (y, *(state[0] for state in (last if kind == "lstm" else (last,))))


def _forward(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    kind, tensors = problem.op, [_for_cudnn(tensor) for tensor in tensors]
    count = _STATES[kind]
    x, states = tensors[0], list(tensors[1 : 1 + count])
    w_ih, w_hh, b_ih, b_hh, lengths, resets = tensors[1 + count :]
    states = [x.new_zeros(x.shape[1], w_hh.shape[1]) if s is None else s for s in states]
    module = _module(kind, x, (w_ih, w_hh), (b_ih, b_hh), problem.complete)
    if lengths is not None:
        lengths = lengths.cpu()  # where torch wants them
    if resets is None:
        return lambda: _called(kind, module, x, states, lengths)
    times = torch.nonzero(resets.any(1)).flatten().tolist()
    edges = [*dict.fromkeys([0, *times]), x.shape[0]]
    stays = [(~resets[start])[:, None].to(x.dtype) for start in edges[:-1]]

    def pieces() -> Any:
        found, now = [], states
        for start, end, keep in zip(edges[:-1], edges[1:], stays, strict=True):
            y, *now = _called(kind, module, x[start:end], [state * keep for state in now], None)
            found.append(y)
        return (torch.cat(found), *now)

    return pieces


@contextmanager
def _where_graphs_are_captured(x: Any) -> Iterator[None]:
    """A context on the stream that torch.cuda.graph captures on.

    Autograd launches a gradient on the stream of its forward pass. Were that the default one, which cannot be
    captured, the capture would break off, and torch's allocator would stay as if it were still going on.
    """
    import torch

    if not x.is_cuda:
        yield
        return
    cuda: Any = torch.cuda
    if cuda.graph.default_capture_stream is None:
        cuda.graph.default_capture_stream = cuda.Stream()
    before, beside = cuda.current_stream(), cuda.graph.default_capture_stream
    beside.wait_stream(before)
    with cuda.stream(beside):
        yield
    before.wait_stream(beside)


def _backward(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    op = problem.operation
    given = dict(zip(op.inputs, map(_for_cudnn, tensors), strict=True))
    kind = problem.op.partition("_")[0]
    names = ("h0", "c0")[: _STATES[kind]]
    here = _where_graphs_are_captured(given["x"])
    with here, torch.inference_mode(False), torch.enable_grad():
        x = given["x"].clone().requires_grad_()
        states = [given[name].clone().requires_grad_() for name in names]
        weights = [given[name].clone() for name in ("w_ih", "w_hh")]
        # Zero biases, so that there are gradients of biases to be asked for.
        zeros = [x.new_zeros(weights[0].shape[0])] * 2
        module = _module(kind, x, weights, zeros, problem.complete)
        lengths = None if given["lengths"] is None else given["lengths"].cpu().clone()
        outputs = _called(kind, module, x, states, lengths)
        grads = [given[name] for name in ("dy", "dh_n", "dc_n")[: 1 + len(names)]]
        grads = [None if g is None else g.clone() for g in grads]
        asked = [(out, g) for out, g in zip(outputs, grads, strict=True) if g is not None]
        variables = [x, *states, *module.parameters()]

    def call() -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return torch.autograd.grad(
                [out for out, _ in asked], variables, [g for _, g in asked], retain_graph=True
            )

    return call


_KINDS = ("lstm", "gru", "rnn")
_TOLD = "(float16 in the place of bfloat16)"
NAMES = {kind: f"torch.nn.{kind.upper()} {_TOLD}" for kind in _KINDS} | {
    f"{kind}_grad": f"autograd of torch.nn.{kind.upper()} {_TOLD}" for kind in _KINDS
}
WAYS: dict[str, Callable[..., Any]] = dict.fromkeys(_KINDS, _forward) | {
    f"{kind}_grad": _backward for kind in _KINDS
}
