"""check_grads: a gradient beside finite differences, for everybody who writes a rule or a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.errors import ConfigError, DTypeError, WrongResultError
from . import tree
from .array import Array, asarray
from .autograd import DIFFERENTIABLE, value_and_grad

# Central differences with this step err by about step^2 |f'''| / 6 from the slope, and by 2^-53 |f| / step
# from rounding: both near 1e-10 for numbers of ordinary size.
STEP = 1e-5


def check_grads(
    function: Callable[..., Any],
    *args: Any,
    order: int = 1,
    rtol: float = 1e-6,
    directions: int = 3,
    seed: int = 0,
) -> None:
    """Compare the gradients of a function with finite differences, in float64.

    All floating-point results are multiplied by random numbers and added up, and the slope of that sum along
    random directions of the arguments is compared with the gradient's.

    Args:
        function: takes and returns trees of Arrays.
        *args: where; float64 Arrays, NumPy arrays, trees of them. Integers and bools are kept as they are.
        order: 1, or 2 to check the gradient of the gradient too.
        rtol: the error allowed, relative to the size of the slope's terms.
        directions: how many random directions.
        seed: of the random numbers.

    Raises:
        WrongResultError: with both slopes, when they differ.
        DTypeError: for floating-point arguments that are not float64: differences need the accuracy.
        GradientError: for an op on the way without a rule.
    """
    if order not in (1, 2):
        raise ConfigError(f"kw.check_grads checks order 1 or 2, got {order!r}.")
    leaves, structure = tree.flatten(args, "args")
    device = next((x.device for x in map(_as_array, leaves) if x.on_cuda), None)
    leaves = [np.asarray(asarray(x, device="cpu")) for x in leaves]
    for x, path in zip(leaves, structure.paths("args"), strict=True):
        if x.dtype.name in DIFFERENTIABLE and x.dtype != np.float64:
            raise DTypeError(
                f"kw.check_grads: {path} is {x.dtype}, and finite differences need float64; write "
                "x.astype('float64')."
            )
    rng = np.random.default_rng(seed)
    moving = [i for i, x in enumerate(leaves) if x.dtype == np.float64]

    def weighted(*inner: Any) -> Any:
        whole = list(leaves)
        for i, x in zip(moving, inner, strict=True):
            whole[i] = x
        there = [x if isinstance(x, Array) else asarray(x, device=device) for x in whole]
        return _weighted(function(*structure.unflatten(there)), seed)

    start = [asarray(leaves[i], device=device) for i in moving]
    _compare(weighted, start, rng, rtol, directions, f"{_name(function)}: the gradient")
    if order == 2:

        def slope(*inner: Any) -> Any:
            _, grads = value_and_grad(weighted, tuple(range(len(inner))))(*inner)
            return _weighted(grads, seed + 1)

        _compare(slope, start, rng, rtol, directions, f"{_name(function)}: the gradient of the gradient")


def _as_array(x: Any) -> Array:
    return x if isinstance(x, Array) else asarray(x)


def _like(x: Any, numbers: NDArray[Any]) -> Array:
    """An Array of these numbers where `x` is; in a traced function, a constant."""
    return asarray(numbers, device=x.device if isinstance(x, Array) and x.on_cuda else None)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))


def _weighted(result: Any, seed: int) -> Any:
    """The sum of all floating-point results, each element times a random number."""
    from .functional.reduce import sum as total

    rng = np.random.default_rng(seed + 1000)
    whole: Any = None
    for x in tree.leaves(result, "the result"):
        if x.dtype != np.float64:
            continue
        part = total(x * _like(x, rng.uniform(0.5, 1.5, x.shape)))
        whole = part if whole is None else whole + part
    return Array(np.zeros(())) if whole is None else whole


def _compare(
    function: Callable[..., Any],
    start: Sequence[Array],
    rng: np.random.Generator,
    rtol: float,
    directions: int,
    what: str,
) -> None:
    if not start:
        return
    _, grads = value_and_grad(function, tuple(range(len(start))))(*start)
    found = [np.asarray(asarray(g, device="cpu")) for g in grads]
    for _ in range(directions):
        ways = [rng.uniform(-1, 1, x.shape) for x in start]
        slope = sum(float((g * w).sum()) for g, w in zip(found, ways, strict=True))
        size = sum(float(np.abs(g * w).sum()) for g, w in zip(found, ways, strict=True))
        right, noise = _difference(function, start, ways)
        if not abs(slope - right) <= rtol * max(size, 1.0) + noise:
            raise WrongResultError(
                f"{what} has the slope {slope:.12g} along a random direction, finite differences have "
                f"{right:.12g} (of terms that sum to {size:.3g} in magnitude)."
            )


def _difference(
    function: Callable[..., Any], start: Sequence[Array], ways: Sequence[NDArray[np.float64]]
) -> tuple[float, float]:
    """The slope along a direction by central differences, and how far rounding may carry it off."""

    def at(step: float) -> float:
        moved = [_like(x, n + step * w) for x, n, w in zip(start, numbers, ways, strict=True)]
        return float(function(*moved).item())

    numbers = [np.asarray(asarray(x, device="cpu")) for x in start]
    high, low = at(STEP), at(-STEP)
    return (high - low) / (2 * STEP), 1e-14 * (abs(high) + abs(low)) / STEP
