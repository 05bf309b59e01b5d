"""A matmul kernel from outside the package: one file, one decorator.

    kernelwright bench quick --kernel my_matmul.py

Each row of the result is a sum of rows of b, four at a time, over a strip of columns that stays in cache.
"""

from __future__ import annotations

import kernelwright as kw


def supports(specs, attrs):
    """None, or the reason why this kernel does not take a call; specs are those of a, b and out."""
    a, b, _ = specs
    if a.ndim != 2 or b.ndim != 2:
        return "takes two matrices, no vectors and no batches"
    if a.shape[1] > 4096:
        return f"sums {a.shape[1]} terms one after the other; past 4096 that is less exact than the vendor"
    return None


@kw.kernel(
    "matmul",
    dtypes=("float32", "float64"),
    supports=supports,
    configs=[{"columns": 1024}, {"columns": 256}],
)
def by_rows(a, b, out, columns):
    """out = a @ b with a: [m, k], b: [k, n], out: [m, n]; `columns` is the width of a strip."""
    m, k = a.shape
    n = b.shape[1]
    for left in range(0, n, columns):
        right = min(n, left + columns)
        for i in range(m):
            row = out[i, left:right]
            row[:] = 0
            for p in range(0, k - 3, 4):
                x0, x1, x2, x3 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
                b0, b1 = b[p, left:right], b[p + 1, left:right]
                b2, b3 = b[p + 2, left:right], b[p + 3, left:right]
                for j in range(right - left):
                    row[j] += (x0 * b0[j] + x1 * b1[j]) + (x2 * b2[j] + x3 * b3[j])
            for p in range(k - k % 4, k):
                for j in range(right - left):
                    row[j] += a[i, p] * b[p, left + j]
