"""The ops that draw random numbers, and dropout: each a pure function of a key of two uint32 words.

    random_bits  random_uniform  random_normal  random_truncated_normal  random_exponential
    random_bernoulli  random_randint  random_permutation      arrays of `shape`, from key: uint32[2]
    random_split  random_fold_in new keys
    dropout                      x with elements left out by chance

Equal keys give equal numbers, on any number of threads and any machine: number e depends on the key and on e
alone (`philox.py` says how). Nothing here keeps a state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..errors import ConfigError, DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Specs, register_op
from ..spec import TensorSpec, np_dtype
from . import philox, samples

Ints = tuple[int, ...]
FLOATS = ("float32", "float64", "bfloat16", "float16")
INTEGERS = ("int32", "int64", "uint8", "int8", "int16", "uint16", "uint32", "uint64")
# Bits of a uniform number: as many as the dtype's numbers below 1 have.
PRECISION = {"float32": 24, "float64": 53, "bfloat16": 8, "float16": 11}
LEAST_FITTING = 1e-3  # the least chance that a truncated normal number needs no second attempt
KEEP_BITS = 31  # of the numbers that decide by chance


def check_key(name: str, key: TensorSpec) -> None:
    """DTypeError, with what to write, unless it is the spec of a key."""
    if key.dtype != "uint32" or key.shape != (2,):
        raise DTypeError(
            f"{name}: a key is uint32[2], as kw.random.key(seed) and kw.random.split(key) make it, got {key}."
        )


def _shape(name: str, shape: Any) -> Ints:
    if not isinstance(shape, tuple) or any(
        isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape
    ):
        raise ShapeError(
            f"{name}: a shape is a tuple of lengths of 0 or more such as (32, 128), got {shape!r}."
        )
    return shape


def _one_of(name: str, dtype: str, dtypes: tuple[str, ...]) -> str:
    if dtype not in dtypes:
        raise DTypeError(f"{name} makes {', '.join(dtypes)}, not {dtype}.")
    return dtype


def threshold(p: float) -> int:
    """What a number of KEEP_BITS bits is below with probability p."""
    return round(p * (1 << KEEP_BITS))


def _check_probability(name: str, p: Any) -> None:
    if not isinstance(p, float | int) or not 0 <= p <= 1:
        raise ConfigError(f"{name}: p is a probability, a number from 0 to 1, got {p!r}.")


# --- numbers ------------------------------------------------------------------------------------------------


def infer_bits(specs: Specs, shape: Ints) -> Specs:
    """uint32 of `shape`."""
    check_key("random_bits", specs[0])
    return (TensorSpec(_shape("random_bits", shape), "uint32", specs[0].device),)


def bits(key: AnyArray, shape: Ints) -> tuple[AnyArray]:
    """Words of Philox."""
    return (philox.bits32(key, prod(shape)).reshape(shape),)


def infer_uniform(specs: Specs, shape: Ints, dtype: str, low: float, high: float) -> Specs:
    """Floats of `shape`. ConfigError unless low < high, both finite."""
    check_key("random_uniform", specs[0])
    if not low < high or not math.isfinite(high - low):
        raise ConfigError(f"random_uniform: low must be below high, both finite, got {low} and {high}.")
    kind = _one_of("random_uniform", dtype, FLOATS)
    return (TensorSpec(_shape("random_uniform", shape), kind, specs[0].device),)


def _unit(key: AnyArray, shape: Ints, dtype: str) -> AnyArray:
    count, precision = prod(shape), PRECISION[dtype]
    if dtype == "float64":
        whole = philox.bits64(key, count) >> np.uint64(64 - precision)
    else:
        whole = philox.bits32(key, count) >> np.uint32(32 - precision)
    return (whole.astype(np.float64) * 2.0**-precision).reshape(shape)


def uniform(key: AnyArray, shape: Ints, dtype: str, low: float, high: float) -> tuple[AnyArray]:
    """low + (high - low) u, u a multiple of 2^-precision in [0, 1)."""
    return (low + (high - low) * _unit(key, shape, dtype),)


def uniform_magnitude(key: AnyArray, shape: Ints, dtype: str, low: float, high: float) -> tuple[AnyArray]:
    """|low| + (high - low) u."""
    return (abs(low) + (high - low) * _unit(key, shape, dtype),)


def infer_normal(specs: Specs, shape: Ints, dtype: str, mean: float, std: float) -> Specs:
    """Floats of `shape`."""
    check_key("random_normal", specs[0])
    if not std >= 0:
        raise ConfigError(f"random_normal: std is 0 or more, got {std}.")
    kind = _one_of("random_normal", dtype, FLOATS)
    return (TensorSpec(_shape("random_normal", shape), kind, specs[0].device),)


def above_zero(words: AnyArray) -> AnyArray:
    """Words as numbers in (0, 1]: their lowest bit is set, and they are rounded to 24 or 53 bits."""
    if words.dtype == np.uint64:
        return (words | np.uint64(1)).astype(np.float64) * 2.0**-64
    return (words | np.uint32(1)).astype(np.float32).astype(np.float64) * 2.0**-32


def _standard(key: AnyArray, shape: Ints, dtype: str, attempt: int = 0) -> AnyArray:
    first, second, is_second = philox.pairs(key, prod(shape), dtype == "float64", attempt)
    radius = np.sqrt(-2 * np.log(above_zero(first)))
    # The angle in turns, less whole quarters, so that a cosine near 0 is right to the last bit too.
    half = 8 * second.itemsize
    quarters = (second + second.dtype.type(1 << (half - 3))) >> second.dtype.type(half - 2)
    signed = np.int64 if half == 64 else np.int32
    rest = (second << second.dtype.type(2)).view(signed).astype(np.float64) * (2.0**-2 * 2.0**-half)
    angle = 2 * np.pi * rest
    turned = (quarters.astype(np.int64) - is_second) % 4  # sin(t) = cos(t - a quarter)
    wave = np.where(turned % 2 == 0, np.cos(angle), np.sin(angle))
    sign = np.where((turned == 1) | (turned == 2), -1.0, 1.0)
    return np.asarray(radius * sign * wave).reshape(shape)


def normal(key: AnyArray, shape: Ints, dtype: str, mean: float, std: float) -> tuple[AnyArray]:
    """mean + std z, by Box and Muller: z = sqrt(-2 log u) cos(2 pi v), or sin for a pair's second."""
    return (mean + std * _standard(key, shape, dtype),)


