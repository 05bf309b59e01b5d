"""`python -m kernelwright.bench.cuda`: see `run`."""

import sys

from .run import main

sys.exit(main())
