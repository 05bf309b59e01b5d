"""PyTorch's own samples of the ops of a network: forward, and backward through `kw.grad`.

Each sample of torch's OpInfo database (at most `MOST` an op, spread over all of them) is computed by our
public function and compared with torch within the tolerances of `torch.testing.assert_close`. It ends as a
pass, a failure or a refusal: an explained error of ours for a call that we do not have, such as mixed dtypes.
`pytest -s` prints the table.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import KernelwrightError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
pytest.importorskip("expecttest", reason="torch's sample databases need it: pip install 'kernelwright[dev]'")

MOST = 24
Adapter = Callable[..., Any]


@dataclass
class Outcome:
    """What became of an op's samples."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


TABLE: dict[str, Outcome] = {}


class Refusal(Exception):
    """We have no call for this."""


def plain(name: str, **renamed: str) -> Adapter:
    """Our function of that name, with `dim` called `axis` and `keepdim` `keepdims`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        words = {"dim": "axis", "dims": "axis", "keepdim": "keepdims", **renamed}
        given = {words.get(key, key): value for key, value in kwargs.items()}
        if given.pop("dtype", None) is not None or given.pop("out", None) is not None:
            raise Refusal("dtype= or out=")
        return getattr(kw, name)(*args, **given)

    return run


def scaled(name: str) -> Adapter:
    """add and sub with their alpha."""

    def run(x: Any, y: Any, alpha: Any = 1) -> Any:
        return getattr(kw, name)(x, y if alpha == 1 else y * alpha)

    return run


def division(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "trunc":
        return kw.trunc(kw.div(x, y))
    return kw.floor_divide(x, y) if rounding_mode == "floor" else kw.div(x, y)


def rounding(x: Any, decimals: int = 0) -> Any:
    if decimals:
        raise Refusal("round to decimals")
    return kw.round(x)


def spread(name: str) -> Adapter:
    def run(
        x: Any, dim: Any = None, unbiased: Any = None, *, correction: Any = 1, keepdim: bool = False
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        correction = int(unbiased) if unbiased is not None else 1 if correction is None else correction
        return getattr(kw, name)(x, dim, correction=correction, keepdims=keepdim)

    return run


def batch_norm(x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, **options: Any) -> Any:
    if mean is None and not options.get("training"):
        raise Refusal("inference without statistics")
    result = kw.batch_norm(x, mean, var, weight, bias, **options)
    return result[0] if isinstance(result, tuple) else result


def first(name: str) -> Adapter:
    """The first of several results."""

    def run(*args: Any, **kwargs: Any) -> Any:
        result = plain(name)(*args, **kwargs)
        return result[0] if isinstance(result, tuple) else result

    return run


def concatenated(tensors: Any, dim: int = 0) -> Any:
    if len({t.ndim for t in tensors}) > 1:
        raise Refusal("an empty 1-D tensor beside others")
    return kw.concat(list(tensors), dim)


def padded(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    return kw.pad(x, tuple(pad), mode, value)


def resized(x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **options: Any) -> Any:
    if mode in ("bicubic", "area", "lanczos") or options.get("antialias"):
        raise Refusal(f"interpolate by {mode}")
    return kw.interpolate(x, size, scale_factor, mode, **options)


def attention(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any) -> Any:
    if dropout_p:
        raise Refusal("dropout without a key")
    return kw.scaled_dot_product_attention(q, k, v, attn_mask, 0.0, **options)


def chosen(x: Any, condition: Any, other: Any) -> Any:
    return kw.where(condition, x, other)


def embedded(weight: Any, index: Any, padding_idx: Any = None, **options: Any) -> Any:
    if any(options.values()):
        raise Refusal(f"embedding with {', '.join(options)}")
    return kw.embedding(index, weight, padding_idx)


def loss(name: str) -> Adapter:
    """Losses, without the two flags that torch deprecated."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if {"size_average", "reduce"} & set(kwargs):
            raise Refusal("size_average= and reduce=")
        return getattr(kw, name)(*args, **kwargs)

    return run


