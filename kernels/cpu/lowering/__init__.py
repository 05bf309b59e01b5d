"""Parts of kernels straight to LLVM IR, without Numba's front end."""
