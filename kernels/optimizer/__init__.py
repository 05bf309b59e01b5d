"""Updates of parameters: SGD, Adam, AdamW, RMSprop, Adagrad; each one loop over a parameter and its state."""
