"""Random numbers by a counter-based generator: each depends on a key and on its place alone."""
