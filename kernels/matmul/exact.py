"""Matrix products of float64 that are right to about the last bit: the oracle for float64 kernels.

The float64 product of NumPy cannot judge a float64 kernel: its own rounding is as large, and where it *is*
the vendor's product, the vendor's error would read 0. Here each operand is split into two slices of few bits
and a rest,

    A = A1 + A2 + R,     B = B1 + B2 + S,

so that every sum of k products of slices fits in the 53 bits of a float64: those four products are exact in
any order of summation, and the rest is too small for its rounding to matter. (Ozaki, Ogita, Oishi, Rump:
"Error-free transformations of matrix multiplication by using fast routines of matrix multiplication",
Numerical Algorithms 59, 2012. The sum at the end is Sum2 of Ogita, Rump, Oishi: "Accurate sum and dot
product", SIAM J. Sci. Comput. 26, 2005.)
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_MANTISSA = 53


def exact_matmul(a: Matrix, b: Matrix) -> Matrix:
    """`a @ b` for float64 operands, by NumPy's rules, right to a few 2**-53 even after cancellation.

    Where an infinity or a NaN takes part, the element is what NumPy's product gives. Numbers below 2**-1022
    of the largest in their row of `a` or column of `b` count as 0.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    if np.isfinite(a).all() and np.isfinite(b).all():
        product = _finite_product(left, right)
    else:
        with np.errstate(invalid="ignore"):
            plain = np.matmul(left, right)
        cleaned = _finite_product(*(np.where(np.isfinite(x), x, 0.0) for x in (left, right)))
        product = np.where(np.isfinite(plain), cleaned, plain)
    if a.ndim == 1:
        product = product[..., 0, :]
    return product[..., 0] if b.ndim == 1 else product


def _finite_product(a: Matrix, b: Matrix) -> Matrix:
    k = a.shape[-1]
    if not k or not a.size or not b.size:
        return np.matmul(a, b)
    # A slice of q bits is a whole number of at most 2**q units, and k products of two slices must stay below
    # 2**53 units; one bit is kept in hand.
    bits = (_MANTISSA - 1 - ceil(log2(k))) // 2
    a, a_exponents = _scaled(a, axis=-1)
    b, b_exponents = _scaled(b, axis=-2)
    a1, a2, a_rest = _slices(a, bits)
    b1, b2, b_rest = _slices(b, bits)
    rest = np.matmul(a, b_rest) + np.matmul(a_rest, b1 + b2)
    total = _sum([np.matmul(a1, b1), np.matmul(a1, b2), np.matmul(a2, b1), np.matmul(a2, b2), rest])
    with np.errstate(over="ignore"):
        return np.ldexp(total, a_exponents + b_exponents)


def _scaled(x: Matrix, axis: int) -> tuple[Matrix, NDArray[np.int32]]:
    """`x` with each row (axis -1) or column (axis -2) brought below 1 by a power of 2, and the exponents."""
    exponents = np.frexp(np.abs(x).max(axis=axis, keepdims=True))[1]
    return np.ldexp(x, -exponents), exponents


def _slices(x: Matrix, bits: int) -> tuple[Matrix, Matrix, Matrix]:
    """`x` as an exact sum, for |x| < 1: multiples of 2**-bits, multiples of 2**-(2 bits), and the rest."""
    first = _rounded(x, bits)
    second = _rounded(x - first, 2 * bits)
    return first, second, (x - first) - second


def _rounded(x: Matrix, bits: int) -> Matrix:
    """`x` rounded to multiples of 2**-bits: adding a large number leaves no room for anything smaller."""
    large = 1.5 * 2.0 ** (_MANTISSA - 1 - bits)
    return (x + large) - large


def _sum(terms: list[Matrix]) -> Matrix:
    """The sum of matrices, rounded as if it had been done in twice the precision."""
    total, error = terms[0], np.zeros_like(terms[0])
    for term in terms[1:]:
        new = total + term
        part = new - total
        error += (total - (new - part)) + (term - part)
        total = new
    return np.asarray(total + error)
