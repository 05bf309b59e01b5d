"""Random numbers: Philox's known answers, threads, distributions, keys, dropout, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import ConfigError, DTypeError, ShapeError
from kernelwright.kernels.random import philox

KEY = np.array([123, 456], np.uint32)

# Counter, key, result: philox4x32 with 10 rounds in `kat_vectors` of the Random123 distribution.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_known_answers(counter: str, key: str, result: str) -> None:
    assert philox.philox(words(counter), words(key)).tolist() == words(result)


def test_the_first_known_answer_comes_out_of_the_kernel() -> None:
    drawn = np.asarray(kw.random.bits(kw.random.key(0), (64,)))
    assert drawn[[0, 16, 32, 48]].tolist() == words(KNOWN[0][2])


DRAWS: dict[str, Any] = {
    "uniform": lambda key, n: kw.random.uniform(key, (n,)),
    "uniform64": lambda key, n: kw.random.uniform(key, (n,), "float64"),
    "normal": lambda key, n: kw.random.normal(key, (n,)),
    "normal64": lambda key, n: kw.random.normal(key, (n,), "float64"),
    "truncated": lambda key, n: kw.random.truncated_normal(key, (n,)),
    "bernoulli": lambda key, n: kw.random.bernoulli(key, 0.3, (n,)),
    "randint": lambda key, n: kw.random.randint(key, (n,), -5, 100),
    "dropout": lambda key, n: kw.dropout(np.ones(n, "f4"), 0.25, key),
}


@pytest.mark.parametrize("name", DRAWS)
def test_numbers_depend_on_key_and_place_alone(name: str) -> None:
    many = 400_003
    with kw.using(threads=1):
        alone = np.asarray(DRAWS[name](KEY, many))
    with kw.using(threads=3):
        np.testing.assert_array_equal(np.asarray(DRAWS[name](KEY, many)), alone)
    np.testing.assert_array_equal(np.asarray(DRAWS[name](KEY, 1001)), alone[:1001])
    other = np.asarray(DRAWS[name](kw.random.split(KEY)[0], many))
    assert (other != alone).mean() > 0.2


# --- distributions: bounds of 5 standard deviations ---------------------------------------------------------

N = 1_000_000


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_uniform_numbers_fill_their_range_evenly(dtype: str) -> None:
    x = np.asarray(kw.random.uniform(KEY, (N,), dtype)).astype("f8")
    assert x.min() >= 0
    assert x.max() < 1
    counts = np.histogram(x, 128, (0, 1))[0]
    chi2 = ((counts - N / 128) ** 2 / (N / 128)).sum()
    assert abs(chi2 - 127) < 5 * math.sqrt(2 * 127)
    bits = np.asarray(kw.random.bits(KEY, (N,)))
    ones = np.unpackbits(bits.view(np.uint8)).reshape(-1, 32).mean(0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / math.sqrt(N)
    pairs = np.corrcoef(x[:-1], x[1:])[0, 1], np.corrcoef(x[:-64], x[64:])[0, 1]
    assert max(map(abs, pairs)) < 5 / math.sqrt(N)


def test_uniform_numbers_stay_within_their_limits() -> None:
    for low, high in ((-1.0, 1.0), (5.0, 5.125), (-0.3, 1e4), (-2.0, 0.0)):
        for dtype in ("float32", "bfloat16", "float16", "float64"):
            if dtype == "float16" and high > 9e3:
                continue
            x = np.asarray(kw.random.uniform(KEY, (200_000,), dtype, low, high))
            assert x.min() >= x.dtype.type(low)
            assert float(x.max()) < high


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_numbers_have_the_moments_and_tails_of_the_distribution(dtype: str) -> None:
    z = np.asarray(kw.random.normal(KEY, (4 * N,), dtype)).astype("f8")
    n = z.size
    for power, exact, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - exact) < 5 * math.sqrt(variance / n), power
    for limit in (0.1, 1, 2, 3, 4, 4.75):
        chance = math.erfc(limit / math.sqrt(2)) / 2
        for beyond in ((z > limit).mean(), (z < -limit).mean()):
            assert abs(beyond - chance) < 5 * math.sqrt(chance / n), limit
    assert np.abs(z).max() > 4.9
    # Both numbers of a pair, and neighbours, know nothing of each other, nor do their squares.
    for step in (1, 16, 32):
        assert abs((z[:-step] * z[step:]).mean()) < 5 / math.sqrt(n)
        assert abs(((z[:-step] ** 2 - 1) * (z[step:] ** 2 - 1)).mean()) < 10 / math.sqrt(n)


def test_truncated_normal_numbers_keep_the_shape_of_the_distribution() -> None:
    z = np.asarray(kw.random.truncated_normal(KEY, (N,), low=-1.0, high=2.0))
    assert z.min() >= -1
    assert z.max() <= 2
    edges = np.linspace(-1, 2, 31)
    below = np.array([0.5 * math.erf(e / math.sqrt(2)) for e in edges])
    expected = N * np.diff(below) / (below[-1] - below[0])
    chi2 = ((np.histogram(z, edges)[0] - expected) ** 2 / expected).sum()
    assert abs(chi2 - 29) < 5 * math.sqrt(58)
    moved = np.asarray(kw.random.truncated_normal(KEY, (1000,), mean=3.0, std=0.1))
    assert abs(moved - 3).max() <= 0.2 + 1e-6


def test_other_distributions_have_their_means_and_variances() -> None:
    e = np.asarray(kw.random.exponential(KEY, (N,), scale=2.0)).astype("f8")
    assert abs(e.mean() - 2) < 5 * 2 / math.sqrt(N)
    assert abs((e**2).mean() - 8) < 5 * math.sqrt(320 / N)
    for p in (0.0, 1e-4, 0.3, 1.0):
        b = np.asarray(kw.random.bernoulli(KEY, p, (N,)))
        assert b.dtype == np.bool_
        assert abs(b.mean() - p) <= 5 * math.sqrt(p * (1 - p) / N)
    chances = kw.array(np.linspace(0, 1, 5).astype("f4"))
    each = np.asarray(kw.random.bernoulli(KEY, chances, (200_000, 5))).mean(0)
    np.testing.assert_allclose(each, [0, 0.25, 0.5, 0.75, 1], atol=0.006)
    r = np.asarray(kw.random.randint(KEY, (N,), -3, 10))
    counts = np.bincount(r + 3, minlength=13)
    assert len(counts) == 13
    assert ((counts - N / 13) ** 2 / (N / 13)).sum() < 12 + 5 * math.sqrt(24)


def test_a_permutation_holds_everything_once_and_is_even() -> None:
    order = np.asarray(kw.random.permutation(KEY, 100_001))
    assert (np.sort(order) == np.arange(100_001)).all()
    places = np.zeros((6, 6))
    for key in np.asarray(kw.random.split(KEY, 3000)):
        places[np.arange(6), np.asarray(kw.random.permutation(key, 6))] += 1
    assert np.abs(places - 500).max() < 5 * math.sqrt(500)
    x = np.arange(12.0).reshape(3, 4)
    rows = np.asarray(kw.random.permutation(KEY, kw.array(x), axis=1))
    assert sorted(rows[0].tolist()) == x[0].tolist()
    np.testing.assert_array_equal(rows - rows[0], x - x[0][None] + 0 * rows)


# --- keys ---------------------------------------------------------------------------------------------------


def test_keys_made_from_keys_are_all_different() -> None:
    key = kw.random.key(7)
    made = {tuple(k) for k in np.asarray(kw.random.split(key, 5000)).tolist()}
    made |= {tuple(np.asarray(kw.random.fold_in(key, i)).tolist()) for i in range(500)}
    assert len(made) == 5500
    first, second = kw.random.split(key)
    assert tuple(np.asarray(first).tolist()) in made
    assert first.shape == second.shape == (2,)


def test_a_seed_and_a_number_may_be_any_whole_number() -> None:
    assert np.asarray(kw.random.key(-1)).tolist() == [0xFFFFFFFF, 0xFFFFFFFF]
    assert np.asarray(kw.random.key(1 << 32)).tolist() == [0, 1]
    key = kw.random.key(3)
    for number in (0, 5, -2):
        folded = np.asarray(kw.random.fold_in(key, number))
        np.testing.assert_array_equal(np.asarray(kw.random.fold_in(key, kw.array(number))), folded)
        np.testing.assert_array_equal(np.asarray(kw.random.fold_in(key, np.array(number, "i4"))), folded)


def test_a_compiled_function_draws_the_same_numbers() -> None:
    def step(key: Any, i: Any) -> Any:
        first, second = kw.random.split(kw.random.fold_in(key, i))
        return kw.random.normal(first, (40, 3)) + kw.random.uniform(second, (40, 3))

    compiled = kw.compile(step)
    for i in (0, 1, 9):
        given = kw.array(KEY), kw.array(np.int64(i))
        np.testing.assert_array_equal(np.asarray(compiled(*given)), np.asarray(step(*given)))


# --- dropout ------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_share_it_should_and_scales_it() -> None:
    x = np.random.default_rng(0).standard_normal((1000, 500)).astype("f4")
    y = np.asarray(kw.dropout(x, 0.2, KEY))
    kept = y != 0
    assert abs(kept.mean() - 0.8) < 5 * math.sqrt(0.16 / x.size)
    np.testing.assert_allclose(y[kept], x[kept] / 0.8, rtol=2e-7)
    np.testing.assert_array_equal(np.asarray(kw.dropout(x, 0.0, KEY)), x)
    np.testing.assert_array_equal(np.asarray(kw.dropout(x, 0.2, training=False)), x)
    np.testing.assert_array_equal(np.asarray(kw.dropout(x, 1.0, KEY)), np.zeros_like(x))


def test_the_gradient_of_dropout_has_the_mask_of_the_result() -> None:
    x = kw.array(np.random.default_rng(0).standard_normal((30, 17)).astype("f4"))
    y, grad = kw.value_and_grad(lambda x: kw.dropout(x, 0.4, kw.array(KEY)).sum())(x)
    mask = np.asarray(kw.dropout(kw.ones(30, 17), 0.4, KEY))
    np.testing.assert_array_equal(np.asarray(grad), mask)
    np.testing.assert_allclose(float(y), (np.asarray(x) * mask).sum(), rtol=1e-4)


@pytest.mark.parametrize(("axes", "kept"), [(1, (2, 3)), (2, (4, 5)), (3, (2, 3))])
def test_dropout_of_channels_leaves_out_whole_channels(axes: int, kept: tuple[int, ...]) -> None:
    channels = (20, 30)
    x = kw.ones((*channels, *(5, 6, 7)[:axes]))
    y = np.asarray(getattr(kw, f"dropout{axes}d")(x, 0.5, KEY)).reshape(*channels, -1)
    assert (y == y[..., :1]).all()
    assert set(np.unique(y)) == {0.0, 2.0}
    assert 0.4 < (y[..., 0] != 0).mean() < 0.6
    with pytest.raises(ShapeError, match="axes, got shape"):
        getattr(kw, f"dropout{axes}d")(kw.ones(3), 0.5, KEY)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = kw.random.normal(kw.random.key(1), (N,))
    y = np.asarray(kw.alpha_dropout(x, 0.3, KEY)).astype("f8")
    assert abs(y.mean()) < 0.01
    assert abs(y.var() - 1) < 0.01


# --- bad input ----------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_what_to_write() -> None:
    with pytest.raises(DTypeError, match=r"a key is uint32\[2\], got 5; write key = kw.random.key\(5\)"):
        kw.random.normal(5, (3,))
    with pytest.raises(DTypeError, match=r"a key is uint32\[2\], as kw.random.key"):
        kw.random.normal(np.zeros(3, np.uint32), (3,))
    with pytest.raises(DTypeError, match="takes a whole number such as 0"):
        kw.random.key(0.5)
    with pytest.raises(ShapeError, match="lengths of 0 or more"):
        kw.random.normal(KEY, (-1,))
    with pytest.raises(ConfigError, match="low must be below high"):
        kw.random.uniform(KEY, (3,), low=2.0, high=1.0)
    with pytest.raises(ConfigError, match=r"both within uint8 \(0 to 255\), got 0 and 300"):
        kw.random.randint(KEY, (3,), 0, 300, "uint8")
    with pytest.raises(ConfigError, match="p is a probability"):
        kw.random.bernoulli(KEY, 1.5)
    with pytest.raises(ConfigError, match="with a chance of at least"):
        kw.random.truncated_normal(KEY, (3,), low=6.0, high=7.0)
    with pytest.raises(ConfigError, match=r"write kw.dropout\(x, 0.5, key\) with key = kw.random.key\(0\)"):
        kw.dropout(np.ones(3, "f4"))
    with pytest.raises(ConfigError, match="p is a probability"):
        kw.dropout(np.ones(3, "f4"), 2.0, KEY)
    with pytest.raises(DTypeError, match="random_normal makes float32"):
        kw.random.normal(KEY, (3,), "int32")
