"""A kernel whose slowness can be set: the package's own product of matrices, and then a loop that delays.

    kernelwright compare bench/lab/planted.py bench/lab/planted.py:delay=10000 --problem square-256

The delay is so many multiplications that wait for each other, which takes time by the core's clock, as the
product itself does. Also with `delay=0` the loop is called.
"""

from __future__ import annotations

from kernelwright import kernel
from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.registry import kernels_for

BASE = "matmul/cpu_numba/packed"


def _wait(n):
    """The n-th of a sequence of numbers, each of which needs the one before.

    The multiplier is that of Knuth's MMIX generator; without the shift, a compiler makes one multiplication of
    eight.
    """
    x = 1
    for _ in range(n):
        x = (x ^ (x >> 13)) * 6364136223846793005
    return x


_waiting = compiled(_wait, name="planted delay")


def _base():
    return next(each for each in kernels_for("matmul") if each.id == BASE)


def supports(specs, attrs):
    """What the product below supports."""
    return _base().why_not(specs, attrs)


@kernel("matmul", name="delayed", rank=-99, supports=supports, configs=[{"delay": 0}], binds=True)
def delayed(specs, attrs, config, threads):
    """A product, and then a delay of `config["delay"]` multiplications."""
    base, delay = _base(), config["delay"]
    product = base.bind(specs, attrs, base.configurations(specs, attrs, threads)[0], threads)

    def launch(a, b, out):
        product(a, b, out)
        _waiting(delay)

    return launch