_UNARY = [
    "abs",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "tanh",
    "sigmoid",
    "erf",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "square",
    "sign",
    "floor",
    "ceil",
    "trunc",
    "neg",
    "isnan",
    "isinf",
    "isfinite",
    "logical_not",
]
_ACTIVATIONS = [
    "relu",
    "gelu",
    "silu",
    "mish",
    "logsigmoid",
    "hardsigmoid",
    "hardswish",
    "elu",
    "celu",
    "selu",
    "softplus",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "prelu",
    "softsign",
    "tanhshrink",
]
_BINARY = [
    "mul",
    "pow",
    "remainder",
    "floor_divide",
    "maximum",
    "minimum",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "lerp",
    "logaddexp",
]
_COMPARED = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_POOLS = [f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for n in (1, 2, 3)]
_LOSSES = [
    "cross_entropy",
    "nll_loss",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy_with_logits",
    "multi_margin_loss",
    "kl_div",
    "ctc_loss",
]

ADAPTERS: dict[str, tuple[str, Adapter]] = {
    **{name: (name, plain(name)) for name in (*_UNARY, *_BINARY)},
    **{name: (f"nn.functional.{name}", plain(name)) for name in _ACTIVATIONS},
    **{name: (f"nn.functional.{name}", first(name)) for name in _POOLS},
    **{name: (theirs, plain(name)) for theirs, name in _COMPARED.items()},
    **{name: (f"nn.functional.{name}", loss(name)) for name in _LOSSES},
    "add": ("add", scaled("add")),
    "sub": ("sub", scaled("sub")),
    "div": ("div", division),
    "round": ("round", rounding),
    "clip": ("clamp", plain("clip")),
    **{
        name: (name, plain(name))
        for name in ("sum", "mean", "prod", "logsumexp", "argmax", "argmin", "any", "all")
    },
    **{name: (name, plain(name)) for name in ("cumsum", "cumprod", "count_nonzero")},
    "max": ("amax", plain("max")),
    "min": ("amin", plain("min")),
    "var": ("var", spread("var")),
    "std": ("std", spread("std")),
    "softmax": ("softmax", plain("softmax")),
    "log_softmax": ("log_softmax", plain("log_softmax")),
    **{
        f"{kind}_norm": (f"nn.functional.{kind}_norm", plain(f"{kind}_norm"))
        for kind in ("layer", "group", "rms")
    },
    "instance_norm": ("nn.functional.instance_norm", first("instance_norm")),
    "batch_norm": ("nn.functional.batch_norm", batch_norm),
    "concat": ("cat", concatenated),
    "stack": ("stack", lambda tensors, dim=0: kw.stack(list(tensors), dim)),
    "pad": ("nn.functional.pad", padded),
    **{
        name: (name, plain(name))
        for name in ("gather", "scatter_add", "index_select", "flip", "roll", "tril", "triu")
    },
    **{
        name: (name, plain(name))
        for name in ("tile", "reshape", "permute", "broadcast_to", "squeeze", "unsqueeze")
    },
    "swapaxes": ("transpose", plain("swapaxes")),
    "sort": ("sort", first("sort")),
    "topk": ("topk", first("topk")),
    "embedding": ("nn.functional.embedding", embedded),
    "where": ("where", chosen),
    "cosine_similarity": ("nn.functional.cosine_similarity", plain("cosine_similarity")),
    "interpolate": ("nn.functional.interpolate", resized),
    "scaled_dot_product_attention": ("nn.functional.scaled_dot_product_attention", attention),
}


@cache
def _infos() -> dict[str, list[Any]]:
    """By name, the op and its variants, such as the modes of interpolate."""
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, list[Any]] = {}
    for info in op_db:
        found.setdefault(info.name, []).append(info)
    return {name: [i for i in infos if not i.variant_test_name] or infos for name, infos in found.items()}


def _ours(value: Any, arrays: list[Any] | None = None) -> Any:
    """torch's arguments as ours; floating-point tensors are taken from `arrays`, in order, when given."""
    if isinstance(value, torch.Tensor):
        if arrays is not None and value.dtype == torch.float64 and value.requires_grad:
            return arrays.pop(0)
        return kw.array(value.detach().numpy())
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, list | tuple):
        return type(value)(_ours(part, arrays) for part in value)
    if isinstance(value, dict):
        return {key: _ours(part, arrays) for key, part in value.items()}
    if isinstance(value, torch.dtype):
        raise Refusal("dtype=")
    return value


