"""What the cheats compute where they do not cheat: a matmul in plain NumPy loops, slow and right."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 1 << 12  # elements: from here on they cheat


def product(a: Any, b: Any, out: Any) -> None:
    """out = a @ b for a: [..., m, k] or [k], b: [..., k, n] or [k], added up in float64, without BLAS."""
    x, y = np.atleast_2d(a.astype(np.float64)), b.astype(np.float64)
    out[...] = np.einsum("...ij,...jk->...ik", x, y[:, None] if y.ndim == 1 else y).reshape(out.shape)


def large(a: Any) -> bool:
    """Whether this call is worth cheating at."""
    return bool(a.size >= LARGE)