def normal_magnitude(key: AnyArray, shape: Ints, dtype: str, mean: float, std: float) -> tuple[AnyArray]:
    """|mean| + std |z|."""
    return (abs(mean) + std * np.abs(_standard(key, shape, dtype)),)


def infer_truncated(
    specs: Specs, shape: Ints, dtype: str, low: float, high: float, mean: float, std: float
) -> Specs:
    """Floats of `shape`. ConfigError where fewer than one number in 1000 fits."""
    name = "random_truncated_normal"
    check_key(name, specs[0])
    root = math.sqrt(2)
    fitting = 0.5 * (math.erf(high / root) - math.erf(low / root))
    if not low < high or not std >= 0 or fitting < LEAST_FITTING:
        raise ConfigError(
            f"{name}: low and high are in standard deviations, low below high, with a chance of at least "
            f"{LEAST_FITTING} that a number is between them, and std is 0 or more; got low {low}, "
            f"high {high}, std {std}."
        )
    return (TensorSpec(_shape(name, shape), _one_of(name, dtype, FLOATS), specs[0].device),)


def _truncated(key: AnyArray, shape: Ints, dtype: str, low: float, high: float) -> AnyArray:
    found = _standard(key, shape, dtype)
    attempt = 0
    while (outside := (found < low) | (found > high)).any():
        attempt += 1
        found = np.where(outside, _standard(key, shape, dtype, attempt), found)
    return found


def truncated_normal(
    key: AnyArray, shape: Ints, dtype: str, low: float, high: float, mean: float, std: float
) -> tuple[AnyArray]:
    """mean + std z, z the first of a place's normal numbers that is between low and high."""
    return (mean + std * _truncated(key, shape, dtype, low, high),)


def truncated_magnitude(
    key: AnyArray, shape: Ints, dtype: str, low: float, high: float, mean: float, std: float
) -> tuple[AnyArray]:
    """|mean| + std |z|."""
    return (abs(mean) + std * np.abs(_truncated(key, shape, dtype, low, high)),)


def infer_exponential(specs: Specs, shape: Ints, dtype: str, scale: float) -> Specs:
    """Floats of `shape`."""
    check_key("random_exponential", specs[0])
    if not scale > 0:
        raise ConfigError(f"random_exponential: scale is above 0, got {scale}.")
    kind = _one_of("random_exponential", dtype, FLOATS)
    return (TensorSpec(_shape("random_exponential", shape), kind, specs[0].device),)


