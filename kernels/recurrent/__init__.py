"""Recurrent layers over whole sequences, their gradients, and their cells: LSTM, GRU and plain RNN."""
