"""The language model of two LSTM layers in the medium size of Zaremba et al. (2014), in bfloat16."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from .lstm import NETWORK as SMALL
from .lstm import Language, torch_language

HIDDEN = 650

NETWORK = replace(
    SMALL,
    name="lstm_gpu",
    told="LSTM language model, 2 x 650, T 35, batch 20, 10,000 words, Adam, bfloat16",
    ours=partial(Language, hidden=HIDDEN),
    theirs=partial(torch_language, HIDDEN),
    goal=1.2,
    precision="bfloat16",
)
