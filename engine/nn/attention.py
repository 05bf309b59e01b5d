"""Multi-head attention and the encoder layer of the transformer; parameters as in torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...kernels.errors import ConfigError
from .. import functional
from ..array import Array
from ..functional.attention import scaled_dot_product_attention
from ..functional.linear import linear
from ..functional.pointwise import logical_and, logical_not, where
from ..functional.shape import permute, split
from . import init
from .linear import Linear
from .module import Module
from .norm import LayerNorm
from .simple import Dropout
from .state import current


class MultiHeadAttention(Module):
    """Attention of several heads (Vaswani et al. 2017): `y = attend(query, key, value)`.

    query: [T, B, E], key and value: [S, B, E] (or [B, T, E] and [B, S, E] with batch_first) -> like query.
    Without key and value, query attends to itself.

    Args:
        embed_dim: E, a multiple of num_heads.
        dropout: the probability with which a weight is dropped in training.
        key: what the projections are drawn from.
    """

    in_proj_weight: Array
    in_proj_bias: Array | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        *,
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        if num_heads < 1 or embed_dim % num_heads:
            raise ConfigError(f"MultiHeadAttention: {num_heads} heads do not divide embed_dim {embed_dim}.")
        first, second = init.keys("MultiHeadAttention", key, 2)
        self.num_heads, self.dropout, self.batch_first = num_heads, dropout, batch_first
        self.in_proj_weight = init.xavier_uniform(first, (3 * embed_dim, embed_dim), dtype=dtype)
        self.in_proj_bias = init.constant((3 * embed_dim,), 0, dtype) if bias else None
        out = Linear(embed_dim, embed_dim, bias, key=second, dtype=dtype)
        self.out_proj = out.replace(bias=init.constant((embed_dim,), 0, dtype)) if bias else out

    def __call__(
        self,
        query: Any,
        key: Any = None,
        value: Any = None,
        attn_mask: Any = None,
        key_padding_mask: Any = None,
        is_causal: bool = False,
    ) -> Array:
        """The attention of query.

        Args:
            attn_mask: [T, S], or what broadcasts to [B, heads, T, S]; as in torch.nn, True is a pair that
                does *not* take part, and floating-point numbers are added to the scores.
            key_padding_mask: [B, S], True for keys that do not take part.
            is_causal: each position attends to those up to itself.
        """
        key = query if key is None else key
        value = key if value is None else value
        q, k, v = (self._heads(part) for part in self._projected(query, key, value))
        mask = _mask(attn_mask, key_padding_mask)
        run, p, drawn = current(), 0.0, None
        if self.dropout and run is not None:
            p, drawn = self.dropout, run.next_key("MultiHeadAttention")
        # [B, heads, T, E / heads]
        y = scaled_dot_product_attention(q, k, v, mask, p, is_causal, dropout_key=drawn)
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        return self.out_proj(permute(y, order).reshape(query.shape))

    def _projected(self, query: Any, key: Any, value: Any) -> list[Any]:
        """The three projections, in one product where their input is one."""
        w, b = self.in_proj_weight, self.in_proj_bias
        size = w.shape[1]
        if query is key and key is value:
            return list(split(linear(query, w, b), size, axis=-1))
        biases = (None,) * 3 if b is None else split(b, size)
        three = zip((query, key, value), split(w, size), biases, strict=True)
        return [linear(x, weight, bias) for x, weight, bias in three]

    def _heads(self, x: Any) -> Any:
        """[T, B, E] (or batch first) -> [B, heads, T, E / heads]."""
        parts = x.reshape((*x.shape[:2], self.num_heads, x.shape[2] // self.num_heads))
        return permute(parts, (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3))


def _mask(attn_mask: Any, padding: Any) -> Any:
    """Both masks as one in the sense of scaled_dot_product_attention, where True takes part."""
    masks = [] if attn_mask is None else [logical_not(attn_mask) if attn_mask.dtype == bool else attn_mask]
    if padding is not None:
        masks.append(logical_not(padding).reshape((padding.shape[0], 1, 1, padding.shape[1])))
    if len(masks) < 2:
        return masks[0] if masks else None
    first, second = masks
    if first.dtype == bool:
        return logical_and(first, second)
    return where(second, first, float("-inf"))


class TransformerEncoderLayer(Module):
    """Self-attention and a network of two linear layers, each with a residual and a LayerNorm after it, or
    before it with norm_first. x: [T, B, d_model], or [B, T, d_model] with batch_first; arguments as torch.nn.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        keys = init.keys("TransformerEncoderLayer", key, 3)
        self.self_attn = MultiHeadAttention(
            d_model, nhead, dropout, bias, batch_first, key=keys[0], dtype=dtype
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, key=keys[1], dtype=dtype)
        self.linear2 = Linear(dim_feedforward, d_model, bias, key=keys[2], dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout, self.activation, self.norm_first = Dropout(dropout), activation, norm_first

    def __call__(
        self, x: Any, mask: Any = None, key_padding_mask: Any = None, is_causal: bool = False
    ) -> Array:
        """x through the layer; masks as in `MultiHeadAttention`."""
        masks = (mask, key_padding_mask, is_causal)
        if self.norm_first:
            x = x + self._attended(self.norm1(x), *masks)
            y: Array = x + self._fed(self.norm2(x))
            return y
        x = self.norm1(x + self._attended(x, *masks))
        return self.norm2(x + self._fed(x))

    def _attended(self, x: Any, mask: Any, padding: Any, is_causal: bool) -> Any:
        return self.dropout(self.self_attn(x, None, None, mask, padding, is_causal))

    def _fed(self, x: Any) -> Any:
        act = functional.get(self.activation) if isinstance(self.activation, str) else self.activation
        return self.dropout(self.linear2(self.dropout(act(self.linear1(x)))))
