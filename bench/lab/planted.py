"""A kernel whose slowness can be set: the package's own product of matrices, and then a loop that delays.

It is an extender's file, as a comparison takes it, and is therefore kept as text and written out:

    kernelwright compare planted.py planted.py:delay=10000 --problem square-256

The delay is so many multiplications that wait for each other, which takes time by the core's clock, as the
product itself does. With `delay=0` the loop is called too.
"""

from __future__ import annotations

from pathlib import Path

from ...kernels.atomic import write_atomically
from ...kernels.paths import cache_dir

TEXT = '''"""A product of matrices that can be delayed, to see whether comparisons find that."""

from kernelwright import kernel
from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.registry import kernels_for


def wait(n):
    """The n-th of a sequence of numbers, each of which needs the one before.

    The multiplier is that of Knuth's MMIX generator; without the shift, a compiler would make one
    multiplication of eight.
    """
    x = 1
    for _ in range(n):
        x = (x ^ (x >> 13)) * 6364136223846793005
    return x


waiting = compiled(wait, name="planted delay")


def base():
    return next(each for each in kernels_for("matmul") if each.id == "matmul/cpu_numba/packed")


def supports(specs, attrs):
    return base().why_not(specs, attrs)


@kernel("matmul", name="delayed", rank=-99, supports=supports, configs=[{"delay": 0}], binds=True)
def delayed(specs, attrs, config, threads):
    product = base().bind(specs, attrs, base().configurations(specs, attrs, threads)[0], threads)
    delay = config["delay"]

    def launch(a, b, out):
        product(a, b, out)
        waiting(delay)

    return launch
'''


def written() -> Path:
    """The file, in the cache directory."""
    path = cache_dir() / "lab" / "planted.py"
    if not path.exists() or path.read_text(encoding="utf-8") != TEXT:
        write_atomically(path, TEXT)
    return path