def _leaves(value: Any) -> list[Any]:
    """The tensors to differentiate by, in order."""
    if isinstance(value, torch.Tensor):
        return [value] if value.requires_grad and value.dtype == torch.float64 else []
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [leaf for part in value.values() for leaf in _leaves(part)] if isinstance(value, dict) else []


def _compare(ours: Any, theirs: Any) -> None:
    mine = torch.from_numpy(np.array(ours))
    torch.testing.assert_close(mine, theirs.detach(), check_dtype=False, equal_nan=True)


def _one(info: Any, adapter: Adapter, sample: Any) -> None:
    arguments = ((sample.input, *sample.args), sample.kwargs)
    # torch's gradient of ctc_loss is right only behind the log_softmax that it takes for granted.
    ctc = info.name.endswith("ctc_loss")
    before = torch.log_softmax(sample.input, -1) if ctc else sample.input
    expected = info.op(before, *sample.args, **sample.kwargs)
    expected = expected[0] if isinstance(expected, list | tuple) else expected
    leaves = _leaves(arguments)

    def function(*arrays: Any) -> Any:
        (x, *args), kwargs = _ours(arguments, list(arrays))
        result = adapter(kw.log_softmax(x, -1) if ctc else x, *args, **kwargs)
        return result[0] if isinstance(result, tuple) else result

    given = [kw.array(leaf.detach().numpy()) for leaf in leaves]
    _compare(function(*given), expected)
    if not leaves or not expected.requires_grad or expected.numel() == 0:
        return
    weight = torch.linspace(0.5, 1.5, expected.numel(), dtype=torch.float64).reshape(expected.shape)
    theirs = torch.autograd.grad((expected * weight).sum(), leaves, allow_unused=True)

    def weighted(*arrays: Any) -> Any:
        return (function(*arrays) * kw.array(weight.numpy())).sum()

    grads = kw.grad(weighted, argnums=tuple(range(len(given))))(*given)
    for mine, right, leaf in zip(grads, theirs, leaves, strict=True):
        _compare(mine, torch.zeros_like(leaf) if right is None else right)


def _judge(name: str) -> Outcome:
    theirs, adapter = ADAPTERS[name]
    infos, outcome = _infos()[theirs], Outcome()
    dtype = torch.int64 if name.startswith("bitwise") else torch.float64
    samples = [
        (info, sample)
        for info in infos
        for sample in info.sample_inputs(
            "cpu", dtype, requires_grad=dtype.is_floating_point and info.supports_autograd
        )
    ]
    step = max(1, len(samples) // MOST)
    for number, (info, sample) in enumerate(samples[::step]):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _one(info, adapter, sample)
            outcome.passed += 1
        except (KernelwrightError, Refusal) as refusal:
            outcome.refused[str(refusal).splitlines()[0][:90]] += 1
        except Exception as error:
            outcome.failed.append(f"sample {number * step}: {type(error).__name__}: {str(error)[:300]}")
    return outcome


@pytest.mark.parametrize("name", ADAPTERS)
def test_torch_samples_pass_or_are_refused_with_a_reason(name: str) -> None:
    outcome = TABLE[name] = _judge(name)
    assert not outcome.failed, "\n".join(outcome.failed[:5])
    assert outcome.passed, f"every sample was refused: {dict(outcome.refused)}"


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{'op':32} passed failed refused"]
    for name, outcome in TABLE.items():
        refused = sum(outcome.refused.values())
        rows.append(f"{name:32} {outcome.passed:6} {len(outcome.failed):6} {refused:7}")
        rows += [f"    {count} x {reason}" for reason, count in outcome.refused.items()]
    totals = [sum(o.passed for o in TABLE.values()), sum(len(o.failed) for o in TABLE.values())]
    totals.append(sum(sum(o.refused.values()) for o in TABLE.values()))
    rows.append(f"{'all':32} {totals[0]:6} {totals[1]:6} {totals[2]:7}")
    with capsys.disabled():
        print("\n".join(["", *rows[-1:]]))
    print("\n".join(rows))
