"""Plans on a GPU: their memory, their launches, and the CUDA graphs that they are captured as."""
