"""ONNX Runtime: one-node models built in memory, run with inputs and outputs bound to arrays.

A weight that the problem marks as packed is an initializer, which a session packs when it is made; any other
is an input, read afresh in each call. Outputs are bound once: a call allocates nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

from ...kernels.op import AnyArray
from ..problems import Inputs, Problem
from ..timing import Call, Lane, closure_loop
from .base import Baseline, register
from .torch_conv import Convolution
from .torch_recurrent import STATES, attributes

OPSET, IR = 21, 10
# PyTorch's gates in the order of ONNX: i, f, g, o -> i, o, f, c and r, z, n -> z, r, h.
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


@dataclass
class Model:
    """A model under construction.

    Attributes:
        nodes: in order.
        feeds: arrays that are given to every call, by name.
        constants: arrays that the session keeps.
        results: the arrays that receive the outputs, by name, in the order of the op's outputs.
    """

    nodes: list[Any] = field(default_factory=list)
    feeds: dict[str, AnyArray] = field(default_factory=dict)
    constants: dict[str, AnyArray] = field(default_factory=dict)
    results: dict[str, AnyArray] = field(default_factory=dict)

    def node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any) -> None:
        """Adds a node; attributes of None are left out."""
        from onnx import helper

        kept = {name: value for name, value in attrs.items() if value is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), **kept))

    def give(self, name: str, array: AnyArray, constant: bool) -> None:
        """Adds an input: `constant` ones become part of the session."""
        (self.constants if constant else self.feeds)[name] = np.ascontiguousarray(array)

    def activate(self, name: str | None, source: str, target: str) -> None:
        """Adds the activation from `source` to `target`; nothing when they are one."""
        if source == target:
            return
        if name in ("gelu", "gelu_tanh"):
            self.node("Gelu", [source], [target], approximate="tanh" if name == "gelu_tanh" else "none")
        elif name == "silu":
            self.node("Sigmoid", [source], ["sigmoid"])
            self.node("Mul", [source, "sigmoid"], [target])
        else:
            assert name is not None
            self.node(ACTIVATIONS[name], [source], [target])

    def bound(self, threads: int, sessions: dict[bytes, Any] | None = None) -> Callable[[], Any]:
        """A call that runs it.

        Args:
            threads: how many it may use.
            sessions: those made before, by their model: one without constants serves any operands, and each
                session has threads of its own, of which a cold race would make thousands.
        """
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
        inputs = [
            helper.make_tensor_value_info(name, kinds[a.dtype.name], a.shape)
            for name, a in self.feeds.items()
        ]
        outputs = [
            helper.make_tensor_value_info(name, kinds[a.dtype.name], a.shape)
            for name, a in self.results.items()
        ]
        constants = [numpy_helper.from_array(a, name) for name, a in self.constants.items()]
        graph = helper.make_graph(self.nodes, "problem", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        text = model.SerializeToString()
        session = None if self.constants or sessions is None else sessions.get(text)
        if session is None:
            session = onnxruntime.InferenceSession(text, options, providers=["CPUExecutionProvider"])
            if sessions is not None:
                sessions[text] = session
        binding = session.io_binding()
        for name, a in self.feeds.items():
            binding.bind_input(name, "cpu", 0, a.dtype.type, a.shape, a.ctypes.data)
        for name, a in self.results.items():
            binding.bind_output(name, "cpu", 0, a.dtype.type, a.shape, a.ctypes.data)
        run, kept = session.run_with_iobinding, (self.feeds, self.results)

        def call(kept: Any = kept) -> Any:
            return run(binding)

        return call


class OnnxRuntime(Baseline):
    """What all operations share."""

    name = "onnxruntime"
    module = "onnxruntime"
    install = "pip install 'kernelwright[onnx]'"
    order = 5
    _threads = 1

    def missing(self) -> str | None:
        """None when both onnx and onnxruntime are there."""
        lacking = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
        return f"{' and '.join(lacking)} not installed: {self.install}" if lacking else None

    def describe(self) -> str:
        return f"onnxruntime {metadata.version('onnxruntime')}"

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        before, OnnxRuntime._threads = OnnxRuntime._threads, threads
        try:
            yield
        finally:
            OnnxRuntime._threads = before

    def why_not(self, problem: Problem) -> str | None:
        if {operand.dtype for operand in problem.operands} - {"float32", "int64"}:
            return "its CPU kernels are used for float32 here"
        return self.lacks(problem)

    def lacks(self, problem: Problem) -> str | None:
        """None, or why there is no model for a float32 problem."""
        return None

    def lane(self, problem: Problem, sets: Sequence[Inputs]) -> Lane:
        sessions: dict[bytes, Any] = {}

        def prepared(inputs: Inputs) -> Call:
            outputs = problem.empty_outputs()
            model = Model()
            self.build(model, problem, inputs, outputs)
            return Call((model.bound(self._threads, sessions),), outputs)

        spare = prepared(sets[0]) if len(sets) == 1 else None
        return Lane(self.name, closure_loop, [prepared(inputs) for inputs in sets], spare)

    @abstractmethod
    def build(self, model: Model, problem: Problem, inputs: Inputs, outputs: tuple[AnyArray, ...]) -> None:
        """Fills in the model for these operands."""


class OnnxMatmul(OnnxRuntime):
    """MatMul, and Gemm or MatMul and Add with an activation for linear."""

    ops = ("matmul", "linear")

    def lacks(self, problem: Problem) -> str | None:
        if any(operand.transposed for operand in problem.operands):
            return "MatMul takes row-major operands"
        if len(problem.inputs) > 3 and problem.inputs[3] is not None:
            return "an addition is a node of its own"
        return None

    def build(self, model: Model, problem: Problem, inputs: Inputs, outputs: tuple[AnyArray, ...]) -> None:
        x, w, b, _ = (*inputs, None, None)[:4]
        assert x is not None
        assert w is not None
        name = problem.attrs.get("activation")
        model.results["y"] = outputs[0]
        linear = "y" if name is None else "linear"
        model.give("x", x, constant=False)
        if problem.op == "matmul":
            model.give("w", w, constant=problem.packed)
            model.node("MatMul", ["x", "w"], ["y"])
            return
        names = ["x", "w"]
        if b is not None:
            model.give("b", b, constant=problem.packed)
            names.append("b")
        if x.ndim == 2:
            model.give("w", w, constant=problem.packed)
            model.node("Gemm", names, [linear], transB=1)
        else:
            model.give("w", w.T, constant=problem.packed)
            model.node("MatMul", ["x", "w"], [linear if b is None else "product"])
            if b is not None:
                model.node("Add", ["product", "b"], [linear])
        model.activate(name, linear, "y")


class OnnxConv(OnnxRuntime):
    """Conv, which takes padding on each side and a fused activation."""

    ops = ("conv",)

    def lacks(self, problem: Problem) -> str | None:
        if Convolution.of(problem).layout != "NCHW":
            return "Conv takes NCHW"
        return None if problem.inputs[3] is None else "an addition is a node of its own"

    def build(self, model: Model, problem: Problem, inputs: Inputs, outputs: tuple[AnyArray, ...]) -> None:
        x, w, b, _ = inputs
        assert x is not None
        assert w is not None
        conv = Convolution.of(problem)
        attrs = problem.complete
        pairs = attrs["padding"] or ((0, 0),) * conv.axes
        model.results["y"] = outputs[0]
        model.give("x", x, constant=False)
        model.give("w", w, constant=problem.packed)
        if b is not None:
            model.give("b", b, constant=problem.packed)
        linear = "y" if conv.activation is None else "linear"
        model.node(
            "Conv",
            ["x", "w", *(["b"] if b is not None else [])],
            [linear],
            strides=list(conv.stride),
            dilations=list(conv.dilation),
            pads=[*(low for low, _ in pairs), *(high for _, high in pairs)],
            group=conv.groups,
        )
        model.activate(conv.activation, linear, "y")


class OnnxRecurrent(OnnxRuntime):
    """LSTM, GRU and RNN over sequences, and over sequences of one step for the cells."""

    ops = ("lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell")

    def lacks(self, problem: Problem) -> str | None:
        attrs = attributes(problem)
        if attrs.get("train"):
            return "it keeps nothing for a gradient"
        starts_anew = "resets" in problem.operation.inputs and problem.input("resets") is not None
        w_hh = problem.input("w_hh")
        if starts_anew or (w_hh is not None and len(w_hh.shape) == 3):
            return "it starts each sequence once, and has no heads"
        return "its CPU kernels are time-major" if attrs.get("batch_first") else None

    def build(self, model: Model, problem: Problem, inputs: Inputs, outputs: tuple[AnyArray, ...]) -> None:
        attrs = attributes(problem)
        kind, _, cell = problem.op.partition("_")
        parts = dict(zip(problem.operation.inputs, inputs, strict=True))
        x = parts["x"]
        assert x is not None
        model.give("x", x[None] if cell else x, constant=False)
        for name in ("w_ih", "w_hh"):
            array = parts[name]
            assert array is not None
            model.give(name, reordered(kind, array)[None], constant=problem.packed)
        hidden = parts["w_hh"].shape[1]  # type: ignore[union-attr]
        names = ["x", "w_ih", "w_hh", "", "", "", ""]
        biases = [parts["b_ih"], parts["b_hh"]]
        if any(b is not None for b in biases):
            zeros = np.zeros(len(GATES[kind]) * hidden, x.dtype)
            both = [reordered(kind, zeros if b is None else b) for b in biases]
            model.give("b", np.concatenate(both)[None], constant=problem.packed)
            names[3] = "b"
        if parts.get("lengths") is not None:
            model.give("lengths", parts["lengths"].astype(np.int32), constant=False)  # type: ignore[union-attr]
            names[4] = "lengths"
        for place, state in enumerate(STATES[kind]):
            array = parts[state[0] if cell else state]
            if array is not None:
                model.give(state, array[None], constant=False)
                names[5 + place] = state
        results = ["" if cell else "y", "h_n", "c_n"][: 1 + len(STATES[kind])]
        wanted = [name for name in results if name]
        for name, array in zip(wanted, outputs, strict=True):
            # y has an axis for the directions behind the one of time, the states have it in front.
            model.results[name] = array[:, None] if name == "y" else array[None]
        more: dict[str, Any] = {}
        if kind == "gru":
            more["linear_before_reset"] = int(attrs["reset_after"])
        if kind == "rnn":
            more["activations"] = [attrs["nonlinearity"].capitalize()]
        direction = "reverse" if attrs.get("reverse") else "forward"
        model.node(
            kind.upper(),
            names[: 5 + len(STATES[kind])],
            results,
            hidden_size=hidden,
            direction=direction,
            **more,
        )


def reordered(kind: str, weight: AnyArray) -> AnyArray:
    """Weights or biases with their gates in the order of ONNX."""
    gates = weight.reshape(len(GATES[kind]), -1, *weight.shape[1:])
    return np.concatenate([gates[place] for place in GATES[kind]])


register(OnnxMatmul())
register(OnnxConv())
register(OnnxRecurrent())
