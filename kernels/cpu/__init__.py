"""Building blocks of CPU kernels: vector code, micro-kernels, packing, threads, compiled code on disk."""
