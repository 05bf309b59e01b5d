"""What a run on a GPU does: the problems that are raced, a file a family, and the jobs made of them."""
