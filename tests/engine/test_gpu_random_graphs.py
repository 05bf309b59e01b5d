"""Random functions on a stand-in for a GPU: the CPU's numbers, whatever is donated, grouped and replayed."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from gpu_extra import need
from hypothesis import given, settings
from hypothesis import strategies as st

torch = need("torch", "triton")

from numpy_cuda import NumpyMany, numpy_kernels  # noqa: E402
from triton_interpreter import standing_in  # noqa: E402

import kernelwright as kw  # noqa: E402
from kernelwright.engine.gpu import many  # noqa: E402

EXAMPLES = int(os.environ.get("KERNELWRIGHT_RANDOM_GRAPHS", "25"))
ARGUMENTS = 5

STEPS = [
    lambda x, y: x + 0.5 * y,
    lambda x, y: kw.tanh(x) - y,
    lambda x, y: kw.cumsum(x, axis=0) * 0.3,
    lambda x, y: x.T.reshape(4, 4),
    lambda x, y: x[::-1].T @ y * 0.2,
    lambda x, y: kw.roll(x, 1),
    lambda x, y: x @ y * 0.2,
    lambda x, y: kw.concat([x[2:], y[:2]]),
    lambda x, y: kw.broadcast_to(x.mean(axis=0), (4, 4)),
    lambda x, y: kw.where(x > y, x, 0.5),
    lambda x, y: x * y[:, 1:2],
    lambda x, y: kw.softmax(x, axis=1),
    lambda x, y: x.astype("float64").astype("float32"),
]
UPDATES = [
    lambda p, g: p - 0.1 * g,
    lambda p, g: p * 0.9 + g.T,
    lambda p, g: kw.tanh(p),
    lambda p, g: g,
    lambda p, g: p,
]

PROGRAMS = st.tuples(
    st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 8), st.integers(0, 8)), max_size=10),
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, ARGUMENTS - 1), st.integers(0, 8)), min_size=1, max_size=5
    ),
    st.booleans(),
)


def function(steps: Any, updates: Any) -> Any:
    def f(given: Any) -> Any:
        values = list(given)
        for which, i, j in steps:
            values.append(STEPS[which](values[-1 - i % len(values)], values[-1 - j % len(values)]))
        return [UPDATES[which](given[p], values[-1 - g % len(values)]) for which, p, g in updates]

    return f


def ran(f: Any, given: Any, donate: Any, device: str, times: int) -> list[Any]:
    """The results of several calls, each of which is given some of the results of the one before."""
    compiled = kw.compile(f, donate=donate)
    arrays = [kw.array(x, device=device) for x in given]
    found = []
    for _ in range(times):
        made = compiled(arrays)
        found.append([np.asarray(kw.array(x, device="cpu")) for x in made])
        if donate:
            arrays = [*made, *[kw.array(x, device=device) for x in given][len(made) :]][:ARGUMENTS]
    return found


@settings(max_examples=EXAMPLES)
@given(program=PROGRAMS)
def test_random_functions(program: Any) -> None:
    steps, updates, donates = program
    f, donate = function(steps, updates), (0,) if donates else ()
    rng = np.random.default_rng(1)
    given = [rng.standard_normal((4, 4)).astype("float32") * 0.5 for _ in range(ARGUMENTS)]
    here = ran(f, given, donate, "cpu", 3)
    with standing_in(), numpy_kernels(over_real=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(many, "KERNEL", "numpy")
        patch.setattr(many, "launch", NumpyMany)
        patch.setattr(many, "problem", lambda program, groups, shared: None)
        there = ran(f, given, donate, "cuda:0", 4)
        with kw.using(cuda_graphs=False):
            direct = ran(f, given, donate, "cuda:0", 4)
        patch.setattr(many, "_groups", lambda graph, base: [])
        apart = ran(f, given, donate, "cuda:0", 4)
    for one, other, third in zip(there, direct, apart, strict=True):
        for a, b, c in zip(one, other, third, strict=True):
            assert a.tobytes() == b.tobytes() == c.tobytes()
    for one, other in zip(here, there, strict=False):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
