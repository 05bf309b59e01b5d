"""RNN, LSTM and GRU of several layers and directions; parameters are named and start as in torch.nn."""

from __future__ import annotations

from typing import Any, ClassVar

from ...kernels.errors import ConfigError, ShapeError
from ..array import Array
from ..functional.dropout import dropout
from ..functional.index import concat, stack
from ..functional.recurrent import gru, lstm, rnn
from . import init
from .linear import _bound
from .module import Module
from .state import current


class _Recurrent(Module):
    """What the three have in common. Layer l's parameters are weight_ih_l{l}, weight_hh_l{l}, bias_ih_l{l}
    and bias_hh_l{l}, with `_reverse` at the end for the backward direction.
    """

    gates: ClassVar[int]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        name = type(self).__name__
        if num_layers < 1 or not 0 <= dropout <= 1:
            raise ConfigError(
                f"{name}: num_layers must be 1 or more and dropout in 0..1, got {num_layers} and {dropout}."
            )
        self.num_layers, self.batch_first, self.bias = num_layers, batch_first, bias
        self.dropout, self.bidirectional = dropout, bidirectional
        rows, bound = self.gates * hidden_size, _bound(hidden_size)
        keys = iter(init.keys(name, key, 4 * len(self._suffixes())))
        for suffix in self._suffixes():
            inputs = input_size if "_l0" in suffix else hidden_size * (1 + bidirectional)
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (rows, inputs),
                "weight_hh": (rows, hidden_size),
            }
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for part, shape in shapes.items():
                setattr(self, part + suffix, init.uniform(next(keys), shape, -bound, bound, dtype))

    def _suffixes(self) -> list[str]:
        """The end of the parameters' names, for each layer and direction in the order of the states."""
        ways = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{way}" for layer in range(self.num_layers) for way in ways]

    def _layers(self, x: Any, states: list[Any], *by_step: Any) -> tuple[Array, list[Any]]:
        """All layers over x: the last one's outputs, and the end state of each layer and direction.

        In bfloat16 on the CPU the weights are that; sums, states and what lies between layers are float32.
        On a GPU all is bfloat16 but sums and states inside a layer.

        Args:
            by_step: lengths and resets.
        """
        ends = []
        dtype, on_cpu = x.dtype, not str(getattr(x, "device", "cpu")).startswith("cuda")
        if on_cpu:
            x, states = _wide(x), [_wide(state) for state in states]
        ways = 1 + self.bidirectional
        for number, suffix in enumerate(self._suffixes()):
            reverse = suffix.endswith("_reverse")
            if not reverse:
                below, outputs = x, []
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [vars(self).get(name + suffix) for name in names]
            if on_cpu:
                weights[2:] = [_wide(bias) for bias in weights[2:]]
            y, end = self._one(below, states[number], weights, by_step, reverse)
            ends.append(end)
            outputs.append(y)
            if len(outputs) == ways:
                x = concat(outputs, axis=2) if ways > 1 else y
                run = current()
                if self.dropout and run is not None and number + 1 < len(states):
                    x = dropout(x, self.dropout, key=run.next_key(type(self).__name__))
        return _as(x, dtype), [_as(end, dtype) for end in ends]

    def _one(self, x: Any, state: Any, weights: list[Any], by_step: Any, reverse: bool) -> tuple[Array, Any]:
        """One layer in one direction: its outputs and its end state."""
        raise NotImplementedError

    def _split(self, state: Any) -> list[Any]:
        """A state [layers * directions, B, H] as one for each; None, for zeros, as Nones."""
        count = len(self._suffixes())
        if state is None:
            return [None] * count
        if len(state.shape) != 3 or state.shape[0] != count:
            raise ShapeError(
                f"{type(self).__name__}: a state has shape [{count}, B, H], one for each layer and "
                f"direction, got {tuple(state.shape)}."
            )
        return [state[number] for number in range(count)]


class RNN(_Recurrent):
    """Plain recurrent layers (Elman 1990): `y, h = rnn(x, h)`; arguments as torch.nn.RNN.

    x: [T, B, input_size], or [B, T, input_size] with batch_first; h: [layers * directions, B, hidden_size],
    zeros for None; y: x's with hidden_size * directions. lengths: [B], how many steps of each sequence count;
    resets: [T, B] of bool ([B, T] with batch_first), true where a sequence starts afresh, from zeros.
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            key=key,
            dtype=dtype,
        )

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, Array]:
        y, ends = self._layers(x, self._split(state), lengths, resets)
        return y, stack(ends, axis=0)

    def _one(self, x: Any, state: Any, weights: list[Any], by_step: Any, reverse: bool) -> tuple[Array, Any]:
        return rnn(
            x,
            state,
            *weights,
            *by_step,
            nonlinearity=self.nonlinearity,
            reverse=reverse,
            batch_first=self.batch_first,
        )


class GRU(_Recurrent):
    """Gated recurrent layers (Cho et al. 2014): `y, h = gru(x, h)`; as `RNN`, arguments as torch.nn.GRU."""

    gates = 3

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, Array]:
        y, ends = self._layers(x, self._split(state), lengths, resets)
        return y, stack(ends, axis=0)

    def _one(self, x: Any, state: Any, weights: list[Any], by_step: Any, reverse: bool) -> tuple[Array, Any]:
        return gru(x, state, *weights, *by_step, reverse=reverse, batch_first=self.batch_first)


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter, Schmidhuber 1997): `y, (h, c) = lstm(x, (h, c))`; as `RNN`,
    arguments as torch.nn.LSTM.
    """

    gates = 4

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, tuple[Array, Array]]:
        if state is not None and (not isinstance(state, tuple | list) or len(state) != 2):
            raise ShapeError(
                f"LSTM: the state is a pair (h, c), got a {type(state).__name__}; None is zeros."
            )
        h, c = state or (None, None)
        states = [
            None if one is None else (one, two)
            for one, two in zip(self._split(h), self._split(c), strict=True)
        ]
        y, ends = self._layers(x, states, lengths, resets)
        return y, (stack([h for h, _ in ends], axis=0), stack([c for _, c in ends], axis=0))

    def _one(self, x: Any, state: Any, weights: list[Any], by_step: Any, reverse: bool) -> tuple[Array, Any]:
        return lstm(x, state, *weights, *by_step, reverse=reverse, batch_first=self.batch_first)


def _wide(value: Any) -> Any:
    """bfloat16 as float32, other numbers as they are; also of a pair of states, or None."""
    if isinstance(value, tuple):
        return tuple(map(_wide, value))
    return value.astype("float32") if value is not None and value.dtype.name == "bfloat16" else value


def _as(value: Any, dtype: Any) -> Any:
    """An array, or a pair of them, in a dtype."""
    if isinstance(value, tuple):
        return tuple(_as(part, dtype) for part in value)
    return value if value.dtype == dtype else value.astype(dtype)
