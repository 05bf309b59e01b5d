"""Linear, Embedding and Sequential; parameters are named and start as in torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...kernels.errors import ConfigError
from ..array import Array
from ..functional.index import embedding
from ..functional.linear import linear
from . import init
from .module import Module


class Linear(Module):
    """y = x W^T + b. weight: [out, in], bias: [out] or None; x: [..., in] -> [..., out].

    Args:
        in_features, out_features: the lengths of x and y.
        bias: whether there is b.
        key: what the parameters are drawn from, uniform within 1 / sqrt(in_features).
        dtype: of the parameters.
    """

    weight: Array
    bias: Array | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        first, second = init.keys("Linear", key, 2)
        shape, bound = (out_features, in_features), _bound(in_features)
        self.weight = init.uniform(first, shape, -bound, bound, dtype)
        self.bias = init.uniform(second, shape[:1], -bound, bound, dtype) if bias else None

    def __call__(self, x: Any) -> Array:
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """Rows of a table: indices [...] -> [..., embedding_dim]. weight: [num_embeddings, embedding_dim].

    Args:
        padding_idx: a row that starts as zeros and gets no gradient.
        key: what the table is drawn from, standard normal.
    """

    weight: Array
    padding_idx: int | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        (only,) = init.keys("Embedding", key, 1)
        self.weight = init.normal(only, (num_embeddings, embedding_dim), dtype=dtype)
        self.padding_idx = padding_idx
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ConfigError(f"padding_idx must be a row of {num_embeddings}, got {padding_idx}.")
            self.padding_idx = padding_idx % num_embeddings
            table = self.weight.copy()
            table._data[padding_idx] = 0
            self.weight = table

    def __call__(self, indices: Any) -> Array:
        return embedding(indices, self.weight, padding_idx=self.padding_idx)


class Sequential(Module):
    """Layers, or any functions of one argument, one after the other: `Sequential(Linear(...), kw.relu)`.

    `model[0]` is a layer, and so it is called in a state_dict: "0.weight".
    """

    inline = "layers"
    layers: tuple[Callable[[Any], Any], ...]

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        wrong = [layer for layer in layers if not callable(layer)]
        if wrong:
            raise ConfigError(f"Sequential takes layers and functions, and {wrong[0]!r} is none.")
        self.layers = layers

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: Any) -> Any:
        found = self.layers[index]
        return Sequential(*found) if isinstance(index, slice) else found


def _bound(fan_in: int) -> float:
    """Of kaiming_uniform with a = sqrt(5), which is what PyTorch's linear and conv layers start with."""
    return 1 / fan_in**0.5 if fan_in else 0.0
