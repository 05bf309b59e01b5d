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
    from .engine.functional import random as random
    from .engine.functional.attention import scaled_dot_product_attention as scaled_dot_product_attention
    from .engine.functional.conv import conv1d as conv1d
    from .engine.functional.conv import conv2d as conv2d
    from .engine.functional.conv import conv3d as conv3d
    from .engine.functional.conv import conv_transpose1d as conv_transpose1d
    from .engine.functional.conv import conv_transpose2d as conv_transpose2d
    from .engine.functional.conv import conv_transpose3d as conv_transpose3d
    from .engine.functional.create import arange as arange
    from .engine.functional.create import eye as eye
    from .engine.functional.create import full as full
    from .engine.functional.create import full_like as full_like
    from .engine.functional.create import linspace as linspace
    from .engine.functional.create import ones as ones
    from .engine.functional.create import ones_like as ones_like
    from .engine.functional.create import zeros as zeros
    from .engine.functional.create import zeros_like as zeros_like
    from .engine.functional.dropout import alpha_dropout as alpha_dropout
    from .engine.functional.dropout import dropout as dropout
    from .engine.functional.dropout import dropout1d as dropout1d
    from .engine.functional.dropout import dropout2d as dropout2d
    from .engine.functional.dropout import dropout3d as dropout3d
    from .engine.functional.index import argsort as argsort
    from .engine.functional.index import cat as cat
    from .engine.functional.index import concat as concat
    from .engine.functional.index import embedding as embedding
    from .engine.functional.index import gather as gather
    from .engine.functional.index import index_add as index_add
    from .engine.functional.index import index_select as index_select
    from .engine.functional.index import one_hot as one_hot
    from .engine.functional.index import pad as pad
    from .engine.functional.index import repeat_interleave as repeat_interleave
    from .engine.functional.index import roll as roll
    from .engine.functional.index import scatter_add as scatter_add
    from .engine.functional.index import searchsorted as searchsorted
    from .engine.functional.index import sort as sort
    from .engine.functional.index import stack as stack
    from .engine.functional.index import take as take
    from .engine.functional.index import take_along_axis as take_along_axis
    from .engine.functional.index import tile as tile
    from .engine.functional.index import topk as topk
    from .engine.functional.index import tril as tril
    from .engine.functional.index import triu as triu
    from .engine.functional.linear import linear as linear
    from .engine.functional.loss import binary_cross_entropy_with_logits as binary_cross_entropy_with_logits
    from .engine.functional.loss import cosine_similarity as cosine_similarity
    from .engine.functional.loss import cross_entropy as cross_entropy
    from .engine.functional.loss import ctc_loss as ctc_loss
    from .engine.functional.loss import huber_loss as huber_loss
    from .engine.functional.loss import kl_div as kl_div
    from .engine.functional.loss import l1_loss as l1_loss
    from .engine.functional.loss import mse_loss as mse_loss
    from .engine.functional.loss import multi_margin_loss as multi_margin_loss
    from .engine.functional.loss import nll_loss as nll_loss
    from .engine.functional.loss import smooth_l1_loss as smooth_l1_loss
    from .engine.functional.matmul import matmul as matmul
    from .engine.functional.normalize import batch_norm as batch_norm
    from .engine.functional.normalize import group_norm as group_norm
    from .engine.functional.normalize import instance_norm as instance_norm
    from .engine.functional.normalize import layer_norm as layer_norm
    from .engine.functional.normalize import rms_norm as rms_norm
    from .engine.functional.pointwise import abs as abs
    from .engine.functional.pointwise import add as add
    from .engine.functional.pointwise import bitwise_and as bitwise_and
    from .engine.functional.pointwise import bitwise_not as bitwise_not
    from .engine.functional.pointwise import bitwise_or as bitwise_or
    from .engine.functional.pointwise import bitwise_xor as bitwise_xor
    from .engine.functional.pointwise import cast as cast
    from .engine.functional.pointwise import ceil as ceil
    from .engine.functional.pointwise import celu as celu
    from .engine.functional.pointwise import clip as clip
    from .engine.functional.pointwise import cos as cos
    from .engine.functional.pointwise import div as div
    from .engine.functional.pointwise import elu as elu
    from .engine.functional.pointwise import equal as equal
    from .engine.functional.pointwise import erf as erf
    from .engine.functional.pointwise import exp as exp
    from .engine.functional.pointwise import exp2 as exp2
    from .engine.functional.pointwise import expm1 as expm1
    from .engine.functional.pointwise import floor as floor
    from .engine.functional.pointwise import floor_divide as floor_divide
    from .engine.functional.pointwise import fma as fma
    from .engine.functional.pointwise import gelu as gelu
    from .engine.functional.pointwise import greater as greater
    from .engine.functional.pointwise import greater_equal as greater_equal
    from .engine.functional.pointwise import hardsigmoid as hardsigmoid
    from .engine.functional.pointwise import hardswish as hardswish
    from .engine.functional.pointwise import hardtanh as hardtanh
    from .engine.functional.pointwise import isfinite as isfinite
    from .engine.functional.pointwise import isinf as isinf
    from .engine.functional.pointwise import isnan as isnan
    from .engine.functional.pointwise import leaky_relu as leaky_relu
    from .engine.functional.pointwise import lerp as lerp
    from .engine.functional.pointwise import less as less
    from .engine.functional.pointwise import less_equal as less_equal
    from .engine.functional.pointwise import log as log
    from .engine.functional.pointwise import log1p as log1p
    from .engine.functional.pointwise import log2 as log2
    from .engine.functional.pointwise import log10 as log10
    from .engine.functional.pointwise import logaddexp as logaddexp
    from .engine.functional.pointwise import logical_and as logical_and
    from .engine.functional.pointwise import logical_not as logical_not
    from .engine.functional.pointwise import logical_or as logical_or
    from .engine.functional.pointwise import logical_xor as logical_xor
    from .engine.functional.pointwise import logsigmoid as logsigmoid
    from .engine.functional.pointwise import maximum as maximum
    from .engine.functional.pointwise import minimum as minimum
    from .engine.functional.pointwise import mish as mish
    from .engine.functional.pointwise import mul as mul
    from .engine.functional.pointwise import neg as neg
    from .engine.functional.pointwise import not_equal as not_equal
    from .engine.functional.pointwise import pow as pow
    from .engine.functional.pointwise import prelu as prelu
    from .engine.functional.pointwise import reciprocal as reciprocal
    from .engine.functional.pointwise import relu as relu
    from .engine.functional.pointwise import relu6 as relu6
    from .engine.functional.pointwise import remainder as remainder
    from .engine.functional.pointwise import round as round
    from .engine.functional.pointwise import rsqrt as rsqrt
    from .engine.functional.pointwise import selu as selu
    from .engine.functional.pointwise import sigmoid as sigmoid
    from .engine.functional.pointwise import sign as sign
    from .engine.functional.pointwise import silu as silu
    from .engine.functional.pointwise import sin as sin
    from .engine.functional.pointwise import softplus as softplus
    from .engine.functional.pointwise import softsign as softsign
    from .engine.functional.pointwise import sqrt as sqrt
    from .engine.functional.pointwise import square as square
    from .engine.functional.pointwise import sub as sub
    from .engine.functional.pointwise import tan as tan
    from .engine.functional.pointwise import tanh as tanh
    from .engine.functional.pointwise import tanhshrink as tanhshrink
    from .engine.functional.pointwise import trunc as trunc
    from .engine.functional.pointwise import where as where
    from .engine.functional.pool import adaptive_avg_pool1d as adaptive_avg_pool1d
    from .engine.functional.pool import adaptive_avg_pool2d as adaptive_avg_pool2d
    from .engine.functional.pool import adaptive_avg_pool3d as adaptive_avg_pool3d
    from .engine.functional.pool import adaptive_max_pool1d as adaptive_max_pool1d
    from .engine.functional.pool import adaptive_max_pool2d as adaptive_max_pool2d
    from .engine.functional.pool import adaptive_max_pool3d as adaptive_max_pool3d
    from .engine.functional.pool import avg_pool1d as avg_pool1d
    from .engine.functional.pool import avg_pool2d as avg_pool2d
    from .engine.functional.pool import avg_pool3d as avg_pool3d
    from .engine.functional.pool import lp_pool1d as lp_pool1d
    from .engine.functional.pool import lp_pool2d as lp_pool2d
    from .engine.functional.pool import lp_pool3d as lp_pool3d
    from .engine.functional.pool import max_pool1d as max_pool1d
    from .engine.functional.pool import max_pool2d as max_pool2d
    from .engine.functional.pool import max_pool3d as max_pool3d
    from .engine.functional.recurrent import gru as gru
    from .engine.functional.recurrent import gru_cell as gru_cell
    from .engine.functional.recurrent import lstm as lstm
    from .engine.functional.recurrent import lstm_cell as lstm_cell
    from .engine.functional.recurrent import rnn as rnn
    from .engine.functional.recurrent import rnn_cell as rnn_cell
    from .engine.functional.reduce import all as all
    from .engine.functional.reduce import amax as amax
    from .engine.functional.reduce import amin as amin
    from .engine.functional.reduce import any as any
    from .engine.functional.reduce import argmax as argmax
    from .engine.functional.reduce import argmin as argmin
    from .engine.functional.reduce import count_nonzero as count_nonzero
    from .engine.functional.reduce import cumprod as cumprod
    from .engine.functional.reduce import cumsum as cumsum
    from .engine.functional.reduce import logsumexp as logsumexp
    from .engine.functional.reduce import max as max
    from .engine.functional.reduce import mean as mean
    from .engine.functional.reduce import min as min
    from .engine.functional.reduce import prod as prod
    from .engine.functional.reduce import std as std
    from .engine.functional.reduce import sum as sum
    from .engine.functional.reduce import var as var
    from .engine.functional.resize import interpolate as interpolate
    from .engine.functional.scaled import scaled_matmul as scaled_matmul
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
    from .engine.functional.softmax import log_softmax as log_softmax
    from .engine.functional.softmax import softmax as softmax
    from .engine.tree import to_device as to_device
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
    "abs": "engine.functional.pointwise",
    "add": "engine.functional.pointwise",
    "alpha_dropout": "engine.functional.dropout",
    "arange": "engine.functional.create",
    "binary_cross_entropy_with_logits": "engine.functional.loss",
    "bitwise_and": "engine.functional.pointwise",
    "bitwise_not": "engine.functional.pointwise",
    "bitwise_or": "engine.functional.pointwise",
    "bitwise_xor": "engine.functional.pointwise",
    "cast": "engine.functional.pointwise",
    "ceil": "engine.functional.pointwise",
    "celu": "engine.functional.pointwise",
    "clip": "engine.functional.pointwise",
    "cos": "engine.functional.pointwise",
    "cosine_similarity": "engine.functional.loss",
    "cross_entropy": "engine.functional.loss",
    "ctc_loss": "engine.functional.loss",
    "div": "engine.functional.pointwise",
    "dropout": "engine.functional.dropout",
    "dropout1d": "engine.functional.dropout",
    "dropout2d": "engine.functional.dropout",
    "dropout3d": "engine.functional.dropout",
    "elu": "engine.functional.pointwise",
    "equal": "engine.functional.pointwise",
    "erf": "engine.functional.pointwise",
    "exp": "engine.functional.pointwise",
    "exp2": "engine.functional.pointwise",
    "expm1": "engine.functional.pointwise",
    "eye": "engine.functional.create",
    "floor": "engine.functional.pointwise",
    "floor_divide": "engine.functional.pointwise",
    "fma": "engine.functional.pointwise",
    "full": "engine.functional.create",
    "full_like": "engine.functional.create",
    "gelu": "engine.functional.pointwise",
    "greater": "engine.functional.pointwise",
    "greater_equal": "engine.functional.pointwise",
    "hardsigmoid": "engine.functional.pointwise",
    "hardswish": "engine.functional.pointwise",
    "hardtanh": "engine.functional.pointwise",
    "huber_loss": "engine.functional.loss",
    "isfinite": "engine.functional.pointwise",
    "isinf": "engine.functional.pointwise",
    "isnan": "engine.functional.pointwise",
    "kl_div": "engine.functional.loss",
    "l1_loss": "engine.functional.loss",
    "leaky_relu": "engine.functional.pointwise",
    "lerp": "engine.functional.pointwise",
    "less": "engine.functional.pointwise",
    "less_equal": "engine.functional.pointwise",
    "linspace": "engine.functional.create",
    "log": "engine.functional.pointwise",
    "log10": "engine.functional.pointwise",
    "log1p": "engine.functional.pointwise",
    "log2": "engine.functional.pointwise",
    "logaddexp": "engine.functional.pointwise",
    "logical_and": "engine.functional.pointwise",
    "logical_not": "engine.functional.pointwise",
    "logical_or": "engine.functional.pointwise",
    "logical_xor": "engine.functional.pointwise",
    "logsigmoid": "engine.functional.pointwise",
    "lp_pool1d": "engine.functional.pool",
    "lp_pool2d": "engine.functional.pool",
    "lp_pool3d": "engine.functional.pool",
    "maximum": "engine.functional.pointwise",
    "minimum": "engine.functional.pointwise",
    "mish": "engine.functional.pointwise",
    "mse_loss": "engine.functional.loss",
    "mul": "engine.functional.pointwise",
    "multi_margin_loss": "engine.functional.loss",
    "neg": "engine.functional.pointwise",
    "nll_loss": "engine.functional.loss",
    "not_equal": "engine.functional.pointwise",
    "ones": "engine.functional.create",
    "ones_like": "engine.functional.create",
    "pow": "engine.functional.pointwise",
    "prelu": "engine.functional.pointwise",
    "random": "engine.functional.random",
    "reciprocal": "engine.functional.pointwise",
    "relu": "engine.functional.pointwise",
    "relu6": "engine.functional.pointwise",
    "remainder": "engine.functional.pointwise",
    "round": "engine.functional.pointwise",
    "rsqrt": "engine.functional.pointwise",
    "scaled_dot_product_attention": "engine.functional.attention",
    "selu": "engine.functional.pointwise",
    "sigmoid": "engine.functional.pointwise",
    "sign": "engine.functional.pointwise",
    "silu": "engine.functional.pointwise",
    "sin": "engine.functional.pointwise",
    "smooth_l1_loss": "engine.functional.loss",
    "softplus": "engine.functional.pointwise",
    "softsign": "engine.functional.pointwise",
    "sqrt": "engine.functional.pointwise",
    "square": "engine.functional.pointwise",
    "sub": "engine.functional.pointwise",
    "tan": "engine.functional.pointwise",
    "tanh": "engine.functional.pointwise",
    "tanhshrink": "engine.functional.pointwise",
    "trunc": "engine.functional.pointwise",
    "where": "engine.functional.pointwise",
    "Array": "engine.array",
    "Cost": "kernels.op",
    "ExtraError": "kernels.kernel",
    "Op": "kernels.op",
    "Sample": "kernels.op",
    "TensorSpec": "kernels.spec",
    "argsort": "engine.functional.index",
    "adaptive_avg_pool1d": "engine.functional.pool",
    "adaptive_avg_pool2d": "engine.functional.pool",
    "adaptive_avg_pool3d": "engine.functional.pool",
    "adaptive_max_pool1d": "engine.functional.pool",
    "adaptive_max_pool2d": "engine.functional.pool",
    "adaptive_max_pool3d": "engine.functional.pool",
    "all": "engine.functional.reduce",
    "amax": "engine.functional.reduce",
    "amin": "engine.functional.reduce",
    "any": "engine.functional.reduce",
    "argmax": "engine.functional.reduce",
    "argmin": "engine.functional.reduce",
    "array": "engine.array",
    "asarray": "engine.array",
    "batch_norm": "engine.functional.normalize",
    "check_grads": "engine.check_grads",
    "checkpoint": "engine.autograd",
    "compile": "engine.compile",
    "count_nonzero": "engine.functional.reduce",
    "cumprod": "engine.functional.reduce",
    "cumsum": "engine.functional.reduce",
    "debug_nans": "engine.compile",
    "grad": "engine.autograd",
    "group_norm": "engine.functional.normalize",
    "instance_norm": "engine.functional.normalize",
    "layer_norm": "engine.functional.normalize",
    "log_softmax": "engine.functional.softmax",
    "logsumexp": "engine.functional.reduce",
    "max": "engine.functional.reduce",
    "mean": "engine.functional.reduce",
    "min": "engine.functional.reduce",
    "prod": "engine.functional.reduce",
    "rms_norm": "engine.functional.normalize",
    "softmax": "engine.functional.softmax",
    "std": "engine.functional.reduce",
    "stop_gradient": "engine.autograd",
    "to_device": "engine.tree",
    "sum": "engine.functional.reduce",
    "value_and_grad": "engine.autograd",
    "avg_pool1d": "engine.functional.pool",
    "avg_pool2d": "engine.functional.pool",
    "avg_pool3d": "engine.functional.pool",
    "broadcast_to": "engine.functional.shape",
    "cat": "engine.functional.index",
    "chunk": "engine.functional.shape",
    "concat": "engine.functional.index",
    "conv1d": "engine.functional.conv",
    "conv2d": "engine.functional.conv",
    "conv3d": "engine.functional.conv",
    "conv_transpose1d": "engine.functional.conv",
    "conv_transpose2d": "engine.functional.conv",
    "conv_transpose3d": "engine.functional.conv",
    "embedding": "engine.functional.index",
    "errors": "kernels.errors",
    "expand_dims": "engine.functional.shape",
    "explain": "engine.eager",
    "flatten": "engine.functional.shape",
    "flip": "engine.functional.shape",
    "from_dlpack": "engine.array",
    "gather": "engine.functional.index",
    "get_num_threads": "kernels.settings",
    "gru": "engine.functional.recurrent",
    "gru_cell": "engine.functional.recurrent",
    "index_add": "engine.functional.index",
    "index_select": "engine.functional.index",
    "interpolate": "engine.functional.resize",
    "kernel": "kernels.registry",
    "linear": "engine.functional.linear",
    "load": "engine.checkpoint",
    "lstm": "engine.functional.recurrent",
    "lstm_cell": "engine.functional.recurrent",
    "matmul": "engine.functional.matmul",
    "scaled_matmul": "engine.functional.scaled",
    "max_pool1d": "engine.functional.pool",
    "max_pool2d": "engine.functional.pool",
    "max_pool3d": "engine.functional.pool",
    "moveaxis": "engine.functional.shape",
    "narrow": "engine.functional.shape",
    "nn": "engine.nn",
    "optim": "engine.optim",
    "one_hot": "engine.functional.index",
    "pad": "engine.functional.index",
    "permute": "engine.functional.shape",
    "repeat_interleave": "engine.functional.index",
    "reshape": "engine.functional.shape",
    "rnn": "engine.functional.recurrent",
    "rnn_cell": "engine.functional.recurrent",
    "save": "engine.checkpoint",
    "schedule": "engine.schedule",
    "roll": "engine.functional.index",
    "scatter_add": "engine.functional.index",
    "searchsorted": "engine.functional.index",
    "set_num_threads": "kernels.settings",
    "slice": "engine.functional.shape",
    "sort": "engine.functional.index",
    "split": "engine.functional.shape",
    "squeeze": "engine.functional.shape",
    "stack": "engine.functional.index",
    "swapaxes": "engine.functional.shape",
    "take": "engine.functional.index",
    "take_along_axis": "engine.functional.index",
    "tile": "engine.functional.index",
    "topk": "engine.functional.index",
    "transpose": "engine.functional.shape",
    "train": "engine.train",
    "tril": "engine.functional.index",
    "triu": "engine.functional.index",
    "unbind": "engine.functional.shape",
    "unsqueeze": "engine.functional.shape",
    "using": "kernels.settings",
    "var": "engine.functional.reduce",
    "zeros": "engine.functional.create",
    "zeros_like": "engine.functional.create",
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
