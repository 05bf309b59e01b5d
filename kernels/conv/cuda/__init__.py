"""What the convolutions on CUDA GPUs are made of: Triton functions, and what they are launched with."""
