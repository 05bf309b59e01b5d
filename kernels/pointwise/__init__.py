"""pointwise: arithmetic, comparisons and functions of single elements, and the programs made of them."""