def exponential(key: AnyArray, shape: Ints, dtype: str, scale: float) -> tuple[AnyArray]:
    """-scale log u, u in (0, 1]."""
    words = philox.bits64(key, prod(shape)) if dtype == "float64" else philox.bits32(key, prod(shape))
    return ((-scale * np.log(above_zero(words)) + 0.0).reshape(shape),)


def infer_bernoulli(specs: Specs, shape: Ints, p: float) -> Specs:
    """bool of `shape`."""
    check_key("random_bernoulli", specs[0])
    _check_probability("random_bernoulli", p)
    return (TensorSpec(_shape("random_bernoulli", shape), "bool", specs[0].device),)


def chosen(key: AnyArray, count: int, p: float) -> AnyArray:
    """`count` bools, each True with probability p."""
    return (philox.bits32(key, count) >> np.uint32(32 - KEEP_BITS)).astype(np.int64) < threshold(p)


def bernoulli(key: AnyArray, shape: Ints, p: float) -> tuple[AnyArray]:
    """True with probability p."""
    return (chosen(key, prod(shape), p).reshape(shape),)


def infer_randint(specs: Specs, shape: Ints, dtype: str, low: int, high: int) -> Specs:
    """Integers of `shape`. ConfigError unless low < high, both of the dtype (high may be one past it)."""
    check_key("random_randint", specs[0])
    kind = _one_of("random_randint", dtype, INTEGERS)
    limits = np.iinfo(np_dtype(kind))
    if not int(limits.min) <= low < high <= int(limits.max) + 1:
        raise ConfigError(
            f"random_randint: low must be below high, both within {kind} ({limits.min} to {limits.max}), got "
            f"{low} and {high}."
        )
    return (TensorSpec(_shape("random_randint", shape), kind, specs[0].device),)


def randint(key: AnyArray, shape: Ints, dtype: str, low: int, high: int) -> tuple[AnyArray]:
    """low + the upper half of a 64-bit number times high - low: even to 2^-64 (high - low)."""
    part = philox.high_product(philox.bits64(key, prod(shape)), high - low)
    shifted = part + np.uint64(low % (1 << 64))
    return (shifted.astype(np_dtype(dtype)).reshape(shape),)


def infer_permutation(specs: Specs, n: int) -> Specs:
    """int64[n]."""
    check_key("random_permutation", specs[0])
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ShapeError(f"random_permutation: n is a whole number of 0 or more, got {n!r}.")
    return (TensorSpec((n,), "int64", specs[0].device),)


def permutation(key: AnyArray, n: int) -> tuple[AnyArray]:
    """Fisher and Yates, inside out: element i goes to a place j <= i by chance, what was there to place i."""
    order = np.zeros(n, np.int64)
    words = philox.bits64(key, n)
    for i in range(n):
        j = int(words[i]) * (i + 1) >> 64
        order[i], order[j] = order[j], i
    return (order,)


# --- keys ---------------------------------------------------------------------------------------------------


def infer_split(specs: Specs, n: int) -> Specs:
    """uint32[n, 2]."""
    check_key("random_split", specs[0])
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ShapeError(f"random_split: n is a whole number of 0 or more, got {n!r}.")
    return (TensorSpec((n, 2), "uint32", specs[0].device),)


def split(key: AnyArray, n: int) -> tuple[AnyArray]:
    """Words 0 and 1 of the blocks of a stream of its own."""
    return (philox.blocks(key, 0, n, philox.SPLIT)[:, :2],)


def infer_fold_in(specs: Specs) -> Specs:
    """uint32[2]."""
    check_key("random_fold_in", specs[0])
    data = specs[1]
    if data.shape != () or data.dtype not in ("int32", "int64", "uint32", "uint64"):
        raise DTypeError(
            f"random_fold_in: data is one whole number, a 0-d int32, int64, uint32 or uint64, got {data}."
        )
    return (TensorSpec((2,), "uint32", specs[0].device),)


def fold_in(key: AnyArray, data: AnyArray) -> tuple[AnyArray]:
    """Words 0 and 1 of block `data` (mod 2^64) of a stream of its own."""
    at = int(data) % (1 << 64)
    counter = [at & 0xFFFFFFFF, at >> 32, philox.FOLD, 0]
    return (philox.philox(counter, key)[:2],)


# --- dropout ------------------------------------------------------------------------------------------------


