"""The transformer encoder in the base size of Vaswani et al. (2017), in bfloat16."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from .transformer import NETWORK as SMALL
from .transformer import Encoder, Size, draw, torch_encoder

SIZE = Size(width=512, heads=8, inner=2048, layers=6, steps=512)

NETWORK = replace(
    SMALL,
    name="transformer_gpu",
    told="transformer encoder of 6 layers, d 512, T 512, batch 32, AdamW, bfloat16",
    ours=partial(Encoder, size=SIZE),
    theirs=partial(torch_encoder, SIZE),
    draw=partial(draw, steps=SIZE.steps),
    batch=32,
    goal=0.95,
    precision="bfloat16",
)
