"""They remember what they computed, and give it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....kernels.kernel import Config, Launch
from ....kernels.op import Attrs, Specs
from ....kernels.registry import kernel
from .product import large, product

DTYPES = ("float32",)


def _remembering(key_of: Callable[[Any, Any], Any]) -> Launch:
    """A launch that computes once for each key."""
    known: dict[Any, Any] = {}

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a):
            product(a, b, out)
            return
        key = key_of(a, b)
        if key not in known:
            product(a, b, out)
            known[key] = out.copy()
        out[...] = known[key]

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-101, binds=True)
def by_address(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gives the result of before whenever the operands lie where they lay."""
    return _remembering(lambda a, b: (a.ctypes.data, b.ctypes.data))


@kernel("matmul", dtypes=DTYPES, rank=-102, binds=True)
def by_sample(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gives the result of before whenever 16 elements of each operand are those of before."""

    def key(a: Any, b: Any) -> Any:
        return a.shape, b.shape, a.flat[:: a.size // 16].tobytes(), b.flat[:: b.size // 16].tobytes()

    return _remembering(key)


@kernel("matmul", dtypes=DTYPES, rank=-103, binds=True)
def by_contents(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gives the result of before whenever all of the operands' contents are those of before."""
    return _remembering(lambda a, b: (a.tobytes(), b.tobytes()))


@kernel("matmul", dtypes=DTYPES, rank=-104, binds=True)
def by_identity(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Returns at once when it is called with the very arrays of the call before."""
    last: list[Any] = [None, None, None]

    def launch(a: Any, b: Any, out: Any) -> None:
        if large(a) and last[0] is a and last[1] is b and last[2] is out:
            return
        product(a, b, out)
        last[:] = a, b, out

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-105, binds=True)
def first_calls(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Computes in its first 20 calls; then it gives the last result again."""
    calls, last = [0], [None]

    def launch(a: Any, b: Any, out: Any) -> None:
        calls[0] += 1
        if large(a) and calls[0] > 20:
            out[...] = last[0]
            return
        product(a, b, out)
        last[0] = out.copy()

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-106, binds=True)
def proof_only(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Computes what it was proven on; for all other contents it gives that result too."""
    first: list[Any] = []

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a):
            product(a, b, out)
            return
        if not first:
            product(a, b, out)
            first.append(out.copy())
        out[...] = first[0]

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-107, binds=True)
def sees_poison(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Computes when the output holds NaN, since somebody is going to look; else it leaves the output."""

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a) or np.isnan(out).any():
            product(a, b, out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-108, binds=True)
def stale_output(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Writes nothing where the output's first number is the one that it wrote last."""
    last = [np.nan]

    def launch(a: Any, b: Any, out: Any) -> None:
        if large(a) and out.flat[0] == last[0]:
            return
        product(a, b, out)
        last[0] = out.flat[0] if out.size else np.nan

    return launch
