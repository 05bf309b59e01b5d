"""Kernelwright: write a compute kernel by hand; have it proven, tuned and raced against the vendor's library.

    import kernelwright as kw

    a = kw.array([[1.0, 2.0], [3.0, 4.0]], dtype="float32")
    print(a @ a)
    print(kw.explain(kw.matmul, a, a))

Each public name is loaded when it is first used: importing the package loads no other module, neither NumPy
nor a compiler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import nn as nn
    from .engine import optim as optim
    from .engine import schedule as schedule
    from .engine import train as train
    from .engine.array import Array as Array
    from .engine.array import array as array
    from .engine.array import asarray as asarray
    from .engine.array import from_dlpack as from_dlpack
    from .engine.autograd import checkpoint as checkpoint
    from .engine.autograd import grad as grad
    from .engine.autograd import stop_gradient as stop_gradient
    from .engine.autograd import value_and_grad as value_and_grad
    from .engine.check_grads import check_grads as check_grads
    from .engine.checkpoint import load as load
    from .engine.checkpoint import save as save
    from .engine.compile import compile as compile
    from .engine.compile import debug_nans as debug_nans
    from .engine.eager import explain as explain
    from .engine.functional.conv import conv1d as conv1d
    from .engine.functional.conv import conv2d as conv2d
    from .engine.functional.conv import conv3d as conv3d
    from .engine.functional.conv import conv_transpose1d as conv_transpose1d
    from .engine.functional.conv import conv_transpose2d as conv_transpose2d
    from .engine.functional.conv import conv_transpose3d as conv_transpose3d
    from .engine.functional.linear import linear as linear
    from .engine.functional.matmul import matmul as matmul
    from .engine.functional.pool import adaptive_avg_pool1d as adaptive_avg_pool1d
    from .engine.functional.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
    from .engine.functional.pool import adaptive_avg_pool3d as adaptive_avg_pool3d
    from .engine.functional.pool import adaptive_max_pool1d as adaptive_max_pool1d
    from .engine.functional.pool import adaptive_max_pool2d as adaptive_max_pool2d
    from .engine.functional.pool import adaptive_max_pool3d as adaptive_max_pool3d
    from .engine.functional.pool import avg_pool1d as avg_pool1d
    from .engine.functional.pool import avg_pool2d as avg_pool2d
    from .engine.functional.pool import avg_pool3d as avg_pool3d
    from .engine.functional.pool import max_pool1d as max_pool1d
    from .engine.functional.pool import max_pool2d as max_pool2d
    from .engine.functional.pool import max_pool3d as max_pool3d
    from .engine.functional.recurrent import gru as gru
    from .engine.functional.recurrent import gru_cell as gru_cell
    from .engine.functional.recurrent import lstm as lstm
    from .engine.functional.recurrent import lstm_cell as lstm_cell
    from .engine.functional.recurrent import rnn as rnn
    from .engine.functional.recurrent import rnn_cell as rnn_cell
    from .engine.functional.shape import broadcast_to as broadcast_to
    from .engine.functional.shape import chunk as chunk
    from .engine.functional.shape import expand_dims as expand_dims
    from .engine.functional.shape import flatten as flatten
    from .engine.functional.shape import flip as flip
    from .engine.functional.shape import moveaxis as moveaxis
    from .engine.functional.shape import narrow as narrow
    from .engine.functional.shape import permute as permute
    from .engine.functional.shape import reshape as reshape
    from .engine.functional.shape import slice as slice
    from .engine.functional.shape import split as split
    from .engine.functional.shape import squeeze as squeeze
    from .engine.functional.shape import swapaxes as swapaxes
    from .engine.functional.shape import transpose as transpose
    from .engine.functional.shape import unbind as unbind
    from .engine.functional.shape import unsqueeze as unsqueeze
    from .kernels import errors as errors
    from .kernels.kernel import ExtraError as ExtraError
    from .kernels.op import Cost as Cost
    from .kernels.op import Op as Op
    from .kernels.op import Sample as Sample
    from .kernels.op import TensorSpec as TensorSpec
    from .kernels.registry import kernel as kernel
    from .kernels.settings import get_num_threads as get_num_threads
    from .kernels.settings import set_num_threads as set_num_threads
    from .kernels.settings import using as using

__version__ = "0.1.0"

# Public name -> the module that has it; a name without an attribute of its own is the module.
_FACE = {
    "Array": "engine.array",
    "Cost": "kernels.op",
    "ExtraError": "kernels.kernel",
    "Op": "kernels.op",
    "Sample": "kernels.op",
    "TensorSpec": "kernels.spec",
    "adaptive_avg_pool1d": "engine.functional.pool",
    "adaptive_avg_pool2d": "engine.functional.pool",
    "adaptive_avg_pool3d": "engine.functional.pool",
    "adaptive_max_pool1d": "engine.functional.pool",
    "adaptive_max_pool2d": "engine.functional.pool",
    "adaptive_max_pool3d": "engine.functional.pool",
    "array": "engine.array",
    "asarray": "engine.array",
    "check_grads": "engine.check_grads",
    "checkpoint": "engine.autograd",
    "compile": "engine.compile",
    "debug_nans": "engine.compile",
    "grad": "engine.autograd",
    "stop_gradient": "engine.autograd",
    "value_and_grad": "engine.autograd",
    "avg_pool1d": "engine.functional.pool",
    "avg_pool2d": "engine.functional.pool",
    "avg_pool3d": "engine.functional.pool",
    "broadcast_to": "engine.functional.shape",
    "chunk": "engine.functional.shape",
    "conv1d": "engine.functional.conv",
    "conv2d": "engine.functional.conv",
    "conv3d": "engine.functional.conv",
    "conv_transpose1d": "engine.functional.conv",
    "conv_transpose2d": "engine.functional.conv",
    "conv_transpose3d": "engine.functional.conv",
    "errors": "kernels.errors",
    "expand_dims": "engine.functional.shape",
    "explain": "engine.eager",
    "flatten": "engine.functional.shape",
    "flip": "engine.functional.shape",
    "from_dlpack": "engine.array",
    "get_num_threads": "kernels.settings",
    "gru": "engine.functional.recurrent",
    "gru_cell": "engine.functional.recurrent",
    "kernel": "kernels.registry",
    "linear": "engine.functional.linear",
    "load": "engine.checkpoint",
    "lstm": "engine.functional.recurrent",
    "lstm_cell": "engine.functional.recurrent",
    "matmul": "engine.functional.matmul",
    "max_pool1d": "engine.functional.pool",
    "max_pool2d": "engine.functional.pool",
    "max_pool3d": "engine.functional.pool",
    "moveaxis": "engine.functional.shape",
    "narrow": "engine.functional.shape",
    "nn": "engine.nn",
    "optim": "engine.optim",
    "permute": "engine.functional.shape",
    "reshape": "engine.functional.shape",
    "rnn": "engine.functional.recurrent",
    "rnn_cell": "engine.functional.recurrent",
    "save": "engine.checkpoint",
    "schedule": "engine.schedule",
    "set_num_threads": "kernels.settings",
    "slice": "engine.functional.shape",
    "split": "engine.functional.shape",
    "squeeze": "engine.functional.shape",
    "swapaxes": "engine.functional.shape",
    "transpose": "engine.functional.shape",
    "train": "engine.train",
    "unbind": "engine.functional.shape",
    "unsqueeze": "engine.functional.shape",
    "using": "kernels.settings",
}

__all__ = [*_FACE, "__version__"]


def __getattr__(name: str) -> Any:
    module_name = _FACE.get(name)
    if module_name is None:
        raise AttributeError(_unknown(name), name=name)
    from importlib import import_module

    module = import_module(f".{module_name}", __name__)
    value = (
        module if module_name.endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)
    )
    globals()[name] = value
    return value


def _unknown(name: str) -> str:
    text = f"module 'kernelwright' has no attribute {name!r}"
    if name.startswith("__"):  # asked for by Python's own machinery, which wants no advice
        return text
    from difflib import get_close_matches

    near = get_close_matches(name, _FACE, n=3, cutoff=0.6)
    return (
        f"{text}; did you mean {' or '.join(near)}?"
        if near
        else f"{text}; it has {', '.join(sorted(_FACE))}."
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