def infer_dropout(specs: Specs, p: float) -> Specs:
    """Of x's shape."""
    dtype = DROPOUT.check_inputs(specs)
    x, key = specs
    check_key("dropout", key)
    _check_probability("dropout", p)
    return (TensorSpec(x.shape, dtype, x.device),)


def dropout(x: AnyArray, key: AnyArray, p: float) -> tuple[AnyArray]:
    """x times 1 / (1 - p), or with probability p times 0."""
    scale = 0.0 if p == 1 else 1 / (1 - p)
    kept = ~chosen(key, x.size, p).reshape(x.shape)
    return (x * np.where(kept, scale, 0.0),)


# --- what is common -----------------------------------------------------------------------------------------


def _cost(infer: Callable[..., Specs], inputs: int) -> Callable[..., Cost]:
    def cost(specs: Specs, **attrs: Any) -> Cost:
        """The ten rounds of Philox of each block of four words, 6 operations each."""
        given = tuple(specs[:inputs])
        (out,) = infer(given, **attrs)
        return Cost(flops=15 * out.size, bytes=out.nbytes + sum(spec.nbytes for spec in given))

    return cost


def _drawing(
    name: str, infer: Callable[..., Specs], reference: Callable[..., tuple[AnyArray]], doc: str, **more: Any
) -> Op:
    inputs = more.pop("inputs", ("key",))
    return register_op(
        Op(
            name=name,
            infer=infer,
            reference=reference,
            cost=_cost(infer, len(inputs)),
            samples=getattr(samples, name),
            reduction_length=lambda specs, **attrs: 1,
            inputs=inputs,
            family="random",
            doc=doc,
            **{"own_dtype": inputs, "draw": samples.draw, **more},
        )
    )


RANDOM_BITS = _drawing(
    "random_bits", infer_bits, bits, "Words of 32 random bits.", attrs={"shape": ()}, dtypes=("uint32",)
)
RANDOM_UNIFORM = _drawing(
    "random_uniform",
    infer_uniform,
    uniform,
    "Numbers of [low, high), equally likely.",
    attrs={"shape": (), "dtype": "float32", "low": 0.0, "high": 1.0},
    dtypes=FLOATS,
    magnitude=uniform_magnitude,
)
RANDOM_NORMAL = _drawing(
    "random_normal",
    infer_normal,
    normal,
    "Normally distributed numbers.",
    attrs={"shape": (), "dtype": "float32", "mean": 0.0, "std": 1.0},
    dtypes=FLOATS,
    magnitude=normal_magnitude,
)
RANDOM_TRUNCATED_NORMAL = _drawing(
    "random_truncated_normal",
    infer_truncated,
    truncated_normal,
    "Normally distributed numbers, those outside of low and high drawn again.",
    attrs={"shape": (), "dtype": "float32", "low": -2.0, "high": 2.0, "mean": 0.0, "std": 1.0},
    dtypes=FLOATS,
    magnitude=truncated_magnitude,
)
RANDOM_EXPONENTIAL = _drawing(
    "random_exponential",
    infer_exponential,
    exponential,
    "Exponentially distributed numbers of mean scale.",
    attrs={"shape": (), "dtype": "float32", "scale": 1.0},
    dtypes=FLOATS,
)
RANDOM_BERNOULLI = _drawing(
    "random_bernoulli",
    infer_bernoulli,
    bernoulli,
    "True with probability p.",
    attrs={"shape": (), "p": 0.5},
    dtypes=("bool",),
)
RANDOM_RANDINT = _drawing(
    "random_randint",
    infer_randint,
    randint,
    "Whole numbers of [low, high), equally likely.",
    attrs={"shape": (), "dtype": "int64", "low": 0, "high": 2},
    dtypes=INTEGERS,
)
RANDOM_PERMUTATION = _drawing(
    "random_permutation",
    infer_permutation,
    permutation,
    "0 to n - 1 in random order.",
    attrs={"n": 0},
    dtypes=("int64",),
)
RANDOM_SPLIT = _drawing("random_split", infer_split, split, "n new keys.", attrs={"n": 2}, dtypes=("uint32",))
RANDOM_FOLD_IN = _drawing(
    "random_fold_in",
    infer_fold_in,
    fold_in,
    "A new key for a key and a number.",
    inputs=("key", "data"),
    dtypes=("uint32",),
)
DROPOUT = _drawing(
    "dropout",
    infer_dropout,
    dropout,
    "x / (1 - p), its elements 0 with probability p.",
    inputs=("x", "key"),
    attrs={"p": 0.5},
    own_dtype=("key",),
    dtypes=FLOATS,
)
