"""A kernel with a mistake, to see what becomes of it: `bench` shows its error and does not time it.

    kernelwright bench quick --kernel wrong_matmul.py

The mistake is one that a glance at a few results would not show: each sum lacks its last term.
"""

from __future__ import annotations

import kernelwright as kw


@kw.kernel(
    "matmul",
    dtypes=("float32", "float64"),
    supports=lambda specs, attrs: None if all(s.ndim == 2 for s in specs) else "takes two matrices",
    rank=-1,  # below every other kernel: nobody gets it without asking for it by name
)
def forgets_the_last_term(a, b, out):
    """Almost out = a @ b: the sum over k stops one term early."""
    m, k = a.shape
    for i in range(m):
        row = out[i]
        row[:] = 0
        for p in range(k - 1):
            row += a[i, p] * b[p]
