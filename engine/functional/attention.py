"""`scaled_dot_product_attention` as a function of Arrays, as in torch.nn.functional."""

from __future__ import annotations

from typing import Any

from ...kernels.attention.op import ATTENTION
from ...kernels.errors import ConfigError, ShapeError
from ...kernels.op import Op
from ..array import Array, asarray
from ..eager import Operand, call_all
from .shape import broadcast_to


def scaled_dot_product_attention(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    dropout_key: Operand | None = None,
) -> Array:
    """softmax(query key^T scale + mask) value, without a buffer of scores (Dao et al. 2022).

    Args:
        query: [..., L, E]; float32, float64, bfloat16 or float16, whose sums are float32.
        key: [..., S, E].
        value: [..., S, Ev]. Leading axes of the three broadcast.
        attn_mask: repeated to [..., L, S]; bool (True: takes part) or of query's dtype, added to the scores.
        dropout_p: the share of probabilities that are dropped, which asks for a dropout_key. With it, scores
            are kept in memory.
        is_causal: row i takes part in the keys 0 .. i; without a mask.
        scale: 1 / sqrt(E) unless given.
        enable_gqa: key and value may have fewer heads (the third axis from the end), each for several of
            query.
        dropout_key: of `kw.random`.

    Returns:
        [..., L, Ev], of query's dtype. A row in which nothing takes part is 0.

    Raises:
        ShapeError, DTypeError: where shapes or dtypes do not fit.
        ConfigError: for a mask beside is_causal, or dropout without a key.
    """
    if is_causal and attn_mask is not None:
        raise ConfigError(
            "scaled_dot_product_attention: is_causal takes no attn_mask beside it; write the causal part "
            "into the mask."
        )
    if dropout_p and dropout_key is None:
        raise ConfigError(
            f"scaled_dot_product_attention: dropout_p is {dropout_p}, and random numbers come from a key: "
            "give dropout_key=key, or dropout_p=0.0 where nothing is trained."
        )
    op, inputs, attrs = _prepare(query, key, value, attn_mask, 0.0, is_causal, scale, enable_gqa)
    if dropout_p:
        query, key, value, mask = inputs
        return _with_dropout(query, key, value, mask, dropout_p, is_causal, scale, dropout_key)
    out, _ = call_all(op, inputs, attrs)
    return out


def _prepare(
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Op, tuple[Any, ...], dict[str, Any]]:
    """The op behind a call without dropout."""
    attrs = {"is_causal": bool(is_causal), "scale": None if scale is None else float(scale)}
    return ATTENTION, (*_together(query, key, value, enable_gqa), attn_mask), attrs


_function: Any = scaled_dot_product_attention
_function.prepare = _prepare


def _together(query: Operand, key: Operand, value: Operand, enable_gqa: bool) -> tuple[Operand, ...]:
    """The three with equal leading axes."""
    given = (query, key, value)
    shapes: list[tuple[int, ...]] = [getattr(x, "shape", ()) for x in given]
    if any(len(s) < 2 for s in shapes):
        return given  # refused by the op, which knows what to say
    heads = [s[-3] if len(s) > 2 else 1 for s in shapes]
    if len(set(heads)) > 1 and not enable_gqa and any(h not in (1, max(heads)) for h in heads):
        raise ShapeError(
            f"scaled_dot_product_attention: query, key and value have {heads} heads; write enable_gqa=True "
            "if those of key and value are shared."
        )
    # Heads that are shared stay as they are; all other leading axes broadcast.
    kept = 1 if enable_gqa else 0
    leads = [s[:-2][: max(0, len(s) - 2 - kept)] for s in shapes]
    lead = _broadcast(leads, shapes)
    made = []
    for x, shape, own in zip(given, shapes, leads, strict=True):
        wanted = lead + shape[len(own) :]
        made.append(x if shape == wanted else broadcast_to(x if isinstance(x, Array) else asarray(x), wanted))
    return tuple(made)


def _broadcast(leads: list[tuple[int, ...]], shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    import numpy as np

    try:
        return tuple(int(n) for n in np.broadcast_shapes(*leads))
    except ValueError:
        raise ShapeError(
            f"scaled_dot_product_attention: the leading axes of query {list(shapes[0])}, key "
            f"{list(shapes[1])} and value {list(shapes[2])} do not broadcast."
        ) from None


def _with_dropout(
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    dropout_p: float,
    is_causal: bool,
    scale: Any,
    dropout_key: Any,
) -> Array:
    """The definition step by step, with probabilities dropped on the way."""
    import numpy as np

    from . import get
    from .matmul import matmul
    from .pointwise import mul, where
    from .softmax import softmax

    if query.ndim > 2 and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // max(key.shape[-3], 1)
        key, value = (get("repeat_interleave")(x, repeats, axis=-3) for x in (key, value))
    factor = max(query.shape[-1], 1) ** -0.5 if scale is None else scale
    turned = key.swapaxes(-1, -2)
    scores = matmul(mul(query, factor), turned)
    if is_causal:
        mask = np.tri(*scores.shape[-2:], dtype=bool)
    if mask is not None and mask.dtype == bool:
        scores = where(mask, scores, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return matmul(get("dropout")(softmax(scores), dropout_p, key=dropout_key), value)
