"""`python -m kernelwright.bench.cli`."""

from . import main

main()
