"""How many vectors make a panel, for each kind of layer; `gru_before` resets before the product with w_hn."""

WEIGHTS = {"lstm": 4, "gru": 3, "gru_before": 3, "rnn_tanh": 4, "rnn_relu": 4}  # weight vectors a panel
UNITS = {
    "lstm": 1,
    "gru": 1,
    "gru_before": 1,
    "rnn_tanh": 4,
    "rnn_relu": 4,
}
SLOTS = 4  # vectors a panel of the buffer of gates
# `gru_before` takes a step in two stages, each with its own vectors: r and z from h, then n from r h.
STAGES = {"gru_before_rz": (0, 2), "gru_before_n": (2, 3)}
