"""torch's own ways of computing the problems on a GPU, a file a family."""
