"""exp, log, tanh, sigmoid, erf and the activations on vectors: to the last places, over all exponents."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.kernels import activations
from kernelwright.kernels.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent))
from vector_math_map import FUNCTIONS, mapped

WIDEST = {"float32": 16, "float64": 8}
KINDS = [(name, dtype) for dtype in WIDEST for name in FUNCTIONS]
# Where a function has its detail, for dense samples beside those over all bit patterns.
DENSE = {"exp": (-104, 89), "log": (0.5, 2), "tanh": (-10, 10), "sigmoid": (-104, 20), "erf": (-6, 6)}
DENSE_64 = {"exp": (-746, 710), "sigmoid": (-746, 40)}
# In units in the last place. With all 2^32 float32 numbers of a sign between 2^-8 and the end of its range:
# exp 1.04, tanh 1.91, sigmoid 1.50.
BOUNDS = {"float32": 2.0, "float64": 2.5}


def every_exponent(dtype: str, count: int) -> Any:
    """Numbers whose bit patterns are evenly spread: all signs and exponents, subnormals, infinities, NaN."""
    bits = 8 * np.dtype(dtype).itemsize
    step = (1 << bits) // count | 1
    word = np.dtype(f"uint{bits}")
    return np.arange(count, dtype=word) * word.type(step)


def samples(name: str, dtype: str) -> Any:
    count = 1 << (18 if name == "erf" else 22 if dtype == "float32" else 19)
    rng = np.random.default_rng(0)
    low, high = DENSE[name] if dtype == "float32" else DENSE_64.get(name, DENSE[name])
    spread = every_exponent(dtype, count).view(dtype)
    dense = rng.uniform(low, high, count).astype(dtype)
    return np.concatenate([spread, dense, rng.uniform(-1.2, 1.2, count).astype(dtype)])


def exact(name: str, x: Any) -> Any:
    """In a wider type; erf in float64, from the C library."""
    if name == "erf":
        return activations.erf(x.astype(np.float64))
    wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if name == "sigmoid":
        return activations.reference(name, wide)
    return getattr(np, name)(wide)


def ulps(got: Any, true: Any) -> Any:
    """|got - true| in units of got's last place at true; those of subnormals are all of one size."""
    facts = np.finfo(got.dtype)
    exponent = np.maximum(np.frexp(true)[1] - 1, facts.minexp)
    return np.abs(got.astype(true.dtype) - true) / np.ldexp(true.dtype.type(1), exponent - facts.nmant)


@pytest.mark.parametrize(("name", "dtype"), KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_are_right_to_the_last_places_over_all_exponents(name: str, dtype: str) -> None:
    if dtype == "float64" and np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("waits for a platform whose long double is wider than float64")
    x = samples(name, dtype)
    got, true = mapped(name, x, WIDEST[dtype]), exact(name, x)
    rounded = true.astype(dtype)
    special = ~(np.isfinite(x) & np.isfinite(rounded))
    np.testing.assert_array_equal(got[special], rounded[special])
    off = ulps(got[~special], true[~special])
    worst = int(off.argmax())
    assert off[worst] <= BOUNDS[dtype], f"{off[worst]} ulp at {x[~special][worst]!r}"
    assert np.isfinite(got[~special]).all()
    if name in ("exp", "sigmoid"):
        small = (np.abs(rounded) < np.finfo(dtype).tiny) & (rounded != 0)
        assert small.sum() > 100
        assert (got[small] != 0).all(), "subnormal results are flushed"


@pytest.mark.parametrize(("name", "dtype"), KINDS)
def test_special_values(name: str, dtype: str) -> None:
    inf, nan = math.inf, math.nan
    tiny = float(np.finfo(dtype).smallest_subnormal)
    expected = {
        "exp": [(0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (nan, nan), (1e30, inf), (-1e30, 0), (tiny, 1)],
        "log": [
            (1, 0),
            (0, -inf),
            (-0.0, -inf),
            (inf, inf),
            (-inf, nan),
            (nan, nan),
            (-1, nan),
            (-tiny, nan),
        ],
        "tanh": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan), (tiny, tiny), (-tiny, -tiny)],
        "sigmoid": [(0, 0.5), (-0.0, 0.5), (inf, 1), (-inf, 0), (nan, nan), (1e30, 1), (-1e30, 0)],
        "erf": [(0, 0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan), (-1e30, -1), (tiny, tiny)],
    }[name]
    x, true = np.array(expected, dtype).T
    got = mapped(name, x, WIDEST[dtype])
    np.testing.assert_array_equal(got, true)
    signed = ~np.isnan(true)
    np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(true[signed]))


