"""Images made larger or smaller: interpolation and its gradient."""
