"""How many vectors make a panel, for each kind of layer; `gru_before` resets before the product with w_hn.

`lstmp`, LSTM with projections, forms its gates by the tiles of `lstm`.
"""

# Weight vectors a panel.
WEIGHTS = {"lstm": 4, "lstmp": 4, "gru": 3, "gru_before": 3, "rnn_tanh": 4, "rnn_relu": 4}
UNITS = {"lstm": 1, "lstmp": 1, "gru": 1, "gru_before": 1, "rnn_tanh": 4, "rnn_relu": 4}
SLOTS = 4  # vectors a panel of the buffer of gates
COLUMNS = 4  # vectors a panel of weights that are multiplied with alone: backward, and projections
# `gru_before` takes a step in two stages, each with its own vectors: r and z from h, then n from r h.
STAGES = {"gru_before_rz": (0, 2), "gru_before_n": (2, 3)}
