"""Which of two is faster, and how sure that is."""
