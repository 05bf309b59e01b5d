"""The operations as functions of Arrays: a file a family, each function with the names and defaults of
torch.nn.functional or NumPy.

Nothing is loaded before it is asked for: `get("conv2d")` finds the function of that name.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

# Public function -> the file here that has it.
MODULES = {
    "conv1d": "conv",
    "conv2d": "conv",
    "conv3d": "conv",
    "conv_transpose1d": "conv",
    "conv_transpose2d": "conv",
    "conv_transpose3d": "conv",
    "linear": "linear",
    "matmul": "matmul",
    "lstm": "recurrent",
    "lstm_cell": "recurrent",
    "gru": "recurrent",
    "gru_cell": "recurrent",
    "rnn": "recurrent",
    "rnn_cell": "recurrent",
    "broadcast_to": "shape",
    "chunk": "shape",
    "expand_dims": "shape",
    "flatten": "shape",
    "flip": "shape",
    "moveaxis": "shape",
    "narrow": "shape",
    "permute": "shape",
    "reshape": "shape",
    "slice": "shape",
    "split": "shape",
    "squeeze": "shape",
    "swapaxes": "shape",
    "transpose": "shape",
    "unbind": "shape",
    "unsqueeze": "shape",
    "max_pool1d": "pool",
    "adaptive_max_pool1d": "pool",
    "max_pool2d": "pool",
    "adaptive_max_pool2d": "pool",
    "max_pool3d": "pool",
    "adaptive_max_pool3d": "pool",
    "avg_pool1d": "pool",
    "adaptive_avg_pool1d": "pool",
    "avg_pool2d": "pool",
    "adaptive_avg_pool2d": "pool",
    "avg_pool3d": "pool",
    "adaptive_avg_pool3d": "pool",
}


def get(name: str) -> Callable[..., Any]:
    """The function called `name`.

    Raises:
        KeyError: when there is none.
    """
    function: Callable[..., Any] = getattr(import_module(f".{MODULES[name]}", __package__), name)
    return function