@pytest.mark.parametrize("dtype", WIDEST)
def test_functions_grow_where_the_true_ones_do_at_the_joints(dtype: str) -> None:
    # Around 0, the ends of the reduced range, and where erf changes its formula: no step larger than 2 ulp.
    for name, joints in {"erf": [1.0], "tanh": [math.log(2) / 4], "exp": [math.log(2) / 2]}.items():
        for joint in joints:
            centre = np.array(joint, dtype).view(f"int{8 * np.dtype(dtype).itemsize}")
            x = (centre + np.arange(-512, 512)).astype(centre.dtype).view(dtype)
            got = mapped(name, x, WIDEST[dtype])
            steps = np.diff(got.view(centre.dtype).astype(np.int64))
            assert steps.min() >= -3, (name, joint)
            assert steps.max() <= 4, (name, joint)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("dtype", WIDEST)
def test_any_number_of_lanes_gives_the_same(dtype: str, lanes: int) -> None:
    if lanes == WIDEST[dtype]:
        return
    x = np.concatenate([every_exponent(dtype, 1 << 12).view(dtype), np.linspace(-20, 20, 4096, dtype=dtype)])
    for name in FUNCTIONS if dtype == "float32" else ("tanh", "log"):
        np.testing.assert_array_equal(mapped(name, x, lanes), mapped(name, x, WIDEST[dtype]))


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
@pytest.mark.parametrize("dtype", WIDEST)
def test_activations_follow_their_definitions(name: str, dtype: str) -> None:
    x = np.concatenate([np.linspace(-30, 30, 60001), np.geomspace(1e-30, 1e30, 999), [0.0, -0.0]])
    x = np.concatenate([x, -x, [np.inf, -np.inf, np.nan]]).astype(dtype)
    got, true = mapped(name, x, WIDEST[dtype]), activations.reference(name, x.astype(np.float64))
    with np.errstate(invalid="ignore"):
        off = np.abs(got - true)
    # Relative to the result; gelu on the far left to what its factor, near 0, is worth beside 1.
    eps = np.finfo(dtype).eps
    allowed = 16 * eps * np.abs(true) + (eps * np.minimum(np.abs(x), 40) / 2 if "gelu" in name else 0)
    allowed += np.finfo(dtype).smallest_subnormal * (1 + np.minimum(np.abs(x), 1000))
    fine = (off <= allowed) | (got == true) | (np.isnan(got) & np.isnan(true))
    assert fine.all(), (x[~fine][:5], got[~fine][:5], true[~fine][:5])


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activation_definitions_are_those_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch's definitions")
    functional = torch.nn.functional
    peer = {"gelu_tanh": lambda t: functional.gelu(t, approximate="tanh"), "sigmoid": torch.sigmoid}
    peer |= {"tanh": torch.tanh, "silu": functional.silu, "relu": torch.relu, "gelu": functional.gelu}
    x = torch.linspace(-8, 8, 2001, dtype=torch.float64, requires_grad=True)
    y = peer[name](x)
    y.sum().backward()
    np.testing.assert_allclose(activations.reference(name, x.detach().numpy()), y.detach(), atol=1e-14)
    np.testing.assert_allclose(activations.derivative(name, x.detach().numpy()), x.grad, atol=1e-14)


def test_an_unknown_activation_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'swish' is no activation; write one of 'relu', 'gelu'"):
        activations.reference("swish", np.zeros(1))
